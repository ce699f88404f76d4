//! What has failed is made again, and what cannot be had anew is given as it was: retries, kept replies, and requests
//! that are made twice and done once.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{Request, Response},
    routing::any,
};
use parking_lot::Mutex;
use selfheal::{
    http::{Endpoint, Endpoints, Fallback, Registry},
    retry,
};
use selfheal_actors::{
    breaker::{Around, Breakers},
    circuit::Circuit,
    clock::{Clock, Tick},
    gate::{Change, Gate},
    level::{Class, Mode, ModeCell},
    signal::Signals,
};
use tokio::{runtime::Handle, time::sleep};

use crate::support::{Reply, gate, get, get_as, layer, send};

const S: fn(u64) -> Duration = Duration::from_secs;

fn now() -> Tick {
    Clock::tokio().now()
}

/// A handler that does what it was told, one thing after another, and then the last one again and again.
#[derive(Clone)]
struct Script(Arc<Mutex<Scene>>);

struct Scene {
    acts: VecDeque<Act>,
    last: Act,
    /// The body of each call.
    calls: Vec<Bytes>,
}

#[derive(Clone)]
enum Act {
    Say(u16, &'static [(&'static str, &'static str)], String),
    Panic,
    Hang,
    After(Duration, Box<Act>),
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn ok(body: &str) -> Act {
    Act::Say(200, JSON, body.to_owned())
}

fn status(status: u16) -> Act {
    Act::Say(status, JSON, format!("{{\"status\":{status}}}"))
}

impl Script {
    fn new(acts: impl IntoIterator<Item = Act>) -> Self {
        let acts: VecDeque<_> = acts.into_iter().collect();
        let last = acts.back().cloned().expect("an act");
        Self(Arc::new(Mutex::new(Scene { acts, last, calls: Vec::new() })))
    }

    /// From now on it does this.
    fn then(&self, act: Act) {
        let mut scene = self.0.lock();
        scene.acts.clear();
        scene.last = act;
    }

    fn calls(&self) -> usize {
        self.0.lock().calls.len()
    }

    async fn play(self, request: Request<Body>) -> Response<Body> {
        let body = to_bytes(request.into_body(), usize::MAX).await.expect("a whole body");
        let mut act = {
            let mut scene = self.0.lock();
            scene.calls.push(body);
            scene.acts.pop_front().unwrap_or_else(|| scene.last.clone())
        };
        loop {
            match act {
                Act::Panic => panic!("planted"),
                Act::Hang => std::future::pending().await,
                Act::After(time, next) => {
                    sleep(time).await;
                    act = *next;
                }
                Act::Say(status, headers, body) => {
                    let reply =
                        headers.iter().fold(Response::builder().status(status), |reply, (name, value)| {
                            reply.header(*name, *value)
                        });
                    return reply.body(Body::from(body)).expect("a reply");
                }
            }
        }
    }
}

fn steady() -> retry::Policy {
    retry::Policy { jitter: retry::Jitter::None, ..retry::Policy::default() }
}

fn endpoint() -> Endpoint {
    Endpoint { deadline: S(30), ..Endpoint::new("/api/x") }
}

fn cached() -> Endpoint {
    Endpoint { fallback: Some(Fallback { stale_for: S(3_600), public: false }), ..endpoint() }
}

struct Lab {
    app: Router,
    gate: Gate,
    script: Script,
}

fn lab_with(endpoint: Endpoint, policy: &retry::Policy, acts: impl IntoIterator<Item = Act>) -> Lab {
    let mode = ModeCell::new(Mode::Act);
    let gate = gate(10, &mode);
    let script = Script::new(acts);
    let app = app(endpoint, policy, &script, &gate, |registry| registry);
    Lab { app, gate, script }
}

fn app(
    endpoint: Endpoint,
    policy: &retry::Policy,
    script: &Script,
    gate: &Gate,
    with: impl FnOnce(Registry) -> Registry,
) -> Router {
    let endpoints = Endpoints::new(vec![endpoint], Endpoint::unlisted()).expect("it is valid");
    let registry = Registry::new(endpoints)
        .retry(policy, 0)
        .clock(Clock::tokio())
        .jitter(selfheal::http::Jitter::off())
        .pool("main", gate.clone());
    let played = script.clone();
    let route = any(move |request: Request<Body>| played.clone().play(request));
    Router::new().route("/api/x", route).layer(layer(with(registry)))
}

fn lab(endpoint: Endpoint, acts: impl IntoIterator<Item = Act>) -> Lab {
    lab_with(endpoint, &steady(), acts)
}

impl Lab {
    async fn send(&self, request: Request<Body>) -> Reply {
        send(&self.app, request).await
    }

    /// A GET, and how long it took.
    async fn get(&self) -> (u16, Duration) {
        let start = now();
        let reply = self.send(get_as("/api/x", "ann")).await;
        (reply.status().as_u16(), now().since(start))
    }
}

fn request(method: &str, key: Option<&str>, body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri("/api/x").header("x-user-id", "ann");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    request.body(Body::from(body.to_owned())).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn what_failed_is_made_again_after_a_second_and_its_caller_sees_no_error() {
    let lab = lab(endpoint(), [status(503), ok("{}")]);
    assert_eq!(lab.get().await, (200, S(1)));
    assert_eq!(lab.script.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn while_a_caller_waits_there_is_one_retry_and_then_a_reply_that_says_when_to_come_back() {
    let lab = lab(endpoint(), [Act::Say(503, &[("content-type", "text/html")], "<html>".into())]);
    let reply = lab.send(get("/api/x")).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["code"]), (503, &"upstream_invalid".into()));
    assert_eq!(reply.header("retry-after"), "1");
    assert_eq!(lab.script.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_would_fail_again_or_must_not_be_done_twice_is_called_once() {
    let once = [
        (get("/api/x"), status(404)),
        (get("/api/x"), status(422)),
        (get("/api/x"), Act::Panic),
        (request("POST", None, ""), status(503)),
        (request("PATCH", None, ""), status(503)),
        // Who knows what has been done?
        (request("POST", Some("k"), ""), status(500)),
        (request("POST", Some("k"), ""), status(504)),
    ];
    for (request, act) in once {
        let lab = lab(endpoint(), [act, ok("{}")]);
        let (method, start) = (request.method().clone(), now());
        let reply = lab.send(request).await;
        assert!(reply.status().as_u16() >= 400, "{method}");
        assert_eq!(
            (lab.script.calls(), now().since(start)),
            (1, Duration::ZERO),
            "{method} {}",
            reply.status()
        );
    }
    let twice = [
        request("PUT", None, "a"),
        request("DELETE", None, ""),
        request("HEAD", None, ""),
        request("POST", Some("k"), "a"),
    ];
    for request in twice {
        let lab = lab(endpoint(), [status(503), ok("{}")]);
        let method = request.method().clone();
        assert_eq!((lab.send(request).await.status().as_u16(), lab.script.calls()), (200, 2), "{method}");
    }
    let never = Endpoint { retry: false, ..endpoint() };
    let lab = lab(never, [status(503), ok("{}")]);
    assert_eq!((lab.get().await.0, lab.script.calls()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn a_short_body_is_sent_again_whole_and_a_long_one_only_once() {
    let lab_of = || lab(endpoint(), [status(503), ok("{}")]);
    let short = lab_of();
    assert_eq!(short.send(request("PUT", None, "letter for letter")).await.status(), 200);
    assert_eq!(short.script.0.lock().calls, ["letter for letter", "letter for letter"]);
    let (long, text) = (lab_of(), "x".repeat((64 << 10) + 1));
    assert_eq!(long.send(request("PUT", None, &text)).await.status(), 503);
    assert_eq!(long.script.0.lock().calls, [text]);
    // Nobody knows how long it will be.
    let (endless, stream) =
        (lab_of(), Body::from_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("a")])));
    let request = Request::put("/api/x").body(stream).expect("a request");
    assert_eq!((endless.send(request).await.status().as_u16(), endless.script.calls()), (503, 1));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_while_a_retry_sleeps() {
    let lab = lab(endpoint(), [status(503), ok("{}")]);
    lab.gate.apply(Change::UserLimit(Some(1)));
    let (app, gate) = (lab.app.clone(), lab.gate.clone());
    let first = Handle::current().spawn(async move { send(&app, get_as("/api/x", "ann")).await });
    sleep(Duration::from_millis(500)).await;
    let stats = gate.stats();
    assert_eq!((stats.in_flight, stats.users), (0, 0), "{stats:?}");
    // The user's only place is free for another request.
    assert_eq!(lab.send(get_as("/api/x", "ann")).await.status(), 200);
    assert_eq!(first.await.expect("it ends").status(), 200);
    assert_eq!(lab.script.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_retry_yields_to_first_tries_under_pressure_and_critical_work_does_not() {
    for (class, status_then) in [(Class::Normal, 503), (Class::Critical, 200)] {
        let lab = lab(Endpoint { class, ..endpoint() }, [status(503), ok("{}")]);
        lab.gate.apply(Change::Shed(true));
        // Every connection is out, so that work that can be shed is.
        lab.gate.apply(Change::CriticalOnly(true));
        assert_eq!((lab.get().await.0, class), (status_then, class));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handlers_own_time_is_honoured_and_a_retry_after_the_deadline_is_not_begun() {
    let busy: &[_] = &[("content-type", "application/json"), ("retry-after", "3")];
    let lab_of =
        |deadline| lab(Endpoint { deadline, ..endpoint() }, [Act::Say(503, busy, "{}".into()), ok("{}")]);
    assert_eq!(lab_of(S(30)).get().await, (200, S(3)));
    assert_eq!(lab_of(S(3)).get().await, (503, Duration::ZERO));
    // A stranger's hour is no reason to hold on to a caller.
    let poison: &[_] = &[("content-type", "application/json"), ("retry-after", "99999999999")];
    let lab = lab(endpoint(), [Act::Say(503, poison, "{}".into()), ok("{}")]);
    assert_eq!(lab.get().await, (503, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up_and_made_again_within_the_requests_time() {
    let patient = Endpoint { deadline: S(30), attempt_timeout: Some(S(10)), ..endpoint() };
    let lab_of = |acts: [Act; 2]| lab(patient.clone(), acts);
    assert_eq!(lab_of([Act::Hang, ok("{}")]).get().await, (200, S(11)));
    assert_eq!(lab_of([Act::Hang, Act::Hang]).get().await, (503, S(21)));
    let body_hangs = Act::After(S(2), Box::new(ok("{}")));
    assert_eq!(lab_of([body_hangs.clone(), body_hangs]).get().await, (200, S(2)), "in time");
    let lab = lab(Endpoint { deadline: S(10), ..endpoint() }, [Act::Hang, ok("{}")]);
    assert_eq!(
        lab.get().await,
        (503, S(10)),
        "without a limit of its own a call takes all the time there is"
    );
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_retries_stay_a_tenth_of_the_calls() {
    let lab = lab(endpoint(), [status(503)]);
    let calls = (0..2_000).map(|_| lab.send(get("/api/x")));
    let replies = futures_util::future::join_all(calls).await;
    assert!(replies.iter().all(|reply| reply.status() == 503 && reply.json()["status"] == 503));
    assert_eq!(lab.script.calls(), 2_000 + 200 + 10);
}

#[tokio::test(start_paused = true)]
async fn the_last_good_reply_stands_in_for_a_failure_and_says_so() {
    let lab = lab(cached(), [ok(r#"{"rows":[1,2]}"#), status(500)]);
    assert_eq!(lab.get().await.0, 200);
    sleep(S(5)).await;
    let reply = lab.send(get_as("/api/x", "ann")).await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.json(), serde_json::json!({ "rows": [1, 2], "cached": true, "retryAfter": 1 }));
    assert_eq!(reply.header("age"), "6", "a retry took a second");
    assert_eq!(reply.header("cache-status"), "selfheal; hit; detail=stale-if-error");
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(!reply.header("x-request-id").is_empty());
    // Somebody else's failure is a failure.
    for request in [get_as("/api/x", "bob"), get("/api/x"), get_as("/api/x?page=2", "ann")] {
        assert_eq!(lab.send(request).await.status(), 500);
    }
    let mut claimed = get_as("/api/x", "ann");
    claimed.headers_mut().insert("authorization", "Bearer other".parse().expect("a header"));
    assert_eq!(lab.send(claimed).await.status(), 500, "the name alone is no proof");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_the_gate_is_answered_from_what_is_kept() {
    let lab = lab(Endpoint { class: Class::Sheddable, ..cached() }, [ok("[1]")]);
    assert_eq!(lab.get().await.0, 200);
    lab.gate.apply(Change::Shed(true));
    let reply = lab.send(get_as("/api/x", "ann")).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["data"]), (200, &serde_json::json!([1])));
    let refused = lab.send(get_as("/api/x", "bob")).await;
    assert_eq!((refused.status().as_u16(), &refused.json()["code"]), (503, &"shed".into()));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_to_stand_in_is_attached_to_the_refusal() {
    let brief = Endpoint { fallback: Some(Fallback { stale_for: S(60), public: false }), ..endpoint() };
    let html = || Act::Say(502, &[("content-type", "text/html")], "<h1>Bad Gateway</h1>".into());
    let lab = lab(brief, [ok(r#"{"n":1}"#), html()]);
    assert_eq!(lab.get().await.0, 200);
    sleep(S(90)).await;
    let reply = lab.send(get_as("/api/x", "ann")).await;
    assert_eq!(reply.status(), 502);
    assert_eq!(reply.json()["cachedData"], serde_json::json!({ "n": 1 }));
    assert_eq!((&reply.json()["success"], &reply.json()["retryAfter"]), (&false.into(), &1.into()));
    sleep(S(86_400)).await;
    let reply = lab.send(get_as("/api/x", "ann")).await;
    assert!(reply.json().get("cachedData").is_none(), "a day is the end of it");
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_kept_is_not() {
    let says = |headers| Act::Say(200, headers, "{}".to_owned());
    let forbidding: [&'static [(&str, &str)]; 5] = [
        &[("content-type", "application/json"), ("cache-control", "no-store")],
        &[("content-type", "application/json"), ("cache-control", "no-cache")],
        &[("content-type", "application/json"), ("cache-control", "max-age=5, must-revalidate")],
        &[("content-type", "application/json"), ("vary", "*")],
        &[("content-type", "application/json"), ("set-cookie", "a=1")],
    ];
    for headers in forbidding {
        let lab = lab(cached(), [says(headers), status(500)]);
        assert_eq!((lab.get().await.0, lab.get().await.0), (200, 500), "{headers:?}");
    }
    let own: &[_] = &[("content-type", "application/json"), ("cache-control", "private, stale-if-error=2")];
    let private = lab(cached(), [says(own), status(500)]);
    assert_eq!((private.get().await.0, private.get().await.0), (200, 200), "it is the caller's own");
    sleep(S(3)).await;
    assert_eq!(private.get().await.0, 500, "it said itself for how long");
    let open = Endpoint { fallback: Some(Fallback { stale_for: S(60), public: true }), ..endpoint() };
    let shared = lab(open.clone(), [says(own), status(500)]);
    assert_eq!((shared.get().await.0, shared.get().await.0), (200, 500), "nobody else gets what is private");
    let shared = lab(open, [ok("{}"), status(500)]);
    assert_eq!(shared.send(get_as("/api/x", "ann")).await.status(), 200);
    assert_eq!(shared.send(get_as("/api/x", "bob")).await.status(), 200, "it answers everybody alike");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_varies_stands_in_only_for_its_own_kind() {
    let varies: &[_] = &[("content-type", "application/json"), ("vary", "accept-language")];
    let lab = lab(cached(), [Act::Say(200, varies, r#"{"hallo":1}"#.into()), status(500)]);
    let ask = |language: &'static str| {
        let mut request = get_as("/api/x", "ann");
        request.headers_mut().insert("accept-language", language.parse().expect("a header"));
        lab.send(request)
    };
    assert_eq!(ask("de").await.status(), 200);
    assert_eq!((ask("en").await.status().as_u16(), ask("de").await.status().as_u16()), (500, 200));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_reply_is_asked_for_again_in_the_background_once_for_all() {
    let policy = retry::Policy { budget: retry::Budget { ratio: 0.1, per_second: 100.0 }, ..steady() };
    let lab = lab_with(cached(), &policy, [ok(r#"{"n":1}"#), status(503)]);
    assert_eq!(lab.get().await.0, 200);
    let asked = futures_util::future::join_all((0..20).map(|_| lab.send(get_as("/api/x", "ann")))).await;
    assert!(asked.iter().all(|reply| reply.json()["cached"] == true));
    let calls = lab.script.calls();
    // One of the twenty goes on asking, after two seconds, four and eight; then five calls were made.
    lab.script.then(ok(r#"{"n":2}"#));
    sleep(S(3)).await;
    assert_eq!(lab.script.calls(), calls + 1);
    assert_eq!(lab.gate.stats().in_flight, 0);
    lab.script.then(status(503));
    let reply = lab.send(get_as("/api/x", "ann")).await;
    assert_eq!(
        (&reply.json()["n"], &reply.json()["cached"]),
        (&2.into(), &true.into()),
        "it has been refreshed"
    );
    let calls = lab.script.calls();
    sleep(S(60)).await;
    assert_eq!(lab.script.calls(), calls + 3, "the third, fourth and fifth call");
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_is_answered_and_not_done_again() {
    let lab = lab(
        endpoint(),
        [Act::After(S(1), Box::new(Act::Say(201, JSON, r#"{"task":7}"#.into()))), status(500)],
    );
    let key = Some("\"8e03978e-40d5-43dd-bc93-6894a57f9324\"");
    let first = lab.send(request("POST", key, "a")).await;
    assert_eq!((first.status().as_u16(), first.header("idempotent-replayed")), (201, ""));
    let again = lab.send(request("POST", key, "a")).await;
    assert_eq!((again.status().as_u16(), again.header("idempotent-replayed")), (201, "true"));
    assert_eq!((again.body, lab.script.calls()), (first.body, 1));
    let other = lab.send(request("POST", key, "b")).await;
    assert_eq!((other.status().as_u16(), &other.json()["code"]), (422, &"idempotency_key_reused".into()));
    assert_eq!(lab.send(request("POST", Some("\"open"), "a")).await.status(), 400);
    assert_eq!(lab.script.calls(), 1);
    sleep(S(86_400)).await;
    assert_eq!(lab.send(request("POST", key, "a")).await.status(), 500, "a day later it is a new one");
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_that_comes_too_early_is_told_so_and_a_failure_is_not_kept() {
    let slow = Act::After(S(2), Box::new(status(500)));
    let lab = lab(endpoint(), [slow, ok("{}")]);
    let key = Some("k1");
    let early = async {
        sleep(S(1)).await;
        lab.send(request("POST", key, "a")).await
    };
    let (first, early) = tokio::join!(lab.send(request("POST", key, "a")), early);
    assert_eq!((early.status().as_u16(), &early.json()["code"]), (409, &"idempotency_key_in_use".into()));
    assert_eq!(early.header("retry-after"), "1");
    assert_eq!((first.status().as_u16(), lab.script.calls()), (500, 1));
    assert_eq!(lab.send(request("POST", key, "a")).await.status(), 200, "so the next one is a real one");
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_has_begun_under_a_key_is_brought_to_its_end_though_he_goes_away() {
    let lab = lab(endpoint(), [Act::After(S(5), Box::new(ok(r#"{"task":7}"#))), status(500)]);
    let gone = tokio::time::timeout(S(1), lab.send(request("POST", Some("k"), "a"))).await;
    assert!(gone.is_err(), "he has gone away");
    sleep(S(5)).await;
    let reply = lab.send(request("POST", Some("k"), "a")).await;
    assert_eq!((reply.json()["task"].clone(), lab.script.calls()), (7.into(), 1), "and finds what was done");
    assert_eq!(lab.gate.stats().in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_answered_from_what_is_kept_and_closes_once_a_probe_succeeds() {
    let (lab, breakers) =
        with_circuits(lab(cached(), [ok(r#"{"n":1}"#), status(500)]), &retry::Policy::never());
    assert_eq!(lab.get().await.0, 200);
    let circuit = breakers.endpoint("/api/x");
    for failures in 1..=6 {
        let shows = if failures > 5 { Circuit::Open } else { Circuit::Closed };
        assert_eq!((lab.get().await.0, circuit.shows()), (200, shows), "{failures} failures");
    }
    let calls = lab.script.calls();
    let reply = lab.send(get_as("/api/x", "ann")).await;
    assert_eq!((&reply.json()["cached"], &reply.json()["retryAfter"]), (&true.into(), &30.into()));
    let refused = lab.send(get_as("/api/x", "bob")).await;
    assert_eq!((refused.status().as_u16(), &refused.json()["code"]), (503, &"circuit_open".into()));
    assert_eq!((refused.header("retry-after"), lab.script.calls()), ("30", calls));
    lab.script.then(ok(r#"{"n":2}"#));
    sleep(S(31)).await;
    assert_eq!(lab.send(get_as("/api/x", "ann")).await.json(), serde_json::json!({ "n": 2 }));
    assert_eq!(circuit.shows(), Circuit::Closed);
}

#[tokio::test(start_paused = true)]
async fn callers_mistakes_refusals_and_callers_who_leave_open_no_circuit() {
    let (lab, breakers) = with_circuits(lab(endpoint(), [status(404)]), &retry::Policy::never());
    for _ in 0..20 {
        assert_eq!(lab.get().await.0, 404);
    }
    lab.script.then(Act::Hang);
    for _ in 0..20 {
        let gone = tokio::time::timeout(S(1), lab.send(get_as("/api/x", "ann"))).await;
        assert!(gone.is_err());
    }
    let view = breakers.endpoint("/api/x").view();
    assert_eq!((view.shows, view.counts.calls), (Circuit::Closed, 0));
    assert_eq!((view.totals.ignored, view.totals.cancelled), (20, 20));
}

/// The same, with a circuit for each endpoint.
fn with_circuits(lab: Lab, policy: &retry::Policy) -> (Lab, Breakers) {
    let mode = ModeCell::new(Mode::Act);
    let around = Around { clock: Clock::tokio(), mode: mode.clone(), signals: Signals::none() };
    let breakers = Breakers::new(Arc::default(), around, 0);
    let app = app(cached(), policy, &lab.script, &lab.gate, |registry| registry.breakers(breakers.clone()));
    (Lab { app, ..lab }, breakers)
}
