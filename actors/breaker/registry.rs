//! All circuits of a runtime, by name.
//!
//! The state of a circuit is here and nowhere else: not in a layer (axum makes those anew for each route, and for
//! some routers for each request), and not in the actor beside it. So a name is one circuit, wherever it is asked
//! for. Names are written in code and config, never taken from a request; should somebody do so all the same,
//! the names beyond a bound share one circuit that does nothing, and are counted.

use std::{
    collections::HashMap,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

use super::{
    actor::Watch,
    handle::{Around, Breaker},
    order::{Command, Order},
    policy::Policy,
};
use crate::signal::{Name, Signals};

/// All circuits of a runtime. Clones are the same registry.
#[derive(Clone)]
pub struct Breakers(Arc<Shared>);

struct Shared {
    around: Around,
    policy: Arc<Policy>,
    seed: u64,
    most: usize,
    circuits: RwLock<HashMap<Name, Breaker>>,
    /// For the names beyond the bound.
    other: Breaker,
    overflow: AtomicU64,
}

impl Breakers {
    /// How many circuits there are at most, if nobody says otherwise.
    pub const MOST: usize = 4096;

    /// No circuits. Those that nobody configured have `policy`; `seed` is where all jitter comes from.
    #[must_use]
    pub fn new(policy: Arc<Policy>, around: Around, seed: u64) -> Self {
        Self::at_most(Self::MOST, policy, around, seed)
    }

    /// The same, with at most `most` circuits.
    #[must_use]
    pub fn at_most(most: usize, policy: Arc<Policy>, around: Around, seed: u64) -> Self {
        // It is nobody's, and has nothing to tell.
        let unheard = Around { signals: Signals::none(), ..around.clone() };
        let other = Breaker::new("other", Arc::clone(&policy), unheard, seed);
        // A circuit that is not pinned obeys any order that pins it.
        let _ = other.operate(&Command::new(Order::Disabled, "selfheal", "too many endpoints"));
        let (circuits, overflow) = (RwLock::default(), AtomicU64::new(0));
        Self(Arc::new(Shared { around, policy, seed, most, circuits, other, overflow }))
    }

    /// The circuit of `name`, which is made if there is none. Keep it: finding it again takes a lock and a hash.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Breaker {
        if let Some(circuit) = self.find(name) {
            return circuit;
        }
        let (policy, around, seed) = (Arc::clone(&self.0.policy), self.0.around.clone(), self.seed(name));
        self.insert(name, |name| Breaker::new(name, policy, around, seed))
    }

    /// The circuit of `name` with a policy of its own, and what its actor works with. To be called before anybody
    /// asks for the circuit: one that exists is left as it is.
    #[must_use]
    pub fn watch(&self, name: &str, policy: Arc<Policy>) -> Watch {
        Watch::new(name, |changed| {
            let (around, seed) = (self.0.around.clone(), self.seed(name));
            self.insert(name, |name| Breaker::watched(name, policy, around, seed, changed))
        })
    }

    /// The circuit of `name`, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Breaker> {
        self.0.circuits.read().get(name).cloned()
    }

    /// All circuits, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Breaker> {
        let mut all: Vec<_> = self.0.circuits.read().values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// How often a name beyond the bound was asked for.
    #[must_use]
    pub fn overflow(&self) -> u64 {
        self.0.overflow.load(Ordering::Relaxed)
    }

    fn insert(&self, name: &str, make: impl FnOnce(Name) -> Breaker) -> Breaker {
        let mut circuits = self.0.circuits.write();
        if let Some(circuit) = circuits.get(name) {
            return circuit.clone();
        }
        if circuits.len() >= self.0.most {
            self.0.overflow.fetch_add(1, Ordering::Relaxed);
            return self.0.other.clone();
        }
        let name = Name::from(name);
        let circuit = make(Arc::clone(&name));
        circuits.insert(name, circuit.clone());
        circuit
    }

    /// Circuits that open together must not all half-open together.
    fn seed(&self, name: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.0.seed, name).hash(&mut hasher);
        hasher.finish()
    }
}

impl fmt::Debug for Breakers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Breakers").field(&self.0.circuits.read().len()).finish()
    }
}
