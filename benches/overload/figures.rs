//! What a run comes to.

use std::time::Duration;

use selfheal::level::Class;
use selfheal_benches::{machine::Share, quantile};
use serde::Serialize;

use crate::{
    SLOTS,
    client::{Fate, Fates, Outcome},
    contender::{Fault, Kind},
    fixture::Written,
    load::{Shot, Work},
    scenario::{Phase, REPORT_MS, Scenario},
};

/// Goodput is taken from so long after the beginning of a phase, or longer where queries are long: what was begun before is
/// done by then. Dashboards all come at the beginning, and are done within the phase: there it is taken from all of it.
const SETTLED: Duration = Duration::from_millis(500);
/// Mitigation and recovery are looked for in steps of this.
const BIN: Duration = Duration::from_millis(500);
/// A run is void if its requests were made later than this (the 99th of 100) …
const GENERATOR_LATE: Duration = Duration::from_millis(1);
/// … or were first polled later than this: then the host itself was short of time, whatever the contender did …
const POLLED_LATE: Duration = Duration::from_millis(6);
/// … or if the machine was busier than this.
const BUSY: f64 = 0.9;

/// Which run it is.
pub(crate) struct Setting<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) contender: Kind,
    pub(crate) seed: u64,
}

/// Shares are from 0 to 1; times are in milliseconds, and infinite (null in JSON) where something never happened.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) scenario: &'static str,
    pub(crate) contender: &'static str,
    pub(crate) seed: u64,
    pub(crate) press: Part,
    pub(crate) after: Part,
    /// From the beginning of the press until no more than 1 % of the critical requests of any half second was lost.
    pub(crate) mitigated: f64,
    /// From the end of the press until 95 % of all requests that are possible succeed, in every half second.
    pub(crate) recovered: f64,
    /// Where there is a gate.
    pub(crate) at_gate: Option<AtGate>,
    pub(crate) dashboards: u32,
    pub(crate) dashboards_done: u32,
    /// How soon a refused caller knew.
    pub(crate) refused_p50: f64,
    pub(crate) refused_p99: f64,
    pub(crate) requests: usize,
    pub(crate) tries: u64,
    pub(crate) refused: usize,
    pub(crate) late: usize,
    pub(crate) server_full: usize,
    pub(crate) pool_timed_out: usize,
    pub(crate) other_errors: usize,
    /// Requests of which nothing ever became.
    pub(crate) without_outcome: usize,
    pub(crate) written: Written,
    pub(crate) generator_late: f64,
    pub(crate) polled_late: f64,
    pub(crate) machine_busy: f64,
    pub(crate) host_busy: f64,
    /// Why the run says nothing.
    pub(crate) void: Option<&'static str>,
}

/// What the gate told in the press.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct AtGate {
    /// Of the critical work that got a connection, the share that waited there for 5 ms or less.
    pub(crate) within: f64,
    /// How often the level of the pool changed.
    pub(crate) level_changes: u32,
}

/// What a phase comes to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Part {
    /// Connection time of what was done in its deadline, as a share of what was offered, or of the capacity where that is
    /// less.
    pub(crate) goodput: f64,
    /// Critical requests done, less those that an idle system would have done of the same ones, in points of 100.
    pub(crate) critical: f64,
    /// What a critical request that was done took beyond its own query.
    pub(crate) wait_p50: f64,
    pub(crate) wait_p99: f64,
    /// Of those that an idle system would have done.
    pub(crate) normal: f64,
    pub(crate) sheddable: f64,
}

/// Ids that callers were told are written.
pub(crate) fn acknowledged(shots: &[Shot], fates: &Fates) -> Vec<i64> {
    let pairs = shots.iter().zip(&fates.fates);
    pairs
        .filter_map(|(shot, fate)| match (&shot.work, fate) {
            (Work::Single(query), Some(Fate { outcome: Outcome::Done, .. })) => query.writes,
            (Work::Single(_) | Work::Dashboard { .. }, _) => None,
        })
        .collect()
}

pub(crate) fn of(
    setting: &Setting<'_>,
    shots: &[Shot],
    fates: &Fates,
    written: Written,
    share: Share,
) -> Figures {
    let Setting { scenario, contender, seed } = setting;
    let known: Vec<_> =
        shots.iter().zip(&fates.fates).filter_map(|(shot, fate)| Some((shot, (*fate)?))).collect();
    let begins = scenario.lead.length();
    let ends = begins + scenario.press.length();
    let seen = Seen { known: &known };
    let count = |is: fn(Outcome) -> bool| known.iter().filter(|(_, fate)| is(fate.outcome)).count();
    let dashboards = || known.iter().filter(|(shot, _)| shot.is_dashboard());
    let is_done = |(_, fate): &&(&Shot, Fate)| fate.outcome == Outcome::Done;
    let refused = || known.iter().filter(|(_, fate)| fate.outcome == Outcome::Failed(Fault::Refused));
    Figures {
        scenario: scenario.key,
        contender: contender.name(),
        seed: *seed,
        press: seen.part(begins, scenario.press, scenario.slots_in_press()),
        after: seen.part(ends, scenario.after, SLOTS),
        mitigated: seen.settled(begins, scenario.press, seen.critical_is_safe()),
        recovered: seen.settled(ends, scenario.after, seen.all_is_well()),
        at_gate: None,
        dashboards: dashboards().count() as u32,
        dashboards_done: dashboards().filter(is_done).count() as u32,
        refused_p50: percentile(refused().map(|(_, fate)| fate.took), 0.5),
        refused_p99: percentile(refused().map(|(_, fate)| fate.took), 0.99),
        requests: shots.len(),
        tries: known.iter().map(|(_, fate)| u64::from(fate.tries)).sum(),
        refused: count(|outcome| outcome == Outcome::Failed(Fault::Refused)),
        late: count(|outcome| outcome == Outcome::Late),
        server_full: count(|outcome| outcome == Outcome::Failed(Fault::ServerFull)),
        pool_timed_out: count(|outcome| outcome == Outcome::Failed(Fault::PoolTimedOut)),
        other_errors: count(|outcome| outcome == Outcome::Failed(Fault::Database)),
        without_outcome: shots.len() - known.len(),
        written,
        generator_late: ms(fates.generator_late),
        polled_late: ms(fates.polled_late),
        machine_busy: share.machine,
        host_busy: share.own,
        void: void(fates, share),
    }
}

