//! The reference service: a support desk, small but real.
//!
//! It is the application whose incidents this project answers: a dashboard that makes 160 queries at once, a
//! sign-in and a task assignment that must go on working meanwhile, and reports that can wait. It runs on
//! SQLite and on PostgreSQL, and it runs in two ways from the same code: *healed*, behind the runtime, and
//! *plain*, as most hosts are built (one sqlx pool, an error is a 500 with its text). What differs between the
//! two is the [`store`] that a query goes to and the reply that an error becomes ([`routes::Reply`]); so a
//! drill that compares them compares nothing else.
//!
//! The SQL is one text for both databases, wherever they agree; where they do not, it stands in [`postgres`]
//! and [`sqlite`].

pub(crate) mod app;
mod ask;
pub(crate) mod capture;
pub(crate) mod faults;
pub(crate) mod message;
mod panels;
pub(crate) mod postgres;
mod report;
mod routes;
pub(crate) mod sqlite;
mod store;

pub(crate) use faults::Faults;
pub(crate) use store::{Guarded, Plain};

/// Connections that the desk's pool may have at most: as many as a PostgreSQL server accepts by default.
pub(crate) const POOL_MAX: u32 = 100;

/// Messages in a fresh database.
pub(crate) const MESSAGES: i64 = 20_000;

/// Messages of a fresh database that are READY and match the spam rule.
pub(crate) const READY_SPAM: i64 = 1_418;

/// Messages of a fresh database that match the spam rule but have been promoted to a task already.
pub(crate) const PROMOTED_SPAM: i64 = 5;

/// How many queries a dashboard makes; each counts the messages of one channel.
pub(crate) const PANELS: i64 = 160;

/// The panels before this one are asked for by key, so that of all dashboards those that wait at the same time go as one
/// query ([`panels`]); the others make a query each. It is a quarter of them, and none of the optional half: a drill is
/// to see a pool exhausted by dashboards, and if half of their questions needed ten queries instead of eighty, theirs
/// would not exhaust it. The plain desk makes a query for each.
pub(crate) const FIRST_PANEL_ALONE: i64 = PANELS / 4;

/// The panels from this one on are a convenience: under pressure the dashboard leaves them out.
pub(crate) const FIRST_OPTIONAL_PANEL: i64 = PANELS / 2;
