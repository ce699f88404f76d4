//! A task that is called off when its owner is gone.
//!
//! ractor's timers, and tokio's tasks, outlive the actor that started them, with all that they hold.

use tokio::task::{AbortHandle, JoinHandle};

/// A planned task. Dropping it, with its owner or for another one, calls it off.
#[derive(Debug)]
pub struct Alarm(AbortHandle);

impl Alarm {
    /// Whether the task has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> From<JoinHandle<T>> for Alarm {
    fn from(task: JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::runtime::Handle;

    use super::*;

    #[tokio::test]
    async fn a_task_whose_alarm_is_dropped_lets_go_of_what_it_holds() {
        let held = Arc::new(());
        let of_task = Arc::clone(&held);
        let task = Handle::current().spawn(async move {
            std::future::pending::<()>().await;
            drop(of_task);
        });
        let alarm = Alarm::from(task);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(alarm);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
