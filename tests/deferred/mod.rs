//! What deferred work promises, asked of both databases. Each mail writes one row into a table that has no unique key: one
//! that was sent twice would show, and so would one of an attempt that failed.

pub(crate) mod kills;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Method, Request, Response, StatusCode},
    routing::post,
};
use parking_lot::Mutex;
use selfheal::{
    Heal, HealPool,
    backoff::Backoff,
    batch_executor::{
        Attempts, Refused,
        journal::{JobId, Journal, NewJob},
    },
    deferred::{self, Failed, Handler},
    error_class::ErrorClass,
    http::Failure,
    level::Class,
    runtime::StartError,
    store::{Dialect, Jobs, Queue},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::Connection;
use tower::ServiceExt as _;

use crate::{
    durable::{books, claim, done, settle},
    operations::{Effects, Written, each_once},
};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mail {
    pub(crate) item: i64,
    /// What becomes of it.
    fate: String,
}

pub(crate) fn mail(item: i64) -> Mail {
    fated(item, "sent")
}

fn fated(item: i64, fate: &str) -> Mail {
    Mail { item, fate: fate.to_owned() }
}

/// Writes a row for each mail, and then does as it says.
pub(crate) fn sending<DB: Dialect>(pool: &HealPool<DB>, effects: Effects<DB>) -> Handler {
    let waits = Backoff { initial: Duration::from_millis(5), factor: 2.0, max: Duration::from_millis(10) };
    let handler = deferred::run_tx(pool, move |conn, mail: Mail, context| {
        Box::pin(async move {
            effects(conn, vec![mail.item]).await?;
            match mail.fate.as_str() {
                // As a panic, but without a walk through the stack on the terminal.
                "panics" => std::panic::resume_unwind(Box::new("planted")),
                "fails" => Err(Failed::new(ErrorClass::Unknown, "a secret of the house")),
                "is wrong" => Err(Failed::new(ErrorClass::Permanent, "a secret of the house")),
                "is long" => Ok(json!("x".repeat(70_000))),
                _ => Ok(json!({ "item": mail.item, "for": context.caller(), "attempt": context.attempt() })),
            }
        })
    });
    handler.attempts(Attempts { most: 3, waits, ..Attempts::default() })
}

pub(crate) async fn start<DB: Dialect>(pool: &HealPool<DB>, handler: Handler) -> Heal {
    let builder = Heal::builder().pool("main", pool).deferred("mail", handler);
    builder.lease(Duration::from_secs(2)).start().await.expect("it starts")
}

/// The service: mails are deferred by whoever asks, and asked about.
pub(crate) fn service(heal: &Heal) -> Router {
    let mails = heal.deferred("mail");
    let defer = move |body: String| {
        let mails = mails.clone();
        async move { Ok::<_, Failure>(mails.defer(&mail(body.parse()?)).await?) }
    };
    Router::new().route("/api/mails", post(defer)).layer(heal.layer()).merge(heal.jobs_router())
}

pub(crate) async fn ask(
    app: &Router,
    method: Method,
    path: &str,
    user: &str,
    body: &str,
) -> (Response<()>, Value) {
    let request = Request::builder().method(method).uri(path).header("x-user-id", user);
    let request = request.body(Body::from(body.to_owned())).expect("a request");
    let (head, body) = app.clone().oneshot(request).await.expect("it is infallible").into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a whole body");
    let body = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    (Response::from_parts(head, ()), body)
}

async fn look(app: &Router, path: &str, user: &str) -> (Response<()>, Value) {
    ask(app, Method::GET, path, user, "").await
}

/// What its caller sees of a job once that holds.
async fn seen(app: &Router, path: &str, what: impl Fn(&Response<()>, &Value) -> bool) -> Value {
    let seeing = async {
        loop {
            let (head, body) = look(app, path, "ann").await;
            if what(&head, &body) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), seeing).await.expect("it comes to it")
}

async fn over(app: &Router, path: &str) -> Value {
    seen(app, path, |_, body| ["done", "dead"].iter().any(|state| body["state"] == *state)).await
}

/// Everything that was accepted of all queues is over; says how many were done, and how many are dead.
async fn drained<DB: Dialect>(jobs: &Jobs<DB>) -> (u64, u64) {
    let drained = async {
        loop {
            if let [0, 0, done, dead] = books(jobs).await {
                return (done, dead);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), drained).await.expect("it is drained")
}

pub(crate) async fn pause<DB: Dialect>(jobs: &Jobs<DB>, paused: bool) {
    jobs.pause(&"mail".into(), paused, "a test".into(), "to see".into()).await.expect("it is written");
}

/// All of it, on an empty database with the table of effects.
pub(crate) async fn everything<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
    clear: Written<DB>,
) {
    its_caller_is_told_of_a_job_and_nobody_else_until_it_is_forgotten(pool, effects, written).await;
    clear(pool).await;
    many_callers_at_once_are_each_done_once(pool, effects, written).await;
    clear(pool).await;
    what_fails_is_dead_in_the_end_and_keeps_nobody_waiting(pool, effects, written).await;
    clear(pool).await;
    what_was_accepted_before_a_restart_is_done_after_it(pool, effects, written).await;
    what_cannot_be_done_is_refused(pool, effects).await;
}

async fn its_caller_is_told_of_a_job_and_nobody_else_until_it_is_forgotten<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, sending(pool, effects).keep(Duration::from_secs(1))).await;
    let (app, jobs) = (service(&heal), Jobs::of(pool));
    pause(&jobs, true).await;
    let (head, accepted) = ask(&app, Method::POST, "/api/mails", "ann", "7").await;
    assert_eq!((head.status(), &accepted["success"]), (StatusCode::ACCEPTED, &json!(true)), "{accepted}");
    let url = head.headers()["location"].to_str().expect("text").to_owned();
    assert_eq!((accepted["url"].as_str(), accepted["state"].as_str()), (Some(&*url), Some("pending")));
    assert_eq!(books(&jobs).await, [1, 0, 0, 0], "it is committed before its caller is told");

    let (head, pending) = look(&app, &url, "ann").await;
    assert_eq!(head.status(), StatusCode::OK);
    let id = &accepted["job"];
    let expected = json!({
        "success": true, "job": id, "operation": "mail", "state": "pending", "attempts": 0, "retryAfter": 1,
    });
    assert_eq!(pending, expected);
    assert_eq!([&head.headers()["retry-after"], &head.headers()["cache-control"]], ["1", "no-store"]);

    let nobody = format!("{}/{}", deferred::PATH, "0".repeat(32));
    let (head, none) = look(&app, &nobody, "ann").await;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    for (path, user) in [(&*url, "bob"), (&*url, ""), ("/api/jobs/1", "ann"), ("/api/jobs/' or 1=1", "ann")] {
        let path = path.replace(' ', "%20");
        let (head, other) = look(&app, &path, user).await;
        assert_eq!((head.status(), &other), (StatusCode::NOT_FOUND, &none), "{path} for {user:?}");
    }

    pause(&jobs, false).await;
    let done = over(&app, &url).await;
    let expected = json!({
        "success": true, "job": id, "operation": "mail", "state": "done", "attempts": 0,
        "result": { "item": 7, "for": "ann", "attempt": 1 },
    });
    assert_eq!(done, expected);
    let gone = seen(&app, &url, |head, _| head.status() == StatusCode::NOT_FOUND).await;
    assert_eq!(gone, none, "as if it had never been");
    each_once(written(pool).await, 7..8);
    assert_eq!(books(&jobs).await, [0, 0, 1, 0], "and it is counted all the same");
    heal.shutdown().await;
}

