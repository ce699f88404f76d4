//! An error type for handlers: `?` on anything, and the reply says what it was.
//!
//! Most services answer a pool that is exhausted with a 500 and its text, because by the time the error reaches
//! the handler's last line it is a string. [`Failure`] keeps the error and looks through its causes: a refusal
//! of the gate, a pool that timed out, a database that is full or down become a 503 (or 429) that says when to
//! come back. Everything else is a bug: 500, its text in the log and not in the reply.

use std::{error::Error, fmt, io, time::Duration};

use axum::response::{IntoResponse, Response};
use selfheal_actors::{
    batch_executor::{
        self,
        journal::{JournalError, Trouble},
    },
    breaker::{self, Rejection},
    error_class::ErrorClass,
    gate::{Reason, Refusal},
    transition::Blocked,
};

use super::{
    call_error::CallError,
    problem::{Code, Problem},
    reply,
};
use crate::{db, transition};

type Cause = Box<dyn Error + Send + Sync>;

/// Why a handler could not answer.
///
/// ```
/// # use axum::Json;
/// # async fn load() -> Result<Vec<u32>, sqlx::Error> { Ok(Vec::new()) }
/// async fn tasks() -> Result<Json<Vec<u32>>, selfheal::http::Failure> {
///     Ok(Json(load().await?))
/// }
/// ```
pub struct Failure {
    problem: Problem,
    cause: Option<Cause>,
}

impl Failure {
    /// A failure that is what `problem` says.
    #[must_use]
    pub const fn new(problem: Problem) -> Self {
        Self { problem, cause: None }
    }

    /// What the caller will be told.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl<E: Into<Cause>> From<E> for Failure {
    fn from(error: E) -> Self {
        let cause = error.into();
        Self { problem: classify(&*cause), cause: Some(cause) }
    }
}

impl IntoResponse for Failure {
    /// The reply in full, and the problem in the response's extensions: the layer writes it again with the
    /// request's id and in the manner the caller asked for.
    fn into_response(self) -> Response {
        if let (Code::Internal, Some(cause)) = (self.problem.code, &self.cause) {
            tracing::error!(target: "selfheal", error = %Chain(&**cause), "A handler failed");
        }
        let mut response = reply::write_bare(&self.problem);
        response.extensions_mut().insert(self.problem);
        response
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure").field("problem", &self.problem).field("cause", &self.cause).finish()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}", Chain(&**cause)),
            None => f.write_str(&self.problem.error),
        }
    }
}

/// What an error is to the caller, by the first of its causes that says.
pub(crate) fn classify(error: &(dyn Error + 'static)) -> Problem {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(problem) = known(error) {
            return problem;
        }
        // An i/o error hides the error that it was made from: its source is that error's source.
        let hidden = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = hidden.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    Problem::new(Code::Internal)
}

fn known(error: &(dyn Error + 'static)) -> Option<Problem> {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return Some(refused(refusal));
    }
    if let Some(error) = error.downcast_ref::<CallError>() {
        return Some(error.problem());
    }
    if let Some(rejection) = error.downcast_ref::<Rejection>() {
        return Some(rejected(rejection));
    }
    if let Some(blocked) = error.downcast_ref::<Blocked>() {
        return Some(Problem::new(Code::TransitionBlocked).saying(blocked.to_string()).refused());
    }
    if let Some(error) = error.downcast_ref::<JournalError>() {
        return Some(by_journal(error.trouble));
    }
    if let Some(refused) = error.downcast_ref::<batch_executor::Refused>() {
        return Some(by_batch(refused));
    }
    match error.downcast_ref::<db::Error>() {
        Some(db::Error::Refused(refusal)) => Some(refused(refusal)),
        Some(db::Error::Sqlx(error)) => by_database(error),
        None => by_database(error.downcast_ref()?),
    }
}

