//! A config that could be misread is refused, with every mistake, its place and its remedy.

mod environment;
mod mistakes;
mod reference;

use std::{
    path::Path,
    process::{Command, Output},
};

use selfheal::config::{self, Environment, Issue, Report, Source};

/// What is wrong with `text`, without any environment.
fn check(text: &str) -> Report {
    config::check(&Source::text("selfheal.toml", text))
}

/// What is wrong with `text` under these variables.
fn check_with(text: &str, variables: &[(&str, &str)]) -> Report {
    let environment: Environment = variables.iter().copied().collect();
    config::check(&Source::text("selfheal.toml", text).with_environment(environment))
}

/// The only mistake there is.
fn only(report: &Report) -> &Issue {
    assert_eq!(report.count(), 1, "{report}");
    &report.errors[0]
}

/// Runs the real binary in the project's folder, with these variables and no others.
fn selfheal(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selfheal"));
    command.args(args).env_clear().envs(variables.iter().copied()).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it is text")
}

/// A file of the project.
fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// A random source that can be replayed: the seed is printed, and `SEED=…` sets it.
#[expect(clippy::disallowed_methods, clippy::print_stdout, reason = "a test is told its seed, and tells it")]
fn random() -> fastrand::Rng {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
