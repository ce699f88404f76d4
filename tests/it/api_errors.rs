//! An API returns an HTML error page, and the page that called it fails with *Unexpected token '<'*. Never again:
//! whatever a handler does, what leaves a JSON route parses.

use std::{convert::Infallible, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Request, Response, StatusCode, header},
    response::IntoResponse,
    routing::any,
};
use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use selfheal::{
    breaker::Policy,
    gate::Gate,
    http::{Code, Endpoint, Endpoints, Failure, Problem, Registry, Replies},
};
use selfheal_actors::clock::Clock;

use crate::{
    support::{Reply, get, guarded, layer, random, send},
    whole_layer,
};

/// What a handler does, drawn at random.
#[derive(Clone, Debug)]
struct Case {
    method: Method,
    panics: Option<bool>,
    hangs: bool,
    status: u16,
    content_type: Option<&'static str>,
    encoding: Option<&'static str>,
    body: Bytes,
    /// How the body comes: at once, in pieces, never to its end, broken off, or with a panic.
    flow: Flow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    AtOnce,
    Pieces,
    Hangs,
    Breaks,
    Panics,
}

const TYPES: [Option<&str>; 9] = [
    Some("application/json"),
    Some("application/json"),
    Some("application/problem+json; charset=utf-8"),
    Some("text/html; charset=utf-8"),
    Some("text/plain; charset=utf-8"),
    Some("text/event-stream"),
    Some("application/octet-stream"),
    Some("not a type"),
    None,
];

impl Case {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let bodies: [Bytes; 11] = [
            Bytes::from_static(b"{\"ok\":true}"),
            Bytes::from_static(b"[1,2"),
            Bytes::from_static(b"{\"name\":\"\xff\xfe\"}"),
            Bytes::from_static(b"<HTML><HEAD><TITLE>500 Internal</TITLE></HEAD><BODY>oops</BODY></HTML>"),
            Bytes::from_static(b"something went wrong"),
            Bytes::new(),
            Bytes::from_static(b"\x1f\x8b\x08\x00"),
            Bytes::from_static(b"data: 1\n\n"),
            Bytes::from_static(b"null"),
            Bytes::from_static(b"{\"a\":1}{\"b\":2}"),
            vec![b'x'; (1 << 20) + random.usize(0..3)].into(),
        ];
        let statuses = [200, 200, 201, 204, 302, 304, 400, 404, 409, 422, 500, 502, 503];
        let flows =
            [Flow::AtOnce, Flow::AtOnce, Flow::AtOnce, Flow::Pieces, Flow::Hangs, Flow::Breaks, Flow::Panics];
        Self {
            method: if random.u8(0..10) == 0 { Method::HEAD } else { Method::GET },
            panics: (random.u8(0..10) == 0).then(|| random.bool()),
            hangs: random.u8(0..20) == 0,
            status: *random.choice(&statuses).expect("some"),
            content_type: *random.choice(&TYPES).expect("some"),
            encoding: (random.u8(0..10) == 0).then_some("gzip"),
            body: random.choice(&bodies).expect("some").clone(),
            flow: *random.choice(&flows).expect("some"),
        }
    }

    /// Whether the reply need not parse: it has no body, or one that is not meant to be parsed as it is.
    fn is_exempt(&self, reply: &Reply) -> bool {
        let untouched = reply.status().as_u16() == self.status && reply.header("x-case") == "handler";
        let no_body = self.method == Method::HEAD || [204, 304].contains(&self.status);
        let opaque = self.encoding.is_some() || self.content_type == Some("text/event-stream");
        let bare_redirect = self.status == 302 && reply.body.is_empty();
        let too_long =
            self.body.len() > 1 << 20 && self.status < 400 && reply.header("content-type").contains("json");
        untouched && (no_body || opaque || bare_redirect || too_long)
    }

    fn is_silent(&self) -> bool {
        self.method == Method::HEAD || [204, 304].contains(&self.status)
    }
}

async fn misbehave(State(case): State<Case>) -> Response<Body> {
    if case.panics == Some(false) {
        planted("before the first await");
    }
    tokio::task::yield_now().await;
    if case.panics == Some(true) {
        planted("after it");
    }
    if case.hangs {
        std::future::pending::<()>().await;
    }
    let mut response = Response::builder().status(case.status).header("x-case", "handler");
    if let Some(content_type) = case.content_type {
        response = response.header(header::CONTENT_TYPE, content_type);
    }
    if let Some(encoding) = case.encoding {
        response = response.header(header::CONTENT_ENCODING, encoding);
    }
    response.body(flowing(&case)).expect("a response")
}

/// Panics, but without a text on the terminal for each of thousands; what other tests say when they fail is still read.
fn planted(text: &'static str) -> ! {
    std::panic::resume_unwind(Box::new(text))
}

