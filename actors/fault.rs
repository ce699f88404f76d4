//! Ways for an actor to fail on purpose, to see that somebody notices.

use std::future;

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
}

impl Fault {
    /// Fails this way.
    pub(crate) async fn happen(self) -> Result<(), ActorProcessingErr> {
        match self {
            #[expect(clippy::panic, reason = "planted, to see that the supervisor notices")]
            Self::Panic => panic!("planted"),
            Self::Error => Err("planted".into()),
            Self::Hang => {
                future::pending::<()>().await;
                Ok(())
            }
        }
    }
}
