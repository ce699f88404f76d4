//! What the admin surface is made of: how to look, and the few things that can be done.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use selfheal_actors::{
    batch_executor::journal::{Job, State as JobState, Trouble},
    breaker::{Command, Illegal},
    circuit::Circuit,
    gate::Holder,
    level::Mode,
    signal::Name,
};

use serde::{Deserialize, Serialize};

use super::{access::Access, probes::Health, snapshot::Reading};

type Ask<T> = Arc<dyn Fn() -> T + Send + Sync>;
type AskAbout<A, T> = Arc<dyn Fn(&A) -> T + Send + Sync>;
type Do<A, T> = Arc<dyn Fn(A) -> T + Send + Sync>;
type JobsFound = Result<Vec<(Name, Job)>, Trouble>;
type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Handles to the parts that the admin surface shows and acts on. Every field is needed; none that shows
/// something may wait for a database, an actor, or anything else that may be in trouble just then.
#[derive(Clone)]
pub struct State {
    /// Who may look, and who may act.
    pub access: Arc<Access>,
    /// Whether `/metrics` stands behind the guard too.
    pub guard_metrics: bool,
    /// What the probes tell.
    pub health: Ask<Health>,
    /// Takes a reading of everything that is shown.
    pub read: Ask<Reading>,
    /// Who holds connections of the pool of this name; `None` if there is no such pool.
    pub holders: AskAbout<str, Option<Vec<Holder>>>,
    /// The configuration in force, with secrets as `***`.
    pub config: Ask<serde_json::Value>,
    /// Puts a mode in force and tells what it was before.
    pub set_mode: Do<ModeChange, Mode>,
    /// Restarts the child of this id.
    pub restart_child: Do<Name, Pending<Result<(), NotRestarted>>>,
    /// Does what an operator asks of a queue. This writes into its database, and may wait for that.
    pub operate_queue: Do<QueueOrder, Pending<Result<(), NotOrdered>>>,
    /// Looks for jobs, in their databases; each with the pool whose database it is in.
    pub jobs: Do<JobsWanted, Pending<JobsFound>>,
    /// Does what an operator asks of the circuit of this name, and tells what it shows then.
    pub operate: Do<(Name, Command), Result<Circuit, NotOperated>>,
    /// The metrics as text, after this reading; `None` if they are the host's to show.
    pub render_metrics: AskAbout<Reading, Option<String>>,
}

/// A change of the mode, as an operator asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeChange {
    /// The mode to put in force.
    pub mode: Mode,
    /// Who asks.
    pub by: Name,
    /// Why.
    pub reason: Name,
}

/// What an operator asks of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueOrder {
    /// The queue.
    pub queue: Name,
    /// What is to be done.
    pub action: QueueAction,
    /// Who asks.
    pub by: Name,
    /// Why.
    pub reason: Name,
}

/// What can be done with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueAction {
    /// Nobody claims its jobs any more. What is claimed goes on.
    Pause,
    /// Everybody may again.
    Resume,
    /// The same, and what waits for its time need not any longer: all of it may be claimed now.
    Drain,
}

/// Which jobs are to be shown: the newest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobsWanted {
    /// Of this queue, or of all.
    pub queue: Option<String>,
    /// In this state, or in any.
    pub state: Option<JobState>,
    /// At most so many of each database.
    pub limit: u32,
}

/// Why a queue was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOrdered {
    /// There is no queue of that name.
    Unknown,
    /// Its database did not take it.
    Failed(Trouble),
}

/// Why a child was not restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRestarted {
    /// There is no child of that id.
    Unknown,
    /// There is, and it could not be; with the reason.
    Refused(String),
}

/// Why a circuit was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotOperated {
    /// There is no circuit of that name.
    Unknown,
    /// What was asked for makes no sense as things are.
    Illegal(Illegal),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("access", &self.access)
            .field("guard_metrics", &self.guard_metrics)
            .finish_non_exhaustive()
    }
}
