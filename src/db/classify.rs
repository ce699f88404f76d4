//! What an error of the database means for whoever got it.
//!
//! Decided by SQLSTATE, by SQLite's result code, by the kind of an I/O error and by the variant; never by the
//! text, which is translated, changes between versions, and carries what callers sent. The table was made by
//! provoking each of these errors on a real server. What is not in it is [`ErrorClass::Unknown`]: a guess here
//! would either retry a bug for ever or give up on a hiccup.

use std::{borrow::Cow, io};

pub use selfheal_actors::error_class::ErrorClass;
use sqlx::error::DatabaseError;

use super::error::refusal;

/// The class of `error`.
#[must_use]
#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is sqlx's and grows")]
pub fn classify(error: &sqlx::Error) -> ErrorClass {
    use sqlx::Error;
    if refusal(error).is_some() {
        return ErrorClass::Overload;
    }
    match error {
        Error::Database(error) => by_code(&**error),
        Error::Io(error) => by_io(error.kind()),
        Error::PoolTimedOut => ErrorClass::Overload,
        Error::PoolClosed => ErrorClass::Shutdown,
        Error::WorkerCrashed | Error::Protocol(_) => ErrorClass::Interrupted,
        Error::Configuration(_)
        | Error::InvalidArgument(_)
        | Error::Tls(_)
        | Error::RowNotFound
        | Error::TypeNotFound { .. }
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::ColumnNotFound(_)
        | Error::ColumnDecode { .. }
        | Error::Encode(_)
        | Error::Decode(_)
        | Error::InvalidSavePointStatement
        | Error::BeginFailed => ErrorClass::Permanent,
        _ => ErrorClass::Unknown,
    }
}

/// What may be logged of `error`: of an error of the database its primary message only. sqlx's own text adds
/// a line number, of the *server's* source, and the detail would carry values out of the rows.
#[must_use]
pub fn message(error: &sqlx::Error) -> Cow<'_, str> {
    match error.as_database_error() {
        Some(error) => Cow::Borrowed(error.message()),
        None => Cow::Owned(error.to_string()),
    }
}

/// The five letters of an SQLSTATE; `None` for other errors, SQLite's among them.
pub(super) fn sqlstate(error: &sqlx::Error) -> Option<Cow<'_, str>> {
    error.as_database_error()?.code().filter(|code| code.len() == 5)
}

/// An SQLSTATE has five characters, SQLite's extended result codes have at most four.
fn by_code(error: &dyn DatabaseError) -> ErrorClass {
    match error.code() {
        Some(code) if code.len() == 5 => by_sqlstate(&code),
        Some(code) => code.parse().map_or(ErrorClass::Unknown, by_sqlite_code),
        None => ErrorClass::Unknown,
    }
}

/// <https://www.postgresql.org/docs/current/errcodes-appendix.html>
pub(crate) fn by_sqlstate(code: &str) -> ErrorClass {
    match code {
        // Serialization failure, deadlock; lock not available, object in use; idle in transaction, idle session.
        "40001" | "40P01" | "55P03" | "55006" | "25P03" | "57P05" => ErrorClass::Transient,
        // Cannot connect, connection rejected; cannot connect now (starting, stopping, recovering).
        "08001" | "08004" | "57P03" => ErrorClass::Transient,
        // Administrator's shutdown (also pg_terminate_backend), crash of another backend, completion unknown.
        "57P01" | "57P02" | "40003" => ErrorClass::Interrupted,
        // Query cancelled: statement_timeout, or pg_cancel_backend.
        "57014" => ErrorClass::Timeout,
        // Out of memory, too many connections.
        "53200" | "53300" => ErrorClass::Overload,
        // Disk full, configuration limit; protocol violation.
        "53100" | "53400" | "08P01" => ErrorClass::Permanent,
        _ => by_sqlstate_class(code),
    }
}

