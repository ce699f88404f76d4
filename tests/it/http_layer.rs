//! The layer's own promises: nothing leaks when a caller goes away, applying it again changes nothing, and what
//! it keeps does not grow with what callers make up.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::Query,
    http::{Response, StatusCode},
    routing::{any, get as on_get},
};
use futures_util::StreamExt as _;
use parking_lot::Mutex;
use selfheal::http::{Endpoint, Endpoints, Felt, HealLayer, Impact, Optional, Registry, RequestId};
use selfheal_actors::{
    clock::Clock,
    gate::{Change, Gate, Ticket},
    level::{Class, Mode, ModeCell},
};
use serde::Deserialize;
use tokio::sync::Notify;
use tower::ServiceExt as _;
use tower_layer::Layer as _;
use tower_service::Service as _;

use crate::{
    guarded::cancellations,
    leaving::{Reply, frames, hold, poll_and_drop},
    support::{gate, get, get_as, guarded, in_a_process_of_its_own, layer, over_tcp, random, resident, send},
};

fn endpoints(list: Vec<Endpoint>) -> Endpoints {
    Endpoints::new(list, Endpoint::unlisted()).expect("they are valid")
}

#[derive(Clone, Copy, Deserialize)]
struct Steps {
    before: u32,
    holding: u32,
    streamed: u32,
}

/// Holds a connection, and streams a body whose every frame takes one.
async fn work(gate: Gate, steps: Steps) -> Response<Body> {
    hold(&gate, steps.before, steps.holding).await;
    let stream = Response::builder().header("content-type", "text/event-stream");
    stream.body(frames(gate, steps.streamed)).expect("a response")
}

#[tokio::test(start_paused = true)]
async fn callers_that_go_away_at_any_moment_leave_nothing_behind() {
    let mut random = random(2);
    let (gate, registry) = guarded(endpoints(vec![Endpoint::new("/work")]));
    gate.apply(Change::UserLimit(Some(3)));
    let held = gate.clone();
    let route = on_get(move |Query(steps): Query<Steps>| work(held.clone(), steps));
    let mut service = layer(registry).layer(Router::new().route("/work", route));
    let mut call = |request| -> Reply {
        let reply = service.call(request);
        Box::pin(async move { reply.await.expect("it is infallible") })
    };
    // Some are never dropped while others come and go, so that there is a queue.
    let mut parked: Vec<Reply> = Vec::new();
    for _ in 0..cancellations(10_000) {
        let (before, holding, streamed) = (random.u32(0..3), random.u32(0..4), random.u32(0..3));
        let path = format!("/work?before={before}&holding={holding}&streamed={streamed}");
        let request = get_as(&path, &format!("u{}", random.u32(0..20)));
        if random.u8(0..8) == 0 {
            let mut future = call(request);
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            parked.push(future);
        } else {
            poll_and_drop(call(request), random.u32(0..12));
        }
        if parked.len() > 30 {
            drop(parked.swap_remove(random.usize(0..parked.len())));
        }
        let stats = gate.stats();
        assert!(stats.in_use <= stats.limit, "{stats:?}");
    }
    drop(parked);
    let stats = gate.stats();
    assert_eq!((stats.in_use, stats.in_flight, stats.users), (0, 0, 0), "{stats:?}");
    assert_eq!((stats.waiting_in_all(), stats.parked), (0, 0), "{stats:?}");
    assert_eq!(gate.invariants(), Vec::<&str>::new());
}

#[tokio::test]
async fn a_streamed_body_is_part_of_its_request_until_it_ends() {
    let (gate, registry) = guarded(endpoints(vec![Endpoint::new("/work")]));
    let held = gate.clone();
    let route = on_get(move || work(held.clone(), Steps { before: 0, holding: 0, streamed: 2 }));
    let app = Router::new().route("/work", route).layer(layer(registry));
    let response = app.oneshot(get_as("/work", "ann")).await.expect("it is infallible");
    assert_eq!(
        (gate.stats().in_flight, gate.stats().users),
        (1, 1),
        "the head has left, the request has not"
    );
    let mut body = response.into_body().into_data_stream();
    for _ in 0..2 {
        // Each frame finds its ticket and takes a connection; without one the body would break off.
        body.next().await.expect("a frame").expect("a whole one");
        assert_eq!(gate.stats().in_flight, 1);
    }
    assert!(body.next().await.is_none());
    assert_eq!((gate.stats().in_flight, gate.stats().ticketless), (0, 0));
}

/// A handler that stands still until it is let go, and says how many stand in it.
#[derive(Clone, Default)]
struct Door {
    inside: Arc<AtomicU32>,
    open: Arc<Notify>,
}

impl Door {
    fn route(&self) -> axum::routing::MethodRouter {
        let door = self.clone();
        any(move || {
            let door = door.clone();
            async move {
                door.inside.fetch_add(1, Ordering::SeqCst);
                door.open.notified().await;
                "{}"
            }
        })
    }

    /// Somebody stands in it; a test in which nobody ever does fails instead of hanging.
    async fn has_someone(&self) {
        let someone = async {
            while self.inside.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), someone).await.expect("somebody comes");
    }
}

