//! The statements of PostgreSQL. Sets travel as arrays; who takes a set passes over rows that somebody else is taking.
//!
//! What is written and what is counted of it is one statement, so the books are right in every snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use futures_core::future::BoxFuture;
use selfheal_actors::batch_executor::journal::{
    Claim, Claimed, Counts, Job, JobId, KeyUntil, Lease, NewJob, Progress, Settle,
};
use sqlx::{
    Executor as _, PgConnection, Postgres,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgRow},
};

use super::{
    dialect::{
        DEAD_KEPT, Dialect, FORGOTTEN_AT_ONCE, Fresh, Written, class, count, counted, micros, number,
        rows_of, span, state, texts,
    },
    listen::{Ears, Hears},
    migrations::{self, Migration},
    overview::{Look, Queue},
};

rows_of!(PgRow);

/// This server's clock, in microseconds since 1970. A query of its own, so that it is asked once and not for each row.
macro_rules! now {
    () => {
        "(select (date_part('epoch', statement_timestamp()) * 1000000)::int8)"
    };
}

/// The order in which jobs are claimed, as in the index.
macro_rules! rank {
    () => {
        "(due + class * 10000000)"
    };
}

/// Jobs of a queue that may be claimed now. The first condition bounds what is looked at: nothing that is due has a
/// greater rank.
macro_rules! due {
    ($queue:literal) => {
        concat!(
            "select ctid as row, ",
            rank!(),
            " as rank from selfheal_jobs where queue = ",
            $queue,
            " and state < 2 and ",
            rank!(),
            " <= ",
            now!(),
            " + 30000000 and due <= ",
            now!(),
            " and not exists (select 1 from selfheal_queues s where s.queue = ",
            $queue,
            " and s.paused) order by ",
            rank!(),
            " limit $2 for update skip locked"
        )
    };
}

/// By the place of each row, which its lock keeps where it is: no other plan is as quick, and none slower by mistake. A
/// row that somebody has written since the statement began is left for the next claim.
macro_rules! lease {
    ($($picked:tt)*) => {
        concat!(
            "update selfheal_jobs set state = 1, token = token + 1, due = ", now!(), " + $3,
                losses = losses + (state = 1)::int
             where ctid = any(array(select row from (", $($picked)*, ") as picked))
             returning id, token, queue, class::int8, payload, owner, progress, total, done, blocked, failed,
                failures::int8, losses::int8, ", now!(), " - accepted_at as age, accepted_at + class * 10000000 as rank"
        )
    };
}

const CLAIM_OF_ONE: &str = lease!(due!("$1"));
const CLAIM_OF_SEVERAL: &str = lease!(concat!(
    "select due.* from unnest($1::text[]) as q(name) cross join lateral (",
    due!("q.name"),
    ") due order by rank limit $2"
));

/// What is accepted is told to whoever listens, if it is due and finds its queue without anything that is: where
/// something waits already somebody works, and will come to it. A notification makes a commit wait for every other one
/// that bears one, so under load there are none.
macro_rules! told {
    ($queues:literal) => {
        concat!(
            "told as materialized (
                select pg_notify('selfheal_jobs', f.queue) from (",
            $queues,
            ") f
                where (
                    select j.state = 0 and j.due <= ",
            now!(),
            " from selfheal_jobs j
                    where j.queue = f.queue and j.state < 2 order by j.due + j.class * 10000000 limit 1
                ) is not true
            )"
        )
    };
}

const ACCEPT: &str = concat!(
    "with fresh as (
        insert into selfheal_jobs
            (queue, class, state, token, due, accepted_at, payload, owner, total, keep, key, key_until)
        select i.queue, i.class, (i.hold > 0)::int::int2, (i.hold > 0)::int, ", now!(), " + i.wait + i.hold, ", now!(), ",
            i.payload, i.owner, i.total, i.keep, i.key, i.key_until
        from unnest($1::text[], $2::int2[], $3::int8[], $4::int8[], $5::bytea[], $6::text[], $7::int8[], $8::int8[],
            $9::text[], $10::int2[]) as i(queue, class, hold, wait, payload, owner, total, keep, key, key_until)
        on conflict (queue, key) where key is not null do nothing
        returning id, queue, key, state = 0 and due = accepted_at as ready
    ), counted as (
        insert into selfheal_job_counts (queue, accepted) select queue, count(*) from fresh group by queue
    ), ", told!("select distinct queue from fresh where ready"), "
    select id, case when key is not null then queue end, key from fresh where (select count(*) from told) >= 0"
);

