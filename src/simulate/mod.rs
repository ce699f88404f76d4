//! What would this policy have done? Traces in, decisions out, in virtual time.
//!
//! The simulator drives the very machines that the runtime drives and has no rule of its own: what it prints
//! for a trace is what the runtime would have decided, had the world behaved like the trace. Time moves only
//! as the trace says; what is due at a moment happens before a line of that moment.
//!
//! Input and output are JSON Lines: a line in is an object with `at_ms` and one key that says what it is; a
//! line out is either the answer to a line that asks, bearing that line's own keys, or a thing that happened
//! (`"event"`). What a line causes comes before its answer; a gate answers first, because it decides before
//! anything can follow. A line that cannot be understood ends the run with an error that names it: nothing
//! after it is skipped in silence.
//!
//! Each *part* (`driver.rs`) owns the lines of one subject and the machines behind them; the driver reads, keeps
//! the time and dispatches. Children start, stop and die at once here, as their scripts say.

mod alerts;
mod circuits;
mod driver;
mod forest;
mod plans;
mod pool;
mod pools;
mod retries;
mod setup;
mod transitions;
mod tree;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, BufRead, Write},
};

use driver::{Driver, Output, Part};
use selfheal_actors::{retry, supervisor, transition};

pub use circuits::{Circuits, Guarded};
pub use plans::Operation;
pub use pool::Pool;
pub use tree::{Invalid, Tree, TreeChild};

use crate::http::{Endpoint, Endpoints, Unmatchable};

/// What is simulated; made of a [`Config`](crate::config::Config).
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Trees to try out.
    pub trees: Vec<Tree>,
    /// The pools of the runtime: each has a gate, and a monitor in the runtime's own tree.
    pub pools: Vec<Pool>,
    /// How the runtime's own supervisors treat their children.
    pub supervision: supervisor::Policy,
    /// How calls that have failed are made again.
    pub retry: retry::Policy,
    /// The endpoints with a policy of their own.
    pub endpoints: Vec<Endpoint>,
    /// The circuits of endpoints.
    pub circuits: Circuits,
    /// Which status may become which.
    pub transitions: Vec<transition::Table>,
    /// Long operations.
    pub operations: Vec<Operation>,
}

/// Plays the trace `input` under a config, or a [`Setup`], and writes what comes of it to `output`, line by line.
/// `seed` feeds what a policy leaves to chance, which is jitter; supervision leaves nothing to chance.
///
/// # Errors
/// [`Error`], at the first line that cannot be played. What came before it has been written.
pub fn run(
    config: impl Into<Setup>,
    input: impl BufRead,
    output: impl Write,
    seed: u64,
) -> Result<(), Error> {
    let setup = config.into();
    let trees = tree::Trees::new(&setup).map_err(Error::Setup)?;
    let pools = pools::Pools::new(setup.pools, seed);
    let endpoints = Endpoints::new(setup.endpoints, Endpoint::unlisted()).map_err(Error::Endpoints)?;
    let retries = retries::Retries::new(setup.retry, endpoints, seed);
    let circuits = circuits::Played::new(setup.circuits, seed);
    let transitions = transitions::Transitions::new(setup.transitions);
    let plans = plans::Plans::new(setup.operations);
    let alerts = alerts::Alerts::new();
    let parts: Vec<Box<dyn Part>> = vec![
        Box::new(trees),
        Box::new(pools),
        Box::new(circuits),
        Box::new(retries),
        Box::new(transitions),
        Box::new(plans),
        Box::new(alerts),
    ];
    Driver::new(parts, output).play(input)
}

/// Why a trace could not be played to its end.
#[derive(Debug)]
pub enum Error {
    /// The trees do not fit together.
    Setup(Invalid),
    /// Endpoints cannot be matched, or not told apart.
    Endpoints(Vec<Unmatchable>),
    /// A line cannot be understood, or speaks of what does not exist.
    Line {
        /// Which line, from 1.
        number: usize,
        /// What is wrong with it, and how to mend it.
        problem: String,
    },
    /// Reading or writing failed.
    Io(io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(invalid) => invalid.fmt(f),
            Self::Endpoints(endpoints) => {
                f.write_str("endpoints that cannot be matched:")?;
                endpoints.iter().try_for_each(|endpoint| write!(f, " {endpoint};"))
            }
            Self::Line { number, problem } => {
                write!(f, "line {number}: {problem}; it and the lines after it were not played")
            }
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Setup(invalid) => Some(invalid),
            Self::Endpoints(_) | Self::Line { .. } => None,
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
