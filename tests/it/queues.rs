//! The queues of durable jobs, as an operator of a running service sees and stops them.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request},
};
use selfheal::{
    Heal,
    batch_executor::journal::{Claim, NewJob},
    config::{Config, Source},
    deferred,
    level::Class,
};
use serde_json::{Value, json};

use crate::{guarded::eventually, jobs::Folder, support::send};

const JOBS: &str = "/admin/self-healing/api/v1/jobs";
const QUEUES: &str = "/admin/self-healing/api/v1/queues";

async fn ask(app: &Router, method: Method, path: &str, body: Value) -> (u16, Value) {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("origin", "http://localhost")
        .body(Body::from(body.to_string()))
        .expect("a request");
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 4711))));
    let reply = send(app, request).await;
    (reply.status().as_u16(), reply.json())
}

#[tokio::test]
async fn a_queue_and_its_jobs_are_shown_and_it_is_paused_let_go_on_and_drained() {
    let folder = Folder::new("queues-stopped");
    let pool = folder.pool().await;
    let config = Config::load(&Source::text("test", "[pools.main]\n")).expect("it is valid");
    let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
    let app = heal.admin_router();
    let (status, none) = ask(&app, Method::GET, QUEUES, Value::Null).await;
    assert_eq!((status, &none["queues"]), (200, &json!([])), "nobody has used it");

    let jobs = heal.journal("main").expect("the pool's");
    jobs.accept(vec![NewJob::new("mail", *b"{}"), NewJob::new("mail", *b"{}")])
        .await
        .expect("they are accepted");
    eventually("shown", || heal.reading().queues.iter().any(|(_, queue)| queue.accepted == 2)).await;
    let (_, shown) = ask(&app, Method::GET, QUEUES, Value::Null).await;
    let mail = &shown["queues"][0];
    assert_eq!((&mail["name"], &mail["pool"], &mail["depth"]), (&json!("mail"), &json!("main"), &json!(2)));

    let mail = format!("{QUEUES}/mail");
    let queues = ["mail".into()];
    let claim = Claim { queues: &queues, limit: 1, ttl: Duration::from_secs(30) };
    let (status, refused) = ask(&app, Method::POST, &mail, json!({ "action": "pause" })).await;
    assert_eq!(status, 422, "what stays says why: {refused}");
    let pause = json!({ "action": "pause", "reason": "the printer is on fire" });
    assert_eq!(ask(&app, Method::POST, &mail, pause.clone()).await.0, 200);
    assert_eq!(jobs.claim(&claim).await.expect("it claims").len(), 0, "it is paused");
    assert_eq!(ask(&app, Method::POST, &mail, json!({ "action": "resume" })).await.0, 200);
    let claimed = jobs.claim(&claim).await.expect("it claims");
    assert_eq!(claimed.len(), 1, "it goes on");

    let (status, all) = ask(&app, Method::GET, JOBS, Value::Null).await;
    assert_eq!((status, all["jobs"].as_array().map(Vec::len)), (200, Some(2)), "{all}");
    assert!(all["jobs"][0].get("payload").is_none(), "what is in them is nobody else's");
    let leased = format!("{JOBS}?queue=mail&state=leased&limit=9");
    let (_, leased) = ask(&app, Method::GET, &leased, Value::Null).await;
    let shown = &leased["jobs"][0];
    assert_eq!((&shown["id"], &shown["pool"]), (&json!(claimed[0].lease.job.0), &json!("main")));
    assert_eq!(
        ask(&app, Method::GET, &format!("{JOBS}?queue=nothing"), Value::Null).await.1,
        json!({ "jobs": [] })
    );
    for wrong in ["state=sleeping", "limit=many", "sate=done"] {
        let (status, refused) = ask(&app, Method::GET, &format!("{JOBS}?{wrong}"), Value::Null).await;
        assert_eq!((status, &refused["code"]), (422, &json!("invalid")), "{refused}");
    }

    let later = NewJob { delay: Duration::from_secs(60), ..NewJob::new("mail", *b"{}") };
    jobs.accept(vec![later]).await.expect("it is accepted");
    assert_eq!(ask(&app, Method::POST, &mail, json!({ "action": "drain" })).await.0, 200);
    let claim = Claim { limit: 9, ..claim };
    assert_eq!(jobs.claim(&claim).await.expect("it claims").len(), 2, "nothing waits for its time");
    assert_eq!(ask(&app, Method::POST, &format!("{QUEUES}/nothing"), pause).await.0, 404);

    heal.shutdown().await;
}

#[tokio::test]
async fn deferred_work_is_a_queue_that_an_operator_stops_and_lets_go_on() {
    let folder = Folder::new("queues-deferred");
    let pool = folder.pool().await;
    let handler = deferred::run(async |letters: String, _| Ok(letters.len()));
    let heal =
        Heal::builder().pool("main", &pool).deferred("count", handler).start().await.expect("it starts");
    let app = heal.admin_router();
    let count = format!("{QUEUES}/count");
    let pause = json!({ "action": "pause", "reason": "nobody counts today" });
    assert_eq!(ask(&app, Method::POST, &count, pause).await.0, 200);
    let mails = heal.deferred("count").caller("ann").class(Class::Normal);
    assert!(!mails.defer("abc").await.expect("it is accepted").id().is_empty());
    let waits = |wait: bool| {
        heal.reading().queues.iter().any(|(_, queue)| {
            (&*queue.name, queue.pending, queue.done) == ("count", u64::from(wait), u64::from(!wait))
        })
    };
    eventually("shown", || waits(true)).await;
    let (_, jobs) = ask(&app, Method::GET, &format!("{JOBS}?queue=count&state=pending"), Value::Null).await;
    let job = &jobs["jobs"][0];
    assert_eq!((&job["owner"], &job["class"]), (&json!("ann"), &json!("normal")), "{jobs}");
    assert_eq!(ask(&app, Method::POST, &count, json!({ "action": "resume" })).await.0, 200);
    eventually("done", || waits(false)).await;
    heal.shutdown().await;
}
