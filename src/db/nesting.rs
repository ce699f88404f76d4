//! Which tasks hold a connection of the pool already.
//!
//! A task that holds one and waits for another can deadlock: with as many such tasks as there are connections,
//! each waits for what another holds. The gate keeps a reserve for them and lets them wait only shortly, if it
//! knows; so the connections that callers hold themselves are booked under the id of the task that took them.
//! Queries run through the pool are not: their connection is held by a task that waits for nothing.
//!
//! Not seen: work outside any task (the future that `block_on` runs itself), and a connection that is handed to
//! another task. The first then waits like others; the second marks the task that gave it away, whose next
//! acquire may use the reserve.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::task::Id;

/// Who holds how many.
#[derive(Debug, Default)]
pub(super) struct Nesting {
    /// How many are booked at all, so that a pool whose callers hold none pays one load.
    booked: AtomicUsize,
    held: Mutex<HashMap<Id, u32>>,
}

/// A booking; it ends when dropped.
#[derive(Debug)]
pub(super) struct Held {
    nesting: Arc<Nesting>,
    task: Option<Id>,
}

impl Nesting {
    /// Whether the current task holds one.
    pub(super) fn holds(&self) -> bool {
        self.booked.load(Ordering::Relaxed) > 0
            && tokio::task::try_id().is_some_and(|task| self.held.lock().contains_key(&task))
    }

    /// The current task holds one more.
    pub(super) fn book(self: &Arc<Self>) -> Held {
        let task = tokio::task::try_id();
        if let Some(task) = task {
            *self.held.lock().entry(task).or_default() += 1;
            // A task reads its own bookings only, which it has made itself.
            self.booked.fetch_add(1, Ordering::Relaxed);
        }
        Held { nesting: Arc::clone(self), task }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(task) = self.task else { return };
        let mut held = self.nesting.held.lock();
        if let Some(count) = held.get_mut(&task) {
            *count -= 1;
            if *count == 0 {
                held.remove(&task);
            }
        }
        self.nesting.booked.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_is_nested_exactly_while_it_holds_one() {
        let nesting = Arc::new(Nesting::default());
        let here = Arc::clone(&nesting);
        let task = tokio::runtime::Handle::current().spawn(async move {
            assert!(!here.holds());
            let (first, second) = (here.book(), here.book());
            assert!(here.holds());
            let elsewhere = Arc::clone(&here);
            let other = tokio::runtime::Handle::current().spawn(async move { elsewhere.holds() });
            assert!(!other.await.expect("no panic"), "another task holds none");
            drop(first);
            assert!(here.holds(), "one is left");
            second
        });
        let handed_over = task.await.expect("no panic");
        assert!(!nesting.holds(), "this is another task");
        drop(handed_over);
        assert_eq!(nesting.booked.load(Ordering::Relaxed), 0);
        assert!(nesting.held.lock().is_empty(), "nothing is left of a task");
    }
}
