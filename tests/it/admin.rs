//! The admin surface: nobody gets in who should not, looking changes nothing, and what is shown is true.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request},
};
use parking_lot::Mutex;
use selfheal::{
    admin::{
        self, Access, Child, Health, Mail, ModeChange, NotOperated, NotOrdered, NotRestarted, Pool, Reading,
        Server, State, Token,
    },
    metrics::Exporter,
};
use selfheal_actors::{
    breaker::{Around, Breaker, Breakers},
    clock::Clock,
    gate::{Change, Gate, Hold, Ticket},
    level::{Class, Level, Mode, ModeCell, Severity},
    signal::Signals,
};
use serde_json::{Value, json};

use crate::support::{Reply, gate, send};

const API: &str = "/admin/self-healing/api/v1";

/// A runtime to look at, and what was done to it.
struct Desk {
    app: Router,
    gate: Gate,
    changes: Arc<Mutex<Vec<ModeChange>>>,
    restarts: Arc<AtomicU32>,
    health: Arc<Mutex<Health>>,
}

fn access() -> Access {
    Access::new(Clock::tokio())
}

fn tokens() -> Access {
    let token = |text| Some(Token::new(text).expect("it is fit"));
    access().token(token("act-token")).read_only_token(token("look-token"))
}

fn reading(gate: &Gate) -> Reading {
    let server = Some(Server { used: 12, max: 100, reserved: 3, share: 95, peers: 0 });
    Reading {
        service: "desk".into(),
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600),
        uptime: Duration::from_millis(1_500),
        mode: Mode::Act,
        severity: Severity::Warning,
        up: true,
        pools: vec![Pool { stats: gate.stats(), level: Level::Warning, max: 10, open: 6, server }],
        children: vec![Child {
            supervisor: "root".into(),
            id: "pool-monitor:main".into(),
            state: "up",
            generation: 2,
            starts: 2,
            restarts: 1,
            last_exit: Some("panic".into()),
            since: SystemTime::UNIX_EPOCH,
            mailbox: Some(Mail { depth: 3, dropped: 1 }),
        }],
        incidents: Vec::new(),
        transitions: Vec::new(),
        breakers: Vec::new(),
        queues: Vec::new(),
        batches: Vec::new(),
        label_overflow: 0,
    }
}

/// One circuit, on a clock that stands still.
fn circuits() -> Breakers {
    let around =
        Around { clock: Clock::manual().0, mode: ModeCell::new(Mode::Act), signals: Signals::none() };
    let circuits = Breakers::new(Arc::default(), around, 0);
    circuits.endpoint("/api/reports").admit().expect("it is closed").success();
    circuits
}

fn desk(access: Access, guard_metrics: bool) -> Desk {
    let gate = gate(10, &ModeCell::new(Mode::Act));
    let changes = Arc::new(Mutex::new(Vec::new()));
    let circuits = circuits();
    let restarts = Arc::new(AtomicU32::new(0));
    let health = Arc::new(Mutex::new(Health { alive: true, started: true, draining: false }));
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let exporter = Exporter::of(recorder.handle());
    let state = State {
        access: Arc::new(access),
        guard_metrics,
        health: Arc::new({
            let health = Arc::clone(&health);
            move || *health.lock()
        }),
        read: Arc::new({
            let (gate, circuits) = (gate.clone(), circuits.clone());
            move || {
                let breakers = circuits.all().iter().map(Breaker::view).collect();
                Reading { breakers, ..reading(&gate) }
            }
        }),
        holders: Arc::new({
            let gate = gate.clone();
            move |pool| (pool == "main").then(|| gate.holders())
        }),
        config: Arc::new(|| json!({ "admin": { "token": "***" } })),
        set_mode: Arc::new({
            let changes = Arc::clone(&changes);
            move |change| {
                changes.lock().push(change);
                Mode::Act
            }
        }),
        restart_child: Arc::new({
            let restarts = Arc::clone(&restarts);
            move |id| {
                let known = *id == *"pools/pool-monitor:main";
                restarts.fetch_add(u32::from(known), Ordering::SeqCst);
                Box::pin(async move { if known { Ok(()) } else { Err(NotRestarted::Unknown) } })
            }
        }),
        operate_queue: Arc::new(|_| Box::pin(async { Err(NotOrdered::Unknown) })),
        jobs: Arc::new(|_| Box::pin(async { Ok(Vec::new()) })),
        operate: Arc::new({
            let circuits = circuits.clone();
            move |(name, command)| {
                let circuit = circuits.find(&name).ok_or(NotOperated::Unknown)?;
                circuit.operate(&command).map_err(NotOperated::Illegal)?;
                Ok(circuit.shows())
            }
        }),
        render_metrics: Arc::new(move |reading| {
            metrics::with_local_recorder(&recorder, || exporter.render(reading))
        }),
    };
    Desk { app: admin::router(state), gate, changes, restarts, health }
}

