//! The layer with every part on: what its callers, its handlers and its upstreams do at random, and what must hold
//! nevertheless.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Query,
    http::{Method, Request, Response, StatusCode},
    response::IntoResponse as _,
    routing::any,
};
use futures_util::{StreamExt as _, stream};
use selfheal::{
    breaker::{Around, Breakers, Policy},
    circuit::Circuit,
    clock::Clock,
    gate::{Change, Gate},
    http::{Endpoint, Endpoints, Fallback, Registry},
    level::{Class, Mode, ModeCell},
    retry,
    signal::Signals,
};
use serde::Deserialize;
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::{
    guarded::cancellations,
    leaving::{Reply, frames, hold, poll_and_drop},
    support::{gate, get_as, in_a_process_of_its_own, layer, random, resident, send},
};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// An endpoint with everything that one can have.
pub(crate) fn endpoint(path: &str) -> Endpoint {
    let fallback = Some(Fallback { stale_for: S(60), public: false });
    Endpoint { deadline: S(5), attempt_timeout: Some(S(1)), fallback, ..Endpoint::new(path) }
}

/// A registry over `list` with every part on, its gate and its circuits.
pub(crate) fn everything(list: Vec<Endpoint>, policy: Policy) -> (Gate, Breakers, Registry) {
    let mode = ModeCell::new(Mode::Act);
    let around = Around { clock: Clock::tokio(), mode: mode.clone(), signals: Signals::none() };
    let breakers = Breakers::new(Arc::new(policy), around, 0);
    let gate = gate(10, &mode);
    let endpoints = Endpoints::new(list, Endpoint::unlisted()).expect("they are valid");
    let registry = Registry::new(endpoints)
        .retry(&retry::Policy::default(), 0)
        .breakers(breakers.clone())
        .clock(Clock::tokio())
        .mode(mode)
        .pool("main", gate.clone());
    (gate, breakers, registry)
}

#[derive(Clone, Copy, Deserialize)]
struct Steps {
    before: u32,
    holding: u32,
    streamed: u32,
    status: u16,
}

/// Holds a connection, and answers: well, with a stream, or not.
async fn work(gate: Gate, steps: Steps) -> Response<Body> {
    hold(&gate, steps.before, steps.holding).await;
    let status = StatusCode::from_u16(steps.status).expect("a status");
    if steps.streamed == 0 {
        return (status, [("content-type", "application/json")], "{}").into_response();
    }
    (status, [("content-type", "text/event-stream")], frames(gate, steps.streamed)).into_response()
}

fn drawn(random: &mut fastrand::Rng) -> Request<Body> {
    let (before, holding, streamed) = (random.u32(0..3), random.u32(0..4), random.u32(0..3));
    let status = *random.choice(&[200, 200, 200, 404, 500, 503]).expect("some");
    let path = format!("/work?before={before}&holding={holding}&streamed={streamed}&status={status}");
    let user = format!("u{}", random.u32(0..20));
    let mut request = get_as(&path, &user);
    if random.u8(0..4) == 0 {
        *request.method_mut() = Method::POST;
        *request.body_mut() = Body::from("{}");
        if random.bool() {
            let key = format!("key-{}", random.u32(0..50)).parse().expect("a header");
            request.headers_mut().insert("idempotency-key", key);
        }
    }
    request
}

