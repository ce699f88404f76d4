//! `selfheal schema`

use std::process::ExitCode;

use selfheal::config;

use crate::output::{self, Outcome};

/// Prints the JSON Schema of the config, for editors.
pub(crate) fn run() -> Outcome {
    output::data(format!("{:#}\n", config::schema()))?;
    Ok(ExitCode::SUCCESS)
}
