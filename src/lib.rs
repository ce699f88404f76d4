//! A supervision runtime that lets a service heal itself: **pressure → action → recovery → incident → report**, as
//! one loop inside the process.
//!
//! What stands is the kernel's first part, in the crate `selfheal-actors` (the shared vocabulary, the
//! supervisor and the pool monitor), and the [`config`], which tells every mistake at once. A machine takes what has happened and when, and says what to do:
//!
//! ```
//! use selfheal::{
//!     clock::Tick,
//!     signal::Exit,
//!     supervisor::{ChildPolicy, Effect, Event, Machine, Policy, Restart},
//! };
//!
//! let child = ChildPolicy { id: "monitor".into(), restart: Restart::Permanent, significant: false };
//! let (mut supervisor, first) = Machine::start(Policy::default(), vec![child], Tick::ZERO);
//! assert_eq!(first, [Effect::Start("monitor".into(), 1)]);
//!
//! let now = Tick::from_millis(3);
//! supervisor.on(Event::Started { id: "monitor".into(), generation: 1, result: Ok(()) }, now);
//! let crash = Event::Exited { id: "monitor".into(), generation: 1, reason: Exit::Panic("boom".into()) };
//! assert_eq!(supervisor.on(crash, now), [Effect::Start("monitor".into(), 2)], "the first restart is immediate");
//! ```

pub mod config;

pub use selfheal_actors::{
    backoff, clock, level, mailbox, pool_monitor, signal, supervisor, telemetry, threshold, window,
};
