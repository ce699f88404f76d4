//! The `selfheal` binary: one file a command.
//!
//! Data goes to stdout and talk to stderr, so that every command can be piped. Exit codes: 0 all is well,
//! 1 the command failed or found something invalid, 2 it was called wrongly.

mod check;
mod client;
mod completions;
mod config;
mod desk;
mod drill;
mod log;
mod migrate;
mod output;
mod schema;
mod serve;
mod simulate;
mod table;
mod transitions;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A runtime that lets a service heal itself.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
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
    /// Run the reference service, with the runtime embedded; also without a command.
    Serve(serve::Args),
    /// Replay an incident for real, without and with healing.
    Drill(drill::Args),
    /// Replay a trace against a config in virtual time: what would it have done?
    Simulate(simulate::Args),
    /// Show how a running service is.
    Status(client::Service),
    /// Show the pools of a running service.
    Pools(client::Pools),
    /// Show the circuits of a running service.
    Breakers(client::Service),
    /// Show the queues of durable jobs of a running service.
    Queues(client::Service),
    /// Show the incidents of a running service, newest first.
    Incidents(client::Service),
    /// Show the supervised children of a running service.
    Children(client::Service),
    /// Say how far healing may go in a running service.
    Mode(client::SetMode),
    /// Have PostgreSQL itself hold to the tables of statuses.
    #[command(subcommand)]
    Transitions(transitions::Command),
    /// Make the tables of durable work, or print what would.
    Migrate(migrate::Args),
    /// Print the completion script of a shell.
    Completions(completions::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command.unwrap_or(Command::Serve(serve::Args::default())) {
        Command::Check(args) => check::run(&args),
        Command::Schema => schema::run(),
        Command::Config(command) => config::run(&command),
        Command::Serve(args) => serve::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Status(service) => client::status(&service),
        Command::Pools(args) => client::pools(&args),
        Command::Breakers(service) => client::breakers(&service),
        Command::Queues(service) => client::queues(&service),
        Command::Incidents(service) => client::incidents(&service),
        Command::Children(service) => client::children(&service),
        Command::Mode(args) => client::mode(&args),
        Command::Migrate(args) => migrate::run(&args),
        Command::Drill(args) => drill::run(&args),
        Command::Transitions(command) => transitions::run(&command),
        Command::Completions(args) => completions::run(&args),
    };
    output::exit(outcome)
}
