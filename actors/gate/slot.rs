//! Where a parked acquisition and its gate meet.

use std::task::Waker;

use parking_lot::Mutex;

use crate::{clock::Tick, gate::Refusal};

/// How an acquisition ended.
pub(super) type Outcome = Result<(), Refusal>;

/// The outcome of one parked acquisition, whoever of the two comes first.
#[derive(Debug)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug)]
struct State {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    alarm: Tick,
}

impl Slot {
    pub(super) const fn new(alarm: Tick) -> Self {
        Self(Mutex::new(State { outcome: None, waker: None, alarm }))
    }

    /// Tells how it ended. The waker is for the caller to wake, once it holds no lock.
    pub(super) fn end(&self, outcome: Outcome) -> Option<Waker> {
        let mut state = self.0.lock();
        state.outcome = Some(outcome);
        state.waker.take()
    }

    /// How it ended; if it has not, `waker` will be woken when it does.
    pub(super) fn outcome(&self, waker: &Waker) -> Option<Outcome> {
        // Cloned before and dropped after the lock: a waker may run anything.
        let waker = waker.clone();
        let mut state = self.0.lock();
        if state.outcome.is_some() {
            return state.outcome;
        }
        let before = state.waker.replace(waker);
        drop(state);
        drop(before);
        None
    }

    /// When the acquisition should look after the gate by itself.
    pub(super) fn alarm(&self) -> Tick {
        self.0.lock().alarm
    }

    /// Sets the alarm. If that is earlier than it was, the acquisition must be woken to hear of it.
    pub(super) fn set_alarm(&self, alarm: Tick) -> Option<Waker> {
        let mut state = self.0.lock();
        let earlier = alarm < state.alarm;
        state.alarm = alarm;
        if earlier { state.waker.take() } else { None }
    }
}