/// The same of jobs without keys. None of them can be there, so how many there will be is known beforehand, and what a
/// conflict could come of, which costs a record more for each row, is left out.
const ACCEPT_PLAIN: &str = concat!(
    "with counted as (
        insert into selfheal_job_counts (queue, accepted) select * from unnest($9::text[], $10::int8[])
    ), ", told!("select unnest($11::text[]) as queue"), "
    insert into selfheal_jobs (queue, class, state, token, due, accepted_at, payload, owner, total, keep)
    select i.queue, i.class, (i.hold > 0)::int::int2, (i.hold > 0)::int, ", now!(), " + i.wait + i.hold, ", now!(), ",
        i.payload, i.owner, i.total, i.keep
    from unnest($1::text[], $2::int2[], $3::int8[], $4::int8[], $5::bytea[], $6::text[], $7::int8[], $8::int8[])
        as i(queue, class, hold, wait, payload, owner, total, keep)
    where (select count(*) from told) >= 0
    returning id, null::text, null::text"
);

const HEARTBEAT: &str = concat!(
    "update selfheal_jobs j set due = ",
    now!(),
    " + $3 from unnest($1::int8[], $2::int8[]) as i(id, token)
     where j.id = i.id and j.token = i.token and j.state = 1 returning j.id, j.token"
);

/// Only of what gets on: a transaction that was given up and commits all the same has done the same part before.
const CHECKPOINT: &str = "\
    update selfheal_jobs set progress = $3, total = $4, done = $5, blocked = $6, failed = $7, losses = 0
    where id = $1 and token = $2 and state = 1
        and (done + blocked + failed < $5 + $6 + $7
            or done + blocked + failed = $5 + $6 + $7 and progress is distinct from $3)";

const FINISH: &str = "\
    with gone as (
        delete from selfheal_jobs j using unnest($1::int8[], $2::int8[]) as i(id, token)
        where j.id = i.id and j.token = i.token and j.state = 1 and j.keep = 0
        returning j.id, j.token, j.queue
    ), counted as (
        insert into selfheal_job_counts (queue, done) select queue, count(*) from gone group by queue
    )
    select id, token from gone";

const SETTLE: &str = concat!(
    "with ended as (
        update selfheal_jobs j set
            state = i.state,
            due = case i.state when 0 then ", now!(), " + i.wait else j.due end,
            failures = j.failures + i.failure::int,
            error = coalesce(i.error, j.error),
            total = coalesce(i.total, j.total), done = coalesce(i.done, j.done),
            blocked = coalesce(i.blocked, j.blocked), failed = coalesce(i.failed, j.failed),
            key = case when i.state > 0 and j.key_until = 0 then null else j.key end,
            forget_at = case i.state when 2 then ", now!(), " + j.keep when 3 then ", now!(), " + $11 end
        from unnest($1::int8[], $2::int8[], $3::int2[], $4::int8[], $5::bool[], $6::text[], $7::int8[], $8::int8[],
            $9::int8[], $10::int8[])
            as i(id, token, state, wait, failure, error, total, done, blocked, failed)
        where j.id = i.id and j.token = i.token and j.state = 1
        returning j.id, j.token, j.queue, j.state
    ), counted as (
        insert into selfheal_job_counts (queue, done, dead)
        select queue, count(*) filter (where state = 2), count(*) filter (where state = 3)
        from ended where state > 0 group by queue
    )
    select id, token from ended"
);

macro_rules! shown {
    ($progress:literal, $($where:tt)*) => {
        concat!(
            "select id, queue, key, owner, class::int8, state::int8, total, done, blocked, failed, failures::int8,
                losses::int8, error, ", now!(), " - accepted_at as age, ", $progress, " as progress
             from selfheal_jobs where ", $($where)*
        )
    };
}

const BY_ID: &str = shown!("progress", "id = $1");
const BY_KEY: &str = shown!("progress", "queue = $1 and key = $2");
const BY_KEYS: &str = shown!(
    "null::bytea",
    "(queue, key) in (select * from unnest($1::text[], $2::text[])) and (forget_at is null or forget_at > ",
    now!(),
    ")"
);
/// What is over is there until the time for which it is kept is, whenever somebody sweeps.
const OPEN: &str = shown!(
    "progress",
    "queue = any($1::text[]) and key = $2 and (forget_at is null or forget_at > ",
    now!(),
    ")"
);
const LIST: &str = shown!(
    "null::bytea",
    "($1::text is null or queue = $1) and ($2::int2 is null or state = $2) order by id desc limit $3"
);

