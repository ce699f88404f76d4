//! One request, from its arrival to its reply: what is known of it, and what each step makes of it.
//!
//! The mode is read once, at arrival. In `act` each step acts. In `observe` the same faults are found, as far
//! as they can be found without holding anything up, and counted as what would have been; the handler's reply
//! leaves as it is, late or not, and a panic is the host's. In `off` the request passes.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use axum::{
    body::Body,
    extract::{MatchedPath, OriginalUri},
    response::Response,
};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body::Body as _;
use selfheal_actors::{
    gate::{Entered, Refusal, Ticket},
    level::Mode,
    signal::Name,
    telemetry,
};

use super::{
    body::{self, Carried, Read, Reading},
    deadline::Expiry,
    failure,
    policy::Match,
    problem::{Code, Problem},
    registry::{Affected, Felt, Registry},
    reply::{self, Manner},
    request_id,
    validate::{self, Fault, Head, Instead, Repair, Verdict},
};

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Visit {
    registry: Arc<Registry>,
    mode: Mode,
    matched: Match,
    method: Method,
    ticket: Ticket,
    entered: Option<Entered>,
    manner: Manner,
    /// Whether the reply's body is still the handler's to produce.
    streams: bool,
}

/// What becomes of a request next.
pub(crate) enum Fate {
    /// It is answered.
    Reply(Response),
    /// Its reply is read first.
    Read(Reading),
    /// It goes on.
    Open,
}

/// Marks a request that is inside the layer: which registry's.
#[derive(Clone)]
struct Inside(Arc<Registry>);

/// What a handler said when it panicked.
pub(crate) struct Panicked(String);

impl Visit {
    /// Whether the request has passed a layer over the same registry already.
    pub(crate) fn is_inside(registry: &Arc<Registry>, extensions: &Extensions) -> bool {
        extensions.get::<Inside>().is_some_and(|inside| Arc::ptr_eq(&inside.0, registry))
    }

    /// Takes the request in: its id, its endpoint, its user, and so its ticket.
    pub(crate) fn receive(registry: &Arc<Registry>, parts: &mut Parts) -> Self {
        let id = registry.ids.of(&parts.headers);
        parts.extensions.insert(Inside(Arc::clone(registry)));
        parts.extensions.insert(id.clone());
        let manner = Manner::of(&parts.method, &parts.headers, id);
        let matched = matched(registry, parts);
        let ticket = ticket(registry, &matched, registry.identity.of(parts), &manner);
        let (registry, mode, method) = (Arc::clone(registry), registry.mode.get(), parts.method.clone());
        Self { registry, mode, matched, method, ticket, entered: None, manner, streams: false }
    }

    /// Asks the gate: user limit and admission in one.
    pub(crate) fn enter(&mut self) -> Result<(), Refusal> {
        if let Some(gate) = self.registry.gate(&self.matched.endpoint) {
            self.entered = Some(gate.enter(&self.ticket)?);
        }
        Ok(())
    }

    /// When the request's time is up.
    pub(crate) fn expiry(&self) -> Expiry {
        match self.mode {
            Mode::Off => Expiry::never(),
            Mode::Act | Mode::Observe => Expiry::after(self.matched.endpoint.deadline),
        }
    }

    /// Runs a piece of the handler with the ticket in scope. In mode `act` a panic ends here.
    pub(crate) fn run<T>(&self, piece: impl FnOnce() -> T) -> Result<T, Panicked> {
        let scoped = || self.ticket.sync_scope(piece);
        if self.mode != Mode::Act {
            return Ok(scoped());
        }
        catch_unwind(AssertUnwindSafe(scoped)).map_err(|payload| Panicked(text(&*payload)))
    }

    /// The gate has refused the request.
    pub(crate) fn refused(&self, refusal: &Refusal) -> Response {
        self.tell(&failure::refused(refusal))
    }

    /// The handler has panicked.
    pub(crate) fn panicked(&self, panic: &Panicked) -> Response {
        tracing::error!(
            target: "selfheal", endpoint = %self.matched.label, request_id = %self.manner.id.0, panic = ?panic.0,
            "A handler panicked",
        );
        self.count_repair(Fault::Panic);
        self.tell(&Code::Internal.into())
    }

    /// The inner service has failed without a reply.
    pub(crate) fn failed(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) -> Response {
        tracing::error!(
            target: "selfheal", endpoint = %self.matched.label, request_id = %self.manner.id.0, error = %error,
            "A service failed",
        );
        self.tell(&failure::classify(error))
    }

    /// The request's time is up: a reply, unless it is only observed.
    pub(crate) fn expired(&self) -> Option<Response> {
        let problem = Code::Deadline.into();
        if self.mode == Mode::Act {
            return Some(self.tell(&problem));
        }
        self.would("late");
        self.feel(&problem, true);
        None
    }

    /// The handler has answered: does it pass as it is?
    pub(crate) fn judge(&mut self, response: Response) -> Fate {
        if self.mode == Mode::Off {
            return self.pass(response);
        }
        if let Some(problem) = response.extensions().get::<Problem>() {
            return Fate::Reply(self.retell(&problem.clone(), response));
        }
        self.notice(response.status());
        let (parts, body) = response.into_parts();
        let (endpoint, length) = (&self.matched.endpoint, body.size_hint().exact());
        match validate::head(endpoint, &self.method, parts.status, &parts.headers, length) {
            Head::Pass => self.pass(Response::from_parts(parts, body)),
            Head::Replace(_) if self.mode == Mode::Observe => {
                self.would("repair");
                self.pass(Response::from_parts(parts, body))
            }
            Head::Replace(repair) => Fate::Reply(self.repair(repair, Response::from_parts(parts, body))),
            // Reading a reply holds it up, and to observe is to hold nothing up.
            Head::Read if self.mode == Mode::Observe => self.pass(Response::from_parts(parts, body)),
            Head::Read => Fate::Read(Reading::new(parts, body)),
        }
    }

