//! The `selfheal` binary: one file a command.
//!
//! Data goes to stdout and talk to stderr, so that every command can be piped. Exit codes: 0 all is well,
//! 1 the command failed or found something invalid, 2 it was called wrongly.

mod check;
mod completions;
mod config;
mod output;
mod schema;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A runtime that lets a service heal itself.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a config: every mistake at once, with its place and what would be right.
    Check(check::Args),
    /// Print the JSON Schema (draft-07) of the config.
    Schema,
    /// Print the config: as it could be, or as it is in force.
    #[command(subcommand)]
    Config(config::Command),
    /// Print the completion script of a shell.
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Schema => schema::run(),
        Command::Config(command) => config::run(&command),
        Command::Completions(args) => completions::run(&args),
    };
    output::exit(outcome)
}
