//! The fourth incident, replayed on SQLite.

use serde_json::Value;

use crate::guarded::drill::Drill;

#[test]
fn api_calls_fail_and_with_healing_every_caller_sees_data() {
    let replayed = Drill::run(&["api"]);
    let (without, with) = replayed.kept_its_promises();
    assert_eq!((&replayed.figures["drill"], &with["mode"]), (&"api".into(), &"act".into()));
    let scenarios = |run: &Value| run["scenarios"].as_array().cloned().expect("a list");
    let names: Vec<_> = scenarios(with).iter().map(|scenario| scenario["name"].clone()).collect();
    assert_eq!(names, ["pool", "timeout", "html", "error"]);
    for scenario in scenarios(without) {
        assert_eq!(scenario["served"], 0, "nobody saw data: {scenario}");
    }
    for scenario in scenarios(with) {
        assert_eq!(scenario["served"], scenario["callers"], "everybody saw data: {scenario}");
    }
    assert_eq!((&with["non_json"], &with["lost"]), (&0.into(), &0.into()), "{with}");
    assert_eq!(with["closed_after_two_failures"], true, "{with}");
    assert!(with["failures_when_opened"].as_u64() > Some(5), "{with}");
    assert!(with["opened_ms"].as_i64() < with["recovered_ms"].as_i64(), "{with}");
}
