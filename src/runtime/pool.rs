//! A pool as the runtime needs it, whatever database is behind it.

use std::sync::Arc;

use selfheal_actors::{
    gate::Gate,
    level::ModeCell,
    mailbox::Mailbox,
    signal::{Name, Signals},
    supervisor::{ChildPolicy, ChildSpec},
};
use tokio::runtime::Handle;

use super::{
    jobs::AnyJobs,
    server_probe::{self, Census, ServerProbe},
};
use crate::{
    db::{HealPool, Usage},
    store::{Dialect, Jobs},
};

/// Implemented for the pools of all databases: the runtime holds several of different ones.
pub(super) trait AnyPool: Send + Sync {
    fn max(&self) -> u32;
    fn nested_reserve(&self) -> u32;
    fn usage(&self) -> Usage;
    fn attach(&self, gate: Gate, mode: ModeCell, signals: Signals);
    /// Ends up to so many statements of work that can wait, in a task of `host`.
    fn cancel_longest(&self, statements: u32, host: &Handle);
    /// Whether there is a database server to be asked what it has left. A file has nobody to ask, and no
    /// connections to run out of.
    fn has_server(&self) -> bool;
    /// The same for all handles of the pool, and for no other.
    fn address(&self) -> usize;
    /// The durable jobs in its database. Made once a pool.
    fn jobs(&self) -> Arc<dyn AnyJobs>;
    /// The child that asks it.
    fn server_probe(
        &self,
        name: &Name,
        census: &Census,
        mailbox: &Mailbox<server_probe::Message>,
    ) -> ChildSpec;
}

impl<DB: Dialect> AnyPool for HealPool<DB> {
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

    fn cancel_longest(&self, statements: u32, host: &Handle) {
        Self::cancel_longest(self, statements, host);
    }

    fn has_server(&self) -> bool {
        DB::NAME != "SQLite"
    }

    fn address(&self) -> usize {
        Self::address(self)
    }

    fn jobs(&self) -> Arc<dyn AnyJobs> {
        Arc::new(Jobs::of(self))
    }

    fn server_probe(
        &self,
        name: &Name,
        census: &Census,
        mailbox: &Mailbox<server_probe::Message>,
    ) -> ChildSpec {
        let (pool, name, census, mailbox) =
            (self.clone(), Arc::clone(name), Arc::clone(census), mailbox.clone());
        ChildSpec::actor(ChildPolicy::permanent(Arc::clone(mailbox.child())), move || {
            let asked = server_probe::Asked {
                probe: pool.probe(),
                pool: Arc::clone(&name),
                census: Arc::clone(&census),
                mailbox: mailbox.clone(),
            };
            (ServerProbe::new(), asked)
        })
    }
}
