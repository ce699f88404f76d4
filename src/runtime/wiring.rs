//! Who hears of what. The one file that knows every actor.
//!
//! ```text
//! root ─ alert
//!      ├ pools ─ pool-monitor:NAME …        server-probe:NAME … (where there is a server)
//!      ├ breakers ─ breaker:ENDPOINT …      (where endpoints are configured)
//!      └ batch-executor                     (where long operations or deferred work are registered)
//! ```
//!
//! Every signal goes to `alert`, which makes incidents of it, and to the metrics. A monitor looks at its pool's
//! gate, and what its level asks for is published to that gate as parameters:
//!
//! | level | action | what the gate does |
//! |---|---|---|
//! | Warning | `shed` | refuses sheddable requests at the door; circuits of sheddable endpoints shed too |
//! | Warning | `batch_size` | publishes 50 instead of 10 |
//! | Warning | `user_limit` | 5 requests in flight and 5 connections a user |
//! | Critical | `critical_only` | only critical work may use more connections than were in use |
//! | Critical | `omit_optional` | optional work is left out of replies |
//! | Critical | `pause_durable` | background work waits |
//!
//! Long operations hear of levels as directly, and not by way of `batch-executor`: what nobody waits for is done in half as
//! big parts and one at a time at Warning, and not at all at Critical, also with that actor dead.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use selfheal_actors::{
    alarm::Alarm,
    alert::{self, Alert, Impact, Incidents},
    breaker::{self, Breakers},
    clock::{Clock, Tick},
    gate::{Change, Gate},
    level::{Class, ModeCell},
    mailbox::Mailbox,
    pool_monitor::{self, Monitor, PoolMonitor, Sample},
    signal::{Name, Signal, Signals},
    supervisor::{ChildPolicy, ChildSpec, Children, Context, NotUp, Policy, SupervisorSpec},
    transition,
};
use tokio::runtime::Handle;

use super::{
    builder::{Builder, StartError},
    circuits::Circuits,
    guardian::{Build, Failure, Guardian, Options},
    jobs::AnyJobs,
    operations::Operations,
    pool::AnyPool,
    pulse::Watched,
    reading,
    server_probe::{self, Census},
    transitions::Transitions,
};
use crate::{
    admin::{Access, Token},
    config::Config,
    http::{self, Affected, Endpoints, Felt, Jitter, Registry},
    metrics::Exporter,
    store::Queue,
};

/// Signals that may wait for `alert`; what is pushed out is missing in an incident, and counted.
const ALERT_MAILBOX: usize = 1024;
/// Commands that may wait for a monitor, and for whoever asks the server.
const MONITOR_MAILBOX: usize = 16;
const PROBE_MAILBOX: usize = 16;
/// A child that is at the same piece of work for longer than this hangs. None of them waits for anything.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often blind monitors are looked after, and how many times as often the metrics are kept up.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
const UPKEEP: u32 = 5;
/// How long the start waits for the tables of deferred work.
const TABLES: Duration = Duration::from_secs(2);
/// How often queues are looked at.
const BOOKKEEPING: Duration = Duration::from_secs(2);

const ROOT: &str = "root";
const POOLS: &str = "pools";

/// All parts, before anything runs.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) mode: ModeCell,
    pub(super) signals: Signals,
    pub(super) incidents: Incidents,
    pub(super) alerts: Mailbox<alert::Message>,
    pub(super) children: Children,
    pub(super) pools: Vec<Pool>,
    pub(super) breakers: Breakers,
    pub(super) circuits: Arc<Circuits>,
    pub(super) transitions: Transitions,
    pub(super) operations: Arc<Operations>,
    pub(super) registry: Arc<Registry>,
    pub(super) access: Arc<Access>,
    pub(super) exporter: Arc<Exporter>,
    pub(super) started: Tick,
    pub(super) identity: http::Identity,
    inline: bool,
    max_lost: Option<u32>,
}

/// A pool and what stands around it.
#[derive(Clone)]
pub(super) struct Pool {
    pub(super) name: Name,
    pub(super) pool: Arc<dyn AnyPool>,
    pub(super) gate: Gate,
    pub(super) monitor: Monitor,
    pub(super) mailbox: Mailbox<pool_monitor::Message>,
    pub(super) census: Census,
    /// Where there is a server to be asked.
    pub(super) probe: Option<Mailbox<server_probe::Message>>,
    pub(super) impact: Impact,
    pub(super) jobs: Arc<dyn AnyJobs>,
    /// Its queues, as they were a moment ago.
    pub(super) queues: Arc<ArcSwap<Vec<Queue>>>,
}

