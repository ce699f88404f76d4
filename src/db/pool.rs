//! A pool behind a gate.
//!
//! sqlx's pool serves its waiters in order of arrival, shows none of them, knows no priorities, and lets each
//! wait for 30 seconds; measured on PostgreSQL at twice the capacity that is a goodput of 0.14, where the gate in
//! front of it keeps 0.96. So here the gate owns the wait, and sqlx's pool only keeps the connections: there are
//! never more permits than connections, a permit is had before its connection and goes back after it, and sqlx
//! never queues.
//!
//! **A dropped caller leaks nothing.** Everything between taking a connection and giving it back runs in a task
//! that owns the permit: an acquire of sqlx that is dropped in its ping closes the connection, a `begin` that is
//! dropped leaves a transaction open for the next caller, a query that is dropped blocks the next one until the
//! server is done. What waits in the gate is the caller's own future, which may be dropped at any time.
//!
//! **The reserve for nested acquires** is real: a pool that is built here has two connections more than the gate
//! hands out, which are opened only when a task that holds one needs another and all are in use. Taking the two
//! from the limit instead would cost their share of the capacity (2 of 90 are 2 %, well above what can be
//! measured) all the time, for the rare case. In somebody else's pool there is nothing to add, and the same
//! price would be theirs: there the reserve is 0, and a nested acquire waits for a permit, shortly, or is refused
//! by name, which still is no deadlock.
//!
//! **What is not protected**: whatever goes through [`HealPool::unguarded`], and a transaction that is begun by
//! hand (`BEGIN` as a query) and left open; the server's `idle_in_transaction_session_timeout` ends that one.
//!
//! **SQLite** has one writer. Connections beyond a few help readers only; writers wait for each other inside
//! SQLite (`busy_timeout`), holding a permit while they do. And nothing stops a statement that runs.

