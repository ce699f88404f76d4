//! The circuit as calls meet it: a machine behind a short lock, and in front of it what makes most calls need
//! neither.
//!
//! Nearly all calls find a closed circuit and succeed in time. Such a call is admitted by one load, and counted by
//! one compare-and-swap on a counter of its thread's own *shard*: two threads that count on one line cost each
//! other more (14 ns against 3) than all the rest of a call. What is refused by an open circuit costs a load and
//! a look at the clock. Everything else (a failure, a slow call, a probe, the first success of a bucket's time, an
//! operator) takes the lock, *folds* what the shards have counted into the machine, and asks it.
//!
//! **Why a success needs no judgement.** It lowers both rates. So it can open the circuit only where the number of
//! calls is all that is missing, or where other calls have left the window since the last judgement. The machine
//! says so (`must_judge`), and the end of the bucket's time is the `deadline`: until then and otherwise, the order
//! in which successes are counted among themselves does not matter, so they need not be counted in one place.
//!
//! **Why nothing is lost, doubled, or counted for another epoch.** The published *word* is epoch (24 bits), sequence
//! (32) and flags (8); a shard's counter is sequence (32) and count (32). A call counts only if its word's sequence
//! is the counter's, by compare-and-swap. A fold first takes the flags away from under the fast path, then swaps
//! each counter for the next sequence's zero: what was counted before is in the fold; what comes after finds
//! another sequence, and goes to the lock. So a success is in exactly one fold, and that fold is in the epoch that
//! the word named. (The sequence comes round after four billion folds; a call that was suspended for all of them
//! between its load and its swap would be counted in the wrong epoch.)

use std::sync::Arc;

use super::{
    machine::{Machine, Pass, SHED_FOR, Totals},
    outcome::{Outcome, Reason, Refused, Rejection},
    policy::Policy,
    shard::{self, Shard},
};
use crate::{
    circuit::Circuit,
    clock::Tick,
    sync::{AtomicU64, Mutex, Ordering},
};

/// One circuit. Whoever asks says when it is.
#[derive(Debug)]
pub(super) struct Cell {
    head: Head,
    shards: Box<[Shard]>,
    machine: Mutex<Machine>,
}

/// What calls read, away from what is written under the lock.
#[derive(Debug)]
#[repr(align(64))]
struct Head {
    /// Epoch, sequence, flags. Read by every call, written once a fold.
    word: AtomicU64,
    /// Of a closed circuit, when the present bucket ends; else until when the answer is settled. In nanoseconds.
    deadline: AtomicU64,
    /// A call that takes longer is slow, in nanoseconds; `u64::MAX` if none is.
    slow_after: AtomicU64,
}

/// The low bits of the word: what the circuit shows …
const SHOWS: u64 = 0b111;
/// … all calls get the same answer until the deadline …
const SETTLED: u64 = 1 << 3;
/// … the next success must be judged …
const JUDGE: u64 = 1 << 4;
/// … somebody folds.
const FOLDING: u64 = 1 << 5;
/// All flags. None of them: calls are admitted, and successes counted, without the lock.
const FLAGS: u64 = 0xff;

const SEQUENCE_AT: u32 = 8;
const EPOCH_AT: u32 = 40;

const fn sequence(word: u64) -> u32 {
    (word >> SEQUENCE_AT) as u32
}

const fn epoch(word: u64) -> u32 {
    (word >> EPOCH_AT) as u32
}

impl Cell {
    /// A closed circuit that has seen nothing. `seed` is where its jitter comes from.
    #[must_use]
    pub(super) fn new(policy: Arc<Policy>, seed: u64) -> Self {
        let machine = Machine::new(policy, seed);
        let cell = Self {
            head: Head {
                word: AtomicU64::new(0),
                deadline: AtomicU64::new(0),
                slow_after: AtomicU64::new(u64::MAX),
            },
            shards: (0..shard::count()).map(|_| Shard::new()).collect(),
            machine: Mutex::new(Machine::clone(&machine)),
        };
        cell.publish(&machine);
        cell
    }

