//! What a stretch of time holds, at a cost that does not grow with what happened in it.
//!
//! [`Intensity`] counts events exactly but remembers only as many as its limit needs: asking OTP's
//! supervisor the same question walks every restart of the period (8 times slower at 10,000 of them).
//! [`Ewma`] is an average of a value that holds between changes, weighted by time, so that it does not
//! matter how often it is sampled, and the moment at which it will cross a line is known beforehand.

use std::{collections::VecDeque, time::Duration};

use crate::clock::Tick;

/// Whether *more than* `most` events happened `within` a stretch of time, both ends included.
#[derive(Clone, Debug)]
pub struct Intensity {
    most: u32,
    within: Duration,
    newest: VecDeque<Tick>,
}

impl Intensity {
    /// Nothing has happened yet.
    #[must_use]
    pub const fn new(most: u32, within: Duration) -> Self {
        Self { most, within, newest: VecDeque::new() }
    }

    /// Records an event and says whether the limit is exceeded by it.
    pub fn exceeded_by(&mut self, now: Tick) -> bool {
        self.newest.push_back(now);
        while self.newest.len() > self.most as usize + 1 {
            self.newest.pop_front();
        }
        self.count(now) > self.most
    }

    /// How many events the stretch that ends now holds; never more than the limit and one.
    pub fn count(&mut self, now: Tick) -> u32 {
        while self.newest.front().is_some_and(|&oldest| now.since(oldest) > self.within) {
            self.newest.pop_front();
        }
        u32::try_from(self.newest.len()).unwrap_or(u32::MAX)
    }
}

/// The time-weighted moving average of a value that stays as it is until it is changed.
///
/// `average(t + d) = value + (average(t) − value) · e^(−d/τ)`.
#[derive(Clone, Debug)]
pub struct Ewma {
    tau: Duration,
    value: f64,
    average: f64,
    at: Tick,
}

impl Ewma {
    /// An average of zero; `tau` is the time after which a change is 63 % visible. Zero follows at once.
    #[must_use]
    pub const fn new(tau: Duration) -> Self {
        Self { tau, value: 0.0, average: 0.0, at: Tick::ZERO }
    }

    /// An average that starts at its first value: before it there was nothing that could weigh against it.
    #[must_use]
    pub const fn starting(tau: Duration, now: Tick, value: f64) -> Self {
        Self { tau, value, average: value, at: now }
    }

    /// From `now` on the value is `value`.
    pub fn set(&mut self, now: Tick, value: f64) {
        self.average = self.average(now);
        self.at = self.at.max(now);
        self.value = value;
    }

    /// The average at `now`.
    #[must_use]
    pub fn average(&self, now: Tick) -> f64 {
        if self.tau.is_zero() {
            return self.value;
        }
        let faded = (-now.since(self.at).as_secs_f64() / self.tau.as_secs_f64()).exp();
        self.value + (self.average - self.value) * faded
    }

    /// When the average reaches `line`, if the value stays as it is: `now` if it is there or past it already
    /// on its way up (`rising`) or down, `None` if it never gets there.
    #[must_use]
    pub fn reaches(&self, now: Tick, line: f64, rising: bool) -> Option<Tick> {
        let average = self.average(now);
        let there = |x: f64| if rising { x >= line } else { x <= line };
        if there(average) {
            return Some(now);
        }
        // The average approaches the value without ever touching it, so a line at the value is not reached.
        if !there(self.value) || self.value == line {
            return None;
        }
        let wait = self.tau.as_secs_f64() * ((average - self.value) / (line - self.value)).ln();
        // One nanosecond more, so that rounding cannot leave the average a hair short of the line.
        Some(now + Duration::try_from_secs_f64(wait).ok()? + Duration::from_nanos(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Tick = Tick::from_millis;

    #[test]
    fn more_than_the_limit_within_the_stretch_both_ends_included() {
        let mut restarts = Intensity::new(2, Duration::from_millis(1000));
        assert!(!restarts.exceeded_by(MS(0)));
        assert!(!restarts.exceeded_by(MS(500)));
        assert!(restarts.exceeded_by(MS(1000)), "three within [0, 1000]");
        assert!(!restarts.exceeded_by(MS(1501)), "500 has left the stretch: 1000 and 1501 remain");
    }

    #[test]
    fn a_limit_of_none_is_exceeded_by_the_first() {
        assert!(Intensity::new(0, Duration::from_secs(1)).exceeded_by(MS(7)));
    }

    #[test]
    fn counting_is_exact_beside_a_plain_list() {
        let mut random = fastrand::Rng::with_seed(0x5eed);
        let (most, within) = (7, Duration::from_millis(90));
        let (mut intensity, mut list, mut now) = (Intensity::new(most, within), Vec::new(), Tick::ZERO);
        for _ in 0..3_000 {
            now = now + Duration::from_millis(random.u64(0..40));
            list.push(now);
            let held = list.iter().filter(|&&at| now.since(at) <= within).count();
            assert_eq!(intensity.exceeded_by(now), held > most as usize);
        }
    }

    #[test]
    fn an_average_does_not_depend_on_how_often_it_is_sampled() {
        let mut once = Ewma::new(Duration::from_millis(100));
        let mut often = once.clone();
        once.set(MS(0), 1.0);
        for ms in 0..50 {
            often.set(MS(ms), 1.0);
        }
        assert!((once.average(MS(50)) - often.average(MS(50))).abs() < 1e-12);
        assert!((once.average(MS(100)) - 0.632).abs() < 0.001);
    }

    #[test]
    fn the_moment_of_crossing_is_known_beforehand() {
        let mut load = Ewma::new(Duration::from_millis(100));
        load.set(MS(0), 1.0);
        let crossing = load.reaches(MS(0), 0.85, true).expect("1.0 is above the line");
        assert!(load.average(crossing) >= 0.85);
        assert!(load.average(Tick::from_nanos(crossing.as_nanos() - 1_000)) < 0.85);
        assert_eq!(load.reaches(MS(0), 1.0, true), None, "a limit is never touched");
        assert_eq!(load.reaches(MS(0), -1.0, false), None);
        load.set(crossing, 0.0);
        let calm = load.reaches(crossing, 0.80, false).expect("0 is below the line");
        assert!(load.average(calm) <= 0.80 && calm > crossing);
    }
}
