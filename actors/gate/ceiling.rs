//! How many connections each class may take the pool's use up to.
//!
//! The ceilings never rise from a better class to a worse one. So when a better class waits at its ceiling, all
//! worse ones are at theirs as well: nobody is overtaken, and the order of turns needs no exception for it.

use std::time::Duration;

use crate::{
    clock::Tick,
    gate::{Policy, Reserve},
    level::Class,
};

/// How often a limit that a full server has cut grows back by one; a second cut within that time is the same
/// fact told twice.
const REGROWTH: Duration = Duration::from_secs(1);

/// The limit and what lies below it.
#[derive(Clone, Debug)]
pub(super) struct Ceilings {
    limit: u32,
    cut: Option<Cut>,
    only: Option<Only>,
    undo_step: Duration,
    /// With a static reserve: the shares of normal work, and of what is below it.
    shares: Option<(f64, f64)>,
    exit: f64,
}

/// The server was full when the limit was more than `to`.
#[derive(Clone, Copy, Debug)]
struct Cut {
    to: u32,
    at: Tick,
}

/// Only critical work may grow.
#[derive(Clone, Copy, Debug)]
struct Only {
    ceiling: u32,
    /// Since when it is being undone.
    undone: Option<Tick>,
}

impl Ceilings {
    pub(super) fn new(policy: &Policy, limit: u32) -> Self {
        let shares = match policy.reserve {
            Reserve::Auto => None,
            Reserve::Static => Some((policy.critical, policy.warning.min(policy.critical))),
        };
        let (undo_step, exit) = (policy.undo_step.max(Duration::from_millis(1)), policy.critical_exit);
        Self { limit, cut: None, only: None, undo_step, shares, exit }
    }

    pub(super) const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// The limit in force.
    pub(super) fn limit(&self, now: Tick) -> u32 {
        self.cut.map_or(self.limit, |cut| self.limit.min(cut.to.saturating_add(steps(cut.at, now, REGROWTH))))
    }

    /// The server refused a connection: there is less than was thought.
    pub(super) fn server_full(&mut self, now: Tick) {
        if self.cut.is_some_and(|cut| now.since(cut.at) < REGROWTH) {
            return;
        }
        let to = (self.limit(now) * 7 / 10).max(1);
        self.cut = Some(Cut { to, at: now });
    }

    /// From now on work that is not critical may replace what it has, and never grow beyond `used`; the last
    /// one at least may always run.
    pub(super) fn hold_at(&mut self, used: u32, now: Tick) {
        if self.only.is_some_and(|only| only.undone.is_none()) {
            return;
        }
        let most = if self.shares.is_some() { share(self.exit, self.limit(now)) } else { u32::MAX };
        self.only = Some(Only { ceiling: used.min(most).max(1), undone: None });
    }

    /// From now on the ceiling of work that is not critical rises again.
    pub(super) fn undo(&mut self, now: Tick) {
        if let Some(only) = self.only.as_mut() {
            only.undone.get_or_insert(now);
        }
    }

    /// How far the use of the pool may go when work of `class` is granted.
    pub(super) fn of(&self, class: Class, now: Tick) -> u32 {
        let limit = self.limit(now);
        let Some(reserved) = self.share_of(class) else { return limit };
        let only = self.only.map_or(u32::MAX, |only| only.at(self.undo_step, now));
        reserved.map_or(limit, |fraction| share(fraction, limit)).min(limit).min(only)
    }

    /// When a ceiling rises next by itself.
    pub(super) fn next_step(&self, now: Tick) -> Option<Tick> {
        let grows = self.cut.filter(|_| self.limit(now) < self.limit);
        let grows = grows.map(|cut| next(cut.at, now, REGROWTH));
        let rising = self.only.filter(|only| only.at(self.undo_step, now) < self.limit(now));
        let rises = rising.and_then(|only| Some(next(only.undone?, now, self.undo_step)));
        grows.into_iter().chain(rises).min()
    }

