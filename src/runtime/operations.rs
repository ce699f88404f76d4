//! The long operations that a host has registered, and the actor that goes on with them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use selfheal_actors::{
    batch_executor::{
        BatchExecutor, Batches, Handler as Taker, Intake, Message, Source, Tenure,
        journal::{Claimed, Journal},
    },
    clock::Clock,
    fault::Fault,
    level::ModeCell,
    mailbox::Mailbox,
    signal::{Name, Signal, Signals},
    supervisor::{ChildPolicy, ChildSpec},
};
use tokio::runtime::Handle;

use super::{builder::StartError, pulse::Watched, wiring::Pool};
use crate::{
    admin,
    batch::{Batch, Handler, Registered, Whose},
    config::Config,
};

/// A beat, and a few more.
const MAILBOX: usize = 16;
/// The pool of operations that name none, if there are several.
const MAIN: &str = "main";

/// All of them.
pub(super) struct Operations {
    pub(super) batches: Batches,
    by_name: BTreeMap<Name, Registered>,
    intake: Intake,
    mailbox: Mailbox<Message>,
}

impl Operations {
    pub(super) fn new(
        config: &Config,
        handlers: Vec<(Name, Handler)>,
        pools: &[Pool],
        around: (&Clock, &ModeCell, &Signals),
        lease: Option<Duration>,
    ) -> Result<Self, StartError> {
        let tenure = Tenure { ttl: lease.unwrap_or(Tenure::default().ttl), ..Tenure::default() };
        let (clock, mode, signals) = around;
        let host = Handle::current();
        let batches = Batches::new(clock.clone(), mode.clone(), tenure, host, signals.clone());
        let mut by_name = BTreeMap::new();
        let mut sources: BTreeMap<Name, Source> = BTreeMap::new();
        for (name, handler) in handlers {
            let batch = config.batches.get(&*name).cloned().unwrap_or_default();
            let pool = pool_of(&name, batch.pool.as_deref(), pools)?;
            if handler.pool().is_some_and(|address| address != pool.pool.address()) {
                return Err(StartError::OtherPool { batch: name, pool: Arc::clone(&pool.name) });
            }
            let journal = Arc::clone(&pool.jobs) as Arc<dyn Journal>;
            let registered = Registered { name: Arc::clone(&name), handler, journal: Arc::clone(&journal) };
            batches.register(Arc::clone(&name), Arc::clone(&pool.name), batch.policy());
            let source = sources.entry(Arc::clone(&pool.name)).or_insert_with(|| Source {
                pool: Arc::clone(&pool.name),
                journal,
                handlers: BTreeMap::new(),
            });
            source.handlers.insert(Arc::clone(&name), taker(registered.clone()));
            if by_name.insert(Arc::clone(&name), registered).is_some() {
                return Err(StartError::TwoBatches(name));
            }
        }
        let intake = Intake::new(batches.clone(), sources.into_values().collect());
        Ok(Self { batches, by_name, intake, mailbox: Mailbox::new("batch-executor", MAILBOX) })
    }

    pub(super) fn batch(&self, name: &str) -> Batch {
        Batch::new(self.batches.clone(), name, self.by_name.get(name).cloned())
    }

    /// Levels change what is worked on, at once and with every actor dead: a gate's parameters come as directly.
    pub(super) fn hear(&self, signal: &Signal) {
        if let Signal::Pressure { pool, to, .. } = signal {
            self.batches.on_level(pool, *to);
        }
    }

    /// The actor; `None` where nothing is registered.
    pub(super) fn child(&self) -> Option<ChildSpec> {
        let (intake, mailbox) = (self.intake.clone(), self.mailbox.clone());
        let policy = ChildPolicy::permanent(Arc::clone(mailbox.child()));
        let spec = ChildSpec::actor(policy, move || (BatchExecutor, (intake.clone(), mailbox.clone())));
        (!self.by_name.is_empty()).then_some(spec)
    }

    pub(super) fn watched(&self, supervisor: &str, patience: Duration) -> Option<Watched> {
        (!self.by_name.is_empty()).then(|| Watched::new(supervisor, &self.mailbox, patience))
    }

    /// All of them, to be shown.
    pub(super) fn shown(&self) -> Vec<admin::Batch> {
        self.batches.read(|machine| {
            let kinds = machine.kinds().map(|(operation, size, remaining, tally)| admin::Batch {
                operation: Arc::clone(operation),
                size,
                remaining,
                tally,
            });
            kinds.collect()
        })
    }

    /// What waits for the actor, if `child` is it.
    pub(super) fn mail(&self, child: &Name) -> Option<admin::Mail> {
        (child == self.mailbox.child()).then(|| admin::Mail::of(&self.mailbox))
    }

    /// Makes the actor fail as it handles its next message, if `child` is it; says whether it is.
    pub(super) fn plant(&self, child: &str, fault: Fault) -> bool {
        let found = **self.mailbox.child() == *child && !self.by_name.is_empty();
        if found {
            self.mailbox.tell(Message::Fault(fault));
        }
        found
    }
}

fn pool_of<'a>(batch: &Name, named: Option<&str>, pools: &'a [Pool]) -> Result<&'a Pool, StartError> {
    let find = |name: &str| pools.iter().find(|pool| *pool.name == *name);
    let found = match (named, pools) {
        (None, [only]) => Some(only),
        (named, _) => find(named.unwrap_or(MAIN)),
    };
    let none = || StartError::NoSuchPool { batch: Arc::clone(batch), pool: named.unwrap_or(MAIN).into() };
    found.ok_or_else(none)
}

/// Goes on with what is written down.
fn taker(registered: Registered) -> Taker {
    let make = move |job: &Claimed| {
        let whose = Whose { caller: job.owner.as_deref(), ticket: None };
        let (work, items) = registered.work(&job.payload, whose)?;
        let total = job.progress.counts.total;
        if items == total { Ok(work) } else { Err(format!("it has {items} items, and should have {total}")) }
    };
    Taker { make: Arc::new(make), one_each: true }
}
