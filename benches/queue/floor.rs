//! What the database can do at all: statements by hand on a narrow table with one index.
//!
//! A floor keeps the same promises that matter (an id for each caller, nothing acknowledged that is not committed, a
//! lease with a token, an end that only the lease's holder can write), and nothing else: no keys, classes, owners,
//! delays, pauses or books.

use std::ops::Range;

use futures_util::future::BoxFuture;
use sqlx::{PgPool, Row as _};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Done,
    backlog::{self, BACKLOG, SETS},
    lap::{self, Cell, DONE, ENQUEUE, Notice, SHAPES},
    server::Server,
};

const TABLE: &str = "\
create table floor (
    id bigint generated always as identity primary key,
    queue text not null,
    payload bytea not null,
    due timestamptz not null default now(),
    token bigint not null default 0
);
create index floor_due on floor (queue, due)";

const ONE: &str = "insert into floor (queue, payload) values ('q', $1) returning id";
const MANY: &str = "insert into floor (queue, payload) select 'q', unnest($1::bytea[]) returning id";
const CLAIM: &str = "\
update floor set due = now() + interval '30 s', token = token + 1
where id in (select id from floor where queue = 'q' and due <= now() order by due limit $1 for update skip locked)
returning id, token, payload";
const END: &str = "\
delete from floor f using unnest($1::int8[], $2::int8[]) as i(id, token)
where f.id = i.id and f.token = i.token returning f.id";

pub(crate) async fn cells(server: &Server) -> Done<Vec<Cell>> {
    let pool = lap::database(server, "floor").await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    let mut cells = Vec::new();
    for shape in SHAPES {
        let (plain, shared) = (pool.clone(), pool.clone());
        cells.push(Cell {
            table: ENQUEUE,
            contender: if shape.at_once == 1 { "floor: a commit each" } else { "floor: one statement" },
            shape: shape.to_string(),
            lap: Box::new(move |lap| {
                let pool = plain.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    let enqueue = if shape.at_once == 1 { one } else { many };
                    lap::call(vec![pool; shape.callers], shape.at_once, lap, enqueue).await
                })
            }),
        });
        if shape.callers > 1 {
            cells.push(Cell {
                table: ENQUEUE,
                contender: "floor: callers share commits",
                shape: shape.to_string(),
                lap: Box::new(move |lap| {
                    let pool = shared.clone();
                    Box::pin(async move {
                        clear(&pool).await?;
                        let (ask, asked) = mpsc::unbounded_channel();
                        let writer = tokio::spawn(write(pool, asked));
                        let rate = lap::call(vec![ask; shape.callers], 1, lap, share).await?;
                        writer.await??;
                        Ok(rate)
                    })
                }),
            });
        }
    }
    for set in SETS {
        let pool = pool.clone();
        cells.push(Cell {
            table: DONE,
            contender: "floor: claim, then delete",
            shape: format!("{set} at once"),
            lap: Box::new(move |_| {
                let pool = pool.clone();
                Box::pin(async move {
                    clear(&pool).await?;
                    fill(&pool).await?;
                    backlog::drain(backlog::share(set), drain_one(pool, set)).await
                })
            }),
        });
    }
    Ok(cells)
}

async fn clear(pool: &PgPool) -> Done {
    sqlx::query("truncate floor").execute(pool).await?;
    Ok(())
}

async fn fill(pool: &PgPool) -> Done {
    let payloads: Vec<_> = (0..BACKLOG as u64).map(Notice::json).collect();
    sqlx::query(MANY).bind(payloads).execute(pool).await?;
    sqlx::query("vacuum analyze floor").execute(pool).await?;
    Ok(())
}

fn one(pool: &mut PgPool, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        for job in jobs {
            let _: i64 = sqlx::query_scalar(ONE).bind(Notice::json(job)).fetch_one(&*pool).await?;
        }
        Ok(())
    })
}

fn many(pool: &mut PgPool, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        let jobs: Vec<_> = jobs.map(Notice::json).collect();
        let _: Vec<i64> = sqlx::query_scalar(MANY).bind(jobs).fetch_all(&*pool).await?;
        Ok(())
    })
}

type Asked = (Vec<u8>, oneshot::Sender<i64>);

fn share(ask: &mut mpsc::UnboundedSender<Asked>, jobs: Range<u64>) -> BoxFuture<'_, Done> {
    Box::pin(async move {
        for job in jobs {
            let (answer, answered) = oneshot::channel();
            ask.send((Notice::json(job), answer))?;
            answered.await?;
        }
        Ok(())
    })
}

/// One task writes what all have asked for meanwhile.
async fn write(pool: PgPool, mut asked: mpsc::UnboundedReceiver<Asked>) -> Done {
    let mut conn = pool.acquire().await?;
    let mut round = Vec::new();
    while asked.recv_many(&mut round, 1_000).await > 0 {
        let (jobs, answers): (Vec<_>, Vec<_>) = round.drain(..).unzip();
        let ids: Vec<i64> = sqlx::query_scalar(MANY).bind(jobs).fetch_all(&mut *conn).await?;
        for (answer, id) in answers.into_iter().zip(ids) {
            // Nobody may be left to hear it.
            let _ = answer.send(id);
        }
    }
    Ok(())
}

/// Works through the backlog, a set at a time; says how many were done.
async fn drain_one(pool: PgPool, set: usize) -> Done<usize> {
    let mut conn = pool.acquire().await?;
    let mut done = 0;
    while done < backlog::share(set) {
        let rows = sqlx::query(CLAIM).bind(set as i64).fetch_all(&mut *conn).await?;
        let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
        let tokens = rows.iter().map(|row| row.try_get(1)).collect::<Result<Vec<i64>, _>>()?;
        let payloads = rows.iter().map(|row| row.try_get(2)).collect::<Result<Vec<Vec<u8>>, _>>()?;
        std::hint::black_box(payloads);
        let ended: Vec<i64> = sqlx::query_scalar(END).bind(ids).bind(tokens).fetch_all(&mut *conn).await?;
        done += ended.len();
    }
    Ok(done)
}