/// One user may have one request in flight; a second one is refused only if both met the same state.
fn one_at_a_time() -> (Gate, HealLayer) {
    let (gate, registry) = guarded(endpoints(vec![Endpoint::new("/door"), Endpoint::new("/in/door")]));
    gate.apply(Change::UserLimit(Some(1)));
    (gate, layer(registry))
}

async fn second_is_refused(app: Router, door: Door, path: &'static str) {
    let first = send(&app, get_as(path, "ann"));
    let second = async {
        door.has_someone().await;
        let second = send(&app, get_as(path, "ann")).await;
        door.open.notify_one();
        second
    };
    let (first, second) = tokio::join!(first, second);
    assert_eq!((second.status().as_u16(), &second.json()["code"]), (429, &"user_limit".into()));
    assert_eq!(second.header("retry-after"), second.json()["retryAfter"].to_string());
    assert_eq!(first.status(), 200);
}

#[tokio::test]
async fn a_bare_router_shares_its_state_over_requests() {
    let (door, (gate, layer)) = (Door::default(), one_at_a_time());
    second_is_refused(Router::new().route("/door", door.route()).layer(layer), door, "/door").await;
    assert_eq!(gate.stats().in_flight, 0);
}

#[tokio::test]
async fn a_nested_router_knows_its_whole_path_and_a_request_is_guarded_once() {
    let (door, (gate, layer)) = (Door::default(), one_at_a_time());
    let inner = Router::new().route("/door", door.route()).layer(layer.clone());
    // Guarded twice the first request would meet itself at the gate and be refused.
    second_is_refused(Router::new().nest("/in", inner).layer(layer), door, "/in/door").await;
    assert_eq!(gate.stats().in_flight, 0);
}

#[tokio::test]
async fn a_router_that_is_nested_afterwards_is_matched_by_its_whole_path() {
    let reports = Endpoint { class: Class::Sheddable, ..Endpoint::new("/in/reports") };
    let (gate, registry) = guarded(endpoints(vec![reports]));
    let inner = Router::new().route("/reports", any(|| async { "{}" })).layer(layer(registry));
    let app = Router::new().nest("/in", inner);
    gate.apply(Change::Shed(true));
    assert_eq!(send(&app, get("/in/reports")).await.status(), 503);
}

#[tokio::test]
async fn a_fallback_shares_the_state_of_the_routes() {
    let (door, (gate, layer)) = (Door::default(), one_at_a_time());
    let app = Router::new().route("/other", any(|| async {})).fallback_service(door.route()).layer(layer);
    second_is_refused(app, door, "/door").await;
    assert_eq!(gate.stats().in_flight, 0);
}

#[tokio::test]
async fn two_connections_of_one_server_share_their_state() {
    let (door, (gate, layer)) = (Door::default(), one_at_a_time());
    let app = Router::new().route("/door", door.route()).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let served = app.into_make_service_with_connect_info::<SocketAddr>();
    let both = async {
        // Neither names a user: both are the same peer, on ports of their own.
        let first = over_tcp(address, "/door", "");
        let second = async {
            door.has_someone().await;
            let reply = over_tcp(address, "/door", "").await;
            door.open.notify_one();
            reply
        };
        tokio::join!(first, second)
    };
    let (first, second) = tokio::select! {
        replies = both => replies,
        ended = axum::serve(listener, served) => panic!("the server ended: {ended:?}"),
    };
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    assert!(second.starts_with("HTTP/1.1 429"), "{second}");
    assert!(second.contains("\"code\":\"user_limit\""), "{second}");
    assert_eq!(gate.stats().in_flight, 0);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_the_gate() {
    let (door, (gate, layer)) = (Door::default(), one_at_a_time());
    let app = Router::new().route("/door", door.route()).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let hang_up = async {
        let caller = over_tcp(address, "/door", "x-user-id: ann\r\n");
        tokio::select! {
            reply = caller => panic!("nobody opened: {reply}"),
            () = door.has_someone() => {}
        }
        while gate.stats().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = hang_up => {}
        ended = axum::serve(listener, app) => panic!("the server ended: {ended:?}"),
    }
}

#[test]
fn what_callers_make_up_is_neither_a_label_nor_kept() {
    let name = "http_layer::what_callers_make_up_is_neither_a_label_nor_kept";
    in_a_process_of_its_own(name, many_callers_leave_nothing);
}

fn many_callers_leave_nothing() {
    const CALLERS: u32 = 50_000;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let (labels, told) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicUsize::new(0)));
    let (seen, count) = (Arc::clone(&labels), Arc::clone(&told));
    let impact = Impact::new(move |affected| {
        seen.lock().insert(affected.endpoint.to_string());
        count.fetch_add(1, Ordering::Relaxed);
    });
    let (gate, registry) =
        guarded(endpoints(vec![Endpoint::new("/api/{*rest}"), Endpoint::new("/users/{id}")]));
    let page = || async { (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], "<p>x") };
    let app = Router::new().fallback(page).layer(layer(registry.impact(impact))).with_state(());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let before = AtomicUsize::new(0);
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            for n in 0..CALLERS {
                if n == CALLERS / 10 {
                    before.store(resident(), Ordering::Relaxed);
                }
                let path = [format!("/api/{n}/x"), format!("/users/{n}"), format!("/made/up/{n}")];
                send(&app, get_as(&path[n as usize % 3], &format!("user-{n}"))).await;
            }
        });
    });
    assert_eq!(*labels.lock(), BTreeSet::from(["/api/{*rest}", "/users/{id}", "other"].map(str::to_owned)));
    assert_eq!(told.load(Ordering::Relaxed), CALLERS as usize);
    let series = handle.render().lines().filter(|line| line.starts_with("selfheal_")).count();
    assert_eq!(series, 3, "{}", handle.render());
    assert_eq!(gate.stats().users, 0);
    // What 160 bytes a caller would add stands out.
    let grown = resident().saturating_sub(before.into_inner());
    assert!(grown < 8 << 20, "{grown} bytes for {CALLERS} callers");
}

