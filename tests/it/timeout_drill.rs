//! The second incident, replayed by the binary as a user runs it, on SQLite.

use std::process::Command;

use serde_json::{Value, json};

#[test]
fn a_click_that_takes_too_long_is_answered_in_time_and_done_once() {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "timeout", "--json"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((&figures["drill"], &figures["with"]["mode"]), (&"timeout".into(), &"act".into()));
    let (without, with) = (&figures["without"], &figures["with"]);
    assert_eq!(
        (&without["clicks"][0]["json"], &without["clicks"][0]["status"]),
        (&false.into(), &502.into())
    );
    assert!(without["after_first"].as_i64() < Some(1_418), "it is partly done: {without}");
    assert_eq!((&with["done"], &with["doubled"], &with["overruns"]), (&1_418.into(), &0.into(), &0.0.into()));
    let batches: Vec<_> = [vec![100; 14], vec![18]].concat();
    assert_eq!(with["batches"], json!(batches), "{with}");
    assert_eq!(with["clicks"][0]["said"], "Captured 100 / 1,418 (1,318 remaining)");
    assert_eq!(with["clicks"][0]["job"], with["clicks"][1]["job"], "the second click joins: {with}");
    assert_eq!((&figures["missed"], &figures["passed"]), (&json!([]), &true.into()), "{figures}");
    assert!(output.status.success());
}

#[test]
fn the_incident_of_a_timeout_is_told_in_its_own_words() {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "timeout"]).output().expect("the binary runs");
    let story = String::from_utf8_lossy(&output.stdout);
    for words in [
        "❌ User sees: Unexpected token '<', \"<HTML><HE\"... is not valid JSON",
        "[SELF-HEAL] Spam capture operation detected: 1,418 items",
        "[SELF-HEAL] Estimated time: 14.18s (exceeds 10s timeout)",
        "[SELF-HEAL] Auto-batching to 100 items per batch",
        "[SELF-HEAL] Prevented timeout by batching (100/1418)",
        "[SELF-HEAL] Batch 1/15 completed: 100 items in 1.",
        "[SELF-HEAL] Batch 15/15 completed: 18 items in 0.",
        "[SELF-HEAL] Operation complete: 1,418 items processed in ",
        "✅ User sees: Captured 100 / 1,418 (1,318 remaining)",
    ] {
        assert!(story.contains(words), "{words:?} is missing in\n{story}");
    }
}
