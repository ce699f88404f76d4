//! How a query or a connection is not had.
//!
//! A refusal is not an error of the database, but sqlx's `Executor` can only speak [`sqlx::Error`]. There it
//! travels as an I/O error of kind `ResourceBusy`: the one variant that keeps its source, and that a host which
//! knows nothing of gates already treats as "the database is not to be had at this moment".
//! [`refusal`] finds it again, and `?` from [`sqlx::Error`] into [`Error`] takes it out by itself.

use std::{borrow::Cow, fmt, io};

use selfheal_actors::gate::Refusal;
use sqlx::error::{DatabaseError, ErrorKind};

/// Why there is no connection.
#[derive(Debug)]
pub enum Error {
    /// The gate refused: it is not a failure of the database, and the caller should come again later.
    Refused(Refusal),
    /// The database, or the way to it, failed.
    Sqlx(sqlx::Error),
}

/// The gate's refusal that travels in `error`, if one does.
#[must_use]
pub fn refusal(error: &sqlx::Error) -> Option<&Refusal> {
    let sqlx::Error::Io(error) = error else { return None };
    error.get_ref()?.downcast_ref()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Sqlx(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Sqlx(error) => error.source(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match refusal(&error) {
            Some(refusal) => Self::Refused(*refusal),
            None => Self::Sqlx(error),
        }
    }
}

impl From<Error> for sqlx::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => Self::Io(io::Error::new(io::ErrorKind::ResourceBusy, refusal)),
            Error::Sqlx(error) => error,
        }
    }
}

/// "Too many clients", said to each of the callers that one probe answered.
///
/// sqlx's pool retries SQLSTATE 53300 until its timeout and then reports the timeout, so the server's own error
/// is lost; this one bears its code, and code that looks for 53300 finds it.
#[derive(Clone, Debug)]
pub(super) struct ServerFull {
    /// The server's message.
    pub(super) message: String,
}

impl fmt::Display for ServerFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ServerFull {}

impl DatabaseError for ServerFull {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed("53300"))
    }

    fn as_error(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn std::error::Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn std::error::Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        ErrorKind::Other
    }
}

#[cfg(test)]
mod tests {
    use selfheal_actors::gate::Reason;

    use super::{
        super::classify::{ErrorClass, classify},
        *,
    };

    #[test]
    fn a_refusal_travels_through_an_error_of_sqlx_and_out_again() {
        let sent = Refusal { reason: Reason::Shed, retry_after: None };
        let travelling = sqlx::Error::from(Error::from(sent));
        assert_eq!(refusal(&travelling), Some(&sent));
        assert_eq!(classify(&travelling), ErrorClass::Overload);
        assert!(matches!(Error::from(travelling), Error::Refused(arrived) if arrived == sent));
        assert!(refusal(&sqlx::Error::Io(io::Error::from(io::ErrorKind::ResourceBusy))).is_none());
    }

    #[test]
    fn a_full_server_is_found_by_its_code() {
        let error = sqlx::Error::from(ServerFull { message: "sorry, too many clients already".into() });
        assert_eq!(classify(&error), ErrorClass::Overload);
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("53300"));
    }
}
