//! How long operations hold a connection, and how many they need, learnt from what they did.
//!
//! Each operation keeps its last 2,000 holds: an average that forgets exponentially was too noisy to admit jobs
//! by (with α = 0.01 and a spread of σ = 0.8 it refused one dashboard in 20 that would have made it). Whether
//! an operation is *long* needs no sorting: its 90th percentile is above the line when more than a tenth of
//! the holds are. Operations beyond the bound are learnt together, as the pool's own average.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::signal::Name;

/// Holds that an operation remembers.
const HOLDS: usize = 2_000;
/// Holds, or jobs, before anything is concluded from them.
const ENOUGH: u32 = 20;
/// Jobs over which the number of queries is averaged.
const JOBS: u32 = 200;
/// Operations that are told apart, beyond the labelled ones: 8 KiB each at most.
const OPERATIONS: usize = 256;

/// Where the pool's own average lies.
const ALL: Operation = Operation(0);

/// One operation that is told apart from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Operation(usize);

/// What is known of all operations.
#[derive(Clone, Debug)]
pub(super) struct Services {
    long_hold: u32,
    most: usize,
    names: HashMap<Name, Operation>,
    learnt: Vec<Learnt>,
}

#[derive(Clone, Debug, Default)]
struct Learnt {
    labelled_long: bool,
    holds: VecDeque<u32>,
    sum: u64,
    above_long: u32,
    jobs: u32,
    queries: f64,
}

impl Services {
    /// Nothing is known but that the `labelled` operations hold long. Longer than `long_hold` is long.
    pub(super) fn new(long_hold: Duration, labelled: &[Name]) -> Self {
        let mut services = Self {
            long_hold: micros(long_hold),
            most: 1 + labelled.len() + OPERATIONS,
            names: HashMap::new(),
            learnt: vec![Learnt::default()],
        };
        for name in labelled {
            let Operation(index) = services.find(name);
            services.learnt[index].labelled_long = true;
        }
        services
    }

    /// The operation called `name`; beyond the bound, all of them together.
    pub(super) fn find(&mut self, name: &Name) -> Operation {
        if let Some(&known) = self.names.get(name) {
            return known;
        }
        if self.learnt.len() >= self.most {
            return ALL;
        }
        let operation = Operation(self.learnt.len());
        self.learnt.push(Learnt::default());
        self.names.insert(Name::clone(name), operation);
        operation
    }

    /// A connection was held for `held` by this operation, on behalf of a job of that one.
    pub(super) fn record_hold(&mut self, by: Option<Operation>, of: Option<Operation>, held: Duration) {
        let (held, long_hold) = (micros(held), self.long_hold);
        self.learnt[ALL.0].record(held, long_hold);
        let known = |operation: &Operation| *operation != ALL;
        for Operation(index) in [by, of.filter(|_| of != by)].into_iter().flatten().filter(known) {
            self.learnt[index].record(held, long_hold);
        }
    }

    /// A job of this operation asked for `queries` connections.
    pub(super) fn record_queries(&mut self, operation: Operation, queries: u32) {
        // Over all operations together an average says nothing about any of them.
        if operation != ALL {
            self.learnt[operation.0].record_job(queries);
        }
    }

    /// Whether the operation is labelled, or known, to hold long.
    pub(super) fn is_long(&self, operation: Option<Operation>) -> bool {
        operation.filter(|&operation| operation != ALL).is_some_and(|Operation(index)| {
            let learnt = &self.learnt[index];
            learnt.labelled_long || learnt.is_long()
        })
    }

    /// The mean hold of the operation, else of all operations, once enough of them have been seen.
    pub(super) fn mean_hold(&self, operation: Option<Operation>) -> Option<Duration> {
        let own = operation.and_then(|Operation(index)| self.learnt[index].mean());
        own.or_else(|| self.learnt[ALL.0].mean())
    }

    /// How many connections a job of this operation asks for, rounded up, once enough have been seen.
    pub(super) fn queries(&self, operation: Operation) -> Option<u32> {
        let learnt = &self.learnt[operation.0];
        (learnt.jobs >= ENOUGH).then(|| learnt.queries.ceil() as u32)
    }
}

