//! Watches over the control plane, from a plain thread of its own.
//!
//! The root supervisor has nobody above it but this. When it gives up, dies or cannot come up, the guardian
//! builds the whole tree anew: a new *epoch*. A control plane whose heart stops, because something blocks its
//! thread, cannot be ended from outside: its thread is left behind, and an epoch on another thread takes its
//! place. What the old one still says is older and is ignored, and it ends as soon as it comes to itself.
//!
//! Three epochs lost within a minute are no accident: then a person is told, once, nothing more is started,
//! and the data plane serves on as it was. [`Guardian::revive`] is that person's answer.
//!
//! With each beat it looks after the actors as well: one that hangs is killed. How both are told from patience is in
//! `pulse.rs`.
//!
//! Not protected: a host built with `panic = "abort"`, where the first panic of an actor ends the process
//! whatever anybody supervises. It is said once, at the start.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{Arc, Once},
    thread,
    time::Duration,
};

use selfheal_actors::{
    supervisor::{Children, Context, End, NotUp, RootEnd, SupervisorSpec},
    window::Intensity,
};
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot, watch},
};

use super::{
    control_plane::{Plane, Report},
    pulse::{Rounds, Watched},
};

/// Which build of the tree: 1, 2, 3, …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// Builds the root and all below it, anew for each epoch.
pub type Build = Arc<dyn Fn(Epoch) -> SupervisorSpec + Send + Sync>;

/// How a control plane is watched.
#[derive(Clone)]
pub struct Options {
    /// What the supervisors of the tree share. Its clock is the system's, or tokio's for a tree that runs
    /// inline on a paused one.
    pub context: Context,
    /// How often the control plane's heart beats. Default 100 ms.
    pub heartbeat: Duration,
    /// So many beats missed in a row, and its thread is left behind. Default 10, which is 1 s: nothing on it
    /// blocks, and one that was given up wrongly costs a new tree and nothing else.
    pub missed: NonZeroU32,
    /// Actors that are killed when they hang. Default: none.
    pub watched: Vec<Watched>,
    /// More epochs lost than this within [`within`](Self::within), and no other is started. Default 2.
    pub max_lost: u32,
    /// The stretch of time that `max_lost` speaks of. Default 60 s.
    pub within: Duration,
    /// A tree that has not stopped after this is left behind. Default 30 s.
    pub stop_within: Duration,
    /// Told, once, that no other epoch will be started. Called on the guardian's thread.
    pub on_failure: Arc<dyn Fn(Failure) + Send + Sync>,
}

impl Options {
    /// The defaults, with nobody told of a failure.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self {
            context,
            heartbeat: Duration::from_millis(100),
            missed: NonZeroU32::MIN.saturating_add(9),
            watched: Vec::new(),
            max_lost: 2,
            within: Duration::from_secs(60),
            stop_within: Duration::from_secs(30),
            on_failure: Arc::new(|_| {}),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("heartbeat", &self.heartbeat)
            .field("missed", &self.missed)
            .field("watched", &self.watched)
            .field("max_lost", &self.max_lost)
            .field("within", &self.within)
            .field("stop_within", &self.stop_within)
            .finish_non_exhaustive()
    }
}

/// The control plane is given up until a person revives it. The data plane serves on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The last epoch.
    pub epoch: Epoch,
    /// Why it was lost.
    pub cause: Cause,
}

/// Why an epoch was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The root supervisor gave up.
    Escalated,
    /// The root supervisor ended by its own rules, though nobody asked it to.
    Ended,
    /// The root supervisor was killed or has failed.
    Died,
    /// Its heart stopped: something blocks the thread.
    Stalled,
    /// It could not come up; with the reason.
    NotUp(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escalated => f.write_str("the root supervisor gave up: too many restarts"),
            Self::Ended => f.write_str("the root supervisor ended"),
            Self::Died => f.write_str("the root supervisor died"),
            Self::Stalled => f.write_str("something blocks the thread of the control plane"),
            Self::NotUp(error) => write!(f, "the tree could not come up: {error}"),
        }
    }
}

/// How things stand with the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it does.
    pub phase: Phase,
    /// The newest epoch.
    pub epoch: Epoch,
    /// How many epochs were lost since the start.
    pub lost: u64,
}

