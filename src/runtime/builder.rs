//! How a host starts the runtime.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use selfheal_actors::{
    clock::Clock,
    signal::Name,
    supervisor::NotUp,
    transition::{self, States, Table},
};

use super::{
    handle::Heal,
    pool::AnyPool,
    wiring::{self, Parts},
};
use crate::{
    admin,
    batch::Handler,
    config::{Config, ConfigError, Environment, Source},
    db::HealPool,
    deferred,
    http::{Identity, Unmatchable},
    metrics::Exporter,
    store::Dialect,
};

/// Says what the runtime works with; [`start`](Self::start) starts it.
#[must_use = "nothing runs until it is started"]
pub struct Builder {
    pub(super) config: Config,
    pub(super) pools: Vec<(Name, Arc<dyn AnyPool>)>,
    pub(super) transitions: Vec<Result<Table, transition::Invalid>>,
    pub(super) batches: Vec<(Name, Handler)>,
    pub(super) deferred: Vec<(Name, deferred::Handler)>,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    pub(super) exporter: Option<Exporter>,
    pub(super) inline: bool,
    pub(super) max_lost: Option<u32>,
    pub(super) lease: Option<Duration>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            config: Config::defaults(),
            pools: Vec::new(),
            transitions: Vec::new(),
            batches: Vec::new(),
            deferred: Vec::new(),
            identity: Identity::default(),
            clock: Clock::system(),
            exporter: None,
            inline: false,
            max_lost: None,
            lease: None,
        }
    }

    /// The policies, from a TOML file with the environment's `SELFHEAL__…` on top.
    ///
    /// # Errors
    /// [`ConfigError`], with every mistake at once.
    pub fn config_file(self, path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let source = Source::file(path.as_ref()).with_environment(Environment::of_process());
        Ok(self.config(Config::load(&source)?))
    }

    /// The policies, already loaded. Default: those of [`Config::defaults`].
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// A pool to guard, under the name that `[pools.NAME]` has it. Requests of endpoints that name no pool are
    /// admitted by the first one.
    pub fn pool<DB: Dialect>(mut self, name: impl Into<Name>, pool: &HealPool<DB>) -> Self {
        self.pools.push((name.into(), Arc::new(pool.clone())));
        self
    }

    /// Declares which status of the type `S` may become which, beside what `[transitions]` says. A table that is
    /// declared in both must say the same in both.
    pub fn transitions<S: States>(mut self) -> Self {
        self.transitions.push(Table::of::<S>());
        self
    }

    /// What is done with the items of the long operations called `name`, whose policy is `[batches.NAME]`, or the defaults
    /// if it says nothing of them. What other processes have begun of them, or this one before its last restart, is gone on
    /// with from the start.
    ///
    /// Names are kept in the database: what is left of an operation that is called otherwise from now on waits until one
    /// of its name is registered again.
    pub fn batch(mut self, name: impl Into<Name>, handler: Handler) -> Self {
        self.batches.push((name.into(), handler));
        self
    }

    /// What is done with the payloads of the deferred work called `name`, by [`deferred::run`] or [`deferred::run_tx`].
    /// What was accepted of it and is not done yet is gone on with from the start.
    ///
    /// Names are kept in the database, as those of [long operations](Self::batch) are, and none is both.
    pub fn deferred(mut self, name: impl Into<Name>, handler: deferred::Handler) -> Self {
        self.deferred.push((name.into(), handler));
        self
    }

    /// How callers are recognised. Default: the header `x-user-id`, else the peer's address.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Where metrics are recorded. Default: the recorder that the host has installed, else a Prometheus recorder of
    /// our own, shown at `/metrics`.
    pub fn metrics(mut self, exporter: Exporter) -> Self {
        self.exporter = Some(exporter);
        self
    }

    /// Runs the actors on the current runtime, without threads of their own, and on `clock`: for tests.
    pub fn inline(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self.inline = true;
        self
    }

    /// So many control planes may be lost within a minute: for tests that lose them on purpose.
    #[doc(hidden)]
    pub fn losing(mut self, control_planes: u32) -> Self {
        self.max_lost = Some(control_planes);
        self
    }

    /// Leases of jobs are this long: for tests that lose them. Default 30 s.
    #[doc(hidden)]
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.lease = Some(ttl);
        self
    }

    /// Starts everything, on the current tokio runtime and two threads of its own, and waits until it is up.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left running, and the pools work as if there were no runtime.
    pub async fn start(self) -> Result<Heal, StartError> {
        if self.pools.is_empty() {
            return Err(StartError::NoPool);
        }
        let admin = self.config.admin.listen;
        let parts = Parts::new(self)?;
        let heal = Heal::new(wiring::start(parts).await.map_err(StartError::NotUp)?);
        if let Some(address) = admin {
            heal.serve_admin(address).await.map_err(|error| StartError::Admin { address, error })?;
        }
        Ok(heal)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools: Vec<_> = self.pools.iter().map(|(name, _)| name).collect();
        f.debug_struct("Builder").field("pools", &pools).field("inline", &self.inline).finish_non_exhaustive()
    }
}

