//! What several scenarios need: a seed that is printed and replayed, a gate, and a plain HTTP client.

use std::{env, net::SocketAddr, process::Command, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, Response, StatusCode},
};
use selfheal::http::{Endpoints, HealLayer, Registry};
use selfheal_actors::{
    clock::Clock,
    gate::{Gate, Policy},
    level::{Mode, ModeCell},
    signal::Signals,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower::ServiceExt as _;

/// A random source from `SEED=…` of the environment, else `default`; printed, so that a failure can be replayed.
pub(crate) fn random(default: u64) -> fastrand::Rng {
    #[expect(clippy::disallowed_methods, reason = "a test is replayed by its environment")]
    let given = env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(default);
    eprintln!("SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// Runs `test`, which is called `name`, in a process of its own: what it measures of its process (the memory that is
/// resident) is then what it did, and not what the tests beside it did meanwhile.
pub(crate) fn in_a_process_of_its_own(name: &str, test: impl FnOnce()) {
    const ALONE: &str = "SELFHEAL_ALONE";
    #[expect(clippy::disallowed_methods, reason = "how the process that is started knows what it is")]
    if env::var(ALONE).is_ok_and(|alone| alone == name) {
        return test();
    }
    let binary = env::current_exe().expect("a test is a program");
    let run = Command::new(binary).args([name, "--exact", "--nocapture"]).env(ALONE, name).output();
    let output = run.expect("it can be started again");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Bytes that this process has in memory.
pub(crate) fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = pages.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// A gate in front of `limit` connections, on tokio's clock.
pub(crate) fn gate(limit: u32, mode: &ModeCell) -> Gate {
    Gate::new("main".into(), Policy::default(), limit, Clock::tokio(), mode.clone(), Signals::none())
}

/// A registry with one pool of 10 connections, in mode `act`, on tokio's clock.
pub(crate) fn guarded(endpoints: Endpoints) -> (Gate, Registry) {
    let mode = ModeCell::new(Mode::Act);
    let gate = gate(10, &mode);
    let registry = Registry::new(endpoints).clock(Clock::tokio()).mode(mode).pool("main", gate.clone());
    (gate, registry)
}

pub(crate) fn layer(registry: Registry) -> HealLayer {
    HealLayer::new(Arc::new(registry))
}

/// A reply, read to its end.
pub(crate) struct Reply {
    pub(crate) head: Response<()>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.head.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// Sends one request to a router in process.
pub(crate) async fn send(app: &Router, request: Request<Body>) -> Reply {
    let response = app.clone().oneshot(request).await.expect("it is infallible");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a whole body");
    Reply { head: Response::from_parts(parts, ()), body }
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).expect("a request")
}

pub(crate) fn get_as(path: &str, user: &str) -> Request<Body> {
    Request::get(path).header("x-user-id", user).body(Body::empty()).expect("a request")
}

/// Sends one request over a connection of its own and returns all that came back, as text.
pub(crate) async fn over_tcp(to: SocketAddr, path: &str, headers: &str) -> String {
    let mut connection = TcpStream::connect(to).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
    connection.write_all(request.as_bytes()).await.expect("it reads");
    let mut reply = Vec::new();
    connection.read_to_end(&mut reply).await.expect("it answers");
    String::from_utf8_lossy(&reply).into_owned()
}
