//! A pool as the runtime needs it, whatever database is behind it.

use std::sync::Arc;

use selfheal_actors::{
    gate::Gate,
    level::ModeCell,
    signal::{Name, Signals},
    supervisor::{ChildPolicy, ChildSpec, Restart},
};

use super::server_probe::{self, Census, ServerProbe};
use crate::db::{Backend, HealPool, Usage};

/// Implemented for the pools of all databases: the runtime holds several of different ones.
pub(super) trait AnyPool: Send + Sync {
    fn max(&self) -> u32;
    fn nested_reserve(&self) -> u32;
    fn usage(&self) -> Usage;
    fn attach(&self, gate: Gate, mode: ModeCell, signals: Signals);
    /// The child that asks the database server what it has left; `None` where there is no server.
    fn server_probe(&self, name: &Name, gate: &Gate, census: &Census) -> Option<ChildSpec>;
}

impl<DB: Backend> AnyPool for HealPool<DB> {
    fn max(&self) -> u32 {
        Self::max(self)
    }

    fn nested_reserve(&self) -> u32 {
        Self::nested_reserve(self)
    }

    fn usage(&self) -> Usage {
        Self::usage(self)
    }

    fn attach(&self, gate: Gate, mode: ModeCell, signals: Signals) {
        Self::attach(self, gate, mode, signals);
    }

    fn server_probe(&self, name: &Name, gate: &Gate, census: &Census) -> Option<ChildSpec> {
        // A file has nobody to ask, and no connections to run out of.
        if DB::NAME == "SQLite" {
            return None;
        }
        let (pool, gate, census) = (self.clone(), gate.clone(), Arc::clone(census));
        let policy = ChildPolicy::new(format!("server-probe:{name}"), Restart::Permanent);
        Some(ChildSpec::actor(policy, move || {
            let asked =
                server_probe::Asked { probe: pool.probe(), gate: gate.clone(), census: Arc::clone(&census) };
            (ServerProbe::new(), asked)
        }))
    }
}
