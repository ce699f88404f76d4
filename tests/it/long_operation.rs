//! Long operations on SQLite.

use futures_core::future::BoxFuture;
use selfheal::SqliteHealPool;
use sqlx::{SqliteConnection, sqlite::SqliteConnectOptions};

use crate::{
    durable::kills::{DATABASE, kills, told},
    jobs::Folder,
    operations,
};

fn effects(conn: &mut SqliteConnection, items: Vec<i64>) -> BoxFuture<'_, Result<(), sqlx::Error>> {
    Box::pin(async move {
        let insert = sqlx::query("insert into effects select value from json_each(?)");
        insert.bind(serde_json::json!(items).to_string()).execute(conn).await.map(drop)
    })
}

fn written(pool: &SqliteHealPool) -> BoxFuture<'_, Vec<i64>> {
    Box::pin(
        async move { sqlx::query_scalar("select item from effects").fetch_all(pool).await.expect("rows") },
    )
}

fn clear(pool: &SqliteHealPool) -> BoxFuture<'_, Vec<i64>> {
    let clear = sqlx::query_scalar("delete from effects returning item");
    Box::pin(async move { clear.fetch_all(pool).await.expect("it is cleared") })
}

async fn table(folder: &Folder) -> SqliteHealPool {
    let pool = folder.pool().await;
    sqlx::query("create table effects (item integer)").execute(&pool).await.expect("a table");
    pool
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_what_long_operations_promise() {
    let folder = Folder::new("operations");
    operations::everything(&table(&folder).await, effects, written, clear).await;
}

/// Is started by the test of kills, and killed by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a victim, not a test"]
async fn victim() {
    let Some(file) = told(DATABASE) else { return };
    let options = SqliteConnectOptions::new().filename(file);
    let pool = SqliteHealPool::builder().max(4).connect_with(options).await.expect("it opens");
    operations::kills::victim(&pool, effects).await;
}

async fn killed(kills: usize) {
    let folder = Folder::new(&format!("operation-kills-{kills}"));
    let pool = table(&folder).await;
    let file = folder.0.join("jobs.db").to_string_lossy().into_owned();
    let name = "long_operation::victim";
    eprintln!("{}", operations::kills::killed(name, &file, kills, &pool, effects, written).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_and_every_item_that_was_promised_is_done_once() {
    killed(10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes: KILLS=… of them, 200 if not said"]
async fn two_hundred_kills_and_every_item_that_was_promised_is_done_once() {
    killed(kills(200)).await;
}