use std::{
    fmt,
    hash::{BuildHasher as _, Hasher as _, RandomState},
    panic::Location,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use arc_swap::ArcSwap;
use selfheal_actors::{
    clock::Clock,
    gate::{Gate, Hold, Permit, Policy, Ticket},
    level::{Mode, ModeCell},
    signal::{Name, ServerState, Signal, Signals},
};
use sqlx::{Pool, Postgres, Sqlite};
use tokio::sync::{Notify, Semaphore};

use super::{
    backend::Backend,
    bound,
    culprits::Culprits,
    doubt::Doubt,
    error::Error,
    failover::Failover,
    health::Health,
    nesting::Nesting,
    probe::Probe,
    settings::{self, Builder, Gap, Settings},
    supply::DIALS,
    usage::Usage,
};

/// A guarded pool of PostgreSQL connections.
pub type PgHealPool = HealPool<Postgres>;
/// A guarded pool of SQLite connections.
pub type SqliteHealPool = HealPool<Sqlite>;

/// How long a connection of somebody else's pool may take on its way back: its own bounds are not known.
const GIVE_BACK: Duration = Duration::from_secs(60);

/// What a server may take to end a statement and say so, beyond the statement's own bound.
const GRACE: Duration = Duration::from_secs(5);

/// How long sqlx's pool waits at most. With a gate that acts nobody waits in it for so long.
pub(super) const UNORDERED: Duration = Duration::from_secs(30);

/// A pool whose connections are handed out by a [gate](selfheal_actors::gate).
///
/// It is an [`Executor`](sqlx::Executor), so `sqlx::query(…).fetch_all(&pool)` is guarded; a connection or a
/// transaction of one's own comes from [`acquire`](Self::acquire) and [`begin`](Self::begin). Cheap to clone; clones
/// are the same pool.
///
/// ```no_run
/// # async fn example() -> Result<(), selfheal::db::Error> {
/// use selfheal::db::PgHealPool;
///
/// let pool = PgHealPool::builder().max(90).connect("postgres://localhost/desk").await?;
/// let mut tx = pool.begin().await?;
/// sqlx::query("update tasks set owner = $1 where id = $2").bind(7).bind(1).execute(&mut *tx).await?;
/// tx.commit().await?;
/// let open: i64 = sqlx::query_scalar("select count(*) from tasks").fetch_one(&pool).await?;
/// # Ok(())
/// # }
/// ```
pub struct HealPool<DB: Backend> {
    pub(super) shared: Arc<Shared<DB>>,
    /// Whose work this handle's is, if not the current task's.
    ticket: Option<Ticket>,
    operation: Option<Name>,
}

/// What all handles of a pool share.
pub(super) struct Shared<DB: Backend> {
    pub(super) pool: Pool<DB>,
    /// Tells this pool from others on the same server.
    pub(super) number: u32,
    pub(super) health: Health,
    pub(super) failover: Failover,
    pub(super) nesting: Arc<Nesting>,
    pub(super) culprits: Arc<Culprits>,
    pub(super) doubt: Arc<Doubt>,
    /// Who has one may open a connection.
    pub(super) dials: Semaphore,
    /// A connection has come back.
    pub(super) returned: Notify,
    /// How long the way back may take.
    pub(super) give_back_within: Duration,
    /// The longest that the server can take to answer, if it is bounded.
    pub(super) answer_within: Option<Duration>,
    pub(super) max: u32,
    /// Connections above this are closed instead of going back: they are somebody else's part of the server.
    pub(super) keep: AtomicU32,
    nested_reserve: u32,
    pub(super) acquire_timeout: Duration,
    /// Statements end at their callers' deadlines, which are sooner than this; `None`: they do not.
    binds_below: Option<Duration>,
    gaps: Vec<Gap>,
    attached: ArcSwap<Attached>,
}

/// The runtime's side of a pool.
pub(super) struct Attached {
    pub(super) gate: Gate,
    pub(super) mode: ModeCell,
    signals: Signals,
}

impl<DB: Backend> HealPool<DB> {
    /// How to build one: bounds first, then `connect`.
    pub fn builder() -> Builder<DB> {
        Builder::new()
    }

    /// A hardened pool with the [default bounds](Builder).
    ///
    /// # Errors
    /// [`Error::Sqlx`] if the URL cannot be read, or the database not be reached within 3 seconds.
    pub async fn connect(url: &str) -> Result<Self, Error> {
        Self::builder().connect(url).await
    }

    /// Puts a gate in front of a pool that was built elsewhere. What it [lacks](Self::gaps) is logged, once.
    #[must_use]
    pub fn wrap(pool: Pool<DB>) -> Self {
        let gaps = settings::gaps(&pool);
        for gap in &gaps {
            tracing::warn!(target: "selfheal", "the pool is not hardened: {gap}");
        }
        let max = pool.options().get_max_connections();
        Self::new(Shared {
            number: number(),
            health: Health::new(),
            failover: Failover::new(Clock::tokio()),
            nesting: Arc::default(),
            culprits: Culprits::new(),
            doubt: Arc::new(Doubt::new(Clock::system())),
            dials: Semaphore::new(DIALS),
            returned: Notify::new(),
            give_back_within: GIVE_BACK,
            answer_within: None,
            max,
            keep: AtomicU32::new(u32::MAX),
            nested_reserve: 0,
            acquire_timeout: pool.options().get_acquire_timeout().min(settings::LONGEST_ACQUIRE),
            // A pool that was built elsewhere has no hook that would loosen a session again.
            binds_below: None,
            gaps,
            attached: ArcSwap::from_pointee(Attached::nowhere(max)),
            pool,
        })
    }

    /// The pool that the builder has made, which asks `doubt`; `bounded` if the server ends statements as the settings
    /// say.
    pub(super) fn own(pool: Pool<DB>, settings: &Settings, doubt: Arc<Doubt>, bounded: bool) -> Self {
        let statement = settings.statement_timeout.saturating_add(GRACE);
        Self::new(Shared {
            number: number(),
            health: Health::new(),
            failover: Failover::new(Clock::tokio()),
            nesting: Arc::default(),
            culprits: Culprits::new(),
            doubt,
            dials: Semaphore::new(DIALS),
            returned: Notify::new(),
            give_back_within: statement,
            answer_within: bounded.then_some(statement),
            max: settings.max,
            keep: AtomicU32::new(u32::MAX),
            nested_reserve: settings::NESTED_RESERVE,
            acquire_timeout: settings.acquire_timeout,
            binds_below: (bounded && settings.end_at_deadline).then_some(settings.statement_timeout),
            gaps: Vec::new(),
            attached: ArcSwap::from_pointee(Attached::nowhere(settings.max)),
            pool,
        })
    }

    fn new(shared: Shared<DB>) -> Self {
        Self { shared: Arc::new(shared), ticket: None, operation: None }
    }

    /// From now on connections are handed out by `gate`, which acts in `mode`; what is found out about the server
    /// is told to `signals`. Until then the pool has a gate that lets everybody pass. Attach it before it is used: what is held at that moment
    /// is not in the new gate's count.
    ///
    /// The gate's limit should be [`max`](Self::max) or less, and its nested reserve
    /// [`nested_reserve`](Self::nested_reserve).
    pub fn attach(&self, gate: Gate, mode: ModeCell, signals: Signals) {
        self.shared.attached.store(Arc::new(Attached { gate, mode, signals }));
    }

    /// The same pool; what is done through the handle is `ticket`'s, whatever task it runs in.
    #[must_use]
    pub fn with(&self, ticket: Ticket) -> Self {
        Self { ticket: Some(ticket), ..self.clone() }
    }

    /// The same pool; what is done through the handle is called `name`, in the list of holders and where the
    /// gate learns how long operations take. Use few names: they are kept.
    #[must_use]
    pub fn operation(&self, name: impl Into<Name>) -> Self {
        Self { operation: Some(name.into()), ..self.clone() }
    }

    /// sqlx's own pool, past the gate. What it hands out is not counted, cannot be shed, and takes connections
    /// from those who waited for their turn.
    #[must_use]
    pub fn unguarded(&self) -> &Pool<DB> {
        &self.shared.pool
    }

    /// The same for all handles of a pool, and for no other pool.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.shared) as usize
    }

    /// The gate that hands out the connections.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.shared.attached().gate.clone()
    }

    /// The most connections that the gate should hand out.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.shared.max
    }

    /// Connections that the pool has beyond [`max`](Self::max), for tasks that hold one and need another.
    #[must_use]
    pub fn nested_reserve(&self) -> u32 {
        self.shared.nested_reserve
    }

    /// What a [wrapped](Self::wrap) pool lacks. Empty for a pool that was built here.
    #[must_use]
    pub fn gaps(&self) -> &[Gap] {
        &self.shared.gaps
    }

    /// What the pool itself says of its connections.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.shared.usage()
    }

    /// Whether the server was reachable when it was last asked.
    #[must_use]
    pub fn server_state(&self) -> ServerState {
        self.shared.health.state()
    }

    /// A way to ask the server what it has left, outside the pool.
    #[must_use]
    pub fn probe(&self) -> Probe<DB> {
        Probe::new(Arc::clone(&self.shared))
    }

    /// Closes the pool: nobody gets a connection any more, and those in use are closed as they come back. Waits
    /// for them, without a bound.
    pub async fn close(&self) {
        self.shared.pool.close().await;
    }

    /// Waits for its turn, in the caller's own future: dropped, it has left the queue.
    pub(super) async fn permit(&self, site: &'static Location<'static>) -> Result<Permit, Error> {
        let current = self.ticket.is_none().then(Ticket::current).flatten();
        let ticket = self.ticket.as_ref().or(current.as_ref());
        let hold = Hold { operation: self.operation.clone(), site, nested: self.shared.nesting.holds() };
        let turn = self.shared.attached().gate.acquire(ticket, hold);
        Ok(turn.await?)
    }

    /// Finds out whether the database can be reached.
    pub(super) async fn verify(&self) -> Result<(), Error> {
        self.shared.connection().await?.return_to_pool().await;
        Ok(())
    }
}

