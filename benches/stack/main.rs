//! What the HTTP layer adds to a request: CPU in process, with every part on, and requests a second over loopback.
//!
//! The handler answers with a small JSON document and does nothing else, so that what is seen is the way there. Each
//! contender is the same axum router with more around it; their rounds come in random order. The CPU is the time that
//! the one thread was on it, as the kernel counts it in nanoseconds (`/proc/thread-self/schedstat`): a machine that is
//! busy with other things makes a round longer and not dearer, apart from its caches.

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::Path,
    http::{HeaderValue, Request},
    routing::get,
};
use selfheal::{
    breaker::{self, Breakers},
    clock::Clock,
    gate::{self, Gate},
    http::{Endpoint, Endpoints, Fallback, HealLayer, Registry},
    level::{Mode, ModeCell},
    retry,
    signal::Signals,
};
use selfheal_benches::{Busy, Dice, Machine, Spread, Table};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::JoinSet,
};
use tower::ServiceExt as _;

/// Connections that are kept busy over loopback.
const CONNECTIONS: usize = 32;

/// What stands around the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Guard {
    Bare,
    Off,
    Defaults,
    Everything,
    /// Everything, once [`SEEN`] others have been there.
    Seen,
}

/// Users who have come before, each with a path of its own.
const SEEN: u64 = 1_000_000;

impl Guard {
    const ALL: [Self; 5] = [Self::Bare, Self::Off, Self::Defaults, Self::Everything, Self::Seen];

    /// As `--only` names it.
    fn find(key: &str) -> Option<Self> {
        let keys = ["bare", "off", "defaults", "everything", "seen"];
        keys.iter().position(|&known| known == key).map(|at| Self::ALL[at])
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare axum",
            Self::Off => "guarded, mode off",
            Self::Defaults => "guarded: gate, deadline, retry, circuit, valid JSON",
            Self::Everything => "the same, with a fallback that is kept and an attempt's own timeout",
            Self::Seen => "the same, after 1,000,000 users, each with a path of its own",
        }
    }

    fn app(self) -> Result<Router, Box<dyn Error>> {
        let app = Router::new().route("/api/tasks/{id}", get(task));
        let mode = match self {
            Self::Bare => return Ok(app.with_state(())),
            Self::Off => Mode::Off,
            Self::Defaults | Self::Everything | Self::Seen => Mode::Act,
        };
        let plain = Endpoint::new("/api/tasks/{id}");
        let endpoint = match self {
            Self::Everything | Self::Seen => Endpoint {
                fallback: Some(Fallback { stale_for: Duration::from_secs(60), public: false }),
                attempt_timeout: Some(Duration::from_secs(2)),
                ..plain
            },
            Self::Bare | Self::Off | Self::Defaults => plain,
        };
        let (mode, clock) = (ModeCell::new(mode), Clock::system());
        let around = breaker::Around { clock: clock.clone(), mode: mode.clone(), signals: Signals::none() };
        let gate = Gate::new(
            "main".into(),
            gate::Policy::default(),
            100,
            clock.clone(),
            mode.clone(),
            Signals::none(),
        );
        let endpoints = Endpoints::new(vec![endpoint], Endpoint::unlisted()).map_err(|_| "the endpoint")?;
        let registry = Registry::new(endpoints)
            .retry(&retry::Policy::default(), 1)
            .breakers(Breakers::new(Arc::default(), around, 1))
            .clock(clock)
            .mode(mode)
            .pool("main", gate);
        Ok(app.layer(HealLayer::new(Arc::new(registry))).with_state(()))
    }
}

#[derive(Serialize)]
struct Task {
    id: u64,
    title: &'static str,
    done: bool,
}

async fn task(Path(id): Path<u64>) -> Json<Task> {
    Json(Task { id, title: "write it down", done: false })
}

/// What a browser behind a proxy sends with each request.
const SENT: [(&str, &str); 7] = [
    ("host", "desk.example.org"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json"),
    ("accept-language", "en-GB,en;q=0.7"),
    ("accept-encoding", "gzip, br"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef"),
    ("x-forwarded-for", "203.0.113.7"),
];

/// One of 64 users asks for one of 16 things.
fn usual(n: u64) -> Result<Request<Body>, Box<dyn Error>> {
    request(n % 16, n % 64)
}

/// As hyper hands it on: the values of all headers are parts of the one buffer that was read.
fn request(task: u64, user: u64) -> Result<Request<Body>, Box<dyn Error>> {
    let user = format!("user-{user}");
    let read: Vec<u8> = SENT.iter().flat_map(|(_, value)| value.bytes()).chain(user.bytes()).collect();
    let mut read = Bytes::from(read);
    let mut request = Request::get(format!("/api/tasks/{task}"));
    for (name, value) in SENT {
        let value = HeaderValue::from_maybe_shared(read.split_to(value.len()))?;
        request = request.header(name, value);
    }
    Ok(request.header("x-user-id", HeaderValue::from_maybe_shared(read)?).body(Body::empty())?)
}

/// Nanoseconds that this thread has been on a CPU.
fn on_cpu() -> Result<u64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?)
}

/// Those who have come before; their names are nobody else's.
async fn seen(app: &Router, users: u64) -> Result<(), Box<dyn Error>> {
    for n in 0..users {
        let reply = app.clone().oneshot(request(1_000 + n, 1_000 + n)?).await?;
        to_bytes(reply.into_body(), 1 << 20).await?;
    }
    Ok(())
}

/// CPU a request, in microseconds.
async fn in_process(app: &Router, requests: u64) -> Result<f64, Box<dyn Error>> {
    let before = on_cpu()?;
    for n in 0..requests {
        let reply = app.clone().oneshot(usual(n)?).await?;
        if !reply.status().is_success() {
            return Err(format!("a reply with {}", reply.status()).into());
        }
        to_bytes(reply.into_body(), 1 << 20).await?;
    }
    Ok((on_cpu()? - before) as f64 / requests as f64 / 1_000.0)
}

