//! PostgreSQL is killed, again and again, under a service that writes.
//!
//! A write that is acknowledged is there, once. A write whose reply is not a success may or may not be there: whoever
//! sent it reads the item by its id, and sends it again only if it is not. The table has no key, so that a write that was
//! done twice shows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{Method, Request, StatusCode},
    routing::post,
};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use selfheal::{
    Heal, PgHealPool,
    config::{Config, Source},
    http::Failure,
    level::Level,
};
use selfheal_actors::clock::{Clock, Tick};
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::{
    guarded::eventually,
    proxy::{Proxy, Toxic},
    server::{Server, options, server},
};

const WRITERS: u32 = 12;
/// Many more than there are writers, each of which may have one that is still on its way back: once all are served the
/// level is normal.
const MAX: u32 = 40;
/// Writes between one end of the server and the next.
const WRITES_BETWEEN: usize = 60;
/// Long enough for whatever is not measured.
const BOUND: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
    [pools.main]
    [[endpoints]]
    path = "/api/items/{id}"
    class = "critical"
    deadline = "60s"
"#;

/// The service, and what its clients know.
struct Service {
    heal: Heal,
    pool: PgHealPool,
    app: Router,
    known: Known,
    clock: Clock,
}

/// What the clients know.
#[derive(Default)]
struct Known {
    next: AtomicU32,
    /// Items that were acknowledged, or were found when they were looked for.
    done: Mutex<Vec<i64>>,
    /// Writes of which the reply did not say how they ended, and that were found done.
    found_done: AtomicU32,
    last_success: Mutex<Tick>,
    /// Replies that were no success, by their code.
    refusals: Mutex<BTreeMap<String, u32>>,
}

async fn write(State(pool): State<PgHealPool>, Path(id): Path<i64>) -> Result<Json<Value>, Failure> {
    let mut transaction = pool.begin().await?;
    sqlx::query("insert into items values ($1)").bind(id).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Json(json!({ "id": id })))
}

async fn read(State(pool): State<PgHealPool>, Path(id): Path<i64>) -> Result<Json<Value>, Failure> {
    let count = sqlx::query_scalar::<_, i64>("select count(*) from items where id = $1").bind(id);
    Ok(Json(json!({ "count": count.fetch_one(&pool).await? })))
}

impl Service {
    async fn start(database: PgConnectOptions) -> Arc<Self> {
        let pool = PgHealPool::builder().max(MAX).connect_with(database).await.expect("it connects");
        pool.execute("create table items (id bigint)").await.expect("a table");
        let config = Config::load(&Source::text("test", CONFIG)).expect("it is valid");
        let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
        let items = Router::new().route("/api/items/{id}", post(write).get(read)).with_state(pool.clone());
        let app = items.layer(heal.layer());
        Arc::new(Self { heal, pool, app, known: Known::default(), clock: Clock::system() })
    }

    /// Writers, until they are dropped.
    fn load(self: &Arc<Self>) -> JoinSet<()> {
        let mut writers = JoinSet::new();
        for _ in 0..WRITERS {
            let service = Arc::clone(self);
            writers.spawn(async move {
                loop {
                    service.write_one().await;
                }
            });
        }
        writers
    }

