//! The environment layer: what it can set, and that a slip in it is never silent.

use std::{ffi::OsString, time::Duration};

use selfheal::config::{Config, Environment, Metrics, Reserve, Source};
use selfheal_actors::level::Mode;

use super::{check_with, only, random, selfheal, stdout};

const FILE: &str = "\
[pools.main]
warning = 0.7
warning_exit = 0.6
[pools.read-replica]
[[endpoints]]
path = \"/\"
";

fn load(variables: &[(&str, &str)]) -> Config {
    let environment: Environment = variables.iter().copied().collect();
    Config::load(&Source::text("x", FILE).with_environment(environment))
        .unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_file_overrides_the_defaults_and_the_environment_both() {
    let plain = load(&[]);
    assert_eq!((plain.pools["main"].warning, plain.pools["main"].critical), (0.7, 0.92));
    let config = load(&[
        ("SELFHEAL__POOLS__MAIN__WARNING", "0.65"),
        ("SELFHEAL__POOLS__MAIN__UP", "1m 30s"),
        ("SELFHEAL__POOLS__MAIN__MAX", "7"),
        ("selfheal__pools__read_replica__reserve", "static"),
        ("SELFHEAL__RUNTIME__MODE", "observe"),
        ("SELFHEAL__SERVICE__NAME", "5"),
        ("SELFHEAL__ADMIN__READ_ONLY", "true"),
        ("SELFHEAL__ADMIN__METRICS", "guarded"),
        ("SELFHEAL__ADMIN__TOKEN", "0123456789abcdef"),
        ("SELFHEAL__ADMIN__LISTEN", "[::1]:9090"),
        ("SELFHEAL__SUPERVISION__BACKOFF__FACTOR", "3"),
        ("SELFHEAL_URL", "http://elsewhere"),
        ("SELFHEAL_TOKEN", "not of the config"),
        ("PATH", "/bin"),
    ]);
    let pool = &config.pools["main"];
    assert_eq!((pool.warning, pool.warning_exit, pool.critical), (0.65, 0.6, 0.92), "merged key by key");
    assert_eq!((pool.up, pool.max), (Duration::from_secs(90), 7));
    assert_eq!(config.pools["read-replica"].reserve, Reserve::Static);
    assert_eq!((config.runtime.mode, config.service.name.as_str()), (Mode::Observe, "5"));
    assert_eq!((config.admin.read_only, config.admin.metrics), (true, Metrics::Guarded));
    assert_eq!(config.admin.token.as_ref().map(|token| token.expose()), Some("0123456789abcdef"));
    assert_eq!(config.supervision.backoff.factor, 3.0);
    assert_eq!(config.endpoints.len(), 1, "a list of the file stays");
}

#[test]
fn a_variable_that_sets_nothing_is_named_with_what_was_meant() {
    for (name, value, says, help) in [
        ("SELFHEAL__POOLS__MAIN__WARNIGN", "0.8", "no key", "SELFHEAL__POOLS__MAIN__WARNING?"),
        ("SELFHEAL__POOLS__MIAN__WARNING", "0.8", "no key", "SELFHEAL__POOLS__MAIN__WARNING?"),
        ("SELFHEAL__POOL__MAIN__WARNING", "0.8", "no key", "SELFHEAL__POOLS__MAIN__WARNING?"),
        ("SELFHEAL__POOLS__OTHER__MAX", "5", "no key", "SELFHEAL__POOLS__"),
        ("SELFHEAL__MODE", "off", "no key", "SELFHEAL__RUNTIME__MODE"),
        ("SELFHEAL__", "1", "no key", "reference"),
        ("SELFHEAL__A[99999999999]", "1", "must not contain", "in the file"),
        ("SELFHEAL__POOLS[99999999999]__MAX", "1", "must not contain", "in the file"),
        ("SELFHEAL__POOLS__MAIN__WARNING__X", "1", "no key", "SELFHEAL__POOLS__MAIN__WARNING"),
        ("SELFHEAL__POOLS__MAIN", "1", "pools.main is a table", "SELFHEAL__POOLS__MAIN__"),
        ("SELFHEAL__ENDPOINTS", "1", "endpoints is a list", "[[endpoints]] in the file"),
        ("SELFHEAL__ENDPOINTS__0__CLASS", "critical", "endpoints is a list", "[[endpoints]] in the file"),
        ("SELFHEAL__TREE__0__NAME", "s", "tree is a list", "[[tree]] in the file"),
        ("SELFHEAL__BREAKER__OPEN_FORR", "3s", "no key", "SELFHEAL__BREAKER__OPEN_FOR?"),
        ("SELFHEAL__RUNTIME__STORE", "x", "does not have runtime.store yet", "remove"),
        ("SELFHEAL__POOLS__MAIN__WARNING", "high", "found the string \"high\"", "WARNING=0.85"),
        ("SELFHEAL__POOLS__MAIN__WARNING", "85", "found the number 85", "WARNING=0.85"),
        ("SELFHEAL__POOLS__MAIN__MAX", "3.9", "a whole number", "MAX=100"),
        ("SELFHEAL__POOLS__MAIN__MAX", "", "a whole number", "MAX=100"),
        ("SELFHEAL__POOLS__MAIN__UP", "20", "a duration", "UP=20ms or SELFHEAL__POOLS__MAIN__UP=20s"),
        ("SELFHEAL__RUNTIME__MODE", "akt", "one of", "MODE=act"),
        ("SELFHEAL__ADMIN__READ_ONLY", "yes", "true or false", "READ_ONLY=false"),
        ("SELFHEAL__ADMIN__TOKEN", "", "at least 16", "openssl"),
        ("SELFHEAL__POOLS__MAIN__WARNING", "0.95", "(0.95) must be below critical", "lower warning"),
    ] {
        let report = check_with(FILE, &[(name, value)]);
        let issue = only(&report);
        assert_eq!(issue.variable.as_deref(), Some(name), "{report}");
        assert_eq!((&issue.file, issue.line), (&None, None), "{report}");
        assert!(issue.message.contains(says), "{report}");
        assert!(issue.suggestion.contains(help), "{report}");
        assert!(report.to_string().contains(name), "{report}");
    }
}

#[test]
fn a_pool_that_the_file_does_not_name_cannot_be_set() {
    let report = check_with("", &[("SELFHEAL__POOLS__MAIN__WARNING", "0.8")]);
    assert!(only(&report).suggestion.contains("name the pool in the file"), "{report}");
}

#[test]
fn a_name_that_could_mean_two_keys_sets_neither() {
    let file = "[pools.a-b]\n[pools.a_b]\n[pools.A_B]\n";
    let report = check_with(file, &[("SELFHEAL__POOLS__A_B__MAX", "5")]);
    assert!(only(&report).message.contains("pools.A_B.max, pools.a-b.max, pools.a_b.max"), "{report}");

    let twice = check_with(FILE, &[("SELFHEAL__SERVICE__NAME", "a"), ("selfheal__service__name", "b")]);
    assert!(only(&twice).message.contains("sets the same key"), "{twice}");
}

#[cfg(unix)]
#[test]
fn a_value_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0xff]);
    let environment: Environment = [("SELFHEAL__SERVICE__NAME", value)].into_iter().collect();
    let report = selfheal::config::check(&Source::defaults().with_environment(environment));
    assert!(only(&report).message.contains("not UTF-8"), "{report}");
}

