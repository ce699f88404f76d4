//! Why a status was not changed.

use std::fmt;

use selfheal_actors::{signal::Name, transition::Blocked};

/// Why one status was not changed.
#[derive(Debug)]
pub enum Error {
    /// The table does not allow it.
    Blocked(Blocked),
    /// There is no such row.
    Missing,
    /// The database, or the way to it, failed. What a [`Trigger`](super::Trigger) has against a change comes this
    /// way, too.
    Sqlx(sqlx::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocked(blocked) => blocked.fmt(f),
            Self::Missing => f.write_str("there is no such row"),
            Self::Sqlx(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Blocked(blocked) => Some(blocked),
            Self::Missing => None,
            Self::Sqlx(error) => Some(error),
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlx(error)
    }
}

/// No table of this name was declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The name.
    pub machine: Name,
    /// Those that were.
    pub known: Vec<Name>,
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, known } = self;
        write!(f, "there is no [transitions.{machine}]; ")?;
        if known.is_empty() {
            f.write_str("there is none")
        } else {
            write!(f, "there is {}", known.join(", "))
        }
    }
}

impl std::error::Error for Unknown {}
