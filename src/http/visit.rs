//! One request, from its arrival to its reply: what is known of it, and where it stands.
//!
//! The mode is read once, at arrival. In `act` each step acts. In `observe` the same faults are found, as far
//! as they can be found without holding anything up, and counted as what would have been; the handler's reply
//! leaves as it is, late or not, and a panic is the host's. In `off` there is no visit: the request passes.
//!
//! A request can take several calls of the handler. Each call enters the gate anew, because between two of them the
//! request holds nothing: no place at the gate, none of its user's, no right to call.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{MatchedPath, OriginalUri},
    response::Response,
};
use http::{Extensions, HeaderMap, Method, request::Parts};
use http_body::Body as _;
use selfheal_actors::{
    breaker::{Permit, Rejection},
    clock::Tick,
    gate::{Entered, Ticket},
    level::{Class, Mode},
    retry::Repeatable,
    signal::Name,
};

use super::{
    body::Carried,
    cache,
    deadline::Left,
    failure, idempotency, identity,
    policy::Match,
    problem::{Code, Problem},
    registry::Registry,
    replay::{self, Held},
    reply::Manner,
    request_id,
    state::State,
};

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(super) registry: Arc<Registry>,
    pub(super) mode: Mode,
    pub(super) matched: Match,
    pub(super) method: Method,
    pub(super) ticket: Ticket,
    pub(super) manner: Manner,
    pub(super) deadline: Tick,
    /// Whether its time was up already: it is only observed.
    pub(super) is_late: bool,
    /// When the call at hand began; of the first one, when the request was whole.
    pub(super) begun: Tick,
    /// When the time of the call at hand is up, if that has one of its own.
    call_until: Option<Tick>,
    /// Whether it may be made again, by what it is.
    pub(super) repeatable: Repeatable,
    /// Whether nobody waits for it.
    pub(super) background: bool,
    /// Calls of the handler so far.
    pub(super) calls: u32,
    /// Whether the log tells of it.
    pub(super) tells: bool,
    /// Whether the reply's body is still the handler's to produce.
    pub(super) streams: bool,
    /// The request itself, if it may have to be made more than once.
    pub(super) held: Option<Held>,
    /// Which kept reply may be given in place of a failure.
    pub(super) fallback: Option<cache::Key>,
    /// The headers of a request that is not held, where a kept reply may depend on them.
    pub(super) asked: Option<HeaderMap>,
    /// Its key, and then the right to answer for it.
    pub(super) key: Option<idempotency::Key>,
    pub(super) claim: Option<idempotency::Claim>,
    /// Held while it asks for a reply again in the background.
    pub(super) _refresh: Option<cache::Refresh>,
    /// The right to make the call at hand.
    pub(super) permit: Option<Permit>,
    entered: Option<Entered>,
}

/// Marks a request that is inside the layer: which registry's.
#[derive(Clone)]
struct Inside(Arc<Registry>);

/// What a handler said when it panicked.
pub(crate) struct Panicked(pub(super) String);

/// How long a reply is asked for again in the background.
const REFRESHED_FOR: Duration = Duration::from_secs(60);

impl Visit {
    /// Whether the request has passed a layer over the same registry already.
    pub(crate) fn is_inside(registry: &Arc<Registry>, extensions: &Extensions) -> bool {
        extensions.get::<Inside>().is_some_and(|inside| Arc::ptr_eq(&inside.0, registry))
    }

    /// Takes the request in: its id, its endpoint, its user, and so its ticket.
    ///
    /// # Errors
    /// With the reason, if it cannot be taken.
    pub(crate) fn receive(
        registry: &Arc<Registry>,
        mode: Mode,
        parts: &Parts,
    ) -> (Box<Self>, Result<(), Code>) {
        let now = registry.clock.now();
        let (id, trace) = registry.ids.with_trace(&parts.headers);
        let matched = matched(registry, parts);
        let shown = registry.identity.shown(parts);
        let user = shown.clone().or_else(|| identity::peer(parts));
        let deadline = now + matched.endpoint.deadline;
        let manner = Manner::of(&parts.method, &parts.headers, id);
        let key = match mode {
            Mode::Act => registry.keys.of(parts, user.clone()),
            Mode::Observe | Mode::Off => Ok(None),
        };
        let (key, received) = match key {
            Ok(key) => (key, Ok(())),
            Err(code) => (None, Err(code)),
        };
        let ticket = ticket(&matched, matched.endpoint.class, user, &manner, deadline);
        let ticket = match trace {
            Some(trace) => ticket.with_trace(trace),
            None => ticket,
        };
        // In a box: it is handed on a dozen times, and has the size of a dozen lines of cache.
        let visit = Box::new(Self {
            mode,
            ticket,
            held: None,
            fallback: wanted(registry, mode, &matched, shown, parts),
            asked: None,
            repeatable: repeatable(mode, &matched, parts),
            registry: Arc::clone(registry),
            matched,
            method: parts.method.clone(),
            manner,
            deadline,
            is_late: false,
            begun: now,
            call_until: None,
            background: false,
            calls: 0,
            tells: false,
            streams: false,
            key,
            claim: None,
            _refresh: None,
            permit: None,
            entered: None,
        });
        (visit, received)
    }

    /// Marks the request that the handler is given: as one inside the layer, and with its id. What is held for another
    /// call is not marked, so that neither is copied with it.
    pub(crate) fn mark(&self, extensions: &mut Extensions) {
        extensions.insert(Inside(Arc::clone(&self.registry)));
        extensions.insert(self.manner.id.clone());
    }