fn by_sqlstate_class(code: &str) -> ErrorClass {
    match code.get(..2) {
        Some("08") => ErrorClass::Interrupted,
        // Features, cardinality, data, constraints, transaction state, names, privileges, syntax, RAISE.
        Some(
            "0A" | "0B" | "20" | "21" | "22" | "23" | "24" | "25" | "26" | "28" | "2B" | "2D" | "2F" | "34"
            | "38" | "39" | "3B" | "3D" | "3F" | "40" | "42" | "44" | "54" | "55" | "P0",
        ) => ErrorClass::Permanent,
        _ => ErrorClass::Unknown,
    }
}

/// <https://www.sqlite.org/rescode.html>; the low byte of an extended code is the primary one.
fn by_sqlite_code(code: u32) -> ErrorClass {
    match code & 0xff {
        // BUSY, LOCKED, PROTOCOL (a race for the lock), SCHEMA (changed under way).
        5 | 6 | 15 | 17 => ErrorClass::Transient,
        // INTERRUPT.
        9 => ErrorClass::Timeout,
        // NOMEM.
        7 => ErrorClass::Overload,
        // ERROR, PERM, ABORT, READONLY, CORRUPT, FULL, CANTOPEN, TOOBIG, CONSTRAINT, MISMATCH, AUTH, RANGE, NOTADB.
        1 | 3 | 4 | 8 | 11 | 13 | 14 | 18 | 19 | 20 | 23 | 25 | 26 => ErrorClass::Permanent,
        _ => ErrorClass::Unknown,
    }
}

fn by_io(kind: io::ErrorKind) -> ErrorClass {
    use io::ErrorKind;
    let never_connected = matches!(
        kind,
        ErrorKind::ConnectionRefused
            | ErrorKind::NotFound
            | ErrorKind::AddrNotAvailable
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    );
    // Anything else may have struck after the statement was sent.
    if never_connected { ErrorClass::Transient } else { ErrorClass::Interrupted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_as_they_were_seen_on_a_real_server() {
        let seen = [
            ("53300", ErrorClass::Overload),
            ("57P01", ErrorClass::Interrupted),
            ("57P03", ErrorClass::Transient),
            ("40001", ErrorClass::Transient),
            ("40P01", ErrorClass::Transient),
            ("55P03", ErrorClass::Transient),
            ("57014", ErrorClass::Timeout),
            ("25P03", ErrorClass::Transient),
            ("25P02", ErrorClass::Permanent),
            ("25006", ErrorClass::Permanent),
            ("23505", ErrorClass::Permanent),
            ("22012", ErrorClass::Permanent),
            ("42P01", ErrorClass::Permanent),
            ("P0001", ErrorClass::Permanent),
            ("3D000", ErrorClass::Permanent),
            ("28000", ErrorClass::Permanent),
            ("53100", ErrorClass::Permanent),
            ("08006", ErrorClass::Interrupted),
            ("XX000", ErrorClass::Unknown),
            ("ü", ErrorClass::Unknown),
        ];
        for (code, class) in seen {
            assert_eq!(by_sqlstate(code), class, "{code}");
        }
    }

    #[test]
    fn extended_codes_of_sqlite_are_classed_by_their_primary_one() {
        assert_eq!(by_sqlite_code(5), ErrorClass::Transient, "BUSY");
        assert_eq!(by_sqlite_code(517), ErrorClass::Transient, "BUSY_SNAPSHOT");
        assert_eq!(by_sqlite_code(2067), ErrorClass::Permanent, "CONSTRAINT_UNIQUE");
        assert_eq!(by_sqlite_code(10), ErrorClass::Unknown, "IOERR");
    }

    #[test]
    fn variants_and_io_kinds_are_classed_without_a_look_at_their_text() {
        let io = |kind: io::ErrorKind| classify(&sqlx::Error::Io(io::Error::from(kind)));
        assert_eq!(io(io::ErrorKind::ConnectionRefused), ErrorClass::Transient);
        assert_eq!(io(io::ErrorKind::UnexpectedEof), ErrorClass::Interrupted);
        assert_eq!(classify(&sqlx::Error::PoolTimedOut), ErrorClass::Overload);
        assert_eq!(classify(&sqlx::Error::PoolClosed), ErrorClass::Shutdown);
        assert_eq!(classify(&sqlx::Error::RowNotFound), ErrorClass::Permanent);
    }
}
