//! The load of a scenario: fixed before it is sent, and the same for every contender.

use std::{sync::Arc, time::Duration};

use selfheal::level::Class;
use selfheal_benches::Dice;

use crate::scenario::{Dashboards, MEAN_MS, Phase, REPORT_MS, SIGMA, Scenario};

/// Users among whom single requests are spread.
const USERS: u64 = 2000;
/// A wave of dashboards is opened within this.
const CLICKS_OVER: f64 = 0.5;

/// A request that will be made.
#[derive(Debug)]
pub(crate) struct Shot {
    /// When, from the beginning.
    pub(crate) due: Duration,
    pub(crate) class: Class,
    pub(crate) user: Arc<str>,
    /// Its answer is of no use after this.
    pub(crate) patience: Duration,
    pub(crate) work: Work,
}

/// What it makes the database do. Times are in milliseconds.
#[derive(Debug)]
pub(crate) enum Work {
    /// One query.
    Single(Query),
    /// Many, so many at once.
    Dashboard { queries: Vec<Query>, parallel: usize },
}

/// One query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    /// How long it holds its connection.
    pub(crate) ms: u32,
    /// What it writes down when it is done, if it writes.
    pub(crate) writes: Option<i64>,
    pub(crate) operation: &'static str,
}

/// How long callers of a class wait for the answer to a single request.
const fn patience(class: Class) -> Duration {
    match class {
        Class::Critical => Duration::from_millis(250),
        Class::Normal | Class::Sheddable | Class::Background => Duration::from_secs(1),
    }
}

const REPORT: &str = "report";
const REPORT_PATIENCE: Duration = Duration::from_secs(10);
const DASHBOARD_PATIENCE: Duration = Duration::from_secs(3);

impl Shot {
    /// The time for which it holds connections, in seconds.
    pub(crate) fn work_seconds(&self) -> f64 {
        let ms: u64 = match &self.work {
            Work::Single(query) => query.ms.into(),
            Work::Dashboard { queries, .. } => queries.iter().map(|query| u64::from(query.ms)).sum(),
        };
        ms as f64 / 1000.0
    }

    /// Whether it would be done in time on a system that does nothing else.
    pub(crate) fn is_possible(&self) -> bool {
        match &self.work {
            Work::Single(query) => query.holds() <= self.patience,
            Work::Dashboard { queries, .. } => queries.iter().all(|query| query.holds() <= self.patience),
        }
    }

    pub(crate) fn is_report(&self) -> bool {
        matches!(&self.work, Work::Single(query) if query.operation == REPORT)
    }

    pub(crate) const fn is_dashboard(&self) -> bool {
        matches!(self.work, Work::Dashboard { .. })
    }
}

impl Query {
    /// A read that is done at once.
    pub(crate) const NOTHING: Self = Self { ms: 0, writes: None, operation: "warm-up" };

    pub(crate) const fn holds(&self) -> Duration {
        Duration::from_millis(self.ms as u64)
    }

    /// A read that takes as long as most do.
    pub(crate) fn drawn(dice: &mut Dice, operation: &'static str) -> Self {
        // PostgreSQL sleeps for whole milliseconds: then the time that was drawn is the time it takes.
        let ms = dice.lognormal(MEAN_MS, SIGMA).round().max(1.0);
        Self { ms: ms as u32, writes: None, operation }
    }
}

/// The load of a scenario, in order of time.
pub(crate) fn shots(scenario: &Scenario, seed: u64) -> Vec<Shot> {
    let mut drawing = Drawing {
        scenario,
        dice: Dice::new(seed),
        users: (0..USERS).map(|n| format!("user-{n}").into()).collect(),
        shots: Vec::new(),
    };
    let mut start = 0.0;
    for (phase, slower) in [(scenario.lead, 1), (scenario.press, scenario.slower), (scenario.after, 1)] {
        drawing.phase(start, phase, slower);
        start += phase.seconds;
    }
    if let Some(dashboards) = scenario.dashboards {
        drawing.dashboards(dashboards);
    }
    drawing.shots.sort_by_key(|shot| shot.due);
    drawing.shots
}

struct Drawing<'a> {
    scenario: &'a Scenario,
    dice: Dice,
    users: Vec<Arc<str>>,
    shots: Vec<Shot>,
}

impl Drawing<'_> {
    /// Poisson arrivals.
    fn phase(&mut self, start: f64, phase: Phase, slower: u32) {
        let gap = 1.0 / self.scenario.rate(phase.load);
        let mut at = start + self.dice.exponential(gap);
        while at < start + phase.seconds {
            let shot = self.single(at, slower);
            self.shots.push(shot);
            at += self.dice.exponential(gap);
        }
    }

    fn single(&mut self, at: f64, slower: u32) -> Shot {
        let roll = self.dice.roll();
        let Scenario { critical, reports, .. } = *self.scenario;
        let (class, operation) = if roll < critical {
            (Class::Critical, "assign")
        } else if roll < critical + reports {
            (Class::Sheddable, REPORT)
        } else if (roll - critical - reports) < (1.0 - critical - reports) / 2.0 {
            (Class::Normal, "list")
        } else {
            (Class::Sheddable, "analytics")
        };
        // Drawn for a report too, so that its neighbours' times do not depend on it.
        let mut query = Query::drawn(&mut self.dice, operation);
        let is_report = operation == REPORT;
        if is_report {
            query.ms = REPORT_MS;
        }
        query.ms *= slower;
        query.writes = (class == Class::Critical).then_some(self.shots.len() as i64);
        let user = self.dice.below(USERS) as usize;
        Shot {
            due: Duration::from_secs_f64(at),
            class,
            user: Arc::clone(&self.users[user]),
            patience: if is_report { REPORT_PATIENCE } else { patience(class) },
            work: Work::Single(query),
        }
    }

    fn dashboards(&mut self, Dashboards { users, queries, parallel, waves }: Dashboards) {
        let Scenario { lead, press, .. } = *self.scenario;
        for wave in 0..waves {
            let begins = lead.seconds + press.seconds * f64::from(wave) / f64::from(waves);
            for user in 0..users {
                let at = begins + CLICKS_OVER * f64::from(user) / f64::from(users);
                let queries = (0..queries).map(|_| Query::drawn(&mut self.dice, "dashboard")).collect();
                self.shots.push(Shot {
                    due: Duration::from_secs_f64(at),
                    class: Class::Normal,
                    user: format!("manager-{user}").into(),
                    patience: DASHBOARD_PATIENCE,
                    work: Work::Dashboard { queries, parallel },
                });
            }
        }
    }
}
