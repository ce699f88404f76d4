//! Many who ask for one thing each, answered by one who asks for all of it.
//!
//! A page of 160 small queries costs 160 times the way to the database. Who asks for rows by key can be answered
//! together: what waits anyway goes as one query. There is no timer: nobody waits *so that* others may join. A query
//! leaves as soon as it has a connection, with all that waits by then, at most as much as [`Policy`] says; when
//! connections are short, more waits, so queries become fewer and larger by themselves.
//!
//! - **A key is asked for once at a time.** Who asks for one that waits joins it. Who asks for one whose query has left
//!   waits for the next: what it sees is never older than its question.
//! - **Everybody is answered exactly once**, and by their own key: one that is not there, or that makes a query fail,
//!   is nobody else's concern.
//! - **Who leaves takes nobody along**, and a key that nobody waits for any more is not asked for.
//! - **The best class among those who wait goes for the connection.**

mod machine;
mod policy;
#[cfg(test)]
mod tests;

pub use machine::{Machine, Share};
pub use policy::Policy;
