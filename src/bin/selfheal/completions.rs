//! `selfheal completions SHELL`

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{
    Cli,
    output::{self, Outcome},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell that will read the script.
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "selfheal", &mut script);
    output::data(script)?;
    Ok(ExitCode::SUCCESS)
}
