//! The kernel and the actors of selfheal.
//!
//! **Every decision this system makes is made in a machine, which is deterministic and never reads a clock.**
//! A machine takes an event and the time ([`clock::Tick`]) and gives back effects. Around each machine is a
//! *handle*, which a request touches and which works with every actor dead; and, where something must be
//! watched, an *actor*, which feeds the machine, performs its effects, and can be killed at any moment.
//!
//! Nothing here touches a socket, a file or a database, so all of it runs under simulated time.

pub mod alarm;
pub mod alert;
pub mod backoff;
pub mod batch_executor;
pub mod breaker;
pub mod circuit;
pub mod clock;
pub mod dice;
pub mod error_class;
pub mod fault;
pub mod gate;
pub mod histogram;
pub mod level;
pub mod lookup;
pub mod mailbox;
pub mod pool_monitor;
pub mod retry;
pub mod signal;
pub mod slab;
pub mod supervisor;
mod sync;
pub mod telemetry;
pub mod threshold;
mod tick;
pub mod transition;
pub mod user_limit;
pub mod window;
