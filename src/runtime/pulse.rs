//! Whether what should be getting on does.
//!
//! It is counted in looks, not in time: when the whole process is paused, whoever looks was paused as well and sees
//! one late look, not a death.
//!
//! A *thread* that is blocked shows no beat. An *actor* whose handler never comes back, on a thread that is well, shows
//! in its mailbox: it was woken and takes nothing. Nobody else would notice: ractor does not, its supervisor hears
//! of ends only, and whoever depends on it asks no actor. It is killed, and its supervisor does the rest.
//!
//! Not protected: a handler that waits for ever after it has taken all its mail. It looks idle, and is as harmless
//! until the next message.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selfheal_actors::{mailbox::Mailbox, signal::Name, supervisor::Children};
use tokio::time::{Interval, MissedTickBehavior};

use super::guardian::Options;

/// An actor that is looked after.
#[derive(Clone)]
pub struct Watched {
    supervisor: Name,
    child: Name,
    patience: Duration,
    turn: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl Watched {
    /// The child of `supervisor` that reads `mailbox`. It is killed once it has been at the same message for
    /// `patience`, to which the guardian adds at most two heartbeats.
    pub fn new<M: Send + 'static>(
        supervisor: impl Into<Name>,
        mailbox: &Mailbox<M>,
        patience: Duration,
    ) -> Self {
        let (child, mailbox) = (Arc::clone(mailbox.child()), mailbox.clone());
        Self { supervisor: supervisor.into(), child, patience, turn: Arc::new(move || mailbox.turn()) }
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("child", &self.child).field("patience", &self.patience).finish()
    }
}

/// The guardian's rounds: one a heartbeat.
pub(super) struct Rounds {
    every: Interval,
    heart: Arc<AtomicU64>,
    beat: Pulse,
    wards: Vec<(Watched, Pulse)>,
    children: Children,
}

impl Rounds {
    pub(super) fn new(options: &Options, heart: Arc<AtomicU64>) -> Self {
        let mut every = tokio::time::interval(options.heartbeat);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let looks = |patience: Duration| {
            u32::try_from(patience.as_nanos().div_ceil(options.heartbeat.as_nanos().max(1)))
                .unwrap_or(u32::MAX)
        };
        Self {
            every,
            heart,
            beat: Pulse::new(options.missed.get()),
            wards: options.watched.iter().map(|of| (of.clone(), Pulse::new(looks(of.patience)))).collect(),
            children: options.context.children.clone(),
        }
    }

    /// Goes round until the thread itself is found to be blocked. Cancel safe: it goes on where it was.
    pub(super) async fn until_stalled(&mut self) {
        loop {
            self.every.tick().await;
            if self.beat.stands(Some(self.heart.load(Ordering::Relaxed))) {
                return;
            }
            // Of a thread that does not run no actor can get on.
            if !self.beat.is_weak() {
                self.see_to_wards();
            }
        }
    }

    fn see_to_wards(&mut self) {
        for (ward, pulse) in &mut self.wards {
            let Watched { supervisor, child, turn, .. } = ward;
            // One that is down, or about to be started, cannot get on either.
            let cell = self.children.cell(supervisor, child);
            if pulse.stands(cell.as_ref().and_then(|_| turn()))
                && let Some(cell) = cell
            {
                tracing::warn!(target: "selfheal", %child, "It hangs and is killed");
                cell.kill();
                pulse.forget();
            }
        }
    }
}

/// One pulse: how often in a row it was found where it had been.
#[derive(Debug)]
struct Pulse {
    most: u32,
    missed: u32,
    felt: Option<u64>,
}

impl Pulse {
    const fn new(most: u32) -> Self {
        Self { most, missed: 0, felt: None }
    }

    /// Takes in where it is now, and says whether it has stood there too long. `None`: there is nothing to do.
    fn stands(&mut self, now: Option<u64>) -> bool {
        self.missed = if now.is_some() && now == self.felt { self.missed + 1 } else { 0 };
        self.felt = now;
        self.missed >= self.most
    }

    /// More than the one beat is missing that falls between two looks.
    const fn is_weak(&self) -> bool {
        self.missed > 1
    }

    const fn forget(&mut self) {
        (self.missed, self.felt) = (0, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_something_to_do_and_does_not_get_on_stands() {
        let mut pulse = Pulse::new(3);
        let mut looks =
            |turns: &[Option<u64>]| turns.iter().map(|turn| pulse.stands(*turn)).collect::<Vec<_>>();
        assert_eq!(looks(&[Some(1), Some(1), Some(1), Some(2)]), [false; 4], "slow, but it gets on");
        assert_eq!(looks(&[None, None, None, None]), [false; 4], "idle");
        assert_eq!(looks(&[Some(2), Some(2), Some(2), Some(2)]), [false, false, false, true]);
    }
}