async fn many_callers_at_once_are_each_done_once<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, sending(pool, effects)).await;
    let before = drained(&Jobs::of(pool)).await.0;
    let mails = heal.deferred("mail").caller("ann").class(Class::Normal);
    let calls: Vec<_> = (0..200)
        .map(|item| {
            let mails = mails.clone();
            tokio::runtime::Handle::current().spawn(async move { mails.defer(&mail(item)).await })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for call in calls {
        let accepted = call.await.expect("it ends").expect("it is accepted");
        assert!(ids.insert(accepted.id().to_owned()), "each has a name of its own");
    }
    assert_eq!(drained(&Jobs::of(pool)).await, (before + 200, 0));
    each_once(written(pool).await, 0..200);
    heal.shutdown().await;
}

async fn what_fails_is_dead_in_the_end_and_keeps_nobody_waiting<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let hanging = deferred::run_tx(pool, |_, _: Mail, _| Box::pin(std::future::pending::<Result<(), _>>()));
    let hanging =
        hanging.limit(Duration::from_millis(100)).attempts(Attempts { most: 1, ..Attempts::default() });
    let builder = Heal::builder().pool("main", pool).deferred("mail", sending(pool, effects));
    let heal = builder.deferred("slow", hanging).start().await.expect("it starts");
    let (app, jobs) = (service(&heal), Jobs::of(pool));
    let before = drained(&jobs).await.0;
    // Another version has written it, or nobody.
    let unread = jobs.accept(vec![NewJob::new("mail", *b"?")]).await.expect("it is accepted")[0].id;
    let mails = heal.deferred("mail").caller("ann");
    let mut sick = Vec::new();
    for (item, (fate, class, attempts)) in (1_000..).zip([
        ("panics", "unknown", 3),
        ("fails", "unknown", 3),
        ("is wrong", "permanent", 1),
        ("is long", "permanent", 1),
    ]) {
        let accepted = mails.defer(&fated(item, fate)).await.expect("it is accepted");
        sick.push((accepted.url(), class, attempts));
    }
    let hung = heal.deferred("slow").caller("ann").defer(&mail(1)).await.expect("it is accepted");
    sick.push((hung.url(), "timeout", 1));
    let mut sound = Vec::new();
    for item in 0..50 {
        sound.push(mails.defer(&mail(item)).await.expect("it is accepted"));
    }
    for accepted in &sound {
        assert_eq!(over(&app, &accepted.url()).await["state"], "done");
    }
    for (url, class, attempts) in &sick {
        let dead = over(&app, url).await;
        assert_eq!((&dead["state"], &dead["errorClass"]), (&json!("dead"), &json!(class)), "{dead}");
        assert_eq!(dead["attempts"], *attempts, "{dead}");
        assert!(!dead.to_string().contains("secret"), "its text is for people: {dead}");
    }
    each_once(written(pool).await, 0..50);
    let unread = jobs.look(unread).await.expect("it looks").expect("it is there");
    let error = unread.error.expect("it was tried");
    assert!(unread.failures == 1 && error.contains("cannot be read"), "{} {error}", unread.failures);
    assert_eq!(books(&jobs).await, [1, 0, before + 50, 5]);
    let counted = |queue: &Queue| (queue.name.to_string(), queue.done, queue.dead);
    let shown = async {
        while heal
            .reading()
            .queues
            .iter()
            .all(|(_, queue)| counted(queue) != ("mail".to_owned(), before + 50, 4))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shown).await.expect("operators and metrics see it");
    heal.shutdown().await;
    // On SQLite one process at a time works on jobs: this one has ended.
    drop((heal, mails, app));
    end_unread(&jobs, unread.id).await;
}

