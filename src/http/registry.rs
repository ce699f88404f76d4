//! All state of the HTTP layer, in one place behind one `Arc`.
//!
//! axum applies a layer to each route, again to the fallback, and for a router without state again per
//! connection or even per request. State that is born in `Layer::layer` is then born a thousand times, and
//! limits nothing. So the layer and its services are views: applying them again changes nothing.

use std::{collections::HashMap, fmt, sync::Arc};

use parking_lot::Mutex;

use selfheal_actors::{
    breaker::{Breaker, Breakers, Permit, Rejection},
    clock::Clock,
    dice::Dice,
    gate::Gate,
    level::{Class, Mode, ModeCell},
    retry::{self, Retries},
    signal::Name,
};

use super::{
    cache::Replies,
    client::ClientLayer,
    idempotency::Keys,
    identity::Identity,
    policy::{Endpoint, Endpoints, Match},
    problem::Code,
    reply::Jitter,
    request_id::RequestIds,
    state::State,
};

/// What the layer works with.
#[derive(Debug)]
pub struct Registry {
    pub(crate) endpoints: Endpoints,
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
    pub(crate) mode: ModeCell,
    pub(crate) jitter: Jitter,
    pub(crate) ids: RequestIds,
    pub(crate) impact: Impact,
    /// The last good replies.
    pub(crate) replies: Replies,
    /// The replies to requests with an `Idempotency-Key`.
    pub(crate) keys: Keys,
    gates: Vec<(Name, Gate)>,
    breakers: Option<Breakers>,
    /// What is called by name from here, and how its calls are made again.
    clients: Mutex<HashMap<Name, Retries>>,
    policy: (Arc<retry::Policy>, u64),
    /// One for each of the endpoints, in their order.
    states: Vec<State>,
}

impl Registry {
    /// A registry of `endpoints` without pools and without retries, that acts, on the system's clock.
    #[must_use]
    pub fn new(endpoints: Endpoints) -> Self {
        Self {
            states: states(&endpoints, &retry::Policy::never(), 0),
            replies: Replies::new(),
            keys: Keys::new(),
            endpoints,
            identity: Identity::default(),
            clock: Clock::system(),
            mode: ModeCell::new(Mode::Act),
            jitter: Jitter::seeded(0),
            ids: RequestIds::default(),
            impact: Impact::default(),
            gates: Vec::new(),
            breakers: None,
            clients: Mutex::default(),
            policy: (Arc::new(retry::Policy::never()), 0),
        }
    }

    /// Requests are admitted by `gate`. The first pool given decides about endpoints that name none.
    #[must_use]
    pub fn pool(mut self, name: impl Into<Name>, gate: Gate) -> Self {
        self.gates.push((name.into(), gate));
        self
    }

    /// What has failed is made again as `policy` says, for each endpoint by itself. `seed` spreads the waits: a
    /// service gives something random, a test a number.
    #[must_use]
    pub fn retry(mut self, policy: &retry::Policy, seed: u64) -> Self {
        let policies = states(&self.endpoints, policy, seed);
        for (state, new) in self.states.iter_mut().zip(policies) {
            state.retries = new.retries;
        }
        self.policy = (Arc::new(policy.clone()), seed);
        self
    }

    /// Callers are recognised by `identity` instead of [`DEFAULT_HEADER`](super::DEFAULT_HEADER).
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Deadlines are counted on `clock`. Their timers are tokio's, so a test pauses both together.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The mode is read from `mode` at each request.
    #[must_use]
    pub fn mode(mut self, mode: ModeCell) -> Self {
        self.mode = mode;
        self
    }

    /// Refused callers are spread by `jitter`. A service seeds it with something random, a test with a number.
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// What callers feel is told to `impact`.
    #[must_use]
    pub fn impact(mut self, impact: Impact) -> Self {
        self.impact = impact;
        self
    }

    /// Calls of an endpoint pass its circuit, which has its label. A route that is not listed has one under its own
    /// pattern, if axum's router has matched it.
    #[must_use]
    pub fn breakers(mut self, breakers: Breakers) -> Self {
        let listed = self.endpoints.all().split_last().map_or(0, |(_, listed)| listed.len());
        for (endpoint, state) in self.endpoints.all().iter().zip(&mut self.states).take(listed) {
            state.circuit = Some(breakers.endpoint(&endpoint.path));
        }
        self.breakers = Some(breakers);
        self
    }

    /// Asks the circuit that a request passes; `None` if there is none.
    pub(crate) fn admit(&self, matched: &Match) -> Option<Result<Permit, Rejection>> {
        match (&self.state(matched).circuit, &matched.route) {
            (Some(own), _) => Some(own.admit_owned()),
            (None, Some(route)) => Some(self.breakers.as_ref()?.endpoint(route).admit_owned()),
            (None, None) => None,
        }
    }

    /// The retries of calls to `name`. Names are written in code, so there are few.
    pub(crate) fn retries_of(&self, name: &Name) -> Retries {
        let (policy, seed) = &self.policy;
        let mut clients = self.clients.lock();
        let seed = seed.wrapping_add(clients.len() as u64);
        clients.entry(Name::clone(name)).or_insert_with(|| Retries::new(Arc::clone(policy), seed)).clone()
    }

    /// The circuit of calls to `name`.
    pub(crate) fn circuit_of(&self, name: &str) -> Option<Breaker> {
        Some(self.breakers.as_ref()?.endpoint(name))
    }

    /// A guard for a client that calls `name`. Two of the same name share circuit and budget.
    #[must_use]
    pub fn client(self: &Arc<Self>, name: &str) -> ClientLayer {
        ClientLayer::new(name, self)
    }

    pub(crate) fn state(&self, matched: &Match) -> &State {
        &self.states[matched.place]
    }

    /// The gate that decides about requests of `endpoint`; `None` if there is none, and then nothing is refused.
    pub(crate) fn gate(&self, endpoint: &Endpoint) -> Option<&Gate> {
        let named = |pool: &Name| self.gates.iter().find(|(name, _)| name == pool);
        endpoint.pool.as_ref().map_or(self.gates.first(), named).map(|(_, gate)| gate)
    }
}

fn states(endpoints: &Endpoints, policy: &retry::Policy, seed: u64) -> Vec<State> {
    let (policy, mut dice) = (Arc::new(policy.clone()), Dice::seeded(seed));
    let state = |_: &Arc<Endpoint>| State::new(Retries::new(Arc::clone(&policy), dice.next()));
    endpoints.all().iter().map(state).collect()
}

/// What a caller felt of a request that was not simply answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Felt {
    /// It was refused.
    Shed,
    /// It took too long.
    Late,
    /// It failed.
    Failed,
}

/// A request that was not simply answered.
#[derive(Clone, Debug)]
pub struct Affected<'a> {
    /// What its caller felt.
    pub felt: Felt,
    /// Why.
    pub code: Code,
    /// Its endpoint's label.
    pub endpoint: &'a Name,
    /// Its class.
    pub class: Class,
    /// Its user, if known.
    pub user: Option<&'a Name>,
    /// True in mode `observe`: it would have been so, and was answered all the same.
    pub would: bool,
}

/// Where it is counted what callers felt. It is called on the request's own thread: it must be quick.
#[derive(Clone)]
pub struct Impact(Arc<dyn Fn(&Affected<'_>) + Send + Sync>);

impl Impact {
    /// Each affected request is told to `count`.
    pub fn new(count: impl Fn(&Affected<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }

    pub(crate) fn tell(&self, affected: &Affected<'_>) {
        (self.0)(affected);
    }
}

impl Default for Impact {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Impact")
    }
}
