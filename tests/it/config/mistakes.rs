//! Every kind of mistake in a file: told at the right line and column, under the right key, with a remedy.

use std::io::Write;

use selfheal::config::{Config, Look, Source};

use super::{check, check_with, only, random, read, selfheal, stdout};

/// A file with one mistake, and what must be said of it.
struct Case {
    text: &'static str,
    at: (usize, usize),
    key: &'static str,
    says: &'static str,
    help: &'static str,
}

const fn case(
    text: &'static str,
    at: (usize, usize),
    key: &'static str,
    says: &'static str,
    help: &'static str,
) -> Case {
    Case { text, at, key, says, help }
}

const CASES: &[Case] = &[
    // Names of keys.
    case(
        "[pools.main]\nwarnign = 0.8",
        (2, 1),
        "pools.main.warnign",
        "no key \"warnign\"",
        "did you mean warning?",
    ),
    case("[servce]\nname = \"x\"", (1, 2), "servce", "no key \"servce\"", "did you mean service?"),
    case("mode = \"off\"", (1, 1), "mode", "no key", "mode belongs to [runtime]"),
    case("[admin]\nclass = \"normal\"", (2, 1), "admin.class", "no key", "class belongs to [[endpoints]]"),
    case("[admin]\nzzz = 1", (2, 1), "admin.zzz", "no key", "config reference"),
    case("[\"a[999999999999]\"]\nx = 1", (1, 2), "\"a[999999999999]\"", "must not contain", "[[endpoints]]"),
    case(
        "[pools.\"m[9999999999]\"]",
        (1, 8),
        "pools.\"m[9999999999]\"",
        "must not contain",
        "without quotes",
    ),
    case("[pools.\"\"]", (1, 8), "pools.\"\"", "a name of 1 to 64", "config reference"),
    // What a later version will have.
    case("[[alerts.route]]", (1, 3), "alerts", "does not have alerts yet", "remove"),
    case("[alerts.sinks.mail]", (1, 2), "alerts", "does not have alerts yet", "remove"),
    case("[reports]", (1, 2), "reports", "does not have reports yet", "remove"),
    case("[runtime]\nstore = \"x\"", (2, 1), "runtime.store", "does not have store yet", "remove store"),
    // Which status may become which.
    case(
        "[transitions.message]\nREADY = [\"PROMOTD\"]\nPROMOTED = []",
        (2, 10),
        "transitions.message.READY[0]",
        "\"PROMOTD\" is not listed, and looks like \"PROMOTED\"",
        "did you mean \"PROMOTED\"? If it is a final status of its own, add PROMOTD = []",
    ),
    case(
        "[transitions.message]\nREADY = [\"DONE\", \"DONE\"]",
        (2, 18),
        "transitions.message.READY[1]",
        "\"DONE\" is listed twice",
        "remove one of the two",
    ),
    case("[transitions.message]", (1, 1), "transitions.message", "a table without a status", "READY ="),
    case(
        "[transitions.message]\nREADY = \"DONE\"",
        (2, 9),
        "transitions.message.READY",
        "expected a list, each item a string of 1 to 64",
        "config reference",
    ),
    // Circuits.
    case("[breaker]\nopen_forr = \"3s\"", (2, 1), "breaker.open_forr", "no key", "did you mean open_for?"),
    case(
        "[[endpoints]]\npath = \"/\"\nbreaker = { fail_rate = 1 }",
        (3, 13),
        "endpoints[0].breaker.fail_rate",
        "no key",
        "did you mean failure_rate?",
    ),
    case(
        "[breaker]\nfailure_rate = { above = 50 }",
        (2, 26),
        "breaker.failure_rate.above",
        "a number from 0 to 1",
        "a share, not a percentage: above = 0.5",
    ),
    case(
        "[breaker]\nfailures = { above = 5, at_least = 6 }",
        (2, 12),
        "breaker.failures",
        "above or at_least, not both",
        "failures = { at_least",
    ),
    case(
        "[breaker]\nfailure_rate = { above = 1.0 }",
        (2, 16),
        "breaker.failure_rate",
        "never above 1",
        "at_least = 1.0",
    ),
    case(
        "[breaker]\nslow_rate = { at_least = 1.0 }",
        (2, 13),
        "breaker.slow_rate",
        "needs slow_call",
        "add slow_call",
    ),
    case(
        "[breaker]\nwindow = { calls = 5 }",
        (2, 10),
        "breaker.failures",
        "5 calls never holds that many failures",
        "look at more calls",
    ),
    case(
        "[breaker]\nwindow = { calls = 5, buckets = 3 }\nfailures = { above = 1 }",
        (2, 10),
        "breaker.window",
        "not of both",
        "remove calls",
    ),
    case("[breaker]\nwindow = {}", (2, 10), "breaker.window", "needs last or calls", "buckets = 10"),
    case(
        "[breaker]\nopen_max = \"10s\"",
        (2, 12),
        "breaker.open_max",
        "open_for (30s, the default)",
        "raise open_max",
    ),
    case(
        "[[endpoints]]\npath = \"/\"\n[endpoints.breaker]\nopen_for = \"10m\"",
        (4, 12),
        "endpoints[0].breaker.open_for",
        "open_max (5m, the default)",
        "raise open_max",
    ),
    case(
        "[breaker]\nhalf_open = { decide = \"rate\", successes = 2 }",
        (2, 13),
        "breaker.half_open",
        "successes means nothing where decide is \"rate\"",
        "remove successes",
    ),
    // A rule or a list.
    case(
        "[retry]\ndelays = \"exponentialy\"",
        (2, 10),
        "retry.delays",
        "or a list, each item a duration from 0s to 1h",
        "did you mean delays = \"exponential\"?",
    ),
    case("[retry]\ndelays = [\"1s\", 2]", (2, 17), "retry.delays[1]", "found the number 2", "its unit"),
    case("[retry]\ndelays = []", (2, 10), "retry.delays", "the list has 0 waits", "exponential"),
    case(
        "[retry]\nmax = \"10ms\"",
        (2, 7),
        "retry.max",
        "must not be below initial (1s, the default)",
        "raise max",
    ),
    case("[retry]\njitter = \"fulll\"", (2, 10), "retry.jitter", "one of", "did you mean jitter = \"full\"?"),
    case("[retry]\nattempts = 0", (2, 12), "retry.attempts", "from 1 to 100", "for example"),
    // Types: nothing is coerced.
    case(
        "[pools.a]\nmax = \"5\"",
        (2, 7),
        "pools.a.max",
        "found the string \"5\"",
        "without quotes: max = 5",
    ),
    case("[pools.a]\nmax = 3.9", (2, 7), "pools.a.max", "a whole number", "for example max = 100"),
    case("[pools.a]\nwarning = true", (2, 11), "pools.a.warning", "found true", "warning = 0.85"),
    case(
        "[pools.a]\nwarning = \"0.8\"",
        (2, 11),
        "pools.a.warning",
        "a number",
        "without quotes: warning = 0.8",
    ),
    case("[service]\nname = 5", (2, 8), "service.name", "found the number 5", "name = \"5\""),
    case("[admin]\nread_only = \"true\"", (2, 13), "admin.read_only", "true or false", "read_only = true"),
    case("[admin]\nread_only = 1", (2, 13), "admin.read_only", "found the number 1", "read_only = false"),
    case("[service]\nname = 2026-11-24", (2, 8), "service.name", "found a date", "name = \"desk\""),
    case("service = 5", (1, 11), "service", "expected a table", "reference"),
    case("[endpoints]\npath = \"/\"", (1, 1), "endpoints", "found a table", "[[endpoints]]"),
    case("[[service]]\nname = \"x\"", (1, 1), "service", "found a list", "[service]"),
    case("endpoints = [5]", (1, 14), "endpoints[0]", "expected a table", "reference"),
    // Words.
    case("[runtime]\nmode = \"obsrve\"", (2, 8), "runtime.mode", "one of \"observe\"", "mode = \"observe\""),
    case("[pools.a]\nreserve = \"fixed\"", (2, 11), "pools.a.reserve", "\"static\"", "reserve = \"auto\""),
    case("[[endpoints]]\npath = \"/\"\nmethod = \"get\"", (3, 10), "endpoints[0].method", "found", "\"GET\""),
    case(
        "[[endpoints]]\npath = \"/\"\nclass = \"batch\"",
        (3, 9),
        "endpoints[0].class",
        "\"background\"",
        "class =",
    ),
    case(
        "[[endpoints]]\npath = \"/\"\nreplies = \"JSON\"",
        (3, 11),
        "endpoints[0].replies",
        "one of",
        "\"json\"",
    ),
    case("[admin]\nmetrics = \"opn\"", (2, 11), "admin.metrics", "one of", "metrics = \"open\""),
    case(
        "[supervision]\nstrategy = \"one-for-all\"",
        (2, 12),
        "supervision.strategy",
        "one of",
        "one_for_all",
    ),
    // Durations.
    case("[pools.a]\nup = 20", (2, 6), "pools.a.up", "a duration", "up = \"20ms\" or up = \"20s\""),
    case("[pools.a]\nup = \"20\"", (2, 6), "pools.a.up", "a duration", "up = \"20ms\" or up = \"20s\""),
    case("[pools.a]\ndown = \"5 parsecs\"", (2, 8), "pools.a.down", "a duration", "units are ns, us, ms, s"),
    case("[pools.a]\ndown = \"-1s\"", (2, 8), "pools.a.down", "a duration", "down = \"2s\""),
    case("[pools.a]\ndown = \"0s\"", (2, 8), "pools.a.down", "from 1ms", "down = \"2s\""),
    case(
        "[pools.a]\nleak_after = \"0ms\"",
        (2, 14),
        "pools.a.leak_after",
        "from 1ms",
        "leak_after = \"30s\"",
    ),
    case("[pools.a]\nup = \"5M\"", (2, 6), "pools.a.up", "to 1h", "up = \"20ms\""),
    case(
        "[[endpoints]]\npath = \"/\"\ndeadline = \"2h\"",
        (3, 12),
        "endpoints[0].deadline",
        "to 1h",
        "\"10s\"",
    ),
    case("[supervision]\nwithin = 30.0", (2, 10), "supervision.within", "a duration", "within = \"30s\""),
    // Ranges.
    case("[pools.a]\nmax = 0", (2, 7), "pools.a.max", "from 1 to", "max = 100"),
    case("[pools.a]\nmax = -5", (2, 7), "pools.a.max", "found the number -5", "max = 100"),
    case("[pools.a]\nmax = 99999999999999999999", (2, 7), "pools.a.max", "more than 64 bits", "max = 100"),
    case(
        "[pools.a]\nwarning = 85",
        (2, 11),
        "pools.a.warning",
        "at most 1",
        "not a percentage: warning = 0.85",
    ),
    case("[pools.a]\nwarning = 0.0", (2, 11), "pools.a.warning", "above 0", "warning = 0.85"),
    case("[pools.a]\nlong_share = 1.01", (2, 14), "pools.a.long_share", "at most 1", "long_share = 0.85"),
    case("[pools.a]\ncritical = nan", (2, 12), "pools.a.critical", "NaN", "critical = 0.92"),
    case("[pools.a]\ncritical = inf", (2, 12), "pools.a.critical", "inf", "critical = 0.92"),
    case(
        "[users]\nconcurrent_under_pressure = 0",
        (2, 29),
        "users.concurrent_under_pressure",
        "from 1",
        "= 5",
    ),
    case("[batching]\nnormal = 0", (2, 10), "batching.normal", "from 1", "normal = 10"),
    case(
        "[supervision]\nmax_restarts = -1",
        (2, 16),
        "supervision.max_restarts",
        "from 0",
        "max_restarts = 5",
    ),
    case(
        "[supervision.backoff]\nfactor = 0.5",
        (2, 10),
        "supervision.backoff.factor",
        "from 1 to",
        "factor = 2.0",
    ),
    case("[service]\nname = \"\"", (2, 8), "service.name", "1 to 64", "name = \"desk\""),
    case("[service]\nname = \"a\\nb\"", (2, 8), "service.name", "on one line", "name = \"desk\""),
    case("[admin]\ntoken = \"short\"", (2, 9), "admin.token", "at least 16 characters", "openssl rand"),
    case(
        "[admin]\nlisten = \"localhost\"",
        (2, 10),
        "admin.listen",
        "an IP address and a port",
        "127.0.0.1:9090",
    ),
    // Between keys.
    case(
        "[pools.a]\nwarning = 0.95",
        (2, 11),
        "pools.a.warning",
        "(0.95) must be below critical",
        "lower warning",
    ),
    case(
        "[pools.a]\nwarning = 0.92",
        (2, 11),
        "pools.a.warning",
        "must be below critical (0.92, the",
        "raise",
    ),
    case("[pools.a]\nwarning_exit = 0.85", (2, 16), "pools.a.warning_exit", "must be below warning", "lower"),
    case("[pools.a]\nwarning = 0.75", (2, 11), "pools.a.warning_exit", "(0.8, the default) must be", "lower"),
    case(
        "[pools.a]\ncritical_exit = 0.95",
        (2, 17),
        "pools.a.critical_exit",
        "must be below critical",
        "lower",
    ),
    case(
        "[batching]\nunder_pressure = 5",
        (2, 18),
        "batching.under_pressure",
        "below normal (10, the",
        "raise",
    ),
    case(
        "[supervision.backoff]\nmax = \"1ms\"",
        (2, 7),
        "supervision.backoff.max",
        "initial (100ms, the",
        "raise",
    ),
    case(
        "[admin]\nlisten = \"0.0.0.0:80\"",
        (2, 10),
        "admin.listen",
        "there is no token",
        "SELFHEAL__ADMIN__TOKEN",
    ),
    case(
        "[admin]\ntoken = \"0123456789abcdef\"\nread_only_token = \"0123456789abcdef\"",
        (3, 19),
        "admin.read_only_token",
        "the same as token",
        "another one",
    ),
    // Paths.
    case(
        "[[endpoints]]\nclass = \"normal\"",
        (1, 1),
        "endpoints[0].path",
        "is missing",
        "add it, for example path",
    ),
    case(
        "[[endpoints]]\npath = \"api\"",
        (2, 8),
        "endpoints[0].path",
        "begins with \"/\"",
        "path = \"/api\"",
    ),
    case("[[endpoints]]\npath = \"/a/:id\"", (2, 8), "endpoints[0].path", "in braces", "write {id} for :id"),
    case(
        "[[endpoints]]\npath = \"/*rest\"",
        (2, 8),
        "endpoints[0].path",
        "in braces",
        "write {*rest} for *rest",
    ),
    case(
        "[[endpoints]]\npath = \"/{*r}/x\"",
        (2, 8),
        "endpoints[0].path",
        "all that follows",
        "use {r} here",
    ),
    case("[[endpoints]]\npath = \"/a{id}\"", (2, 8), "endpoints[0].path", "whole segment", "/a/{id}"),
    case("[[endpoints]]\npath = \"/a?b=1\"", (2, 8), "endpoints[0].path", "no query", "path = \"/a\""),
    case("[[endpoints]]\npath = \"/a b\"", (2, 8), "endpoints[0].path", "no spaces", "%20"),
    case("[[endpoints]]\npath = \"/{a}/{a}\"", (2, 8), "endpoints[0].path", "twice", "rename"),
    case("[batches.x]\npool = \"b\"", (2, 8), "batches.x.pool", "no pool \"b\"", "add [pools.b]"),
    case(
        "[batches.x]\ndeadline = \"200ms\"",
        (2, 12),
        "batches.x.deadline",
        "nothing is left",
        "raise deadline",
    ),
    case("[batches.x]\nreply = \"soon\"", (2, 9), "batches.x.reply", "soon", "first_chunk"),
    case(
        "[[endpoints]]\npath = \"/\"\npool = \"b\"",
        (3, 8),
        "endpoints[0].pool",
        "no pool \"b\"",
        "add [pools.b]",
    ),
    case(
        "[[endpoints]]\npath = \"/a/{id}\"\n[[endpoints]]\npath = \"/a/{name}\"",
        (4, 8),
        "endpoints[1].path",
        "the same requests as endpoints[0]",
        "keep one",
    ),
    // Trees.
    case("[[tree]]", (1, 1), "tree[0].name", "is missing", "name = \"s\""),
    case("[[tree]]\nname = \"s\"\n[[tree]]\nname = \"s\"", (4, 8), "tree[1].name", "two trees", "rename"),
    case(
        "[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\" }, { id = \"a\" }]",
        (3, 34),
        "tree[0].children[1].id",
        "two children",
        "rename",
    ),
    case(
        "[[tree]]\nname = \"s\"\nchildren = [{ restart = \"never\", id = \"a\" }]",
        (3, 25),
        "tree[0].children[0].restart",
        "\"temporary\"",
        "restart = \"permanent\"",
    ),
    case(
        "[[tree]]\nname = \"s\"\nauto_shutdown = \"any_significant\"\nchildren = [{ id = \"a\", significant = true }]",
        (4, 39),
        "tree[0].children[0].significant",
        "is permanent",
        "transient",
    ),
    case(
        "[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\", restart = \"transient\", significant = true }]",
        (3, 62),
        "tree[0].children[0].significant",
        "never shuts down",
        "any_significant",
    ),
    case(
        "[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\", start = [\"ok\", \"fial\"] }]",
        (3, 40),
        "tree[0].children[0].start[1]",
        "one of \"ok\", \"fail\"",
        "\"fail\"",
    ),
    case(
        "[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\", start = [] }]",
        (3, 33),
        "tree[0].children[0].start",
        "no result",
        "start = [\"ok\"]",
    ),
    case(
        "[[tree]]\nname = \"inner\"\n[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\", supervisor = \"iner\" }]",
        (5, 38),
        "tree[1].children[0].supervisor",
        "no tree \"iner\"",
        "did you mean \"inner\"?",
    ),
    case(
        "[[tree]]\nname = \"i\"\n[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\", supervisor = \"i\" }, { id = \"b\", supervisor = \"i\" }]",
        (5, 70),
        "tree[1].children[1].supervisor",
        "already under \"s\"",
        "keep one",
    ),
    case(
        "[[tree]]\nname = \"s\"\nchildren = [{ id = \"a\", supervisor = \"s\" }]",
        (3, 38),
        "tree[0].children[0].supervisor",
        "above itself",
        "remove this child",
    ),
    // TOML itself.
    case("[service]\nname = desk", (2, 8), "", "must be quoted", "double quotes"),
    case("[service]\nname = \"a\"\nname = \"b\"", (3, 1), "", "duplicate key", "remove one"),
    case("[service\nname = \"a\"", (1, 9), "", "unclosed table", "close the bracket"),
    case("[service]\nname", (2, 5), "", "key with no value", "toml.io"),
];

