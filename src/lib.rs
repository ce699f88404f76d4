//! A service that heals itself: **pressure → action → recovery → incident → report**, as one loop inside the process.
//!
//! [`Heal`] is the handle; [`Heal::builder`] starts it with a [`config`] and the pools it guards ([`HealPool`]). In
//! front of a host's routes stands [`Heal::layer`]; beside them [`Heal::admin_router`].
//!
//! Every decision is made in a machine, which is deterministic and never reads a clock: it takes what has
//! happened and when, and says what to do. The modules re-exported below hold them; the [`simulate`] module plays
//! traces against the very same machines.
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
pub mod batch;
pub mod config;
pub mod db;
pub mod deferred;
pub mod http;
pub mod metrics;
pub mod runtime;
pub mod simulate;
pub mod store;
pub mod transition;

pub use db::{HealPool, PgHealPool, SqliteHealPool};
pub use runtime::Heal;
#[doc(hidden)]
pub use selfheal_actors::fault;
pub use selfheal_actors::transitions;
pub use selfheal_actors::{
    alert, backoff, batch_executor, breaker, circuit, clock, dice, error_class, gate, level, mailbox,
    pool_monitor, retry, signal, supervisor, telemetry, threshold, user_limit, window,
};

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
