//! Long operations while PostgreSQL is ended and its network is ill: what a caller was promised is done, nothing that is
//! done in transactions is done twice, and nobody waits longer than they said.
//!
//! Callers ask once and never again: what they are told is what is checked. Each item writes a row into a table without
//! a unique key, so what was done twice shows. Half of the operations are long and done by `run_tx`; a quarter is so short
//! that it is not written down; a quarter is done by `run`, whose rows bear the key of their item: each may be there
//! several times, and all of those bear the same.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use selfheal::{
    Heal, PgHealPool,
    batch::{self, Handler, Part, Results},
    batch_executor::{Refused, Report},
    clock::Clock,
    config::{Config, Source},
    error_class::ErrorClass,
    store::Jobs,
};
use sqlx::{Executor, postgres::PgConnectOptions};
use tokio::task::JoinSet;

use crate::{
    durable::{books, kills::kills},
    proxy::{Proxy, Toxic},
    server::{options, server},
    server_kills::up_again,
};

const CALLERS: usize = 4;
/// Chunks of some 60 items, and a fifth of a second.
const CONFIG: &str = r#"
    [batches.tx]
    deadline = "2s"
    per_item = "10ms"
    [batches.plain]
    deadline = "2s"
    per_item = "10ms"
    [pools.main]
"#;
/// What an item takes, how many an operation has, and how long its caller waits: for less than all of a long one.
const EACH: Duration = Duration::from_millis(3);
const LONG: i64 = 300;
const SHORT: i64 = 30;
const WITHIN: Duration = Duration::from_secs(1);
/// Between one operation of a caller and the next.
const PAUSE: Duration = Duration::from_millis(400);
/// Short, so that what was lost comes back soon.
const TTL: Duration = Duration::from_secs(1);
/// Whatever it was, it is over by then.
const BOUND: Duration = Duration::from_secs(60);
/// After the last of it nothing is in limbo.
const LIMBO: Duration = Duration::from_secs(45);

/// Callers, until they are dropped, and the service that does what they ask for.
struct Siege {
    heal: Heal,
    pool: PgHealPool,
    seen: Arc<Seen>,
    running: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    next: AtomicI64,
    /// Those that were promised, or done at once.
    acknowledged: Mutex<BTreeSet<i64>>,
    /// What the others were told, and how often.
    told: Mutex<HashMap<&'static str, u32>>,
    slowest: Mutex<Duration>,
}

/// What an operation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Long,
    Short,
    Plain,
}

impl Kind {
    const fn of(operation: i64) -> Self {
        match operation % 4 {
            0 | 1 => Self::Long,
            2 => Self::Short,
            _ => Self::Plain,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Long | Self::Short => "tx",
            Self::Plain => "plain",
        }
    }

    fn items(operation: i64) -> Vec<i64> {
        let count = if Self::of(operation) == Self::Short { SHORT } else { LONG };
        (operation * LONG..operation * LONG + count).collect()
    }
}

fn in_transactions(pool: &PgHealPool) -> Handler {
    batch::run_tx(pool, |conn, items: Part<i64>| {
        Box::pin(async move {
            tokio::time::sleep(EACH * items.len() as u32).await;
            let insert = sqlx::query("insert into effects select * from unnest($1::int8[])");
            insert.bind(items.to_vec()).execute(conn).await?;
            Ok(Results::done())
        })
    })
}

fn at_least_once(pool: &PgHealPool) -> Handler {
    let pool = pool.clone();
    batch::run(move |items: Part<i64>| {
        let pool = pool.clone();
        async move {
            tokio::time::sleep(EACH * items.len() as u32).await;
            let keys: Vec<_> = (0..items.len()).map(|at| items.key(at).unwrap_or_default()).collect();
            let insert = sqlx::query("insert into calls select * from unnest($1::int8[], $2::text[])");
            insert.bind(items.to_vec()).bind(keys).execute(&pool).await?;
            Ok(Results::done())
        }
    })
}

