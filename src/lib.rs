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
//!     supervisor::{ChildPolicy, Effect, Event, Machine, Policy},
//! };
//!
//! let mut supervisor = Machine::new("root", Policy::default(), vec![ChildPolicy::permanent("monitor")])?;
//! let start = |generation| Effect::Start { id: "monitor".into(), generation };
//! assert_eq!(supervisor.on(Event::Boot, Tick::ZERO), [start(1)]);
//!
//! let now = Tick::from_millis(3);
//! supervisor.on(Event::Started { id: "monitor".into(), generation: 1 }, now);
//! let exit = Exit::Panic("boom".into());
//! let effects = supervisor.on(Event::Exited { id: "monitor".into(), generation: 1, exit }, now);
//! assert_eq!(effects.last(), Some(&start(2)), "the first restart is immediate");
//! # Ok::<(), selfheal::supervisor::Invalid>(())
//! ```

pub mod admin;
pub mod config;
pub mod db;
pub mod http;
pub mod metrics;
pub mod runtime;
pub mod simulate;

pub use db::{HealPool, PgHealPool, SqliteHealPool};
pub use runtime::Heal;
pub use selfheal_actors::{
    alert, backoff, clock, gate, level, mailbox, pool_monitor, signal, supervisor, telemetry, threshold,
    user_limit, window,
};
