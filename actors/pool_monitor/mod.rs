//! How hard a pool is pressed, and what is done about it for as long as it lasts.
//!
//! **A level decides no request.** At 80 % of healthy load a pool of 100 has 85 or more connections in use 30 %
//! of the time, and every arrival and release crosses the line: a flag "at least 85" would flip about 7,500
//! times a minute (with an exit at 80 still 1,700 times). Who is admitted is decided by the gate, at each
//! arrival and release. A level is slower than that on purpose, so that people can read it and so that what it
//! publishes (a batch size, a limit a user, what is left out) is in force for long enough to help.
//!
//! Three things make it slow enough, and each has its price:
//! - the *average* of the use, weighted by time: a full pool is seen after `smoothing · ln(…)`, about 190 ms
//!   from empty. That is too late for a burst, so *full with someone waiting* counts as well, at once;
//! - *dwell times*: a condition must hold for `up` (20 ms) to raise the level, and for `down` (2 s) to lower it;
//! - *exits below entries* (85 → 80, 92 → 88), so that the line itself is no place to flap around.
//!
//! And two make it honest. Where nothing is reserved (`needs_waiter`), a busy pool without anybody waiting is
//! not under pressure: it is well used. And pressure counts from the moment since which *one* of those who wait
//! has waited, not since when there was somebody: a queue through which each passes in 5 ms does not stand. Of work
//! that may be shed only what has waited for 100 ms counts (the gate says so): it is last in every queue, and it is
//! there to wait while others pass. A burst is seen as early as before, because whoever came with it waits until it
//! is over.
//!
//! 90 connections with their gate, holds of 50 ms (lognormal, σ = .8), a fifth of the work critical, two fifths
//! sheddable; twenty minutes of virtual time at each load:
//!
//! | level changes a minute, share of the work refused | .75 | .80 | .85 | .90 |
//! |---|---|---|---|---|
//! | everybody's wait counts alike | .4, .3 % | 3.7, 2.2 % | 22, 11 % | 52, 23 % |
//! | sheddable work's counts after 100 ms | 0, 0 | 0, 0 | 1.2, .4 % | 22, 7.7 % |
//!
//! **What is done is undone, exactly and in reverse.** The [`Machine`] remembers the actions themselves, not
//! the level they came from, so a policy that changes in between undoes what was done and not what would be
//! done today. The memory is in the handle ([`Monitor`]) and not in the actor, so an actor that is killed
//! between doing and undoing is replaced by one that goes on from there.
//!
//! **A monitor that sees nothing must not keep its hand on the brake.** Without a sample for `blind_after` it
//! lifts whatever it had forced, says so, and starts afresh with the next sample. Anyone may call
//! [`Monitor::tick`]; the runtime's guardian does, so this holds even when the actor is the one that hangs.
//!
//! Times are exact, not polled: an average between two samples is a known curve, so the moment at which it
//! crosses a line, and with it the end of each dwell, is computed beforehand ([`Machine::next_timer`]).

mod actor;
mod handle;
mod machine;
mod policy;
#[cfg(test)]
mod tests;

pub use actor::{Message, PoolMonitor, Watch};
pub use handle::{Monitor, Pool};
pub use machine::{Effect, Effects, Machine, Reason, Sample};
pub use policy::{Invalid, Policy};
