//! Traces and what comes of them, line by line.

use std::time::Duration;

use selfheal_actors::{
    backoff::Backoff,
    supervisor::{ChildPolicy, Policy, Restart, Strategy},
};

use super::*;
use crate::config::{Config, Source};

fn plain(strategy: Strategy, max_restarts: u32) -> Policy {
    let within = Duration::from_secs(3600);
    Policy { strategy, max_restarts, within, backoff: Backoff::NONE, ..Policy::default() }
}

fn tree(name: &str, policy: Policy, children: Vec<TreeChild>) -> Tree {
    Tree { name: name.into(), policy, children }
}

fn worker(id: &str) -> TreeChild {
    TreeChild::worker(ChildPolicy::permanent(id))
}

fn inner(id: &str, restart: Restart, tree: &str) -> TreeChild {
    TreeChild::supervisor(ChildPolicy::new(id, restart), tree)
}

fn play(trees: Vec<Tree>, trace: &str) -> (String, Result<(), Error>) {
    let setup = Setup { trees, pools: vec![Pool::named("main")], ..Setup::default() };
    let mut output = Vec::new();
    let result = run(setup, trace.as_bytes(), &mut output, 0);
    (String::from_utf8(output).expect("JSON is UTF-8"), result)
}

/// What was written after everything had started.
fn after_start(trees: Vec<Tree>, trace: &str) -> Vec<String> {
    let (output, result) = play(trees, trace);
    result.expect("the trace can be played");
    output.lines().map(str::to_owned).skip_while(|line| line.contains(r#""event":"start""#)).collect()
}

fn refusal(trace: &str) -> String {
    let trees = vec![tree("s", plain(Strategy::OneForOne, 2), vec![worker("c1"), worker("c2")])];
    play(trees, trace).1.expect_err("it cannot be played").to_string()
}

#[test]
fn a_crash_a_question_and_the_answer() {
    let trees = vec![tree("s", plain(Strategy::RestForOne, 2), vec![worker("c1"), worker("c2")])];
    let trace = r#"{"at_ms":5,"exit":"c1","reason":"panic"}
{"at_ms":9,"expect_tree":"s"}"#;
    let (output, result) = play(trees, trace);
    result.expect("the trace can be played");
    let expected = r#"{"at_ms":0,"event":"start","child":"c1","supervisor":"s"}
{"at_ms":0,"event":"start","child":"c2","supervisor":"s"}
{"at_ms":5,"event":"stop","child":"c1","supervisor":"s","reason":"panic"}
{"at_ms":5,"event":"stop","child":"c2","supervisor":"s","reason":"shutdown"}
{"at_ms":5,"event":"restart","child":"c1","supervisor":"s","after_ms":0,"restarts":1}
{"at_ms":5,"event":"restart","child":"c2","supervisor":"s","after_ms":0,"restarts":1}
{"at_ms":9,"supervisor":"s","state":"running","reason":null,"running":["c1","c2"],"specs":["c1","c2"],"starts":{"c1":2,"c2":2}}
"#;
    assert_eq!(output, expected);
}

#[test]
fn verbs_are_answered_with_the_keys_of_their_line() {
    let trees = vec![tree(
        "s",
        plain(Strategy::OneForOne, 2),
        vec![worker("c1"), TreeChild::worker(ChildPolicy::new("t", Restart::Temporary))],
    )];
    let trace = r#"{"at_ms":1,"child":"c1","op":"delete"}
{"at_ms":1,"child":"c1","op":"stop"}
{"at_ms":2,"child":"c1","op":"start"}
{"at_ms":3,"child":"c1","op":"restart"}
{"at_ms":4,"child":"t","op":"stop"}
{"at_ms":4,"child":"t","op":"restart"}
{"at_ms":5,"child":"t","op":"start"}
{"at_ms":5,"child":"nobody","op":"stop"}
{"at_ms":6,"expect_tree":"s"}"#;
    let expected = r#"{"at_ms":1,"child":"c1","op":"delete","ok":false,"error":"running"}
{"at_ms":1,"event":"stop","child":"c1","supervisor":"s","reason":"shutdown"}
{"at_ms":1,"child":"c1","op":"stop","ok":true}
{"at_ms":2,"child":"c1","op":"start","ok":false,"error":"already_present"}
{"at_ms":3,"event":"start","child":"c1","supervisor":"s"}
{"at_ms":3,"child":"c1","op":"restart","ok":true}
{"at_ms":4,"event":"stop","child":"t","supervisor":"s","reason":"shutdown"}
{"at_ms":4,"child":"t","op":"stop","ok":true}
{"at_ms":4,"child":"t","op":"restart","ok":false,"error":"not_found"}
{"at_ms":5,"event":"start","child":"t","supervisor":"s"}
{"at_ms":5,"child":"t","op":"start","ok":true}
{"at_ms":5,"child":"nobody","op":"stop","ok":false,"error":"not_found"}
{"at_ms":6,"supervisor":"s","state":"running","reason":null,"running":["c1","t"],"specs":["c1","t"],"starts":{"c1":2,"t":2}}"#;
    assert_eq!(after_start(trees, trace).join("\n"), expected);
}

#[test]
fn a_supervisor_below_gives_up_and_its_parent_decides() {
    let trees = |restart| {
        vec![
            tree("s", plain(Strategy::OneForOne, 2), vec![worker("c1"), inner("inner", restart, "s2")]),
            tree("s2", plain(Strategy::OneForOne, 0), vec![worker("leaf")]),
        ]
    };
    let trace = r#"{"at_ms":1,"exit":"leaf","reason":"error"}
{"at_ms":2,"expect_tree":"s2"}
{"at_ms":2,"expect_tree":"s"}"#;
    let back = after_start(trees(Restart::Permanent), trace).join("\n");
    let expected = r#"{"at_ms":1,"event":"stop","child":"leaf","supervisor":"s2","reason":"error"}
{"at_ms":1,"event":"escalate","supervisor":"s2"}
{"at_ms":1,"event":"stop","child":"inner","supervisor":"s","reason":"shutdown"}
{"at_ms":1,"event":"start","child":"leaf","supervisor":"s2"}
{"at_ms":1,"event":"restart","child":"inner","supervisor":"s","after_ms":0,"restarts":1}
{"at_ms":2,"supervisor":"s2","state":"running","reason":null,"running":["leaf"],"specs":["leaf"],"starts":{"leaf":2}}
{"at_ms":2,"supervisor":"s","state":"running","reason":null,"running":["c1","inner"],"specs":["c1","inner"],"starts":{"c1":1,"inner":2}}"#;
    assert_eq!(back, expected);
    let down = after_start(trees(Restart::Transient), trace);
    let expected = r#"{"at_ms":2,"supervisor":"s2","state":"terminated","reason":"shutdown","running":[],"specs":[],"starts":{"leaf":1}}"#;
    assert_eq!(down[3], expected, "a transient supervisor has ended with shutdown and stays down");
}

#[test]
fn a_tree_below_is_found_by_either_name_and_falls_with_its_children() {
    for name in ["inner", "s2", "s/inner"] {
        let trees = vec![
            tree("s2", plain(Strategy::OneForOne, 0), vec![worker("x"), worker("y")]),
            tree("s", plain(Strategy::OneForOne, 2), vec![inner("inner", Restart::Permanent, "s2")]),
        ];
        let trace = format!(r#"{{"at_ms":1,"exit":"{name}","reason":"kill"}}"#);
        let told = after_start(trees, &trace).join("\n");
        let expected = r#"{"at_ms":1,"event":"stop","child":"y","supervisor":"s2","reason":"kill"}
{"at_ms":1,"event":"stop","child":"x","supervisor":"s2","reason":"kill"}
{"at_ms":1,"event":"stop","child":"inner","supervisor":"s","reason":"kill"}
{"at_ms":1,"event":"start","child":"x","supervisor":"s2"}
{"at_ms":1,"event":"start","child":"y","supervisor":"s2"}
{"at_ms":1,"event":"restart","child":"inner","supervisor":"s","after_ms":0,"restarts":1}"#;
        assert_eq!(told, expected);
    }
}

#[test]
fn starts_follow_their_script_over_the_whole_simulation() {
    let scripted = TreeChild { starts: vec![true, false, true], ..worker("c2") };
    let trees = vec![tree("s", plain(Strategy::OneForAll, 5), vec![worker("c1"), scripted])];
    let trace = r#"{"at_ms":1,"exit":"c1","reason":"panic"}
{"at_ms":1,"expect_tree":"s"}"#;
    let told = after_start(trees, trace);
    assert!(told.contains(
        &r#"{"at_ms":1,"event":"start_failed","child":"c2","supervisor":"s","error":"simulated"}"#.into()
    ));
    let expected = r#"{"at_ms":1,"supervisor":"s","state":"running","reason":null,"running":["c1","c2"],"specs":["c1","c2"],"starts":{"c1":3,"c2":3}}"#;
    assert_eq!(told.last().expect("there is an answer"), expected);
}

#[test]
fn a_tree_that_cannot_start_is_terminated_and_its_parent_is_told() {
    let fails = TreeChild { starts: vec![false], ..worker("leaf") };
    let trees = vec![
        tree(
            "s",
            plain(Strategy::OneForOne, 2),
            vec![worker("c1"), inner("inner", Restart::Permanent, "s2")],
        ),
        tree("s2", plain(Strategy::OneForOne, 2), vec![fails]),
    ];
    let trace = r#"{"at_ms":1,"child":"c1","op":"restart"}
{"at_ms":1,"exit":"c1","reason":"panic"}
{"at_ms":1,"expect_tree":"s"}"#;
    let told = after_start(trees, trace);
    let answer = r#"{"at_ms":1,"child":"c1","op":"restart","ok":false,"error":"terminated"}"#;
    assert_eq!(told[told.len() - 2], answer);
    let state = r#"{"at_ms":1,"supervisor":"s","state":"terminated","reason":"shutdown","running":[],"specs":[],"starts":{"c1":1,"inner":1}}"#;
    assert_eq!(told[told.len() - 1], state);
}

#[test]
fn a_delay_ends_before_a_line_of_its_moment() {
    let backoff = Backoff { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(1) };
    let policy = Policy { backoff, ..plain(Strategy::OneForOne, 9) };
    let trace = r#"{"at_ms":10,"exit":"c1","reason":"panic"}
{"at_ms":10,"exit":"c1","reason":"panic"}
{"at_ms":50,"exit":"c1","reason":"panic"}
{"at_ms":110,"exit":"c1","reason":"panic"}
{"at_ms":400,"tick":true}"#;
    let told = after_start(vec![tree("s", policy, vec![worker("c1")])], trace);
    let restarts: Vec<_> = told.iter().filter(|line| line.contains("restart\"")).cloned().collect();
    let expected = [(10, 0, 1), (110, 100, 2), (310, 200, 3)].map(|(at, after, restarts)| {
        format!(r#"{{"at_ms":{at},"event":"restart","child":"c1","supervisor":"s","after_ms":{after},"restarts":{restarts}}}"#)
    });
    assert_eq!(restarts, expected, "who is down at 50 cannot end");
}

#[test]
fn the_runtime_has_a_tree_of_its_own() {
    let trace = r#"{"at_ms":1,"exit":"pool-monitor:main","reason":"panic"}
{"at_ms":1,"expect_tree":"pools"}
{"at_ms":1,"exit":"alert","reason":"kill"}
{"at_ms":1,"expect_tree":"root"}"#;
    let (output, result) = play(vec![], trace);
    result.expect("the trace can be played");
    let expected = r#"{"at_ms":1,"event":"stop","child":"pool-monitor:main","supervisor":"pools","reason":"panic"}
{"at_ms":1,"event":"restart","child":"pool-monitor:main","supervisor":"pools","after_ms":0,"restarts":1}
{"at_ms":1,"supervisor":"pools","state":"running","reason":null,"running":["pool-monitor:main"],"specs":["pool-monitor:main"],"starts":{"pool-monitor:main":2}}
{"at_ms":1,"event":"stop","child":"alert","supervisor":"root","reason":"kill"}
{"at_ms":1,"event":"restart","child":"alert","supervisor":"root","after_ms":0,"restarts":1}
{"at_ms":1,"supervisor":"root","state":"running","reason":null,"running":["alert","pools"],"specs":["alert","pools"],"starts":{"alert":2,"pools":1}}
"#;
    assert_eq!(output, expected);
}

#[test]
fn each_configured_path_has_an_actor_of_its_circuit_with_a_budget_of_its_own() {
    let text = r#"
        [supervision]
        max_restarts = 1
        [[endpoints]]
        path = "/api/a"
        [[endpoints]]
        path = "/api/b"
        [[endpoints]]
        path = "/api/a"
        method = "POST"
    "#;
    let config = Config::load(&Source::text("selfheal.toml", text)).expect("it is valid");
    let trace = r#"{"at_ms":1,"exit":"breaker:/api/a","reason":"panic"}
{"at_ms":2,"exit":"breakers/breaker:/api/b","reason":"error"}
{"at_ms":3,"exit":"breaker:/api/a","reason":"panic"}
{"at_ms":4,"call":"/api/a","outcome":"success"}
{"at_ms":4,"expect_tree":"breakers"}
{"at_ms":4,"expect_tree":"root"}"#;
    let mut output = Vec::new();
    run(Setup::from(&config), trace.as_bytes(), &mut output, 0).expect("the trace can be played");
    let output = String::from_utf8(output).expect("JSON is UTF-8");
    let expected = r#"{"at_ms":1,"event":"stop","child":"breaker:/api/a","supervisor":"breakers","reason":"panic"}
{"at_ms":1,"event":"restart","child":"breaker:/api/a","supervisor":"breakers","after_ms":0,"restarts":1}
{"at_ms":2,"event":"stop","child":"breaker:/api/b","supervisor":"breakers","reason":"error"}
{"at_ms":2,"event":"restart","child":"breaker:/api/b","supervisor":"breakers","after_ms":0,"restarts":1}
{"at_ms":3,"event":"stop","child":"breaker:/api/a","supervisor":"breakers","reason":"panic"}
{"at_ms":3,"event":"given_up","child":"breaker:/api/a","supervisor":"breakers"}
{"at_ms":4,"call":"/api/a","admitted":true}
{"at_ms":4,"supervisor":"breakers","state":"running","reason":null,"running":["breaker:/api/b"],"specs":["breaker:/api/a","breaker:/api/b"],"starts":{"breaker:/api/a":2,"breaker:/api/b":2}}
{"at_ms":4,"supervisor":"root","state":"running","reason":null,"running":["alert","pools","breakers"],"specs":["alert","pools","breakers"],"starts":{"alert":1,"pools":1,"breakers":1}}
"#;
    assert_eq!(output, expected);
}

#[test]
fn a_line_that_cannot_be_played_is_named_with_its_key_and_a_way_out() {
    for (trace, says) in [
        ("{\"at_ms\":1,\"tick\":true}\nnonsense", "line 2: it is not one JSON object"),
        (r#"{"tick":true}"#, "line 1: it has no `at_ms`: say when it happens"),
        (r#"{"at_ms":-1,"tick":true}"#, "`at_ms` is -1: use a whole number of milliseconds"),
        (
            "{\"at_ms\":9,\"tick\":true}\n\n{\"at_ms\":5,\"tick\":true}",
            "line 3: `at_ms` is 5 after 9: time never falls",
        ),
        (r#"{"at_ms":1,"crash":"c1"}"#, "give it one of `exit`, `child`, `expect_tree`, `pool`, `enter`,"),
        (r#"{"at_ms":1,"exit":"c9","reason":"kill"}"#, "`exit` is c9, which no tree has: name one of c1, c2"),
        (r#"{"at_ms":1,"exit":"c1","reason":"bored"}"#, "unknown variant `bored`, expected one of `panic`"),
        (r#"{"at_ms":1,"exit":"c1"}"#, "missing field `reason`"),
        (
            r#"{"at_ms":1,"exit":"c1","reason":"kill","id":3}"#,
            "unknown field `id`, expected one of `at_ms`, `exit`, `reason`",
        ),
        (r#"{"at_ms":1,"child":"s","op":"stop"}"#, "`child` is s, which nobody supervises"),
        (r#"{"at_ms":1,"expect_tree":"c1"}"#, "`expect_tree` is c1, which is no tree: name one of s"),
        (r#"{"at_ms":1,"tick":1}"#, "expected a boolean"),
    ] {
        let refusal = refusal(trace);
        assert!(refusal.contains(says), "{trace}: {refusal}");
        assert!(refusal.ends_with("it and the lines after it were not played"), "{refusal}");
    }
}

#[test]
fn what_came_before_a_bad_line_has_been_written() {
    let trees = vec![tree("s", plain(Strategy::OneForOne, 2), vec![worker("c1")])];
    let (output, result) = play(trees, "{\"at_ms\":1,\"exit\":\"c1\",\"reason\":\"kill\"}\n{}");
    assert!(matches!(result, Err(Error::Line { number: 2, .. })));
    assert_eq!(output.lines().count(), 3);
}

#[test]
fn an_id_that_several_trees_have_is_told_by_its_tree() {
    let policy = plain(Strategy::OneForOne, 2);
    let trees = || vec![tree("s", policy, vec![worker("c")]), tree("z", policy, vec![worker("c")])];
    let error = play(trees(), r#"{"at_ms":1,"exit":"c","reason":"kill"}"#).1.expect_err("which one?");
    assert!(error.to_string().contains("write s/c or z/c"), "{error}");
    let told = after_start(trees(), r#"{"at_ms":1,"exit":"z/c","reason":"kill"}"#);
    assert!(told[0].contains(r#""supervisor":"z""#), "{told:?}");
}

#[test]
fn trees_that_do_not_fit_together_are_refused() {
    let policy = plain(Strategy::OneForOne, 2);
    let below = |tree: &str| inner("i", Restart::Permanent, tree);
    let refused = |trees| match play(trees, "").1 {
        Err(Error::Setup(invalid)) => invalid.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(vec![tree("s", policy, vec![]), tree("s", policy, vec![])]), "two trees are named s");
    let unknown = vec![tree("s", policy, vec![below("t")])];
    assert_eq!(refused(unknown), "tree s: there is no tree named t for its child to supervise");
    let circle = vec![tree("s", policy, vec![below("t")]), tree("t", policy, vec![below("s")])];
    assert_eq!(refused(circle), "tree s is below itself");
    let two = vec![
        tree("s", policy, vec![below("u")]),
        tree("t", policy, vec![below("u")]),
        tree("u", policy, vec![]),
    ];
    assert_eq!(refused(two), "tree u has two parents");
    let twice = vec![tree("s", policy, vec![worker("c"), worker("c")])];
    assert_eq!(refused(twice), "tree s: two children are named c");
}

#[test]
fn a_config_is_played_as_it_stands() {
    let config = r#"
        [pools.main]
        [supervision]
        max_restarts = 0
        [[tree]]
        name = "s"
        strategy = "rest_for_one"
        max_restarts = 2
        within = "1h"
        auto_shutdown = "any_significant"
        children = [
            { id = "c1", start = ["ok", "fail", "ok"] },
            { id = "inner", supervisor = "s2" },
            { id = "c3", restart = "transient", significant = true },
        ]
        [[tree]]
        name = "s2"
        children = [{ id = "leaf" }]
    "#;
    let config = Config::load(&Source::text("selfheal.toml", config)).expect("it is valid");
    let trace = r#"{"at_ms":1,"exit":"c1","reason":"panic"}
{"at_ms":1,"expect_tree":"s"}
{"at_ms":2,"exit":"c3","reason":"normal"}
{"at_ms":2,"expect_tree":"s"}
{"at_ms":3,"exit":"pool-monitor:main","reason":"panic"}
{"at_ms":3,"expect_tree":"root"}"#;
    let mut output = Vec::new();
    run(&config, trace.as_bytes(), &mut output, 0).expect("the trace can be played");
    let output = String::from_utf8(output).expect("JSON is UTF-8");
    let states: Vec<_> = output.lines().filter(|line| line.contains("\"state\"")).collect();
    assert_eq!(
        states,
        [
            r#"{"at_ms":1,"supervisor":"s","state":"running","reason":null,"running":["c1","inner","c3"],"specs":["c1","inner","c3"],"starts":{"c1":3,"inner":2,"c3":2}}"#,
            r#"{"at_ms":2,"supervisor":"s","state":"terminated","reason":"shutdown","running":[],"specs":[],"starts":{"c1":3,"inner":2,"c3":2}}"#,
            r#"{"at_ms":3,"supervisor":"root","state":"terminated","reason":"shutdown","running":[],"specs":[],"starts":{"alert":1,"pools":1}}"#,
        ]
    );
}
