//! The statements of SQLite. Sets travel as one JSON text each; there is one writer, so nobody is passed over.
//!
//! Triggers keep the books: they cost less here than the statement and the hop to the driver's thread that counting
//! apart would.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use futures_core::future::BoxFuture;
use selfheal_actors::batch_executor::journal::{
    Claim, Claimed, Counts, Job, JobId, KeyUntil, Lease, NewJob, Progress, Settle,
};
use serde_json::json;
use sqlx::{
    Sqlite, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteRow, SqliteSynchronous},
};

use super::{
    dialect::{
        DEAD_KEPT, Dialect, FORGOTTEN_AT_ONCE, Fresh, Written, class, count, counted, micros, number,
        rows_of, span, state, texts,
    },
    listen::Ears,
    migrations::{self, Migration},
    overview::{Look, Queue},
};

rows_of!(SqliteRow);

/// The clock, in microseconds since 1970; the same throughout a statement.
macro_rules! now {
    () => {
        "cast(unixepoch('subsec') * 1000000 as integer)"
    };
}

/// The order in which jobs are claimed, as in the index.
macro_rules! rank {
    () => {
        "due + class * 10000000"
    };
}

/// For each queue its most urgent jobs, then of all these the most urgent. The first condition bounds what is looked
/// at: nothing that is due has a greater rank.
const CLAIM: &str = concat!(
    "update selfheal_jobs set state = 1, token = token + 1, losses = losses + (state = 1), due = ", now!(), " + ?3
     where id in (
        select j.id from json_each(?1) q join selfheal_jobs j on j.id in (
            select id from selfheal_jobs where queue = q.value and state < 2
                and ", rank!(), " <= ", now!(), " + 30000000 and due <= ", now!(), "
                and not exists (select 1 from selfheal_queues s where s.queue = q.value and s.paused)
            order by ", rank!(), " limit ?2)
        order by j.due + j.class * 10000000 limit ?2)
     returning id, token, queue, class, payload, owner, progress, total, done, blocked, failed, failures, losses, ",
    now!(), " - accepted_at as age, accepted_at + class * 10000000 as rank"
);

const ACCEPT: &str = concat!(
    "insert into selfheal_jobs
        (queue, class, state, token, due, accepted_at, payload, key, key_until, owner, total, keep)
     select value->>0, value->>1, (value->>2) > 0, (value->>2) > 0, ",
    now!(),
    " + (value->>2) + (value->>3), ",
    now!(),
    ",
        unhex(value->>4), value->>5, value->>6, value->>7, value->>8, value->>9
     from json_each(?1) where true
     on conflict (queue, key) where key is not null do nothing
     returning id, case when key is not null then queue end, key"
);

const HEARTBEAT: &str = concat!(
    "update selfheal_jobs set due = ",
    now!(),
    " + ?2
     where state = 1 and (id, token) in (select value->>0, value->>1 from json_each(?1)) returning id, token"
);

/// Only of what gets on: a transaction that was given up and commits all the same has done the same part before.
const CHECKPOINT: &str = "\
    update selfheal_jobs set progress = ?3, total = ?4, done = ?5, blocked = ?6, failed = ?7, losses = 0
    where id = ?1 and token = ?2 and state = 1
        and (done + blocked + failed < ?5 + ?6 + ?7
            or done + blocked + failed = ?5 + ?6 + ?7 and progress is distinct from ?3)";

const FINISH: &str = "\
    delete from selfheal_jobs
    where state = 1 and keep = 0 and (id, token) in (select value->>0, value->>1 from json_each(?1)) returning id, token";

