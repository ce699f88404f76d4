//! Ways for an actor to fail on purpose, to see that somebody notices.

use std::{future, panic, thread, time::Duration};

use ractor::ActorProcessingErr;

/// A way of failing.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It panics.
    Panic,
    /// It returns an error.
    Error,
    /// It never comes back.
    Hang,
    /// It holds up the thread that it runs on, for three seconds, and fails.
    Block,
}

/// Longer than anybody waits for a thread.
const BLOCKED: Duration = Duration::from_secs(3);

impl Fault {
    /// Fails this way.
    ///
    /// # Errors
    /// "planted", if that is the way.
    pub async fn happen(self) -> Result<(), ActorProcessingErr> {
        match self {
            // As a panic, but without its text, and a walk through the stack, on the terminal.
            Self::Panic => panic::resume_unwind(Box::new("planted")),
            Self::Error => Err("planted".into()),
            Self::Hang => {
                future::pending::<()>().await;
                Ok(())
            }
            Self::Block => {
                thread::sleep(BLOCKED);
                Err("planted".into())
            }
        }
    }
}
