//! The same on SQLite: this project's jobs beside statements by hand.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use selfheal::{SqliteHealPool, store::Jobs};
use serde_json::json;
use sqlx::{
    Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::Mutex;

use crate::{
    Done,
    backlog::{self, BACKLOG, SETS},
    lap::{self, Cell, DONE_SQLITE, ENQUEUE_SQLITE, Notice, SHAPES},
    ours,
};

const TABLE: &str = "\
create table floor (id integer primary key autoincrement, queue text not null, payload blob not null,
    due integer not null default 0, token integer not null default 0);
create index floor_due on floor (queue, due)";
const MANY: &str =
    "insert into floor (queue, payload) select 'q', value from json_each(?1) where true returning id";
const CLAIM: &str = "\
update floor set due = unixepoch() + 30, token = token + 1
where id in (select id from floor where queue = 'q' and due <= unixepoch() order by due limit ?1)
returning id, token, payload";
const END: &str = "\
delete from floor where (id, token) in (select value->>0, value->>1 from json_each(?1)) returning id";

/// A folder for database files, on a disk that syncs. It ends with the benchmark.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Done<Self> {
        let folder = std::env::temp_dir().join(format!("selfheal-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// A file in it; both contenders have it in the journal mode in which writers do not stop readers.
    pub(crate) fn options(&self, name: &str) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(self.0.join(name))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of it is in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type Shared = Arc<Mutex<SqliteConnection>>;

pub(crate) async fn cells(folder: &Folder) -> Done<Vec<Cell>> {
    let mut conn = SqliteConnection::connect_with(&folder.options("floor.db")).await?;
    sqlx::raw_sql(TABLE).execute(&mut conn).await?;
    let conn = Arc::new(Mutex::new(conn));
    let mut cells = Vec::new();
    for shape in SHAPES {
        let conn = Arc::clone(&conn);
        cells.push(Cell {
            table: ENQUEUE_SQLITE,
            contender: if shape.at_once == 1 { "floor: a commit each" } else { "floor: one statement" },
            shape: shape.to_string(),
            lap: Box::new(move |lap| {
                let conn = Arc::clone(&conn);
                Box::pin(async move {
                    clear(&conn).await?;
                    lap::call(vec![conn; shape.callers], shape.at_once, lap, many).await
                })
            }),
        });
    }
    for set in SETS {
        let conn = Arc::clone(&conn);
        cells.push(Cell {
            table: DONE_SQLITE,
            contender: "floor: claim, then delete",
            shape: format!("{set} at once"),
            lap: Box::new(move |_| {
                let mut conn = Arc::clone(&conn);
                Box::pin(async move {
                    clear(&conn).await?;
                    many(&mut conn, 0..BACKLOG as u64).await?;
                    backlog::drain(backlog::share(set), work(conn, set)).await
                })
            }),
        });
    }
    let pool = SqliteHealPool::builder().max(2).connect_with(folder.options("ours.db")).await?;
    let jobs = Jobs::of(&pool);
    jobs.ready().await?;
    cells.extend(ours::all(&jobs, [ENQUEUE_SQLITE, DONE_SQLITE], move || {
        let pool = pool.clone();
        Box::pin(async move {
            // Without the triggers of the table, as a truncation.
            sqlx::query("delete from selfheal_jobs").execute(&pool).await?;
            sqlx::query("delete from selfheal_job_counts").execute(&pool).await?;
            Ok(())
        })
    }));
    Ok(cells)
}

async fn clear(conn: &Shared) -> Done {
    sqlx::query("delete from floor").execute(&mut *conn.lock().await).await?;
    Ok(())
}

fn many(conn: &mut Shared, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        let jobs: Vec<_> = jobs.map(Notice::new).collect();
        let jobs = serde_json::to_string(&jobs)?;
        let _: Vec<i64> = sqlx::query_scalar(MANY).bind(jobs).fetch_all(&mut *conn.lock().await).await?;
        Ok(())
    })
}

async fn work(conn: Shared, set: usize) -> Done<usize> {
    let (mut conn, mut done) = (conn.lock().await, 0);
    while done < backlog::share(set) {
        let rows = sqlx::query(CLAIM).bind(set as i64).fetch_all(&mut *conn).await?;
        let leases: Vec<(i64, i64)> = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, sqlx::Error>>()?;
        let payloads: Vec<Vec<u8>> =
            rows.iter().map(|row| row.try_get_unchecked(2)).collect::<Result<_, _>>()?;
        std::hint::black_box(payloads);
        let ended: Vec<i64> =
            sqlx::query_scalar(END).bind(json!(leases).to_string()).fetch_all(&mut *conn).await?;
        done += ended.len();
    }
    Ok(done)
}
