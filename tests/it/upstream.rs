//! Calls that a service makes itself: what an upstream does at random ends as JSON or as an error that says so.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, Response, StatusCode},
    response::{IntoResponse as _, Json},
    routing::get as on_get,
};
use http_body_util::Full;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use parking_lot::Mutex;
use selfheal::{
    breaker::{Around, Breakers},
    circuit::Circuit,
    clock::{Clock, Tick},
    gate::Ticket,
    http::{CallError, ClientLayer, Code, Endpoint, Endpoints, Failure, HealClient, Registry},
    level::{Class, Mode, ModeCell},
    retry,
    signal::Signals,
};
use serde_json::Value;
use tokio::runtime::Handle;
use tower::ServiceExt as _;
use tower_layer::Layer as _;

use crate::{
    guarded::cancellations,
    support::{random, send},
};

const S: fn(u64) -> Duration = Duration::from_secs;

fn now() -> Tick {
    Clock::tokio().now()
}

/// What an upstream does with one request.
#[derive(Clone, Debug)]
enum Act {
    Say(u16, &'static [(&'static str, &'static str)], Bytes),
    Hang,
    Refuse,
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const PAGE: &[(&str, &str)] = &[("content-type", "text/html"), ("retry-after", "99999999999")];

fn ok() -> Act {
    Act::Say(200, JSON, Bytes::from_static(b"{\"ok\":true}"))
}

fn page(status: u16) -> Act {
    Act::Say(status, PAGE, Bytes::from_static(b"<html><title>Bad Gateway</title></html>"))
}

/// An upstream that does one thing after another, and then the last one again and again; and what it was asked.
#[derive(Clone)]
struct Upstream(Arc<Mutex<Scene>>);

struct Scene {
    acts: VecDeque<Act>,
    asked: Vec<Request<()>>,
}

impl Upstream {
    fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        Self(Arc::new(Mutex::new(Scene { acts: acts.into_iter().collect(), asked: Vec::new() })))
    }

    fn asked(&self) -> usize {
        self.0.lock().asked.len()
    }

    async fn play(self, request: Request<Full<Bytes>>) -> Result<Response<Body>, std::io::Error> {
        let act = {
            let mut scene = self.0.lock();
            scene.asked.push(request.map(drop));
            if scene.acts.len() > 1 { scene.acts.pop_front() } else { scene.acts.front().cloned() }
        };
        match act.expect("an act") {
            Act::Hang => std::future::pending().await,
            Act::Refuse => Err(std::io::ErrorKind::ConnectionRefused.into()),
            Act::Say(status, headers, body) => {
                let reply = Response::builder().status(status);
                let reply = headers.iter().fold(reply, |reply, (name, value)| reply.header(*name, *value));
                Ok(reply.body(Body::from(body)).expect("a reply"))
            }
        }
    }
}

fn registry() -> (Registry, Breakers) {
    let mode = ModeCell::new(Mode::Act);
    let around = Around { clock: Clock::tokio(), mode: mode.clone(), signals: Signals::none() };
    let breakers = Breakers::new(Arc::default(), around, 0);
    let endpoints =
        Endpoints::new(vec![Endpoint::new("/api/pay")], Endpoint::unlisted()).expect("it is valid");
    let policy = retry::Policy { jitter: retry::Jitter::None, ..retry::Policy::default() };
    (
        Registry::new(endpoints)
            .retry(&policy, 0)
            .breakers(breakers.clone())
            .clock(Clock::tokio())
            .mode(mode),
        breakers,
    )
}

fn guard(registry: Registry) -> ClientLayer {
    Arc::new(registry).client("payments")
}

async fn call(guard: &ClientLayer, upstream: &Upstream, method: &str) -> Result<Response<Body>, CallError> {
    let upstream = upstream.clone();
    let client = guard.layer(tower::service_fn(move |request| upstream.clone().play(request)));
    let request = Request::builder().method(method).uri("http://payments/x");
    client.oneshot(request.body(Full::default()).expect("a request")).await
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_called_again_and_a_page_is_an_error_that_says_so() {
    let guard = guard(registry().0);
    let healed = Upstream::new([Act::Refuse, ok()]);
    let start = now();
    let reply = call(&guard, &healed, "GET").await.expect("it is healed");
    assert_eq!((reply.status().as_u16(), healed.asked(), now().since(start)), (200, 2, S(1)));

    let broken = Upstream::new([page(200)]);
    let error = call(&guard, &broken, "POST").await.expect_err("a page is no JSON");
    let CallError::Invalid { status, fault, said, retry_after, .. } = &error else { panic!("{error:?}") };
    assert_eq!((status.as_u16(), *fault, said.as_deref()), (200, "html", Some("Bad Gateway")));
    assert_eq!((*retry_after, broken.asked()), (Some(S(3_600)), 1), "clamped, and a POST is made once");
    assert_eq!(error.code(), Code::UpstreamInvalid);
    assert_eq!(error.to_string(), "payments answered 200 OK with what is no JSON (html): Bad Gateway");

    let lost = Upstream::new([Act::Say(404, JSON, Bytes::from_static(b"{}"))]);
    assert_eq!(call(&guard, &lost, "GET").await.expect("it is valid").status(), 404);
    assert_eq!(lost.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_names_a_date_is_not_called_before_it() {
    const BUSY: &[(&str, &str)] = &[
        ("content-type", "application/json"),
        ("date", "Tue, 24 Nov 2026 12:00:00 GMT"),
        ("retry-after", "Tue, 24 Nov 2026 12:00:07 GMT"),
    ];
    let guard = guard(registry().0);
    let busy = Act::Say(503, BUSY, Bytes::from_static(b"{}"));
    let upstream = Upstream::new([busy.clone(), ok()]);
    let start = now();
    assert_eq!(call(&guard, &upstream, "GET").await.expect("it is healed").status(), 200);
    assert_eq!((upstream.asked(), now().since(start)), (2, S(7)));
    // Its caller would not wait for so long.
    let (upstream, start) = (Upstream::new([busy, ok()]), now());
    let ticket = Ticket::new(Class::Normal).with_deadline(now() + S(5));
    let reply = ticket.scope(call(&guard, &upstream, "GET")).await.expect("it is valid");
    assert_eq!((reply.status().as_u16(), upstream.asked(), now().since(start)), (503, 1, S(0)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_with_its_own_time_or_with_the_requests() {
    let guard = guard(registry().0).timeout(S(4));
    let upstream = Upstream::new([Act::Hang]);
    let start = now();
    let error = call(&guard, &upstream, "GET").await.expect_err("nothing came");
    assert!(matches!(error, CallError::Timeout { retried: true, .. }), "{error:?}");
    assert_eq!((now().since(start), upstream.asked()), (S(4 + 1 + 4), 2));
    let ticket = Ticket::new(Class::Normal).with_deadline(now() + S(2));
    let start = now();
    let error = ticket.scope(call(&guard, &upstream, "GET")).await.expect_err("nothing came");
    assert!(matches!(error, CallError::Timeout { retried: false, .. }), "{error:?}");
    assert_eq!(now().since(start), S(2), "nobody waits for longer than that");
}

#[tokio::test(start_paused = true)]
async fn what_goes_on_failing_is_not_called_until_its_circuit_may_be_tried() {
    let (registry, breakers) = registry();
    let guard = guard(registry);
    let upstream = Upstream::new([page(502)]);
    let circuit = breakers.endpoint("payments");
    for _ in 0..6 {
        assert!(call(&guard, &upstream, "POST").await.is_err());
    }
    assert_eq!((circuit.shows(), upstream.asked()), (Circuit::Open, 6));
    let error = call(&guard, &upstream, "POST").await.expect_err("it is open");
    assert!(matches!(error, CallError::Rejected { .. }), "{error:?}");
    assert_eq!((error.code(), upstream.asked()), (Code::CircuitOpen, 6));
    tokio::time::sleep(S(31)).await;
    let well = Upstream::new([ok()]);
    assert!(call(&guard, &well, "POST").await.is_ok());
    assert_eq!(circuit.shows(), Circuit::Closed);
    // Our own mistakes say nothing about whom we call.
    let picky = Upstream::new([Act::Say(422, JSON, Bytes::from_static(b"{}"))]);
    for _ in 0..20 {
        assert!(call(&guard, &picky, "POST").await.is_ok());
    }
    assert_eq!(circuit.shows(), Circuit::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_handlers_caller_is_told_what_it_was_and_nothing_is_tried_twice_over() {
    let (registry, _) = registry();
    let registry = Arc::new(registry);
    let upstream = Upstream::new([page(503)]);
    let (played, guard) = (upstream.clone(), registry.client("payments"));
    let client = guard.layer(tower::service_fn(move |request| played.clone().play(request)));
    let pay = move || {
        let client = client.clone();
        async move {
            let request =
                Request::get("http://payments/x").body(Full::<Bytes>::default()).expect("a request");
            let reply = client.oneshot(request).await.map_err(Failure::from)?;
            Ok::<_, Failure>(reply.status().to_string())
        }
    };
    let app = Router::new().route("/api/pay", on_get(pay)).layer(selfheal::http::HealLayer::new(registry));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request =
        Request::get("/api/pay").header("traceparent", trace).body(Body::empty()).expect("a request");
    let reply = send(&app, request).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["code"]), (503, &"upstream_invalid".into()));
    assert_eq!(reply.json()["retryAfter"].as_u64().map(|seconds| seconds >= 3_600), Some(true));
    let scene = upstream.0.lock();
    // It asked for an hour, and a request has half a minute: it is made once.
    assert_eq!(scene.asked.len(), 1);
    let passed = scene.asked[0].headers()["traceparent"].to_str().expect("text");
    assert!(passed.starts_with(&trace[..36]) && passed.ends_with("-01") && passed != trace, "{passed}");
    assert_eq!(scene.asked[0].headers()["x-request-id"], "4bf92f3577b34da6a3ce929d0e0e4736");
}

#[tokio::test(start_paused = true)]
async fn whatever_an_upstream_does_its_reply_is_json_or_an_error() {
    let mut random = random(5);
    let bodies: [&'static [u8]; 8] = [
        b"{\"ok\":true}",
        b"[1,2",
        b"{\"n\":\"\xff\xfe\"}",
        b"<HTML><BODY>x</BODY></HTML>",
        b"oops",
        b"",
        b"\x1f\x8b\x08",
        b"null",
    ];
    let kinds: [&'static [(&str, &str)]; 6] = [
        JSON,
        JSON,
        &[("content-type", "text/html")],
        &[("content-type", "text/plain")],
        &[("content-type", "not a type")],
        &[],
    ];
    let (mut sound, mut errors) = (0, 0);
    for n in 0..2_000 {
        let act = match random.u8(0..10) {
            0 => Act::Hang,
            1 => Act::Refuse,
            _ => {
                let status = *random.choice(&[200, 200, 201, 400, 404, 429, 500, 502, 503]).expect("some");
                Act::Say(
                    status,
                    random.choice(&kinds).expect("some"),
                    Bytes::from_static(random.choice(&bodies).expect("some")),
                )
            }
        };
        let (guard, upstream) = (guard(registry().0), Upstream::new([act.clone()]));
        match call(&guard, &upstream, "GET").await {
            Ok(reply) => {
                let body = to_bytes(reply.into_body(), usize::MAX).await.expect("a whole body");
                assert!(serde_json::from_slice::<Value>(&body).is_ok(), "case {n}: {act:?}");
                sound += 1;
            }
            Err(error) => {
                assert!(!Failure::from(error).into_response().status().is_success(), "case {n}: {act:?}");
                errors += 1;
            }
        }
        assert!((1..=2).contains(&upstream.asked()), "case {n}: {act:?}");
    }
    assert!(sound > 100 && errors > 1_000, "{sound} {errors}");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_anywhere_leave_no_probe_and_no_budget_behind() {
    let mut random = random(7);
    let (registry, breakers) = registry();
    let (guard, mut cx) = (guard(registry), Context::from_waker(Waker::noop()));
    let (mut dropped, mut ended, calls) = (0, 0, cancellations(20_000));
    for n in 0..calls {
        let status = *random.choice(&[200, 200, 500, 503]).expect("some");
        let yields = random.u32(0..3);
        let client = guard.layer(tower::service_fn(move |_: Request<Full<Bytes>>| async move {
            for _ in 0..yields {
                tokio::task::yield_now().await;
            }
            let body = Body::from_stream(futures_util::stream::once(async {
                tokio::task::yield_now().await;
                Ok::<_, std::io::Error>(Bytes::from_static(b"{}"))
            }));
            let reply = Response::builder().status(status).header("content-type", "application/json");
            Ok::<_, std::io::Error>(reply.body(body).expect("a reply"))
        }));
        let request = Request::get("http://payments/x").body(Full::default()).expect("a request");
        let mut call = Box::pin(client.oneshot(request));
        let is_over = (0..random.u32(0..8)).any(|_| call.as_mut().poll(&mut cx).is_ready());
        if is_over {
            ended += 1
        } else {
            dropped += 1
        }
        drop(call);
        if n % 10 == 0 {
            tokio::time::advance(Duration::from_secs(random.u64(0..40))).await;
        }
    }
    assert!(dropped > calls / 10 && ended > calls / 10, "{dropped} {ended}");
    let circuit = breakers.endpoint("payments");
    let totals = circuit.view().totals;
    assert!(totals.cancelled > 0 && totals.failures > 0 && totals.rejected > 0, "{totals:?}");
    // Whatever was left of it: a call that succeeds closes it.
    tokio::time::advance(S(60)).await;
    let reply = call(&guard, &Upstream::new([ok()]), "GET").await.expect("no probe is lost");
    assert_eq!((reply.status().as_u16(), circuit.shows()), (200, Circuit::Closed));
}

#[tokio::test]
async fn it_guards_the_client_of_hyper_over_a_real_connection() {
    let (registry, _) = registry();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let upstream = Router::new()
        .route("/json", on_get(|| async { Json(serde_json::json!({ "n": 1 })) }))
        .route("/page", on_get(|| async { (StatusCode::BAD_GATEWAY, axum::response::Html("<h1>Bad</h1>")) }));
    let served = Handle::current().spawn(async move { axum::serve(listener, upstream).await });
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let client: HealClient<_> = guard(registry).layer(hyper);
    let request = Request::get(format!("http://{address}/json")).body(Full::default()).expect("a request");
    let reply = client.clone().oneshot(request).await.expect("it answers");
    let body = to_bytes(reply.into_body(), usize::MAX).await.expect("a whole body");
    assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["n"], 1);
    let request = Request::get(format!("http://{address}/page")).body(Full::default()).expect("a request");
    let error = client.clone().oneshot(request).await.expect_err("a page");
    assert!(matches!(error, CallError::Invalid { status: StatusCode::BAD_GATEWAY, .. }), "{error:?}");
    served.abort();
}
