//! The incident of 09:15: a capture of spam asks for what is not allowed.

use super::*;
use crate::{
    alert::{Attempts, Kind, Resolution},
    signal::Edge,
};

fn told() -> Told {
    Told::new(Policy::default(), Mode::Act)
}

fn blocked_by(operation: &str, edges: &[(&str, u64)], made: u64, would: bool) -> Signal {
    let edges =
        edges.iter().map(|(from, count)| Edge { from: name(from), to: name("SPAM_REVIEW"), count: *count });
    let operation = Some(name(operation));
    Signal::Blocked { machine: name("message"), operation, edges: edges.collect(), made, would }
}

fn blocked(edges: &[(&str, u64)], made: u64) -> Signal {
    blocked_by("spam-capture", edges, made, false)
}

#[test]
fn the_log_tells_the_incident_of_09_15() {
    let mut told = told();
    told.hear(4_000, &blocked(&[("PROMOTED", 5)], 150));
    told.run_to(60_000);
    let log = [
        "4.000 Blocked invalid transition: PROMOTED → SPAM_REVIEW",
        "4.000 Blocked 5 invalid status transitions - code review recommended",
        "7.000 Prevented 5 invalid status transitions",
    ];
    assert_eq!(told.log, log);
    let news =
        ["opened 1", "warning invalid_transitions message", "resolved 1", "info invalid_transitions message"];
    assert_eq!(told.news, news);
    let incident = told.machine.incidents().next().expect("there was one");
    let edges = vec![Edge { from: name("PROMOTED"), to: name("SPAM_REVIEW"), count: 5 }];
    let operation = Some(name("spam-capture"));
    assert_eq!(incident.attempts, Some(Attempts { operation, blocked: 5, edges, made: 150, would: false }));
    assert_eq!(incident.resolution, Some(Resolution::Auto));
    assert_eq!(incident.advice(), Some("code review recommended"));
}

#[test]
fn fewer_than_five_are_an_info_and_no_advice() {
    let mut told = told();
    told.hear(0, &blocked(&[("PROMOTED", 4)], 10));
    told.run_to(10_000);
    assert_eq!(told.news, ["opened 1", "info invalid_transitions message", "resolved 1"]);
    assert_eq!(told.log[1..], ["3.000 Prevented 4 invalid status transitions"]);
    assert_eq!(told.machine.incidents().next().expect("there was one").advice(), None);
}

#[test]
fn a_drip_is_one_incident_that_becomes_a_warning_and_never_more() {
    let mut told = told();
    for minute in 0..20 {
        told.hear(minute * 60_000, &blocked(&[("PROMOTED", 1)], 0));
    }
    told.run_to(2_000_000);
    let alerts: Vec<_> = told.news.iter().filter(|news| news.contains("invalid")).collect();
    assert_eq!(alerts, ["info invalid_transitions message", "warning invalid_transitions message"]);
    assert_eq!((told.machine.incidents().count(), told.ends), (1, 1));
    let said = |words: &str| told.log.iter().filter(|line| line.contains(words)).count();
    assert_eq!((said("Blocked invalid"), said("code review"), said("Prevented 1 invalid")), (20, 1, 20));
    assert!(told.log.last().expect("a line").ends_with("Prevented 1 invalid status transition"));
}

#[test]
fn while_it_goes_on_each_change_is_said_once() {
    let mut told = told();
    for n in 0..10 {
        told.hear(n * 900, &blocked(&[("PROMOTED", 100), ("COMPLETED", 1)], 0));
    }
    told.run_to(60_000);
    let log = [
        "0.000 Blocked invalid transition: PROMOTED → SPAM_REVIEW",
        "0.000 Blocked invalid transition: COMPLETED → SPAM_REVIEW",
        "0.000 Blocked 101 invalid status transitions - code review recommended",
        "11.100 Prevented 1010 invalid status transitions",
    ];
    assert_eq!(told.log, log);
}

#[test]
fn two_operations_are_one_incident_of_no_operation() {
    let mut told = told();
    told.hear(0, &blocked(&[("PROMOTED", 1)], 0));
    told.hear(100, &blocked_by("import", &[("PROMOTED", 1)], 0, false));
    let incident = told.machine.incidents().next().expect("it is open");
    assert_eq!(incident.kind, Kind::InvalidTransitions);
    let attempts = incident.attempts.as_ref().expect("it is about such");
    assert_eq!((attempts.operation.as_ref(), attempts.blocked), (None, 2));
}

#[test]
fn in_mode_observe_the_log_says_what_would_have_been_blocked() {
    let mut told = Told::new(Policy::default(), Mode::Observe);
    told.hear(0, &blocked_by("spam-capture", &[("PROMOTED", 5)], 150, true));
    told.run_to(60_000);
    let log = [
        "0.000 Would have blocked invalid transition: PROMOTED → SPAM_REVIEW",
        "0.000 Would have blocked 5 invalid status transitions - code review recommended",
        "3.000 Would have prevented 5 invalid status transitions",
    ];
    assert_eq!(told.log, log);
}

#[test]
fn however_many_states_there_are_what_is_listed_is_bounded() {
    let mut told = told();
    for n in 0..1_000_u64 {
        told.hear(n, &blocked(&[(&format!("S{n}"), 1)], 0));
    }
    let incident = told.machine.incidents().next().expect("it is open");
    let attempts = incident.attempts.as_ref().expect("it is about such");
    assert_eq!((attempts.edges.len(), attempts.blocked), (64, 1_000));
    assert_eq!(told.log.len(), 64 + 1);
}
