//! How many connections each of several processes may have of one server.
//!
//! A gate that takes what the server has left is right as long as it is alone. Two of them each see "others have
//! the rest": the one that came first keeps all, and the second one starves, or both dial for the same free slot
//! and the server says "too many clients". So gates see each other: each says on the server itself, in the name of
//! its own control connection, how many connections it *wants* ([`Want`]), and each computes the same division from
//! the same list:
//!
//! - **Max-min.** Who wants less than an equal part gets what it wants; what that leaves is divided equally among the
//!   rest. So the division depends on who asks for how much now, and not on who came first.
//! - **What nobody asks for is divided equally too**, as room for the next burst, so that a burst need not wait for
//!   the next look.
//! - **An idle gate keeps a tenth of an equal part** for its first requests. With two gates that costs a busy one 5 %.
//!
//! A worked case: 97 slots, two gates that both want 100, nobody else. Each keeps two connections outside its pool
//! ([`CONTROL`]), so there are 93 to divide, and each gets 46. If one of them wants 10, it gets 10 and the other 83.
//!
//! **A right is not a slot.** A gate never grows into slots that another one still holds: its limit is the smaller of
//! its part and what is free now, and never less than what it has already (of its part). The other one gives back what
//! it has above its part, idle connections at once and busy ones as they are returned. So a gate shrinks first and
//! another grows after it, within two looks.
//!
//! **Refused**: additive increase and multiplicative decrease on SQLSTATE 53300 alone. It converges, but only by having
//! callers refused again and again, and its steady state is a saw tooth; it stays in the gate's ceilings as the answer
//! to a server that is full all the same. A table or an advisory lock a connection: a round trip more for each
//! connection, and a schema to own.
//!
//! **Not protected**: two gates whose wants jump within the same look can both dial for a slot that is free. sqlx's pool
//! tries again until the next look has settled it. And whoever may connect can announce a want that is not true; it
//! costs a slot, and takes no more than an equal part from anybody.

use std::time::Duration;

use selfheal_actors::clock::Tick;

/// Connections that a gate keeps outside its pool: one to watch the server, one to find out why there is none.
pub(super) const CONTROL: u32 = 2;

/// A want that is not renewed falls by half in this time: a pause between two bursts is not the end of the load.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// Wants are rounded up to a multiple of this, so that one request more or less moves nobody's limit.
const STEP: u32 = 4;

/// An idle gate keeps one in so many of an equal part.
const IDLE_PART: u32 = 10;

/// How many connections a gate wants: what it uses and what waits, remembered for a while.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    connections: f64,
    heard: Tick,
}

impl Want {
    /// A gate that has just come wants as much as it may: it comes because there is work, and what it does not use is
    /// forgotten like any other want. With nothing to want it would begin with a limit of one or two, and be in trouble
    /// before it has done anything.
    pub(super) fn newcomer(max: u32, now: Tick) -> Self {
        Self { connections: f64::from(max), heard: now }
    }

    /// So many are in use or waited for now, of a pool of at most `max`. Returns what is to be announced.
    pub(super) fn hear(&mut self, demand: u32, max: u32, now: Tick) -> u32 {
        let age = now.since(self.heard).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.connections = (self.connections * 0.5_f64.powf(age)).max(f64::from(demand.min(max)));
        self.heard = now;
        (self.connections.ceil() as u32).next_multiple_of(STEP).min(max)
    }
}

/// Something that limits sessions (the server, a role, a database), and who is within that limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// Sessions that there can be.
    pub(super) of: u32,
    /// Sessions that there are.
    pub(super) used: u32,
    /// Of these, sessions of nobody's gate.
    pub(super) others: u32,
    /// What the other gates want.
    pub(super) peers: Vec<u32>,
}

/// What a gate may have of a scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Connections to hand out now.
    pub(super) limit: u32,
    /// Connections that are rightly ours; those above it are given back.
    pub(super) share: u32,
}

impl Scope {
    /// What a gate may have that wants `want`, and has `open` connections now. Each is at least one.
    pub(super) fn part(&self, want: u32, open: u32) -> Part {
        let share = self.share(want).max(1);
        // Ours are the pool's connections and the one that asks.
        let theirs = self.used.saturating_sub(open.saturating_add(1));
        let free = self.of.saturating_sub(theirs).saturating_sub(CONTROL);
        Part { limit: share.min(free.max(open)).max(1), share }
    }

    fn share(&self, want: u32) -> u32 {
        let gates = u32::try_from(self.peers.len()).unwrap_or(u32::MAX).saturating_add(1);
        let capacity = self.of.saturating_sub(self.others).saturating_sub(CONTROL.saturating_mul(gates));
        let least = (capacity / gates / IDLE_PART).max(1);
        let mine = want.max(least);
        let mut wants: Vec<_> = self.peers.iter().map(|&want| want.max(least)).chain([mine]).collect();
        wants.sort_unstable();
        let (mut left, mut unserved) = (capacity, gates);
        for want in wants {
            let equal = left / unserved;
            if want > equal {
                return mine.min(equal);
            }
            left -= want;
            unserved -= 1;
        }
        mine + left / gates
    }
}

#[cfg(test)]
mod tests;
