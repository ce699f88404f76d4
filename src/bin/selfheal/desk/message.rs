//! Where a message stands, and what it may become.

use std::error::Error;

use super::store::{Guarded, Plain};
use selfheal::{
    Heal, transition,
    transition::{Guard, States as _, Target},
    transitions,
};

transitions! {
    /// Where a message stands: the table of a desk whose config has none.
    pub(crate) enum Message("message") {
        Ready = "READY" => [SpamReview, Promoted],
        Promoted = "PROMOTED" => [Completed],
        Completed = "COMPLETED",
        SpamReview = "SPAM_REVIEW",
    }
}

/// The guard of the desk's messages.
///
/// # Errors
///
/// If nobody has declared a table for them.
pub(crate) fn guard(heal: &Heal) -> Result<Guard, Box<dyn Error>> {
    Ok(heal.transition(Message::MACHINE)?.on(Target::new("messages")?))
}

/// Changes a message's status, if it may change so.
///
/// # Errors
///
/// Whatever is against it.
pub(super) async fn change(
    pool: &Guarded,
    guard: &Guard,
    id: i64,
    to: &str,
) -> Result<(), transition::Error> {
    let guard = guard.operation("status change");
    match pool {
        Guarded::Postgres(pool) => guard.apply(&pool.operation("status"), id, to).await,
        // In a transaction, so that a refusal tells the very state that was in the way.
        Guarded::Sqlite(pool) => {
            let mut transaction = pool.operation("status").begin().await.map_err(sqlx::Error::from)?;
            guard.apply(&mut *transaction, id, to).await?;
            Ok(transaction.commit().await.map_err(sqlx::Error::from)?)
        }
    }
}

/// Changes a message's status as most hosts do: whatever it was. Says whether there is such a message.
///
/// # Errors
///
/// What the database answers, unchanged.
pub(super) async fn overwrite(pool: &Plain, id: i64, to: &str) -> Result<bool, sqlx::Error> {
    const OVERWRITE: &str = "UPDATE messages SET status = $2 WHERE id = $1";
    let changed = match pool {
        Plain::Postgres(pool) => {
            sqlx::query(OVERWRITE).bind(id).bind(to).execute(pool).await?.rows_affected()
        }
        Plain::Sqlite(pool) => sqlx::query(OVERWRITE).bind(id).bind(to).execute(pool).await?.rows_affected(),
    };
    Ok(changed > 0)
}
