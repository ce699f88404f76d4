//! `selfheal config reference` and `selfheal config show [FILE]`

use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use selfheal::config::{self, Config};

use crate::output::{self, Outcome};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print every key with its meaning and its default.
    Reference,
    /// Print the config in force: the defaults, the file and the environment, with secrets as ***.
    Show {
        /// The file.
        #[arg(default_value = output::CONFIG)]
        file: PathBuf,
    },
}

pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Reference => output::data(config::reference())?,
        Command::Show { file } => output::data(Config::from_file(file)?.show())?,
    }
    Ok(ExitCode::SUCCESS)
}
