//! Traces about a pool and what comes of them, line by line.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use selfheal::simulate::{Error, Pool, Setup, run};
use selfheal_actors::gate::Reserve;

/// A pool of 100 whose thresholds are those of the incident of 09:40:20, as they are told: on the use itself.
fn literal(reserve: Reserve) -> Pool {
    let mut pool = Pool::named("main");
    pool.gate.reserve = reserve;
    pool.monitor.needs_waiter = reserve == Reserve::Auto;
    pool.monitor.smoothing = Duration::ZERO;
    pool
}

fn small(max: u32) -> Pool {
    Pool { max, ..Pool::named("main") }
}

fn play(pool: Pool, trace: &str) -> Result<String, Error> {
    let mut output = Vec::new();
    let setup = Setup { pools: vec![pool], ..Setup::default() };
    run(setup, trace.as_bytes(), &mut output, 0)?;
    Ok(String::from_utf8(output).expect("JSON is UTF-8"))
}

fn assert_played(pool: Pool, trace: &str, expected: &str) {
    let played = play(pool, trace).expect("the trace can be played");
    assert!(played == expected, "played:\n{played}\nexpected:\n{expected}");
}

const INCIDENT: &str = r#"{"at_ms":220,"event":"pressure","pool":"main","from":"normal","to":"warning","in_use":85,"max":100}
{"at_ms":220,"event":"action","action":"shed","target":"main","step":"taken"}
{"at_ms":220,"event":"action","action":"batch_size","target":"main","step":"taken","value":50}
{"at_ms":220,"event":"action","action":"user_limit","target":"main","step":"taken","value":5}
{"at_ms":220,"event":"incident","id":"sim-1","phase":"opened","kind":"pool_pressure","subject":"pool:main"}
{"at_ms":220,"event":"alert","severity":"warning","kind":"pool_pressure","subject":"pool:main","incident":"sim-1"}
{"at_ms":620,"event":"pressure","pool":"main","from":"warning","to":"critical","in_use":92,"max":100}
{"at_ms":620,"event":"action","action":"critical_only","target":"main","step":"taken"}
{"at_ms":620,"event":"action","action":"omit_optional","target":"main","step":"taken"}
{"at_ms":620,"event":"action","action":"pause_durable","target":"main","step":"taken"}
{"at_ms":620,"event":"incident","id":"sim-1","phase":"escalated","kind":"pool_pressure","subject":"pool:main"}
{"at_ms":620,"event":"alert","severity":"critical","kind":"pool_pressure","subject":"pool:main","incident":"sim-1"}
{"at_ms":1250,"event":"pressure","pool":"main","from":"critical","to":"warning","in_use":88,"max":100}
{"at_ms":1250,"event":"action","action":"pause_durable","target":"main","step":"undone"}
{"at_ms":1250,"event":"action","action":"omit_optional","target":"main","step":"undone"}
{"at_ms":1250,"event":"action","action":"critical_only","target":"main","step":"undone"}
{"at_ms":3300,"event":"pressure","pool":"main","from":"warning","to":"normal","in_use":60,"max":100}
{"at_ms":3300,"event":"action","action":"user_limit","target":"main","step":"undone"}
{"at_ms":3300,"event":"action","action":"batch_size","target":"main","step":"undone","value":10}
{"at_ms":3300,"event":"action","action":"shed","target":"main","step":"undone"}
{"at_ms":4300,"event":"incident","id":"sim-1","phase":"resolved","kind":"pool_pressure","subject":"pool:main"}
{"at_ms":4300,"event":"alert","severity":"info","kind":"pool_pressure","subject":"pool:main","incident":"sim-1"}
"#;

/// 40 → 85 → 92 → 88 → 60 of 100 in use, with so many waiting at the two thresholds.
fn of_09_40_20(waiting: [u32; 2]) -> String {
    let [at_85, at_92] = waiting;
    format!(
        r#"{{"at_ms":100,"pool":"main","in_use":40,"max":100,"waiting":0}}
{{"at_ms":200,"pool":"main","in_use":85,"max":100,"waiting":{at_85}}}
{{"at_ms":600,"pool":"main","in_use":92,"max":100,"waiting":{at_92}}}
{{"at_ms":1000,"pool":"main","in_use":88,"max":100,"waiting":0}}
{{"at_ms":1300,"pool":"main","in_use":60,"max":100,"waiting":0}}
{{"at_ms":9000,"tick":true}}"#
    )
}

#[test]
fn with_a_static_reserve_the_incident_of_09_40_20_goes_85_92_88_normal() {
    assert_played(literal(Reserve::Static), &of_09_40_20([0, 0]), INCIDENT);
}

#[test]
fn without_one_the_same_use_is_no_pressure_until_somebody_waits() {
    assert_played(literal(Reserve::Auto), &of_09_40_20([0, 0]), "");
    assert_played(literal(Reserve::Auto), &of_09_40_20([2, 30]), INCIDENT);
}

