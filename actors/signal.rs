//! Everything that happens, as one type. The actors never import one another: they meet here.
//!
//! Whoever notices something emits a [`Signal`]; the wiring hands it to each actor that should know, as that
//! actor's own message. Signals are facts about what has happened, never requests, and they are rare: what
//! happens once a request (refusals, waits) is counted in cells and read by the actors, not sent.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    circuit::{Cause, Circuit},
    level::{Level, Mode},
};

/// A name that many hold: of a pool, an endpoint, a child. Cloning it allocates nothing.
pub type Name = Arc<str>;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// A pool's level changed.
    Pressure {
        /// The pool.
        pool: Name,
        /// The level before.
        from: Level,
        /// The level now.
        to: Level,
        /// Connections in use at that moment.
        in_use: u32,
        /// Connections that the pool may have.
        max: u32,
        /// Requests waiting for a connection at that moment.
        waiting: u32,
    },
    /// More connections are in use than ever since the pool left level normal. At most one a connection.
    Peak {
        /// The pool.
        pool: Name,
        /// Connections in use.
        in_use: u32,
        /// Connections that the pool may have.
        max: u32,
    },
    /// An action was taken or undone because of a pool's level.
    Action {
        /// The pool whose level asked for it.
        pool: Name,
        /// What was done.
        action: Action,
        /// Taken, or undone.
        step: Step,
        /// True in mode `observe`: it was decided and counted, and nothing was done.
        would: bool,
    },
    /// The pool's monitor has had no sample for too long (or has one again).
    Blind {
        /// The pool.
        pool: Name,
        /// Whether it is blind now.
        blind: bool,
    },
    /// The database server itself is in trouble (or has recovered), as found by a connection outside the pool.
    Server {
        /// The pool.
        pool: Name,
        /// What is the matter.
        state: ServerState,
    },
    /// A connection has been held for longer than `leak_after`, or came back after that.
    Leak {
        /// The pool.
        pool: Name,
        /// The operation that holds it.
        operation: Name,
        /// Where in the code it was taken: `file:line`.
        site: Name,
        /// For how long it has been held.
        held: Duration,
        /// Whether it has come back.
        returned: bool,
    },
    /// Statements of work that can wait were ended at the server, because critical work waited for too long.
    Cancelled {
        /// The pool.
        pool: Name,
        /// How many.
        statements: u32,
    },
    /// A circuit changed what it shows.
    Circuit {
        /// The endpoint that it guards.
        endpoint: Name,
        /// What it showed before.
        from: Circuit,
        /// What it shows now.
        to: Circuit,
        /// Why.
        cause: Cause,
        /// True if calls are not refused because of it: in mode `observe`, and where an operator said
        /// `metrics_only`.
        would: bool,
    },
    /// Something happened to a supervised child.
    Child {
        /// Its supervisor.
        supervisor: Name,
        /// The child.
        child: Name,
        /// What happened.
        event: ChildEvent,
    },
    /// A supervisor gave up: more restarts than its policy allows.
    Escalated {
        /// The supervisor.
        supervisor: Name,
        /// Whether it is the root, above which there is only a person.
        root: bool,
    },
    /// Changes of status that a table does not allow were not made. What happens within a second is told together.
    Blocked {
        /// The machine whose table does not allow them.
        machine: Name,
        /// What was being done, if that was said and it was one thing.
        operation: Option<Name>,
        /// Which changes.
        edges: Vec<Edge>,
        /// How many changes the same calls have made.
        made: u64,
        /// True in mode `observe`: they were made all the same.
        would: bool,
    },
    /// Something happened to a long operation.
    Batch {
        /// Its name.
        operation: Name,
        /// What happened.
        event: BatchEvent,
    },
    /// An operator or a reload changed the mode.
    Mode {
        /// The mode before.
        from: Mode,
        /// The mode now.
        to: Mode,
        /// Who asked for it.
        by: Name,
        /// Why.
        reason: Name,
    },
}

/// Changes of status from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The state in which they were found.
    pub from: Name,
    /// The state to which they were to change.
    pub to: Name,
    /// How many.
    pub count: u64,
}

/// What can be done about pressure. Each has an exact undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sheddable requests are refused.
    Shed,
    /// The size for batches is raised.
    Batch {
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// Each user is held to this many requests in flight, and connections held.
    UserLimit {
        /// The limit.
        limit: u32,
    },
    /// Only critical work may use more connections than were in use.
    CriticalOnly,
    /// Work marked optional is left out of replies.
    OmitOptional,
    /// Deferred and batch work stops taking connections.
    PauseDurable,
}