/// Why the runtime did not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// No pool was handed to the builder.
    NoPool,
    /// Endpoints of the config cannot be matched, or not told apart.
    Endpoints(Vec<Unmatchable>),
    /// A table of statuses makes no sense.
    Transitions(transition::Invalid),
    /// Two tables of this name say different things.
    TwoTables(Name),
    /// Two operations of this name are registered.
    TwoBatches(Name),
    /// An operation works in a pool that was not handed to the builder.
    NoSuchPool {
        /// The operation.
        batch: Name,
        /// The pool.
        pool: Name,
    },
    /// An operation's transactions are not of the pool that its jobs are in.
    OtherPool {
        /// The operation.
        batch: Name,
        /// The pool that its jobs are in.
        pool: Name,
    },
    /// The jobs of this deferred work are in no pool that was handed to the builder.
    NoHome(Name),
    /// A token of the config is unfit.
    Token(admin::Unfit),
    /// The actors did not come up.
    NotUp(NotUp),
    /// The admin surface's own listener could not be opened.
    Admin {
        /// Where it should have listened.
        address: SocketAddr,
        /// Why not.
        error: std::io::Error,
    },
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPool => {
                f.write_str("there is no pool to guard: hand one to the builder, `.pool(\"main\", &pool)`")
            }
            Self::Endpoints(endpoints) => {
                f.write_str("endpoints that cannot be matched:")?;
                endpoints.iter().try_for_each(|endpoint| write!(f, " {endpoint};"))
            }
            Self::Transitions(invalid) => write!(f, "a table of statuses: {invalid}"),
            Self::TwoTables(name) => write!(f, "two tables of statuses are called {name} and differ"),
            Self::TwoBatches(name) => write!(f, "two operations called {name} are registered"),
            Self::NoSuchPool { batch, pool } => write!(
                f,
                "the operation {batch} works in the pool {pool}, which was not handed to the builder: set \
                 batches.{batch}.pool"
            ),
            Self::OtherPool { batch, pool } => write!(
                f,
                "the operation {batch} has transactions of another pool than {pool}, where it is written down: hand \
                 that pool to run_tx, or set batches.{batch}.pool"
            ),
            Self::NoHome(name) => write!(
                f,
                "the jobs of {name} are in no pool that was handed to the builder: hand it the pool of run_tx, or say \
                 which one with `deferred::run(…).pool(NAME)`"
            ),
            Self::Token(unfit) => write!(f, "admin.token or admin.read_only_token: {unfit}"),
            Self::NotUp(error) => write!(f, "the actors did not come up: {error}"),
            Self::Admin { address, error } => write!(f, "admin.listen = \"{address}\": {error}"),
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NotUp(error) => Some(error),
            Self::Admin { error, .. } => Some(error),
            Self::Token(unfit) => Some(unfit),
            Self::Transitions(invalid) => Some(invalid),
            Self::NoPool
            | Self::Endpoints(_)
            | Self::TwoTables(_)
            | Self::TwoBatches(_)
            | Self::NoSuchPool { .. }
            | Self::NoHome(_)
            | Self::OtherPool { .. } => None,
        }
    }
}