impl Siege {
    async fn begin(database: PgConnectOptions) -> Self {
        let build = PgHealPool::builder().max(8).acquire_timeout(Duration::from_secs(2));
        let build = build.statement_timeout(Duration::from_secs(2));
        let pool = build.connect_with(database).await.expect("it connects");
        pool.execute("create table effects (item int8); create table calls (item int8, key text)")
            .await
            .expect("tables");
        let config = Config::load(&Source::text("test", CONFIG)).expect("it is valid");
        let builder = Heal::builder().config(config).pool("main", &pool).lease(TTL);
        let builder = builder.batch("tx", in_transactions(&pool)).batch("plain", at_least_once(&pool));
        let heal = builder.start().await.expect("it starts");
        let (seen, mut running): (Arc<Seen>, _) = (Arc::default(), JoinSet::new());
        for _ in 0..CALLERS {
            let (heal, seen) = (heal.clone(), Arc::clone(&seen));
            running.spawn(async move {
                loop {
                    seen.ask(&heal).await;
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { heal, pool, seen, running }
    }

    /// Waits until so many more were acknowledged.
    async fn more(&self, acknowledged: usize) {
        let before = self.seen.acknowledged.lock().len();
        let enough = || self.seen.acknowledged.lock().len() >= before + acknowledged;
        self.until("going on", enough).await;
    }

    /// Waits until somebody has been told that something is the matter.
    async fn troubled(&self) {
        let troubles = || self.seen.told.lock().values().sum::<u32>();
        let before = troubles();
        self.until("troubled", || troubles() > before).await;
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let wait = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(BOUND, wait).await;
        waited.unwrap_or_else(|_| panic!("never {what}: {:?}", self.seen.told.lock()));
    }

    /// All is well again: nothing is in limbo, what was acknowledged is done, and nothing twice.
    async fn end(mut self) {
        assert!(self.running.try_join_next().is_none(), "a caller was told what may not be");
        let (clock, ended) = (Clock::system(), Clock::system().now());
        self.running.shutdown().await;
        let jobs = Jobs::of(&self.pool);
        let left = async {
            while !matches!(books(&jobs).await, [0, 0, ..]) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(LIMBO, left).await.is_err() {
            let left =
                "select state::int8, losses::int8, count(*) from selfheal_jobs where state < 2 group by 1, 2";
            let left: Vec<(i64, i64, i64)> = sqlx::query_as(left).fetch_all(&self.pool).await.expect("rows");
            panic!("in limbo, by state and losses: {left:?}");
        }
        let (settled, [_, _, done, dead]) = (clock.now().since(ended), books(&jobs).await);
        self.heal.shutdown().await;
        let select = "select item, count(*), 1::int8 from effects group by item \
                      union all select item, 1::int8, count(distinct key) from calls group by item";
        let mut conn = self.pool.acquire().await.expect("a connection");
        // There may be a million rows, and nobody waits.
        conn.execute("set statement_timeout = 0").await.expect("it is set");
        let rows: Vec<(i64, i64, i64)> = sqlx::query_as(select).fetch_all(&mut *conn).await.expect("rows");
        let rows: BTreeMap<_, _> =
            rows.into_iter().map(|(item, times, keys)| (item, (times, keys))).collect();
        let doubled: Vec<_> = rows.iter().filter(|(_, of)| **of != (1, 1)).collect();
        assert!(doubled.is_empty(), "done twice, or under two keys: {doubled:?}");
        let acknowledged = self.seen.acknowledged.lock();
        let promised = acknowledged.iter().flat_map(|operation| Kind::items(*operation));
        let lost: Vec<_> = promised.filter(|item| !rows.contains_key(item)).collect();
        assert!(lost.is_empty(), "acknowledged and not done: {lost:?}");
        assert_eq!(dead, 0, "nothing is given up");
        let (told, slowest) = (self.seen.told.lock(), *self.seen.slowest.lock());
        println!(
            "{} operations acknowledged, {done} jobs and {} items done, each once; others told {told:?}; \
             the slowest answer after {slowest:?}; nothing in limbo after {settled:?}",
            acknowledged.len(),
            rows.len(),
        );
        // The rest of it is what a busy machine takes to wake somebody.
        assert!(slowest < WITHIN + Duration::from_millis(500), "answered after {slowest:?}");
    }
}

impl Seen {
    /// Asks for the next operation, once.
    async fn ask(&self, heal: &Heal) {
        let operation = self.next.fetch_add(1, Ordering::Relaxed);
        let (batch, items) = (heal.batch(Kind::of(operation).name()), Kind::items(operation));
        let (clock, asked) = (Clock::system(), Clock::system().now());
        let answer = batch.caller(operation.to_string()).within(WITHIN).run(&items).await;
        let mut slowest = self.slowest.lock();
        *slowest = clock.now().since(asked).max(*slowest);
        drop(slowest);
        match told(answer) {
            None => drop(self.acknowledged.lock().insert(operation)),
            Some(told) => *self.told.lock().entry(told).or_default() += 1,
        }
    }
}

/// What a caller was told who was promised nothing.
fn told(answer: Result<Report, Refused>) -> Option<&'static str> {
    match answer {
        Ok(report) if report.job.is_some() || report.counts.remaining() == 0 => {
            assert_eq!(report.counts.failed, 0, "no item is at fault: {report:?}");
            None
        }
        Ok(_) => Some("not all of it, and no more is promised"),
        Err(Refused::NotWritten(error)) => {
            assert!(error.trouble.passes(), "it passes: {error}");
            Some("it could not be written down")
        }
        Err(Refused::Failed { class, why }) => {
            assert_eq!(class, ErrorClass::Interrupted, "{why}");
            Some("nobody knows what was done")
        }
        Err(refused @ (Refused::Unknown | Refused::Draining)) => panic!("failed to {refused}"),
    }
}

/// The server is ended as often while operations are done, by a kill and by a stop in turn.
async fn ended(times: usize) {
    let Some(server) = server() else { return };
    let server = server.durable();
    server.admin().await.execute("grant create on schema public to app").await.expect("it may create tables");
    let siege = Siege::begin(options(server.port(), "app", "postgres")).await;
    siege.more(4).await;
    for n in 0..times {
        if n % 2 == 0 {
            server.kill();
        } else {
            server.stop_at_once();
        }
        siege.troubled().await;
        tokio::time::timeout(BOUND, up_again(&server)).await.expect("it starts");
        siege.more(6).await;
    }
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_ended_three_times_loses_and_doubles_nothing() {
    ended(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute: KILLS=… of them, 20 if not said"]
async fn a_server_that_is_ended_twenty_times_loses_and_doubles_nothing() {
    ended(kills(20)).await;
}

/// Every ill of a network, one after the other, while operations are done.
async fn ill(times: usize) {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let proxy = Proxy::to(database.options().get_port()).await;
    let siege = Siege::begin(database.options().port(proxy.port())).await;
    siege.more(4).await;
    for toxic in [
        Toxic::Latency(Duration::from_millis(20)),
        Toxic::Down,
        Toxic::Bandwidth(64 * 1024),
        Toxic::SlowClose(Duration::from_millis(200)),
        Toxic::ResetPeer,
        Toxic::Slicer,
        Toxic::LimitData(5_000),
        Toxic::BlackHole,
        // Whoever writes an operation down or takes it up names its kind, and nobody knows what became of it.
        Toxic::CutAfter("tx"),
        // Every transaction is committed, and nobody is told so.
        Toxic::CutAfter("COMMIT"),
    ]
    .repeat(times)
    {
        proxy.set(toxic);
        // Who is not told of a commit finds out what became of it, and gets on.
        match toxic.lets_through() || matches!(toxic, Toxic::CutAfter("COMMIT")) {
            true => siege.more(3).await,
            false => siege.troubled().await,
        }
        proxy.set(Toxic::None);
        proxy.close_all();
        siege.more(3).await;
    }
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_ill_in_every_way_loses_and_doubles_nothing() {
    ill(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: KILLS=… times, 20 if not said"]
async fn a_network_that_is_ill_in_every_way_twenty_times_loses_and_doubles_nothing() {
    ill(kills(20)).await;
}
