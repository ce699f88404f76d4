//! Long operations that never time out: what is too long for its caller is cut, answered, and done all the same.
//!
//! Somebody clicks a button that concerns 1,418 items at 10 ms each. Their patience, or that of whatever stands before
//! the service, ends after 10 s: at item 1,000 they are told of an error, and nobody knows what was done. Nothing is
//! wrong with the operation but its length, and that can be known beforehand.
//!
//! - **Before** the first item the length is estimated ([`Estimate`]). What takes less than 80 % of the deadline, 95
//!   times in 100, is done while its caller waits. All else is written down first ([`journal`]), so that an answer can
//!   promise it, and cut into chunks of a tenth of the deadline: 1 s, 100 items, 15 chunks.
//! - **Before each chunk** that somebody waits for stands a guard: if half as long again as the chunk takes at most does
//!   not fit, the caller is answered instead. The estimate plans, the guard keeps the promise; and if a chunk takes
//!   longer than anybody could know, the answer goes out without waiting for it. What chunks waited for their
//!   connections lately stands before the chunk, too; it is not taken for what their items cost ([`Did::waited`]).
//! - **After the answer** the rest is nobody's wait, and gives way to everybody: under pressure its chunks are half as
//!   long and one at a time, at level critical it stops, and goes on later. A second call of the same operation by the
//!   same caller joins it. Progress never falls.
//! - **A chunk that fails** because of its surroundings is tried again, later; because it was too long, with half of
//!   it; because of what is in it, by halves, until the one item that fails is known and passed by.
//!
//! **Jobs in one piece** are deferred by whoever does not want to wait for them: they are written down first, taken up
//! by class and as the level of their pool allows, done once, and given back when they fail, to be tried again ever more
//! seldom ([`Attempts`]). They give way as everything does that nobody waits for, and share its turns.
//!
//! A chunk that was slow halves those that follow, and each that was not lets them grow by ten items again, up to
//! what they were (additive increase, multiplicative decrease; Chiu and Jain, 1989). A chunk that took no more than a
//! quarter of what one may take is followed by one of twice its items, up to the most ([`Policy::most`]), and if somebody
//! waits only if it fits: what an item costs is a guess until it is measured, and where 10 ms were expected and 5 us are
//! found, 1,418 items take 5 chunks with a commit each and not 15. Twice as much of what cost the same is still half of
//! what it may take, so chunks of items that cost what was expected never grow, and "batch 3 of 15" stays true; where
//! they do grow, 15 becomes less with each that is told, never more. What growing risks is one chunk: if items get dear
//! half way, it takes as long as `most` of them, and its followers are halved.
//!
//! **Not protected**: effects outside of the database, of a chunk whose end nobody saw; they need the job's id and the
//! item as a key. An operation whose items cannot be cut: one item that takes 20 s takes 20 s. And a job of a better class
//! while as many long ones as may be worked on at once ([`RUNS`]) are in hand: it waits for one of them to end.

mod actor;
mod attempts;
mod drive;
mod estimate;
mod handle;
mod intake;
pub mod journal;
mod machine;
mod policy;
mod queueing;
mod run;
mod turns;

#[cfg(test)]
mod tests;

pub use actor::{BatchExecutor, Message};
pub use attempts::Attempts;
pub use estimate::Estimate;
pub use handle::{
    Batches, Chunk, Did, Fate, Item, MAX_RESULT, NotDone, Operation, Progress, Refused, Report, Work,
};
pub use intake::{Handler, Intake, Make, Source};
pub use machine::{
    Attempt, Begun, Effect, Ending, Machine, Next, Outcome, Plan, RUNS, RunId, Tally, Waits, Wanted,
};
pub use policy::{Invalid, Policy, Reply, Tenure};
