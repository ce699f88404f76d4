//! Whole trees: a root that somebody owns, and supervisors below others.

use std::{fmt, sync::Arc};

use ractor::{Actor, ActorCell, SpawnErr};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    actor::{Arguments, Supervisor},
    event::End,
    handle::Children,
    machine::Machine,
    policy::{ChildPolicy, Invalid, Kind},
    spec::{ChildSpec, Start, StartContext, Starting, SupervisorSpec},
};
use crate::{
    clock::Clock,
    signal::{Exit, Name, Signals},
};

/// What all supervisors of a tree share.
#[derive(Clone, Debug)]
pub struct Context {
    /// Where the time is read. It must agree with tokio's timers.
    pub clock: Clock,
    /// Where what happens is told.
    pub signals: Signals,
    /// Where the children are shown, and their supervisors asked.
    pub children: Children,
}

/// A root supervisor that is up.
#[derive(Debug)]
pub struct Root {
    cell: ActorCell,
    end: oneshot::Receiver<End>,
    life: JoinHandle<()>,
    ended: Option<RootEnd>,
}

/// How a root supervisor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootEnd {
    /// By its own rules, its children before it.
    Ended(End),
    /// It was killed, or has failed; its children with it.
    Died,
}

/// Why a supervisor is not up.
#[derive(Debug)]
pub enum NotUp {
    /// A child cannot live under the policy.
    Invalid(Invalid),
    /// A child could not be started.
    Child {
        /// The child.
        id: Name,
        /// Why.
        error: Name,
    },
    /// What ractor has against it.
    Spawn(SpawnErr),
    /// It ended before it was up.
    Ended,
}

impl fmt::Display for NotUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Child { id, error } => write!(f, "{id} could not be started: {error}"),
            Self::Spawn(error) => error.fmt(f),
            Self::Ended => f.write_str("it ended before it was up"),
        }
    }
}

impl std::error::Error for NotUp {}

impl Root {
    /// Starts a tree on the current runtime and waits until all of it is up. Dropping the future ends it.
    ///
    /// # Errors
    /// [`NotUp`]; whatever had been started is stopped again.
    pub async fn start(spec: SupervisorSpec, context: Context) -> Result<Self, NotUp> {
        let (cell, end, life) = up(spec, context, None).await?;
        Ok(Self { cell, end, life, ended: None })
    }

    /// The supervisor's own actor.
    #[must_use]
    pub const fn cell(&self) -> &ActorCell {
        &self.cell
    }

    /// Asks it to stop its children in reverse and to end. [`Root::ended`] tells when it has.
    pub fn stop(&self) {
        self.cell.stop(Some(Exit::Shutdown.name().into()));
    }

    /// Waits for its end. Cancel safe.
    pub async fn ended(&mut self) -> RootEnd {
        if self.ended.is_none() {
            let _ = (&mut self.life).await;
        }
        self.ended.get_or_insert_with(|| self.end.try_recv().map_or(RootEnd::Died, RootEnd::Ended)).clone()
    }
}

impl SupervisorSpec {
    /// This supervisor as a child of another. Its start is over when all its children are up, and fails if one
    /// of them does.
    #[must_use]
    pub fn under(self, child: ChildPolicy, context: Context) -> ChildSpec {
        let policy = ChildPolicy { kind: Kind::Supervisor, ..child };
        let start: Start = Arc::new(move |above: StartContext| -> Starting {
            let (spec, context) = (self.clone(), context.clone());
            Box::pin(async move {
                let (cell, ..) = up(spec, context, Some(above.supervisor)).await?;
                Ok(cell)
            })
        });
        ChildSpec { policy, start }
    }
}

/// Starts a supervisor and waits until it is up.
async fn up(
    spec: SupervisorSpec,
    context: Context,
    above: Option<ActorCell>,
) -> Result<(ActorCell, oneshot::Receiver<End>, JoinHandle<()>), NotUp> {
    let policies = spec.children.iter().map(|child| child.policy.clone()).collect();
    let machine = Machine::new(Arc::clone(&spec.name), spec.policy, policies).map_err(NotUp::Invalid)?;
    let machine = if above.is_none() { machine.at_root() } else { machine };
    let (booted, is_up) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let arguments = Arguments { machine, children: spec.children, context, booted, end };
    let spawned = match above {
        Some(above) => Actor::spawn_linked(None, Supervisor, arguments, above).await,
        None => Actor::spawn(None, Supervisor, arguments).await,
    };
    let (actor, life) = spawned.map_err(NotUp::Spawn)?;
    let mut guard = KillOnDrop(Some(actor.get_cell()));
    is_up.await.unwrap_or(Err(NotUp::Ended))?;
    guard.0 = None;
    Ok((actor.get_cell(), ended, life))
}

/// A start that is dropped leaves no supervisor behind.
struct KillOnDrop(Option<ActorCell>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(cell) = &self.0 {
            cell.kill();
        }
    }
}
