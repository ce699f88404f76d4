//! The long operations and the deferred work that a host has registered, and the actor that goes on with them.

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
    deferred::{self, Deferred, Home},
};

/// A beat, and a few more.
const MAILBOX: usize = 16;
/// The pool of operations that name none, if there are several.
const MAIN: &str = "main";

/// Long operations and deferred work, by name.
pub(super) type Registrations = (Vec<(Name, Handler)>, Vec<(Name, deferred::Handler)>);

/// All of them.
pub(super) struct Operations {
    pub(super) batches: Batches,
    by_name: BTreeMap<Name, Registered>,
    deferred: BTreeMap<Name, deferred::Registered>,
    intake: Intake,
    mailbox: Mailbox<Message>,
}

impl Operations {
    pub(super) fn new(
        config: &Config,
        (handlers, deferred): Registrations,
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
        let source = |pool: &Pool| Source {
            pool: Arc::clone(&pool.name),
            journal: Arc::clone(&pool.jobs) as Arc<dyn Journal>,
            handlers: BTreeMap::new(),
        };
        for (name, handler) in handlers {
            let batch = config.batches.get(&*name).cloned().unwrap_or_default();
            let pool = pool_of(&name, batch.pool.as_deref(), pools)?;
            if handler.pool().is_some_and(|address| address != pool.pool.address()) {
                return Err(StartError::OtherPool { batch: name, pool: Arc::clone(&pool.name) });
            }
            let journal = Arc::clone(&pool.jobs) as Arc<dyn Journal>;
            let registered = Registered { name: Arc::clone(&name), handler, journal };
            batches.register(Arc::clone(&name), Arc::clone(&pool.name), batch.policy());
            let source = sources.entry(Arc::clone(&pool.name)).or_insert_with(|| source(pool));
            source.handlers.insert(Arc::clone(&name), taker(registered.clone()));
            if by_name.insert(Arc::clone(&name), registered).is_some() {
                return Err(StartError::TwoBatches(name));
            }
        }
        let mut deferred_by_name = BTreeMap::new();
        for (name, handler) in deferred {
            let pool = home_of(&handler.home, pools).ok_or_else(|| StartError::NoHome(Arc::clone(&name)))?;
            batches.register_deferred(Arc::clone(&name), Arc::clone(&pool.name), handler.attempts);
            let registered = deferred::Registered {
                name: Arc::clone(&name),
                handler,
                journal: Arc::clone(&pool.jobs) as Arc<dyn Journal>,
                jobs: Arc::clone(&pool.jobs).as_any(),
            };
            let source = sources.entry(Arc::clone(&pool.name)).or_insert_with(|| source(pool));
            source.handlers.insert(Arc::clone(&name), doer(registered.clone()));
            let twice = deferred_by_name.insert(Arc::clone(&name), registered).is_some();
            if twice || by_name.contains_key(&name) {
                return Err(StartError::TwoBatches(name));
            }
        }
        let deferred = deferred_by_name;
        let intake = Intake::new(batches.clone(), sources.into_values().collect());
        Ok(Self { batches, by_name, deferred, intake, mailbox: Mailbox::new("batch-executor", MAILBOX) })
    }

    pub(super) fn batch(&self, name: &str) -> Batch {
        Batch::new(self.batches.clone(), name, self.by_name.get(name).cloned())
    }

    pub(super) fn deferred(&self, name: &str) -> Deferred {
        Deferred::new(self.deferred.get(name).cloned())
    }

    /// The deferred work whose jobs are written down in `journal`.
    pub(super) fn queues_of(&self, pool: &Pool) -> Vec<Name> {
        let own = self.intake.handlers(&pool.name).filter(|name| self.deferred.contains_key(*name));
        own.cloned().collect()
    }

    fn is_empty(&self) -> bool {
        self.by_name.is_empty() && self.deferred.is_empty()
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
        (!self.is_empty()).then_some(spec)
    }

    pub(super) fn watched(&self, supervisor: &str, patience: Duration) -> Option<Watched> {
        (!self.is_empty()).then(|| Watched::new(supervisor, &self.mailbox, patience))
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
        let found = **self.mailbox.child() == *child && !self.is_empty();
        if found {
            self.mailbox.tell(Message::Fault(fault));
        }
        found
    }
}

/// The pool that is called so; if none is named, the only one, or the one called main.
fn find<'a>(named: Option<&str>, pools: &'a [Pool]) -> Option<&'a Pool> {
    match (named, pools) {
        (None, [only]) => Some(only),
        (named, _) => pools.iter().find(|pool| *pool.name == *named.unwrap_or(MAIN)),
    }
}

fn pool_of<'a>(batch: &Name, named: Option<&str>, pools: &'a [Pool]) -> Result<&'a Pool, StartError> {
    let none = || StartError::NoSuchPool { batch: Arc::clone(batch), pool: named.unwrap_or(MAIN).into() };
    find(named, pools).ok_or_else(none)
}

fn home_of<'a>(home: &Home, pools: &'a [Pool]) -> Option<&'a Pool> {
    match home {
        Home::At(address) => pools.iter().find(|pool| pool.pool.address() == *address),
        Home::Named(name) => find(Some(name), pools),
        Home::Usual => find(None, pools),
    }
}

/// Does what was deferred.
fn doer(registered: deferred::Registered) -> Taker {
    Taker { make: Arc::new(move |job: &Claimed| registered.work(job)), one_each: false }
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
