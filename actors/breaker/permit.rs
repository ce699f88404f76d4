//! The right to make one call, which is given back exactly once.

use std::{borrow::Borrow, thread, time::Duration};

use super::{handle::Breaker, machine::Pass, outcome::Outcome};
use crate::clock::Tick;

/// The right to make one call. It is settled once: by an outcome, or by being dropped, which counts the call as
/// cancelled and gives its place among the probes back. (Dropped because the call panics, it counts as failed.)
/// Neither waits for anything but the circuit's own short lock, and none allocates.
#[derive(Debug)]
#[must_use = "dropped at once, the call counts as cancelled"]
pub struct Permit<B: Borrow<Breaker> = Breaker> {
    breaker: B,
    pass: Pass,
    begun: Option<Tick>,
}

impl<B: Borrow<Breaker>> Permit<B> {
    #[inline]
    pub(super) fn new(breaker: B, pass: Pass) -> Self {
        let begun = breaker.borrow().begun();
        Self { breaker, pass, begun }
    }

    /// The call did what it was to do. If it took longer than `slow_call` it counts as slow as well.
    #[inline(always)]
    pub fn success(self) {
        self.settle(Outcome::Success);
    }

    /// The call failed because of what it called.
    #[inline]
    pub fn failure(self) {
        self.settle(Outcome::Failure);
    }

    /// The call says nothing about what it called.
    #[inline]
    pub fn ignore(self) {
        self.settle(Outcome::Ignored);
    }

    /// The call ended like this.
    #[inline(always)]
    pub fn settle(mut self, outcome: Outcome) {
        let pass = std::mem::replace(&mut self.pass, Pass::FREE);
        self.breaker.borrow().settle(pass, outcome, self.begun);
    }

    /// The call ended like this, and took `took`, as its caller has measured: it counts among the call durations, and
    /// as slow if that is longer than `slow_call`.
    pub fn settle_after(mut self, outcome: Outcome, took: Duration) {
        let pass = std::mem::replace(&mut self.pass, Pass::FREE);
        let breaker = self.breaker.borrow();
        breaker.settle_after(pass, outcome, took, || breaker.clock().coarse());
    }

    /// The circuit that gave it.
    pub fn breaker(&self) -> &Breaker {
        self.breaker.borrow()
    }

    /// Gives it back without an outcome.
    pub(super) fn cancel(mut self) {
        let pass = std::mem::replace(&mut self.pass, Pass::FREE);
        self.breaker.borrow().cancel(pass);
    }
}

impl<B: Borrow<Breaker>> Drop for Permit<B> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.pass.is_free() {
            abandon(self.breaker.borrow(), self.pass, self.begun);
        }
    }
}

/// A call without an outcome. It takes what it needs and not the permit, which so never needs an address: a permit
/// in registers costs a third of one in memory.
#[cold]
#[inline(never)]
fn abandon(breaker: &Breaker, pass: Pass, begun: Option<Tick>) {
    if thread::panicking() {
        breaker.settle(pass, Outcome::Failure, begun);
    } else {
        breaker.cancel(pass);
    }
}
