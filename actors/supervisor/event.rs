//! What a supervisor's machine is told, and what it answers.

use std::fmt;

use super::policy::{ChildPolicy, Invalid};
use crate::{
    clock::Tick,
    signal::{Exit, Name, Signal},
};

/// What a machine is told. What an older generation of a child says changes nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Start the children, in order.
    Boot,
    /// A child runs.
    Started {
        /// The child.
        id: Name,
        /// Which start of it.
        generation: u64,
    },
    /// A child could not be started.
    StartFailed {
        /// The child.
        id: Name,
        /// Which start of it.
        generation: u64,
        /// Why.
        error: Name,
    },
    /// A child has ended. It may come before the child's `Started`.
    Exited {
        /// The child.
        id: Name,
        /// Which start of it.
        generation: u64,
        /// How.
        exit: Exit,
    },
    /// The administrator asks for something; answered by [`Effect::Reply`], now or later.
    Verb {
        /// Names the question in its answer.
        request: u64,
        /// What is asked for.
        verb: Verb,
    },
    /// Stop the children, in reverse, and end.
    Stop,
    /// Time has passed: a moment given by `next_timer` may have come.
    Timer,
}

/// What an administrator may ask for.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Add a child behind the others and start it. It is kept only if it starts.
    Start(ChildPolicy),
    /// Stop a child, also one that waits for its restart. It stays down, a temporary one is forgotten.
    Stop(Name),
    /// Start a child that is down. If that fails it stays down.
    Restart(Name),
    /// Forget a child that is down.
    Delete(Name),
}

impl Verb {
    /// The child it is about.
    #[must_use]
    pub const fn child(&self) -> &Name {
        match self {
            Self::Start(child) => &child.id,
            Self::Stop(id) | Self::Restart(id) | Self::Delete(id) => id,
        }
    }
}

/// Why an administrator does not get what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such child.
    NotFound,
    /// The child runs.
    Running,
    /// The child waits for its restart.
    Restarting,
    /// A child of this name runs already.
    AlreadyStarted,
    /// A child of this name is there already, and down.
    AlreadyPresent,
    /// The child could not be started.
    StartFailed(Name),
    /// The child cannot live under this supervisor.
    Invalid(Invalid),
    /// The supervisor has ended.
    Terminated,
    /// Too many commands wait for the supervisor.
    Busy,
}

impl Refused {
    /// The reason's name, as in traces and the API.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::AlreadyStarted => "already_started",
            Self::AlreadyPresent => "already_present",
            Self::StartFailed(_) => "start_failed",
            Self::Invalid(_) => "invalid",
            Self::Terminated => "terminated",
            Self::Busy => "busy",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such child"),
            Self::Running => f.write_str("the child is running"),
            Self::Restarting => f.write_str("the child is waiting for its restart"),
            Self::AlreadyStarted => f.write_str("the child has been started already"),
            Self::AlreadyPresent => f.write_str("the child is there already, and down"),
            Self::StartFailed(error) => write!(f, "the child could not be started: {error}"),
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::Terminated => f.write_str("the supervisor has ended"),
            Self::Busy => f.write_str("too many commands wait for the supervisor"),
        }
    }
}

impl std::error::Error for Refused {}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Start a child, and say `Started` or `StartFailed`.
    Start {
        /// The child.
        id: Name,
        /// To be borne by whatever is said of this start.
        generation: u64,
    },
    /// Ask a child to end, and say `Exited` when it has.
    Stop {
        /// The child.
        id: Name,
        /// Which start of it.
        generation: u64,
        /// When it will be killed; `None` for a supervisor, which ends when its children have.
        deadline: Option<Tick>,
    },
    /// Kill a child, or give its start up, and say `Exited` or `StartFailed` when it is gone.
    Kill {
        /// The child.
        id: Name,
        /// Which start of it.
        generation: u64,
    },
    /// Leave a child behind that did not end when it was killed.
    Abandon {
        /// The child.
        id: Name,
        /// Which start of it.
        generation: u64,
    },
    /// Tell the others.
    Emit(Signal),
    /// The answer to a verb.
    Reply {
        /// The question.
        request: u64,
        /// What became of it.
        result: Result<(), Refused>,
    },
    /// All children have been started: the supervisor has.
    Up,
    /// All children have ended: the supervisor has.
    Terminated(End),
}

/// Why a supervisor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Asked,
    /// More restarts than its policy allows.
    Intensity,
    /// Its significant children have ended.
    AutoShutdown,
    /// A child could not be started at the very start, so it has never been up.
    StartFailed {
        /// The child.
        child: Name,
        /// Why.
        error: Name,
    },
}
