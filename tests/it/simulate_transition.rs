//! What a table would have done about changes of status: traces of attempts.

use selfheal::{
    config::{Config, Source},
    simulate::{Setup, run},
};
use serde_json::{Value, json};

const MESSAGE: &str =
    "[transitions.message]\nREADY = [\"SPAM_REVIEW\", \"PROMOTED\"]\nPROMOTED = [\"COMPLETED\"]";

/// All that comes of `trace`, or what is wrong with it.
fn play(trace: &[Value]) -> Result<Vec<Value>, String> {
    let config = Config::load(&Source::text("x", MESSAGE)).unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<_> = trace.iter().map(Value::to_string).collect();
    let mut output = Vec::new();
    run(Setup::from(&config), lines.join("\n").as_bytes(), &mut output, 0)
        .map_err(|error| error.to_string())?;
    let output = String::from_utf8(output).expect("JSON is UTF-8");
    Ok(output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn attempt(at_ms: u64, from: &str, to: &str) -> Value {
    json!({ "at_ms": at_ms, "transition": "message", "from": from, "to": to })
}

#[test]
fn an_attempt_is_answered_with_what_would_be_allowed() {
    let trace = [
        attempt(5, "PROMOTED", "SPAM_REVIEW"),
        attempt(5, "READY", "SPAM_REVIEW"),
        attempt(5, "COMPLETED", "READY"),
        attempt(5, "NEW", "READY"),
    ];
    let answers = play(&trace).expect("it can be played");
    let answers: Vec<_> = answers.iter().filter(|line| line["transition"].is_string()).collect();
    let answer = |from: &str, to: &str, allowed: bool, from_here: &[&str]| {
        json!({ "at_ms": 5, "transition": "message", "from": from, "to": to, "allowed": allowed,
                "allowed_from_here": from_here })
    };
    assert_eq!(
        answers,
        [
            &answer("PROMOTED", "SPAM_REVIEW", false, &["COMPLETED"]),
            &answer("READY", "SPAM_REVIEW", true, &["SPAM_REVIEW", "PROMOTED"]),
            &answer("COMPLETED", "READY", false, &[]),
            &answer("NEW", "READY", false, &[]),
        ]
    );
}

#[test]
fn five_that_are_blocked_are_a_warning_which_ends_by_itself() {
    let mut trace: Vec<_> = (0..5).map(|n| attempt(n * 10, "PROMOTED", "SPAM_REVIEW")).collect();
    trace.push(json!({ "at_ms": 10_000, "tick": true }));
    let output = play(&trace).expect("it can be played");
    let news = output.iter().filter(|line| line["event"].is_string()).map(|line| {
        let what = line["phase"].as_str().or_else(|| line["severity"].as_str()).expect("one of the two");
        assert_eq!((&line["kind"], &line["subject"]), (&"invalid_transitions".into(), &"message".into()));
        format!("{} {what}", line["at_ms"])
    });
    let expected = ["0 opened", "0 info", "1000 warning", "4000 resolved", "4000 info"];
    assert_eq!(news.collect::<Vec<_>>(), expected, "the first at once, the others a second later");
}

#[test]
fn a_table_that_is_not_there_is_named() {
    let unknown = json!({ "at_ms": 0, "transition": "task", "from": "A", "to": "B" });
    let error = play(&[unknown]).expect_err("there is none");
    assert!(
        error.contains("line 1: there is no [transitions.task] in the config: it has message"),
        "{error}"
    );
}
