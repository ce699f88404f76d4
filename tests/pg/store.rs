//! What befalls the store of durable jobs: it is told for what it is, nothing is acknowledged meanwhile that is not
//! there afterwards, and all goes on without help when it is over.

use std::time::Duration;

use selfheal::{
    PgHealPool,
    batch_executor::journal::{Journal, Trouble},
    store::Jobs,
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};

use crate::{
    durable::{accept, job, kills, siege::Siege},
    jobs::effect,
    proxy::{Proxy, Toxic},
    server::{Server, options, server},
    server_kills::up_again,
};

/// Whatever it was, it is noticed or over by then.
const BOUND: Duration = Duration::from_secs(60);

/// The trouble that it is, once whoever asks first has met the connection that broke.
async fn told(jobs: &Jobs<sqlx::Postgres>, expected: Trouble) {
    let told = async {
        let mut seen = Vec::new();
        while seen.last() != Some(&expected) {
            match jobs.accept(vec![job("refused")]).await {
                Ok(accepted) => panic!("{accepted:?} was acknowledged; before it {seen:?}"),
                Err(error) => seen.push(error.trouble),
            }
        }
        seen
    };
    let seen = tokio::time::timeout(BOUND, told).await.unwrap_or_else(|_| panic!("it is never {expected:?}"));
    let only = |trouble: &Trouble| [expected, Trouble::Unknown].contains(trouble);
    assert!(seen.iter().all(only), "{seen:?}");
}

/// Jobs are accepted again and shown, without help, and what was refused is not among them.
async fn recovered(jobs: &Jobs<sqlx::Postgres>) {
    let again = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if jobs.accept(vec![job("again")]).await.is_ok()
                && let Ok(queues) = jobs.queues().await
            {
                return queues;
            }
        }
    };
    let queues = tokio::time::timeout(BOUND, again).await.expect("it recovers");
    assert!(queues.iter().all(|queue| queue.balances() && &*queue.name != "refused"), "{queues:?}");
}

async fn pool(options: PgConnectOptions) -> PgHealPool {
    let build = PgHealPool::builder().max(4).acquire_timeout(Duration::from_secs(2));
    build.statement_timeout(Duration::from_secs(2)).connect_with(options).await.expect("it connects")
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_told_so() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let jobs = Jobs::of(&pool(database.options()).await);
    accept(&jobs, vec![job("q")]).await;
    let name = database.options().get_database().expect("it has a name").to_owned();
    let mut admin = server.admin().await;
    for on in [true, false] {
        let set = format!("alter database {name} set default_transaction_read_only = {on}");
        admin.execute(AssertSqlSafe(set)).await.expect("it is set");
        let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        sqlx::query(end).bind(&name).execute(&mut admin).await.expect("they end");
        if on { told(&jobs, Trouble::ReadOnly).await } else { recovered(&jobs).await }
    }
}