    /// Lets a call begin that needs no question; `None` if it must [ask](Self::admit).
    #[inline]
    pub(super) fn admit_at_once(&self) -> Option<Pass> {
        let word = self.head.word.load(Ordering::Acquire);
        (word & SHOWS == Circuit::Closed as u64).then(|| Pass { epoch: epoch(word), lease: 0 })
    }

    /// May a call begin?
    ///
    /// # Errors
    /// [`Rejection`]: it must not.
    pub(super) fn admit(&self, time: impl Fn() -> Tick) -> Result<Pass, Rejection> {
        match self.admit_at_once() {
            Some(pass) => Ok(pass),
            None => self.admit_if_not_closed(time()),
        }
    }

    /// An admitted call has an outcome; `slow` if it took strictly longer than `slow_call`. True if the circuit has
    /// changed.
    pub(super) fn settle(&self, pass: Pass, outcome: Outcome, slow: bool, time: impl Fn() -> Tick) -> bool {
        if pass.is_free() || outcome == Outcome::Success && !slow && self.count_success(pass, &time) {
            return false;
        }
        self.settle_under_lock(pass, outcome, slow, time())
    }

    /// An admitted call ends without an outcome.
    #[inline]
    pub(super) fn cancel(&self, pass: Pass) {
        if pass.is_free() {
            return;
        }
        if pass.lease == 0 {
            self.shard().cancelled.fetch_add(1, Ordering::Relaxed);
        } else {
            self.ask(|machine| machine.cancel(pass));
        }
    }

    /// What does not happen to most calls. Out of line, so that what does is short enough to be inlined.
    #[inline(never)]
    fn settle_under_lock(&self, pass: Pass, outcome: Outcome, slow: bool, now: Tick) -> bool {
        if outcome == Outcome::Ignored && pass.lease == 0 {
            self.shard().ignored.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        self.ask(|machine| machine.settle(pass, outcome, slow, now)).1
    }

    /// Asks the machine for something that calls do not ask for, with all that has been counted. The second is true
    /// if the circuit has changed and [`Machine::take_untold`] has something to tell.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&mut Machine) -> T) -> (T, bool) {
        let mut machine = self.machine.lock();
        self.fold(&mut machine);
        let answer = ask(&mut machine);
        self.publish(&machine);
        (answer, machine.has_untold())
    }

    /// What it shows, in one load.
    #[must_use]
    pub(super) fn shows(&self) -> Circuit {
        Circuit::ALL[(self.head.word.load(Ordering::Acquire) & SHOWS) as usize]
    }

    /// How long a call may take; a longer one is slow. `None` if nobody wants to know.
    #[must_use]
    #[inline]
    pub(super) fn slow_after(&self) -> Option<u64> {
        Some(self.head.slow_after.load(Ordering::Relaxed)).filter(|&nanos| nanos < u64::MAX)
    }

    /// What has been counted since the start.
    #[must_use]
    pub(super) fn totals(&self) -> Totals {
        let (mut totals, _) = self.ask(|machine| machine.totals());
        for shard in &self.shards {
            totals.rejected += shard.rejected.load(Ordering::Relaxed);
            totals.ignored += shard.ignored.load(Ordering::Relaxed);
            totals.cancelled += shard.cancelled.load(Ordering::Relaxed);
        }
        totals
    }

    #[inline]
    fn shard(&self) -> &Shard {
        // There is at least one, and the number of shards is a power of two.
        &self.shards[shard::mine() & (self.shards.len() - 1)]
    }

    /// What [`Cell::admit`] does where the circuit is not closed.
    ///
    /// # Errors
    /// [`Rejection`]: it must not begin.
    pub(super) fn admit_if_not_closed(&self, now: Tick) -> Result<Pass, Rejection> {
        match self.settled(now) {
            Some(Ok(())) => Ok(Pass::FREE),
            Some(Err(refused)) => Err(refused.into()),
            None => self.ask(|machine| machine.admit(now)).0,
        }
    }

