use std::hash::{BuildHasher, RandomState};

use super::*;
use crate::alert::{Delta, Impact, SERVICE, Users};

/// How far the estimate is off for `users` distinct ones, as a share of them.
fn error(users: u64) -> f64 {
    let (impact, key) = (Impact::default(), RandomState::new());
    for user in 0..users {
        // Each is refused twice; that does not make two of them.
        impact.shed(Some(key.hash_one(user)));
        impact.late(Some(key.hash_one(user)));
    }
    let estimate = impact.drain().users.count();
    (estimate as f64 - users as f64).abs() / users as f64
}

#[test]
fn users_are_counted_within_the_error_that_is_documented() {
    assert_eq!(Users::default().count(), 0);
    assert!(error(1) < 1e-9);
    // Five standard errors: once in two million runs for a reason other than a mistake.
    assert!(error(1_000) < 5.0 * 0.012);
    assert!(error(10_000) < 5.0 * 0.018);
}

#[test]
fn more_users_than_can_be_told_apart_are_reported_as_that_many() {
    let (impact, key) = (Impact::default(), RandomState::new());
    (0..500_000u64).for_each(|user| impact.failed(Some(key.hash_one(user))));
    let count = impact.drain().users.count();
    assert!((30_000..=35_000).contains(&count), "{count}");
}

#[test]
fn a_cell_gives_what_was_counted_once() {
    let impact = Impact::default();
    impact.clone().omitted();
    impact.failed(None);
    let first = impact.drain();
    assert_eq!((first.omitted, first.failed, first.users.count()), (1, 1, 0));
    assert!(impact.drain().is_nothing());
}

#[test]
fn impact_belongs_to_the_incidents_of_its_subject_and_rules_out_an_info() {
    let mut told = Told::new(Policy::default(), Mode::Act);
    let refused = |shed| Delta { shed, ..Delta::default() };
    told.machine.on_impact("pool:main", &refused(9));
    told.level_of("main", 0, (Level::Normal, Level::Warning), 90, false);
    told.level_of("other", 0, (Level::Normal, Level::Warning), 90, false);
    told.machine.on_impact("pool:main", &refused(41));
    told.machine.on_impact(SERVICE, &Delta { failed: 1, ..Delta::default() });
    told.level_of("main", 1_000, (Level::Warning, Level::Normal), 40, false);
    told.level_of("other", 1_000, (Level::Warning, Level::Normal), 40, false);
    told.run_to(10_000);
    let noticed: Vec<_> =
        told.machine.incidents().map(|i| (&*i.subject, i.impact.shed, i.impact.failed)).collect();
    assert_eq!(noticed, [("pool:other", 0, 1), ("pool:main", 41, 1)], "nothing from before it was open");
    assert!(!told.news.iter().any(|news| news.starts_with("info")), "somebody noticed");
}