impl Action {
    /// The action's name, as in traces, metrics and the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::Batch { .. } => "batch_size",
            Self::UserLimit { .. } => "user_limit",
            Self::CriticalOnly => "critical_only",
            Self::OmitOptional => "omit_optional",
            Self::PauseDurable => "pause_durable",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shed => f.write_str("sheddable endpoints shed"),
            Self::Batch { from, to } => write!(f, "batch {from}→{to}"),
            Self::UserLimit { limit } => write!(f, "{limit} per user"),
            Self::CriticalOnly => f.write_str("critical queries only"),
            Self::OmitOptional => f.write_str("optional work left out"),
            Self::PauseDurable => f.write_str("deferred work paused"),
        }
    }
}

/// Whether an action was taken or undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It was taken.
    Taken,
    /// It was undone.
    Undone,
}

/// What a probe outside the pool found out about the database server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerState {
    /// It answers.
    Up,
    /// It answers that it has too many clients (SQLSTATE 53300).
    Full,
    /// It does not answer.
    Down,
}

/// What happened to a supervised child.
#[derive(Clone, Debug, PartialEq)]
pub enum ChildEvent {
    /// It runs: for the first time, or because an operator asked for it.
    Started,
    /// It runs again.
    Restarted {
        /// The delay before this restart.
        after: Duration,
        /// How many restarts its supervisor made within its period, this one included.
        restarts: u32,
    },
    /// It could not be started.
    StartFailed {
        /// Why.
        error: Name,
    },
    /// It ended.
    Stopped {
        /// Why.
        reason: Exit,
    },
    /// It did not end when it was killed; it is left behind and its messages are ignored.
    Abandoned,
    /// It has spent its own budget of restarts and stays down.
    GivenUp,
}

/// What happened to a long operation.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchEvent {
    /// It would take longer than its caller waits, and is cut.
    Planned {
        /// Its items.
        items: u64,
        /// How long it takes.
        estimate: Duration,
        /// How long its caller waits.
        deadline: Duration,
        /// Items of a batch.
        batch: u32,
    },
    /// A batch of it is done.
    Part {
        /// Which one, counted from 1.
        number: u64,
        /// How many there are.
        of: u64,
        /// Items of it.
        items: u32,
        /// How long it took.
        took: Duration,
        /// How long the rest takes.
        left: Duration,
    },
    /// Its caller was answered before its end.
    Answered {
        /// Items that were done by then.
        done: u64,
        /// All items.
        total: u64,
    },
    /// An item of it fails by itself, and is passed by.
    PassedBy {
        /// Which one, counted from 0.
        item: u64,
        /// Why.
        why: Name,
    },
    /// Something has become of all its items.
    Done {
        /// How many there are.
        items: u64,
        /// How long that took, in this process.
        took: Duration,
    },
    /// Too many of its items failed.
    GivenUp {
        /// How many.
        failed: u64,
        /// Why the last one did.
        why: Name,
    },
    /// A job of it, in one piece, has failed for good.
    Dead {
        /// Which one.
        job: i64,
        /// Why.
        why: Name,
    },
    /// Somebody did not want it any more.
    Cancelled {
        /// Items that nothing has become of.
        left: u64,
    },
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Exit {
    /// By itself, with nothing left to do.
    Normal,
    /// Because it was asked to, or as part of a supervisor's end.
    Shutdown,
    /// It panicked; with the text of the panic.
    Panic(Name),
    /// It returned an error.
    Error(Name),
    /// It was killed.
    Killed,
}

impl Exit {
    /// Whether a transient child is left alone after such an end.
    #[must_use]
    pub const fn is_normal(&self) -> bool {
        matches!(self, Self::Normal | Self::Shutdown)
    }

    /// The reason's name, as in metrics and traces.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::Panic(_) => "panic",
            Self::Error(_) => "error",
            Self::Killed => "kill",
        }
    }
}

/// Where signals go. Cheap to clone; emitting never blocks.
#[derive(Clone)]
pub struct Signals(Arc<dyn Fn(Signal) + Send + Sync>);

impl Signals {
    /// Hands each signal to `to`, on the emitter's thread: `to` must be quick and must not block.
    pub fn new(to: impl Fn(Signal) + Send + Sync + 'static) -> Self {
        Self(Arc::new(to))
    }

    /// Nobody listens.
    #[must_use]
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// Tells whoever listens.
    pub fn emit(&self, signal: Signal) {
        (self.0)(signal);
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}
