//! What a policy would have done about calls that failed: traces of retries.

use selfheal::{
    config::{Config, Source},
    simulate::{Setup, run},
};
use serde_json::{Value, json};

/// Plays `trace` under the config `text`, and returns what the lines about retries were answered.
fn play(text: &str, trace: &[Value], seed: u64) -> Vec<Value> {
    let config = Config::load(&Source::text("x", text)).unwrap_or_else(|error| panic!("{error}"));
    let lines: Vec<_> = trace.iter().map(Value::to_string).collect();
    let mut output = Vec::new();
    run(Setup::from(&config), lines.join("\n").as_bytes(), &mut output, seed)
        .expect("the trace can be played");
    let output = String::from_utf8(output).expect("JSON is UTF-8");
    let answers = output.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    answers.filter(|answer: &Value| answer["retry"].is_string()).collect()
}

fn failed(at_ms: u64, attempt: u32, error: &str) -> Value {
    json!({ "at_ms": at_ms, "retry": "/api/x", "attempt": attempt, "error": error })
}

/// The delay, or why not.
fn said(answer: &Value) -> String {
    answer["delay_ms"]
        .as_u64()
        .map(|ms| ms.to_string())
        .or_else(|| answer["give_up"].as_str().map(str::to_owned))
        .expect("one of the two")
}

fn say(text: &str, trace: &[Value]) -> Vec<String> {
    play(text, trace, 0).iter().map(said).collect()
}

#[test]
fn the_default_is_one_two_four_eight_seconds_without_jitter() {
    let trace = [
        failed(0, 1, "io"),
        failed(1_000, 2, "io"),
        failed(3_000, 3, "53300"),
        failed(7_000, 4, "io"),
        failed(15_000, 5, "io"),
    ];
    let answers = play("", &trace, 7);
    assert_eq!(
        answers[0],
        json!({ "at_ms": 0, "retry": "/api/x", "attempt": 1, "error": "io", "delay_ms": 1_000 })
    );
    assert_eq!(
        answers[4],
        json!({ "at_ms": 15_000, "retry": "/api/x", "attempt": 5, "error": "io", "give_up": "attempts" })
    );
    assert_eq!(answers.iter().map(said).collect::<Vec<_>>(), ["1000", "2000", "4000", "8000", "attempts"]);
}

#[test]
fn jitter_that_the_config_asks_for_is_fed_by_the_seed() {
    let (config, trace) = ("[retry]\njitter = \"full\"", [failed(0, 4, "io"), failed(0, 4, "io")]);
    assert_eq!(play(config, &trace, 7), play(config, &trace, 7));
    assert_ne!(play(config, &trace, 7), play(config, &trace, 8));
    let delays = play(config, &trace, 7);
    assert!(
        delays.iter().all(|answer| answer["delay_ms"].as_u64().is_some_and(|ms| ms <= 8_000)),
        "{delays:?}"
    );
}

#[test]
fn permanent_errors_are_given_up_at_once_whatever_they_are_called() {
    let passing = [
        "io",
        "timeout",
        "pool_timeout",
        "http_503",
        "http_500",
        "53300",
        "57P03",
        "40001",
        "a name of the host's",
    ];
    let lasting = ["23505", "42P01", "22012", "http_404", "http_422", "panic"];
    let trace = |errors: &[&str]| errors.iter().map(|error| failed(0, 1, error)).collect::<Vec<_>>();
    let config = "[retry]\nbudget = { per_second = 100.0 }";
    assert_eq!(say(config, &trace(&passing)), vec!["1000"; passing.len()]);
    assert_eq!(say(config, &trace(&lasting)), vec!["permanent"; lasting.len()]);
    let mut post = failed(0, 1, "io");
    post["idempotent"] = false.into();
    assert_eq!(say(config, &[post]), ["permanent"]);
}

#[test]
fn a_retry_that_comes_too_late_or_is_one_too_many_is_given_up() {
    let mut late = failed(0, 1, "io");
    late["deadline_ms"] = 1_000.into();
    assert_eq!(say("", &[late]), ["deadline"]);
    assert_eq!(
        say("[[endpoints]]\npath = \"/api/x\"\ndeadline = \"1s\"", &[failed(0, 1, "io")]),
        ["deadline"]
    );
    let storm: Vec<_> = (0..12).map(|_| failed(0, 1, "io")).collect();
    assert_eq!(say("", &storm)[9..], ["1000", "budget", "budget"], "ten in ten seconds, without any call");
    let mut asked = failed(0, 1, "http_503");
    asked["retry_after_ms"] = 5_000.into();
    assert_eq!(say("", &[asked]), ["5000"], "the server's own time is honoured");
}

#[test]
fn under_pressure_only_critical_work_is_tried_again() {
    let config = "
        [pools.main]
        up = \"0s\"
        smoothing = \"0s\"
        [[endpoints]]
        path = \"/api/auth/login\"
        class = \"critical\"
    ";
    let pressed = json!({ "at_ms": 0, "pool": "main", "in_use": 99, "max": 100, "waiting": 20 });
    let mut critical = failed(100, 1, "io");
    critical["retry"] = "/api/auth/login".into();
    assert_eq!(say(config, &[pressed, failed(100, 1, "io"), critical]), ["budget", "1000"]);
}
