//! What a host holds of the runtime.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo};
use futures_core::future::BoxFuture;
use selfheal_actors::{
    alert::{self, Incidents},
    batch_executor::{
        Machine,
        journal::{Job, Journal, JournalError, Trouble},
    },
    breaker::{Breaker, Breakers, Command},
    circuit::Circuit,
    fault::Fault,
    gate::{Gate, Ticket},
    level::{Level, Mode},
    pool_monitor,
    signal::{Name, Signal},
    supervisor::{Children, Refused},
};
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};

use super::{
    builder::Builder,
    guardian::Guardian,
    reading, server_probe,
    wiring::{Pool, Running},
};
use crate::{
    admin::{
        self, Health, JobsWanted, ModeChange, NotOperated, NotOrdered, NotRestarted, QueueAction, QueueOrder,
        Reading,
    },
    batch::Batch,
    config::Metrics,
    deferred::Deferred,
    http::{self, ClientLayer, HealLayer, Optional},
    transition::{Rules, Unknown},
};

/// How long a part of a long operation may take to finish at the end.
const LAST_PART: Duration = Duration::from_secs(5);

/// The runtime, as a host holds it. Cheap to clone; clones are the same runtime. It runs until
/// [`shutdown`](Self::shutdown), or until the last clone is gone.
#[derive(Clone)]
pub struct Heal(Arc<Running>);