#[tokio::test(start_paused = true)]
async fn callers_that_go_away_at_any_moment_leave_nothing_behind_and_no_circuit_stuck() {
    let mut random = random(11);
    let brief = Policy { open_for: MS(50), ..Policy::default() };
    let (gate, breakers, registry) = everything(vec![endpoint("/work")], brief);
    gate.apply(Change::UserLimit(Some(3)));
    let held = gate.clone();
    let route = any(move |Query(steps): Query<Steps>| work(held.clone(), steps));
    let app = Router::new().route("/work", route);
    let mut service = layer(registry).layer(app);
    let mut call = |request| -> Reply {
        let reply = service.call(request);
        Box::pin(async move { reply.await.expect("it is infallible") })
    };
    let circuit = breakers.endpoint("/work");
    let (mut parked, mut opened): (Vec<Reply>, _) = (Vec::new(), 0);
    for n in 0..cancellations(10_000) {
        let request = drawn(&mut random);
        if random.u8(0..8) == 0 {
            let mut future = call(request);
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            parked.push(future);
        } else {
            poll_and_drop(call(request), random.u32(0..16));
        }
        if parked.len() > 30 {
            drop(parked.swap_remove(random.usize(0..parked.len())));
        }
        opened += usize::from(circuit.shows() == Circuit::Open);
        if n % 10 == 0 {
            // Sleeps end, circuits half-open, and what goes on without its caller has its turn.
            tokio::time::advance(MS(random.u64(0..40))).await;
            tokio::task::yield_now().await;
        }
        let stats = gate.stats();
        assert!(stats.in_use <= stats.limit, "{stats:?}");
    }
    drop(parked);
    assert!(opened > 10, "the circuit was open {opened} times");
    // What outlives its caller ends within its own time.
    tokio::time::sleep(S(120)).await;
    let stats = gate.stats();
    assert_eq!((stats.in_use, stats.in_flight, stats.users), (0, 0, 0), "{stats:?}");
    assert_eq!((stats.waiting_in_all(), stats.parked), (0, 0), "{stats:?}");
    assert_eq!(gate.invariants(), Vec::<&str>::new());
    let reply = call(get_as("/work?before=0&holding=0&streamed=0&status=200", "last")).await;
    assert_eq!((reply.status().as_u16(), circuit.shows()), (200, Circuit::Closed), "no probe is lost");
}

#[tokio::test]
async fn a_body_of_a_gibibyte_is_never_held() {
    const GIBIBYTE: usize = 1 << 30;
    const CHUNK: usize = 1 << 20;
    let (gate, _, registry) = everything(vec![Endpoint::new("/{kind}")], Policy::default());
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let pour = move |axum::extract::Path(kind): axum::extract::Path<String>| {
        let (count, chunk) = (Arc::clone(&count), Bytes::from(vec![b' '; CHUNK]));
        async move {
            let chunks = stream::iter(0..GIBIBYTE / CHUNK).map(move |_| {
                count.fetch_add(CHUNK, Ordering::Relaxed);
                Ok::<_, std::io::Error>(chunk.clone())
            });
            let kind = if kind == "json" { "application/json" } else { "text/html" };
            ([("content-type", kind)], Body::from_stream(chunks))
        }
    };
    let app = Router::new().route("/{kind}", any(pour)).layer(layer(registry));
    let replaced = send(&app, get_as("/html", "ann")).await;
    assert_eq!((replaced.status().as_u16(), &replaced.json()["code"]), (503, &"upstream_invalid".into()));
    assert!(
        sent.load(Ordering::Relaxed) <= 2 * 3 * CHUNK,
        "it is read as far as it can be judged, and tried twice"
    );
    let response = tower::ServiceExt::oneshot(app, get_as("/json", "ann")).await.expect("it is infallible");
    let mut passed = 0;
    let mut body = response.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        passed += chunk.expect("a whole one").len();
    }
    assert_eq!((passed, gate.stats().in_flight), (GIBIBYTE, 0), "what is declared JSON passes as it comes");
}

#[test]
fn what_callers_make_up_is_neither_a_label_nor_kept_beyond_its_bound() {
    let name = "whole_layer::what_callers_make_up_is_neither_a_label_nor_kept_beyond_its_bound";
    in_a_process_of_its_own(name, many_callers_leave_what_is_bounded);
}