/// All parts, running.
pub(super) struct Running {
    pub(super) parts: Parts,
    pub(super) guardian: Guardian,
    pub(super) draining: AtomicBool,
    /// Called off with it.
    _housekeeping: Alarm,
    _bookkeeping: Alarm,
}

impl Parts {
    pub(super) fn new(builder: Builder) -> Result<Self, StartError> {
        let Builder {
            config,
            pools,
            transitions,
            batches,
            deferred,
            identity,
            clock,
            exporter,
            inline,
            max_lost,
            lease,
        } = builder;
        let access = access(&config, &clock)?;
        let endpoints = Endpoints::of(&config).map_err(StartError::Endpoints)?;
        let mode = ModeCell::new(config.runtime.mode);
        let exporter = Arc::new(exporter.unwrap_or_else(Exporter::install));
        let incidents = Incidents::new(alert::Policy::default(), mode.get(), clock.clone());
        let alerts: Mailbox<alert::Message> = Mailbox::new("alert", ALERT_MAILBOX);
        let (to_alert, to_metrics) = (alerts.clone(), Arc::clone(&exporter));
        let listening: Arc<OnceLock<(Weak<Circuits>, Weak<Operations>)>> = Arc::default();
        let to_others = Arc::clone(&listening);
        let signals = Signals::new(move |signal: Signal| {
            to_metrics.hear(&signal);
            if let Some((circuits, operations)) = to_others.get() {
                circuits.upgrade().inspect(|circuits| circuits.hear(&signal));
                operations.upgrade().inspect(|operations| operations.hear(&signal));
            }
            to_alert.tell(signal.into());
        });
        let around = Around {
            config: &config,
            clock: &clock,
            mode: &mode,
            signals: &signals,
            incidents: &incidents,
            host: Handle::current(),
        };
        let pools: Vec<_> = pools.into_iter().map(|(name, pool)| around.pool(name, pool)).collect();
        let around =
            transition::Around { clock: clock.clone(), mode: mode.clone(), signals: signals.clone() };
        let transitions = Transitions::new(&config, transitions, &around)?;
        let seeds = RandomState::new();
        let around = breaker::Around { clock: clock.clone(), mode: mode.clone(), signals: signals.clone() };
        let first = pools.first().map(|pool| &pool.name);
        let circuits = Arc::new(Circuits::new(&config, first, around, seeds.hash_one("breakers")));
        let breakers = circuits.breakers.clone();
        let operations = Arc::new(Operations::new(
            &config,
            (batches, deferred),
            &pools,
            (&clock, &mode, &signals),
            lease,
        )?);
        // Those who have signals to emit must not keep one another alive.
        let _ = listening.set((Arc::downgrade(&circuits), Arc::downgrade(&operations)));
        let mut registry = Registry::new(endpoints)
            .retry(&config.retry.policy(), seeds.hash_one("retry"))
            .breakers(breakers.clone())
            .identity(identity.clone())
            .clock(clock.clone())
            .mode(mode.clone())
            .jitter(Jitter::seeded(seeds.hash_one("jitter")))
            .impact(impact(&config, &pools));
        for pool in &pools {
            registry = registry.pool(Arc::clone(&pool.name), pool.gate.clone());
        }
        Ok(Self {
            access: Arc::new(access),
            registry: Arc::new(registry),
            started: clock.now(),
            children: Children::new(),
            config,
            clock,
            mode,
            signals,
            incidents,
            alerts,
            pools,
            breakers,
            circuits,
            transitions,
            operations,
            exporter,
            identity,
            inline,
            max_lost,
        })
    }

    /// The tree, anew for each epoch. What it remembers is in the handles.
    fn tree(&self) -> Build {
        let policy = self.config.supervision.policy();
        let (incidents, alerts, pools) = (self.incidents.clone(), self.alerts.clone(), self.pools.clone());
        let (circuits, operations) = (Arc::clone(&self.circuits), Arc::clone(&self.operations));
        let context = self.context();
        Arc::new(move |_| {
            let (incidents, alerts) = (incidents.clone(), alerts.clone());
            let alert = ChildSpec::actor(ChildPolicy::permanent("alert"), move || {
                (Alert, (incidents.clone(), alerts.clone()))
            });
            let watchers = SupervisorSpec {
                name: POOLS.into(),
                policy,
                children: pools.iter().flat_map(Pool::children).collect(),
            };
            let watchers = watchers.under(ChildPolicy::permanent(POOLS).supervisor(), context.clone());
            let keepers = circuits.supervisor(policy);
            let keepers = keepers
                .map(|spec| spec.under(ChildPolicy::permanent("breakers").supervisor(), context.clone()));
            let children = [alert, watchers].into_iter().chain(keepers).chain(operations.child()).collect();
            SupervisorSpec { name: ROOT.into(), policy: root(policy), children }
        })
    }

