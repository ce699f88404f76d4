//! A soak: a guarded service under callers who mean no good, for as long as `SELFHEAL_SOAK` says (`2m`, `1h`; 20
//! seconds if it says nothing), while everything that could grow is looked at.
//!
//! What rises and falls with the load says little, so the service is measured *at rest*: once after a quarter of the
//! time, when every cache and every table has what it will ever have, and once at the end. Tasks, open files, series
//! and whatever waits must then be what they were, and the heap must have no more bytes in use. What the process has
//! of the system's memory never rests, so it is read each second under load in between, and a straight line is laid
//! through it by least squares: it is the heap in use, and what the allocator keeps of pages that are not full.
//!
//! The attackers live in the same process and are part of what is measured; they keep nothing.

mod attack;

use std::{fs, net::SocketAddr, time::Duration};

use axum::{
    Router,
    http::StatusCode,
    response::Html,
    routing::{get, post},
};
use selfheal::{
    Heal, PgHealPool,
    clock::{Clock, Tick},
    config::{Config, Source},
    gate::Ticket,
    http::Failure,
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    sync::oneshot,
    task::JoinSet,
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::{guarded::seed, server::server};
use attack::{Attack, ask};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const CONFIG: &str = r#"
[pools.main]

[[endpoints]]
path = "/api/auth/login"
class = "critical"

[[endpoints]]
path = "/api/dashboard"
deadline = "2s"

[[endpoints]]
path = "/api/reports"
class = "sheddable"

[[endpoints]]
path = "/api/never"
deadline = "50ms"
"#;

const CONNECTIONS: u32 = 8;
/// How many attackers come at once.
const ATTACKERS: usize = 32;
const MIB: f64 = 1_048_576.0;
/// A growth of the heap in use that an hour may show. What a list with a bound still gains until it is full has been
/// gained by then.
const MOST_HEAP_AN_HOUR: f64 = MIB;
/// A growth of the process's memory, in an hour or in all of a shorter run: a tenth of what it has. It is told from
/// noise by no more than this: while the heap in use stayed within a third of a MiB, the pages that the allocator keeps
/// rose and fell by as much in each third of an hour (-3.9, +4.3, -.5 MiB an hour).
const MOST_MEMORY: f64 = 4.0 * MIB;
/// Series that may appear late: a reason that had not come up yet. The attackers' paths and users would add thousands.
const NEW_SERIES: usize = 16;
/// Bytes in use that may be more at rest: buffers that one of many threads keeps, a path that is a little longer.
const MORE_HEAP: usize = 512 * 1024;
const LONG: Duration = Duration::from_secs(30 * 60);

#[test]
#[ignore = "takes as long as it is told to: run by .ci/run and .ci/full"]
fn a_service_under_attack_grows_in_nothing() {
    let Some(server) = server() else { return };
    let lasts = duration();
    let (seed, clock) = (seed(), Clock::system());
    let attackers = runtime("attackers", 1);
    let database = attackers.block_on(server.database());
    let service = Service::start(database.options());
    let attack = |until: Tick| attackers.block_on(Attack::new(service.address, seed).run(ATTACKERS, until));

    let began = clock.now();
    let (warm, end) = (began + lasts / 4, began + lasts);
    let mut sent = attack(warm);
    let before = attackers.block_on(service.at_rest());
    println!("after {:?}, at rest: {before:?}; so far {sent}", lasts / 4);

    let watch = std::thread::spawn({
        let clock = clock.clone();
        move || memory(&clock, end)
    });
    sent += attack(end);
    let samples = watch.join().expect("no panic");
    let after = attackers.block_on(service.at_rest());
    println!("after {lasts:?}, at rest: {after:?}; in all {sent}");
    let memory = tell("memory of the process", &samples, |sample| sample.resident);
    let heap = tell("heap in use", &samples, |sample| sample.in_use);

    after.is_no_more_than(before);
    match lasts >= LONG {
        true => {
            assert!(heap * 3_600.0 < MOST_HEAP_AN_HOUR, "the heap grows");
            assert!(memory * 3_600.0 < MOST_MEMORY, "memory grows");
        }
        false => {
            let grown = memory * (lasts * 3 / 4).as_secs_f64();
            assert!(grown < MOST_MEMORY, "memory grows");
        }
    }
    sent.everybody_was_answered();
    service.stop();
}

/// How long it lasts.
#[expect(clippy::disallowed_methods, reason = "how long a soak lasts is asked from outside")]
fn duration() -> Duration {
    let asked = std::env::var("SELFHEAL_SOAK").unwrap_or_else(|_| "20s".into());
    humantime::parse_duration(&asked).unwrap_or_else(|error| panic!("SELFHEAL_SOAK={asked}: {error}"))
}

fn runtime(name: &str, threads: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(threads).thread_name(name).enable_all().build().expect("a runtime")
}

/// The service, on a runtime of its own, so that its tasks can be told from those of the attackers.
struct Service {
    runtime: Runtime,
    heal: Heal,
    pool: PgHealPool,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
}

/// What a service at rest consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct AtRest {
    tasks: usize,
    files: usize,
    connections: u32,
    series: usize,
    /// Bytes of the heap that are in use.
    heap: usize,
    /// Messages that wait for an actor, requests in flight, and callers who wait.
    waiting: (usize, usize, u32),
}