const SETTLE: &str = concat!(
    "update selfheal_jobs set
        state = i.state,
        due = case i.state when 0 then ", now!(), " + i.wait else due end,
        failures = failures + i.failure,
        error = coalesce(i.error, selfheal_jobs.error),
        total = coalesce(i.total, selfheal_jobs.total), done = coalesce(i.done, selfheal_jobs.done),
        blocked = coalesce(i.blocked, selfheal_jobs.blocked), failed = coalesce(i.failed, selfheal_jobs.failed),
        key = case when i.state > 0 and key_until = 0 then null else key end,
        forget_at = case i.state when 2 then ", now!(), " + keep when 3 then ", now!(), " + ?2 end
     from (
        select value->>0 as id, value->>1 as token, value->>2 as state, value->>3 as wait, value->>4 as failure,
            value->>5 as error, value->>6 as total, value->>7 as done, value->>8 as blocked, value->>9 as failed
        from json_each(?1)
     ) i
     where selfheal_jobs.id = i.id and selfheal_jobs.token = i.token and selfheal_jobs.state = 1
     returning selfheal_jobs.id, selfheal_jobs.token"
);

macro_rules! shown {
    ($progress:literal, $($where:tt)*) => {
        concat!(
            "select id, queue, key, owner, class, state, total, done, blocked, failed, failures, losses, error, ",
            now!(), " - accepted_at as age, ", $progress, " as progress from selfheal_jobs where ", $($where)*
        )
    };
}

const BY_ID: &str = shown!("progress", "id = ?1");
const BY_KEY: &str = shown!("progress", "queue = ?1 and key = ?2");
const BY_KEYS: &str = shown!(
    "null",
    "(queue, key) in (select value->>0, value->>1 from json_each(?1)) and (forget_at is null or forget_at > ",
    now!(),
    ")"
);
/// What is over is there until the time for which it is kept is, whenever somebody sweeps.
const OPEN: &str = shown!(
    "progress",
    "queue in (select value from json_each(?1)) and key = ?2 and (forget_at is null or forget_at > ",
    now!(),
    ")"
);
const LIST: &str =
    shown!("null", "(?1 is null or queue = ?1) and (?2 is null or state = ?2) order by id desc limit ?3");

const QUEUES: &str = concat!(
    "select b.queue, coalesce(pending, 0) as pending, coalesce(leased, 0) as leased, accepted, b.done, dead, oldest,
        coalesce(s.paused, 0) <> 0 as paused
     from selfheal_job_counts b
     left join (
        select queue, sum(state = 0) as pending, sum(state = 1) as leased,
            ", now!(), " - min(accepted_at) filter (where state = 0) as oldest
        from selfheal_jobs where state < 2 group by queue
     ) live on live.queue = b.queue
     left join selfheal_queues s on s.queue = b.queue
     order by 1"
);

const PAUSE: &str = "\
    insert into selfheal_queues (queue, paused, by_whom, reason) values (?1, ?2, ?3, ?4)
    on conflict (queue) do update set paused = excluded.paused, by_whom = excluded.by_whom, reason = excluded.reason";

const TAKE_OVER: &str =
    concat!("update selfheal_jobs set due = ", now!(), " where state = 1 and due > ", now!());

const HURRY: &str =
    concat!("update selfheal_jobs set due = ", now!(), " where queue = ?1 and state = 0 and due > ", now!());

const FORGET: &str = concat!(
    "delete from selfheal_jobs where id in (
        select id from selfheal_jobs where state >= 2 and forget_at <= ",
    now!(),
    " limit ?1)"
);

const LET_GO: &str = concat!(
    "delete from selfheal_jobs
     where (queue, key) in (select value->>0, value->>1 from json_each(?1)) and state >= 2 and forget_at <= ",
    now!()
);

impl Dialect for Sqlite {
    /// There is one writer at a time, and two would wait for each other by sleeping.
    const WRITERS: usize = 1;
    const MIGRATIONS: &'static [Migration] = migrations::SQLITE;

    /// What was accepted must survive a power failure, whatever the pool is content with.
    fn writer(options: SqliteConnectOptions) -> SqliteConnectOptions {
        options.synchronous(SqliteSynchronous::Full)
    }