    /// Whose hanging would be noticed.
    fn watched(&self) -> Vec<Watched> {
        let alert = Watched::new(ROOT, &self.alerts, PATIENCE);
        let executor = self.operations.watched(ROOT, PATIENCE);
        std::iter::once(alert).chain(self.pools.iter().flat_map(Pool::watched)).chain(executor).collect()
    }

    fn context(&self) -> Context {
        Context { clock: self.clock.clone(), signals: self.signals.clone(), children: self.children.clone() }
    }
}

/// The root treats its children as any supervisor does: their strategy is theirs alone.
fn root(policy: Policy) -> Policy {
    Policy { strategy: selfheal_actors::supervisor::Strategy::OneForOne, ..policy }
}

impl Pool {
    fn children(&self) -> Vec<ChildSpec> {
        let (monitor, mailbox) = (self.monitor.clone(), self.mailbox.clone());
        let watcher = ChildSpec::actor(ChildPolicy::permanent(Arc::clone(mailbox.child())), move || {
            (PoolMonitor, (monitor.clone(), mailbox.clone()))
        });
        let probe = self.probe.as_ref().map(|mail| self.pool.server_probe(&self.name, &self.census, mail));
        std::iter::once(watcher).chain(probe).collect()
    }

    fn watched(&self) -> impl Iterator<Item = Watched> {
        let monitor = Watched::new(POOLS, &self.mailbox, PATIENCE);
        let probe = self.probe.as_ref().map(|mailbox| Watched::new(POOLS, mailbox, server_probe::PATIENCE));
        std::iter::once(monitor).chain(probe)
    }
}

/// What a pool's parts are made of.
struct Around<'a> {
    config: &'a Config,
    clock: &'a Clock,
    mode: &'a ModeCell,
    signals: &'a Signals,
    incidents: &'a Incidents,
    /// The runtime on which the host's connections live.
    host: Handle,
}

impl Around<'_> {
    fn pool(&self, name: Name, pool: Arc<dyn AnyPool>) -> Pool {
        let mut policy = self.config.gate(&name);
        policy.nested_reserve = pool.nested_reserve();
        let gate = Gate::new(
            Arc::clone(&name),
            policy,
            pool.max(),
            self.clock.clone(),
            self.mode.clone(),
            self.signals.clone(),
        );
        pool.attach(gate.clone(), self.mode.clone(), self.signals.clone());
        let monitor = Monitor::new(self.watched(&name, &gate, &pool), self.config.pool_monitor(&name));
        let mailbox = Mailbox::new(format!("pool-monitor:{name}"), MONITOR_MAILBOX);
        let impact = self.incidents.impact(&format!("pool:{name}"));
        let probe = pool.has_server().then(|| Mailbox::new(format!("server-probe:{name}"), PROBE_MAILBOX));
        let (jobs, queues) = (pool.jobs(), Arc::default());
        Pool { name, pool, gate, monitor, mailbox, census: Census::default(), probe, impact, jobs, queues }
    }

    fn watched(&self, name: &Name, gate: &Gate, pool: &Arc<dyn AnyPool>) -> pool_monitor::Pool {
        let (look, apply, pressed) = (gate.clone(), gate.clone(), gate.clone());
        let (pool, host) = (Arc::clone(pool), self.host.clone());
        pool_monitor::Pool {
            name: Arc::clone(name),
            clock: self.clock.clone(),
            mode: self.mode.clone(),
            signals: self.signals.clone(),
            look: Box::new(move || Some(sample(&look))),
            cancel: Box::new(move |statements| pool.cancel_longest(statements, &host)),
            apply: Box::new(move |action, step| apply.apply(Change::of(action, step))),
            pressed: Box::new(move || {
                let gate = pressed.clone();
                Box::pin(async move { gate.pressure_changed().await })
            }),
        }
    }
}

fn sample(gate: &Gate) -> Sample {
    gate.tick();
    let stats = gate.stats();
    // Background work is paused by a level, so it must not hold the level that pauses it.
    let background = stats.waiting[Class::Background.index()];
    Sample {
        in_use: stats.in_use,
        max: stats.limit,
        waiting: stats.waiting_in_all() - background,
        waiting_critical: stats.waiting[Class::Critical.index()],
        waiting_since: stats.pressed_since,
        critical_waiting_since: stats.critical_waiting_since,
    }
}