/// A request that an operator's browser or client on this machine makes.
struct Ask(Request<Body>);

impl Ask {
    fn new(method: Method, path: &str, body: &str) -> Self {
        let path = if path.starts_with("/a/") { path.replacen("/a", API, 1) } else { path.to_owned() };
        let request = Request::builder().method(method).uri(path).header("host", "localhost:8080");
        Self(request.body(Body::from(body.to_owned())).expect("a request")).from("127.0.0.1:4711")
    }

    fn get(path: &str) -> Self {
        Self::new(Method::GET, path, "")
    }

    fn set_mode() -> Self {
        Self::new(Method::POST, "/a/mode", r#"{"mode":"observe","reason":"a drill"}"#)
    }

    fn from(mut self, peer: &str) -> Self {
        let peer: SocketAddr = peer.parse().expect("an address");
        self.0.extensions_mut().insert(ConnectInfo(peer));
        self
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.headers_mut().insert(name, value.parse().expect("a header"));
        self
    }

    fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    async fn of(self, desk: &Desk) -> Reply {
        send(&desk.app, self.0).await
    }

    async fn status(self, desk: &Desk) -> u16 {
        self.of(desk).await.status().as_u16()
    }
}

#[tokio::test]
async fn without_a_token_this_machine_gets_in_and_nobody_else() {
    let desk = desk(access(), false);
    for (peer, host) in [
        ("127.0.0.1:9", "localhost"),
        ("127.0.0.1:9", "LOCALHOST:1"),
        ("127.8.8.8:9", "127.0.0.1:8080"),
        ("[::1]:9", "[::1]:8080"),
        ("[::ffff:127.0.0.1]:9", "localhost:8080"),
    ] {
        assert_eq!(
            Ask::get("/a/status").from(peer).with("host", host).status(&desk).await,
            200,
            "{peer} {host}"
        );
    }
    for peer in ["203.0.113.7:9", "10.0.0.1:9", "[2001:db8::1]:9", "0.0.0.0:9"] {
        assert_eq!(Ask::get("/a/status").from(peer).status(&desk).await, 403, "{peer}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_dns_rebinding() {
    let desk = desk(access(), false);
    for host in ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", ""]
    {
        let ask = Ask::get("/a/status").with("host", host).with("origin", &format!("http://{host}"));
        assert_eq!(ask.status(&desk).await, 403, "{host}");
        let ask = Ask::set_mode().with("host", host).with("origin", &format!("http://{host}"));
        assert_eq!(ask.status(&desk).await, 403, "{host}");
    }
    // Two names, or a target that names another host than `Host` does.
    let mut two = Ask::get("/a/status");
    two.0.headers_mut().append("host", "evil.example".parse().expect("a header"));
    assert_eq!(two.status(&desk).await, 403);
    let mut none = Ask::get("/a/status");
    none.0.headers_mut().remove("host");
    assert_eq!(none.status(&desk).await, 403);
    let target = Ask::get(&format!("http://evil.example{API}/status"));
    assert_eq!(target.status(&desk).await, 403);
    assert!(desk.changes.lock().is_empty());
}

#[tokio::test]
async fn a_forwarded_request_is_not_from_this_machine() {
    let desk = desk(access(), false);
    for header in ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"] {
        let reply = Ask::get("/a/status").with(header, "127.0.0.1").of(&desk).await;
        assert_eq!(reply.status(), 403, "{header}");
        assert!(reply.json()["error"].as_str().is_some_and(|error| error.contains("admin.token")));
    }
}

#[tokio::test]
async fn an_unknown_peer_is_told_what_to_change() {
    let desk = desk(access(), false);
    let mut ask = Ask::get("/a/status");
    ask.0.extensions_mut().remove::<ConnectInfo<SocketAddr>>();
    let reply = ask.of(&desk).await;
    assert_eq!(reply.status(), 403);
    let error = reply.json()["error"].to_string();
    assert!(error.contains("into_make_service_with_connect_info::<SocketAddr>()"), "{error}");
}

#[tokio::test]
async fn a_foreign_page_cannot_act() {
    for desk in [desk(access(), false), desk(tokens(), false)] {
        let act = || Ask::set_mode().bearer("act-token");
        for site in ["cross-site", "same-site"] {
            let reply = act().with("sec-fetch-site", site).of(&desk).await;
            assert_eq!(
                (reply.status().as_u16(), &reply.json()["code"]),
                (403, &"cross_origin".into()),
                "{site}"
            );
        }
        assert_eq!(act().with("origin", "https://evil.example").status(&desk).await, 403);
        assert_eq!(act().with("origin", "null").status(&desk).await, 403);
        assert!(desk.changes.lock().is_empty());
        assert_eq!(act().with("origin", "http://localhost:8080").status(&desk).await, 200);
        assert_eq!(act().with("sec-fetch-site", "same-origin").status(&desk).await, 200);
        assert_eq!(act().status(&desk).await, 200, "no browser");
        assert_eq!(desk.changes.lock().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_token_whoever_has_it_gets_in_from_anywhere() {
    let desk = desk(tokens(), false);
    let from_afar =
        |ask: Ask| ask.from("203.0.113.7:9").with("host", "desk.example").with("x-forwarded-for", "x");
    assert_eq!(from_afar(Ask::get("/a/status").bearer("act-token")).status(&desk).await, 200);
    assert_eq!(from_afar(Ask::get("/a/status").bearer("look-token")).status(&desk).await, 200);
    // ana:act-token
    let basic = Ask::set_mode().with("authorization", "Basic YW5hOmFjdC10b2tlbg==");
    assert_eq!(from_afar(basic).status(&desk).await, 200);
    let change = desk.changes.lock().pop().expect("it was changed");
    assert_eq!((&*change.by, &*change.reason, change.mode), ("ana", "a drill", Mode::Observe));

    let nobody = Ask::get("/a/status").of(&desk).await;
    assert_eq!(nobody.status(), 401, "this machine, too");
    assert!(nobody.header("www-authenticate").starts_with("Basic "));
    for wrong in ["act-toke", "act-token2", "ACT-TOKEN", "look-token act-token"] {
        assert_eq!(
            Ask::get("/a/status").from("198.51.100.1:1").bearer(wrong).status(&desk).await,
            401,
            "{wrong}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn five_wrong_tokens_a_minute_and_the_peer_is_not_listened_to() {
    let desk = desk(tokens(), false);
    let try_it = |token: &'static str, peer: &'static str| Ask::get("/a/status").from(peer).bearer(token);
    for port in 1..=5_u16 {
        let peer = format!("203.0.113.7:{port}");
        assert_eq!(Ask::get("/a/status").from(&peer).bearer("wrong").status(&desk).await, 401);
    }
    let reply = try_it("act-token", "203.0.113.7:6").of(&desk).await;
    assert_eq!(reply.status(), 429, "the right one, too: nothing is learnt by going on");
    assert_eq!(reply.header("retry-after"), reply.json()["retryAfter"].to_string());
    assert_eq!(try_it("act-token", "203.0.113.8:6").status(&desk).await, 200);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(try_it("act-token", "203.0.113.7:6").status(&desk).await, 200);
}

#[tokio::test]
async fn a_read_only_token_looks_and_does_not_act() {
    let desk = desk(tokens(), false);
    assert_eq!(Ask::set_mode().bearer("look-token").status(&desk).await, 403);
    let restart = Ask::new(Method::POST, "/a/children/pools/pool-monitor:main", r#"{"action":"restart"}"#);
    assert_eq!(restart.bearer("look-token").status(&desk).await, 403);
    assert!(desk.changes.lock().is_empty());
    assert_eq!(desk.restarts.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_read_only_surface_is_read_only_for_everybody() {
    let desk = desk(tokens().read_only(true), false);
    let reply = Ask::set_mode().bearer("act-token").of(&desk).await;
    assert_eq!((reply.status().as_u16(), reply.header("allow")), (405, "GET, HEAD"));
    assert!(desk.changes.lock().is_empty());
    assert_eq!(Ask::get("/a/status").bearer("act-token").status(&desk).await, 200);
}

#[tokio::test]
async fn looking_changes_nothing() {
    let desk = desk(access(), false);
    let pages = [
        "/a/status",
        "/a/pools",
        "/a/pools/main/holders",
        "/a/children",
        "/a/incidents",
        "/a/config",
        "/metrics",
        "/livez",
        "/readyz?verbose",
        "/a/mode",
        "/a/children/pools/pool-monitor:main",
        "/a/mode?mode=off&reason=x",
    ];
    let before = format!("{:?}", desk.gate.stats());
    for page in pages {
        for method in [Method::GET, Method::HEAD] {
            let ask = Ask::new(method, page, r#"{"mode":"off","reason":"x","action":"restart"}"#);
            let status = ask.status(&desk).await;
            let is_action = page.contains("mode") || page.ends_with("pool-monitor:main");
            assert_eq!(status, if is_action { 405 } else { 200 }, "{page}");
        }
    }
    assert!(desk.changes.lock().is_empty());
    assert_eq!(desk.restarts.load(Ordering::SeqCst), 0);
    assert_eq!(format!("{:?}", desk.gate.stats()), before);
}

#[tokio::test]
async fn every_reply_behind_the_guard_is_json_with_headers_that_bind_a_browser() {
    let desk = desk(access(), false);
    let foreign = || Ask::set_mode().with("sec-fetch-site", "cross-site");
    for ask in [
        Ask::get("/a/status"),
        Ask::get("/a/nothing"),
        Ask::get("/admin/self-healing/nothing"),
        Ask::get("/a/status").from("203.0.113.7:9"),
        Ask::new(Method::PUT, "/a/mode", ""),
        Ask::new(Method::POST, "/a/mode", "not json"),
        foreign(),
    ] {
        let path = ask.0.uri().to_string();
        let reply = ask.of(&desk).await;
        assert!(reply.json().is_object(), "{path}");
        assert_eq!(reply.header("content-type"), "application/json", "{path}");
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert_eq!(reply.header("referrer-policy"), "same-origin", "{path}");
    }
}

#[tokio::test]
async fn an_action_is_checked_before_it_is_done() {
    let desk = desk(access(), false);
    let mode = |body: &str| Ask::new(Method::POST, "/a/mode", body);
    let long = format!(r#"{{"mode":"off","reason":"{}"}}"#, "x".repeat(501));
    for body in [
        "",
        r#"{"mode":"off"}"#,
        r#"{"mode":"off","reason":"  "}"#,
        r#"{"mode":"sleep","reason":"x"}"#,
        r#"{"mode":"off","reason":"x","force":true}"#,
        &long,
    ] {
        assert_eq!(mode(body).status(&desk).await, 422, "{body}");
    }
    let huge = format!(r#"{{"mode":"off","reason":"{}"}}"#, "x".repeat(64 << 10));
    assert_eq!(mode(&huge).status(&desk).await, 413);
    assert!(desk.changes.lock().is_empty());

    let restart = |id: &str, body: &str| Ask::new(Method::POST, &format!("/a/children/{id}"), body);
    assert_eq!(restart("pools/pool-monitor:main", r#"{"action":"kill"}"#).status(&desk).await, 422);
    assert_eq!(restart("nobody", r#"{"action":"restart"}"#).status(&desk).await, 404);
    let reply = restart("pools/pool-monitor:main", r#"{"action":"restart"}"#).of(&desk).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["success"]), (200, &true.into()));
    assert_eq!(desk.restarts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn probes_are_open_and_speak_as_kubernetes_does() {
    let desk = desk(tokens(), false);
    let probe = |path: &str| Ask::get(path).from("203.0.113.7:9").with("host", "10.1.2.3:8080");
    assert_eq!(probe("/livez").of(&desk).await.body, "ok");
    let told = probe("/readyz?verbose").of(&desk).await;
    assert_eq!(told.body, "[+]started ok\n[+]not-draining ok\nreadyz check passed\n");
    desk.health.lock().draining = true;
    let told = probe("/readyz").of(&desk).await;
    assert_eq!(told.status(), 503);
    assert_eq!(told.body, "[+]started ok\n[-]not-draining failed\nreadyz check failed\n");
    assert_eq!(probe("/livez").status(&desk).await, 200, "draining is not dying");
    desk.health.lock().alive = false;
    assert_eq!(probe("/livez").status(&desk).await, 503);
}

#[tokio::test]
async fn what_is_shown_of_a_pool_is_what_its_gate_knows() {
    let desk = desk(access(), false);
    desk.gate.apply(Change::Shed(true));
    let ticket = Ticket::new(Class::Normal).with_user("u1").with_operation("/api/dashboard");
    let permit = desk.gate.acquire(Some(&ticket), Hold::here()).await.expect("there is one");
    assert!(desk.gate.enter(&Ticket::new(Class::Sheddable)).is_err());

    let pools: Value = Ask::get("/a/pools").of(&desk).await.json();
    let main = &pools["pools"][0];
    assert_eq!(
        (&main["name"], &main["level"], &main["in_use"]),
        (&"main".into(), &"warning".into(), &1.into())
    );
    assert_eq!(main["utilization_ratio"], 0.1);
    assert_eq!(main["refused"]["sheddable"], json!({ "shed": 1 }));
    assert_eq!(main["in_force"]["shed"], true);

    let holders = Ask::get("/a/pools/main/holders").of(&desk).await.json();
    let holder = &holders["holders"][0];
    assert_eq!((&holder["user"], &holder["operation"]), (&"u1".into(), &"/api/dashboard".into()));
    assert!(holder["site"].as_str().is_some_and(|site| site.contains("admin.rs:")), "{holder}");
    assert_eq!(Ask::get("/a/pools/other/holders").status(&desk).await, 404);

    let status = Ask::get("/a/status").of(&desk).await.json();
    assert_eq!(status["at"], "2026-01-01T00:00:00.000Z");
    assert_eq!((&status["mode"], &status["severity"]), (&"act".into(), &"warning".into()));
    assert_eq!((&status["uptime_seconds"], &status["children"]["up"]), (&1.5.into(), &1.into()));
    drop(permit);
}

#[tokio::test]
async fn metrics_are_derived_when_they_are_asked_for() {
    let desk = desk(access(), false);
    desk.gate.apply(Change::Shed(true));
    let ticket = Ticket::new(Class::Critical);
    drop(desk.gate.acquire(Some(&ticket), Hold::here()).await.expect("there is one"));
    let held = desk.gate.acquire(Some(&ticket), Hold::here()).await.expect("there is one");
    assert!(desk.gate.enter(&Ticket::new(Class::Sheddable)).is_err());

    let reply = Ask::get("/metrics").from("203.0.113.7:9").of(&desk).await;
    assert!(reply.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = String::from_utf8(reply.body.to_vec()).expect("it is text");
    for line in [
        r#"selfheal_pool_connections{pool="main",state="used"} 1"#,
        r#"selfheal_pool_connections{pool="main",state="idle"} 5"#,
        r#"selfheal_pool_pressure{pool="main",level="normal"} 0"#,
        r#"selfheal_pool_pressure{pool="main",level="warning"} 1"#,
        r#"selfheal_pool_pressure{pool="main",level="critical"} 0"#,
        r#"selfheal_pool_sheds_total{pool="main",class="sheddable",reason="shed"} 1"#,
        r#"selfheal_pool_acquire_duration_seconds_count{pool="main",class="critical"} 2"#,
        r#"selfheal_server_connections{pool="main",state="reserved"} 3"#,
        r#"selfheal_mode{mode="act"} 1"#,
        r#"selfheal_mode{mode="off"} 0"#,
        r#"selfheal_severity{level="warning"} 1"#,
        r#"selfheal_severity{level="failure"} 0"#,
        r#"selfheal_child_up{child="pool-monitor:main"} 1"#,
        r#"selfheal_mailbox_depth{child="pool-monitor:main"} 3"#,
        "selfheal_up 1",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
    }
    let again = Ask::get("/metrics").of(&desk).await;
    let again = String::from_utf8(again.body.to_vec()).expect("it is text");
    let waits = r#"selfheal_pool_acquire_duration_seconds_count{pool="main",class="critical"} 2"#;
    assert!(again.lines().any(|line| line == waits), "passed on once, not at each look:\n{again}");
    drop(held);
}

#[tokio::test]
async fn metrics_stand_behind_the_guard_where_that_is_asked_for() {
    let desk = desk(access(), true);
    assert_eq!(Ask::get("/metrics").from("203.0.113.7:9").status(&desk).await, 403);
    assert_eq!(Ask::get("/metrics").status(&desk).await, 200);
}

#[tokio::test]
async fn it_merges_into_a_host_that_has_a_fallback_of_its_own() {
    let mut desk = desk(access(), false);
    desk.app = Router::new()
        .route("/", axum::routing::get(|| async { "home" }))
        .merge(desk.app)
        .fallback(|| async { "host" });
    assert_eq!(Ask::get("/").of(&desk).await.body, "home");
    assert_eq!(Ask::get("/elsewhere").of(&desk).await.body, "host");
    assert_eq!(Ask::get("/admin/self-healing/nothing").from("203.0.113.7:9").status(&desk).await, 403);
    assert_eq!(Ask::get("/a/status").status(&desk).await, 200);
}

#[tokio::test]
async fn a_circuit_is_seen_pinned_with_its_reason_and_released() {
    let desk = desk(access(), false);
    let force = |body: &str| Ask::new(Method::POST, "/a/breakers//api/reports", body);
    let seen = async || Ask::get("/a/breakers").of(&desk).await.json()["breakers"][0].clone();
    let closed = seen().await;
    assert_eq!((&closed["name"], &closed["state"]), (&"/api/reports".into(), &"closed".into()));
    assert_eq!((&closed["calls"], &closed["failure_rate"]), (&1.into(), &json!(0.0)));

    let reply = force(r#"{"state":"force_open","for":"15m","reason":"bad numbers"}"#).of(&desk).await;
    assert_eq!((reply.status().as_u16(), &reply.json()["state"]), (200, &"forced_open".into()));
    let forced = seen().await;
    assert_eq!((&forced["state"], &forced["pinned_because"]), (&"forced_open".into(), &"bad numbers".into()));
    assert_eq!(forced["retry_after_seconds"], 900.0);

    let refused = async |body| {
        let reply = force(body).of(&desk).await;
        (reply.status().as_u16(), reply.json()["code"].clone())
    };
    assert_eq!(refused(r#"{"state":"trip","reason":"x"}"#).await, (409, "illegal".into()));
    assert_eq!(refused(r#"{"state":"force_closed"}"#).await, (422, "no_reason".into()));
    assert_eq!(refused(r#"{"state":"disabled","for":"15","reason":"x"}"#).await, (422, "invalid".into()));
    assert_eq!(refused(r#"{"state":"melt","reason":"x"}"#).await, (422, "invalid".into()));
    let unknown = Ask::new(Method::POST, "/a/breakers/other", r#"{"state":"auto"}"#);
    assert_eq!(unknown.status(&desk).await, 404);

    assert_eq!(force(r#"{"state":"auto"}"#).status(&desk).await, 200);
    assert_eq!(seen().await["state"], "closed");
}
