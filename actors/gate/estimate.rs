//! How long things will take: for whole jobs, which are admitted by it, and for whoever is asked to come again.
//!
//! Nothing else is decided by an estimate, and nothing about critical work is: estimates are most wrong exactly
//! in a stall, when the rate of grants falls to zero and every single request looks hopeless.

use std::time::Duration;

use crate::{
    clock::Tick,
    gate::{Claim, Job, Machine, Reason, Refusal, queue::Place, service::Operation},
    level::Class,
    window::Ewma,
};

/// Over which time the use by others than jobs is averaged.
const SMOOTHING: Duration = Duration::from_millis(100);
/// How long the use is summed up before it goes into the average: an exponential for every grant would be a
/// tenth of what a grant costs.
const WINDOW: Duration = Duration::from_millis(1);
/// The share of what others leave that jobs may count on.
const SAFETY: f64 = 0.9;

/// What is known of the load, as far as estimates need it.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    base: Base,
    /// Queries that were promised to whole jobs and are not done.
    promised: u64,
    jitter: Option<u64>,
}

/// The average number of connections held by those whom a job's queries do not go before.
#[derive(Clone, Debug)]
struct Base {
    held: u32,
    changed: Tick,
    /// Since when `area` is summed up: connections times seconds.
    since: Tick,
    area: f64,
    /// The average up to `since`.
    smooth: Ewma,
}

impl Base {
    const fn new() -> Self {
        Self { held: 0, changed: Tick::ZERO, since: Tick::ZERO, area: 0.0, smooth: Ewma::new(SMOOTHING) }
    }

    fn change(&mut self, now: Tick, by: i32) {
        self.area += f64::from(self.held) * now.since(self.changed).as_secs_f64();
        self.changed = now;
        self.held = self.held.saturating_add_signed(by);
        if now.since(self.since) >= WINDOW {
            self.smooth.set(self.since, self.area / now.since(self.since).as_secs_f64());
            self.smooth.set(now, f64::from(self.held));
            (self.since, self.area) = (now, 0.0);
        }
    }

    fn average(&self, now: Tick) -> f64 {
        let area = self.area + f64::from(self.held) * now.since(self.changed).as_secs_f64();
        let mut smooth = self.smooth.clone();
        let window = now.since(self.since).as_secs_f64();
        smooth.set(self.since, if window > 0.0 { area / window } else { f64::from(self.held) });
        smooth.average(now)
    }
}

impl Estimate {
    pub(super) const fn new(seed: Option<u64>) -> Self {
        Self { base: Base::new(), promised: 0, jitter: seed }
    }

    pub(super) fn job_came(&mut self, queries: u32) {
        self.promised += u64::from(queries);
    }

    pub(super) fn job_done(&mut self, queries: u32) {
        self.promised = self.promised.saturating_sub(u64::from(queries));
    }

    pub(super) fn granted(&mut self, claim: &Claim, now: Tick) {
        self.change(claim, now, 1);
    }

    pub(super) fn given_back(&mut self, claim: &Claim, now: Tick) {
        self.change(claim, now, -1);
    }

    pub(super) const fn promised(&self) -> u64 {
        self.promised
    }

    fn change(&mut self, claim: &Claim, now: Tick, by: i32) {
        if goes_before_jobs(claim) {
            self.base.change(now, by);
        }
    }

    /// `seconds` and up to as much again, so that those who were refused together do not come again together.
    fn spread(&mut self, seconds: u64) -> u64 {
        let Some(state) = self.jitter.as_mut() else { return seconds };
        seconds + split_mix(state) % (seconds + 1)
    }
}

impl Machine {
    /// How long a job of `queries` would take: alone, and beside everybody else's.
    pub(super) fn time_for_job(&self, queries: u32, operation: Option<Operation>) -> Duration {
        let Some(mean) = self.services.mean_hold(operation) else { return Duration::ZERO };
        let limit = self.limit().saturating_sub(self.outside);
        let at_once = queries.min(limit).min(self.users.limit().unwrap_or(limit)).max(1);
        let alone = f64::from(queries) / f64::from(at_once);
        let room = SAFETY * (f64::from(limit) - self.estimate.base.average(self.now));
        let beside = (self.estimate.promised as f64 + f64::from(queries)) / room.max(0.0);
        Duration::try_from_secs_f64(mean.as_secs_f64() * alone.max(beside)).unwrap_or(Duration::MAX)
    }

    /// When a job that needs this long, and would be late, might not be. While others use everything nobody
    /// knows; then it is told what everybody is told.
    pub(super) fn until_it_would_fit(&self, needed: Duration, job: &Job) -> Duration {
        if needed == Duration::MAX {
            return self.drain(job.class);
        }
        needed.saturating_sub(job.deadline.since(self.now))
    }

    /// How long until those before a newcomer of `class` have been served.
    pub(super) fn drain(&self, class: Class) -> Duration {
        let ahead: u32 = self.waiting[..=class.index()].iter().sum();
        let mean = self.services.mean_hold(None).unwrap_or_default();
        mean.saturating_mul(ahead + 1) / self.limit().max(1)
    }

    /// Counts a refusal and says when to come again: in whole seconds, because that is what a `Retry-After` says.
    pub(super) fn refuse(&mut self, class: Class, reason: Reason, wait: Duration) -> Refusal {
        self.tally.refused.count(class, reason);
        if reason == Reason::Closed {
            return Refusal { reason, retry_after: None };
        }
        let most = self.policy.retry_after_max.as_secs().max(1);
        let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
        let seconds = self.estimate.spread(seconds.clamp(1, most)).min(most);
        Refusal { reason, retry_after: Some(Duration::from_secs(seconds)) }
    }
}

/// A job's query goes before short sheddable and background work, so that does not stand in its way.
fn goes_before_jobs(claim: &Claim) -> bool {
    match claim.place {
        Place::Nested | Place::Critical | Place::Normal => true,
        Place::LongNormal | Place::LongSheddable | Place::LongBackground => true,
        Place::Sheddable | Place::Background | Place::Job => false,
    }
}

/// The next of a sequence of numbers that looks random (Steele, Lea and Flood, `SplitMix64`).
const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_use_does_not_depend_on_how_often_it_changes() {
        let mut random = fastrand::Rng::with_seed(0x6a7e);
        let (mut base, mut exact, mut now) = (Base::new(), Ewma::new(SMOOTHING), Tick::ZERO);
        for _ in 0..5_000 {
            let step = if random.u32(0..100) == 0 { 90_000 } else { random.u64(0..300) };
            now = now + Duration::from_micros(step);
            let by = if base.held == 0 || random.bool() && base.held < 50 { 1 } else { -1 };
            base.change(now, by);
            exact.set(now, f64::from(base.held));
            let later = now + Duration::from_micros(random.u64(0..5_000));
            let (average, exact) = (base.average(later), exact.average(later));
            assert!((average - exact).abs() < 0.5, "{average} is not {exact}");
        }
    }

    #[test]
    fn the_wait_is_spread_over_as_much_again_and_the_same_seed_spreads_it_alike() {
        let waits = |seed| {
            let mut estimate = Estimate::new(seed);
            (0..100).map(|_| estimate.spread(10)).collect::<Vec<_>>()
        };
        assert!(waits(None).iter().all(|&wait| wait == 10));
        assert_eq!(waits(Some(7)), waits(Some(7)));
        assert_ne!(waits(Some(7)), waits(Some(8)));
        assert_eq!((waits(Some(7)).iter().min(), waits(Some(7)).iter().max()), (Some(&10), Some(&20)));
    }
}
