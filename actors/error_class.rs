//! What an error means for whoever got it, in one set of words for the database, for HTTP and for retries.

use std::fmt;

use crate::level::closed_set;

/// What an error means for whoever got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It passes, and nothing was applied: the same transaction may be tried again (serialization failure,
    /// deadlock, lock not available, server starting, connection refused, SQLite busy, status 502 and 503).
    Transient,
    /// The connection ended under way: what was sent may or may not have been applied.
    Interrupted,
    /// It took too long and was stopped, by `statement_timeout` or by a person. Trying again blindly would
    /// take as long again.
    Timeout,
    /// There was no room: refused by the gate, pool exhausted, too many clients, out of memory. Trying again at
    /// once makes it worse.
    Overload,
    /// Trying again gives the same: constraint, syntax, type, privilege, configuration, disk full, read-only.
    Permanent,
    /// The pool is closed: the service is stopping.
    Shutdown,
    /// Not known.
    Unknown,
}

closed_set!(ErrorClass {
    Transient = "transient",
    Interrupted = "interrupted",
    Timeout = "timeout",
    Overload = "overload",
    Permanent = "permanent",
    Shutdown = "shutdown",
    Unknown = "unknown",
});

impl ErrorClass {
    /// Whether it is certain that nothing of what was asked for has been done.
    #[must_use]
    pub const fn nothing_was_done(self) -> bool {
        match self {
            Self::Transient | Self::Overload => true,
            Self::Interrupted | Self::Timeout | Self::Permanent | Self::Shutdown | Self::Unknown => false,
        }
    }

    /// What an HTTP status of a reply means. None of it below 400: that is no error.
    ///
    /// 408, 425 and 429 ask for another try; any other 4xx is the caller's own mistake. A 500 says nothing about
    /// what was done, and 501, 505 and their like will be said again.
    #[must_use]
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            ..400 => None,
            408 | 504 => Some(Self::Timeout),
            425 | 502 | 503 => Some(Self::Transient),
            429 => Some(Self::Overload),
            400..500 | 501 | 505..=511 => Some(Self::Permanent),
            500.. => Some(Self::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_it_was_the_callers_fault_and_whether_anything_can_have_been_done() {
        let of = ErrorClass::of_status;
        assert_eq!((of(200), of(304)), (None, None));
        assert_eq!([400, 404, 422, 501].map(of), [Some(ErrorClass::Permanent); 4]);
        assert_eq!([502, 503].map(of), [Some(ErrorClass::Transient); 2]);
        assert_eq!([408, 504].map(of), [Some(ErrorClass::Timeout); 2]);
        assert_eq!((of(429), of(500)), (Some(ErrorClass::Overload), Some(ErrorClass::Unknown)));
        assert!(!ErrorClass::Unknown.nothing_was_done() && ErrorClass::Transient.nothing_was_done());
    }
}
