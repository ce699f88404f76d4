//! Thresholds read as flags that somebody polls: at 85 % of the pool sheddable requests are refused, at 92 % normal ones
//! are queued, at 88 % the queue is let go, ten at each poll. Critical requests always pass.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use selfheal::{clock::Tick, level::Class};
use sqlx::PgPool;
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};

use super::{Contender, Fault, each, run};
use crate::{SLOTS, load::Shot};

const EVERY: Duration = Duration::from_millis(100);
const DRAINED: usize = 10;
const CALM: u8 = 0;
const WARNING: u8 = 1;
const CRITICAL: u8 = 2;

pub(crate) struct Flagged {
    pool: PgPool,
    state: Arc<State>,
    poll: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    level: AtomicU8,
    queue: Mutex<VecDeque<oneshot::Sender<()>>>,
}

impl Flagged {
    pub(crate) fn new(pool: PgPool) -> Self {
        let state = Arc::new(State::default());
        let poll = Handle::current().spawn(poll(pool.clone(), Arc::clone(&state)));
        Self { pool, state, poll }
    }

    async fn pass(&self, class: Class) -> Result<(), Fault> {
        match (class, self.state.level.load(Ordering::Relaxed)) {
            (Class::Sheddable | Class::Background, WARNING..) => Err(Fault::Refused),
            (Class::Normal, CRITICAL..) => {
                let (go, gone) = oneshot::channel();
                self.state.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(go);
                gone.await.map_err(|_| Fault::Refused)
            }
            _ => Ok(()),
        }
    }
}

async fn poll(pool: PgPool, state: Arc<State>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let in_use = pool.size().saturating_sub(pool.num_idle() as u32);
        let share = f64::from(in_use) / f64::from(SLOTS);
        let was = state.level.load(Ordering::Relaxed);
        let level = if share >= 0.92 || (was == CRITICAL && share > 0.88) {
            CRITICAL
        } else if share >= 0.85 {
            WARNING
        } else {
            CALM
        };
        state.level.store(level, Ordering::Relaxed);
        if level < CRITICAL {
            let mut queue = state.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.retain(|waiter| !waiter.is_closed());
            for _ in 0..DRAINED {
                let Some(waiter) = queue.pop_front() else { break };
                // A caller who has gone meanwhile needs nothing.
                let _ = waiter.send(());
            }
        }
    }
}

impl Contender for Flagged {
    fn handle<'a>(&'a self, shot: &'a Shot, _: u32, _: Tick) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(each(shot, async |query| {
            self.pass(shot.class).await?;
            Ok(run(&self.pool, query).await?)
        }))
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.poll.abort();
        Box::pin(async {})
    }
}
