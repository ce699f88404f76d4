//! One TOML file, the environment on top, and every mistake at once with its place.
//!
//! A config that can be misread is an outage that waits: a misspelt key that is skipped, a bare `20` taken for
//! seconds, a variable that sets nothing. So nothing here is lenient. Unknown keys are errors, with what was
//! probably meant; nothing is coerced; a variable that addresses no key is named; keys that only a later version
//! will honour are refused; and all mistakes are told together, each with its line, column and remedy, because
//! whoever reads them wants to be asleep again.
//!
//! The way of a value, from left to right, a file each:
//!
//! `load` reads the layers → `document` and `environment` (which finds its `target`s by name) check them against the
//! `shape` of every key, by way of `accept` → what passed is merged and becomes the [`Config`] of `policy` and `supervision` → `validate` judges
//! the rules between keys → `report` tells what is wrong, and `kernel` hands the policies on.
//!
//! The shapes are read back from the JSON Schema, and that is derived from the structs in `policy`: no key is
//! declared twice. ([`schema`] hands the schema to editors, [`reference()`] prints it as a commented file.)
//!
//! Merging is the `config` crate's work. Two of its traits are kept away from it: it coerces (`"5"` becomes 5, 3.9
//! becomes 4), and a key with a bracket in it can make it abort the process. It only sees what has passed.

mod accept;
mod breaker;
#[cfg(feature = "cli")]
mod carets;
mod document;
mod environment;
mod finding;
mod kernel;
mod key;
mod later;
mod lines;
mod load;
mod policy;
mod reference;
mod report;
mod retry;
mod shape;
mod suggest;
mod supervision;
mod target;
mod validate;
mod value;

pub use breaker::{AfterMaxWait, Breaker, BreakerKeys, Count, Decide, HalfOpen, Share, Window};
#[cfg(feature = "cli")]
pub use carets::Look;
pub use environment::Environment;
pub use load::{Source, check};
pub use policy::{
    Admin, Batch, BatchReply, Batching, Config, Endpoint, Fallback, Metrics, Pool, Replies, Reserve, Runtime,
    Service, Transitions, Users,
};
pub use reference::reference;
pub use report::{ConfigError, Issue, Report};
pub use retry::{Budget, Delays, Growth, Jitter, Retry};
pub use shape::schema;
pub use supervision::{AutoShutdown, Backoff, Child, Restart, Start, Strategy, Supervision, Tree};
pub use value::Secret;
