//! What every drill comes to: the same load without healing and with it.

use std::time::SystemTime;

use serde::Serialize;

/// What a drill measured, in the shape that scripts read.
#[derive(Debug, Serialize)]
pub(crate) struct Comparison<Without, With> {
    pub(crate) drill: &'static str,
    pub(crate) database: String,
    pub(crate) without: Without,
    pub(crate) with: With,
    /// The promises that were not kept, in words.
    pub(crate) missed: Vec<String>,
    pub(crate) passed: bool,
}

impl<Without, With> Comparison<Without, With> {
    /// It is passed if no promise was missed.
    pub(super) fn of(
        drill: &'static str,
        database: String,
        (without, with): (Without, With),
        missed: Vec<String>,
    ) -> Self {
        Self { drill, database, without, with, passed: missed.is_empty(), missed }
    }
}

/// What both runs came to, and what the runtime said in the healed one, in milliseconds from its beginning.
pub(super) struct Told<Figures> {
    pub(super) figures: Figures,
    pub(super) began_without: SystemTime,
    pub(super) began_with: SystemTime,
    pub(super) said: Vec<(i64, String)>,
}
