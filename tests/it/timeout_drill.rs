//! The second incident, replayed on SQLite.

use std::sync::LazyLock;

use serde_json::json;

use crate::guarded::drill::Drill;

/// Replayed once: it takes the time that it tells of.
static REPLAYED: LazyLock<Drill> = LazyLock::new(|| Drill::run(&["timeout"]));

#[test]
fn a_click_that_takes_too_long_is_answered_in_time_and_done_once() {
    let (without, with) = REPLAYED.kept_its_promises();
    assert_eq!((&REPLAYED.figures["drill"], &with["mode"]), (&"timeout".into(), &"act".into()));
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
}

#[test]
fn the_incident_of_a_timeout_is_told_in_its_own_words() {
    REPLAYED.says(&[
        "❌ User sees: Unexpected token '<', \"<HTML><HE\"... is not valid JSON",
        "[SELF-HEAL] Spam capture operation detected: 1,418 items",
        "[SELF-HEAL] Estimated time: 14.18s (exceeds 10s timeout)",
        "[SELF-HEAL] Auto-batching to 100 items per batch",
        "[SELF-HEAL] Prevented timeout by batching (100/1418)",
        "[SELF-HEAL] Batch 1/15 completed: 100 items in 1.",
        "[SELF-HEAL] Batch 15/15 completed: 18 items in 0.",
        "[SELF-HEAL] Operation complete: 1,418 items processed in ",
        "✅ User sees: Captured 100 / 1,418 (1,318 remaining)",
    ]);
}
