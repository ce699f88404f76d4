//! From what a call came to, to the reply: again, or something kept, or a refusal that says when to come back.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use http::StatusCode;
use http_body::Body as _;
use selfheal_actors::{
    breaker::Outcome,
    error_class::ErrorClass,
    level::{Level, Mode},
    retry::{Failed, GiveUp, Repeatable, Verdict},
    telemetry,
};

use super::{
    answer::{Answer, Said},
    cache::{Key, Stale},
    problem::{Code, Problem},
    registry::{Affected, Felt},
    reply, stale,
    visit::Visit,
};

/// How a request ends.
pub(crate) struct Concluded {
    pub(crate) reply: Response,
    /// It is to be made again in the background, after this long.
    pub(crate) refresh: Option<(Box<Visit>, Duration)>,
}

/// In the background a call is made again for this long, its waits included.
const REFRESHED_FOR: Duration = Duration::from_secs(60);

impl Visit {
    /// A call has ended. What it came to decides about the circuit, and is the end of a retry if it was one.
    pub(crate) fn settle(&mut self, answer: &Answer) {
        if let Some(permit) = self.permit.take() {
            let took = self.registry.clock.now().since(self.begun);
            permit.settle_after(outcome(answer), took);
        }
        if self.calls < 2 || answer.refused {
            return;
        }
        let retry = self.calls - 1;
        if answer.error.is_none() {
            self.count_retry("success");
            metrics::counter!(telemetry::PREVENTIONS_TOTAL.name, "kind" => "retry").increment(1);
            self.say(|| format!("Retry attempt {retry}: Success - API call recovered"));
        } else {
            self.count_retry("failure");
            self.say(|| format!("Retry attempt {retry}: Still failing"));
        }
    }

    /// After how long the call is made again; `None` if it is not.
    pub(crate) fn again(&mut self, answer: &Answer) -> Option<Duration> {
        let error = answer.error?;
        self.detected(answer, error);
        if self.repeatable == Repeatable::Never || self.calls == 0 || answer.was_retried() {
            return None;
        }
        let failed = self.failure(answer, error, !self.background, self.time_left());
        match self.state().retries.failed(&failed, self.registry.clock.now()) {
            Verdict::Again { .. } if self.mode != Mode::Act => {
                self.would("retry");
                None
            }
            Verdict::Again { after } => {
                self.say(|| format!("Retry scheduled: {} delay", seconds(after)));
                Some(after)
            }
            Verdict::GiveUp(GiveUp::Budget) => {
                self.count_retry("budget_exhausted");
                None
            }
            Verdict::GiveUp(GiveUp::Attempts | GiveUp::Permanent | GiveUp::Deadline) => None,
        }
    }

    /// The reply, and what is done for the next one.
    pub(crate) fn conclude(&mut self, answer: Answer) -> Concluded {
        self.keep(&answer);
        let failed = answer.error.filter(|_| !answer.is_callers_mistake() && self.mode == Mode::Act);
        let (Some(error), Some(key)) = (failed, self.fallback.take()) else {
            return Concluded { reply: self.write(answer, None), refresh: None };
        };
        let now = self.registry.clock.now();
        let kept = self.asked().and_then(|asked| self.registry.replies.find(&key, asked, now));
        let refresh = self.refresh(&key, &answer, error);
        let reply = match kept {
            Some(kept) if kept.may_stand_in() => self.stand_in(&answer, &kept),
            kept => self.write(answer, kept.as_ref()),
        };
        Concluded { reply, refresh }
    }

    /// The request's time is up: that is the end, unless it is only observed.
    pub(crate) fn expired(&mut self) -> Option<Answer> {
        if self.mode == Mode::Act {
            return Some(Code::Deadline.into());
        }
        self.is_late = true;
        self.would("late");
        self.feel(&Code::Deadline.into(), true);
        None
    }

    /// Not under the names of the gate's reasons: those are counted by the gate.
    pub(super) fn would(&self, what: &'static str) {
        metrics::counter!(telemetry::WOULD_REJECT_TOTAL.name, "what" => what).increment(1);
    }

    fn failure(&self, answer: &Answer, error: ErrorClass, inline: bool, left: Duration) -> Failed {
        let gate = self.registry.gate(&self.matched.endpoint);
        Failed {
            attempt: self.calls.max(1),
            error,
            repeatable: self.repeatable,
            inline,
            class: self.ticket.class(),
            level: gate.map_or(Level::Normal, |gate| gate.params().level()),
            left: Some(left),
            retry_after: answer.retry_after,
        }
    }

    fn time_left(&self) -> Duration {
        self.deadline.since(self.registry.clock.now())
    }

    /// Whether its reply may be kept.
    pub(super) const fn keeps(&self) -> bool {
        self.fallback.is_some() || self.claim.is_some()
    }

    /// A good reply is kept, for a failure and for a duplicate.
    fn keep(&mut self, answer: &Answer) {
        let Said::Reply(reply) = &answer.said else { return };
        // Ages are in seconds: nothing is kept or forgotten for four milliseconds more.
        let now = self.registry.clock.coarse();
        if let (Some(key), None, Some(data), Some(asked)) =
            (&self.fallback, answer.error, &answer.data, self.asked())
        {
            let kept = (reply.status(), reply.headers(), data.clone());
            self.registry.replies.keep(key, &self.matched.endpoint, asked, kept, now);
        }
        let Some(claim) = self.claim.take() else { return };
        let is_decided = matches!(answer.error, None | Some(ErrorClass::Permanent)) && !answer.refused;
        let data = answer.data.clone().or_else(|| reply.body().is_end_stream().then(Default::default));
        if let (Some(data), true) = (data, is_decided) {
            self.registry.keys.keep(&claim, (reply.status(), reply.headers(), data), now);
        }
    }

