//! What a request passes on its way to a handler, and a reply on its way back.
//!
//! Outside in: reply( ticket( fallback( user limit and admission( deadline( retry( breaker( validate( handler )))))))).
//!
//! - **Handle first, layer second.** Everything that is remembered stands in the [`Registry`]; the
//!   [`HealLayer`] is a view of it, because axum makes services out of a layer whenever it likes.
//! - **Infallible.** What goes wrong inside leaves as a reply: on a JSON route one that parses, with a code to
//!   switch on and, where coming back can help, the time to come back.
//! - **Bounded.** Nothing is kept for a path, and nothing for a user beyond the gate's count of its requests in
//!   flight, and the last good replies where an endpoint asks for them. Bodies of replies are read up to 1 MiB, those
//!   of requests up to 64 KiB; what is longer passes or is replaced unread, and is not made again.
//!
//! [`ClientLayer`] is the same guard around calls that the service makes itself.
//!
//! What it does not do: it does not cut a stream that has begun, does not look into encoded bodies, and does not
//! authenticate anybody.

mod answer;
mod body;
mod cache;
mod cacheable;
mod call_error;
mod client;
mod conclude;
mod configured;
mod deadline;
mod failure;
mod idempotency;
mod identity;
mod jobs;
mod judge;
mod layer;
mod optional;
mod policy;
mod principal;
mod problem;
mod registry;
mod replay;
mod reply;
mod request_id;
mod retry_after;
mod service;
mod stale;
mod state;
mod validate;
mod visit;

pub use call_error::CallError;
pub use client::{ClientLayer, HealClient};
pub use failure::Failure;
pub use identity::{DEFAULT_HEADER, Identity};
pub(crate) use jobs::jobs;
pub use layer::HealLayer;
pub use optional::Optional;
pub use policy::{Endpoint, Endpoints, Fallback, Match, OTHER, Replies, Unmatchable};
pub use problem::{Code, Problem};
pub use registry::{Affected, Felt, Impact, Registry};
pub use reply::Jitter;
pub use request_id::{RequestId, RequestIds};
pub use service::{HealFuture, HealService};
