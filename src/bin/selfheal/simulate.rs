//! `selfheal simulate`: what would this config have done?

use std::{
    error::Error,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter},
    path::{Path, PathBuf},
    process::ExitCode,
};

use selfheal::{
    config::{Config, Environment, Source},
    simulate::{self, Setup},
};

use crate::output::Outcome;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The config to try out.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The trace, JSON Lines; `-` is standard input.
    #[arg(value_name = "TRACE", default_value = "-")]
    trace: PathBuf,
    /// Feeds what a policy leaves to chance.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let source = Source::file(&args.config).with_environment(Environment::of_process());
    let setup = Setup::from(&Config::load(&source)?);
    simulate::run(setup, open(&args.trace)?, BufWriter::new(io::stdout().lock()), args.seed)?;
    Ok(ExitCode::SUCCESS)
}

fn open(trace: &Path) -> Result<Box<dyn BufRead>, Box<dyn Error>> {
    if trace == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let file = File::open(trace).map_err(|error| format!("{}: {error}", trace.display()))?;
    Ok(Box::new(BufReader::new(file)))
}