impl AtRest {
    /// Files and connections may have become fewer: an idle connection is closed after a while.
    fn is_no_more_than(self, before: Self) {
        let Self { tasks, files, connections, series, heap, waiting } = self;
        assert_eq!((tasks, waiting), (before.tasks, before.waiting));
        assert!(series <= before.series + NEW_SERIES, "{self:?}, after {before:?}");
        assert!(heap <= before.heap + MORE_HEAP, "{self:?}, after {before:?}");
        assert!(files <= before.files && connections <= before.connections, "{self:?}, after {before:?}");
    }
}

impl Service {
    fn start(database: sqlx::postgres::PgConnectOptions) -> Self {
        let runtime = runtime("service", 2);
        let (stop, stopped) = oneshot::channel::<()>();
        let (heal, pool, address) = runtime.block_on(async {
            let pool =
                PgHealPool::builder().max(CONNECTIONS).connect_with(database).await.expect("it connects");
            let config = Config::load(&Source::text("test", CONFIG)).expect("it is valid");
            let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
            let app = app(&heal, &pool).into_make_service_with_connect_info::<SocketAddr>();
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("its address");
            let serving = axum::serve(listener, app).with_graceful_shutdown(async { drop(stopped.await) });
            tokio::runtime::Handle::current().spawn(async { serving.await.expect("it serves") });
            (heal, pool, address)
        });
        Self { runtime, heal, pool, address, stop }
    }

    /// Waits until nothing is under way, and counts what is left.
    async fn at_rest(&self) -> AtRest {
        let mut last = self.count().await;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = self.count().await;
            // The heap is what it is once nothing else changes: what was asked of the service is in it.
            if (AtRest { heap: 0, ..now }) == (AtRest { heap: 0, ..last }) && now.waiting == (0, 0, 0) {
                return now;
            }
            last = now;
        }
        panic!("it never rests: {last:?}");
    }

    async fn count(&self) -> AtRest {
        // Before anything is asked: the question is a connection itself.
        let tasks = self.runtime.metrics().num_alive_tasks();
        let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        let shown = ask(self.address, "/metrics").await;
        let series = shown.lines().filter(|line| line.starts_with("selfheal_")).count();
        let reading = self.heal.reading();
        let mail = reading.children.iter().filter_map(|child| child.mailbox).map(|mail| mail.depth).sum();
        let stats = &reading.pools[0].stats;
        AtRest {
            tasks,
            files,
            connections: self.pool.usage().size,
            series,
            heap: in_use(),
            waiting: (mail, stats.in_flight, stats.waiting_in_all()),
        }
    }

    fn stop(self) {
        drop(self.stop);
        self.runtime.block_on(self.heal.shutdown());
    }
}