#[test]
fn with_the_defaults_a_full_pool_with_a_queue_is_in_warning_after_20_ms() {
    let trace = r#"{"at_ms":0,"pool":"main","in_use":20,"max":100,"waiting":0}
{"at_ms":500,"pool":"main","in_use":100,"max":100,"waiting":60}
{"at_ms":900,"pool":"main","in_use":30,"max":100,"waiting":0}
{"at_ms":5000,"tick":true}"#;
    let levels = events(Pool::named("main"), trace, "pressure");
    let expected = [
        (520, "normal", "warning"),
        // The average goes from .20 to 1: at .92 after 100 · ln(.80/.081) = 229 ms, and 20 ms of dwell.
        (750, "warning", "critical"),
        // .88 is passed a few ms after the load has gone, .80 a few later.
        (1_154, "critical", "warning"),
        (2_930, "warning", "normal"),
    ];
    for ((at, from, to), line) in expected.iter().zip(&levels) {
        let told = format!(r#""from":"{from}","to":"{to}""#);
        let ms: i64 = field(line, "at_ms").parse().expect("a number");
        assert!(line.contains(&told) && (ms - at).abs() <= 30, "{line}: expected {told} at about {at}");
    }
    assert_eq!(levels.len(), expected.len());
}

#[test]
fn acquisitions_are_granted_parked_refused_and_abandoned() {
    let trace = r#"{"at_ms":0,"acquire":"main","id":"q1"}
{"at_ms":1,"acquire":"main","id":"q2"}
{"at_ms":2,"acquire":"main","id":"q3","deadline_ms":50}
{"at_ms":3,"acquire":"main","id":"q4","class":"critical"}
{"at_ms":4,"release":"q1"}
{"at_ms":40,"acquire":"main","id":"q5","class":"sheddable"}
{"at_ms":41,"enter":"main","job":"j1","class":"sheddable"}
{"at_ms":42,"enter":"main","job":"j2","class":"critical"}
{"at_ms":43,"acquire":"main","id":"q6","job":"j2"}
{"at_ms":44,"acquire":"main","id":"q7","job":"j1"}
{"at_ms":59,"abandon":"q6"}
{"at_ms":60,"release":"q2"}
{"at_ms":61,"release":"q4"}
{"at_ms":62,"release":"q3"}
{"at_ms":63,"release":"q5"}
{"at_ms":64,"leave":"j1"}
{"at_ms":64,"leave":"j2"}"#;
    let answers = r#"{"at_ms":0,"acquire":"main","id":"q1","granted":true}
{"at_ms":1,"acquire":"main","id":"q2","granted":true}
{"at_ms":2,"acquire":"main","id":"q3","parked":true}
{"at_ms":3,"acquire":"main","id":"q4","parked":true}
{"at_ms":4,"granted":"q4"}
{"at_ms":40,"acquire":"main","id":"q5","refused":"q5","reason":"shed","retry_after_ms":1000}
{"at_ms":41,"enter":"main","job":"j1","admitted":false,"reason":"shed","retry_after_ms":1000}
{"at_ms":42,"enter":"main","job":"j2","admitted":true}
{"at_ms":43,"acquire":"main","id":"q6","parked":true}
{"at_ms":44,"acquire":"main","id":"q7","refused":"q7","reason":"shed"}
{"at_ms":52,"refused":"q3","reason":"deadline","retry_after_ms":1000}
"#;
    let played = play(small(2), trace).expect("the trace can be played");
    let told: String = played
        .lines()
        .filter(|line| !line.contains("event"))
        .fold(String::new(), |all, line| all + line + "\n");
    assert_eq!(told, answers, "the level, which sheds from 22 on, is told beside");
}

#[test]
fn under_pressure_a_user_has_five_requests_in_flight_and_critical_is_exempt() {
    let mut trace = String::new();
    let mut line = |line: &str| writeln!(trace, "{line}").expect("a string takes all");
    line(r#"{"at_ms":0,"pool":"main","in_use":100,"max":100,"waiting":9}"#);
    for job in 1..=6 {
        line(&format!(r#"{{"at_ms":50,"enter":"main","job":"j{job}","user":"u1"}}"#));
    }
    line(r#"{"at_ms":50,"enter":"main","job":"c","user":"u1","class":"critical"}"#);
    line(r#"{"at_ms":50,"enter":"main","job":"other","user":"u2"}"#);
    line(r#"{"at_ms":60,"leave":"j3"}"#);
    line(r#"{"at_ms":60,"enter":"main","job":"j7","user":"u1"}"#);
    let played = play(Pool::named("main"), &trace).expect("the trace can be played");
    let refused: Vec<_> = played.lines().filter(|line| line.contains(r#""admitted":false"#)).collect();
    assert_eq!(
        refused,
        [
            r#"{"at_ms":50,"enter":"main","job":"j6","admitted":false,"reason":"user_limit","retry_after_ms":1000}"#
        ]
    );
    assert_eq!(played.lines().filter(|line| line.contains(r#""admitted":true"#)).count(), 8);
}

#[test]
fn what_others_use_is_use_of_the_pool() {
    let trace = r#"{"at_ms":0,"pool":"main","in_use":3,"max":4,"waiting":0}
{"at_ms":1,"acquire":"main","id":"q1"}
{"at_ms":2,"acquire":"main","id":"q2"}
{"at_ms":9,"pool":"main","in_use":2,"max":4,"waiting":0}"#;
    let answers = r#"{"at_ms":1,"acquire":"main","id":"q1","granted":true}
{"at_ms":2,"acquire":"main","id":"q2","parked":true}
{"at_ms":9,"granted":"q2"}
"#;
    assert_played(small(4), trace, answers);
}

#[test]
fn a_line_that_cannot_be_played_says_why() {
    let table = [
        (
            r#"{"at_ms":0,"pool":"mian","in_use":1}"#,
            "the config has no pool `mian` (`main`): add [pools.mian]",
        ),
        (r#"{"at_ms":0,"pool":"main"}"#, "missing field `in_use`"),
        (r#"{"at_ms":0,"acquire":"main","id":"q","klass":"normal"}"#, "unknown field `klass`"),
        (r#"{"at_ms":0,"enter":"main","job":"j","class":"vip"}"#, "unknown variant `vip`"),
        (r#"{"at_ms":0,"release":"q"}"#, "nothing was acquired as `q`"),
        (r#"{"at_ms":0,"leave":"j"}"#, "job `j` has not entered"),
        (
            "{\"at_ms\":0,\"acquire\":\"main\",\"id\":\"q\"}\n{\"at_ms\":0,\"acquire\":\"main\",\"id\":\"q\"}",
            "line 2: `q` is taken",
        ),
        (
            "{\"at_ms\":0,\"enter\":\"main\",\"job\":\"j\"}\n{\"at_ms\":0,\"enter\":\"main\",\"job\":\"j\"}",
            "line 2: job `j` has entered already",
        ),
    ];
    for (trace, says) in table {
        let error = play(Pool::named("main"), trace).expect_err("it cannot be played").to_string();
        assert!(error.contains(says), "{trace}: {error}");
    }
}

/// Ten dashboards of 160 queries at once, with sign-ins in between, on a pool of 100.
fn dashboards(seed: u64) -> String {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lines: BTreeMap<(u64, usize), String> = BTreeMap::new();
    let mut add = |at: u64, line: String| {
        let order = lines.len();
        lines.insert((at, order), format!(r#"{{"at_ms":{at},{line}}}"#));
    };
    for job in 0..10 {
        add(
            100,
            format!(r#""enter":"main","job":"d{job}","user":"u{job}","deadline_ms":5000,"queries":160"#),
        );
        for query in 0..160 {
            let (asked, held) = (100 + random.u64(0..5), 1_500 + random.u64(0..3_000));
            add(asked, format!(r#""acquire":"main","id":"d{job}q{query}","job":"d{job}""#));
            add(asked + held, format!(r#""release":"d{job}q{query}""#));
        }
        add(6_000, format!(r#""leave":"d{job}""#));
    }
    for login in 0..100 {
        let asked = 90 + login * 7;
        add(asked, format!(r#""acquire":"main","id":"c{login}","class":"critical","deadline_ms":250"#));
        add(asked + 20 + random.u64(0..20), format!(r#""release":"c{login}""#));
    }
    add(20_000, r#""tick":true"#.to_owned());
    lines.into_values().collect::<Vec<_>>().join("\n")
}

#[test]
fn whatever_the_load_each_acquisition_has_one_end_and_the_pool_comes_back_to_normal() {
    for seed in 0..5 {
        let trace = dashboards(seed);
        let played = play(Pool::named("main"), &trace).expect("the trace can be played");
        assert_eq!(
            played,
            play(Pool::named("main"), &trace).expect("it can"),
            "again the same (seed {seed})"
        );

        let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
        for line in played.lines().filter(|line| !line.contains("event")) {
            let id =
                if line.contains(r#""granted":true"#) { field(line, "id") } else { field(line, "granted") };
            *ends.entry(if id.is_empty() { field(line, "refused") } else { id }).or_default() += 1;
        }
        ends.remove("");
        assert!(ends.values().all(|&ends| ends == 1), "seed {seed}");
        let levels = events(Pool::named("main"), &trace, "pressure");
        assert!(levels.iter().any(|line| line.contains(r#""to":"critical""#)), "seed {seed}");
        assert!(levels.last().is_some_and(|line| line.contains(r#""to":"normal""#)), "seed {seed}");
        let taken = events(Pool::named("main"), &trace, "action");
        let (taken, undone): (Vec<_>, Vec<_>) =
            taken.iter().partition(|line| line.contains(r#""step":"taken""#));
        assert!(taken.len() == undone.len() && taken.len() >= 6, "seed {seed}");
    }
}

fn events(pool: Pool, trace: &str, event: &str) -> Vec<String> {
    let played = play(pool, trace).expect("the trace can be played");
    let event = format!(r#""event":"{event}""#);
    played.lines().filter(|line| line.contains(&event)).map(str::to_owned).collect()
}

/// The value of a field in a line of JSON, without its quotes; empty if there is no such field.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let name = format!("\"{name}\":");
    let value = line.split_once(&name).map_or("", |(_, rest)| rest);
    value.split([',', '}']).next().unwrap_or("").trim_matches('"')
}
