//! The incident of 09:40:20, line by line.

use super::*;
use crate::alert::{Incident, Noticed, Peak, Resolution};

/// Times in ms since 09:40:00.
fn dashboard(mode: Mode) -> Told {
    let mut told = Told::new(Policy::default(), mode);
    told.level(20_200, Level::Normal, Level::Warning, 85);
    told.level(20_700, Level::Warning, Level::Critical, 92);
    told.level(21_000, Level::Critical, Level::Warning, 88);
    told.level(21_200, Level::Warning, Level::Normal, 45);
    told.run_to(60_000);
    told
}

#[test]
fn the_log_tells_the_incident_of_09_40_20() {
    let told = dashboard(Mode::Act);
    let log = [
        "20.200 Connection pool at 85% (85/100) - Warning threshold",
        "20.200 Mitigation activated: sheddable endpoints shed, batch 10→50, 5 per user",
        "20.700 CRITICAL: Connection pool at 92% - Emergency measures",
        "21.000 Connection pool recovered to 88%",
        "21.200 Normal operations resumed",
        "22.200 System fully recovered",
    ];
    assert_eq!(told.log, log);
    let news = [
        "opened 1",
        "warning pool_pressure pool:main",
        "escalated 1",
        "critical pool_pressure pool:main",
        "resolved 1",
        "info pool_pressure pool:main",
    ];
    assert_eq!(told.news, news);
}

#[test]
fn the_incident_remembers_its_peak_its_actions_and_its_recovery() {
    let told = dashboard(Mode::Act);
    let incident: &Incident = told.machine.incidents().next().expect("there was one");
    assert_eq!(incident.peak, Some(Peak { in_use: 92, max: 100 }));
    assert_eq!(incident.severity, Severity::Critical);
    assert_eq!(incident.phase, Phase::Resolved);
    assert_eq!(incident.resolution, Some(Resolution::Auto));
    assert_eq!(incident.recovered_in(), Some(std::time::Duration::from_secs(1)));
    assert_eq!(incident.impact, Noticed::default());
    assert_eq!(&*incident.cause, "85 of 100 connections in use, 7 waiting");
    let actions: Vec<_> =
        incident.actions.iter().map(|deed| (deed.action, deed.taken_at, deed.undone_at)).collect();
    let mitigation = MITIGATION.map(|action| (action, MS(20_200), Some(MS(21_200))));
    let emergency = EMERGENCY.map(|action| (action, MS(20_700), Some(MS(21_000))));
    assert_eq!(actions, [mitigation, emergency].concat());
}

#[test]
fn critical_straight_from_normal_is_told_in_full_at_one_moment() {
    let mut told = Told::new(Policy::default(), Mode::Act);
    told.level(20_200, Level::Normal, Level::Warning, 100);
    told.level(20_200, Level::Warning, Level::Critical, 100);
    told.run_to(20_500);
    let log = [
        "20.200 Connection pool at 100% (100/100) - Warning threshold",
        "20.200 Mitigation activated: sheddable endpoints shed, batch 10→50, 5 per user",
        "20.200 CRITICAL: Connection pool at 100% - Emergency measures",
    ];
    assert_eq!(told.log, log);
}

#[test]
fn in_mode_observe_the_log_says_what_would_have_been_done() {
    let told = dashboard(Mode::Observe);
    let log = [
        "20.200 Connection pool at 85% (85/100) - Warning threshold",
        "20.200 Would have activated mitigation: sheddable endpoints shed, batch 10→50, 5 per user",
        "20.700 CRITICAL: Connection pool at 92% - Emergency measures would have been taken",
        "21.000 Connection pool recovered to 88%",
        "21.200 Normal operations resumed",
        "22.200 System fully recovered",
    ];
    assert_eq!(told.log, log);
    let incident = told.machine.incidents().next().expect("there was one");
    assert!(incident.actions.iter().all(|deed| deed.would));
}

#[test]
fn the_emergency_line_carries_its_actions_as_a_field() {
    let mut told = Told::new(Policy::default(), Mode::Act);
    told.level(0, Level::Normal, Level::Warning, 85);
    told.level(500, Level::Warning, Level::Critical, 92);
    let said = told.machine.on_tick(MS(500));
    let actions = said.iter().find_map(|effect| match effect {
        Effect::Say { line, .. } => line.actions(),
        Effect::Phase { .. } | Effect::Alert { .. } | Effect::Ended { .. } => None,
    });
    let emergency = "critical queries only, optional work left out, deferred work paused";
    assert_eq!(actions.as_deref(), Some(emergency));
}
