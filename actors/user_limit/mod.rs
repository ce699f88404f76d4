//! No single user takes the pool from all others.
//!
//! While a pool is pressed, each user may have so many requests in flight (one more is answered with 429), and
//! hold so many connections (one more waits for one of the user's own, and takes nobody else's turn). Both are
//! counted always, so that a limit knows from its first moment who is above it; what a user has above a new
//! limit is not taken back, it only is not replaced.
//!
//! The counts live inside the gate, which decides under one lock; here is only the counting. Critical work is
//! exempt, so it is not counted either. A user's entry is gone when nothing of theirs is left: memory follows
//! the users that are active, and has a bound beyond which a user is not limited rather than refused.
//!
//! Not protected: many identities in one hand. Where callers have no identity the peer's address is used.

mod machine;
mod policy;

pub use machine::{Machine, User, UserKey};
pub use policy::Policy;
