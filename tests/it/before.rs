//! The version before, as it spoke to SQLite.

use futures_core::future::BoxFuture;
use serde_json::json;
use sqlx::{Connection, SqliteConnection};

use crate::{
    durable::before::{Before, side_by_side},
    jobs::Folder,
};

const ACCEPT: &str = "\
insert into selfheal_jobs
    (queue, class, state, token, due, accepted_at, payload, key, key_until, owner, total, keep)
select value->>0, value->>1, (value->>2) > 0, (value->>2) > 0,
    cast(unixepoch('subsec') * 1000000 as integer) + (value->>2) + (value->>3),
    cast(unixepoch('subsec') * 1000000 as integer),
    unhex(value->>4), value->>5, value->>6, value->>7, value->>8, value->>9
from json_each(?1) where true
on conflict (queue, key) where key is not null do nothing
returning id";

const CLAIM: &str = "\
update selfheal_jobs set state = 1, token = token + 1, losses = losses + (state = 1),
    due = cast(unixepoch('subsec') * 1000000 as integer) + ?3
where id in (
    select j.id from json_each(?1) q join selfheal_jobs j on j.id in (
        select id from selfheal_jobs where queue = q.value and state < 2
            and due + class * 10000000 <= cast(unixepoch('subsec') * 1000000 as integer) + 30000000
            and due <= cast(unixepoch('subsec') * 1000000 as integer)
            and not exists (select 1 from selfheal_queues s where s.queue = q.value and s.paused)
        order by due + class * 10000000 limit ?2)
    order by j.due + j.class * 10000000 limit ?2)
returning id, token";

const FINISH: &str = "\
delete from selfheal_jobs
where state = 1 and keep = 0 and (id, token) in (select value->>0, value->>1 from json_each(?1)) returning id";

struct OnSqlite(SqliteConnection);

impl Before for OnSqlite {
    fn accept<'a>(&'a mut self, queue: &'a str, jobs: i64) -> BoxFuture<'a, Vec<i64>> {
        let job = json!([queue, 3, 0, 0, "7b7d", null, 0, null, 1, 0]);
        let jobs = json!(vec![job; jobs as usize]).to_string();
        Box::pin(async move {
            sqlx::query_scalar(ACCEPT).bind(jobs).fetch_all(&mut self.0).await.expect("they are accepted")
        })
    }

    fn claim<'a>(&'a mut self, queue: &'a str, jobs: i64, span: i64) -> BoxFuture<'a, Vec<(i64, i64)>> {
        let query = sqlx::query_as(CLAIM).bind(json!([queue]).to_string()).bind(jobs).bind(span);
        Box::pin(async move { query.fetch_all(&mut self.0).await.expect("it claims") })
    }

    fn finish<'a>(&'a mut self, leases: &'a [(i64, i64)]) -> BoxFuture<'a, usize> {
        let leases = json!(leases).to_string();
        Box::pin(async move {
            let ended = sqlx::query(FINISH).bind(leases).fetch_all(&mut self.0).await;
            ended.expect("it is written").len()
        })
    }
}

/// In one process: two would not both work on one file.
#[tokio::test]
async fn the_version_before_and_this_one_work_side_by_side() {
    let folder = Folder::new("before");
    let pool = folder.pool().await;
    let before = OnSqlite(SqliteConnection::connect_with(&folder.options()).await.expect("it opens"));
    side_by_side(&pool, before, 200).await;
}