impl Learnt {
    fn record(&mut self, held: u32, long_hold: u32) {
        if self.holds.len() == HOLDS
            && let Some(oldest) = self.holds.pop_front()
        {
            self.sum -= u64::from(oldest);
            self.above_long -= u32::from(oldest > long_hold);
        }
        self.holds.push_back(held);
        self.sum += u64::from(held);
        self.above_long += u32::from(held > long_hold);
    }

    fn record_job(&mut self, queries: u32) {
        self.jobs = (self.jobs + 1).min(JOBS);
        self.queries += (f64::from(queries) - self.queries) / f64::from(self.jobs);
    }

    fn has_enough(&self) -> bool {
        self.holds.len() >= ENOUGH as usize
    }

    fn is_long(&self) -> bool {
        self.has_enough() && self.above_long as usize * 10 > self.holds.len()
    }

    fn mean(&self) -> Option<Duration> {
        self.has_enough().then(|| Duration::from_micros(self.sum / self.holds.len() as u64))
    }
}

/// Whole microseconds; an hour and more is an hour.
fn micros(held: Duration) -> u32 {
    u32::try_from(held.as_micros()).unwrap_or(u32::MAX).min(3_600_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn services() -> Services {
        Services::new(MS(125), &[Name::from("/api/reports")])
    }

    #[test]
    fn an_operation_is_long_by_its_label_or_when_a_tenth_of_its_holds_are() {
        let mut services = services();
        let report = services.find(&Name::from("/api/reports"));
        assert!(services.is_long(Some(report)), "labelled, never seen");
        let export = Some(services.find(&Name::from("/api/export")));
        (0..18).for_each(|_| services.record_hold(export, None, MS(10)));
        services.record_hold(export, None, MS(3_000));
        assert!(!services.is_long(export), "19 are not enough to tell");
        services.record_hold(export, None, MS(3_000));
        assert!(!services.is_long(export), "two of 20 are a tenth, not more");
        services.record_hold(export, None, MS(3_000));
        assert!(services.is_long(export));
        assert!(!services.is_long(None));
    }

    #[test]
    fn only_the_last_2000_holds_count() {
        let mut services = services();
        let op = Some(services.find(&Name::from("op")));
        (0..2_000).for_each(|_| services.record_hold(op, None, MS(1_000)));
        (0..1_999).for_each(|_| services.record_hold(op, None, MS(10)));
        assert_eq!(services.mean_hold(op), Some(Duration::from_micros(10_495)));
        services.record_hold(op, None, MS(10));
        assert_eq!(services.mean_hold(op), Some(MS(10)));
        assert!(!services.is_long(op));
    }

    #[test]
    fn an_unknown_operation_is_taken_for_the_average_one() {
        let mut services = services();
        let (seen, unseen) = (services.find(&Name::from("seen")), services.find(&Name::from("unseen")));
        assert_eq!(services.mean_hold(Some(unseen)), None);
        (1..=21).for_each(|ms| services.record_hold(Some(seen), None, MS(ms)));
        assert_eq!(services.mean_hold(Some(unseen)), Some(MS(11)));
    }

    #[test]
    fn the_number_of_queries_of_a_job_is_learnt_for_each_operation() {
        let mut services = services();
        let dashboard = services.find(&Name::from("/api/dashboard"));
        (0..19).for_each(|_| services.record_queries(dashboard, 160));
        assert_eq!(services.queries(dashboard), None);
        services.record_queries(dashboard, 160);
        assert_eq!(services.queries(dashboard), Some(160));
    }

    #[test]
    fn operations_beyond_the_bound_are_learnt_together() {
        let mut services = services();
        let all: Vec<_> = (0..1_000).map(|i| services.find(&Name::from(format!("op {i}")))).collect();
        assert_eq!(services.learnt.len(), services.most);
        assert_eq!(all[999], ALL);
        assert_ne!(all[0], ALL);
        services.record_hold(Some(all[999]), None, MS(1));
        assert_eq!(services.learnt[ALL.0].holds.len(), 1, "counted once");
    }
}