fn many_callers_leave_what_is_bounded() {
    // The long form has a million.
    #[expect(clippy::disallowed_methods, reason = "the long form of the checks asks for more")]
    let callers = std::env::var("SELFHEAL_CALLERS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000_u32);
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let list = vec![endpoint("/kept/{id}"), endpoint("/fails/{id}"), Endpoint::new("/plain/{*rest}")];
    let (gate, breakers, registry) = everything(list, Policy::default());
    let say =
        |status: StatusCode| move || async move { (status, [("content-type", "application/json")], "{}") };
    let app = Router::new()
        .route("/kept/{id}", any(say(StatusCode::OK)))
        .route("/fails/{id}", any(say(StatusCode::NOT_IMPLEMENTED)))
        .fallback(say(StatusCode::OK))
        .layer(layer(registry))
        .with_state(());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let mut before = 0;
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            for n in 0..callers {
                if n == callers / 2 {
                    before = resident();
                }
                let path = ["kept", "fails", "plain", "made/up"][n as usize % 4];
                let mut request = get_as(&format!("/{path}/{n}"), &format!("user-{n}"));
                if n % 8 == 3 {
                    *request.method_mut() = Method::POST;
                    request
                        .headers_mut()
                        .insert("idempotency-key", format!("key-{n}").parse().expect("a header"));
                }
                send(&app, request).await;
            }
        });
    });
    let text = handle.render();
    let labels: std::collections::BTreeSet<_> =
        text.lines().filter_map(|line| line.split("endpoint=\"").nth(1)?.split('"').next()).collect();
    assert!(
        labels.iter().all(|label| ["/kept/{id}", "/fails/{id}", "/plain/{*rest}", "other"].contains(label)),
        "{labels:?}"
    );
    assert!(breakers.all().len() <= 4, "{:?}", breakers.all());
    assert_eq!((gate.stats().users, gate.stats().in_flight), (0, 0));
    // Both stores are full by the half: what comes in pushes others out.
    let grown = resident().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes for {callers} callers");
}

#[tokio::test(start_paused = true)]
async fn with_every_part_on_sheddable_work_is_refused_first_and_critical_work_never_by_a_level() {
    let (gate, _, registry) = everything(
        vec![
            Endpoint { class: Class::Critical, ..endpoint("/login") },
            Endpoint { class: Class::Sheddable, ..endpoint("/reports") },
        ],
        Policy::default(),
    );
    let app = Router::new().fallback(|| async { "{}" }).layer(layer(registry));
    for change in [
        Change::Shed(true),
        Change::CriticalOnly(true),
        Change::OmitOptional(true),
        Change::UserLimit(Some(1)),
    ] {
        gate.apply(change);
    }
    assert_eq!(send(&app, get_as("/login", "ann")).await.status(), 200);
    assert_eq!(send(&app, get_as("/reports", "ann")).await.status(), 503);
}

#[tokio::test(start_paused = true)]
async fn how_long_calls_take_is_known_by_endpoint_and_outcome() {
    let quiet = Endpoint { retry: false, ..endpoint("/{kind}") };
    let (_, breakers, registry) = everything(vec![quiet], Policy::default());
    let work = |axum::extract::Path(kind): axum::extract::Path<String>| async move {
        tokio::time::sleep(MS(if kind == "slow" { 400 } else { 3 })).await;
        if kind == "bad" { (StatusCode::NOT_IMPLEMENTED, "{}") } else { (StatusCode::OK, "{}") }
    };
    let app = Router::new().route("/{kind}", any(work)).layer(layer(registry));
    for kind in ["good", "slow", "bad"] {
        send(&app, get_as(&format!("/{kind}"), "ann")).await;
    }
    let seen = breakers.endpoint("/{kind}").view().durations;
    let seen: Vec<_> = seen.iter().map(|(how, took)| (how.name(), took.count(), took.sum())).collect();
    assert_eq!(seen, [("success", 2, MS(403)), ("failure", 1, MS(3)), ("ignored", 0, MS(0))]);
}