/// What the control plane does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A tree is coming up.
    Starting,
    /// A tree is up.
    Up,
    /// It was given up, and waits for a person.
    Failed,
    /// It was stopped.
    Stopped,
}

/// Owns the control plane. When it is dropped, the tree is stopped behind the owner's back; call
/// [`stop`](Self::stop) to see it through.
#[derive(Debug)]
pub struct Guardian {
    orders: mpsc::UnboundedSender<Order>,
    status: watch::Receiver<Status>,
    children: Children,
}

#[derive(Debug)]
enum Order {
    Stop,
    Revive,
}

impl Guardian {
    /// Starts the guardian's thread, and a tree on another, and waits until all of it is up.
    ///
    /// # Errors
    /// [`NotUp`], if the first tree cannot come up: then nothing is left running.
    pub async fn start(build: Build, options: Options) -> Result<Self, NotUp> {
        let (guardian, watch, up) = Self::new(build, options, Plane::on_its_own_thread);
        let body = move || match Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(watch.run()),
            Err(error) => watch.fail(&error),
        };
        if let Err(error) = thread::Builder::new().name("selfheal-guardian".into()).spawn(body) {
            return Err(no_thread(&error));
        }
        up.await.unwrap_or(Err(NotUp::Ended))?;
        Ok(guardian)
    }

    /// The same on the current runtime, without a thread: for tests, on tokio's paused clock. A tree that
    /// blocks blocks its guardian too.
    ///
    /// # Errors
    /// As [`Guardian::start`].
    pub async fn inline(build: Build, options: Options) -> Result<Self, NotUp> {
        let (guardian, watch, up) = Self::new(build, options, Plane::inline);
        Handle::current().spawn(watch.run());
        up.await.unwrap_or(Err(NotUp::Ended))?;
        Ok(guardian)
    }

    /// How things stand.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Whether a tree is up, as `selfheal_up` says.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.status().phase == Phase::Up
    }

    /// All children of the tree, whichever epoch they belong to.
    #[must_use]
    pub const fn children(&self) -> &Children {
        &self.children
    }

    /// Waits until `holds` does of how things stand, and says how that is. Cancel safe.
    pub async fn until(&self, holds: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.status.clone();
        let found = status.wait_for(holds).await.map(|status| *status);
        // The guardian never ends before it has said so: then how things stand is final.
        found.unwrap_or_else(|_| self.status())
    }

    /// Stops the tree in reverse order and waits until it has ended, at most as long as
    /// [`Options::stop_within`]. Cancel safe: it is stopped all the same.
    pub async fn stop(&self) {
        let _ = self.orders.send(Order::Stop);
        self.until(|status| status.phase == Phase::Stopped).await;
    }

    /// Starts the tree anew after a failure. Does nothing otherwise.
    pub fn revive(&self) {
        let _ = self.orders.send(Order::Revive);
    }

    fn new(
        build: Build,
        options: Options,
        launch: Launch,
    ) -> (Self, Watch, oneshot::Receiver<Result<(), NotUp>>) {
        warn_of_abort();
        let (orders, given) = mpsc::unbounded_channel();
        let (status, seen) =
            watch::channel(Status { phase: Phase::Starting, epoch: Epoch::default(), lost: 0 });
        let (up, is_up) = oneshot::channel();
        let children = options.context.children.clone();
        let watch = Watch {
            lost: Intensity::new(options.max_lost, options.within),
            build,
            options,
            launch,
            orders: given,
            status,
            first: Some(up),
        };
        (Self { orders, status: seen, children }, watch, is_up)
    }
}

type Launch = fn(SupervisorSpec, Context, Duration) -> Plane;

/// The guardian at work.
struct Watch {
    build: Build,
    options: Options,
    launch: Launch,
    orders: mpsc::UnboundedReceiver<Order>,
    status: watch::Sender<Status>,
    lost: Intensity,
    /// Who waits for the first tree.
    first: Option<oneshot::Sender<Result<(), NotUp>>>,
}

/// What follows from an epoch.
enum Next {
    Again,
    Rest,
    Stop,
}

