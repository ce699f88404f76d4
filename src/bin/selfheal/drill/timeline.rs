//! What the stories of all drills are made of: moments on a line of time, and whether every promise was kept.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use crate::log::time_of_day;

/// A moment, in milliseconds from the start of a run, and what happened then.
pub(super) type Moment = (i64, String);

/// Tells `moments` in the order of time; the run began at `start`.
pub(super) fn timeline(text: &mut String, start: SystemTime, mut moments: Vec<Moment>) {
    moments.sort_by_key(|(at, _)| *at);
    for (at, what) in moments {
        let span = Duration::from_millis(at.unsigned_abs());
        let moment = if at < 0 { start - span } else { start + span };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} - {what}", time_of_day(moment));
    }
}

/// The first `most` lines of what the runtime said.
pub(super) fn of_the_log(said: &[Moment], most: usize) -> impl Iterator<Item = Moment> {
    said.iter().take(most).map(|(at, words)| (*at, format!("[SELF-HEAL] {words}")))
}

/// How a story ends: with the promises that were missed, if any were.
pub(super) fn verdict(text: &mut String, missed: &[String]) {
    if missed.is_empty() {
        text.push_str("✅ Every promise was kept.\n");
    }
    for promise in missed {
        text.push_str(&format!("❌ {promise}\n"));
    }
}