fn by_database(error: &sqlx::Error) -> Option<Problem> {
    let class = db::classify(error);
    let problem = match (error.as_database_error(), class) {
        // A trigger of ours in the database: its message names the change and nothing else.
        (Some(known), _) if transition::refused_by_trigger(known) => {
            Problem::new(Code::TransitionBlocked).saying(known.message().to_owned()).refused()
        }
        (Some(known), _) => {
            let of_server = known.code().and_then(|code| by_sqlstate(&code));
            of_server.unwrap_or_else(|| Code::Internal.into())
        }
        // A refusal that travels in it is found on the way down.
        (None, ErrorClass::Overload) if !matches!(error, sqlx::Error::PoolTimedOut) => return None,
        (None, ErrorClass::Overload) => Code::PoolTimeout.into(),
        // It cannot be reached, or was lost under way.
        (None, ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Shutdown) => {
            Code::StoreDown.into()
        }
        (None, ErrorClass::Timeout) => Code::Deadline.into(),
        // It is a mistake in the program, and its cause, if it has one, is told in the log.
        (None, ErrorClass::Permanent) if error.source().is_none() => Code::Internal.into(),
        (None, ErrorClass::Permanent | ErrorClass::Unknown) => return None,
    };
    Some(problem.of_class(class))
}

fn by_batch(refused: &batch_executor::Refused) -> Problem {
    use batch_executor::Refused;
    match refused {
        Refused::NotWritten(error) => by_journal(error.trouble),
        Refused::Draining => Problem::from(Code::StoreDown).of_class(ErrorClass::Transient),
        Refused::Unknown => Problem::from(Code::Internal).of_class(ErrorClass::Permanent),
        Refused::Failed { class, .. } => {
            let code = match class {
                ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Shutdown => Code::StoreDown,
                ErrorClass::Overload => Code::PoolTimeout,
                ErrorClass::Timeout => Code::Deadline,
                ErrorClass::Permanent | ErrorClass::Unknown => Code::Internal,
            };
            Problem::from(code).of_class(*class)
        }
    }
}

/// What could not be written down was not accepted, and the caller is told so: never a 202.
fn by_journal(trouble: Trouble) -> Problem {
    let (code, class) = match trouble {
        Trouble::Down | Trouble::Full | Trouble::ReadOnly => (Code::StoreDown, ErrorClass::Transient),
        Trouble::Busy => (Code::StoreDown, ErrorClass::Overload),
        // Nobody knows: only who has a key may ask again.
        Trouble::Unknown => (Code::StoreDown, ErrorClass::Interrupted),
        Trouble::Refused => (Code::Internal, ErrorClass::Permanent),
    };
    Problem::from(code).of_class(class)
}

/// What the server says about itself, not about the statement.
fn by_sqlstate(code: &str) -> Option<Problem> {
    let code = match code {
        // Out of connections, memory, disk; an administrator's command; a connection that broke; a timeout.
        code if code.starts_with("53") => Code::PoolTimeout,
        "57P01" | "57P02" | "57P03" => Code::StoreDown,
        code if code.len() == 5 && code.starts_with("08") => Code::StoreDown,
        "57014" => Code::Deadline,
        _ => return None,
    };
    Some(code.into())
}

/// The problem that a refusal of the gate is.
pub(crate) fn refused(refusal: &Refusal) -> Problem {
    let code = match refusal.reason {
        Reason::Shed | Reason::QueueFull => Code::Shed,
        Reason::UserLimit => Code::UserLimit,
        Reason::Deadline => Code::Deadline,
        Reason::Nested => Code::PoolTimeout,
        Reason::Closed => Code::StoreDown,
    };
    Problem::new(code).after(refusal.retry_after).refused()
}

/// The problem that a circuit's rejection is. One that is forced open for good says so for half a minute; one that is
/// being tried is open or closed in a moment, whatever its probe may take at most.
pub(crate) fn rejected(rejection: &Rejection) -> Problem {
    const FORCED: Duration = Duration::from_secs(30);
    const TRIED: Duration = Duration::from_secs(1);
    let (code, after) = match rejection.reason {
        breaker::Reason::HalfOpenFull => {
            (Code::CircuitOpen, rejection.retry_after.unwrap_or(TRIED).min(TRIED))
        }
        breaker::Reason::Open | breaker::Reason::ForcedOpen => {
            (Code::CircuitOpen, rejection.retry_after.unwrap_or(FORCED))
        }
        breaker::Reason::Shed => (Code::Shed, rejection.retry_after.unwrap_or(TRIED)),
    };
    Problem::new(code).after(Some(after)).refused()
}