    fn listener(_: SqliteConnectOptions) -> Option<BoxFuture<'static, Result<Ears, sqlx::Error>>> {
        None
    }

    fn lock_file(options: &SqliteConnectOptions) -> Option<PathBuf> {
        let file = options.get_filename();
        let in_memory = file.as_os_str().is_empty() || file.to_string_lossy().contains(":memory:");
        let is_file = !in_memory && !file.to_string_lossy().starts_with("file:");
        is_file.then(|| {
            let mut name = file.as_os_str().to_owned();
            name.push("-jobs");
            PathBuf::from(name)
        })
    }

    fn begin_migration(conn: &mut SqliteConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Self::run(conn, "begin immediate")
    }

    fn run<'c>(conn: &'c mut SqliteConnection, sql: &'static str) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move { sqlx::raw_sql(sql).execute(conn).await.map(drop) })
    }

    fn steps(conn: &mut SqliteConnection) -> BoxFuture<'_, Result<Vec<(i64, i64)>, sqlx::Error>> {
        Box::pin(async {
            let there =
                "select count(*) from sqlite_schema where type = 'table' and name = 'selfheal_migrations'";
            let there: i64 = sqlx::query_scalar(there).fetch_one(&mut *conn).await?;
            if there == 0 {
                return Ok(Vec::new());
            }
            sqlx::query_as(migrations::STEPS).fetch_all(conn).await
        })
    }

    fn took<'c>(
        conn: &'c mut SqliteConnection,
        step: &'c Migration,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let took = "insert into selfheal_migrations (version, name, works_with) values (?1, ?2, ?3)";
            let took = sqlx::query(took).bind(step.version).bind(step.name).bind(step.works_with);
            took.execute(conn).await.map(drop)
        })
    }

    fn accept<'c>(
        conn: &'c mut SqliteConnection,
        jobs: &'c [NewJob],
    ) -> BoxFuture<'c, Result<Vec<Fresh>, sqlx::Error>> {
        Box::pin(async move {
            let rows = sqlx::query(ACCEPT).bind(jobs_as_json(jobs)).fetch_all(conn).await?;
            each(&rows, fresh)
        })
    }

    fn claim<'c>(
        conn: &'c mut SqliteConnection,
        claim: &'c Claim<'c>,
    ) -> BoxFuture<'c, Result<Vec<Claimed>, sqlx::Error>> {
        Box::pin(async move {
            let query = sqlx::query(CLAIM)
                .bind(json!(texts(claim.queues)).to_string())
                .bind(i64::from(claim.limit))
                .bind(micros(claim.ttl));
            in_order(&query.fetch_all(conn).await?)
        })
    }

    fn heartbeat<'c>(
        conn: &'c mut SqliteConnection,
        leases: &'c [Lease],
        ttl: Duration,
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>> {
        Box::pin(async move {
            let query = sqlx::query(HEARTBEAT).bind(leases_as_json(leases)).bind(micros(ttl));
            each(&query.fetch_all(conn).await?, lease)
        })
    }

    fn checkpoint<'c>(
        conn: &'c mut SqliteConnection,
        lease: Lease,
        progress: &'c Progress,
    ) -> BoxFuture<'c, Result<bool, sqlx::Error>> {
        let Counts { total, done, blocked, failed } = progress.counts;
        Box::pin(async move {
            let query = sqlx::query(CHECKPOINT)
                .bind(lease.job.0)
                .bind(lease.token)
                .bind(progress.cursor.as_deref())
                .bind(count(total))
                .bind(count(done))
                .bind(count(blocked))
                .bind(count(failed));
            Ok(query.execute(conn).await?.rows_affected() == 1)
        })
    }

    fn finish<'c>(
        conn: &'c mut SqliteConnection,
        done: &'c [Lease],
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>> {
        Box::pin(async move {
            let query = sqlx::query(FINISH).bind(leases_as_json(done));
            each(&query.fetch_all(conn).await?, lease)
        })
    }

    fn settle<'c>(
        conn: &'c mut SqliteConnection,
        ends: &'c [&'c Settle],
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>> {
        Box::pin(async move {
            let ends: Vec<_> = ends.iter().map(|end| end_as_json(&Written::of(end))).collect();
            let query = sqlx::query(SETTLE).bind(json!(ends).to_string()).bind(micros(DEAD_KEPT));
            each(&query.fetch_all(conn).await?, lease)
        })
    }

    fn look<'c>(
        conn: &'c mut SqliteConnection,
        what: &'c Look<'c>,
    ) -> BoxFuture<'c, Result<Vec<Job>, sqlx::Error>> {
        Box::pin(async move {
            let query = match what {
                Look::Job(job) => sqlx::query(BY_ID).bind(job.0),
                Look::Key { queue, key } => sqlx::query(BY_KEY).bind(queue).bind(key),
                Look::Keys { queues, keys } => sqlx::query(BY_KEYS).bind(pairs_as_json(queues, keys)),
                Look::Open { queues, key } => sqlx::query(OPEN).bind(json!(queues).to_string()).bind(key),
                Look::List { queue, state, limit } => sqlx::query(LIST)
                    .bind(*queue)
                    .bind(state.map(|state| state as i64))
                    .bind(i64::from(*limit)),
            };
            each(&query.fetch_all(conn).await?, job)
        })
    }

    fn let_go<'c>(
        conn: &'c mut SqliteConnection,
        queues: &'c [&'c str],
        keys: &'c [&'c str],
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            sqlx::query(LET_GO).bind(pairs_as_json(queues, keys)).execute(conn).await.map(drop)
        })
    }

    fn queues(conn: &mut SqliteConnection) -> BoxFuture<'_, Result<Vec<Queue>, sqlx::Error>> {
        Box::pin(async { each(&sqlx::query(QUEUES).fetch_all(conn).await?, queue) })
    }

    fn pause<'c>(
        conn: &'c mut SqliteConnection,
        queue: &'c str,
        paused: bool,
        by: &'c str,
        reason: &'c str,
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let pause = sqlx::query(PAUSE).bind(queue).bind(paused).bind(by).bind(reason);
            pause.execute(conn).await.map(drop)
        })
    }

    fn hurry<'c>(conn: &'c mut SqliteConnection, queue: &'c str) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move { sqlx::query(HURRY).bind(queue).execute(conn).await.map(drop) })
    }

    fn take_over(conn: &mut SqliteConnection) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
        Box::pin(async { Ok(sqlx::query(TAKE_OVER).execute(conn).await?.rows_affected()) })
    }

    fn sweep(conn: &mut SqliteConnection) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
        Box::pin(async {
            let forget = sqlx::query(FORGET).bind(FORGOTTEN_AT_ONCE);
            Ok(forget.execute(conn).await?.rows_affected())
        })
    }
}

