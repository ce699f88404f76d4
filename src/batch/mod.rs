//! Long operations that never time out, as a host writes them.
//!
//! A host says once, on the [builder](crate::Heal::builder), what is done with a part of an operation's items;
//! from then on [`Heal::batch`](crate::Heal::batch) does operations of that name. The items are written down with it, as
//! JSON, so that another process, or this one after a restart, goes on where the last part was committed. What becomes of
//! an operation, and when its caller is answered, is told in [`batch_executor`](selfheal_actors::batch_executor).
//!
//! - [`run_tx`]: a part is done in a transaction which also writes how far the operation is. Its effects in that
//!   database happen **exactly once**, whatever is killed when.
//! - [`run`]: a part is done, and then it is written down that it is. A crash in between repeats it: **at least once**.
//!   Effects elsewhere need a key that is the same each time, [`Part::key`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use selfheal::{Heal, PgHealPool, batch};
//!
//! let pool = PgHealPool::connect("postgres://localhost/desk").await?;
//! let archive = batch::run_tx(&pool, |conn, ids: batch::Part<i64>| {
//!     Box::pin(async move {
//!         let archived = sqlx::query("update messages set archived = true where id = any($1)");
//!         archived.bind(ids.to_vec()).execute(conn).await?;
//!         Ok(batch::Results::done())
//!     })
//! });
//! let heal = Heal::builder().pool("main", &pool).batch("archive", archive).start().await?;
//!
//! let ids: Vec<i64> = (1..=1_418).collect();
//! let report = heal.batch("archive").caller("ann").run(&ids).await?;
//! println!("{} of {}", report.counts.done, report.counts.total);
//! # Ok(())
//! # }
//! ```

mod handler;
mod operation;
mod part;

pub use handler::{Handler, run, run_tx};
pub(crate) use handler::{Registered, Whose, in_transaction, unawaited};
pub use operation::Batch;
pub use part::{Failed, Part, Results};
