//! What the handles of one gate share: the machine under its lock, and what follows once the lock is free.
//!
//! Every event is one visit: lock, decide, collect who is to be woken and told, unlock, wake and tell. So no
//! code of anybody else ever runs under the lock, and a waker may come straight back in.

use std::{fmt, sync::OnceLock, task::Waker};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    clock::{Clock, Tick},
    gate::{Machine, Params, Policy, Reason, core::Core, params},
    level::{Class, ModeCell},
    signal::{Name, Signal, Signals},
};

/// Somebody got no connection, or would have got none.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Of which class.
    pub class: Class,
    /// Why.
    pub reason: Reason,
    /// On whose behalf.
    pub user: Option<Name>,
    /// The gate only watches: it was not refused in truth.
    pub would: bool,
}

type OnRefused = Box<dyn Fn(&Refused) + Send + Sync>;

/// One gate.
pub(super) struct Shared {
    pub(super) pool: Name,
    pub(super) clock: Clock,
    pub(super) mode: ModeCell,
    pub(super) params: params::Cell,
    pub(super) calm: Params,
    pub(super) pressed: Notify,
    pub(super) on_refused: OnceLock<OnRefused>,
    signals: Signals,
    core: Mutex<Core>,
}

/// What is done when the lock is free again.
#[derive(Default)]
pub(super) struct After {
    /// Most events wake nobody or one: neither allocates.
    wake: Option<Waker>,
    wakes: Vec<Waker>,
    pub(super) refused: Vec<Refused>,
    pub(super) signals: Vec<Signal>,
    pub(super) pressed: bool,
}

impl Shared {
    pub(super) fn new(
        pool: Name,
        policy: Policy,
        machine: Machine,
        clock: Clock,
        mode: ModeCell,
        signals: Signals,
    ) -> Self {
        let calm = machine.params();
        let core = Core::new(Name::clone(&pool), policy, machine, mode.get());
        Self {
            pool,
            clock,
            mode,
            params: params::Cell::new(calm),
            calm,
            pressed: Notify::new(),
            on_refused: OnceLock::new(),
            signals,
            core: Mutex::new(core),
        }
    }

    /// One visit: `event` decides under the lock, and what follows from it is done after it.
    pub(super) fn run<R>(&self, event: impl FnOnce(&mut Core, Tick) -> R) -> R {
        let (mode, now) = (self.mode.get(), self.clock.now());
        let mut core = self.core.lock();
        core.follow(mode, now);
        let result = event(&mut core, now);
        let after = core.settle();
        drop(core);
        self.perform(after);
        result
    }

    fn perform(&self, after: After) {
        if let Some(waker) = after.wake {
            waker.wake();
            after.wakes.into_iter().for_each(Waker::wake);
        }
        if after.pressed {
            self.pressed.notify_one();
        }
        if let Some(tell) = self.on_refused.get().filter(|_| !after.refused.is_empty()) {
            after.refused.iter().for_each(tell);
        }
        after.signals.into_iter().for_each(|signal| self.signals.emit(signal));
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", self.pool)
    }
}

impl After {
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        match (&self.wake, waker) {
            (_, None) => {}
            (None, waker) => self.wake = waker,
            (Some(_), Some(waker)) => self.wakes.push(waker),
        }
    }
}