impl Heal {
    /// How to start one.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(super) fn new(running: Running) -> Self {
        Self(Arc::new(running))
    }

    /// What guards routes: `router.layer(heal.layer())`. Give it to the routes that are to be guarded, before the
    /// admin router is merged in.
    #[must_use]
    pub fn layer(&self) -> HealLayer {
        HealLayer::new(Arc::clone(&self.0.parts.registry))
    }

    /// What guards calls that the service makes itself, to `name`: `heal.client("payments").layer(client)`. Calls to one
    /// name share circuit and budget. `name` must come from the code, never from a request.
    #[must_use]
    pub fn client(&self, name: &str) -> ClientLayer {
        self.0.parts.registry.client(name)
    }

    /// Probes, metrics and the admin API, behind its guard. It must know its peers:
    /// `into_make_service_with_connect_info::<SocketAddr>()`, as [`serve`](Self::serve) does.
    pub fn admin_router(&self) -> Router {
        admin::router(self.admin_state())
    }

    /// How far the runtime may go.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.0.parts.mode.get()
    }

    /// Puts a mode in force at once, everywhere, and returns the one before. `by` and `reason` are for the record.
    pub fn set_mode(&self, mode: Mode, by: impl Into<Name>, reason: impl Into<Name>) -> Mode {
        let from = self.0.parts.mode.set(mode);
        if from != mode {
            let (by, reason) = (by.into(), reason.into());
            self.0.parts.signals.emit(Signal::Mode { from, to: mode, by, reason });
        }
        from
    }

    /// The gate in front of the pool `name`.
    #[must_use]
    pub fn gate(&self, name: &str) -> Option<Gate> {
        self.pool(name).map(|pool| pool.gate.clone())
    }

    /// The level of the pool `name`.
    #[must_use]
    pub fn level(&self, name: &str) -> Option<Level> {
        self.pool(name).map(|pool| pool.monitor.level())
    }

    /// How many items a batch on the pool `name` should have now: 10 when calm, 50 under pressure, as
    /// `[batching]` says.
    #[must_use]
    pub fn batch_size(&self, name: &str) -> Option<u32> {
        self.pool(name).map(|pool| pool.gate.params().batch)
    }

    /// The durable jobs in the database of the pool `name`. Used for the first time, they make their tables there, if
    /// they are not there and the pool's role may.
    #[must_use]
    pub fn journal(&self, name: &str) -> Option<Arc<dyn Journal>> {
        self.pool(name).map(|pool| Arc::clone(&pool.jobs) as Arc<dyn Journal>)
    }

    /// The long operations called `name`, which were [registered](super::Builder::batch).
    #[must_use]
    pub fn batch(&self, name: &str) -> Batch {
        self.0.parts.operations.batch(name)
    }

    /// The deferred work called `name`, which was [registered](super::Builder::deferred).
    #[must_use]
    pub fn deferred(&self, name: &str) -> Deferred {
        self.0.parts.operations.deferred(name)
    }

    /// Where callers ask about their deferred work: `GET /api/jobs/{id}`. Only its own caller is told of a job, whoever
    /// [`Builder::identity`](super::Builder::identity) says that is; 404 to all others. To be merged in after
    /// [`layer`](Self::layer), as the admin router is: it takes no connection of a guarded pool, so nothing has to be
    /// refused.
    pub fn jobs_router(&self) -> Router {
        let heal = self.clone();
        let find = move |name: String| -> BoxFuture<'static, _> {
            let heal = heal.clone();
            Box::pin(async move { heal.open_job(name).await })
        };
        http::jobs(self.0.parts.identity.clone(), Arc::new(find))
    }

    /// The circuit of the endpoint `name`: that of `[[endpoints]]` if one has that path, else one with the policy
    /// of `[breaker]`, which is made when it is first asked for. Keep it where it is used; clones are the same
    /// circuit. `name` must come from the code, never from a request.
    #[must_use]
    pub fn endpoint(&self, name: &str) -> Breaker {
        self.0.parts.breakers.endpoint(name)
    }

    /// All circuits.
    #[must_use]
    pub fn breakers(&self) -> &Breakers {
        &self.0.parts.breakers
    }

    /// What the table of statuses called `machine` says, from `[transitions]` or
    /// [`Builder::transitions`](super::Builder::transitions).
    ///
    /// # Errors
    /// [`Unknown`], if there is no such table.
    pub fn transition(&self, machine: &str) -> Result<Rules, Unknown> {
        self.0.parts.transitions.rules(machine)
    }

    /// The incidents that are remembered.
    #[must_use]
    pub fn incidents(&self) -> Incidents {
        self.0.parts.incidents.clone()
    }

    /// The supervised children.
    #[must_use]
    pub fn children(&self) -> &Children {
        self.0.guardian.children()
    }

    /// What keeps the actors alive.
    #[must_use]
    pub fn guardian(&self) -> &Guardian {
        &self.0.guardian
    }

    /// Everything that is shown, as it is now. Taken from memory.
    #[must_use]
    pub fn reading(&self) -> Reading {
        reading::read(&self.0)
    }

    /// Work inside a request that may be left out under pressure: `None` if it was. Which pool is pressed is the
    /// first one's to say. Cancel safe if the work is.
    pub fn optional<F: Future>(&self, work: F) -> Optional<F> {
        // The builder has seen to it that there is a pool.
        let pool = &self.0.parts.pools[0];
        let impact = pool.impact.clone();
        Optional::new(work, pool.gate.clone(), move || impact.omitted())
    }

    /// Spawns `work` on the current runtime with the current request's ticket, so that what it does in the
    /// database is still that request's.
    pub fn spawn<F>(&self, work: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match Ticket::current() {
            Some(ticket) => Handle::current().spawn(ticket.scope(work)),
            None => Handle::current().spawn(work),
        }
    }

    /// From now on the service is not ready: `/readyz` says so, and a load balancer sends no new requests. No long
    /// operation is begun, and those that run are left to other processes, or to this one when it is started again.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        self.0.parts.operations.batches.drain();
    }

    /// Stops the actors in reverse order and waits for them, at most 30 s, and before that for the parts of long
    /// operations that are under way, at most 5 s. Handles go on working: gates decide by what was published last.
    ///
    /// **Cancel safety**: once the actors are being stopped, they are stopped all the same.
    pub async fn shutdown(&self) {
        self.drain();
        let idle = self.0.parts.operations.batches.until(Machine::is_idle);
        if tokio::time::timeout(LAST_PART, idle).await.is_err() {
            tracing::warn!(target: "selfheal", "Parts of long operations are left under way: they go on when their leases are over");
        }
        self.0.guardian.stop().await;
        for pool in &self.0.parts.pools {
            // What is on its way to a database is written, or its callers have been told that it is not.
            let _ = pool.jobs.rest().await;
        }
    }

    /// Makes a child fail as it handles its next message: for tests of what happens then. Says whether there is such
    /// a child.
    #[doc(hidden)]
    pub fn plant(&self, child: &str, fault: Fault) -> bool {
        let parts = &self.0.parts;
        if **parts.alerts.child() == *child {
            parts.alerts.tell(alert::Message::Fault(fault));
            return true;
        }
        if parts.circuits.plant(child, fault) || parts.operations.plant(child, fault) {
            return true;
        }
        parts.pools.iter().any(|pool| {
            let probe = pool.probe.as_ref().filter(|mailbox| **mailbox.child() == *child);
            if let Some(mailbox) = probe {
                mailbox.tell(server_probe::Message::Fault(fault));
            }
            let monitor = **pool.mailbox.child() == *child;
            if monitor {
                pool.mailbox.tell(pool_monitor::Message::Fault(fault));
            }
            monitor || probe.is_some()
        })
    }

    /// The admin surface on a listener of its own.
    pub(super) async fn serve_admin(&self, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        tracing::info!(target: "selfheal", address = %listener.local_addr()?, "The admin surface has a listener of its own");
        let app = with_peers(self.admin_router());
        Handle::current().spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(target: "selfheal", %error, "The admin surface's listener has ended");
            }
        });
        Ok(())
    }

    fn pool(&self, name: &str) -> Option<&Pool> {
        self.0.parts.pools.iter().find(|pool| *pool.name == *name)
    }

    fn admin_state(&self) -> admin::State {
        let (health, read, holders, config) = (self.clone(), self.clone(), self.clone(), self.clone());
        let (operate, ordered, wanted) = (self.clone(), self.clone(), self.clone());
        let (set_mode, restart, exporter) = (self.clone(), self.clone(), Arc::clone(&self.0.parts.exporter));
        admin::State {
            access: Arc::clone(&self.0.parts.access),
            guard_metrics: self.0.parts.config.admin.metrics == Metrics::Guarded,
            health: Arc::new(move || health.health()),
            read: Arc::new(move || read.reading()),
            holders: Arc::new(move |pool| holders.gate(pool).map(|gate| gate.holders())),
            config: Arc::new(move || serde_json::to_value(&config.0.parts.config).unwrap_or_default()),
            set_mode: Arc::new(move |ModeChange { mode, by, reason }| set_mode.set_mode(mode, by, reason)),
            restart_child: Arc::new(move |id| {
                let heal = restart.clone();
                Box::pin(async move { heal.restart_child(&id).await })
            }),
            operate_queue: Arc::new(move |order| {
                let heal = ordered.clone();
                Box::pin(async move { heal.operate_queue(order).await })
            }),
            jobs: Arc::new(move |jobs| {
                let heal = wanted.clone();
                Box::pin(async move { heal.jobs(jobs).await })
            }),
            operate: Arc::new(move |(name, command)| operate.operate(&name, &command)),
            render_metrics: Arc::new(move |reading| exporter.render(reading)),
        }
    }

    /// A name in a path has lost its first slash, unless it was written twice.
    fn operate(&self, name: &str, command: &Command) -> Result<Circuit, NotOperated> {
        let breakers = self.breakers();
        let found = breakers.find(name).or_else(|| breakers.find(&format!("/{name}")));
        let breaker = found.ok_or(NotOperated::Unknown)?;
        breaker.operate(command).map_err(NotOperated::Illegal)?;
        Ok(breaker.shows())
    }

    /// A queue is that of every pool that has one of its name.
    async fn operate_queue(&self, order: QueueOrder) -> Result<(), NotOrdered> {
        // What this process has claimed stands still at once; what others have goes on to its end.
        let paused = order.action == QueueAction::Pause;
        let mut known = self.0.parts.operations.batches.hold(&order.queue, paused);
        for pool in &self.0.parts.pools {
            let shown = pool.queues.load().iter().any(|shown| shown.name == order.queue);
            // Deferred work may be stopped before there is any.
            if shown || self.0.parts.operations.queues_of(pool).contains(&order.queue) {
                known = true;
                let done = pool.jobs.operate(order.clone()).await;
                done.map_err(|error| NotOrdered::Failed(error.trouble))?;
            }
        }
        if known { Ok(()) } else { Err(NotOrdered::Unknown) }
    }

    async fn jobs(&self, wanted: JobsWanted) -> Result<Vec<(Name, Job)>, Trouble> {
        let mut found = Vec::new();
        for pool in self.0.parts.pools.iter().filter(|pool| pool.jobs.is_used()) {
            let jobs = pool.jobs.list(wanted.queue.clone(), wanted.state, wanted.limit).await;
            let jobs = jobs.map_err(|error| error.trouble)?;
            found.extend(jobs.into_iter().map(|job| (Name::clone(&pool.name), job)));
        }
        Ok(found)
    }

    /// A pool whose database is away says nothing about jobs that are in another one.
    async fn open_job(&self, name: String) -> Result<Option<Job>, JournalError> {
        let mut away = None;
        for pool in &self.0.parts.pools {
            let queues = self.0.parts.operations.queues_of(pool);
            if queues.is_empty() {
                continue;
            }
            match pool.jobs.open(queues, name.clone()).await {
                Ok(Some(job)) => return Ok(Some(job)),
                Ok(None) => {}
                Err(error) => away = Some(error),
            }
        }
        away.map_or(Ok(None), Err)
    }

    fn health(&self) -> Health {
        let up = self.0.guardian.is_up();
        Health { alive: up, started: up, draining: self.0.is_draining() }
    }

    async fn restart_child(&self, id: &str) -> Result<(), NotRestarted> {
        let children = self.children();
        let child = children.all().into_iter().find(|child| *child.id == *id).ok_or(NotRestarted::Unknown)?;
        let not_restarted = |refused: Refused| NotRestarted::Refused(refused.to_string());
        children.restart(&child.supervisor, id).await.map_err(not_restarted)
    }
}

pub(super) fn with_peers(app: Router) -> IntoMakeServiceWithConnectInfo<Router, SocketAddr> {
    app.into_make_service_with_connect_info::<SocketAddr>()
}

impl fmt::Debug for Heal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heal").field("mode", &self.mode()).finish_non_exhaustive()
    }
}