fn app(heal: &Heal, pool: &PgHealPool) -> Router {
    let (login, reports) = (pool.clone(), pool.clone());
    let (of, on) = (heal.clone(), pool.clone());
    Router::new()
        .route("/api/auth/login", post(move || query(login.clone(), "select 1")))
        .route("/api/reports", get(move || query(reports.clone(), "select pg_sleep(0.005)")))
        .route("/api/dashboard", get(move || dashboard(of.clone(), on.clone())))
        .route("/api/html", get(async || (StatusCode::BAD_GATEWAY, Html("<h1>upstream is <b>down</b></h1>"))))
        .route("/api/panic", get(panics))
        .route("/api/never", get(std::future::pending::<()>))
        .layer(heal.layer())
        .merge(heal.admin_router())
}

async fn query(pool: PgHealPool, sql: &'static str) -> Result<&'static str, Failure> {
    sqlx::query(sql).execute(&pool).await.map(|_| "{}").map_err(Failure::from)
}

/// Forty queries at once, half of them optional.
async fn dashboard(heal: Heal, pool: PgHealPool) -> Result<&'static str, Failure> {
    // What is spawned is still this request's.
    let pool = Ticket::current().map_or_else(|| pool.clone(), |ticket| pool.with(ticket));
    let mut queries = JoinSet::new();
    for n in 0..40 {
        let work = query(pool.clone(), "select 1");
        if n % 2 == 0 {
            queries.spawn(work);
        } else {
            let optional = heal.optional(work);
            queries.spawn(async { optional.await.unwrap_or(Ok("{}")) });
        }
    }
    while let Some(done) = queries.join_next().await {
        done.unwrap_or(Ok("{}"))?;
    }
    Ok("{}")
}

/// As a panic, but without its text on the terminal a thousand times.
async fn panics() -> &'static str {
    std::panic::resume_unwind(Box::new("planted"))
}

/// What was seen of memory at one moment.
struct Sample {
    seconds: f64,
    resident: f64,
    in_use: f64,
}

/// Bytes, each second until `end`.
fn memory(clock: &Clock, end: Tick) -> Vec<Sample> {
    let (began, mut samples) = (clock.now(), Vec::new());
    while clock.now() < end {
        std::thread::sleep(Duration::from_secs(1));
        let seconds = clock.now().since(began).as_secs_f64();
        samples.push(Sample { seconds, resident: resident(), in_use: in_use() as f64 });
    }
    samples
}

/// Says how much of something there was, and how fast it rose: in bytes a second.
fn tell(what: &str, samples: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    let points: Vec<_> = samples.iter().map(|sample| (sample.seconds, of(sample))).collect();
    let an_hour = |points: &[_]| format!("{:+.2}", slope(points) * 3_600.0 / MIB);
    let third = points.len().div_ceil(3).max(1);
    let thirds: Vec<_> = points.chunks(third).map(an_hour).collect();
    println!(
        "{what}: {} samples, last {:.1} MiB; {} MiB an hour, by thirds of that time {}",
        points.len(),
        points.last().map_or(0.0, |(_, bytes)| bytes / MIB),
        an_hour(&points),
        thirds.join(", "),
    );
    slope(&points)
}

/// Bytes of the heap that are in use, in the whole process.
fn in_use() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.saturating_sub(stats.bytes_deallocated)
}

/// The second number of statm is pages; they have 4 KiB wherever this runs.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).map_or(0.0, |pages: f64| pages * 4096.0)
}

/// Of the straight line through the points that has the least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let across: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let along: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    if along > 0.0 { across / along } else { 0.0 }
}

#[test]
fn the_slope_of_a_line_is_found() {
    let rising: Vec<_> = (0..60).map(|second| (f64::from(second), 3.0 * f64::from(second) + 7.0)).collect();
    assert!((slope(&rising) - 3.0).abs() < 1e-9);
    assert!(slope(&[(1.0, 5.0)]).abs() < 1e-9);
}