fn access(config: &Config, clock: &Clock) -> Result<Access, StartError> {
    let token = |secret: &Option<crate::config::Secret>| {
        secret.as_ref().map(|secret| Token::new(secret.expose())).transpose().map_err(StartError::Token)
    };
    Ok(Access::new(clock.clone())
        .token(token(&config.admin.token)?)
        .read_only_token(token(&config.admin.read_only_token)?)
        .read_only(config.admin.read_only))
}

/// What callers feel counts for the incident of the pool that their endpoint uses.
fn impact(config: &Config, pools: &[Pool]) -> http::Impact {
    let of = |name: &str| pools.iter().find(|pool| *pool.name == *name).map(|pool| pool.impact.clone());
    let first = pools.first().map(|pool| pool.impact.clone());
    let by_endpoint: HashMap<Name, Impact> = config
        .endpoints
        .iter()
        .filter_map(|endpoint| Some((endpoint.path.as_str().into(), of(endpoint.pool.as_deref()?)?)))
        .collect();
    let users = RandomState::new();
    http::Impact::new(move |affected: &Affected<'_>| {
        let Some(impact) = by_endpoint.get(affected.endpoint).or(first.as_ref()).filter(|_| !affected.would)
        else {
            return;
        };
        let user = affected.user.map(|user| users.hash_one(user));
        match affected.felt {
            Felt::Shed => impact.shed(user),
            Felt::Late => impact.late(user),
            Felt::Failed => impact.failed(user),
        }
    })
}

/// Starts the guardian and, with it, everything else.
pub(super) async fn start(parts: Parts) -> Result<Running, NotUp> {
    let mut options = Options::new(parts.context());
    options.on_failure = told_directly(&parts.incidents);
    options.watched = parts.watched();
    options.max_lost = parts.max_lost.unwrap_or(options.max_lost);
    let guardian = match parts.inline {
        true => Guardian::inline(parts.tree(), options).await?,
        false => Guardian::start(parts.tree(), options).await?,
    };
    ready(&parts).await;
    let housekeeping = Handle::current().spawn(keep_house(&parts)).into();
    let bookkeeping = Handle::current().spawn(keep_books(parts.pools.clone())).into();
    let draining = AtomicBool::new(false);
    Ok(Running { parts, guardian, draining, _housekeeping: housekeeping, _bookkeeping: bookkeeping })
}

/// The tables of deferred work are there from the start, so that the first transaction that bears some finds them. A
/// database that is away is waited for no longer than [`TABLES`]: they are made when it is back.
async fn ready(parts: &Parts) {
    for pool in parts.pools.iter().filter(|pool| !parts.operations.queues_of(pool).is_empty()) {
        if !matches!(tokio::time::timeout(TABLES, pool.jobs.ready()).await, Ok(Ok(()))) {
            tracing::warn!(target: "selfheal", pool = %pool.name, "The tables of durable work are not there yet");
        }
    }
}

/// Nobody is left to read a mailbox by then, so the incidents are told directly.
fn told_directly(incidents: &Incidents) -> Arc<dyn Fn(Failure) + Send + Sync> {
    let incidents = incidents.clone();
    Arc::new(move |failure| {
        tracing::error!(
            target: "selfheal",
            epoch = failure.epoch.0,
            cause = %failure.cause,
            "FAILURE: The control plane is given up; the service serves on without healing"
        );
        incidents.hear(&Signal::Escalated { supervisor: "guardian".into(), root: true });
        incidents.tick();
    })
}

/// On the host's own runtime, so that it goes on with every actor dead: a monitor that no longer looks lets go of
/// what it forced, refusals that came together are told, and observations of metrics do not pile up.
fn keep_house(parts: &Parts) -> impl Future<Output = ()> + Send + use<> {
    let monitors: Vec<_> = parts.pools.iter().map(|pool| pool.monitor.clone()).collect();
    let transitions = parts.transitions.clone();
    let (exporter, quick) = (Arc::clone(&parts.exporter), reading::Quick::of(parts));
    async move {
        for beat in 1_u32.. {
            tokio::time::sleep(HOUSEKEEPING).await;
            monitors.iter().for_each(Monitor::tick);
            transitions.tick();
            if beat.is_multiple_of(UPKEEP) {
                exporter.upkeep(&quick.read());
            }
        }
    }
}

/// Looks at the queues, so that whoever asks about them is answered from memory. By itself: a database that does not
/// answer must not keep the house waiting.
async fn keep_books(pools: Vec<Pool>) {
    loop {
        tokio::time::sleep(BOOKKEEPING).await;
        for pool in pools.iter().filter(|pool| pool.jobs.is_used()) {
            // What is shown stays as it was while the database is away, which is told elsewhere.
            if let Ok(queues) = pool.jobs.tidy().await {
                pool.queues.store(Arc::new(queues));
            }
        }
    }
}

impl Running {
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
