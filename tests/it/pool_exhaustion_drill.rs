//! The first incident, replayed by the binary as a user runs it, on SQLite.

use std::process::{Command, Output};

use serde_json::Value;

/// Runs `selfheal drill pool --json` with `arguments`.
fn drill(arguments: &[&str]) -> (Output, Value) {
    let mut drill = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    let output = drill.args(["drill", "pool", "--json"]).args(arguments).output().expect("the binary runs");
    let figures = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    });
    (output, figures)
}

#[test]
fn a_dashboard_exhausts_the_plain_pool_and_the_healed_one_loses_nothing() {
    let (output, figures) = drill(&[]);
    assert_eq!(figures["drill"], "pool");
    assert!(figures["database"].as_str().is_some_and(|name| name.starts_with("sqlite 3.")), "{figures}");
    let without = &figures["without"];
    assert_eq!(without["peak_in_use"], without["limit"], "{without}");
    assert_ne!(without["dashboards"]["completed"], without["dashboards"]["sent"], "{without}");
    assert_ne!(without["failed"], 0, "{without}");
    let with = &figures["with"];
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
    assert_eq!(figures["passed"], true, "{figures}");
    assert!(output.status.success());
}
