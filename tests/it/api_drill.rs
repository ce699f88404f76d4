//! The fourth incident, replayed by the binary as a user runs it, on SQLite.

use std::process::Command;

use serde_json::Value;

#[test]
fn api_calls_fail_and_with_healing_every_caller_sees_data() {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "api", "--json"]).output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let figures: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!((&figures["drill"], &figures["with"]["mode"]), (&"api".into(), &"act".into()));
    let (without, with) = (&figures["without"], &figures["with"]);
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
    assert_eq!((&figures["missed"], &figures["passed"]), (&serde_json::json!([]), &true.into()), "{figures}");
    assert!(output.status.success());
}
