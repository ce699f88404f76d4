//! What becomes of a job whose attempt has failed, or whose holder was not heard of again.

use std::time::Duration;

use super::{
    journal::{Claimed, End},
    policy::Tenure,
};
use crate::backoff::Backoff;

/// How often a job is tried, and how long after each failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attempts {
    /// Attempts that may fail; then the job is dead, with the last error. Default 10.
    pub most: u32,
    /// The waits between them. Default 1 s, twice as long each time, at most 5 minutes.
    pub waits: Backoff,
}

impl Attempts {
    /// How the lease of a job ends whose attempt has failed. `poison`: it is the job's own fault, and would fail again; a
    /// full disk, or a database that takes no writes, is nobody's fault here.
    #[must_use]
    pub fn failed(&self, job: &Claimed, poison: bool, error: String) -> End {
        if poison || job.failures.saturating_add(1) >= self.most {
            End::Dead { error }
        } else {
            End::Retry { after: self.waits.delay(job.failures), error }
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        let waits =
            Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(5 * 60) };
        Self { most: 10, waits }
    }
}

impl Tenure {
    /// How the lease of a job ends that nobody is to work on any more, because it takes down whoever does; `None`, if
    /// somebody may.
    #[must_use]
    pub fn lost(&self, job: &Claimed) -> Option<End> {
        (job.losses >= self.max_losses.max(1)).then(|| End::Dead {
            error: format!(
                "its lease ended without a word {} times: whoever works on it crashes, or hangs",
                job.losses
            ),
        })
    }

    /// Whether this job may be the one that takes its processes down: it was lost a quarter as often as it may be. Jobs
    /// that were only beside that one look the same, until each has been begun by itself.
    #[must_use]
    pub fn suspects(&self, job: &Claimed) -> bool {
        job.losses >= self.max_losses.max(1).div_ceil(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        batch_executor::journal::{JobId, Lease, Progress},
        level::Class,
    };

    fn job(failures: u32, losses: u32) -> Claimed {
        Claimed {
            lease: Lease { job: JobId(1), token: 1 },
            queue: "q".into(),
            payload: Vec::new(),
            class: Class::Background,
            owner: None,
            progress: Progress::default(),
            failures,
            losses,
            age: Duration::ZERO,
        }
    }

    #[test]
    fn waits_grow_until_it_is_dead_with_its_error() {
        let attempts = Attempts::default();
        let ends: Vec<_> = (0..10).map(|n| attempts.failed(&job(n, 0), false, "no".into())).collect();
        let waits: Vec<_> = ends
            .iter()
            .filter_map(|end| if let End::Retry { after, .. } = end { Some(after.as_secs()) } else { None })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256]);
        assert_eq!(ends[9], End::Dead { error: "no".into() });
    }

    #[test]
    fn poison_is_not_tried_again() {
        let end = Attempts::default().failed(&job(0, 0), true, "no such column".into());
        assert_eq!(end, End::Dead { error: "no such column".into() });
    }

    #[test]
    fn a_job_that_takes_down_whoever_works_on_it_is_dead_in_the_end() {
        let tenure = Tenure { max_losses: 3, ..Tenure::default() };
        assert_eq!([0, 1, 2].map(|losses| tenure.suspects(&job(0, losses))), [false, true, true]);
        assert_eq!([0, 1, 2].map(|losses| tenure.lost(&job(0, losses))), [None, None, None]);
        let Some(End::Dead { error }) = tenure.lost(&job(0, 3)) else { panic!("it goes on") };
        assert!(error.contains("3 times"), "{error}");
    }
}