const QUEUES: &str = concat!(
    "with live as (
        select queue, count(*) filter (where state = 0) as pending, count(*) filter (where state = 1) as leased,
            ", now!(), " - min(accepted_at) filter (where state = 0) as oldest
        from selfheal_jobs where state < 2 group by queue
    ), books as (
        select queue, sum(accepted)::int8 as accepted, sum(done)::int8 as done, sum(dead)::int8 as dead
        from selfheal_job_counts group by queue
    )
    select coalesce(live.queue, books.queue) as queue, coalesce(pending, 0) as pending, coalesce(leased, 0) as leased,
        coalesce(accepted, 0) as accepted, coalesce(done, 0) as done, coalesce(dead, 0) as dead, oldest,
        coalesce(s.paused, false) as paused
    from books full join live using (queue)
    left join selfheal_queues s on s.queue = coalesce(live.queue, books.queue)
    order by 1"
);

const PAUSE: &str = "\
    insert into selfheal_queues (queue, paused, by_whom, reason) values ($1, $2, $3, $4)
    on conflict (queue) do update set paused = excluded.paused, by_whom = excluded.by_whom, reason = excluded.reason";

const HURRY: &str =
    concat!("update selfheal_jobs set due = ", now!(), " where queue = $1 and state = 0 and due > ", now!());

const FORGET: &str = concat!(
    "delete from selfheal_jobs where id in (
        select id from selfheal_jobs where state >= 2 and forget_at <= ",
    now!(),
    " limit $1 for update skip locked)"
);

const LET_GO: &str = concat!(
    "delete from selfheal_jobs
     where (queue, key) in (select * from unnest($1::text[], $2::text[])) and state >= 2 and forget_at <= ",
    now!()
);

/// One sweeper at a time adds up; another one passes over what it has.
const ADD_UP: &str = "\
    with old as (
        delete from selfheal_job_counts
        where ctid = any(array(select ctid from selfheal_job_counts limit 10000 for update skip locked))
        returning queue, accepted, done, dead
    )
    insert into selfheal_job_counts (queue, accepted, done, dead)
    select queue, sum(accepted), sum(done), sum(dead) from old group by queue";

/// On which what was accepted is told.
const CHANNEL: &str = "selfheal_jobs";

/// Tells migrators of one database apart from every other lock: letters of the project's name.
const LOCK: i64 = 0x73_65_6c_66_68_65_61_6c;

impl Dialect for Postgres {
    /// One accepts, one works: a claim of a thousand jobs makes no caller wait.
    const WRITERS: usize = 2;
    const MIGRATIONS: &'static [Migration] = migrations::POSTGRES;

    /// Under a name of its own: it is not one of the pool's sessions. Its statements follow an index, and none else asks
    /// here: a planner that knows nothing of the table yet (nobody has analyzed it since it was empty) would read and sort
    /// a whole backlog for each claim, and plan anew for each.
    fn writer(options: PgConnectOptions) -> PgConnectOptions {
        options.application_name("selfheal jobs").options([
            ("enable_bitmapscan", "off"),
            ("enable_seqscan", "off"),
            ("enable_sort", "off"),
            ("jit", "off"),
            ("plan_cache_mode", "force_generic_plan"),
        ])
    }