fn pairs_as_json(queues: &[&str], keys: &[&str]) -> String {
    json!(queues.iter().zip(keys).collect::<Vec<_>>()).to_string()
}

fn jobs_as_json(jobs: &[NewJob]) -> String {
    let job = |job: &NewJob| {
        let key_until = u8::from(job.key.as_ref().is_some_and(|key| key.until == KeyUntil::Forgotten));
        json!([
            &*job.queue,
            job.class.index(),
            job.hold.map_or(0, micros),
            if job.hold.is_some() { 0 } else { micros(job.delay) },
            hex(&job.payload),
            job.key.as_ref().map(|key| &key.text),
            key_until,
            job.owner,
            count(job.total),
            micros(job.keep),
        ])
    };
    json!(jobs.iter().map(job).collect::<Vec<_>>()).to_string()
}

/// As `[[1,2],[3,4]]`, written by hand: thousands of them are written a second.
fn leases_as_json(leases: &[Lease]) -> String {
    let mut text = String::with_capacity(leases.len() * 16 + 2);
    text.push('[');
    for (n, lease) in leases.iter().enumerate() {
        let comma = if n == 0 { "" } else { "," };
        // Writing to a string cannot fail.
        let _ = write!(text, "{comma}[{},{}]", lease.job.0, lease.token);
    }
    text.push(']');
    text
}

fn end_as_json(end: &Written) -> serde_json::Value {
    let counts = |what: fn(&Counts) -> u64| end.counts.as_ref().map(|counts| count(what(counts)));
    json!([
        end.lease.job.0,
        end.lease.token,
        end.state,
        end.after,
        u8::from(end.failure),
        end.error,
        counts(|counts| counts.total),
        counts(|counts| counts.done),
        counts(|counts| counts.blocked),
        counts(|counts| counts.failed),
    ])
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}
