//! Whether what has failed is tried again, and when.
//!
//! A retry is load that nobody asked for, at the worst moment. So it has to earn its place, and every rule here
//! takes something away:
//!
//! - **What failed must be able to succeed.** By [`ErrorClass`](crate::error_class::ErrorClass): permanent errors
//!   never. What may have been done already is tried again only if doing it twice is doing it once
//!   ([`Repeatable`]).
//! - **Attempts** are counted in all, the first call included. While a caller waits there are fewer of them
//!   (`inline_attempts`) than in the background (`attempts`).
//! - **The budget** is what keeps a failing service alive: over any ten seconds, no more retries than a tenth of
//!   the calls, and ten. With 1,000 calls a second and all of them failing, that is 101 retries a second where
//!   four naive ones a call would be 4,000. A timeout has cost twice: it held something all the while.
//! - **The deadline**: a retry that would begin after the caller has gone is not begun.
//! - **Pressure**: at level Critical only critical work is tried again. (Before that, the gate serves a retry as
//!   sheddable.)
//! - **Jitter** spreads those who failed together; a server's own `Retry-After` is honoured, never undercut.
//!
//! One [`Machine`] stands for one endpoint, and with that for one class: reports cannot spend what sign-ins need.
//! It does not sleep and does not call: it says `Again { after }` or why not. [`Retries`] is the machine as many
//! threads share it.
//!
//! Not protected: retries that clients make by themselves, and several layers that each retry (a client, a
//! service and its driver make 5 × 5 × 5). Retry in one of them.

mod budget;
mod handle;
mod machine;
mod policy;

#[cfg(test)]
mod tests;

pub use handle::Retries;
pub use machine::{Failed, GiveUp, Machine, Repeatable, Verdict};
pub use policy::{Budget, Delays, Invalid, Jitter, Policy};
