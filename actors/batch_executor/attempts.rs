//! What becomes of a job whose attempt has failed, or whose holder was not heard of again.

use std::time::Duration;

use super::{
    journal::{Claimed, End},
    machine::Ending,
    policy::Tenure,
};
use crate::{backoff::Backoff, error_class::ErrorClass};

/// How often a job in one piece is tried, and how long after each failure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attempts {
    /// Attempts that may fail; then the job is dead, with the last error. Default 10.
    pub most: u32,
    /// The waits between them. Default 1 s, twice as long each time, at most 5 minutes.
    pub waits: Backoff,
    /// How long a job is left alone that found no room, or was too slow under pressure: that is no attempt. Default
    /// 10 s.
    pub again: Duration,
}

impl Attempts {
    /// What becomes of a job that has failed so, after so many attempts that have failed before. What is the job's own
    /// fault would fail again; what comes of pressure, or of a pool without connections, is nobody's fault here.
    #[must_use]
    pub fn failed(&self, class: ErrorClass, before: u32, pressed: bool) -> Ending {
        let last = before.saturating_add(1) >= self.most;
        match class {
            ErrorClass::Overload | ErrorClass::Shutdown => Ending::PutOff { after: self.again },
            ErrorClass::Timeout if pressed => Ending::PutOff { after: self.again },
            ErrorClass::Permanent => Ending::Failed { again: None },
            ErrorClass::Transient | ErrorClass::Interrupted | ErrorClass::Timeout | ErrorClass::Unknown => {
                Ending::Failed { again: (!last).then(|| self.waits.delay(before)) }
            }
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        let waits =
            Backoff { initial: Duration::from_secs(1), factor: 2.0, max: Duration::from_secs(5 * 60) };
        Self { most: 10, waits, again: Duration::from_secs(10) }
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

    fn job(losses: u32) -> Claimed {
        Claimed {
            lease: Lease { job: JobId(1), token: 1 },
            queue: "q".into(),
            payload: Vec::new(),
            class: Class::Background,
            owner: None,
            progress: Progress::default(),
            failures: 0,
            losses,
            age: Duration::ZERO,
        }
    }

    #[test]
    fn waits_grow_until_it_is_dead() {
        let failed = |before| Attempts::default().failed(ErrorClass::Unknown, before, false);
        let again = |secs| Ending::Failed { again: Some(Duration::from_secs(secs)) };
        let ends: Vec<_> = (0..9).map(failed).collect();
        assert_eq!(ends, [1, 2, 4, 8, 16, 32, 64, 128, 256].map(again));
        assert_eq!(failed(9), Ending::Failed { again: None });
        let forever = Attempts { most: u32::MAX, ..Attempts::default() };
        assert_eq!(forever.failed(ErrorClass::Transient, 1_000, false), again(300));
    }

    #[test]
    fn poison_is_not_tried_again_and_pressure_is_no_attempt() {
        let attempts = Attempts::default();
        let put_off = Ending::PutOff { after: attempts.again };
        let dead = Ending::Failed { again: None };
        assert_eq!(attempts.failed(ErrorClass::Permanent, 0, true), dead);
        for before in [0, 9, 1_000] {
            assert_eq!(attempts.failed(ErrorClass::Overload, before, false), put_off);
            assert_eq!(attempts.failed(ErrorClass::Timeout, before, true), put_off);
        }
        assert_eq!(attempts.failed(ErrorClass::Timeout, 9, false), dead);
    }

    #[test]
    fn a_job_that_takes_down_whoever_works_on_it_is_dead_in_the_end() {
        let tenure = Tenure { max_losses: 3, ..Tenure::default() };
        assert_eq!([0, 1, 2].map(|losses| tenure.suspects(&job(losses))), [false, true, true]);
        assert_eq!([0, 1, 2].map(|losses| tenure.lost(&job(losses))), [None, None, None]);
        let Some(End::Dead { error }) = tenure.lost(&job(3)) else { panic!("it goes on") };
        assert!(error.contains("3 times"), "{error}");
    }
}