impl<DB: Backend> Shared<DB> {
    pub(super) fn usage(&self) -> Usage {
        Usage::of(self.pool.size(), self.pool.num_idle())
    }

    pub(super) fn attached(&self) -> arc_swap::Guard<Arc<Attached>> {
        self.attached.load()
    }

    /// How long statements for `permit` may run at the server, if that has to be said.
    pub(super) fn bound(&self, permit: &Permit) -> Option<Duration> {
        let below = self.binds_below?;
        bound::needed(permit, self.attached().gate.params().level()).filter(|&bound| bound < below)
    }
}

/// As good as unique on a server.
fn number() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

impl Attached {
    /// Nobody is told anything, and everybody passes.
    fn nowhere(max: u32) -> Self {
        let (mode, signals) = (ModeCell::new(Mode::Off), Signals::none());
        let gate = Gate::new(
            "unattached".into(),
            Policy::default(),
            max,
            Clock::system(),
            mode.clone(),
            signals.clone(),
        );
        Self { gate, mode, signals }
    }

    pub(super) fn tell_server(&self, state: ServerState) {
        self.tell(Signal::Server { pool: Name::clone(self.gate.pool()), state });
    }

    pub(super) fn tell(&self, signal: Signal) {
        self.signals.emit(signal);
    }
}

impl<DB: Backend> Clone for HealPool<DB> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            ticket: self.ticket.clone(),
            operation: self.operation.clone(),
        }
    }
}

impl<DB: Backend> fmt::Debug for HealPool<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attached = self.shared.attached();
        let name = attached.gate.pool();
        f.debug_struct("HealPool").field("name", name).field("max", &self.shared.max).finish_non_exhaustive()
    }
}