/// The database's files are on a file system of their own, which is filled.
#[tokio::test]
async fn a_disk_that_is_full_is_told() {
    let Some(server) = server() else { return };
    let server = server.durable();
    let Some(mut admin) = small_space(&server).await else { return };
    admin.execute("create database small owner app tablespace small").await.expect("a database");
    let options = options(server.port(), "app", "small");
    let jobs = Jobs::of(&pool(options.clone()).await);
    accept(&jobs, vec![job("q")]).await;
    let mut filler = PgConnection::connect_with(&options).await.expect("it connects");
    fill(&mut filler).await;
    let full = async {
        loop {
            // What there still is room for is accepted, and then is there.
            match jobs.accept(vec![job("q"); 1_000]).await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(BOUND, full).await.expect("it gets full");
    assert_eq!(error.trouble, Trouble::Full, "{error}");
    filler.execute("drop table filler").await.expect("there is room");
    recovered(&jobs).await;
}

/// A tablespace of 32 MB. `None`, said loudly, where this may not mount a file system.
#[expect(clippy::print_stderr, reason = "a skipped test must not look like one that passed")]
async fn small_space(server: &Server) -> Option<PgConnection> {
    let mut admin = server.admin().await;
    let Some(space) = server.small_space() else {
        eprintln!("SKIPPED: a file system of its own needs to be mounted, which only root may");
        return None;
    };
    let create = format!("create tablespace small owner app location '{}'", space.display());
    let created = async {
        while admin.execute(AssertSqlSafe(create.as_str())).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(10), created).await {
        Ok(()) => Some(admin),
        Err(_) => {
            eprintln!("SKIPPED: no file system could be mounted");
            None
        }
    }
}

/// Takes all the room there is.
async fn fill(conn: &mut PgConnection) {
    conn.execute("create table filler (x text)").await.expect("a table");
    // Not compressible, and smaller in the end.
    for rows in [2_000, 200, 20, 1] {
        let some = format!(
            "insert into filler select string_agg(md5(random()::text), '') from generate_series(1, {rows}) n, generate_series(1, 200) group by n"
        );
        while conn.execute(AssertSqlSafe(some.as_str())).await.is_ok() {}
    }
}

/// Nothing arrives any more, and everything stays open: who asks is told in time that nobody knows.
#[tokio::test]
async fn a_server_that_hangs_is_told_and_one_that_cannot_be_reached() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let proxy = Proxy::to(database.options().get_port()).await;
    let jobs = Jobs::of(&pool(database.options().port(proxy.port())).await);
    accept(&jobs, vec![job("q")]).await;
    proxy.set(Toxic::BlackHole);
    let asked =
        tokio::time::timeout(BOUND, jobs.accept(vec![job("unknown")])).await.expect("it is told in time");
    assert_eq!(asked.expect_err("nobody knows").trouble, Trouble::Unknown);
    told(&jobs, Trouble::Down).await;
    proxy.set(Toxic::None);
    recovered(&jobs).await;
    proxy.set(Toxic::Down);
    told(&jobs, Trouble::Down).await;
    proxy.set(Toxic::None);
    recovered(&jobs).await;
}

async fn besieged(options: PgConnectOptions) -> (PgHealPool, Siege<sqlx::Postgres>) {
    let pool = pool(options).await;
    sqlx::query("create table effects (item int8)").execute(&pool).await.expect("a table");
    let siege = Siege::begin(&pool, effect).await;
    siege.more(20).await;
    (pool, siege)
}

async fn effects(pool: &PgHealPool) -> Vec<i64> {
    sqlx::query_scalar("select item from effects").fetch_all(pool).await.expect("a list")
}

/// Every ill of a network befalls the store, one after the other, while jobs are accepted and done.
async fn ill(times: usize) {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let proxy = Proxy::to(database.options().get_port()).await;
    let (pool, siege) = besieged(database.options().port(proxy.port())).await;
    for toxic in [
        Toxic::Latency(Duration::from_millis(20)),
        Toxic::Down,
        Toxic::Bandwidth(64 * 1024),
        Toxic::SlowClose(Duration::from_millis(200)),
        Toxic::ResetPeer,
        Toxic::Slicer,
        Toxic::LimitData(5_000),
        // Whoever accepts or claims names the queue, and nobody knows what became of it.
        Toxic::CutAfter("siege"),
        Toxic::CutAfter("COMMIT"),
    ]
    .repeat(times)
    {
        proxy.set(toxic);
        match toxic.lets_through() {
            true => siege.more(5).await,
            false => siege.troubled().await,
        }
        proxy.set(Toxic::None);
        proxy.close_all();
        siege.more(5).await;
    }
    siege.end(async || effects(&pool).await).await;
}

#[tokio::test]
async fn a_network_that_is_ill_in_every_way_loses_and_doubles_nothing() {
    ill(1).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_network_that_is_ill_in_every_way_twenty_times_loses_and_doubles_nothing() {
    ill(20).await;
}

/// The server is killed as a crash of the machine would, while jobs are accepted and done.
async fn killed(times: usize) {
    let Some(server) = server() else { return };
    let server = server.durable();
    server.admin().await.execute("grant create on schema public to app").await.expect("it may create tables");
    let (pool, siege) = besieged(options(server.port(), "app", "postgres")).await;
    for n in 0..times {
        if n % 2 == 0 {
            server.kill()
        } else {
            server.stop_at_once()
        }
        siege.troubled().await;
        tokio::time::timeout(BOUND, up_again(&server)).await.expect("it starts");
        siege.more(20).await;
    }
    siege.end(async || effects(&pool).await).await;
}

#[tokio::test]
async fn a_server_that_is_killed_loses_and_doubles_nothing() {
    killed(2).await;
}

#[tokio::test]
#[ignore = "takes minutes: KILLS=… of them, 20 if not said"]
async fn a_server_that_is_killed_twenty_times_loses_and_doubles_nothing() {
    killed(kills::kills(20)).await;
}