/// Requests a second over kept connections.
async fn over_loopback(app: Router, lasts: Duration) -> Result<f64, Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(axum::serve(listener, app).await) });
    let answered = Arc::new(AtomicU64::new(0));
    for n in 0..CONNECTIONS {
        let (answered, mut stream) = (Arc::clone(&answered), TcpStream::connect(address).await?);
        let ask = format!(
            "GET /api/tasks/{n} HTTP/1.1\r\nhost: desk\r\naccept: application/json\r\nx-user-id: user-{n}\r\n\r\n"
        );
        tasks.spawn(async move {
            let mut reply = vec![0; 4096];
            // A reply of this size comes in one piece; whatever else comes ends the connection, and is seen in the sum.
            while stream.write_all(ask.as_bytes()).await.is_ok() {
                match stream.read(&mut reply).await {
                    Ok(length) if length > 0 && reply.starts_with(b"HTTP/1.1 200") => {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) | Err(_) => break,
                }
            }
        });
    }
    tokio::time::sleep(lasts / 10).await;
    let (clock, before) = (Clock::system(), answered.load(Ordering::Relaxed));
    let start = clock.now();
    tokio::time::sleep(lasts).await;
    let (span, all) = (clock.now().since(start), answered.load(Ordering::Relaxed));
    tasks.shutdown().await;
    Ok((all - before) as f64 / span.as_secs_f64())
}

type Figures = BTreeMap<Guard, Vec<f64>>;

fn shuffled(dice: &mut Dice) -> [Guard; 5] {
    let mut order = Guard::ALL;
    dice.shuffle(&mut order);
    order
}

fn measure(
    rounds: u64,
    requests: u64,
    users: u64,
    lasts: Duration,
) -> Result<(Figures, Figures), Box<dyn Error>> {
    let mut dice = Dice::new(1);
    let (mut cpu, mut rate) = (Figures::new(), Figures::new());
    let one = Builder::new_current_thread().enable_all().build()?;
    let many = Builder::new_multi_thread().enable_all().build()?;
    let apps: BTreeMap<_, _> =
        Guard::ALL.iter().map(|&guard| Ok((guard, guard.app()?))).collect::<Result<_, Box<dyn Error>>>()?;
    one.block_on(seen(&apps[&Guard::Seen], users))?;
    for guard in Guard::ALL {
        one.block_on(in_process(&apps[&guard], requests / 10))?;
    }
    for _ in 0..rounds {
        for guard in shuffled(&mut dice) {
            cpu.entry(guard).or_default().push(one.block_on(in_process(&apps[&guard], requests))?);
        }
        for guard in shuffled(&mut dice) {
            rate.entry(guard).or_default().push(many.block_on(over_loopback(apps[&guard].clone(), lasts))?);
        }
    }
    Ok((cpu, rate))
}

fn report(cpu: &Figures, rate: &Figures) -> Option<(Table, f64)> {
    let mut table = Table::new(["", "CPU a request, µs", "added, µs", "requests/s over loopback", "of bare"]);
    let (bare_cpu, bare_rate) =
        (Spread::of(cpu[&Guard::Bare].clone())?, Spread::of(rate[&Guard::Bare].clone())?);
    let mut most = 0.0;
    for guard in Guard::ALL {
        let (cpu, rate) = (Spread::of(cpu[&guard].clone())?, Spread::of(rate[&guard].clone())?);
        let added = cpu.median - bare_cpu.median;
        most = f64::max(most, added);
        table.row([
            guard.name().to_owned(),
            format!("{cpu:.2}"),
            format!("{added:.2}"),
            format!("{rate:.0}"),
            format!("{:.2}", rate.median / bare_rate.median),
        ]);
    }
    Some((table, most))
}

/// One contender in process, and nothing else: what a profiler is put on.
fn only(guard: Guard, requests: u64) -> Result<f64, Box<dyn Error>> {
    let (app, runtime) = (guard.app()?, Builder::new_current_thread().enable_all().build()?);
    if guard == Guard::Seen {
        runtime.block_on(seen(&app, SEEN))?;
    }
    runtime.block_on(in_process(&app, requests))
}

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flag, key, requests] = &arguments[..]
        && flag == "--only"
        && let (Some(guard), Ok(requests)) = (Guard::find(key), requests.parse())
    {
        return match only(guard, requests) {
            Ok(micros) => {
                println!("{}: {micros:.2} µs a request", guard.name());
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("not measured: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let quick = arguments.iter().any(|argument| argument == "--smoke");
    let (rounds, requests, users, lasts) = match quick {
        true => (3, 20_000, SEEN / 20, Duration::from_millis(300)),
        false => (11, 100_000, SEEN, Duration::from_secs(2)),
    };
    println!("{}", Machine::here());
    println!(
        "{rounds} rounds of {requests} requests in process on one thread, and of {lasts:?} over {CONNECTIONS} connections\n"
    );
    let busy = Busy::start();
    let measured = measure(rounds, requests, users, lasts);
    let shares = busy.share();
    match measured.as_ref().map(|(cpu, rate)| report(cpu, rate)) {
        Ok(Some((table, most))) => {
            println!("{table}");
            println!("every part on adds at most {most:.2} µs a request");
            println!(
                "the machine was {:.0} % busy, this program {:.0} %",
                shares.machine * 100.0,
                shares.own * 100.0
            );
            ExitCode::SUCCESS
        }
        Ok(None) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("not measured: {error}");
            ExitCode::FAILURE
        }
    }
}
