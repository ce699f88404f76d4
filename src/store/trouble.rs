//! What an error of the database means for durable work.

use selfheal_actors::batch_executor::journal::{JournalError, Trouble};

use crate::db::{ErrorClass, classify};

/// The trouble that an error is which a statement gave.
pub(super) fn of_statement(error: sqlx::Error) -> JournalError {
    let trouble = by_code(&error).unwrap_or_else(|| match classify(&error) {
        // SQLite's lock; a serialization failure; a server that is starting says so when one connects.
        ErrorClass::Transient | ErrorClass::Overload | ErrorClass::Timeout => Trouble::Busy,
        ErrorClass::Interrupted => Trouble::Unknown,
        ErrorClass::Permanent => Trouble::Refused,
        ErrorClass::Shutdown | ErrorClass::Unknown => Trouble::Down,
    });
    JournalError::new(trouble, error)
}

/// The trouble that an error is which nothing was sent before: a connection could not be had.
pub(super) fn of_connecting(error: sqlx::Error) -> JournalError {
    let trouble = by_code(&error).unwrap_or_else(|| match classify(&error) {
        ErrorClass::Overload => Trouble::Busy,
        // A password, a database that is not there.
        ErrorClass::Permanent if error.as_database_error().is_some() => Trouble::Refused,
        ErrorClass::Transient
        | ErrorClass::Timeout
        | ErrorClass::Interrupted
        | ErrorClass::Permanent
        | ErrorClass::Shutdown
        | ErrorClass::Unknown => Trouble::Down,
    });
    JournalError::new(trouble, error)
}

/// What the database says of itself.
pub(crate) fn by_code(error: &sqlx::Error) -> Option<Trouble> {
    let code = error.as_database_error()?.code()?;
    if code.len() == 5 {
        return match &*code {
            "53100" => Some(Trouble::Full),
            "25006" => Some(Trouble::ReadOnly),
            // It is told to end, or starts.
            "57P03" => Some(Trouble::Down),
            _ => None,
        };
    }
    // SQLite: the low byte is the primary code.
    match code.parse::<u32>().ok()? & 0xff {
        8 => Some(Trouble::ReadOnly),
        // IOERR: a disk that is full or gone. CANTOPEN.
        10 | 14 => Some(Trouble::Down),
        13 => Some(Trouble::Full),
        _ => None,
    }
}

/// Nobody answered in time, or whoever should have is gone.
pub(super) fn silent() -> JournalError {
    JournalError { trouble: Trouble::Unknown, source: None }
}

pub(super) fn refused(why: String) -> JournalError {
    JournalError::new(Trouble::Refused, why)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_connection_that_broke_leaves_it_open_what_was_written_and_one_that_was_not_had_does_not() {
        let broken = || sqlx::Error::Io(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(of_statement(broken()).trouble, Trouble::Unknown);
        assert_eq!(of_connecting(broken()).trouble, Trouble::Down);
        let refused = sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(of_connecting(refused).trouble, Trouble::Down);
        assert_eq!(of_statement(sqlx::Error::RowNotFound).trouble, Trouble::Refused);
    }
}
