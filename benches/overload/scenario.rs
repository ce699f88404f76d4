//! What happens to the database and to the load, from second to second.
//!
//! Each scenario has three phases: a *lead*, in which everybody is well; the *press*, which is measured; and what
//! comes *after*, when the load is .7 of the capacity and everybody should be well again.

use std::time::Duration;

use crate::SLOTS;

/// Service times are lognormal around this.
pub(crate) const MEAN_MS: f64 = 50.0;
/// The deviation of their logarithm.
pub(crate) const SIGMA: f64 = 0.8;
/// How long a report holds its connection.
pub(crate) const REPORT_MS: u32 = 3000;

/// One scenario.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) key: &'static str,
    pub(crate) about: &'static str,
    pub(crate) lead: Phase,
    pub(crate) press: Phase,
    pub(crate) after: Phase,
    /// The share of requests that is critical; the rest is normal and sheddable in equal parts.
    pub(crate) critical: f64,
    /// The share of requests that is reports.
    pub(crate) reports: f64,
    /// By how much queries that are sent in the press take longer.
    pub(crate) slower: u32,
    pub(crate) dashboards: Option<Dashboards>,
    pub(crate) trouble: Trouble,
    /// Callers try three times more, 100 ms after each failure.
    pub(crate) retries: bool,
    /// How many runs the headline has, unless asked otherwise.
    pub(crate) seeds: u64,
}

/// Seconds, and a load in shares of the capacity.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) seconds: f64,
    pub(crate) load: f64,
}

/// Users who open a dashboard at the beginning of the press, all within half a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dashboards {
    pub(crate) users: u32,
    pub(crate) queries: u32,
    /// Queries of one dashboard that are sent at once.
    pub(crate) parallel: usize,
    /// How often they come, evenly over the press.
    pub(crate) waves: u32,
}

/// What befalls the server at the beginning of the press, until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    None,
    /// Somebody else takes this many of its sessions.
    Outsider(u32),
    /// All of its sessions stand still (SIGSTOP).
    Stall,
}

impl Phase {
    const fn new(seconds: f64, load: f64) -> Self {
        Self { seconds, load }
    }

    pub(crate) fn length(self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

impl Scenario {
    const fn new(key: &'static str, about: &'static str, phases: [Phase; 3]) -> Self {
        let [lead, press, after] = phases;
        Self {
            key,
            about,
            lead,
            press,
            after,
            critical: 0.2,
            reports: 0.0,
            slower: 1,
            dashboards: None,
            trouble: Trouble::None,
            retries: false,
            seeds: 1,
        }
    }

    /// How long a query takes on average, in milliseconds, before the database gets slower.
    pub(crate) fn mean_ms(&self) -> f64 {
        self.reports * f64::from(REPORT_MS) + (1.0 - self.reports) * MEAN_MS
    }

    /// Requests a second at this load.
    pub(crate) fn rate(&self, load: f64) -> f64 {
        load * f64::from(SLOTS) * 1000.0 / self.mean_ms()
    }

    /// Connections that can be had in the press.
    pub(crate) fn slots_in_press(&self) -> u32 {
        match self.trouble {
            Trouble::Outsider(taken) => SLOTS.min(crate::server::SLOTS - taken),
            Trouble::None | Trouble::Stall => SLOTS,
        }
    }

    /// Connections that are open before it begins. An outsider can only take what is left.
    pub(crate) fn open_before(&self) -> u32 {
        match self.trouble {
            Trouble::Outsider(taken) => crate::server::SLOTS - taken - 4,
            Trouble::None | Trouble::Stall => SLOTS,
        }
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.lead.seconds + self.press.seconds + self.after.seconds
    }

    /// The same with phases of so many seconds.
    pub(crate) const fn lasting(mut self, lead: f64, press: f64, after: f64) -> Self {
        self.lead.seconds = lead;
        self.after.seconds = after;
        self.pressed_for(press)
    }

    /// The same with a press of `seconds`.
    pub(crate) const fn pressed_for(mut self, seconds: f64) -> Self {
        self.press.seconds = seconds;
        self
    }
}

/// A load that is high and steady, on which nothing should happen. It takes long, so it runs only if asked for.
pub(crate) fn steady() -> Vec<Scenario> {
    let of = |key, about, load| {
        Scenario::new(key, about, [Phase::new(2.0, load), Phase::new(120.0, load), Phase::new(0.5, load)])
    };
    vec![of("S75", "three quarters of the capacity, steadily", 0.75), of("S80", "four fifths of it", 0.8)]
}

/// All scenarios, in order.
pub(crate) fn all() -> Vec<Scenario> {
    let of = |key, about, lead, (press, load), after| {
        let phases = [Phase::new(lead, 0.5), Phase::new(press, load), Phase::new(after, 0.7)];
        Scenario::new(key, about, phases)
    };
    let dashboards = Dashboards { users: 10, queries: 160, parallel: 10, waves: 2 };
    vec![
        of("A.5", "half the capacity: nothing should be felt", 1.0, (4.0, 0.5), 0.5),
        Scenario { seeds: 3, ..of("A2", "twice the capacity", 1.5, (8.0, 2.0), 3.5) },
        Scenario {
            seeds: 3,
            critical: 0.05,
            ..of("A10", "ten times the capacity, 5 % of it critical", 1.0, (4.0, 10.0), 2.5)
        },
        of(
            "A10H",
            "ten times the capacity, 20 % of it critical: twice the capacity alone",
            1.0,
            (4.0, 10.0),
            2.5,
        ),
        Scenario {
            seeds: 3,
            dashboards: Some(dashboards),
            ..of(
                "B",
                "10 users open dashboards of 160 queries, 10 at a time, twice, on half the capacity",
                1.0,
                (6.0, 0.5),
                0.5,
            )
        },
        Scenario {
            dashboards: Some(Dashboards { parallel: 160, ..dashboards }),
            ..of("B160", "the same, each with all 160 at once", 1.0, (6.0, 0.5), 0.5)
        },
        Scenario {
            slower: 4,
            ..of("C", "the database is four times slower, the load stays at .7", 1.5, (5.0, 0.7), 3.5)
        },
        Scenario {
            trouble: Trouble::Outsider(60),
            // So low that no more connections are opened than the outsider leaves.
            lead: Phase::new(1.0, 0.2),
            ..of(
                "D",
                "somebody else takes 60 of the 97 sessions; what is left is loaded 1.5 times",
                1.0,
                (6.0, 0.62),
                3.0,
            )
        },
        Scenario {
            reports: 0.03,
            ..of("E", "3 % reports that hold for 3 s, at 1.2 times the capacity", 1.0, (8.0, 1.2), 2.5)
        },
        Scenario {
            trouble: Trouble::Stall,
            retries: true,
            ..of("F", "all sessions stand still for 3 s, callers try again three times", 1.0, (3.0, 0.7), 4.0)
        },
    ]
}
