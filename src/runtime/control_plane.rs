//! One epoch of the control plane: a tree of actors, on a thread of its own or on the current runtime.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use selfheal_actors::supervisor::{Context, NotUp, Root, RootEnd, SupervisorSpec};
use tokio::{
    runtime::{Builder, Handle},
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};

/// What became of an epoch.
pub(super) enum Report {
    /// All of its tree is up.
    Up,
    /// A child could not be started.
    NotUp(NotUp),
    /// The root has ended.
    Ended(RootEnd),
    /// There was no thread, or no runtime, to run it on.
    NoThread(io::Error),
}

/// An epoch as its guardian holds it. When it is dropped the epoch is left behind: it ends, without ceremony,
/// as soon as its thread comes to itself.
pub(super) struct Plane {
    beats: Arc<AtomicU64>,
    stop: Option<oneshot::Sender<()>>,
    reports: mpsc::UnboundedReceiver<Report>,
}

impl Plane {
    /// An epoch on a thread and a runtime of its own.
    pub(super) fn on_its_own_thread(spec: SupervisorSpec, context: Context, heartbeat: Duration) -> Self {
        let (plane, epoch) = Self::new(spec, context, heartbeat);
        let report = epoch.reports.clone();
        let body = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                runtime.block_on(epoch.run());
                runtime.shutdown_background();
            }
            Err(error) => epoch.tell(Report::NoThread(error)),
        };
        if let Err(error) = thread::Builder::new().name("selfheal-control".into()).spawn(body) {
            let _ = report.send(Report::NoThread(error));
        }
        plane
    }

    /// An epoch on the current runtime.
    pub(super) fn inline(spec: SupervisorSpec, context: Context, heartbeat: Duration) -> Self {
        let (plane, epoch) = Self::new(spec, context, heartbeat);
        Handle::current().spawn(epoch.run());
        plane
    }

    fn new(spec: SupervisorSpec, context: Context, heartbeat: Duration) -> (Self, Running) {
        let beats = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let (report, reports) = mpsc::unbounded_channel();
        let epoch =
            Running { spec, context, heartbeat, beats: Arc::clone(&beats), stop: stopped, reports: report };
        (Self { beats, stop: Some(stop), reports }, epoch)
    }

    /// The next report; `None` if the thread is gone without one.
    pub(super) async fn report(&mut self) -> Option<Report> {
        self.reports.recv().await
    }

    /// How often its heart has beaten.
    pub(super) fn heart(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.beats)
    }

    /// Asks the tree to stop, in reverse order. [`Report::Ended`] follows.
    pub(super) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }
}

/// An epoch as it runs.
struct Running {
    spec: SupervisorSpec,
    context: Context,
    heartbeat: Duration,
    beats: Arc<AtomicU64>,
    stop: oneshot::Receiver<()>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Running {
    async fn run(mut self) {
        let beats = Arc::clone(&self.beats);
        let every = self.heartbeat;
        let heart = beat(beats, every);
        let root = self.up();
        tokio::select! {
            () = heart => {}
            () = root => {}
        }
    }

    /// Brings the tree up and stays with it until it ends, or until its guardian is gone.
    async fn up(&mut self) {
        let starting = Root::start(self.spec.clone(), self.context.clone());
        let root = tokio::select! {
            root = starting => root,
            _ = &mut self.stop => return self.tell(Report::Ended(RootEnd::Died)),
        };
        let mut root = match root {
            Ok(root) => root,
            Err(error) => return self.tell(Report::NotUp(error)),
        };
        self.tell(Report::Up);
        let asked = tokio::select! {
            end = root.ended() => return self.tell(Report::Ended(end)),
            asked = &mut self.stop => asked,
        };
        if asked.is_err() {
            // Left behind: whoever came after it has the work now.
            return root.cell().kill();
        }
        root.stop();
        let end = root.ended().await;
        self.tell(Report::Ended(end));
    }

    fn tell(&self, report: Report) {
        let _ = self.reports.send(report);
    }
}

/// Beats as long as the thread runs what is due on it.
async fn beat(beats: Arc<AtomicU64>, every: Duration) {
    let mut heart = tokio::time::interval(every);
    heart.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        heart.tick().await;
        beats.fetch_add(1, Ordering::Relaxed);
    }
}