impl Watch {
    async fn run(mut self) {
        loop {
            match self.epoch().await {
                Next::Again => {}
                Next::Rest if self.rest().await => {}
                Next::Rest | Next::Stop => break,
            }
        }
        self.set(Phase::Stopped);
    }

    /// One epoch, from its start to its end.
    async fn epoch(&mut self) -> Next {
        self.status.send_modify(|status| {
            status.phase = Phase::Starting;
            status.epoch.0 += 1;
        });
        let spec = (self.build)(self.status.borrow().epoch);
        let mut plane = (self.launch)(spec, self.options.context.clone(), self.options.heartbeat);
        let mut rounds = Rounds::new(&self.options, plane.heart());
        loop {
            tokio::select! {
                report = plane.report() => {
                    match report {
                        Some(Report::Up) => self.is_up(),
                        Some(Report::NotUp(error)) => return self.not_up(error),
                        Some(Report::Ended(end)) => return self.lost(cause(&end)),
                        Some(Report::NoThread(error)) => return self.not_up(no_thread(&error)),
                        None => return self.lost(Cause::Died),
                    }
                }
                order = self.orders.recv() => match order {
                    Some(Order::Revive) => {}
                    // Without an order: the owner is gone.
                    Some(Order::Stop) | None => {
                        self.stop(plane).await;
                        return Next::Stop;
                    }
                },
                () = rounds.until_stalled() => return self.lost(Cause::Stalled),
            }
        }
    }

    fn is_up(&mut self) {
        self.set(Phase::Up);
        if let Some(first) = self.first.take() {
            let _ = first.send(Ok(()));
        }
    }

    /// The first tree must come up; a later one is an epoch lost.
    fn not_up(&mut self, error: NotUp) -> Next {
        match self.first.take() {
            Some(first) => {
                let _ = first.send(Err(error));
                Next::Stop
            }
            None => self.lost(Cause::NotUp(error.to_string())),
        }
    }

    fn lost(&mut self, cause: Cause) -> Next {
        self.status.send_modify(|status| status.lost += 1);
        let Status { epoch, .. } = *self.status.borrow();
        tracing::error!(target: "selfheal", epoch = epoch.0, %cause, "the control plane is lost");
        if !self.lost.exceeded_by(self.options.context.clock.now()) {
            return Next::Again;
        }
        self.set(Phase::Failed);
        (self.options.on_failure)(Failure { epoch, cause });
        Next::Rest
    }

    /// Waits for a person. False if there is to be no other epoch.
    async fn rest(&mut self) -> bool {
        let revived = matches!(self.orders.recv().await, Some(Order::Revive));
        self.lost = Intensity::new(self.options.max_lost, self.options.within);
        revived
    }

    async fn stop(&self, mut plane: Plane) {
        plane.stop();
        let ended = async {
            while let Some(report) = plane.report().await {
                if matches!(report, Report::Ended(_) | Report::NotUp(_)) {
                    return;
                }
            }
        };
        if tokio::time::timeout(self.options.stop_within, ended).await.is_err() {
            tracing::error!(target: "selfheal", "the control plane did not stop and is left behind");
        }
    }

    fn set(&self, phase: Phase) {
        self.status.send_modify(|status| status.phase = phase);
    }

    fn fail(mut self, error: &std::io::Error) {
        if let Some(first) = self.first.take() {
            let _ = first.send(Err(no_thread(error)));
        }
        self.set(Phase::Stopped);
    }
}

fn cause(end: &RootEnd) -> Cause {
    match end {
        RootEnd::Ended(End::Intensity) => Cause::Escalated,
        RootEnd::Ended(End::Asked | End::AutoShutdown | End::StartFailed { .. }) => Cause::Ended,
        RootEnd::Died => Cause::Died,
    }
}

fn no_thread(error: &std::io::Error) -> NotUp {
    NotUp::Child { id: "control plane".into(), error: error.to_string().into() }
}

/// Supervision is worth little where a panic ends the process: that is said once.
fn warn_of_abort() {
    static ONCE: Once = Once::new();
    if cfg!(panic = "abort") {
        ONCE.call_once(|| {
            tracing::warn!(
                target: "selfheal",
                "this program is built with panic = \"abort\": a panic ends it, and no actor can be restarted after one"
            );
        });
    }
}
