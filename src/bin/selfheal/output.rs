//! How a command speaks and ends.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// How a command ended: with an exit code of its own, or because something failed.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// The config that is meant where none is named.
pub(crate) const CONFIG: &str = "config/selfheal.toml";

/// Writes to stdout what was asked for.
///
/// # Errors
/// If stdout cannot be written to; that includes a reader who went away (see [`exit`]).
pub(crate) fn data(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()
}

/// Writes to stderr what is for people, beside what was asked for.
pub(crate) fn aside(text: impl AsRef<[u8]>) {
    // Whoever has closed it does not want to read it.
    let _ = io::stderr().lock().write_all(text.as_ref());
}

/// 1,418 for 1418.
pub(crate) fn grouped(number: u64) -> String {
    if number < 1_000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1_000), number % 1_000)
    }
}

/// Whether to write in colours: to a terminal, and unless `NO_COLOR` is set to anything.
pub(crate) fn coloured(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Turns the outcome into the exit code of the process, and says on stderr what failed.
pub(crate) fn exit(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(code) => code,
        // `selfheal config reference | head` is not a failure.
        Err(error) if reader_went_away(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is gone too, the exit code says it alone.
            let _ = writeln!(io::stderr(), "selfheal: {error}");
            ExitCode::FAILURE
        }
    }
}

fn reader_went_away(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
