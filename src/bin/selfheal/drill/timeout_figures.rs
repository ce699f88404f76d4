//! What the drill of a click that takes too long measured, and whether it kept its promises.

use serde::Serialize;

use super::{comparison::Comparison, timeout::PLATFORM};
use crate::desk::READY_SPAM;

/// A whole drill.
pub(crate) type Figures = Comparison<Without, With>;

/// A click and its answer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Click {
    pub(crate) at_ms: i64,
    pub(crate) took_ms: i64,
    pub(crate) status: u16,
    /// Whether the reply is JSON.
    pub(crate) json: bool,
    pub(crate) captured: Option<u64>,
    pub(crate) total: Option<u64>,
    pub(crate) remaining: Option<u64>,
    pub(crate) job: Option<String>,
    /// What the user reads.
    pub(crate) said: String,
}

/// What came of the plain run.
#[derive(Debug, Serialize)]
pub(crate) struct Without {
    pub(crate) clicks: Vec<Click>,
    /// Messages that were captured when the first click had been answered, as a witness in the database saw them.
    pub(crate) after_first: i64,
    pub(crate) done: i64,
    pub(crate) doubled: i64,
}

/// What came of the healed run.
#[derive(Debug, Serialize)]
pub(crate) struct With {
    pub(crate) mode: &'static str,
    pub(crate) clicks: Vec<Click>,
    /// Messages that were captured, and those that were more than once, as the witness saw them.
    pub(crate) done: i64,
    pub(crate) doubled: i64,
    pub(crate) done_ms: i64,
    /// Items of each batch.
    pub(crate) batches: Vec<u32>,
    /// Replies after their deadline, and operations that would have been too long, as the metrics have them.
    pub(crate) overruns: f64,
    pub(crate) prevented: f64,
}

impl Click {
    pub(crate) fn in_time(&self) -> bool {
        self.status == 200 && self.json && self.took_ms < super::api::ms(PLATFORM)
    }
}

/// The promises that these two runs broke.
pub(crate) fn missed(without: &Without, with: &With) -> Vec<String> {
    let mut missed = Vec::new();
    let mut promise = |kept: bool, words: String| {
        if !kept {
            missed.push(words);
        }
    };
    let total = READY_SPAM;
    let first = without.clicks.first();
    promise(
        first.is_some_and(|click| !click.json) && without.after_first > 0 && without.after_first < total,
        format!(
            "without healing {} of {total} were captured by one click, so there was little to heal",
            without.after_first
        ),
    );
    let late: Vec<_> =
        with.clicks.iter().filter(|click| !click.in_time()).map(|click| click.took_ms).collect();
    promise(late.is_empty(), format!("clicks were not answered in time: after {late:?} ms"));
    promise(with.done == total, format!("{} of {total} messages were captured", with.done));
    promise(with.doubled == 0, format!("{} messages were captured more than once", with.doubled));
    let expected = [vec![100; 14], vec![18]].concat();
    promise(
        with.batches == expected,
        format!("there were other batches than 14 of 100 and one of 18: {:?}", with.batches),
    );
    let job = |at: usize| with.clicks.get(at).and_then(|click| click.job.clone());
    promise(job(0).is_some() && job(0) == job(1), "the second click did not join the first".to_owned());
    let progress: Vec<_> = with.clicks.iter().take(2).filter_map(|click| click.captured).collect();
    promise(progress.len() == 2 && progress.is_sorted(), format!("progress fell: {progress:?}"));
    let all = u64::try_from(total).ok();
    promise(
        with.clicks.first().is_some_and(|click| click.total == all),
        "the first click did not say how many there are".to_owned(),
    );
    promise(with.overruns == 0.0, format!("{} replies came after their deadline", with.overruns));
    promise(with.prevented >= 1.0, "nobody counted a timeout that was prevented".to_owned());
    missed
}