fn flowing(case: &Case) -> Body {
    if case.flow == Flow::AtOnce || case.is_silent() {
        return Body::from(case.body.clone());
    }
    let half = case.body.len() / 2;
    let (first, second) = (case.body.slice(..half), case.body.slice(half..));
    let flow = case.flow;
    let frames = stream::unfold(0, move |step| {
        let (first, second) = (first.clone(), second.clone());
        async move {
            tokio::task::yield_now().await;
            match (step, flow) {
                (0, _) => Some((Ok(Frame::data(first)), 1)),
                (1, Flow::AtOnce | Flow::Pieces) => Some((Ok(Frame::data(second)), 2)),
                (1, Flow::Hangs) => std::future::pending().await,
                (1, Flow::Breaks) => Some((Err(std::io::Error::other("planted")), 2)),
                (1, Flow::Panics) => planted("in the body"),
                _ => None,
            }
        }
    });
    Body::new(StreamBody::new(frames))
}

fn app(case: Case, guarded_by: Option<selfheal::http::HealLayer>) -> Router {
    let app = Router::new().route("/api/x", any(misbehave)).with_state(case);
    match guarded_by {
        Some(layer) => app.layer(layer),
        None => app,
    }
}

fn json_route(deadline: Duration) -> Endpoints {
    let endpoint = Endpoint { deadline, ..Endpoint::new("/api/x") };
    Endpoints::new(vec![endpoint], Endpoint::unlisted()).expect("it is valid")
}

/// What came of one case: the reply, or that it broke off while its body was sent.
async fn tried(app: &Router, case: &Case) -> Option<Reply> {
    let request =
        Request::builder().method(&case.method).uri("/api/x").body(Body::empty()).expect("a request");
    let sent = std::panic::AssertUnwindSafe(async {
        let response = tower::ServiceExt::oneshot(app.clone(), request).await.expect("it is infallible");
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.ok()?;
        Some(Reply { head: Response::from_parts(parts, ()), body })
    });
    let sent = futures_util::FutureExt::catch_unwind(sent);
    tokio::time::timeout(Duration::from_secs(60), sent).await.ok()?.ok()?
}

fn parses(reply: Option<&Reply>) -> bool {
    reply.is_some_and(|reply| serde_json::from_slice::<serde_json::Value>(&reply.body).is_ok())
}

#[tokio::test(start_paused = true)]
async fn whatever_a_handler_does_every_reply_of_a_json_route_parses() {
    every_reply_parses(1, || guarded(json_route(Duration::from_secs(5)))).await;
}

#[tokio::test(start_paused = true)]
async fn so_it_does_with_every_part_on() {
    every_reply_parses(2, || {
        let (gate, _, registry) =
            whole_layer::everything(vec![whole_layer::endpoint("/api/x")], Policy::default());
        (gate, registry)
    })
    .await;
}

async fn every_reply_parses(seed: u64, guard: impl Fn() -> (Gate, Registry)) {
    let mut random = random(seed);
    let (mut without, mut with, mut exempt) = (0, 0, 0);
    for n in 0..2_000 {
        let case = Case::draw(&mut random);
        without += usize::from(!parses(tried(&app(case.clone(), None), &case).await.as_ref()));
        let (gate, registry) = guard();
        let reply = tried(&app(case.clone(), Some(layer(registry))), &case).await;
        if reply.as_ref().is_none_or(|reply| case.is_exempt(reply)) {
            // A stream that has begun can only break off; what is exempt need not parse.
            let opaque = case.encoding.is_some() || case.content_type == Some("text/event-stream");
            let long = case.body.len() > 1 << 20;
            assert!(opaque || long || case.is_silent() || case.status == 302, "case {n}: {case:?}");
            exempt += 1;
        } else {
            let reply = reply.expect("seen above");
            judge(n, &case, &reply);
            with += 1;
        }
        assert_eq!((gate.stats().in_flight, gate.stats().in_use), (0, 0), "case {n}: {case:?}");
    }
    assert!(without > 1_000, "only {without} of the cases are bad without the layer");
    assert!(with > 1_000, "only {with} were judged, {exempt} exempt");
}