#[test]
fn every_kind_of_mistake_is_told_with_its_place_and_its_remedy() {
    for Case { text, at, key, says, help } in CASES {
        let report = check(text);
        let issue = only(&report);
        assert_eq!((issue.line, issue.column), (Some(at.0), Some(at.1)), "{text}\n{report}");
        assert_eq!(issue.key, *key, "{text}\n{report}");
        assert!(issue.message.contains(says), "{text}\n{report}");
        assert!(issue.suggestion.contains(help), "{text}\n{report}");
        assert!(!issue.expected.is_empty(), "{text}\n{report}");
        assert_eq!(issue.file.as_deref(), Some("selfheal.toml"));
    }
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once_in_its_order() {
    let text = "\
[runtime]
mode = \"obsrve\"
[pools.main]
warning = 85
critical_exit = 0.99
[pools.main.more]
[[endpoints]]
path = \"a\"
clas = \"normal\"
[batching]
normal = 60
";
    let report = check(text);
    let lines: Vec<_> = report.errors.iter().filter_map(|issue| issue.line).collect();
    assert_eq!(lines, [2, 4, 5, 6, 8, 9, 11], "{report}");
    let told =
        Config::load(&Source::text("selfheal.toml", text)).expect_err("it has seven mistakes").to_string();
    assert!(told.starts_with("7 mistakes in selfheal.toml\n"), "{told}");
    for line in lines {
        assert!(told.contains(&format!("\nselfheal.toml:{line}:")), "{told}");
    }
}

#[test]
fn a_mistake_in_the_grammar_does_not_hide_those_on_other_lines() {
    let report = check("[runtime]\nmode = act\n[users]\nconcurrent = 5\n");
    let lines: Vec<_> = report.errors.iter().map(|issue| issue.line).collect();
    assert_eq!(lines, [Some(2), Some(4)], "{report}");
}

#[test]
fn a_rule_between_keys_is_silent_where_one_of_them_is_wrong_by_itself() {
    only(&check("[pools.main]\nwarning = \"high\"\nwarning_exit = 0.9\ncritical = 0.95\n"));
    only(&check_with(
        "[pools.main]\nwarning = 0.8\nwarning_exit = 0.7\n",
        &[("SELFHEAL__POOLS__MAIN__WARNING", "x")],
    ));
}

#[test]
fn a_bracket_in_a_key_never_aborts_the_process() {
    for key in ["a[999999999999]", "[", "]", "a[-1]", "a[20000000]", "pools[9]", "a]b"] {
        for text in
            [format!("\"{key}\" = 1"), format!("[pools.\"{key}\"]"), format!("[pools.x.\"{key}\"]\ny = 1")]
        {
            let report = check(&text);
            assert!(only(&report).message.contains("must not contain"), "{report}");
        }
    }
}

#[test]
fn what_is_not_a_config_at_all_is_refused() {
    let large = format!("# {}\n", "x".repeat(256 * 1024));
    assert!(only(&check(&large)).message.contains("256 KiB"));
    assert!(check(&large[..256 * 1024]).valid);

    let folder = std::env::temp_dir().join(format!("selfheal-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let binary = folder.join("binary.toml");
    std::fs::File::create(&binary).and_then(|mut file| file.write_all(b"[service]\xff")).expect("a file");
    for (path, says) in [(folder.join("none.toml"), "No such file"), (binary, "byte 9 is not UTF-8")] {
        let error = Config::load(&Source::file(&path)).expect_err("it cannot be read");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    assert!(Config::load(&Source::file(&folder)).is_err(), "a folder is no file");
    #[cfg(unix)]
    assert!(only(&config_of("/dev/zero")).message.contains("256 KiB"), "it never ends");
    std::fs::remove_dir_all(&folder).expect("it is removed");
}

fn config_of(path: &str) -> selfheal::config::Report {
    selfheal::config::check(&Source::file(path))
}

#[test]
fn a_file_full_of_mistakes_is_told_within_bounds() {
    let lines: String = (0..20_000).map(|i| format!("key{i} = 1\n")).collect();
    let report = check(&lines);
    assert_eq!((report.errors.len(), report.further), (1_000, 19_000));
    assert!(report.to_string().ends_with("\nand 19000 more"));
    assert!(report.with_carets(Look::Plain).contains("key0"));
}

#[test]
fn a_secret_is_never_shown() {
    const SECRET: &str = "hunter2-hunter2-hunter2";
    let told = |report: &selfheal::config::Report| {
        [
            report.to_string(),
            report.to_json().to_string(),
            report.with_carets(Look::Coloured),
            format!("{report:?}"),
        ]
    };
    for broken in [
        format!("[admin]\ntoken = \"{SECRET}\"\nlisten = 5"),
        format!("[admin]\ntoken = [\"{SECRET}\"]"),
        format!("[admin]\ntoken = \"{SECRET}\\n\""),
        format!("[admin]\nread_only_token = \"{SECRET}\"\ntoken = \"{SECRET}\""),
        format!("[admin]\ntokn = \"{SECRET}\""),
        format!("[admin]\npin = {{ a = [\"{SECRET}\"] }}"),
        format!("[admin]\ntoken = {SECRET}"),
        format!("[admin]\ntoken = \"{SECRET}"),
        format!("admin = {{ token = \"{SECRET}\", }} x"),
        format!("admin = \"{SECRET}\""),
        format!("[service]\nname = \"x\"\npassword = \"{SECRET}\""),
    ] {
        let report = check(&broken);
        assert!(!report.valid, "{broken}");
        for told in told(&report) {
            assert!(!told.contains("hunter2"), "{broken}\n{told}");
        }
    }
    for name in ["SELFHEAL__ADMIN__TOKEN", "SELFHEAL__ADMIN__TOKN", "SELFHEAL__TOKEN", "SELFHEAL__ADMIN"] {
        for told in told(&check_with("", &[(name, "hunter2")])) {
            assert!(told.contains(name) && !told.contains("hunter2"), "{told}");
        }
    }
    let config =
        Config::load(&Source::text("x", format!("[admin]\ntoken = \"{SECRET}\""))).expect("it is valid");
    assert_eq!(config.admin.token.as_ref().map(|token| token.expose()), Some(SECRET));
    assert!(config.show().contains("token = \"***\""), "{}", config.show());
    assert!(!format!("{config:?}{}", config.show()).contains("hunter2"));
}

#[test]
fn no_text_makes_it_panic() {
    let mut random = random();
    let reference = read("config/reference.toml").replace("\n#", "\n");
    for _ in 0..400 {
        let mut bytes = reference.clone().into_bytes();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(0..bytes.len());
            match random.u8(0..4) {
                0 => bytes[at] = random.choice(*b"\"[]{}=#.,\n'\\0-").unwrap_or_default(),
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.drain(at..(at + random.usize(0..40)).min(bytes.len()))),
                _ => bytes.insert(at, random.u8(..)),
            }
            if bytes.is_empty() {
                bytes.push(b'x');
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let report = check(&text);
        assert_eq!(report.valid, Config::load(&Source::text("x", &*text)).is_ok());
        for issue in &report.errors {
            let line =
                issue.line.and_then(|line| text.split('\n').nth(line - 1)).expect("its line is in the file");
            assert!(issue.column.is_some_and(|column| column <= line.chars().count() + 1), "{issue}\n{text}");
        }
        let _ = report.with_carets(Look::Plain);
    }
}

#[test]
fn the_binary_tells_them_and_fails() {
    let path = std::env::temp_dir().join(format!("selfheal-check-{}.toml", std::process::id()));
    let file = path.display().to_string();
    std::fs::write(&path, "[pools.main]\nwarnign = 0.8\nup = 20\n\"a[999999999999]\" = 1\n").expect("a file");

    let text = selfheal(&["check", &file], &[]);
    assert_eq!(text.status.code(), Some(1));
    let told = stdout(&text);
    for part in [
        "pools.main.warnign: there is no key \"warnign\"",
        &format!("{file}:2:1"),
        "warnign = 0.8\n   : ^^^|^^^",
        "help: did you mean warning?",
        &format!("{file}:3:6"),
        "up = \"20ms\" or up = \"20s\"",
        &format!("{file}:4:1"),
        &format!("3 mistakes in {file}"),
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "a pipe gets no colours");

    let json = selfheal(&["check", &file, "--json"], &[("SELFHEAL__POOLS__MAIN__MAX", "many")]);
    assert_eq!(json.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!((&report["valid"], &report["file"]), (&false.into(), &file.as_str().into()));
    let errors = report["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 4);
    assert_eq!((&errors[1]["line"], &errors[1]["column"]), (&3.into(), &6.into()));
    assert_eq!(errors[1]["key"], "pools.main.up");
    assert!(errors[1]["expected"].as_str().is_some_and(|expected| expected.starts_with("a duration")));
    assert_eq!(
        (&errors[3]["variable"], &errors[3]["file"]),
        (&"SELFHEAL__POOLS__MAIN__MAX".into(), &().into())
    );

    for (args, code) in [
        (vec!["check"], 0),
        (vec!["check", "config/minimal.toml"], 0),
        (vec!["check", "none.toml"], 1),
        (vec!["config", "show", &file], 1),
        (vec!["chek"], 2),
        (vec!["check", "--jsn"], 2),
    ] {
        assert_eq!(selfheal(&args, &[]).status.code(), Some(code), "{args:?}");
    }
    std::fs::remove_file(&path).expect("it is removed");
}
