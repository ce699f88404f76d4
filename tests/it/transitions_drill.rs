//! The third incident, replayed on SQLite.

use std::sync::LazyLock;

use crate::guarded::drill::Drill;

static REPLAYED: LazyLock<Drill> = LazyLock::new(|| Drill::run(&["transitions"]));

#[test]
fn a_capture_of_spam_changes_only_what_may_change_whoever_races() {
    let (without, with) = REPLAYED.kept_its_promises();
    assert_eq!((&REPLAYED.figures["drill"], &with["mode"]), (&"transitions".into(), &"act".into()));
    assert_eq!((&without["applied"], &without["scan_invalid"]), (&155.into(), &5.into()), "{without}");
    assert!(without["invalid"].as_i64() > Some(5), "the race adds to them: {without}");
    for (figure, value) in [("scanned", 1_000), ("applied", 150), ("blocked", 5), ("invalid", 0)] {
        assert_eq!(with[figure], value, "{figure}: {with}");
    }
    let writers = &with["writers"];
    assert_eq!((&writers["writers"], &writers["failed"]), (&8.into(), &0.into()), "{with}");
    assert!(writers["refused"].as_i64() > Some(0), "{with}");
    assert!(with["warning_ms"].as_i64() < with["prevented_ms"].as_i64(), "{with}");
}

#[test]
fn the_incident_is_told_in_its_own_words() {
    REPLAYED.says(&[
        "❌ 5 of them invalid: PROMOTED → SPAM_REVIEW",
        "[SELF-HEAL] Blocked invalid transition: PROMOTED → SPAM_REVIEW",
        "Scanned: 1,000 messages, valid updates: 150 (READY → SPAM_REVIEW), blocked invalid: 5",
        "[SELF-HEAL] Blocked 5 invalid status transitions - code review recommended",
        "[SELF-HEAL] Prevented 5 invalid status transitions",
        "✅ All states valid",
    ]);
}
