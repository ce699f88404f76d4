//! The version before, as it spoke to PostgreSQL.

use futures_core::future::BoxFuture;
use sqlx::{Connection, PgConnection};

use crate::{
    durable::before::{Before, side_by_side},
    jobs::pool,
    server::server,
};

const ACCEPT: &str = "\
with fresh as (
    insert into selfheal_jobs
        (queue, class, state, token, due, accepted_at, payload, key, key_until, owner, total, keep)
    select i.queue, i.class, (i.hold > 0)::int::int2, (i.hold > 0)::int,
        (date_part('epoch', statement_timestamp()) * 1000000)::int8 + i.wait + i.hold,
        (date_part('epoch', statement_timestamp()) * 1000000)::int8,
        i.payload, i.key, i.key_until, i.owner, i.total, i.keep
    from unnest($1::text[], $2::int2[], $3::int8[], $4::int8[], $5::bytea[], $6::text[], $7::int2[], $8::text[],
        $9::int8[], $10::int8[])
        as i(queue, class, hold, wait, payload, key, key_until, owner, total, keep)
    on conflict (queue, key) where key is not null do nothing
    returning id, queue, key
), counted as (
    insert into selfheal_job_counts (queue, accepted) select queue, count(*) from fresh group by queue
)
select id from fresh";

const CLAIM: &str = "\
with picked as materialized (
    select id, (due + class * 10000000) as rank from selfheal_jobs where queue = $1 and state < 2
        and (due + class * 10000000) <= (date_part('epoch', statement_timestamp()) * 1000000)::int8 + 30000000
        and due <= (date_part('epoch', statement_timestamp()) * 1000000)::int8
        and not exists (select 1 from selfheal_queues s where s.queue = $1 and s.paused)
    order by (due + class * 10000000) limit $2 for update skip locked
)
update selfheal_jobs j set state = 1, token = token + 1,
    due = (date_part('epoch', statement_timestamp()) * 1000000)::int8 + $3, losses = losses + (state = 1)::int
from picked p where j.id = p.id
returning j.id, j.token";

const FINISH: &str = "\
with gone as (
    delete from selfheal_jobs j using unnest($1::int8[], $2::int8[]) as i(id, token)
    where j.id = i.id and j.token = i.token and j.state = 1 and j.keep = 0
    returning j.id, j.token, j.queue
), counted as (
    insert into selfheal_job_counts (queue, done) select queue, count(*) from gone group by queue
)
select id from gone";

struct OnPostgres(PgConnection);

impl Before for OnPostgres {
    fn accept<'a>(&'a mut self, queue: &'a str, jobs: i64) -> BoxFuture<'a, Vec<i64>> {
        Box::pin(async move {
            let all = jobs as usize;
            let query = sqlx::query_scalar(ACCEPT).bind(vec![queue; all]).bind(vec![3_i16; all]);
            let query = query.bind(vec![0_i64; all]).bind(vec![0_i64; all]).bind(vec![b"{}".to_vec(); all]);
            let query =
                query.bind(vec![None::<String>; all]).bind(vec![0_i16; all]).bind(vec![None::<String>; all]);
            let query = query.bind(vec![1_i64; all]).bind(vec![0_i64; all]);
            query.fetch_all(&mut self.0).await.expect("they are accepted")
        })
    }

    fn claim<'a>(&'a mut self, queue: &'a str, jobs: i64, span: i64) -> BoxFuture<'a, Vec<(i64, i64)>> {
        let query = sqlx::query_as(CLAIM).bind(queue).bind(jobs).bind(span);
        Box::pin(async move { query.fetch_all(&mut self.0).await.expect("it claims") })
    }

    fn finish<'a>(&'a mut self, leases: &'a [(i64, i64)]) -> BoxFuture<'a, usize> {
        let (ids, tokens): (Vec<_>, Vec<_>) = leases.iter().copied().unzip();
        Box::pin(async move {
            let ended = sqlx::query(FINISH).bind(ids).bind(tokens).fetch_all(&mut self.0).await;
            ended.expect("it is written").len()
        })
    }
}

#[tokio::test]
async fn the_version_before_and_this_one_work_side_by_side() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let before = OnPostgres(PgConnection::connect_with(&database.options()).await.expect("it connects"));
    side_by_side(&pool(database.options()).await, before, 200).await;
}