    /// Whether it is asked for again, once the caller has been answered.
    fn refresh(&mut self, key: &Key, answer: &Answer, error: ErrorClass) -> Option<(Box<Self>, Duration)> {
        if self.background || self.repeatable == Repeatable::Never {
            return None;
        }
        let right = self.registry.replies.refresh(key)?;
        let error = if answer.refused { ErrorClass::Overload } else { error };
        let failed = self.failure(answer, error, false, REFRESHED_FOR);
        match self.state().retries.failed(&failed, self.registry.clock.now()) {
            Verdict::Again { after } => {
                let mut again = self.in_background(right);
                again.fallback = Some(key.clone());
                again.held = self.held.take();
                Some((again, after))
            }
            Verdict::GiveUp(_) => None,
        }
    }

    /// The last good reply in place of this one.
    fn stand_in(&self, answer: &Answer, kept: &Stale) -> Response {
        self.count_fallback("cache");
        self.say(|| format!("Cached data returned for {}", self.matched.label));
        let retry_after = self.registry.jitter.seconds(answer.retry_after.unwrap_or(reply::DEFAULT_RETRY));
        stale::stand_in(kept, retry_after)
    }

    /// What was said, as this caller wants to hear it.
    fn write(&self, answer: Answer, kept: Option<&Stale>) -> Response {
        match answer.said {
            Said::Reply(reply) => {
                self.notice(reply.status());
                reply
            }
            Said::Problem(problem, theirs) => {
                if kept.is_some() {
                    self.count_fallback("attached");
                }
                self.tell(&problem, theirs, kept)
            }
        }
    }

    fn tell(&self, problem: &Problem, theirs: Option<Response>, kept: Option<&Stale>) -> Response {
        self.feel(problem, false);
        if problem.code.is_temporary() && problem.status.is_server_error() {
            self.say(|| "Graceful error response returned".to_owned());
        }
        tracing::debug!(
            target: "selfheal", endpoint = %self.matched.label, request_id = %self.manner.id.0,
            code = problem.code.name(), "A request was not answered",
        );
        let ours = reply::write(problem, &self.manner, &self.registry.jitter, kept.and_then(stale::document));
        match theirs {
            Some(theirs) => reply::instead_of(ours, theirs),
            None => ours,
        }
    }

    /// A handler's own 5xx is a failure too.
    fn notice(&self, status: StatusCode) {
        if status.is_server_error() {
            self.feel(&Problem::new(Code::Internal).with_status(status), false);
        }
    }

    fn feel(&self, problem: &Problem, would: bool) {
        let felt = match problem.code {
            Code::Shed | Code::UserLimit | Code::PoolTimeout | Code::CircuitOpen => Felt::Shed,
            Code::Deadline => Felt::Late,
            Code::StoreDown | Code::UpstreamInvalid | Code::Internal => Felt::Failed,
            Code::Rejected
            | Code::KeyInUse
            | Code::KeyReused
            | Code::KeyInvalid
            | Code::TransitionBlocked => return,
        };
        if self.background {
            return;
        }
        self.registry.impact.tell(&Affected {
            felt,
            code: problem.code,
            endpoint: &self.matched.label,
            class: self.matched.endpoint.class,
            user: self.ticket.user(),
            would,
        });
    }

    /// The first failure of a request that the log tells of.
    fn detected(&mut self, answer: &Answer, error: ErrorClass) {
        let is_first = self.calls == 1 && !self.background && self.mode == Mode::Act;
        if !is_first || answer.refused || answer.is_callers_mistake() {
            return;
        }
        self.tells = self.state().may_tell(self.registry.clock.now());
        let label = &self.matched.label;
        self.say(|| format!("API error detected: {label}"));
        self.say(|| format!("Error classified: {}", words(error)));
    }

    fn say(&self, line: impl FnOnce() -> String) {
        if self.tells {
            let (endpoint, id) = (&self.matched.label, &self.manner.id.0);
            tracing::info!(target: "selfheal", %endpoint, request_id = %id, "{}", line());
        }
    }

    fn count_retry(&self, outcome: &'static str) {
        let endpoint = Arc::clone(&self.matched.label);
        let metric = telemetry::RETRIES_TOTAL.name;
        metrics::counter!(metric, "endpoint" => endpoint, "outcome" => outcome).increment(1);
    }

    fn count_fallback(&self, source: &'static str) {
        let endpoint = Arc::clone(&self.matched.label);
        let metric = telemetry::FALLBACKS_TOTAL.name;
        metrics::counter!(metric, "endpoint" => endpoint, "source" => source).increment(1);
    }
}

/// What a call says about the endpoint: nothing, if we refused it or its caller was wrong.
fn outcome(answer: &Answer) -> Outcome {
    if answer.error.is_none() {
        Outcome::Success
    } else if answer.refused || answer.is_callers_mistake() {
        Outcome::Ignored
    } else {
        Outcome::Failure
    }
}

const fn words(error: ErrorClass) -> &'static str {
    match error {
        ErrorClass::Transient => "Transient (retryable)",
        ErrorClass::Interrupted => "Transient, connection lost (retryable)",
        ErrorClass::Timeout => "Timeout (retryable)",
        ErrorClass::Overload => "Transient, no connection free (retryable)",
        ErrorClass::Unknown => "Unknown (retryable)",
        ErrorClass::Permanent | ErrorClass::Shutdown => "Permanent (not retried)",
    }
}

fn seconds(delay: Duration) -> String {
    format!("{:.1} s", delay.as_secs_f64())
}
