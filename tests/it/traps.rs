//! What other libraries were found to get wrong around a circuit: its metric, its state in a layer, those who wait,
//! and limits that each clone has for itself. Each is a scenario that this one passes; the traps of the circuit
//! proper stand beside it, in `actors/breaker/tests/traps.rs`, and are numbered with these.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use axum::{Router, http::StatusCode, routing::any};
use selfheal::{
    admin::Reading,
    http::{Endpoint, Endpoints, HealLayer, Registry},
    metrics::Exporter,
};
use selfheal_actors::{
    breaker::{Around, Breaker, Breakers, Command, Order, Policy},
    circuit::Circuit,
    clock::Clock,
    gate::{Change, Hold, Ticket},
    level::{Class, Mode, ModeCell, Severity},
    signal::Signals,
    threshold::Threshold,
};
use tower::ServiceExt as _;

use crate::support::{gate, get, get_as, guarded, layer, over_tcp, send};

fn reading(breakers: &Breakers) -> Reading {
    Reading {
        service: "desk".into(),
        at: SystemTime::UNIX_EPOCH,
        uptime: Duration::ZERO,
        mode: Mode::Act,
        severity: Severity::Info,
        up: true,
        pools: Vec::new(),
        children: Vec::new(),
        incidents: Vec::new(),
        breakers: breakers.all().iter().map(Breaker::view).collect(),
        label_overflow: 0,
        transitions: Vec::new(),
        queues: Vec::new(),
        batches: Vec::new(),
    }
}

/// Circuits that open with the third failure in a row.
fn touchy(clock: Clock) -> Breakers {
    let around = Around { clock, mode: ModeCell::new(Mode::Act), signals: Signals::none() };
    let policy = Policy { consecutive_failures: Some(Threshold::AtLeast(3.0)), ..Policy::default() };
    Breakers::new(Arc::new(policy), around, 0)
}

#[test]
fn d6_a_circuit_shows_one_state_at_a_time_and_the_others_read_0() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let exporter = Exporter::of(recorder.handle());
    let (clock, hand) = Clock::manual();
    let breakers = touchy(clock);
    let circuit = breakers.endpoint("/x");
    let shows = |expected: Circuit| {
        let text = metrics::with_local_recorder(&recorder, || exporter.render(&reading(&breakers)));
        let text = text.expect("it is ours to show");
        let mut on = Vec::new();
        for line in text.lines().filter(|line| line.starts_with("selfheal_breaker_state{endpoint=\"/x\"")) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let state = series.split("state=\"").nth(1).and_then(|rest| rest.split('"').next());
            match value {
                "1" => on.push(state.expect("a state").to_owned()),
                "0" => {}
                other => panic!("{series} is {other}"),
            }
        }
        assert_eq!(on, [expected.name()], "{text}");
        assert_eq!(circuit.shows(), expected);
    };
    let order = |order| circuit.operate(&Command::new(order, "test", "a trap")).expect("it makes sense");
    shows(Circuit::Closed);
    for _ in 0..3 {
        circuit.admit().expect("it is closed").failure();
    }
    shows(Circuit::Open);
    hand.advance(Duration::from_secs(30));
    let probe = circuit.admit().expect("its time is over");
    shows(Circuit::HalfOpen);
    probe.success();
    shows(Circuit::Closed);
    for (asked, shown) in [
        (Order::ForceOpen, Circuit::ForcedOpen),
        (Order::ForceClosed, Circuit::ForcedClosed),
        (Order::Disabled, Circuit::Disabled),
        (Order::MetricsOnly, Circuit::MetricsOnly),
    ] {
        order(asked);
        shows(shown);
    }
    circuit.shed(true);
    order(Order::Auto);
    shows(Circuit::Shed);
    circuit.shed(false);
    shows(Circuit::Closed);
}

/// A layer with circuits over one endpoint whose handlers always fail.
fn failing() -> (Breakers, HealLayer) {
    let breakers = touchy(Clock::tokio());
    let list = vec![Endpoint { retry: false, ..Endpoint::new("/{*rest}") }];
    let endpoints = Endpoints::new(list, Endpoint::unlisted()).expect("it is valid");
    let registry = Registry::new(endpoints).clock(Clock::tokio()).breakers(breakers.clone());
    (breakers, layer(registry))
}

async fn fails() -> (StatusCode, &'static str) {
    (StatusCode::NOT_IMPLEMENTED, "{}")
}

