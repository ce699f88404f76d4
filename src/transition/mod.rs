//! Changes of status that cannot go wrong.
//!
//! The table ([`Table`]) says which status may become which. [`Rules`] answers what it says; a [`Guard`] writes
//! changes to a table of the database and holds to it *in the very statement that writes*, so that no other writer
//! can come between the look and the change; a [`Trigger`] has PostgreSQL itself hold to the same table, also when
//! somebody writes past this library.
//!
//! ```no_run
//! # async fn example(heal: selfheal::Heal, pool: selfheal::PgHealPool) -> Result<(), Box<dyn std::error::Error>> {
//! use selfheal::transition::Target;
//!
//! let messages = heal.transition("message")?.on(Target::new("messages")?);
//! messages.apply(&pool, 7_i64, "PROMOTED").await?;
//!
//! let mut tx = pool.begin().await?;
//! let outcome = messages.apply_many(&mut *tx, &[8_i64, 9, 10], "SPAM_REVIEW").await?;
//! tx.commit().await?;
//! println!("{} moved, {} left alone", outcome.applied.len(), outcome.blocked.len());
//! # Ok(())
//! # }
//! ```
//!
//! **What is not protected**: rows that are inserted with any status, which a `CHECK` does better; and, without the
//! trigger, whatever is written without the guard.

mod dialect;
mod error;
mod guard;
mod rules;
mod statements;
mod target;
mod trigger;

pub use dialect::Dialect;
pub use error::{Error, Unknown};
pub use guard::{Found, Guard, Outcome};
pub use rules::Rules;
pub use selfheal_actors::transition::{Blocked, Counted, Invalid, OTHER, States, Table};
pub use target::{BadIdentifier, Target};
pub(crate) use trigger::refused as refused_by_trigger;
pub use trigger::{Installed, Trigger, TriggerError};