    fn listener(options: PgConnectOptions) -> Option<BoxFuture<'static, Result<Ears, sqlx::Error>>> {
        let options = options.application_name("selfheal jobs, listening");
        Some(Box::pin(async move {
            // Its own connection and no other, for as long as it holds.
            let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
            let mut listener = PgListener::connect_with(&pool.connect_with(options).await?).await?;
            listener.listen(CHANNEL).await?;
            Ok(Box::new(listener) as Ears)
        }))
    }

    fn lock_file(_: &PgConnectOptions) -> Option<PathBuf> {
        None
    }

    fn begin_migration(conn: &mut PgConnection) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async {
            conn.execute("begin").await?;
            sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(conn).await.map(drop)
        })
    }

    fn run<'c>(conn: &'c mut PgConnection, sql: &'static str) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move { sqlx::raw_sql(sql).execute(conn).await.map(drop) })
    }

    fn steps(conn: &mut PgConnection) -> BoxFuture<'_, Result<Vec<(i64, i64)>, sqlx::Error>> {
        Box::pin(async {
            // `to_regclass` would answer from a cache that is older than the wait for whoever made it just now.
            let there = "select exists (select from pg_catalog.pg_class where relname = 'selfheal_migrations' \
                         and pg_catalog.pg_table_is_visible(oid))";
            let there: bool = sqlx::query_scalar(there).fetch_one(&mut *conn).await?;
            if !there {
                return Ok(Vec::new());
            }
            sqlx::query_as(migrations::STEPS).fetch_all(conn).await
        })
    }

    fn took<'c>(conn: &'c mut PgConnection, step: &'c Migration) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let took = "insert into selfheal_migrations (version, name, works_with) values ($1, $2, $3)";
            let took = sqlx::query(took).bind(step.version).bind(step.name).bind(step.works_with);
            took.execute(conn).await.map(drop)
        })
    }

    fn accept<'c>(
        conn: &'c mut PgConnection,
        jobs: &'c [NewJob],
    ) -> BoxFuture<'c, Result<Vec<Fresh>, sqlx::Error>> {
        Box::pin(async move {
            let jobs = || jobs.iter();
            let keyed = jobs().any(|job| job.key.is_some());
            let wait = |job: &NewJob| if job.hold.is_some() { 0 } else { micros(job.delay) };
            let mut query = sqlx::query(if keyed { ACCEPT } else { ACCEPT_PLAIN })
                .bind(jobs().map(|job| &*job.queue).collect::<Vec<&str>>())
                .bind(jobs().map(|job| job.class.index() as i16).collect::<Vec<_>>())
                .bind(jobs().map(|job| job.hold.map_or(0, micros)).collect::<Vec<_>>())
                .bind(jobs().map(wait).collect::<Vec<_>>())
                .bind(jobs().map(|job| &job.payload[..]).collect::<Vec<_>>())
                .bind(jobs().map(|job| job.owner.as_deref()).collect::<Vec<_>>())
                .bind(jobs().map(|job| count(job.total)).collect::<Vec<_>>())
                .bind(jobs().map(|job| micros(job.keep)).collect::<Vec<_>>());
            if keyed {
                query = query
                    .bind(jobs().map(|job| job.key.as_ref().map(|key| &key.text[..])).collect::<Vec<_>>())
                    .bind(jobs().map(key_until).collect::<Vec<_>>());
            } else {
                let mut queues: BTreeMap<&str, i64> = BTreeMap::new();
                jobs().for_each(|job| *queues.entry(&job.queue).or_default() += 1);
                let ready = jobs().filter(|job| job.hold.is_none() && job.delay.is_zero());
                let ready: BTreeSet<&str> = ready.map(|job| &*job.queue).collect();
                let (names, counts): (Vec<_>, Vec<_>) = queues.into_iter().unzip();
                query = query.bind(names).bind(counts).bind(ready.into_iter().collect::<Vec<_>>());
            }
            each(&query.fetch_all(conn).await?, fresh)
        })
    }

    fn claim<'c>(
        conn: &'c mut PgConnection,
        claim: &'c Claim<'c>,
    ) -> BoxFuture<'c, Result<Vec<Claimed>, sqlx::Error>> {
        Box::pin(async move {
            let query = match claim.queues {
                [] => return Ok(Vec::new()),
                [queue] => sqlx::query(CLAIM_OF_ONE).bind(&**queue),
                queues => sqlx::query(CLAIM_OF_SEVERAL).bind(texts(queues)),
            };
            let rows = query.bind(i64::from(claim.limit)).bind(micros(claim.ttl)).fetch_all(conn).await?;
            in_order(&rows)
        })
    }

    fn heartbeat<'c>(
        conn: &'c mut PgConnection,
        leases: &'c [Lease],
        ttl: Duration,
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>> {
        Box::pin(async move {
            let query = sqlx::query(HEARTBEAT).bind(ids(leases)).bind(tokens(leases)).bind(micros(ttl));
            each(&query.fetch_all(conn).await?, lease)
        })
    }

    fn checkpoint<'c>(
        conn: &'c mut PgConnection,
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
        conn: &'c mut PgConnection,
        done: &'c [Lease],
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>> {
        Box::pin(async move {
            let query = sqlx::query(FINISH).bind(ids(done)).bind(tokens(done));
            each(&query.fetch_all(conn).await?, lease)
        })
    }

    fn settle<'c>(
        conn: &'c mut PgConnection,
        ends: &'c [&'c Settle],
    ) -> BoxFuture<'c, Result<Vec<Lease>, sqlx::Error>> {
        Box::pin(async move {
            let ends: Vec<_> = ends.iter().map(|end| Written::of(end)).collect();
            let all = || ends.iter();
            let of = |what: fn(&Counts) -> u64| {
                ends.iter()
                    .map(|end| end.counts.as_ref().map(|counts| count(what(counts))))
                    .collect::<Vec<_>>()
            };
            let rows = sqlx::query(SETTLE)
                .bind(all().map(|end| end.lease.job.0).collect::<Vec<_>>())
                .bind(all().map(|end| end.lease.token).collect::<Vec<_>>())
                .bind(all().map(|end| end.state).collect::<Vec<_>>())
                .bind(all().map(|end| end.after).collect::<Vec<_>>())
                .bind(all().map(|end| end.failure).collect::<Vec<_>>())
                .bind(all().map(|end| end.error.as_deref()).collect::<Vec<_>>())
                .bind(of(|counts| counts.total))
                .bind(of(|counts| counts.done))
                .bind(of(|counts| counts.blocked))
                .bind(of(|counts| counts.failed))
                .bind(micros(DEAD_KEPT))
                .fetch_all(conn)
                .await?;
            each(&rows, lease)
        })
    }

    fn look<'c>(
        conn: &'c mut PgConnection,
        what: &'c Look<'c>,
    ) -> BoxFuture<'c, Result<Vec<Job>, sqlx::Error>> {
        Box::pin(async move {
            let query = match what {
                Look::Job(job) => sqlx::query(BY_ID).bind(job.0),
                Look::Key { queue, key } => sqlx::query(BY_KEY).bind(queue).bind(key),
                Look::Keys { queues, keys } => sqlx::query(BY_KEYS).bind(&queues[..]).bind(&keys[..]),
                Look::Open { queues, key } => sqlx::query(OPEN).bind(&queues[..]).bind(key),
                Look::List { queue, state, limit } => sqlx::query(LIST)
                    .bind(*queue)
                    .bind(state.map(|state| state as i16))
                    .bind(i64::from(*limit)),
            };
            each(&query.fetch_all(conn).await?, job)
        })
    }

    fn let_go<'c>(
        conn: &'c mut PgConnection,
        queues: &'c [&'c str],
        keys: &'c [&'c str],
    ) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move { sqlx::query(LET_GO).bind(queues).bind(keys).execute(conn).await.map(drop) })
    }

    fn queues(conn: &mut PgConnection) -> BoxFuture<'_, Result<Vec<Queue>, sqlx::Error>> {
        Box::pin(async { each(&sqlx::query(QUEUES).fetch_all(conn).await?, queue) })
    }

    fn pause<'c>(
        conn: &'c mut PgConnection,
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

    fn hurry<'c>(conn: &'c mut PgConnection, queue: &'c str) -> BoxFuture<'c, Result<(), sqlx::Error>> {
        Box::pin(async move { sqlx::query(HURRY).bind(queue).execute(conn).await.map(drop) })
    }

    /// There may be other processes, and who is gone is known by the end of its leases only.
    fn take_over(_: &mut PgConnection) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
        Box::pin(async { Ok(0) })
    }

    fn sweep(conn: &mut PgConnection) -> BoxFuture<'_, Result<u64, sqlx::Error>> {
        Box::pin(async {
            let forget = sqlx::query(FORGET).bind(FORGOTTEN_AT_ONCE);
            let forgotten = forget.execute(&mut *conn).await?.rows_affected();
            sqlx::query(ADD_UP).execute(conn).await?;
            Ok(forgotten)
        })
    }
}

impl Hears for PgListener {
    /// `None`, if the connection was lost: it does not say what it has missed.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<String>, sqlx::Error>> {
        Box::pin(async { Ok(self.try_recv().await?.map(|notification| notification.payload().to_owned())) })
    }

    fn ping(&mut self) -> BoxFuture<'_, Result<(), sqlx::Error>> {
        Box::pin(async { self.execute("select 1").await.map(drop) })
    }
}

fn key_until(job: &NewJob) -> i16 {
    i16::from(job.key.as_ref().is_some_and(|key| key.until == KeyUntil::Forgotten))
}

fn ids(leases: &[Lease]) -> Vec<i64> {
    leases.iter().map(|lease| lease.job.0).collect()
}

fn tokens(leases: &[Lease]) -> Vec<i64> {
    leases.iter().map(|lease| lease.token).collect()
}
