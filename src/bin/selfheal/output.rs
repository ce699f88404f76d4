//! How a command speaks and ends.

use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// How a command ended: with an exit code of its own, or because something failed.
pub(crate) type Outcome = Result<ExitCode, Box<dyn Error>>;

/// Writes to stdout what was asked for.
///
/// # Errors
/// If stdout cannot be written to; that includes a reader who went away (see [`exit`]).
pub(crate) fn data(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()
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
