//! Reports that are made later: whoever asks for one under pressure need not be refused.
//!
//! `GET /api/reports` makes one while its caller waits, and is the first to be shed; `POST /api/reports` accepts the wish,
//! which is done when there is room, and says where the report will be.

use std::{collections::BTreeMap, time::Duration};

use selfheal::{
    Heal, db,
    deferred::{self, Accepted, Failed, Handler},
    level::Class,
};
use serde::{Deserialize, Serialize};

use super::{
    ask, postgres, sqlite,
    store::{Error, Guarded},
};

/// What the work is called, in config, metrics and the database.
const OPERATION: &str = "report";

/// What is asked for. There is one kind of report yet.
#[derive(Debug, Serialize, Deserialize)]
struct Wish {}

/// What comes of it: how many messages stand in each status.
#[derive(Debug, Serialize)]
struct Report {
    rows: BTreeMap<String, i64>,
}

/// What is done about a wish. A report keeps its connection as long as one that is waited for.
pub(super) fn handler(pool: &Guarded, hold: Duration) -> (&'static str, Handler) {
    let pool = pool.clone();
    let handler = deferred::run(move |_: Wish, _| {
        let pool = pool.clone();
        async move { made(&pool, hold).await.map_err(Failed::from) }
    });
    (OPERATION, handler)
}

async fn made(pool: &Guarded, hold: Duration) -> Result<Report, db::Error> {
    let ask = ask::reports();
    let hold = hold * ask.weight;
    let rows = match pool {
        Guarded::Postgres(pool) => {
            let mut connection = pool.operation(ask.operation).acquire().await?;
            postgres::answer(&mut connection, ask, hold).await?
        }
        Guarded::Sqlite(pool) => {
            let mut connection = pool.operation(ask.operation).acquire().await?;
            sqlite::answer(&mut connection, ask, hold).await?
        }
    };
    Ok(Report { rows: rows.into_iter().collect() })
}

/// Accepts a user's wish.
pub(super) async fn later(heal: &Heal, user: &str) -> Result<Accepted, Error> {
    let reports = heal.deferred(OPERATION).caller(user).class(Class::Sheddable);
    reports.defer(&Wish {}).await.map_err(Error::Batch)
}