    /// Writes one item, whatever it takes.
    async fn write_one(&self) {
        let id = i64::from(self.known.next.fetch_add(1, Ordering::Relaxed));
        loop {
            let (status, _) = self.ask(Method::POST, id).await;
            if status == StatusCode::OK {
                break *self.known.last_success.lock() = self.clock.now();
            }
            if self.is_there(id).await {
                self.known.found_done.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        self.known.done.lock().push(id);
    }

    async fn is_there(&self, id: i64) -> bool {
        loop {
            let (status, reply) = self.ask(Method::GET, id).await;
            if status == StatusCode::OK {
                return reply["count"] != 0;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Every reply is JSON.
    async fn ask(&self, method: Method, id: i64) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(format!("/api/items/{id}"));
        let request = request.body(Body::empty()).expect("a request");
        let reply = self.app.clone().oneshot(request).await.expect("it replies");
        let status = reply.status();
        let body = reply.into_body().collect().await.expect("all of it").to_bytes();
        let json: Value = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        if status != StatusCode::OK {
            let code = json["code"].as_str().unwrap_or("no code").to_owned();
            assert_ne!(code, "internal", "an interrupted write is no bug: {json}");
            *self.known.refusals.lock().entry(code).or_default() += 1;
        }
        (status, json)
    }

    async fn is_normal(&self) {
        let normal = async {
            while self.heal.level("main") != Some(Level::Normal) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(BOUND, normal).await.is_err() {
            let gate = self.heal.gate("main").expect("it is there");
            panic!("{:?}, {:?}: {:#?}", self.heal.level("main"), self.pool.usage(), gate.holders());
        }
    }

    async fn written(&self, count: usize) {
        let before = self.known.done.lock().len();
        eventually("written", || self.known.done.lock().len() >= before + count).await;
    }

    /// Ends the load, and counts what is in the table.
    async fn settle(&self, mut writers: JoinSet<()>, database: PgConnectOptions) {
        // What is under way now is in nobody's list of what is done, but must not be doubled either.
        let next = self.known.next.load(Ordering::Relaxed);
        writers.abort_all();
        while let Some(ended) = writers.join_next().await {
            assert!(ended.is_err_and(|error| error.is_cancelled()), "a writer failed");
        }
        eventually("at rest", || self.pool.usage().in_use == 0).await;
        let gate = self.heal.gate("main").expect("it is there");
        eventually("at rest", || gate.stats().in_use == 0 && gate.stats().waiting_in_all() == 0).await;
        assert!(gate.invariants().is_empty(), "{:?}", gate.invariants());
        let mut counting = PgConnection::connect_with(&database).await.expect("it connects");
        let rows: Vec<(i64, i64)> = sqlx::query_as("select id, count(*) from items group by id")
            .fetch_all(&mut counting)
            .await
            .expect("rows");
        let rows: BTreeMap<_, _> = rows.into_iter().collect();
        let done = self.known.done.lock().clone();
        let lost: Vec<_> = done.iter().filter(|id| !rows.contains_key(id)).collect();
        let doubled: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).collect();
        println!(
            "{} items of {next}; {} found done after their reply was lost; no success: {:?}",
            done.len(),
            self.known.found_done.load(Ordering::Relaxed),
            self.known.refusals.lock(),
        );
        assert!(lost.is_empty() && doubled.is_empty(), "lost {lost:?}, doubled {doubled:?}");
    }
}

/// How the server is ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    StopAtOnce,
}

/// What one end cost.
#[derive(Debug)]
struct Cost {
    /// The server was away for so long.
    down: Duration,
    /// The first success after it was ready.
    first_success: Duration,
    /// The level was normal again so long after it was ready.
    normal: Duration,
}

async fn end(server: &Server, how: End, service: &Service) -> Cost {
    service.written(WRITES_BETWEEN).await;
    let ended = service.clock.now();
    match how {
        End::Kill => server.kill(),
        End::StopAtOnce => server.stop_at_once(),
    }
    tokio::time::timeout(BOUND, up_again(server)).await.expect("it starts");
    let ready = service.clock.now();
    let last_success = || *service.known.last_success.lock();
    eventually("served", || last_success() > ready).await;
    let first_success = last_success().since(ready);
    service.is_normal().await;
    Cost { down: ready.since(ended), first_success, normal: service.clock.now().since(ready) }
}

/// Asks for the start again and again: what is left of a killed server may keep the new one from starting.
pub(crate) async fn up_again(server: &Server) {
    for turn in 0_u32.. {
        if turn.is_multiple_of(10) {
            server.start_again();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if let Ok(mut admin) = PgConnection::connect_with(&server.admin_options()).await
            && admin.ping().await.is_ok()
        {
            return;
        }
    }
}

async fn ends(times: usize) -> Option<Vec<(End, Cost)>> {
    let server = server()?.another();
    // The tests' servers acknowledge a commit before it is written down; here it is to be kept.
    let database = options(server.port(), "app", "postgres").options([("synchronous_commit", "on")]);
    let mut admin = server.admin().await;
    admin.execute("grant create on schema public to app").await.expect("a grant");
    drop(admin);
    let service = Service::start(database.clone()).await;
    let writers = service.load();
    let mut costs = Vec::new();
    for how in [End::Kill, End::StopAtOnce].into_iter().cycle().take(2 * times) {
        let cost = end(&server, how, &service).await;
        let Cost { down, first_success, normal } = &cost;
        println!("{how:?}: down for {down:?}; after that first success {first_success:?}, normal {normal:?}");
        costs.push((how, cost));
    }
    service.written(WRITES_BETWEEN).await;
    service.settle(writers, database).await;
    service.heal.shutdown().await;
    Some(costs)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_killed_and_stopped_twice_each_and_nothing_acknowledged_is_lost_or_doubled() {
    ends(2).await;
}

/// The full count, with the times that are promised: where nothing else runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it takes half a minute, and a machine of its own"]
async fn twenty_ends_of_postgres_cost_less_than_two_seconds_each() {
    let Some(costs) = ends(10).await else { return };
    for (how, cost) in costs {
        assert!(cost.first_success < Duration::from_secs(2), "{how:?}: {cost:?}");
        assert!(cost.normal < Duration::from_secs(10), "{how:?}: {cost:?}");
    }
}

/// The answer to a commit is lost, and the commit is not: nobody can know, and nobody writes it again blindly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_found_by_its_id_and_not_repeated() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let proxy = Proxy::to(database.options().get_port()).await;
    let service = Service::start(database.options().port(proxy.port())).await;
    let writers = service.load();
    for _ in 0..5 {
        service.written(20).await;
        let found = service.known.found_done.load(Ordering::Relaxed);
        proxy.set(Toxic::CutAfter("COMMIT"));
        eventually("found done", || service.known.found_done.load(Ordering::Relaxed) > found).await;
        proxy.set(Toxic::None);
    }
    service.written(20).await;
    service.settle(writers, database.options()).await;
    service.heal.shutdown().await;
}
