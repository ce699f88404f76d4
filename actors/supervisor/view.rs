//! What is shown of a child.

use serde::Serialize;

use crate::{
    clock::Tick,
    signal::{Exit, Name},
};

/// A child at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct ChildView {
    /// Its supervisor.
    pub supervisor: Name,
    /// Its id.
    pub id: Name,
    /// What it does.
    pub state: ChildState,
    /// Which start of it this is; never falls.
    pub generation: u64,
    /// How often it was started, failed attempts included.
    pub starts: u64,
    /// How often its supervisor brought it back.
    pub restarts: u64,
    /// How it ended the last time.
    pub last_exit: Option<Exit>,
    /// Since when it is in this state.
    pub since: Tick,
}

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildState {
    /// It runs.
    Up,
    /// It is being started.
    Starting,
    /// It waits for its restart.
    Waiting,
    /// It was asked to end.
    Stopping,
    /// It has ended, and nobody is about to start it.
    Down,
    /// It was killed and did not end; it is left behind.
    Abandoned,
}

impl ChildState {
    /// Whether its actor may still be there.
    pub(super) const fn has_actor(self) -> bool {
        matches!(self, Self::Up | Self::Starting | Self::Stopping)
    }

    /// The state's name, as in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Down => "down",
            Self::Abandoned => "abandoned",
        }
    }
}

/// A difference from what was shown before.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The child is as shown now.
    Shown(ChildView),
    /// The child has been forgotten.
    Gone(Name),
}
