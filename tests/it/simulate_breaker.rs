//! Traces about circuits and what comes of them, line by line.

use selfheal::{
    config::{Config, Source},
    simulate::{Error, run},
};

fn play_seeded(config: &str, trace: &str, seed: u64) -> Result<String, Error> {
    let config = Config::load(&Source::text("x", config)).expect("the config is valid");
    let mut output = Vec::new();
    run(&config, trace.as_bytes(), &mut output, seed)?;
    Ok(String::from_utf8(output).expect("JSON is UTF-8"))
}

/// What is played, but for what people are told of it.
fn play(config: &str, trace: &str) -> String {
    let played = play_seeded(config, trace, 0).expect("the trace can be played");
    let told = |line: &&str| line.contains(r#""event":"incident""#) || line.contains(r#""event":"alert""#);
    played.lines().filter(|line| !told(line)).fold(String::new(), |all, line| all + line + "\n")
}

fn assert_played(config: &str, trace: &str, expected: &str) {
    let played = play(config, trace);
    assert!(played == expected, "played:\n{played}\nexpected:\n{expected}");
}

/// `count` calls, a millisecond apart.
fn calls(from_ms: u64, count: u64, outcome: &str) -> String {
    let line = |n| format!("{{\"at_ms\":{},\"call\":\"/api/x\",\"outcome\":\"{outcome}\"}}\n", from_ms + n);
    (0..count).map(line).collect()
}

#[test]
fn half_of_the_calls_and_five_failures_are_not_enough_and_one_more_is() {
    let trace = calls(0, 5, "success")
        + &calls(5, 5, "failure")
        + r#"{"at_ms":10,"expect":"/api/x"}
{"at_ms":10,"call":"/api/x","outcome":"failure"}
{"at_ms":10,"call":"/api/x","outcome":"success"}
{"at_ms":11,"expect":"/api/x"}"#;
    let played = play("", &trace);
    let last: Vec<_> = played.lines().skip(10).collect();
    let expected = [
        r#"{"at_ms":10,"endpoint":"/api/x","state":"closed","calls":10,"successes":5,"failures":5,"slow":0,"consecutive_failures":5,"failure_rate":0.5,"slow_rate":0.0,"rejected":0,"retry_after_ms":null}"#,
        r#"{"at_ms":10,"call":"/api/x","admitted":true}"#,
        r#"{"at_ms":10,"event":"breaker","endpoint":"/api/x","from":"closed","to":"open","reason":"failure_rate"}"#,
        r#"{"at_ms":10,"call":"/api/x","admitted":false,"reason":"open","retry_after_ms":30000}"#,
        r#"{"at_ms":11,"endpoint":"/api/x","state":"open","calls":11,"successes":5,"failures":6,"slow":0,"consecutive_failures":6,"failure_rate":0.5454545454545454,"slow_rate":0.0,"rejected":1,"retry_after_ms":29999}"#,
    ];
    assert_eq!(last, expected);
}

#[test]
fn rates_are_null_below_the_least_number_of_calls() {
    let trace = calls(0, 2, "failure") + r#"{"at_ms":5,"expect":"/api/x"}"#;
    let played = play("[breaker]\ncalls = { at_least = 3 }", &trace);
    assert!(played.ends_with(
        "\"consecutive_failures\":2,\"failure_rate\":null,\"slow_rate\":null,\"rejected\":0,\"retry_after_ms\":null}\n"
    ), "{played}");
}

#[test]
fn a_probe_that_is_cancelled_gives_its_place_back_and_one_that_hangs_loses_it() {
    let config = "[breaker]\nopen_for = \"1s\"\nconsecutive_failures = { at_least = 1 }";
    let trace = r#"{"at_ms":0,"call":"/api/x","outcome":"panic"}
{"at_ms":1000,"admit":"/api/x","id":"a"}
{"at_ms":1001,"admit":"/api/x","id":"b"}
{"at_ms":1002,"settle":"b","outcome":"failure"}
{"at_ms":1003,"cancel":"a"}
{"at_ms":1004,"admit":"/api/x","id":"c"}
{"at_ms":1005,"settle":"c","outcome":"ignored"}
{"at_ms":1006,"admit":"/api/x","id":"hangs"}
{"at_ms":11005,"admit":"/api/x","id":"e"}
{"at_ms":11006,"admit":"/api/x","id":"f"}
{"at_ms":11007,"settle":"hangs","outcome":"failure"}
{"at_ms":11008,"settle":"f","outcome":"success"}
{"at_ms":11009,"expect":"/api/x"}"#;
    assert_played(
        config,
        trace,
        r#"{"at_ms":0,"call":"/api/x","admitted":true}
{"at_ms":0,"event":"breaker","endpoint":"/api/x","from":"closed","to":"open","reason":"consecutive_failures"}
{"at_ms":1000,"event":"breaker","endpoint":"/api/x","from":"open","to":"half_open","reason":"open_elapsed"}
{"at_ms":1000,"admit":"/api/x","id":"a","admitted":true}
{"at_ms":1001,"admit":"/api/x","id":"b","admitted":false,"reason":"half_open_full","retry_after_ms":9999}
{"at_ms":1004,"admit":"/api/x","id":"c","admitted":true}
{"at_ms":1006,"admit":"/api/x","id":"hangs","admitted":true}
{"at_ms":11005,"admit":"/api/x","id":"e","admitted":false,"reason":"half_open_full","retry_after_ms":1}
{"at_ms":11006,"admit":"/api/x","id":"f","admitted":true}
{"at_ms":11008,"event":"breaker","endpoint":"/api/x","from":"half_open","to":"closed","reason":"probes_succeeded"}
{"at_ms":11009,"endpoint":"/api/x","state":"closed","calls":0,"successes":0,"failures":0,"slow":0,"consecutive_failures":0,"failure_rate":null,"slow_rate":null,"rejected":2,"retry_after_ms":null}
"#,
    );
}

#[test]
fn a_straggler_from_before_decides_nothing_after() {
    let config = "[breaker]\nopen_for = \"1s\"\nconsecutive_failures = { at_least = 2 }";
    let trace = r#"{"at_ms":0,"admit":"/api/x","id":"straggler"}
{"at_ms":0,"call":"/api/x","outcome":"failure","latency_ms":3}
{"at_ms":0,"call":"/api/x","outcome":"failure","latency_ms":3}
{"at_ms":1003,"admit":"/api/x","id":"probe"}
{"at_ms":1004,"settle":"straggler","outcome":"failure"}
{"at_ms":1005,"settle":"probe","outcome":"success"}
{"at_ms":1006,"expect":"/api/x"}"#;
    let played = play(config, trace);
    assert!(played.contains(r#""from":"half_open","to":"closed""#), "{played}");
    assert!(!played.contains(r#""from":"half_open","to":"open""#), "{played}");
}

#[test]
fn all_probes_are_judged_together_and_a_timer_does_not_wait_for_a_call() {
    let config = "[breaker]
open_for = \"1s\"
half_open_automatically = true
consecutive_failures = { at_least = 1 }
half_open = { decide = \"rate\", probes = 4, max_wait = \"500ms\", after_max_wait = \"open\" }";
    let trace = r#"{"at_ms":0,"call":"/api/x","outcome":"failure"}
{"at_ms":1600,"tick":true}
{"at_ms":2510,"call":"/api/x","outcome":"failure"}
{"at_ms":2511,"call":"/api/x","outcome":"failure"}
{"at_ms":2512,"call":"/api/x","outcome":"success"}
{"at_ms":2513,"call":"/api/x","outcome":"success","latency_ms":10}
{"at_ms":2514,"call":"/api/x","outcome":"success"}
{"at_ms":2530,"expect":"/api/x"}"#;
    assert_played(
        config,
        trace,
        r#"{"at_ms":0,"call":"/api/x","admitted":true}
{"at_ms":0,"event":"breaker","endpoint":"/api/x","from":"closed","to":"open","reason":"consecutive_failures"}
{"at_ms":1000,"event":"breaker","endpoint":"/api/x","from":"open","to":"half_open","reason":"open_elapsed"}
{"at_ms":1500,"event":"breaker","endpoint":"/api/x","from":"half_open","to":"open","reason":"probes_overdue"}
{"at_ms":2500,"event":"breaker","endpoint":"/api/x","from":"open","to":"half_open","reason":"open_elapsed"}
{"at_ms":2510,"call":"/api/x","admitted":true}
{"at_ms":2511,"call":"/api/x","admitted":true}
{"at_ms":2512,"call":"/api/x","admitted":true}
{"at_ms":2513,"call":"/api/x","admitted":true}
{"at_ms":2514,"call":"/api/x","admitted":false,"reason":"half_open_full","retry_after_ms":486}
{"at_ms":2523,"event":"breaker","endpoint":"/api/x","from":"half_open","to":"closed","reason":"probes_succeeded"}
{"at_ms":2530,"endpoint":"/api/x","state":"closed","calls":0,"successes":0,"failures":0,"slow":0,"consecutive_failures":0,"failure_rate":null,"slow_rate":null,"rejected":1,"retry_after_ms":null}
"#,
    );
}

#[test]
fn what_an_operator_pins_stays_and_what_makes_no_sense_is_refused() {
    let trace = r#"{"at_ms":0,"operator":"/api/x","state":"probe"}
{"at_ms":0,"operator":"/api/x","state":"force_open","for_ms":1000}
{"at_ms":10,"call":"/api/x","outcome":"success"}
{"at_ms":20,"operator":"/api/x","state":"reset"}
{"at_ms":1000,"call":"/api/x","outcome":"success"}
{"at_ms":1001,"operator":"/api/x","state":"trip","for_ms":100}
{"at_ms":1002,"operator":"/api/x","state":"force_open"}
{"at_ms":1003,"call":"/api/x","outcome":"success"}
{"at_ms":1004,"operator":"/api/x","state":"auto"}
{"at_ms":1005,"operator":"/api/x","state":"probe"}
{"at_ms":1006,"operator":"/api/x","state":"reset"}"#;
    assert_played(
        "",
        trace,
        r#"{"at_ms":0,"operator":"/api/x","ok":false,"error":"closed"}
{"at_ms":0,"event":"breaker","endpoint":"/api/x","from":"closed","to":"forced_open","reason":"operator"}
{"at_ms":0,"operator":"/api/x","ok":true}
{"at_ms":10,"call":"/api/x","admitted":false,"reason":"forced_open","retry_after_ms":990}
{"at_ms":20,"operator":"/api/x","ok":false,"error":"pinned"}
{"at_ms":1000,"event":"breaker","endpoint":"/api/x","from":"forced_open","to":"closed","reason":"expired"}
{"at_ms":1000,"call":"/api/x","admitted":true}
{"at_ms":1001,"event":"breaker","endpoint":"/api/x","from":"closed","to":"open","reason":"operator"}
{"at_ms":1001,"operator":"/api/x","ok":true}
{"at_ms":1002,"event":"breaker","endpoint":"/api/x","from":"open","to":"forced_open","reason":"operator"}
{"at_ms":1002,"operator":"/api/x","ok":true}
{"at_ms":1003,"call":"/api/x","admitted":false,"reason":"forced_open","retry_after_ms":null}
{"at_ms":1004,"event":"breaker","endpoint":"/api/x","from":"forced_open","to":"open","reason":"operator"}
{"at_ms":1004,"operator":"/api/x","ok":true}
{"at_ms":1005,"event":"breaker","endpoint":"/api/x","from":"open","to":"half_open","reason":"operator"}
{"at_ms":1005,"operator":"/api/x","ok":true}
{"at_ms":1006,"event":"breaker","endpoint":"/api/x","from":"half_open","to":"closed","reason":"operator"}
{"at_ms":1006,"operator":"/api/x","ok":true}
"#,
    );
}

#[test]
fn metrics_only_tells_once_what_it_would_have_done() {
    let trace = r#"{"at_ms":0,"operator":"/api/x","state":"metrics_only"}
"#
    .to_owned()
        + &calls(1, 20, "failure");
    let played = play("", &trace);
    let told: Vec<_> = played.lines().filter(|line| line.contains("would")).collect();
    assert_eq!(
        told,
        [
            r#"{"at_ms":6,"event":"breaker","endpoint":"/api/x","from":"metrics_only","to":"open","reason":"failure_rate","would":true}"#
        ]
    );
    assert!(!played.contains("\"admitted\":false"), "{played}");
}

#[test]
fn under_pressure_sheddable_endpoints_shed_and_a_user_has_five_at_once() {
    let config = "[pools.main]
smoothing = \"0s\"
down = \"10ms\"
[[endpoints]]
path = \"/api/reports/{id}\"
class = \"sheddable\"
[[endpoints]]
path = \"/api/auth\"
class = \"critical\"";
    let six = |path: &str| {
        let line =
            |n| format!("{{\"at_ms\":50,\"admit\":\"{path}\",\"id\":\"{path}{n}\",\"user\":\"u1\"}}\n");
        (0..6).map(line).collect::<String>()
    };
    let trace = r#"{"at_ms":0,"pool":"main","in_use":90,"max":100,"waiting":3}
{"at_ms":50,"call":"/api/reports/7","outcome":"success"}
"#
    .to_owned()
        + &six("/api/x")
        + &six("/api/auth")
        + r#"{"at_ms":60,"cancel":"/api/x0"}
{"at_ms":60,"admit":"/api/x","id":"again","user":"u1"}
{"at_ms":100,"pool":"main","in_use":10,"max":100}
{"at_ms":200,"call":"/api/reports/8","outcome":"success"}"#;
    let played = play(config, &trace);
    let refused: Vec<_> = played.lines().filter(|line| line.contains("\"admitted\":false")).collect();
    assert_eq!(
        refused,
        [
            r#"{"at_ms":50,"call":"/api/reports/7","admitted":false,"reason":"shed","retry_after_ms":2000}"#,
            r#"{"at_ms":50,"admit":"/api/x","id":"/api/x5","admitted":false,"reason":"user_limit","retry_after_ms":1000}"#,
        ]
    );
    for (from, to, reason) in [("closed", "shed", "pressure"), ("shed", "closed", "calm")] {
        let event =
            format!(r#""endpoint":"/api/reports/{{id}}","from":"{from}","to":"{to}","reason":"{reason}""#);
        assert!(played.contains(&event), "{event} in\n{played}");
    }
}

#[test]
fn an_open_circuit_is_an_incident_until_it_closes() {
    let config = "[breaker]\nopen_for = \"1s\"";
    let trace = calls(0, 6, "failure") + &calls(1_005, 1, "success") + r#"{"at_ms":3000,"tick":true}"#;
    let played = play_seeded(config, &trace, 0).expect("it can be played");
    let told: Vec<_> = played.lines().filter(|line| line.contains("sim-1")).collect();
    let expected = [
        r#"{"at_ms":5,"event":"incident","id":"sim-1","phase":"opened","kind":"circuit","subject":"/api/x"}"#,
        r#"{"at_ms":5,"event":"alert","severity":"warning","kind":"circuit","subject":"/api/x","incident":"sim-1"}"#,
        r#"{"at_ms":2005,"event":"incident","id":"sim-1","phase":"resolved","kind":"circuit","subject":"/api/x"}"#,
        r#"{"at_ms":2005,"event":"alert","severity":"info","kind":"circuit","subject":"/api/x","incident":"sim-1"}"#,
    ];
    assert_eq!(told, expected);
}

#[test]
fn jitter_comes_from_the_seed_and_only_if_it_is_asked_for() {
    let trace = calls(0, 7, "failure");
    let with = |jitter: &str, seed| {
        play_seeded(&format!("[breaker]\n{jitter}"), &trace, seed).expect("it can be played")
    };
    assert_eq!(with("", 1), with("", 2));
    assert_eq!(with("open_jitter = 0.5", 1), with("open_jitter = 0.5", 1));
    assert_ne!(with("open_jitter = 0.5", 1), with("open_jitter = 0.5", 2));
}

#[test]
fn a_line_that_makes_no_sense_ends_the_run_and_is_named() {
    for (trace, says) in [
        (r#"{"at_ms":0,"settle":"c1","outcome":"success"}"#, "no call `c1` is under way"),
        (r#"{"at_ms":0,"call":"/x","outcome":"fine"}"#, "unknown variant `fine`"),
        (r#"{"at_ms":0,"operator":"/x","state":"melt"}"#, "unknown variant `melt`"),
        (r#"{"at_ms":0,"call":"/x","outcome":"success","latency":3}"#, "unknown field `latency`"),
        (
            "{\"at_ms\":0,\"admit\":\"/x\",\"id\":\"a\"}\n{\"at_ms\":0,\"admit\":\"/x\",\"id\":\"a\"}",
            "has not ended",
        ),
    ] {
        let error = play_seeded("", trace, 0).expect_err(trace).to_string();
        assert!(error.contains(says), "{error}");
    }
}
