//! Who waits for jobs is woken.
//!
//! Each queue has a bell. A bell that rings while nobody waits is heard by the next who does, so a job that comes between
//! a claim that found nothing and the wait is not missed. What another process accepts is told by the database
//! (`listen.rs`), and found by a look in any case: soon after one has begun to wait, then ever more seldom, at last every
//! [`ROUND`]. What is enqueued in a host's own transaction is there when that commits, so for a while after that there is
//! a look every [`SOON`].

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future};
use parking_lot::Mutex;
use selfheal_actors::signal::Name;
use tokio::{runtime::Handle, sync::Notify};

/// How often is looked for what nobody has told.
const ROUND: Duration = Duration::from_secs(1);
/// The same while a transaction is expected to commit, and how many such looks there are.
const SOON: Duration = Duration::from_millis(5);
const SOON_LOOKS: u32 = 200;

/// The bells of all queues of a journal.
#[derive(Debug, Default)]
pub(super) struct Bells {
    bells: Mutex<HashMap<Name, Arc<Notify>>>,
    soon: AtomicU32,
    /// Looks since a bell was last heard.
    quiet: AtomicU32,
}

impl Bells {
    /// Jobs have come.
    pub(super) fn ring<'a>(&self, queues: impl Iterator<Item = &'a Name>) {
        let mut last: Option<&Name> = None;
        for queue in queues {
            if last != Some(queue) {
                self.bell(queue).notify_one();
            }
            last = Some(queue);
        }
    }

    /// Jobs of any queue may come in a moment: a transaction that bears some is open.
    pub(super) fn expect(&self) {
        self.soon.store(SOON_LOOKS, Ordering::Relaxed);
        self.ring_all();
    }

    /// Something may be due after so long. Beyond a round it is found anyway.
    pub(super) fn ring_after(self: &Arc<Self>, after: Duration, runtime: &Handle) {
        if after < ROUND {
            let bells = Arc::clone(self);
            runtime.spawn(async move {
                tokio::time::sleep(after).await;
                bells.ring_all();
            });
        }
    }

    /// Waits until something may have come to one of `queues`. Cancel safe: a bell that rang is still rung.
    pub(super) async fn rung(&self, queues: &[Name]) {
        let bells: Vec<_> = queues.iter().map(|queue| self.bell(queue)).collect();
        let any = future::select_all(
            bells.iter().map(|bell| bell.notified().boxed()).chain([future::pending().boxed()]),
        );
        let soon = self.soon.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let quiet = if soon.is_ok() { 0 } else { self.quiet.fetch_add(1, Ordering::Relaxed) };
        let within = SOON.saturating_mul(1 << quiet.min(16)).min(ROUND);
        if tokio::time::timeout(within, any).await.is_ok() {
            self.found();
        }
    }

    /// A look has found something: there may soon be more.
    pub(super) fn found(&self) {
        self.quiet.store(0, Ordering::Relaxed);
    }

    /// Jobs have come to a queue that somebody else names. Nobody waits for one that has no bell.
    pub(super) fn ring_known(&self, queue: &str) {
        if let Some(bell) = self.bells.lock().get(queue) {
            bell.notify_one();
        }
    }

    /// Whatever may have come.
    pub(super) fn ring_all(&self) {
        self.bells.lock().values().for_each(|bell| bell.notify_one());
    }

    /// Queues are named in code, so there are few.
    fn bell(&self, queue: &Name) -> Arc<Notify> {
        let mut bells = self.bells.lock();
        if let Some(bell) = bells.get(queue) {
            return Arc::clone(bell);
        }
        Arc::clone(bells.entry(Arc::clone(queue)).or_default())
    }
}