    /// `None` for critical work, which has no ceiling but the limit; else its share, if it has one.
    const fn share_of(&self, class: Class) -> Option<Option<f64>> {
        match (class, self.shares) {
            (Class::Critical, _) => None,
            (Class::Normal, Some((normal, _))) => Some(Some(normal)),
            (Class::Sheddable | Class::Background, Some((_, below))) => Some(Some(below)),
            (Class::Normal | Class::Sheddable | Class::Background, None) => Some(None),
        }
    }
}

impl Only {
    fn at(self, step: Duration, now: Tick) -> u32 {
        self.undone.map_or(self.ceiling, |since| self.ceiling.saturating_add(steps(since, now, step)))
    }
}

/// `fraction` of `limit`, rounded down, and at least one if there is any: a share of nothing would wait for ever.
pub(super) fn share(fraction: f64, limit: u32) -> u32 {
    // The small addition keeps 0.29 of 100 at 29, where floating point has 28.999….
    ((f64::from(limit) * fraction + 1e-9) as u32).clamp(limit.min(1), limit)
}

fn steps(since: Tick, now: Tick, step: Duration) -> u32 {
    u32::try_from(now.since(since).as_nanos() / step.as_nanos()).unwrap_or(u32::MAX)
}

fn next(since: Tick, now: Tick, step: Duration) -> Tick {
    since + step.saturating_mul(steps(since, now, step).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Tick = Tick::from_millis;

    fn ceilings(reserve: Reserve) -> Ceilings {
        Ceilings::new(&Policy { reserve, ..Policy::default() }, 100)
    }

    #[test]
    fn without_a_reserve_everyone_may_use_the_whole_limit_and_with_a_static_one_the_seeds_shares() {
        let (auto, fixed) = (ceilings(Reserve::Auto), ceilings(Reserve::Static));
        let of = |ceilings: &Ceilings| Class::ALL.iter().map(|&c| ceilings.of(c, MS(0))).collect::<Vec<_>>();
        assert_eq!(of(&auto), [100, 100, 100, 100]);
        assert_eq!(of(&fixed), [100, 92, 85, 85]);
    }

    #[test]
    fn while_only_critical_work_grows_the_others_keep_what_they_have_and_get_it_back_step_by_step() {
        let mut auto = ceilings(Reserve::Auto);
        auto.hold_at(93, MS(0));
        auto.hold_at(20, MS(10));
        assert_eq!(auto.of(Class::Normal, MS(5_000)), 93, "asked twice is asked once");
        assert_eq!(auto.of(Class::Critical, MS(5_000)), 100);
        auto.undo(MS(5_000));
        assert_eq!(auto.of(Class::Background, MS(5_049)), 93);
        assert_eq!(auto.of(Class::Background, MS(5_050)), 94);
        assert_eq!(auto.next_step(MS(5_050)), Some(MS(5_100)));
        assert_eq!(auto.of(Class::Normal, MS(5_350)), 100);
        assert_eq!(auto.next_step(MS(5_350)), None, "it is gone");
        auto.hold_at(0, MS(6_000));
        assert_eq!(auto.of(Class::Normal, MS(6_000)), 1, "never nothing");
    }

    #[test]
    fn with_a_static_reserve_critical_work_gets_the_rest_above_the_exit_at_once() {
        let mut fixed = ceilings(Reserve::Static);
        fixed.hold_at(93, MS(0));
        assert_eq!(fixed.of(Class::Normal, MS(0)), 88);
        assert_eq!(fixed.of(Class::Sheddable, MS(0)), 85);
    }

    #[test]
    fn a_full_server_cuts_the_limit_which_grows_back_by_one_a_second() {
        let mut auto = ceilings(Reserve::Auto);
        auto.server_full(MS(0));
        auto.server_full(MS(999));
        assert_eq!(auto.limit(MS(999)), 70, "told twice is told once");
        assert_eq!(auto.limit(MS(1_000)), 71);
        auto.server_full(MS(1_000));
        assert_eq!(auto.limit(MS(1_000)), 49);
        assert_eq!(auto.limit(MS(60_000)), 100);
        assert_eq!(auto.next_step(MS(60_000)), None);
        auto.set_limit(1);
        auto.server_full(MS(70_000));
        assert_eq!(auto.limit(MS(70_000)), 1);
    }
}
