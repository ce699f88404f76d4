//! The circuits of the configured endpoints, each with its actor.

use std::sync::Arc;

use selfheal_actors::{
    breaker::{Around, Breakers, Keeper, Message, Watch},
    fault::Fault,
    level::Class,
    signal::{Action, Name, Signal, Step},
    supervisor::{ChildPolicy, ChildSpec, Policy, SupervisorSpec},
};

use crate::{admin, config::Config};

/// The circuits of the configured endpoints, and the registry in which all others are found.
pub(super) struct Circuits {
    pub(super) breakers: Breakers,
    watched: Vec<Circuit>,
}

struct Circuit {
    watch: Watch,
    class: Class,
    /// The pool whose level sheds it.
    pool: Option<Name>,
}

impl Circuits {
    /// A circuit for each path that is configured. What an endpoint says of its circuit holds for all methods of
    /// its path; the first one that says anything is heard. `first` is the pool of endpoints that name none.
    pub(super) fn new(config: &Config, first: Option<&Name>, around: Around, seed: u64) -> Self {
        let all = &config.breaker;
        let usual = Arc::new(all.policy());
        let breakers = Breakers::new(Arc::clone(&usual), around, seed);
        let mut watched: Vec<Circuit> = Vec::new();
        for endpoint in &config.endpoints {
            let path = endpoint.path.as_str();
            if watched.iter().any(|circuit| **circuit.watch.breaker().name() == *path) {
                continue;
            }
            let same = || config.endpoints.iter().filter(|other| other.path == path);
            let policy = same().find(|other| other.breaker.is_some()).unwrap_or(endpoint).breaker(all);
            // Critical work is shed by no level, whatever else shares its path.
            let class = same().map(|other| other.class).min().unwrap_or(endpoint.class);
            let pool = endpoint.pool.as_deref().map(Name::from).or_else(|| first.cloned());
            // Most have the policy of all, and need not keep one of their own.
            let policy = if policy == *usual { Arc::clone(&usual) } else { Arc::new(policy) };
            watched.push(Circuit { watch: breakers.watch(path, policy), class, pool });
        }
        Self { breakers, watched }
    }

    /// What a pool's level asks for. The actors see to it.
    pub(super) fn hear(&self, signal: &Signal) {
        let Signal::Action { pool, action: Action::Shed, step, would: _ } = signal else { return };
        for circuit in &self.watched {
            if circuit.class == Class::Sheddable && circuit.pool.as_ref() == Some(pool) {
                circuit.watch.shed(*step == Step::Taken);
            }
        }
    }

    /// The supervisor of the actors; `None` where no endpoint is configured.
    pub(super) fn supervisor(&self, policy: Policy) -> Option<SupervisorSpec> {
        let child = |circuit: &Circuit| {
            let watch = circuit.watch.clone();
            // One circuit's actor that keeps failing must not take down the others'.
            let child = ChildPolicy::permanent(Arc::clone(watch.mailbox().child()));
            let child = child.budget(policy.max_restarts, policy.within);
            ChildSpec::actor(child, move || (Keeper, watch.clone()))
        };
        let children: Vec<_> = self.watched.iter().map(child).collect();
        (!children.is_empty()).then(|| SupervisorSpec { name: "breakers".into(), policy, children })
    }

    /// What waits for the actor `child`, if it is one of these.
    pub(super) fn mail(&self, child: &Name) -> Option<admin::Mail> {
        let mailbox = |circuit: &Circuit| circuit.watch.mailbox().child() == child;
        self.watched.iter().find(|circuit| mailbox(circuit)).map(|of| admin::Mail::of(of.watch.mailbox()))
    }

    /// Makes the actor `child` fail as it handles its next message; says whether there is such an actor.
    pub(super) fn plant(&self, child: &str, fault: Fault) -> bool {
        let found = self.watched.iter().find(|circuit| **circuit.watch.mailbox().child() == *child);
        found.map(|circuit| circuit.watch.mailbox().tell(Message::Fault(fault))).is_some()
    }
}
