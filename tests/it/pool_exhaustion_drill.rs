//! The first incident, replayed on SQLite.

use std::{iter, process::Command, sync::LazyLock};

use serde_json::Value;

use crate::guarded::drill::Drill;

static REPLAYED: LazyLock<Drill> = LazyLock::new(|| Drill::run(&["pool"]));

#[test]
fn a_dashboard_exhausts_the_plain_pool_and_the_healed_one_loses_nothing() {
    let (without, with) = REPLAYED.kept_its_promises();
    let figures = &REPLAYED.figures;
    assert_eq!((&figures["drill"], &with["mode"]), (&"pool".into(), &"act".into()));
    assert!(figures["database"].as_str().is_some_and(|name| name.starts_with("sqlite 3.")), "{figures}");
    assert_eq!(without["peak_in_use"], without["limit"], "{without}");
    assert_ne!(without["dashboards"]["completed"], without["dashboards"]["sent"], "{without}");
    assert_ne!(without["failed"], 0, "{without}");
    assert_eq!(with["critical"]["ok"], with["critical"]["sent"], "{with}");
    assert_eq!(with["dashboards"]["sent"], 10, "{with}");
    assert_eq!(with["dashboards"]["completed"], 10, "{with}");
    for promise in ["lost", "doubled", "non_json", "failed"] {
        assert_eq!(with[promise], 0, "{promise}: {with}");
    }
    assert!(with["peak_in_use"].as_u64() <= with["limit"].as_u64(), "{with}");
    assert_eq!(with["deferred"], with["drained"], "{with}");
    let moment = |name: &str| with[name].as_i64().unwrap_or_else(|| panic!("{name} is missing: {with}"));
    assert!(moment("warning_ms") < moment("recovered_ms"), "{with}");
}

#[test]
fn several_processes_need_a_server_that_they_can_share() {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "pool", "--processes", "2"]).output().expect("the binary runs");
    let said = String::from_utf8(output.stderr).expect("it is text");
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(said.contains("--database-url") && said.contains("SQLite"), "{said}");
}

/// Optional queries of a dashboard: half of 160.
const OPTIONAL: u64 = 80;

fn count(figures: &Value, name: &str) -> u64 {
    figures[name].as_u64().unwrap_or_else(|| panic!("{name} is missing: {figures}"))
}

/// The same load with both modes, on a machine that has time for it: else the two runs differ in what the machine
/// did besides. `None` if it has no time today.
fn acted_and_observed() -> Option<(Value, Value)> {
    let in_time = |with: &Value| count(with, "late_ms") <= 10;
    let run = |mode| (0..3).map(move |_| Drill::run(&["pool", "--mode", mode]).figures["with"].clone());
    let acted = iter::once(REPLAYED.figures["with"].clone()).chain(run("act")).find(in_time)?;
    Some((acted, run("observe").find(in_time)?))
}

#[test]
fn what_observing_counts_is_what_acting_does_and_nothing_is_acted_on() {
    let Some((acted, observed)) = acted_and_observed() else {
        eprintln!("SKIPPED: this machine is too busy to send the same load twice");
        return;
    };
    let (acted, observed) = (&acted, &observed);
    assert_eq!((count(observed, "refused"), count(observed, "reduced_dashboards")), (0, 0), "{observed}");
    assert!(
        count(observed, "peak_in_use") > count(observed, "limit"),
        "the gate holds nobody back: {observed}"
    );
    // What acting leaves out of a dashboard does not come to the gate; observing, it does.
    let left_out = OPTIONAL * count(acted, "reduced_dashboards");
    let pairs = [
        ("refused", count(acted, "refused"), count(observed, "would_refuse")),
        ("deferred", count(acted, "deferred") + left_out, count(observed, "deferred")),
    ];
    for (what, acted, observed) in pairs {
        assert!(acted.abs_diff(observed) * 10 <= acted, "{what}: acted {acted}, observed {observed}");
    }
}

/// The words of a line, whatever its numbers are.
fn words(line: &str) -> String {
    let line = line.split_once("[SELF-HEAL] ").map_or(line, |(_, words)| words);
    line.split(|c: char| c.is_ascii_digit()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("#")
}

#[test]
fn the_first_screen_of_the_readme_is_what_the_drill_says() {
    let said: Vec<_> = REPLAYED.story.lines().map(words).collect();
    let readme = include_str!("../../README.md");
    let (_, recording) = readme.split_once("```text").expect("there is a recording");
    let (recording, _) = recording.split_once("```").expect("it ends");
    let lines = recording.lines().filter(|line| line.contains("[SELF-HEAL]"));
    // A level is told only if it was reached, and what belongs to Critical with it.
    let critical = said.iter().any(|line| line.starts_with("CRITICAL"));
    let of_critical =
        |line: &str| ["CRITICAL", "critical", "recovered to"].iter().any(|word| line.contains(word));
    let expected: Vec<_> = lines.filter(|line| critical || !of_critical(line)).map(words).collect();
    assert!(expected.len() >= 4, "{expected:?}");
    for line in expected {
        assert!(said.contains(&line), "the README says {line:?}, the drill says {said:#?}");
    }
}