/// Ends the job that nobody could read.
async fn end_unread<DB: Dialect>(jobs: &Jobs<DB>, id: JobId) {
    jobs.drain(&"mail".into(), "a test".into(), "to end".into()).await.expect("it is written");
    for claimed in claim(jobs, &["mail"], 9, Duration::from_secs(60)).await {
        assert_eq!(claimed.lease.job, id);
        settle(jobs, claimed.lease, done()).await;
    }
    assert_eq!(drained(jobs).await.1, 5);
}

async fn what_was_accepted_before_a_restart_is_done_after_it<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) {
    let heal = start(pool, sending(pool, effects)).await;
    let jobs = Jobs::of(pool);
    pause(&jobs, true).await;
    let mails = heal.deferred("mail").caller("ann");
    let mut accepted = Vec::new();
    for item in 0..10 {
        accepted.push(mails.defer(&mail(item)).await.expect("it is accepted"));
    }
    heal.shutdown().await;
    accepted.push(mails.defer(&mail(10)).await.expect("to be done by the next one"));
    // On SQLite one process at a time works on jobs: this one has ended.
    drop((heal, mails));
    pause(&jobs, false).await;
    let heal = start(pool, sending(pool, effects)).await;
    let app = service(&heal);
    for accepted in accepted {
        assert_eq!(over(&app, &accepted.url()).await["state"], "done");
    }
    each_once(written(pool).await, 0..11);
    heal.shutdown().await;
}

