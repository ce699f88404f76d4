//! Who gets a connection, who waits for one, and who is refused.
//!
//! # Why there is a gate
//! sqlx's pool serves in the order of arrival, shows nobody who waits, and lets each wait for 30 seconds. Measured
//! on PostgreSQL 15 (90 connections, queries of 50 ms ± 0.8 lognormal, two cores, medians of three seeds, open
//! loop): at twice its capacity it keeps .14 of its goodput and loses 98 points of critical success, and with
//! callers who retry it never recovers. So the gate owns the wait: it hands out no more permits than there are
//! connections, and nobody ever queues behind it.
//!
//! | at 2x | goodput | critical success lost |
//! |---|---|---|
//! | sqlx alone | .142 | 97.9 points |
//! | a concurrency limit with load shedding (tower) | .962 | 50.6 |
//! | flags at 85 / 92 / 88 %, polled every 100 ms | .877 | .89 |
//! | fixed ceilings for each class | .865 | 0 |
//! | these rules | .962 | .02 |
//! | closed loop, the rig's own ceiling | .978 | |
//!
//! # How it decides
//! At every arrival, release and timer, never by a flag that somebody polls: a burst is over before a poll.
//!
//! - **Whoever is more important goes first** ([`Policy`] and the order in `queue.rs`). No connection idles while
//!   anybody waits. That costs critical work 5 ms of wait at p99, and needs no reserve.
//! - **One decision for a whole request or job** ([`Gate::enter`]). What entered is parked, at worst to its own
//!   deadline, and never shed: a dashboard of which one query in 160 is refused is lost as a whole, and all that
//!   was done for it. With 30 dashboards at once, of which 17 fit, 14 complete; decided query by query, none does.
//!   A job of more than two queries (declared, or learnt from its operation) is refused at the door if all of
//!   them would not fit before its deadline; a single request if twice the limit wait in its queue already.
//! - **Its queries are paced**: query *i* of *n* goes before sheddable work once 0.8·i/n of the job's time is
//!   over, and after it until then. Served first they starve the plain requests of their class (75 % succeed),
//!   served last they are late; paced, both succeed.
//! - **Work that nobody let in** (no ticket) waits 100 ms, or a tenth of its time if that is more. When twice the
//!   limit wait, the oldest of them is refused.
//! - **A queue that has not been empty for 100 ms serves the newest first.** Its oldest are late whatever one
//!   does. It decides when critical work alone exceeds the capacity (10x: goodput .92, and .27 without).
//! - **Operations that hold long** (labelled, or a tenth of their last 2,000 holds longer than 125 ms) share 85 %
//!   of the limit and wait apart: with 30 % of three-second reports, short work succeeds at 97.5 % and not at 37 %.
//! - **A user limit parks**: beyond it a user waits for the user's own connections, and takes nobody's turn.
//! - **A holder that needs another connection** goes before everybody, may use a reserve of two, and gives up by
//!   name after a second, because it gives nothing back while it waits.
//!
//! The levels of the pool monitor arrive as [`Change`]s, and change what is admitted *next*. While only critical
//! work may grow, the others keep what they use and replace it: a ceiling below that would idle connections which
//! somebody waits for. It is undone by one connection every 50 ms, so that what was held back does not come at once.
//!
//! Estimates decide about whole jobs only. **Critical work is refused by no level and no estimate**: in a stall the
//! rate of grants falls to zero and every estimate says "too late" (a quantile check let 8 % of critical work
//! through an outage of three seconds; without it 28 to 37 % made it).
//!
//! # What was tried and dropped
//! - A reserve that is learnt (critical waits push it up): for short queries nothing is gained, and against holds of
//!   three seconds it comes too late (.9 to 6.7 points of critical success lost, where the share of long
//!   operations loses .07). A static reserve stays as an option ([`Reserve::Static`]) and costs 10 points of goodput.
//! - Ceilings that are fractions, drawn at random; refusing by user and hour (DAGOR); a bound of 20 or 50 ms instead of
//!   100: no effect beyond the noise.
//! - Refusing sheddable work at Warning only where it would take a connection from others. A level stays for two
//!   seconds after the pressure that raised it, and connections idle meanwhile: with this rule the goodput of those
//!   seconds is .97 instead of .73. But then a level no longer says who is refused, and what mode `observe` counts is
//!   half of what acting does when dashboards are replayed on SQLite (28 and 53, though a model on virtual time has
//!   them within 2 %): it was kept simple.
//! - Counting the wait of sheddable work as pressure at once: it is last in every queue, so at .80 of the capacity the
//!   level rose twice a minute, and for two seconds each time all of it was shed (`pool_monitor` has the table).
//! - Dropping the dead from a queue lazily: it must be compacted, and newest-first leaves the dead at the old end.
//!   The lists run through the waiters themselves, so a waiter that goes is gone.
//! - A lock-free gate: one short mutex is within the 300 ns that are its budget, and every rule above reads state
//!   that must be of one moment.
//!
//! # What is not protected
//! - A connection that is held for ever: it is told as a leak, and never taken back. (Where a policy allows it, the
//!   monitor has statements of work that can wait ended for critical work; that is the server's doing.)
//! - Sheddable work at 2x and normal work at 10x starve: the order is strict, and a floor would cost critical work
//!   just when it is short of connections. Requests of several queries yield to single ones of their class.
//! - Critical work beyond the capacity: its newest succeed, its oldest do not.
//! - One user with many identities; operations beyond the first 256 names, which are learnt together.
//! - The database itself. That work whose caller has gone ends at the server is up to whoever holds the permit,
//!   which says how long an answer is of use: it lifted goodput with a database four times slower from .71 to .82.
//!
//! # How it is built
//! [`Machine`] decides, and is all that a simulation needs. `shared.rs` holds it under one lock, and wakes and tells
//! only when the lock is free. [`Acquire`] carries a timer of its own, so no wait depends on an actor. In mode
//! `observe` a second machine, `shadow.rs`, decides about the same work on virtual time and nobody feels it; `off` lets
//! everyone through, those who wait included.

mod acquire;
mod admission;
mod ceiling;
mod check;
mod claim;
mod core;
mod dispatch;
mod estimate;
mod handle;
mod journal;
mod machine;
mod membership;
mod meter;
mod params;
mod policy;
mod queue;
mod refusal;
mod seats;
mod service;
mod shadow;
mod shared;
mod slot;
mod stats;
mod tally;
mod ticket;
mod view;
mod work;

pub use crate::histogram::Histogram;
pub use acquire::{Acquire, Hold, Permit};
pub use claim::{Claim, ClaimId, Job, JobId};
pub use handle::Gate;
pub use machine::Machine;
pub use membership::Entered;
pub use meter::Meter;
pub use params::{Change, Params};
pub use policy::{Invalid, Policy, Reserve};
pub use refusal::{Reason, Refusal};
pub use seats::Holder;
pub use shared::Refused;
pub use stats::Stats;
pub use tally::{ByClass, Refusals, Tally};
pub use ticket::Ticket;
pub use work::{Answer, Ask, Effect, Work};

#[cfg(test)]
mod tests;