/// 200 variables, none of which sets anything, and what each is.
fn wrong(random: &mut fastrand::Rng) -> Vec<(String, String)> {
    const WORDS: [&str; 12] = [
        "POOLS",
        "MAIN",
        "WARNING",
        "[99999999999]",
        "RUNTIME",
        "X",
        "",
        "ENDPOINTS",
        "0",
        "max",
        "é",
        "ADMIN",
    ];
    let value = |random: &mut fastrand::Rng| {
        let length = random.usize(0..30);
        (0..length).map(|_| random.char('!'..'~')).collect::<String>()
    };
    (0..200)
        .map(|i| {
            let words: Vec<_> =
                (0..random.usize(0..5)).map(|_| random.choice(WORDS).unwrap_or_default()).collect();
            // The number keeps the names apart, and makes sure that none of them is right.
            (format!("SELFHEAL__{}__Q{i}", words.join("__")), value(random))
        })
        .collect()
}

#[test]
fn two_hundred_wrong_variables_are_all_named() {
    let mut random = random();
    let variables = wrong(&mut random);
    let borrowed: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let report = check_with(FILE, &borrowed);
    assert_eq!(report.count(), 200);
    for (name, _) in &variables {
        assert!(report.errors.iter().any(|issue| issue.variable.as_ref() == Some(name)), "{name}\n{report}");
    }

    let output = selfheal(&["check", "config/selfheal.toml"], &borrowed);
    assert_eq!(output.status.code(), Some(1), "it neither aborts nor accepts");
    let told = stdout(&output);
    for (name, _) in &variables {
        assert!(told.contains(&format!("{name}: ")), "{name}\n{told}");
    }
}

#[test]
fn the_binary_reads_the_environment_of_its_process() {
    let shown = selfheal(
        &["config", "show"],
        &[("SELFHEAL__RUNTIME__MODE", "off"), ("SELFHEAL__ADMIN__TOKEN", "0123456789abcdef")],
    );
    let text = stdout(&shown);
    assert!(text.contains("mode = \"off\"") && text.contains("token = \"***\""), "{text}");
}
