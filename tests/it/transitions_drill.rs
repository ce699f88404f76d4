//! The third incident, replayed by the binary as a user runs it, on SQLite.

use std::process::Command;

use serde_json::{Value, json};

#[test]
fn a_capture_of_spam_changes_only_what_may_change_whoever_races() {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "transitions", "--json"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((&figures["drill"], &figures["with"]["mode"]), (&"transitions".into(), &"act".into()));
    let (without, with) = (&figures["without"], &figures["with"]);
    assert_eq!((&without["applied"], &without["scan_invalid"]), (&155.into(), &5.into()), "{without}");
    assert!(without["invalid"].as_i64() > Some(5), "the race adds to them: {without}");
    for (figure, value) in [("scanned", 1_000), ("applied", 150), ("blocked", 5), ("invalid", 0)] {
        assert_eq!(with[figure], value, "{figure}: {with}");
    }
    let writers = &with["writers"];
    assert_eq!((&writers["writers"], &writers["failed"]), (&8.into(), &0.into()), "{with}");
    assert!(writers["refused"].as_i64() > Some(0), "{with}");
    assert!(with["warning_ms"].as_i64() < with["prevented_ms"].as_i64(), "{with}");
    assert_eq!((&figures["missed"], &figures["passed"]), (&json!([]), &true.into()), "{figures}");
    assert!(output.status.success());
}

#[test]
fn the_incident_is_told_in_its_own_words() {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "transitions"]).output().expect("the binary runs");
    let story = String::from_utf8_lossy(&output.stdout);
    for words in [
        "❌ 5 of them invalid: PROMOTED → SPAM_REVIEW",
        "[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW",
        "Scanned: 1,000 messages, valid updates: 150 (READY → SPAM_REVIEW), blocked invalid: 5",
        "[SELF-HEAL] Blocked 5 invalid status transitions - code review recommended",
        "[SELF-HEAL] Prevented 5 invalid status transitions",
        "✅ All states valid",
    ] {
        assert!(story.contains(words), "{words:?} is missing in\n{story}");
    }
}
