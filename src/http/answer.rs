//! What one call of the handler came to, before it is a reply.

use std::time::Duration;

use axum::{body::Bytes, response::Response};
use selfheal_actors::error_class::ErrorClass;

use super::problem::{Code, Problem};

/// What one call came to.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) said: Said,
    /// What it means for another try; `None` if it is good.
    pub(crate) error: Option<ErrorClass>,
    /// When whoever failed wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
    /// Whether this runtime refused it: it says nothing about the handler.
    pub(crate) refused: bool,
    /// The whole body of a reply that was read.
    pub(crate) data: Option<Bytes>,
}

/// What is said to the caller.
#[derive(Debug)]
pub(crate) enum Said {
    /// This.
    Reply(Response),
    /// That it was not answered, and why; with the handler's own reply, if there was one.
    Problem(Box<Problem>, Option<Response>),
}

impl Answer {
    /// A reply that leaves as it is.
    pub(crate) fn reply(reply: Response, data: Option<Bytes>) -> Self {
        let error = ErrorClass::of_status(reply.status().as_u16());
        Self { said: Said::Reply(reply), error, retry_after: None, refused: false, data }
    }

    /// A problem.
    pub(crate) fn problem(problem: Problem, theirs: Option<Response>) -> Self {
        let (class, retry_after, refused) = (problem.class, problem.retry_after, problem.refused);
        let said = Said::Problem(Box::new(problem), theirs);
        Self { said, error: Some(class), retry_after, refused, data: None }
    }

    /// Whether it was tried again already, further in: twice five attempts would be twenty-five.
    pub(crate) fn was_retried(&self) -> bool {
        match &self.said {
            Said::Problem(problem, _) => problem.retried,
            Said::Reply(_) => false,
        }
    }

    /// Whether it is the caller's own mistake, told by the handler or by us.
    pub(crate) fn is_callers_mistake(&self) -> bool {
        match &self.said {
            Said::Reply(reply) => reply.status().is_client_error(),
            Said::Problem(problem, _) => match problem.code {
                Code::Rejected
                | Code::KeyInUse
                | Code::KeyReused
                | Code::KeyInvalid
                | Code::TransitionBlocked => true,
                Code::Shed
                | Code::UserLimit
                | Code::Deadline
                | Code::PoolTimeout
                | Code::StoreDown
                | Code::CircuitOpen
                | Code::UpstreamInvalid
                | Code::Internal => false,
            },
        }
    }
}

impl From<Code> for Answer {
    fn from(code: Code) -> Self {
        Self::problem(code.into(), None)
    }
}
