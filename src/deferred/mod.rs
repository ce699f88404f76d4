//! Work that is done later, instead of refused or waited for.
//!
//! A host says once, on the [builder](crate::Heal::builder), what is done with a payload; from then on
//! [`Heal::deferred`](crate::Heal::deferred) accepts such work for later. What is accepted is committed, so its caller
//! can be answered 202 with a place to ask about it ([`Accepted`] is that reply,
//! [`Heal::jobs_router`](crate::Heal::jobs_router) the place); what could not be written down is an error, which a
//! `http::Failure` answers with 503. Many callers at once share a commit.
//!
//! - **Within a transaction** of the host's own ([`Deferred::enqueue`]): it is accepted if and when that commits.
//! - **Once for each key of its caller** ([`Deferred::key`]): whoever defers under the same key again is told of the same
//!   job, and nothing is enqueued, for as long as that is kept.
//! - **Drained by class, and as the level of the pool allows.** Nobody waits for it, so it gives way to everybody: its
//!   queries are background work, at level critical none is begun, at warning one at a time, and afterwards one more
//!   every 50 ms. The better class goes first, and each class is worth ten seconds of waiting: whatever comes, a job of
//!   class background goes before a critical one that was accepted half a minute after it. So nobody starves.
//! - [`run_tx`]: its effects in the database and that it is done are one transaction: **exactly once**, whatever is killed
//!   when. [`run`]: **at least once**; effects elsewhere need a key that is the same each time, [`Context::key`].
//! - **What fails is tried again**, ever more seldom, and is dead with its error after ten attempts, or at once if the
//!   handler says that it is [`Permanent`](crate::error_class::ErrorClass::Permanent). So is what panics, takes too long,
//!   or cannot be read any more. None of it keeps others waiting.
//!
//! Only its own caller may ask about a job, by a name that nobody can guess who does not know its key; to everybody else
//! there is no such job. Once it is done that is so for an hour ([`Handler::keep`]), and for a dead one a week, as people
//! may want to look at it.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Json, Router, routing::post};
//! use selfheal::{Heal, PgHealPool, deferred, http::Failure, level::Class};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Report {
//!     month: String,
//! }
//!
//! let pool = PgHealPool::connect("postgres://localhost/desk").await?;
//! let report = deferred::run_tx(&pool, |conn, report: Report, _| {
//!     Box::pin(async move {
//!         let made = sqlx::query("insert into reports (month) values ($1)").bind(report.month);
//!         Ok(made.execute(conn).await?.rows_affected())
//!     })
//! });
//! let heal = Heal::builder().pool("main", &pool).deferred("report", report).start().await?;
//!
//! let ask = heal.deferred("report").class(Class::Sheddable);
//! let later = async move |Json(report): Json<Report>| Ok::<_, Failure>(ask.defer(&report).await?);
//! let app: Router = Router::new().route("/api/reports", post(later)).layer(heal.layer()).merge(heal.jobs_router());
//!
//! let mut tx = pool.begin().await?;
//! sqlx::query("insert into orders (id) values (7)").execute(&mut *tx).await?;
//! heal.deferred("report").caller("ann").enqueue(&mut tx, &Report { month: "May".into() }).await?;
//! tx.commit().await?;
//! # Ok(())
//! # }
//! ```

mod accepted;
mod context;
mod handler;
mod operation;

pub(crate) use accepted::is_name;
pub use accepted::{Accepted, PATH};
pub use context::Context;
pub use handler::{Handler, run, run_tx};
pub(crate) use handler::{Home, Registered};
pub use operation::Deferred;

pub use crate::batch::Failed;
