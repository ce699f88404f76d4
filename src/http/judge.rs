//! What the handler's reply is worth: each of its ends becomes an [`Answer`].

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body::Body as _;
use selfheal_actors::{error_class::ErrorClass, level::Mode, telemetry};

use super::{
    answer::{Answer, Said},
    body::{self, Read, Reading},
    failure,
    problem::{Code, Problem},
    retry_after,
    validate::{self, Fault, Head, Instead, Repair, Verdict},
    visit::{Panicked, Visit},
};

/// What becomes of a handler's reply next.
pub(crate) enum Judged {
    /// It is known what it is worth.
    Answer(Answer),
    /// Its body is read first.
    Read(Reading),
}

impl Visit {
    /// The handler has panicked. It would again.
    pub(crate) fn panicked(&self, panic: &Panicked) -> Answer {
        tracing::error!(
            target: "selfheal", endpoint = %self.matched.label, request_id = %self.manner.id.0, panic = ?panic.0,
            "A handler panicked",
        );
        self.count_repair(Fault::Panic);
        Answer::problem(Problem::new(Code::Internal).of_class(ErrorClass::Permanent), None)
    }

    /// The inner service has failed without a reply.
    pub(crate) fn failed(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Answer {
        tracing::error!(
            target: "selfheal", endpoint = %self.matched.label, request_id = %self.manner.id.0, error = %error,
            "A service failed",
        );
        Answer::problem(failure::classify(error), None)
    }

    /// The handler has answered: does it pass as it is?
    pub(crate) fn judge(&mut self, response: Response) -> Judged {
        if let Some(problem) = response.extensions().get::<Problem>() {
            return Judged::Answer(Answer::problem(problem.clone(), Some(response)));
        }
        let (parts, body) = response.into_parts();
        let (endpoint, length) = (&self.matched.endpoint, body.size_hint().exact());
        match validate::head(endpoint, &self.method, parts.status, &parts.headers, length) {
            Head::Pass => self.pass(Response::from_parts(parts, body)),
            Head::Replace(_) if self.mode == Mode::Observe => {
                self.would("repair");
                self.pass(Response::from_parts(parts, body))
            }
            Head::Replace(repair) => Judged::Answer(self.repair(repair, Response::from_parts(parts, body))),
            // Reading a reply holds it up, and to observe is to hold nothing up.
            Head::Read if self.mode == Mode::Observe => self.pass(Response::from_parts(parts, body)),
            Head::Read => Judged::Read(Reading::new(parts, body)),
        }
    }

    /// The handler's answer was read: does it pass as it is?
    pub(crate) fn judge_read(&mut self, read: Read) -> Answer {
        match read {
            Read::Whole(mut parts, data, trailers) => {
                match validate::body(&self.matched.endpoint, parts.status, &parts.headers, &data) {
                    Verdict::Pass => {}
                    Verdict::CallItJson => {
                        self.count_repair(Fault::ContentType);
                        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    }
                    Verdict::Replace(repair) => {
                        return self.repair(repair, Response::from_parts(parts, Body::empty()));
                    }
                }
                let kept = self.keeps().then(|| data.clone());
                self.replied(Response::from_parts(parts, body::whole(data, trailers)), kept)
            }
            Read::TooLong(parts, body) => match validate::oversize(parts.status, &parts.headers) {
                None => {
                    self.streams = true;
                    self.replied(Response::from_parts(parts, body), None)
                }
                Some(repair) => self.repair(repair, Response::from_parts(parts, body)),
            },
            Read::Broken(parts, error) => {
                let repair = validate::broken(parts.status, &error);
                self.repair(repair, Response::from_parts(parts, Body::empty()))
            }
        }
    }

    /// The handler's reply leaves as it is.
    fn pass(&mut self, reply: Response) -> Judged {
        self.streams = true;
        Judged::Answer(self.replied(reply, None))
    }

    /// The handler's own reply.
    fn replied(&self, reply: Response, data: Option<Bytes>) -> Answer {
        let answer = Answer::reply(reply, data);
        match &answer.said {
            Said::Reply(reply) if answer.error.is_some() => {
                Answer { retry_after: self.retry_after(reply.headers()), ..answer }
            }
            Said::Reply(_) | Said::Problem(..) => answer,
        }
    }

    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        retry_after::of(headers, || self.registry.clock.wall())
    }

    /// Replaces the handler's reply.
    fn repair(&self, repair: Repair, theirs: Response) -> Answer {
        self.count_repair(repair.fault);
        self.log(&repair, theirs.status());
        match repair.instead {
            Instead::Problem(problem) => {
                // What was said was no reply, whatever its status; a status that is an error says more.
                let class = ErrorClass::of_status(theirs.status().as_u16()).unwrap_or(ErrorClass::Unknown);
                let retry_after = self.retry_after(theirs.headers());
                // A gateway passes on when to come back; of others it is for us alone.
                let problem = match theirs.status().as_u16() {
                    502..=504 => problem.after(retry_after),
                    _ => problem,
                };
                Answer { retry_after, ..Answer::problem(problem.of_class(class), Some(theirs)) }
            }
            Instead::Success { status, data } => {
                let (ours, body) = super::reply::success(status, data.as_deref());
                let ours = super::reply::instead_of(ours, theirs);
                Answer { error: None, said: Said::Reply(ours), data: Some(body), ..Code::Internal.into() }
            }
        }
    }

    fn count_repair(&self, fault: Fault) {
        let endpoint = Arc::clone(&self.matched.label);
        let metric = telemetry::RESPONSES_REPAIRED_TOTAL.name;
        metrics::counter!(metric, "endpoint" => endpoint, "reason" => fault.name()).increment(1);
    }

    /// A caller's mistakes are its own affair; a reply that should have been a good one is the host's.
    fn log(&self, repair: &Repair, status: StatusCode) {
        let (endpoint, id) = (&self.matched.label, &self.manner.id.0);
        let (reason, said) = (repair.fault.name(), repair.said.as_deref().unwrap_or_default());
        let status_code = status.as_u16();
        if status.is_client_error() || matches!(repair.instead, Instead::Success { .. }) {
            tracing::debug!(target: "selfheal", %endpoint, request_id = %id, reason, status_code, said, "A reply was made into JSON");
        } else {
            tracing::warn!(target: "selfheal", %endpoint, request_id = %id, reason, status_code, said, "A reply was not valid JSON and was replaced");
        }
    }
}