async fn code(app: &Router, path: &str) -> serde_json::Value {
    send(app, get(path)).await.json()["code"].clone()
}

#[tokio::test]
async fn d7_a_layer_that_is_applied_again_and_again_is_one_circuit() {
    // A bare router applies it anew for each request …
    let (_, layer) = failing();
    let bare = Router::new().route("/a", any(fails)).layer(layer);
    for _ in 0..3 {
        assert_ne!(code(&bare, "/a").await, "circuit_open");
    }
    assert_eq!(code(&bare, "/a").await, "circuit_open");
    // … a router with several routes once for each of them, and for what none of them matches …
    let (_, layer) = failing();
    let several = Router::new().route("/a", any(fails)).route("/b", any(fails)).fallback(fails);
    let several = several.layer(layer.clone());
    for path in ["/a", "/b", "/c"] {
        assert_ne!(code(&several, path).await, "circuit_open", "{path}");
    }
    for path in ["/a", "/b", "/c"] {
        assert_eq!(code(&several, path).await, "circuit_open", "{path}");
    }
    // … and so does whoever applies it to another router.
    let other = Router::new().route("/d", any(fails)).layer(layer);
    assert_eq!(code(&other, "/d").await, "circuit_open");
}

#[tokio::test]
async fn d7_and_so_it_is_over_all_connections_of_a_server() {
    let (breakers, layer) = failing();
    let app = Router::new().route("/a", any(fails)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let served = app.into_make_service_with_connect_info::<SocketAddr>();
    let calls = async {
        for _ in 0..3 {
            let reply = over_tcp(address, "/a", "").await;
            assert!(reply.starts_with("HTTP/1.1 501"), "{reply}");
        }
        over_tcp(address, "/a", "").await
    };
    let last = tokio::select! {
        last = calls => last,
        ended = axum::serve(listener, served) => panic!("the server ended: {ended:?}"),
    };
    assert!(last.contains("\"code\":\"circuit_open\""), "{last}");
    assert_eq!(breakers.all().len(), 1);
}

/// Counts how often the future in it is polled.
struct Polled<F>(Pin<Box<F>>, Arc<AtomicU32>);

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.as_mut().poll(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn d8_who_waits_is_polled_when_there_is_something_and_outlives_whom_he_waits_for() {
    let gate = gate(1, &ModeCell::new(Mode::Act));
    let deadline = Clock::tokio().now() + Duration::from_secs(3_600);
    let ticket = || Ticket::new(Class::Normal).with_deadline(deadline);
    let held = gate.acquire(Some(&ticket()), Hold::here()).await.expect("it is free");
    let polls = Arc::new(AtomicU32::new(0));
    let mut waiting = pin!(Polled(Box::pin(gate.acquire(Some(&ticket()), Hold::here())), Arc::clone(&polls)));
    let patience = tokio::time::timeout(Duration::from_secs(600), waiting.as_mut()).await;
    assert!(patience.is_err(), "there is one, and it is held");
    let seen = polls.load(Ordering::Relaxed);
    assert!(seen <= 3, "polled {seen} times in ten minutes");
    // The one who holds it panics: whoever waits goes on.
    let holder = tokio::task::spawn_blocking(move || {
        let _held = held;
        panic!("planted");
    });
    assert!(holder.await.is_err());
    drop(waiting.await.expect("it is free again"));
}

#[tokio::test]
async fn d13_a_limit_is_one_for_all_clones_of_a_service() {
    const CALLERS: u32 = 1_500;
    let (gate, registry) =
        guarded(Endpoints::new(vec![Endpoint::new("/door")], Endpoint::unlisted()).expect("it is valid"));
    gate.apply(Change::UserLimit(Some(5)));
    let inside = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&inside);
    let route = any(move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<&'static str>()
    });
    let app = Router::new().route("/door", route).layer(layer(registry)).with_state(());
    let mut callers: Vec<_> =
        (0..CALLERS).map(|_| Box::pin(app.clone().oneshot(get_as("/door", "ann")))).collect();
    let mut refused = 0;
    for caller in &mut callers {
        if let Poll::Ready(reply) = futures_util::poll!(caller) {
            assert_eq!(reply.expect("it is infallible").status(), StatusCode::TOO_MANY_REQUESTS);
            refused += 1;
        }
    }
    assert_eq!((inside.load(Ordering::Relaxed), refused), (5, CALLERS - 5));
    drop(callers);
    assert_eq!(gate.stats().in_flight, 0);
}
