//! Callers who mean no good. Each request is another user's, many are for paths that nobody has heard of, and not a
//! few are no HTTP at all.

use std::{
    fmt,
    net::SocketAddr,
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fastrand::Rng;
use selfheal::clock::{Clock, Tick};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

/// Longer than any reply may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests over one connection, before it is left.
const REQUESTS: u32 = 32;

/// An attack on one service.
pub(super) struct Attack {
    address: SocketAddr,
    random: Rng,
}

/// What was sent and what came back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    requests: u64,
    replies: u64,
    garbage: u64,
    abandoned: u64,
    /// Requests to which nothing came back, though somebody waited.
    unanswered: u64,
}

/// What a caller does with a connection next.
enum Do {
    /// Asks, and reads the reply.
    Ask(String),
    /// Sends this, and goes.
    Leave(String),
    /// Sends this, which is no request, and reads until it is thrown out.
    Annoy(Vec<u8>),
}

impl Attack {
    pub(super) fn new(address: SocketAddr, seed: u64) -> Self {
        Self { address, random: Rng::with_seed(seed) }
    }

    /// So many attackers at once, until then.
    pub(super) async fn run(mut self, attackers: usize, until: Tick) -> Sent {
        let (mut all, mut sent) = (JoinSet::new(), Sent::default());
        for _ in 0..attackers {
            all.spawn(attacker(self.address, self.random.fork(), until));
        }
        while let Some(of_one) = all.join_next().await {
            sent += of_one.expect("no attacker fails");
        }
        sent
    }
}

async fn attacker(address: SocketAddr, mut random: Rng, until: Tick) -> Sent {
    let (clock, mut sent) = (Clock::system(), Sent::default());
    while clock.now() < until {
        let Ok(mut connection) = TcpStream::connect(address).await else { continue };
        for _ in 0..REQUESTS {
            if clock.now() >= until || !next(&mut connection, &mut random, &mut sent).await {
                break;
            }
        }
    }
    sent
}

/// One thing over a connection. False if that was its last.
async fn next(connection: &mut TcpStream, random: &mut Rng, sent: &mut Sent) -> bool {
    match plan(random) {
        Do::Ask(request) => {
            sent.requests += 1;
            let reply = timeout(PATIENCE, exchange(connection, request.as_bytes())).await;
            let answered = matches!(reply, Ok(Ok(_)));
            *(if answered { &mut sent.replies } else { &mut sent.unanswered }) += 1;
            answered
        }
        Do::Leave(part) => {
            sent.abandoned += 1;
            // Whether it arrives is not its sender's concern.
            let _ = connection.write_all(part.as_bytes()).await;
            tokio::time::sleep(Duration::from_micros(random.u64(..3_000))).await;
            false
        }
        Do::Annoy(garbage) => {
            sent.garbage += 1;
            let _ = connection.write_all(&garbage).await;
            let mut rest = [0; 4096];
            while matches!(timeout(Duration::from_secs(1), connection.read(&mut rest)).await, Ok(Ok(1..))) {}
            false
        }
    }
}

fn plan(random: &mut Rng) -> Do {
    static USERS: AtomicU64 = AtomicU64::new(0);
    let number = USERS.fetch_add(1, Ordering::Relaxed);
    let request = |method: &str, path: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nx-user-id: user {number}\r\nx-request-id: r{number}\r\ncontent-length: 0\r\n\r\n"
        )
    };
    match random.u8(..100) {
        0..30 => Do::Ask(request("POST", "/api/auth/login")),
        30..36 => Do::Ask(request("GET", "/api/dashboard")),
        36..46 => Do::Ask(request("GET", "/api/reports")),
        46..66 => Do::Ask(request("GET", &format!("/{number}/{}?{number}", random.alphanumeric()))),
        66..71 => Do::Ask(request("GET", "/api/html")),
        71..75 => Do::Ask(request("GET", "/api/panic")),
        75..78 => Do::Ask(request("GET", "/api/never")),
        78..82 => Do::Ask(request(&format!("M{number}"), "/api/reports")),
        // With a Host that is not this machine's, and without a token.
        82..86 => Do::Ask(request("POST", "/admin/self-healing/api/v1/mode")),
        86..90 => Do::Leave(request("GET", "/api/dashboard")),
        90..93 => Do::Leave(request("POST", "/api/auth/login")[..20].to_owned()),
        93..96 => {
            let body = format!(
                "POST /api/auth/login HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{number}"
            );
            Do::Leave(body)
        }
        96..98 => Do::Annoy((0..random.usize(1..2_000)).map(|_| random.u8(..)).chain(*b"\r\n\r\n").collect()),
        _ => Do::Annoy(request("GET", &format!("/{}", "x".repeat(random.usize(..600_000)))).into_bytes()),
    }
}

/// Sends a request and reads one reply, body and all.
async fn exchange(connection: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    connection.write_all(request).await?;
    let mut reply = Vec::new();
    while !is_whole(&reply) {
        if connection.read_buf(&mut reply).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(reply)
}

fn is_whole(reply: &[u8]) -> bool {
    let text = String::from_utf8_lossy(reply);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    match head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        Some(length) => length.trim().parse().is_ok_and(|length: usize| body.len() >= length),
        None => !head.contains("transfer-encoding: chunked") || body.ends_with("0\r\n\r\n"),
    }
}

/// One request of somebody who is welcome, over a connection of its own.
pub(super) async fn ask(address: SocketAddr, path: &str) -> String {
    let mut connection = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut reply = String::new();
    connection.read_to_string(&mut reply).await.expect("it answers");
    reply
}

impl Sent {
    /// Whoever asked in good form, and waited, got a reply.
    pub(super) fn everybody_was_answered(&self) {
        assert_eq!((self.unanswered, self.replies), (0, self.requests), "{self}");
        assert!(self.requests > 0 && self.garbage > 0 && self.abandoned > 0, "{self}");
    }
}

impl AddAssign for Sent {
    fn add_assign(&mut self, more: Self) {
        self.requests += more.requests;
        self.replies += more.replies;
        self.garbage += more.garbage;
        self.abandoned += more.abandoned;
        self.unanswered += more.unanswered;
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, replies, garbage, abandoned, unanswered } = self;
        write!(
            f,
            "{requests} requests, {replies} replies, {unanswered} unanswered, {garbage} garbage, {abandoned} abandoned"
        )
    }
}