    /// The same request as it is made again after its caller was answered: nobody waits for it, and it yields to
    /// everybody.
    pub(crate) fn in_background(&self, refresh: cache::Refresh) -> Box<Self> {
        let deadline = self.registry.clock.now() + REFRESHED_FOR;
        let user = self.ticket.user().cloned();
        Box::new(Self {
            registry: Arc::clone(&self.registry),
            mode: self.mode,
            matched: self.matched.clone(),
            method: self.method.clone(),
            ticket: ticket(&self.matched, Class::Background, user, &self.manner, deadline),
            manner: self.manner.clone(),
            deadline,
            is_late: false,
            begun: Tick::ZERO,
            call_until: None,
            repeatable: self.repeatable,
            background: true,
            calls: self.calls,
            tells: self.tells,
            streams: false,
            held: None,
            fallback: None,
            asked: None,
            key: None,
            claim: None,
            _refresh: Some(refresh),
            permit: None,
            entered: None,
        })
    }

    /// A call begins: it asks the gate, which is user limit and admission in one, and then the circuit.
    ///
    /// # Errors
    /// With the problem, if one of them says no.
    pub(crate) fn begin(&mut self) -> Result<(), Box<Problem>> {
        if self.calls > 0 {
            self.ticket = self.ticket.clone().with_attempt(self.calls);
        }
        if let Some(gate) = self.registry.gate(&self.matched.endpoint) {
            let entered = gate.enter(&self.ticket);
            self.entered = Some(entered.map_err(|refusal| failure::refused(&refusal))?);
        }
        if let Some(admitted) = self.registry.admit(&self.matched) {
            self.permit = Some(admitted.map_err(|rejection| self.rejected(&rejection))?);
        }
        if self.calls == 0 {
            self.state().retries.called(self.begun);
        }
        if self.mode == Mode::Act {
            let timeout = self.matched.endpoint.attempt_timeout;
            self.call_until = timeout.map(|timeout| self.begun + timeout);
        }
        self.calls += 1;
        Ok(())
    }

    /// What is not called is not waited for.
    fn rejected(&mut self, rejection: &Rejection) -> Problem {
        self.leave();
        failure::rejected(rejection)
    }

    /// Between two calls it holds nothing.
    pub(crate) fn leave(&mut self) {
        self.entered = None;
        self.call_until = None;
    }

    /// How much time it has left, and the call at hand.
    pub(crate) fn left(&self) -> Left {
        let now = self.registry.clock.now();
        Left {
            request: (!self.is_late).then(|| self.deadline.since(now)),
            call: self.call_until.map(|until| until.since(now)),
        }
    }

    /// Whether a call has a time of its own.
    pub(crate) fn has_attempt_timeout(&self) -> bool {
        self.matched.endpoint.attempt_timeout.is_some()
    }

    /// The headers of the request, as far as they are still there.
    pub(super) fn asked(&self) -> Option<&HeaderMap> {
        self.held.as_ref().map(|held| &held.parts.headers).or(self.asked.as_ref())
    }

    /// Runs a piece of the handler with the ticket in scope. In mode `act` a panic ends here.
    pub(crate) fn run<T>(&self, piece: impl FnOnce() -> T) -> Result<T, Panicked> {
        let scoped = || self.ticket.sync_scope(piece);
        if self.mode != Mode::Act {
            return Ok(scoped());
        }
        catch_unwind(AssertUnwindSafe(scoped)).map_err(|payload| Panicked(text(&*payload)))
    }

    /// The reply leaves: with the request's id, and with its place at the gate for as long as its body lasts.
    pub(crate) fn finish(&mut self, mut reply: Response) -> Response {
        request_id::put(&self.manner.id, reply.headers_mut());
        let entered = self.entered.take();
        if !self.streams || reply.body().is_end_stream() {
            return reply;
        }
        let (ticket, catches) = (self.ticket.clone(), self.mode == Mode::Act);
        reply.map(|body| axum::body::Body::new(Carried::new(body, ticket, entered, catches)))
    }

    pub(super) fn state(&self) -> &State {
        self.registry.state(&self.matched)
    }
}

/// Nested routers see only the rest of the path; what the host wrote down is the whole of it.
fn matched(registry: &Registry, parts: &Parts) -> Match {
    let whole = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let pattern = parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
    registry.endpoints.find(&parts.method, whole.path(), pattern)
}

fn ticket(matched: &Match, class: Class, user: Option<Name>, manner: &Manner, deadline: Tick) -> Ticket {
    let (operation, id) = (Arc::clone(&matched.label), Arc::clone(&manner.id.0));
    let ticket = Ticket::of_request(class, operation, id, deadline, user);
    match matched.endpoint.queries {
        Some(queries) => ticket.with_queries(queries),
        None => ticket,
    }
}

fn repeatable(mode: Mode, matched: &Match, parts: &Parts) -> Repeatable {
    match mode {
        Mode::Act | Mode::Observe if matched.endpoint.retry => {
            replay::repeatable(&parts.method, &parts.headers)
        }
        Mode::Act | Mode::Observe | Mode::Off => Repeatable::Never,
    }
}

fn wanted(
    registry: &Registry,
    mode: Mode,
    matched: &Match,
    user: Option<Name>,
    parts: &Parts,
) -> Option<cache::Key> {
    let fallback = matched.endpoint.fallback?;
    let keeps = mode == Mode::Act && parts.method == Method::GET;
    keeps.then(|| registry.replies.key(fallback, user, parts)).flatten()
}

/// The text of a panic, cut to what a log line bears.
fn text(payload: &(dyn Any + Send)) -> String {
    const LONGEST: usize = 1024;
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("not a text").chars().take(LONGEST).collect()
}
