//! Eight writers who want different things of the same messages at the same time, over HTTP; and, where there is a
//! database server, one who writes past the service.

use axum::http::{Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::web::Web;

/// Writers at once.
pub(crate) const WRITERS: usize = 8;
/// What they want, in turns.
const WANTED: [&str; 3] = ["SPAM_REVIEW", "PROMOTED", "COMPLETED"];

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Race {
    /// Messages that were raced for.
    #[serde(rename = "raced_for")]
    pub(crate) messages: usize,
    /// Those who asked the service.
    #[serde(rename = "writers")]
    pub(crate) guarded: Writers,
    /// Who wrote past it.
    pub(crate) bypass: Option<Writers>,
}

/// What came of some writers' attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Writers {
    pub(crate) writers: usize,
    pub(crate) attempts: usize,
    pub(crate) changed: usize,
    /// Told that the change is not allowed.
    pub(crate) refused: usize,
    /// Anything else.
    pub(crate) failed: usize,
}

/// How one attempt ended.
enum End {
    Changed,
    Refused,
    Failed,
}

impl Writers {
    fn add(&mut self, end: End) {
        self.attempts += 1;
        match end {
            End::Changed => self.changed += 1,
            End::Refused => self.refused += 1,
            End::Failed => self.failed += 1,
        }
    }

    fn join(self, other: Self) -> Self {
        Self {
            writers: self.writers + other.writers,
            attempts: self.attempts + other.attempts,
            changed: self.changed + other.changed,
            refused: self.refused + other.refused,
            failed: self.failed + other.failed,
        }
    }
}

/// All of them at once, for the messages `ids` of the service at `url`; and one more past it, on the database `past`.
///
/// # Errors
///
/// If the database cannot be reached.
pub(super) async fn run(url: &str, ids: &[i64], past: Option<&str>) -> Result<Race, sqlx::Error> {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(format!("{url}/api/messages"), ids.to_vec(), writer));
    }
    let bypass = match past {
        Some(database) => Some(write_past(database, ids).await?),
        None => None,
    };
    let guarded = writers.join_all().await.into_iter().fold(Writers::default(), Writers::join);
    Ok(Race { messages: ids.len(), guarded, bypass })
}

/// Asks the service to change each message, and each to something else than its neighbours ask for.
async fn write(url: String, ids: Vec<i64>, writer: usize) -> Writers {
    let (web, mut writers) = (Web::new(), Writers { writers: 1, ..Writers::default() });
    for (n, id) in ids.into_iter().enumerate() {
        let wanted = json!({ "to": WANTED[(writer + n) % WANTED.len()] }).to_string();
        let answer = web.send(Method::POST, &format!("{url}/{id}/status"), &[], Some(wanted)).await;
        writers.add(match answer {
            Ok(answer) if answer.status == StatusCode::OK => End::Changed,
            Ok(answer) if answer.status == StatusCode::UNPROCESSABLE_ENTITY => {
                let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
                let is_ours = body.is_some_and(|body| body["code"] == "transition_blocked");
                if is_ours { End::Refused } else { End::Failed }
            }
            Ok(_) | Err(_) => End::Failed,
        });
    }
    writers
}

/// Writes to the table itself, as a script or a console would.
async fn write_past(database: &str, ids: &[i64]) -> Result<Writers, sqlx::Error> {
    let mut connection = PgConnection::connect(database).await?;
    let mut writers = Writers { writers: 1, ..Writers::default() };
    for (n, id) in ids.iter().enumerate() {
        let change = sqlx::query("UPDATE messages SET status = $2 WHERE id = $1");
        let done = change.bind(id).bind(WANTED[n % WANTED.len()]).execute(&mut connection).await;
        writers.add(match done {
            Ok(_) => End::Changed,
            // The trigger's own error, and no other that the table's checks may have.
            Err(error) if error.to_string().contains("invalid transition of message") => End::Refused,
            Err(_) => End::Failed,
        });
    }
    connection.close().await?;
    Ok(writers)
}
