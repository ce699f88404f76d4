//! `selfheal check [FILE] [--json]`

use std::{io::IsTerminal, path::PathBuf, process::ExitCode};

use selfheal::config::{self, Environment, Look, Source};

use crate::output::{self, Outcome};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The config to check.
    #[arg(default_value = output::CONFIG)]
    file: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// Lists every mistake of the file and of the environment. The list is the data, so it goes to stdout.
pub(crate) fn run(args: &Args) -> Outcome {
    let source = Source::file(&args.file).with_environment(Environment::of_process());
    let report = config::check(&source);
    if args.json {
        output::data(format!("{:#}\n", report.to_json()))?;
    } else if report.valid {
        output::data(format!("{}\n", report.summary()))?;
    } else {
        output::data(report.with_carets(look()) + &report.summary() + "\n")?;
    }
    Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn look() -> Look {
    let is_terminal = std::io::stdout().is_terminal();
    match (is_terminal, output::coloured(is_terminal)) {
        (false, _) => Look::Plain,
        (true, false) => Look::Monochrome,
        (true, true) => Look::Coloured,
    }
}