    /// The handler's answer was read: does it pass as it is?
    pub(crate) fn judge_read(&mut self, read: Read) -> Response {
        match read {
            Read::Whole(mut parts, data, trailers) => {
                match validate::body(&self.matched.endpoint, parts.status, &parts.headers, &data) {
                    Verdict::Pass => Response::from_parts(parts, body::whole(data, trailers)),
                    Verdict::CallItJson => {
                        self.count_repair(Fault::ContentType);
                        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                        Response::from_parts(parts, body::whole(data, trailers))
                    }
                    Verdict::Replace(repair) => {
                        self.repair(repair, Response::from_parts(parts, Body::empty()))
                    }
                }
            }
            Read::TooLong(parts, body) => match validate::oversize(parts.status, &parts.headers) {
                None => {
                    self.streams = true;
                    Response::from_parts(parts, body)
                }
                Some(repair) => self.repair(repair, Response::from_parts(parts, body)),
            },
            Read::Broken(parts, error) => {
                let repair = validate::broken(parts.status, &parts.headers, &error);
                self.repair(repair, Response::from_parts(parts, Body::empty()))
            }
        }
    }

    /// The reply leaves: with the request's id, and with its place at the gate for as long as its body lasts.
    pub(crate) fn finish(&mut self, mut reply: Response) -> Response {
        request_id::put(&self.manner.id, reply.headers_mut());
        let entered = self.entered.take();
        if !self.streams || reply.body().is_end_stream() {
            return reply;
        }
        let (ticket, catches) = (self.ticket.clone(), self.mode == Mode::Act);
        reply.map(|body| Body::new(Carried::new(body, ticket, entered, catches)))
    }

    /// The handler's reply leaves as it is.
    fn pass(&mut self, reply: Response) -> Fate {
        self.streams = true;
        Fate::Reply(reply)
    }

    /// Replaces the handler's reply.
    fn repair(&self, repair: Repair, theirs: Response) -> Response {
        self.count_repair(repair.fault);
        self.log(&repair, theirs.status());
        let mut ours = match &repair.instead {
            Instead::Problem(problem) => reply::write(problem, &self.manner, &self.registry.jitter),
            Instead::Success { status, data } => reply::success(*status, data.as_deref()),
        };
        if let (Instead::Problem(problem), true) = (&repair.instead, theirs.status().as_u16() < 500) {
            self.feel(problem, false);
        }
        inherit(&mut ours, theirs);
        ours
    }

    /// A problem that was found out here.
    fn tell(&self, problem: &Problem) -> Response {
        self.feel(problem, false);
        tracing::debug!(
            target: "selfheal", endpoint = %self.matched.label, request_id = %self.manner.id.0,
            code = problem.code.name(), "A request was not answered",
        );
        reply::write(problem, &self.manner, &self.registry.jitter)
    }

    /// A problem that the handler found out: told again, as this caller wants to hear it.
    fn retell(&self, problem: &Problem, theirs: Response) -> Response {
        let mut ours = self.tell(problem);
        inherit(&mut ours, theirs);
        ours
    }

    /// A handler's own 5xx is a failure too.
    fn notice(&self, status: StatusCode) {
        if status.is_server_error() {
            self.feel(&Problem::new(Code::Internal).with_status(status), false);
        }
    }

    fn feel(&self, problem: &Problem, would: bool) {
        let felt = match problem.code {
            Code::Shed | Code::UserLimit | Code::PoolTimeout => Felt::Shed,
            Code::Deadline => Felt::Late,
            Code::StoreDown | Code::UpstreamInvalid | Code::Internal => Felt::Failed,
            Code::Rejected => return,
        };
        self.registry.impact.tell(&Affected {
            felt,
            code: problem.code,
            endpoint: &self.matched.label,
            class: self.matched.endpoint.class,
            user: self.ticket.user(),
            would,
        });
    }

    /// Not under the names of the gate's reasons: those are counted by the gate.
    fn would(&self, what: &'static str) {
        metrics::counter!(telemetry::WOULD_REJECT_TOTAL.name, "what" => what).increment(1);
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

/// Nested routers see only the rest of the path; what the host wrote down is the whole of it.
fn matched(registry: &Registry, parts: &Parts) -> Match {
    let whole = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let pattern = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    registry.endpoints.find(&parts.method, whole.path(), pattern)
}

fn ticket(registry: &Registry, matched: &Match, user: Option<Name>, manner: &Manner) -> Ticket {
    let endpoint = &matched.endpoint;
    let mut ticket = Ticket::new(endpoint.class)
        .with_operation(Arc::clone(&matched.label))
        .with_request_id(Arc::clone(&manner.id.0))
        .with_deadline(registry.clock.now() + endpoint.deadline);
    if let Some(user) = user {
        ticket = ticket.with_user(user);
    }
    if let Some(queries) = endpoint.queries {
        ticket = ticket.with_queries(queries);
    }
    ticket
}

/// Keeps of the handler's reply what is not about its body.
fn inherit(ours: &mut Response, theirs: Response) {
    let (parts, _) = theirs.into_parts();
    let headers: HeaderMap = parts.headers;
    reply::inherit(ours, headers);
    let extensions = std::mem::replace(ours.extensions_mut(), parts.extensions);
    ours.extensions_mut().extend(extensions);
}

/// The text of a panic, cut to what a log line bears.
fn text(payload: &(dyn Any + Send)) -> String {
    const LONGEST: usize = 1024;
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("not a text").chars().take(LONGEST).collect()
}
