//! What a policy would have done about long operations: traces of plans.

use selfheal::{
    config::{Config, Source},
    simulate::{Error, Setup, run},
};
use serde_json::{Value, json};

fn play(text: &str, trace: &str) -> Result<Vec<Value>, Error> {
    let config = Config::load(&Source::text("x", text)).unwrap_or_else(|error| panic!("{error}"));
    let mut output = Vec::new();
    run(Setup::from(&config), trace.as_bytes(), &mut output, 0)?;
    let output = String::from_utf8(output).expect("JSON is UTF-8");
    let lines = output.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    Ok(lines.filter(|line: &Value| line["plan"].is_string()).collect())
}

#[test]
fn the_click_of_the_incident_is_divided_into_fifteen_batches() {
    let trace = r#"{"at_ms":5,"plan":"spam-capture","items":1418}
{"at_ms":6,"plan":"spam-capture","items":300}
{"at_ms":7,"plan":"spam-capture","items":0}"#;
    let plan = |at_ms: u64, items: u64, inline: bool, batch: u64, batches: u64| {
        json!({
            "at_ms": at_ms, "plan": "spam-capture", "items": items, "inline": inline, "batch": batch,
            "batches": batches, "estimate_ms": items * 10,
        })
    };
    let expected = [plan(5, 1_418, false, 100, 15), plan(6, 300, true, 100, 3), plan(7, 0, true, 1, 0)];
    assert_eq!(play("[batches.spam-capture]", trace).expect("it can be played"), expected);
}

#[test]
fn a_longer_deadline_makes_longer_batches_and_leaves_it_to_the_caller_to_wait() {
    let text = "[batches.x]\ndeadline = \"30s\"\nper_item = \"10ms\"";
    let plans = play(text, r#"{"at_ms":0,"plan":"x","items":1418}"#).expect("it can be played");
    assert_eq!(
        (&plans[0]["inline"], &plans[0]["batch"], &plans[0]["batches"]),
        (&true.into(), &300.into(), &5.into())
    );
}

#[test]
fn an_operation_that_the_config_does_not_know_is_named() {
    let error = play("", r#"{"at_ms":0,"plan":"spam","items":1}"#).expect_err("there is none");
    let said = error.to_string();
    assert!(said.contains("line 1") && said.contains("[batches.spam]"), "{said}");
}