fn judge(n: usize, case: &Case, reply: &Reply) {
    if case.method == Method::HEAD {
        assert!(reply.body.is_empty(), "case {n}: {case:?}");
        return;
    }
    let body = reply.json();
    let status = reply.status().as_u16();
    assert!(reply.header("content-type").contains("json"), "case {n}: {case:?}: {:?}", reply.head);
    assert!(!reply.header("x-request-id").is_empty(), "case {n}: {case:?}");
    let own = case.panics.is_none() && !case.hangs && case.flow != Flow::Panics;
    if own && (400..500).contains(&case.status) && case.flow != Flow::Hangs {
        assert_eq!(status, case.status, "case {n}: {case:?}");
    }
    if body.get("success") == Some(&false.into()) {
        let said = body["retryAfter"].as_u64().map(|seconds| seconds.to_string()).unwrap_or_default();
        assert_eq!(reply.header("retry-after"), said, "case {n}: {case:?}");
        let temporary = body["code"] != "internal" && body["code"] != "rejected";
        assert_eq!(temporary, !said.is_empty(), "case {n}: {case:?}: {body}");
        assert_eq!(body["status"], status, "case {n}: {case:?}");
        assert!(!body.to_string().to_lowercase().contains("<html"), "case {n}: {body}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_answered_for_at_its_deadline() {
    let (gate, registry) = guarded(json_route(Duration::from_secs(2)));
    let hang = || async { std::future::pending::<()>().await };
    let app = Router::new().route("/api/x", any(hang)).layer(layer(registry));
    let clock = Clock::tokio();
    let before = clock.now();
    let reply = send(&app, get("/api/x")).await;
    assert_eq!(clock.now().since(before).as_secs(), 2);
    assert_eq!((reply.status().as_u16(), &reply.json()["code"]), (503, &"deadline".into()));
    assert_eq!(gate.stats().in_flight, 0);
}

#[tokio::test]
async fn a_handlers_failure_is_told_with_its_code_its_time_and_the_requests_id() {
    let (_, registry) = guarded(json_route(Duration::from_secs(2)));
    let fail = || async {
        Err::<(), _>(Failure::new(Problem::new(Code::PoolTimeout).after(Some(Duration::from_secs(4)))))
    };
    let app = Router::new().route("/api/x", any(fail)).layer(layer(registry));
    let mut request = get("/api/x");
    request.headers_mut().insert("x-request-id", "r-7".parse().expect("a header"));
    let reply = send(&app, request).await;
    let body = reply.json();
    assert_eq!(reply.status(), 503);
    assert_eq!((&body["code"], &body["requestId"]), (&"pool_timeout".into(), &"r-7".into()));
    let seconds = body["retryAfter"].as_u64().expect("whole seconds");
    assert!((4..=6).contains(&seconds), "{seconds}");
    assert_eq!(reply.header("retry-after"), seconds.to_string());
    assert_eq!(reply.header("x-request-id"), "r-7");
}

#[tokio::test]
async fn a_bug_is_a_500_that_keeps_its_text_to_itself() {
    let (_, registry) = guarded(json_route(Duration::from_secs(2)));
    async fn buggy() -> Result<(), Failure> {
        Err(std::io::Error::other("duplicate key value violates users_email_key").into())
    }
    let app = Router::new().route("/api/x", any(buggy)).layer(layer(registry));
    let reply = send(&app, get("/api/x")).await;
    let body = reply.json();
    assert_eq!((reply.status().as_u16(), &body["code"]), (500, &"internal".into()));
    assert!(body.get("retryAfter").is_none() && body.get("detail").is_none());
    assert!(!body.to_string().contains("duplicate"));
}

#[tokio::test]
async fn a_service_that_fails_without_a_reply_is_answered_for() {
    let (_, registry) = guarded(json_route(Duration::from_secs(2)));
    let broken = tower::service_fn(|_: Request<Body>| async {
        Err::<Response<Body>, _>(std::io::Error::other("planted"))
    });
    let service = tower_layer::Layer::layer(&layer(registry), broken);
    let response: Result<_, Infallible> = tower::ServiceExt::oneshot(service, get("/api/x")).await;
    assert_eq!(response.expect("it is infallible").status(), 500);
}

#[tokio::test]
async fn an_endpoint_that_asks_for_it_is_left_alone() {
    let page =
        |status: StatusCode| async move { (status, [(header::CONTENT_TYPE, "text/html")], "<p>x</p>") };
    let endpoint = Endpoint { replies: Replies::Any, ..Endpoint::new("/page") };
    let endpoints = Endpoints::new(vec![endpoint], Endpoint::unlisted()).expect("it is valid");
    let (_, registry) = guarded(endpoints);
    let app = Router::new()
        .route("/page", any(move || page(StatusCode::BAD_GATEWAY)))
        .route("/unlisted", any(move || page(StatusCode::OK)))
        .route("/bad", any(move || page(StatusCode::BAD_GATEWAY)))
        .layer(layer(registry));
    assert_eq!(send(&app, get("/page")).await.body, "<p>x</p>");
    assert_eq!(send(&app, get("/unlisted")).await.body, "<p>x</p>");
    let reply = send(&app, get("/bad")).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["code"]), (502, &"upstream_invalid".into()));
}

#[tokio::test]
async fn cookies_and_challenges_survive_a_repair() {
    async fn refuse() -> impl IntoResponse {
        let mut headers = HeaderMap::new();
        headers.append(header::WWW_AUTHENTICATE, "Bearer".parse().expect("a header"));
        headers.append(header::SET_COOKIE, "a=1".parse().expect("a header"));
        (StatusCode::UNAUTHORIZED, headers, "who are you?")
    }
    let (_, registry) = guarded(json_route(Duration::from_secs(2)));
    let app = Router::new().route("/api/x", any(refuse)).layer(layer(registry));
    let reply = send(&app, get("/api/x")).await;
    assert_eq!((reply.header("www-authenticate"), reply.header("set-cookie")), ("Bearer", "a=1"));
    assert_eq!((reply.status().as_u16(), &reply.json()["error"]), (401, &"who are you?".into()));
}