#[tokio::test]
async fn under_pressure_sheddable_requests_are_refused_and_critical_ones_are_not() {
    let classed = |path: &str, class| Endpoint { class, ..Endpoint::new(path) };
    let (gate, registry) =
        guarded(endpoints(vec![classed("/reports", Class::Sheddable), classed("/login", Class::Critical)]));
    let app = Router::new().fallback(|| async { "{}" }).layer(layer(registry));
    gate.apply(Change::Shed(true));
    let reply = send(&app, get("/reports")).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["code"]), (503, &"shed".into()));
    assert_eq!(reply.header("retry-after"), reply.json()["retryAfter"].to_string());
    assert_eq!(send(&app, get("/login")).await.status(), 200);
    gate.apply(Change::Shed(false));
    assert_eq!(send(&app, get("/reports")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn observing_finds_the_same_and_does_nothing() {
    let mode = ModeCell::new(Mode::Observe);
    let gate = gate(10, &mode);
    gate.apply(Change::Shed(true));
    let felt = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&felt);
    let quick =
        |path: &str, class| Endpoint { class, deadline: Duration::from_secs(1), ..Endpoint::new(path) };
    let registry =
        Registry::new(endpoints(vec![quick("/late", Class::Normal), quick("/shed", Class::Sheddable)]))
            .clock(Clock::tokio())
            .mode(mode.clone())
            .pool("main", gate)
            .impact(Impact::new(move |affected| told.lock().push((affected.felt, affected.would))));
    let late = || async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        "<html>"
    };
    let app = Router::new().route("/late", any(late)).fallback(|| async { "<html>" }).layer(layer(registry));
    assert_eq!(send(&app, get("/late")).await.body, "<html>");
    assert_eq!(send(&app, get("/shed")).await.body, "<html>");
    assert_eq!(*felt.lock(), [(Felt::Late, true)]);
    mode.set(Mode::Off);
    assert_eq!(send(&app, get("/late")).await.body, "<html>");
    assert_eq!(felt.lock().len(), 1);
    mode.set(Mode::Act);
    assert_eq!(send(&app, get("/late")).await.status(), 503);
}

#[tokio::test]
async fn in_mode_off_nobody_is_asked_and_a_handler_still_finds_its_id() {
    let mode = ModeCell::new(Mode::Off);
    let gate = gate(10, &mode);
    let registry = Registry::new(endpoints(vec![])).mode(mode.clone()).pool("main", gate.clone());
    let seen = gate.clone();
    let handler = move |Extension(RequestId(id)): Extension<RequestId>| async move {
        format!("{id}, {} in flight, ticket: {}", seen.stats().in_flight, Ticket::current().is_some())
    };
    let app = Router::new().route("/", on_get(handler)).layer(layer(registry)).with_state(());
    let asked = || {
        let mut request = get("/");
        request.headers_mut().insert("x-request-id", "r-1".parse().expect("a header"));
        request
    };
    let off = send(&app, asked()).await;
    assert_eq!((off.header("x-request-id"), &*off.body), ("r-1", &b"r-1, 0 in flight, ticket: false"[..]));
    mode.set(Mode::Act);
    let act = send(&app, asked()).await;
    assert_eq!((act.header("x-request-id"), &*act.body), ("r-1", &b"r-1, 1 in flight, ticket: true"[..]));
}

#[tokio::test]
async fn optional_work_is_left_out_only_while_the_gate_says_so() {
    let gate = gate(10, &ModeCell::new(Mode::Act));
    let left_out = Arc::new(AtomicU32::new(0));
    let optional = |work: u32| {
        let count = Arc::clone(&left_out);
        Optional::new(std::future::ready(work), gate.clone(), move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    };
    assert_eq!(optional(1).await, Some(1));
    gate.apply(Change::OmitOptional(true));
    assert_eq!((optional(2).await, optional(3).await), (None, None));
    gate.apply(Change::OmitOptional(false));
    assert_eq!((optional(4).await, left_out.load(Ordering::Relaxed)), (Some(4), 2));
}