async fn what_cannot_be_done_is_refused<DB: Dialect>(pool: &HealPool<DB>, effects: Effects<DB>) {
    let heal = start(pool, sending(pool, effects)).await;
    let before = books(&Jobs::of(pool)).await;
    let refused = heal.deferred("other").defer(&mail(1)).await.expect_err("nothing is registered");
    assert!(matches!(refused, Refused::Unknown), "{refused:?}");
    let refused = heal.deferred("mail").defer("a text").await.expect_err("it is no mail");
    assert!(refused.to_string().contains("cannot be read"), "{refused}");
    let big = fated(1, &"x".repeat(300_000));
    let refused = heal.deferred("mail").defer(&big).await.expect_err("it is no place for files");
    assert!(refused.to_string().contains("may have"), "{refused}");
    assert_eq!(books(&Jobs::of(pool)).await, before);
    heal.shutdown().await;
    let other = HealPool::wrap(pool.unguarded().clone());
    let elsewhere =
        Heal::builder().pool("main", pool).deferred("mail", sending(&other, effects)).start().await;
    assert!(matches!(elsewhere, Err(StartError::NoHome(_))), "{elsewhere:?}");
    let twice = Heal::builder().pool("main", pool).deferred("x", sending(pool, effects));
    let twice = twice.deferred("x", sending(pool, effects)).start().await;
    assert!(matches!(twice, Err(StartError::TwoBatches(_))), "{twice:?}");
}

/// What is enqueued is there when its transaction has committed, and not before.
pub(crate) async fn what_is_enqueued_is_accepted_with_its_transaction<DB>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) where
    DB: Dialect,
    DB::Connection: Connection<Database = DB>,
{
    let heal = start(pool, sending(pool, effects)).await;
    let (app, jobs) = (service(&heal), Jobs::of(pool));
    let mails = heal.deferred("mail").caller("ann");
    for commits in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        effects(&mut tx, vec![1]).await.expect("a row");
        let accepted = mails.enqueue(&mut tx, &mail(2)).await.expect("it is enqueued");
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
        if commits {
            assert_eq!(over(&app, &accepted.url()).await["state"], "done");
        } else {
            assert_eq!(look(&app, &accepted.url(), "ann").await.0.status(), StatusCode::NOT_FOUND);
            assert_eq!(books(&jobs).await, [0; 4], "nothing is left of it");
        }
    }
    each_once(written(pool).await, 1..3);
    heal.shutdown().await;
}

/// A caller's key names one job, until that is forgotten: whoever defers it again is told of the first one.
pub(crate) async fn what_has_a_key_is_one_job_while_it_is_kept<DB>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
) where
    DB: Dialect,
    DB::Connection: Connection<Database = DB>,
{
    let heal = start(pool, sending(pool, effects)).await;
    let (app, jobs) = (service(&heal), Jobs::of(pool));
    pause(&jobs, true).await;
    let keyed = |caller: &str| heal.deferred("mail").caller(caller).key("2026-11");
    let ann = keyed("ann");
    let (zero, nine) = (mail(0), mail(9));
    let (first, again) = tokio::join!(ann.defer(&zero), ann.defer(&nine));
    let (first, again) = (first.expect("it is accepted"), again.expect("it is accepted"));
    assert_eq!((first.url(), books(&jobs).await), (again.url(), [1, 0, 0, 0]));
    let bobs = keyed("bob").defer(&mail(1)).await.expect("it is accepted");
    let other = ann.clone().key("2026-12").defer(&mail(2)).await.expect("it is accepted");
    assert!(first != bobs && first != other && other != bobs);
    assert_eq!(look(&app, &first.url(), "bob").await.0.status(), StatusCode::NOT_FOUND);

    // Within transactions: one that finds the job, one that is the first and comes to nothing, and one that is.
    for (key, commits) in [("2026-11", true), ("2027-01", false), ("2027-01", true)] {
        let mut tx = pool.begin().await.expect("a transaction");
        let within = ann.clone().key(key).enqueue(&mut tx, &mail(3)).await.expect("it is enqueued");
        assert_eq!(within == first, key == "2026-11");
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
    }
    assert_eq!(books(&jobs).await, [4, 0, 0, 0]);

    for key in [String::new(), "x".repeat(513)] {
        let refused = ann.clone().key(key).defer(&mail(7)).await.expect_err("it is no key");
        assert!(refused.to_string().contains("1 to 512"), "{refused}");
    }
    pause(&jobs, false).await;
    assert_eq!(over(&app, &first.url()).await["state"], "done");
    let done = ann.defer(&mail(8)).await.expect("it is done already");
    assert_eq!((done, drained(&jobs).await), (first.clone(), (4, 0)));
    each_once(written(pool).await, 0..4);

    // From when its time is over the key is free, whether it has been swept or not.
    let mut conn = pool.acquire().await.expect("a connection");
    DB::run(&mut conn, "update selfheal_jobs set forget_at = 1").await.expect("an hour has passed");
    drop(conn);
    assert_eq!(look(&app, &first.url(), "ann").await.0.status(), StatusCode::NOT_FOUND);
    let anew = ann.defer(&mail(4)).await.expect("it is accepted");
    assert_eq!(anew, first, "under the same name");
    assert_eq!(over(&app, &anew.url()).await["state"], "done");
    each_once(written(pool).await, 0..5);
    heal.shutdown().await;
}