    /// Answers without the lock if the answer is settled: the call is free, or refused and counted as that.
    #[inline]
    pub(super) fn settled(&self, now: Tick) -> Option<Result<(), Refused>> {
        let word = self.head.word.load(Ordering::Acquire);
        if word & SETTLED == 0 {
            return None;
        }
        let (now, deadline) = (now.as_nanos(), self.head.deadline.load(Ordering::Acquire));
        // Both belong together if the word has not changed in between.
        if now < deadline && self.head.word.load(Ordering::Relaxed) == word {
            let answer = settled(Circuit::ALL[(word & SHOWS) as usize], deadline, now);
            if answer.is_err() {
                self.shard().rejected.fetch_add(1, Ordering::Relaxed);
            }
            return Some(answer);
        }
        None
    }

    /// Counts a success in time without the lock; false if that is not possible.
    #[inline]
    pub(super) fn count_success(&self, pass: Pass, time: impl Fn() -> Tick) -> bool {
        let counter = &self.shard().successes;
        loop {
            let word = self.head.word.load(Ordering::Acquire);
            if word & FLAGS != 0 || epoch(word) != pass.epoch {
                return false;
            }
            let deadline = self.head.deadline.load(Ordering::Relaxed);
            if deadline != u64::MAX && time().as_nanos() >= deadline {
                return false;
            }
            let counted = counter.load(Ordering::Relaxed);
            if (counted >> 32) as u32 != sequence(word) || counted as u32 == u32::MAX {
                return false;
            }
            if counter.compare_exchange(counted, counted + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// Hands what the shards have counted to the machine.
    fn fold(&self, machine: &mut Machine) {
        let word = self.head.word.load(Ordering::Relaxed);
        if word & FLAGS != 0 {
            return; // Nobody counts on the shards; they are empty.
        }
        let next = sequence(word).wrapping_add(1);
        self.head.word.store(pack(epoch(word), next, FOLDING), Ordering::Release);
        let empty = u64::from(next) << 32;
        let counted = |shard: &Shard| shard.successes.swap(empty, Ordering::AcqRel) & u64::from(u32::MAX);
        machine.fold(self.shards.iter().map(counted).sum());
    }

    /// Lets calls see what the machine has decided.
    fn publish(&self, machine: &Machine) {
        let shows = machine.shows();
        let mut flags = shows as u64;
        let deadline = match machine.settled_until() {
            Some(until) => {
                flags |= SETTLED;
                until
            }
            None => machine.frame_end(),
        };
        if machine.must_judge() {
            flags |= JUDGE;
        }
        self.head.deadline.store(deadline.as_nanos(), Ordering::Release);
        self.head.slow_after.store(machine.policy().slow_after(), Ordering::Relaxed);
        let sequence = sequence(self.head.word.load(Ordering::Relaxed));
        self.head.word.store(pack(machine.epoch(), sequence, flags), Ordering::Release);
    }
}

/// What a circuit that shows `shows` until `deadline` answers.
#[inline]
const fn settled(shows: Circuit, deadline: u64, now: u64) -> Result<(), Refused> {
    let left = deadline - now;
    let (reason, retry_after) = match shows {
        Circuit::Open => (Reason::Open, left),
        Circuit::HalfOpen => (Reason::HalfOpenFull, left),
        Circuit::ForcedOpen => (Reason::ForcedOpen, if deadline < u64::MAX { left } else { u64::MAX }),
        Circuit::Shed => (Reason::Shed, SHED_FOR.as_nanos() as u64),
        Circuit::Disabled | Circuit::Closed | Circuit::ForcedClosed | Circuit::MetricsOnly => return Ok(()),
    };
    Err(Refused { reason, retry_after })
}

const fn pack(epoch: u32, sequence: u32, flags: u64) -> u64 {
    (epoch as u64) << EPOCH_AT | (sequence as u64) << SEQUENCE_AT | flags
}
