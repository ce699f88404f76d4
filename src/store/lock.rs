//! One process at a time works on the jobs of an SQLite file.
//!
//! SQLite has no server whose clock and sessions could tell who is gone. The system has: a lock on a file beside the
//! database ends with its process, however that ends. So whoever gets it knows that nobody else works, and takes over
//! what was leased before, at once and whatever the clock says. Another process may accept jobs, and finds none to claim.

use std::{fs::File, io, path::PathBuf};

use parking_lot::Mutex;

/// The lock of one database.
#[derive(Debug)]
pub(super) struct Lock {
    /// `None`: leases alone keep processes apart.
    file: Option<PathBuf>,
    held: Mutex<Option<File>>,
}

/// Whether this process may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may, and did before.
    Ours,
    /// It may from now on, and nobody else does.
    New,
    /// Another process does.
    Theirs,
}

impl Lock {
    pub(super) const fn new(file: Option<PathBuf>) -> Self {
        Self { file, held: Mutex::new(None) }
    }

    /// Takes the lock, unless it is held.
    pub(super) fn take(&self) -> io::Result<Turn> {
        let Some(path) = &self.file else { return Ok(Turn::Ours) };
        let mut held = self.held.lock();
        if held.is_some() {
            return Ok(Turn::Ours);
        }
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                *held = Some(file);
                Ok(Turn::New)
            }
            Err(std::fs::TryLockError::WouldBlock) => Ok(Turn::Theirs),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Lets go: what was to be done with it new has failed.
    pub(super) fn let_go(&self) {
        *self.held.lock() = None;
    }
}
