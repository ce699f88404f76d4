//! The files of `config/`, the schema, and the text in which a config is shown.

use selfheal::config::{self, Config, Source};
use selfheal_actors::level::Class;
use serde_json::Value as Json;

use super::{check, read, selfheal, stdout};

fn load(text: &str) -> Config {
    Config::load(&Source::text("x", text)).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The reference with every key and every example in force.
fn in_force() -> String {
    let is_key =
        |line: &&str| line.strip_prefix('#').is_some_and(|rest| !rest.starts_with(' ') && !rest.is_empty());
    let reference = config::reference();
    reference.lines().map(|line| if is_key(&line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_committed_reference_is_what_the_binary_prints() {
    let committed = read("config/reference.toml");
    let hint = "cargo run -- config reference > config/reference.toml";
    assert!(committed == config::reference(), "config/reference.toml is out of date: {hint}");
    assert_eq!(stdout(&selfheal(&["config", "reference"], &[])), committed);
}

#[test]
fn the_reference_is_the_defaults() {
    assert_eq!(load(&config::reference()), Config::defaults());
    assert_eq!(load(""), Config::defaults());
}

#[test]
fn the_reference_names_every_key_and_all_of_it_is_valid() {
    let text = in_force();
    let config = load(&text);
    // It has no default, so that the reference shows an example.
    let mut shown = config.pools["main"].clone();
    shown.cancel_after = None;
    assert_eq!(shown, load("[pools.main]").pools["main"], "the example of a pool shows its defaults");
    let document: Json = toml::from_str(&text).expect("it is TOML");
    let schema = config::schema();
    let missing = missing_keys(&schema, &document, "");
    // Of a child it is shown how it starts, of a threshold one of its two forms, of a circuit one way to look and to
    // decide; what it could be instead stands in the comments. An endpoint's circuit has the keys of all circuits.
    let alternatives = [
        "breaker.window.calls",
        "breaker.failure_rate.at_least",
        "breaker.failures.at_least",
        "breaker.calls.above",
        "breaker.consecutive_failures.above",
        "breaker.slow_rate.above",
        "breaker.half_open.decide",
        "breaker.half_open.max_wait",
        "breaker.half_open.after_max_wait",
        "tree.children.supervisor",
    ];
    let others: Vec<_> = missing.iter().filter(|key| !key.starts_with("endpoints.breaker.")).collect();
    assert_eq!(others, alternatives);
}

/// The keys of the schema that the document does not set.
fn missing_keys(schema: &Json, document: &Json, path: &str) -> Vec<String> {
    if let Json::Array(items) = document {
        return missing_keys(&schema["items"], items.first().unwrap_or(&Json::Null), path);
    }
    if let Some(properties) = schema["properties"].as_object() {
        let below = properties.iter().flat_map(|(key, schema)| {
            let path = format!("{path}{}{key}", if path.is_empty() { "" } else { "." });
            match document.get(key) {
                Some(value) => missing_keys(schema, value, &path),
                None => vec![path],
            }
        });
        return below.collect();
    }
    if schema["additionalProperties"].is_object() {
        let first = document.as_object().and_then(|names| names.values().next()).unwrap_or(&Json::Null);
        return missing_keys(&schema["additionalProperties"], first, path);
    }
    Vec::new()
}

#[test]
fn the_shipped_files_are_valid() {
    let reference_service = load(&read("config/selfheal.toml"));
    let class = |path: &str| {
        let endpoint = reference_service.endpoints.iter().find(|endpoint| endpoint.path == path);
        endpoint.unwrap_or_else(|| panic!("{path} has a policy")).class
    };
    assert_eq!(class("/api/auth/login"), Class::Critical);
    assert_eq!(class("/api/tasks/assign"), Class::Critical);
    assert_eq!(class("/api/dashboard"), Class::Normal);
    assert_eq!(class("/api/reports"), Class::Sheddable);
    assert_eq!(class("/api/analytics"), Class::Sheddable);
    assert_eq!(reference_service.transitions["message"]["PROMOTED"], ["COMPLETED"]);
    assert_eq!(
        reference_service.pools["main"],
        config::Pool::default(),
        "the seed's numbers are the defaults"
    );

    let minimal = read("config/minimal.toml");
    load(&minimal);
    assert!(minimal.lines().count() <= 10);
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    for text in [read("config/selfheal.toml"), config::reference()] {
        let config = load(&text);
        assert_eq!(load(&config.show()), config);
    }
    // All but the secrets, which are not shown.
    let is_secret = |line: &&str| line.contains("token = ");
    let config = load(&in_force().lines().filter(|line| !is_secret(line)).collect::<Vec<_>>().join("\n"));
    assert_eq!(load(&config.show()), config);
}

#[test]
fn the_schema_takes_what_the_check_takes() {
    let schema: Json = serde_json::from_str(&stdout(&selfheal(&["schema"], &[]))).expect("it is JSON");
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    assert_eq!(schema, config::schema());
    for (text, takes) in [
        (config::reference(), true),
        (in_force(), true),
        (read("config/selfheal.toml"), true),
        (read("config/minimal.toml"), true),
        ("[pools.a]\nwarning = 1.5".into(), false),
        ("[pools.a]\nwarning = 0".into(), false),
        ("[pools.a]\nmax = \"5\"".into(), false),
        ("[pools.a]\nup = \"20\"".into(), false),
        ("[pools.a]\nup = 20".into(), false),
        ("[runtime]\nmode = \"on\"".into(), false),
        ("[[endpoints]]\nclass = \"normal\"".into(), false),
        ("[breaker]\nwindow = { calls = 100 }".into(), true),
        ("[breaker]\nopen_for = 30".into(), false),
        ("[[endpoints]]\npath = \"/\"\n[endpoints.breaker]\nopen_for = \"3s\"".into(), true),
        ("[[endpoints]]\npath = \"/\"\n[endpoints.breaker]\nopen_four = \"3s\"".into(), false),
        ("[alerts]".into(), false),
        ("[admin]\ntoken = \"short\"".into(), false),
        ("[retry]\ndelays = [\"1s\", \"2s\"]".into(), true),
        ("[retry]\ndelays = []".into(), false),
        ("[retry]\ndelays = \"never\"".into(), false),
        ("[transitions.order]\nNEW = [\"PAID\"]".into(), true),
        ("[transitions.order]\nNEW = [1]".into(), false),
        ("[transitions.order]\nNEW = \"PAID\"".into(), false),
    ] {
        let document: Json = toml::from_str(&text).expect("it is TOML");
        assert_eq!(accepts(&schema, &document), takes, "{text}");
        assert_eq!(check(&text).valid, takes, "{text}");
    }
}

/// As much of draft-07 as the schema uses; anything more fails the test instead of being skipped.
fn accepts(schema: &Json, value: &Json) -> bool {
    let number = value.as_f64().unwrap_or_default();
    let length = value.as_str().map(|text| text.chars().count() as f64).unwrap_or_default();
    let keyword = |(keyword, rule): (&String, &Json)| match keyword.as_str() {
        "type" => match rule.as_str().expect("one type") {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64(),
            "number" => value.is_number(),
            other => panic!("the type {other}"),
        },
        "properties" => (value.as_object().into_iter().flatten())
            .all(|(key, value)| rule.get(key).is_none_or(|schema| accepts(schema, value))),
        "additionalProperties" => (value.as_object().into_iter().flatten())
            .filter(|(key, _)| schema["properties"].get(key.as_str()).is_none())
            .all(|(_, value)| rule.as_bool().unwrap_or_else(|| accepts(rule, value))),
        "required" => {
            rule.as_array().expect("a list").iter().all(|key| value.get(key.as_str().unwrap_or("")).is_some())
        }
        "items" => value.as_array().into_iter().flatten().all(|item| accepts(rule, item)),
        "enum" => rule.as_array().expect("a list").contains(value),
        "oneOf" => {
            rule.as_array().expect("a list").iter().filter(|schema| accepts(schema, value)).count() == 1
        }
        "anyOf" => rule.as_array().expect("a list").iter().any(|schema| accepts(schema, value)),
        "minItems" => {
            value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().expect("a number"))
        }
        "maxItems" => {
            value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().expect("a number"))
        }
        "const" => rule == value,
        "minimum" => number >= rule.as_f64().expect("a number"),
        "exclusiveMinimum" => number > rule.as_f64().expect("a number"),
        "maximum" => number <= rule.as_f64().expect("a number"),
        "minLength" => length >= rule.as_f64().expect("a number"),
        "maxLength" => length <= rule.as_f64().expect("a number"),
        "pattern" => value.as_str().is_none_or(|text| text.chars().last().is_some_and(char::is_alphabetic)),
        "$schema" | "title" | "description" | "default" | "examples" | "writeOnly" | "x-at-least"
        | "x-at-most" | "x-address" => true,
        other => panic!("the keyword {other}"),
    };
    schema.as_object().expect("a schema").iter().all(keyword)
}

#[test]
fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&selfheal(&["completions", shell], &[])).contains("selfheal"), "{shell}");
    }
}