/// On one thread what is taken up at once begins in the order in which it was taken up.
pub(crate) async fn the_better_class_goes_first<DB: Dialect>(pool: &HealPool<DB>) {
    let order: Arc<Mutex<Vec<i64>>> = Arc::default();
    let begun = Arc::clone(&order);
    let handler = deferred::run(move |mail: Mail, _| {
        begun.lock().push(mail.item);
        async { Ok(()) }
    });
    let heal = start(pool, handler).await;
    let jobs = Jobs::of(pool);
    pause(&jobs, true).await;
    for (item, class) in
        [(4, Class::Background), (3, Class::Sheddable), (2, Class::Normal), (1, Class::Critical)]
    {
        let accepted = heal.deferred("mail").class(class).defer(&mail(item)).await;
        assert!(!accepted.expect("it is accepted").id().is_empty());
    }
    pause(&jobs, false).await;
    assert_eq!(drained(&jobs).await, (4, 0));
    assert_eq!(*order.lock(), [1, 2, 3, 4]);
    heal.shutdown().await;
}

/// What is done outside of the database is told by a key, and its result is kept, too.
pub(crate) async fn what_is_done_elsewhere_has_a_key_and_a_result<DB: Dialect>(pool: &HealPool<DB>) {
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&keys);
    let handler = deferred::run(move |_: Mail, context| {
        told.lock().push(context.key());
        let first = context.attempt() == 1;
        async move {
            if first { Err(Failed::new(ErrorClass::Transient, "not now")) } else { Ok(context.attempt()) }
        }
    });
    let waits = Backoff { initial: Duration::from_millis(5), factor: 1.0, max: Duration::from_millis(5) };
    let heal = start(pool, handler.attempts(Attempts { waits, ..Attempts::default() })).await;
    let accepted = heal.deferred("mail").caller("ann").defer(&mail(1)).await.expect("it is accepted");
    let done = over(&service(&heal), &accepted.url()).await;
    assert_eq!((&done["state"], &done["result"], &done["attempts"]), (&json!("done"), &json!(2), &json!(1)));
    let keys = keys.lock().clone();
    assert!(keys.len() == 2 && keys[0] == keys[1], "{keys:?}");
    heal.shutdown().await;
}

/// While the store cannot be written nobody is told that something was accepted; `spoil` makes it so, and undoes it.
pub(crate) async fn what_cannot_be_written_down_is_not_accepted<DB: Dialect>(
    pool: &HealPool<DB>,
    effects: Effects<DB>,
    written: Written<DB>,
    mut spoil: impl AsyncFnMut(bool),
) {
    let heal = start(pool, sending(pool, effects)).await;
    let app = service(&heal);
    let defer = async |item: i64| ask(&app, Method::POST, "/api/mails", "ann", &item.to_string()).await;
    assert_eq!(defer(0).await.0.status(), StatusCode::ACCEPTED);
    assert_eq!(drained(&Jobs::of(pool)).await, (1, 0));
    spoil(true).await;
    for item in 100..103 {
        let (head, refused) = defer(item).await;
        assert_eq!(
            (head.status(), &refused["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("store_down"))
        );
        assert!(head.headers().contains_key("retry-after"), "{refused}");
    }
    spoil(false).await;
    let again = async {
        while defer(1).await.0.status() != StatusCode::ACCEPTED {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(45), again).await.expect("it recovers by itself");
    assert_eq!(drained(&Jobs::of(pool)).await, (2, 0), "and what was refused is not there");
    each_once(written(pool).await, 0..2);
    heal.shutdown().await;
}
