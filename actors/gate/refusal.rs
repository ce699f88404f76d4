//! Why somebody got no connection.

use std::{fmt, time::Duration};

/// Why a request, a job or an acquisition was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Work that can wait is refused: the pool is pressed, or its queue did not move in time.
    Shed,
    /// The user has as much at once as a user may have.
    UserLimit,
    /// It was not its turn before its deadline, or could not have been.
    Deadline,
    /// Too many wait already.
    QueueFull,
    /// It holds a connection, needed another, and got none in time: a deadlock if it had waited on.
    Nested,
    /// The gate is closed.
    Closed,
}

impl Reason {
    /// Every reason, in order.
    pub const ALL: [Self; 6] =
        [Self::Shed, Self::UserLimit, Self::Deadline, Self::QueueFull, Self::Nested, Self::Closed];

    /// The place of this reason in [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason's name, as in traces, metrics and replies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shed => "shed",
            Self::UserLimit => "user_limit",
            Self::Deadline => "deadline",
            Self::QueueFull => "queue_full",
            Self::Nested => "nested",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The answer to whoever gets no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// When it makes sense to ask again, in whole seconds; `None` if it does not.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.reason {
            Reason::Shed => "the pool is pressed and this work can wait",
            Reason::UserLimit => "the user has too much at once while the pool is pressed",
            Reason::Deadline => "no connection before the deadline",
            Reason::QueueFull => "too many wait for a connection",
            Reason::Nested => "no second connection for a task that holds one",
            Reason::Closed => "the pool is closed",
        })
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_stands_at_its_place_under_a_name_of_its_own() {
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert!(Reason::ALL[..i].iter().all(|other| other.name() != reason.name()));
        }
    }
}