/// An error and its causes on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn code(error: impl Into<Cause>) -> Code {
        Failure::from(error).problem().code
    }

    fn refusal(reason: Reason) -> Refusal {
        Refusal { reason, retry_after: Some(Duration::from_secs(2)) }
    }

    #[test]
    fn a_refusal_is_found_however_deep_it_is_wrapped() {
        assert_eq!(code(refusal(Reason::UserLimit)), Code::UserLimit);
        assert_eq!(code(db::Error::Refused(refusal(Reason::Shed))), Code::Shed);
        assert_eq!(code(io::Error::other(refusal(Reason::Shed))), Code::Shed);
        assert_eq!(code(sqlx::Error::Io(io::Error::other(refusal(Reason::Deadline)))), Code::Deadline);
        let wrapped = sqlx::Error::Configuration(Box::new(refusal(Reason::QueueFull)));
        let failure = Failure::from(io::Error::other(wrapped));
        assert_eq!(failure.problem().code, Code::Shed);
        assert_eq!(failure.problem().retry_after, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_change_of_status_that_is_not_allowed_is_told_and_is_no_bug() {
        let table = transition::Table::new("message", [("PROMOTED", ["COMPLETED"])]).expect("it is sound");
        let blocked = table.check("PROMOTED", "SPAM_REVIEW").expect_err("it is not listed");
        let failure = Failure::from(transition::Error::Blocked(blocked));
        let Problem { code, status, error, refused, .. } = failure.problem();
        assert_eq!((*code, status.as_u16(), *refused), (Code::TransitionBlocked, 422, true));
        assert_eq!(error, "PROMOTED → SPAM_REVIEW is not allowed: PROMOTED may become COMPLETED");
        assert!(!code.is_temporary(), "coming back would meet the same refusal");
        assert_eq!(self::code(transition::Error::Missing), Code::Internal);
    }

    #[test]
    fn what_could_not_be_written_down_is_told_and_may_be_asked_for_again() {
        for &trouble in Trouble::ALL {
            let code = code(JournalError { trouble, source: None });
            assert_eq!(code == Code::StoreDown, trouble.passes(), "{trouble}");
            assert_eq!(code == Code::Internal, !trouble.passes(), "{trouble}");
        }
    }

    #[test]
    fn an_exhausted_or_dead_database_is_no_bug_and_a_wrong_statement_is() {
        assert_eq!(code(sqlx::Error::PoolTimedOut), Code::PoolTimeout);
        assert_eq!(code(sqlx::Error::PoolClosed), Code::StoreDown);
        assert_eq!(code(sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into())), Code::StoreDown);
        let cut =
            io::Error::new(io::ErrorKind::UnexpectedEof, "expected to read 5 bytes, got 0 bytes at EOF");
        assert_eq!(code(sqlx::Error::Io(cut)), Code::StoreDown, "whatever words come with it");
        assert_eq!(code(sqlx::Error::Protocol("unexpected message".into())), Code::StoreDown);
        assert_eq!(code(db::Error::Sqlx(sqlx::Error::PoolTimedOut)), Code::PoolTimeout);
        assert_eq!(code(db::Error::Sqlx(sqlx::Error::RowNotFound)), Code::Internal);
        assert_eq!(code(sqlx::Error::RowNotFound), Code::Internal);
        assert_eq!(code("no such luck"), Code::Internal);
        assert_eq!(by_sqlstate("53300").map(|p| p.code), Some(Code::PoolTimeout));
        assert_eq!(by_sqlstate("57P01").map(|p| p.code), Some(Code::StoreDown));
        assert_eq!(by_sqlstate("57014").map(|p| p.code), Some(Code::Deadline));
        assert_eq!(by_sqlstate("23505"), None);
    }
}