fn void(fates: &Fates, share: Share) -> Option<&'static str> {
    if fates.generator_late > GENERATOR_LATE {
        Some("requests were made late")
    } else if fates.polled_late > POLLED_LATE {
        Some("requests were polled late")
    } else if share.machine > BUSY {
        Some("the machine was busy")
    } else {
        None
    }
}

/// All requests of which something became.
struct Seen<'a> {
    known: &'a [(&'a Shot, Fate)],
}

/// Of some requests: how many are possible at all, and how many of these were done.
#[derive(Clone, Copy, Default)]
struct Success {
    all: usize,
    possible: usize,
    done: usize,
}

impl Seen<'_> {
    /// A phase that begins then.
    fn part(&self, begins: Duration, phase: Phase, slots: u32) -> Part {
        let ends = begins + phase.length();
        let waits = || {
            self.due(begins, ends)
                .filter(|(shot, fate)| shot.class == Class::Critical && fate.outcome == Outcome::Done)
                .map(|(shot, fate)| fate.took.saturating_sub(Duration::from_secs_f64(shot.work_seconds())))
        };
        let dashboards = self.due(begins, ends).any(|(shot, _)| shot.is_dashboard());
        let reports = self.due(begins, ends).any(|(shot, _)| shot.is_report());
        let settled = match (dashboards, reports) {
            (true, _) => begins,
            (false, true) => begins + Duration::from_millis(REPORT_MS.into()) + SETTLED,
            (false, false) => begins + SETTLED,
        };
        let of = |class| self.success(begins, ends, |shot| shot.class == class && !shot.is_dashboard());
        Part {
            goodput: self.goodput(settled, ends, slots),
            critical: of(Class::Critical).lost(),
            wait_p50: percentile(waits(), 0.5),
            wait_p99: percentile(waits(), 0.99),
            normal: of(Class::Normal).share(),
            sheddable: of(Class::Sheddable).share(),
        }
    }

    fn due(&self, from: Duration, to: Duration) -> impl Iterator<Item = &(&Shot, Fate)> {
        self.known.iter().filter(move |(shot, _)| (from..to).contains(&shot.due))
    }

    /// Both counts are of the same time: what is done in it, and what is offered in it.
    fn goodput(&self, from: Duration, to: Duration, slots: u32) -> f64 {
        let done = self
            .known
            .iter()
            .filter(|(_, fate)| fate.outcome == Outcome::Done && (from..to).contains(&fate.known));
        let done: f64 = done.map(|(shot, _)| shot.work_seconds()).sum();
        let offered: f64 = self.due(from, to).map(|(shot, _)| shot.work_seconds()).sum();
        // The sum of nothing is -0.
        (done + 0.0) / offered.min(f64::from(slots) * to.saturating_sub(from).as_secs_f64())
    }

    fn success(&self, from: Duration, to: Duration, of: impl Fn(&Shot) -> bool) -> Success {
        let mut success = Success::default();
        for (shot, fate) in self.due(from, to).filter(|(shot, _)| of(shot)) {
            success.all += 1;
            success.possible += usize::from(shot.is_possible());
            success.done += usize::from(fate.outcome == Outcome::Done);
        }
        success
    }

    /// How long after the beginning of a phase all is well in every step until its end.
    fn settled(&self, begins: Duration, phase: Phase, is_well: impl Fn(Duration, Duration) -> bool) -> f64 {
        let bins = (phase.seconds / BIN.as_secs_f64()) as u32;
        let bin = |number: u32| begins + BIN * number;
        let last_bad = (0..bins).rev().find(|&number| !is_well(bin(number), bin(number + 1)));
        match last_bad {
            None => 0.0,
            Some(last) if last + 1 == bins => f64::INFINITY,
            Some(last) => ms(BIN * (last + 1)),
        }
    }

    fn critical_is_safe(&self) -> impl Fn(Duration, Duration) -> bool {
        |from, to| {
            let success = self.success(from, to, |shot| shot.class == Class::Critical);
            let lost = success.possible.saturating_sub(success.done);
            // One alone is no sign.
            lost <= 1 || lost as f64 <= 0.01 * success.all as f64
        }
    }

    fn all_is_well(&self) -> impl Fn(Duration, Duration) -> bool {
        |from, to| self.success(from, to, |_| true).share() >= 0.95
    }
}

impl Success {
    /// Points of 100, below zero if some were lost.
    fn lost(self) -> f64 {
        (self.done as f64 - self.possible as f64) / self.all.max(1) as f64 * 100.0
    }

    fn share(self) -> f64 {
        self.done as f64 / self.possible.max(1) as f64
    }
}

fn percentile(values: impl Iterator<Item = Duration>, q: f64) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    quantile(&values, q).map_or(f64::NAN, ms)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
