//! How hard something is pressed, how bad that is for people, whose work it is, and how far we may go.
//!
//! Four closed sets that must not be confused: a **level** belongs to a pool and drives slow actions; a
//! **severity** belongs to an incident and decides who hears of it; a **class** belongs to a request and
//! decides who goes first; the **mode** belongs to the whole runtime and decides whether it acts at all.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use serde::{Deserialize, Serialize};

/// Gives a closed set its list, its one name (the same in config, metrics, page and log), and its text form.
macro_rules! closed_set {
    ($set:ident { $($member:ident = $name:literal),+ $(,)? }) => {
        impl $set {
            /// Every member, in order.
            pub const ALL: &'static [Self] = &[$(Self::$member),+];

            /// The name used in config, metrics, page and log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$member => $name),+ }
            }
        }

        impl fmt::Display for $set {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

pub(crate) use closed_set;

/// How hard a pool is pressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    #[default]
    Normal,
    /// Work that can wait is asked to wait.
    Warning,
    /// Only critical work is newly admitted.
    Critical,
}

closed_set!(Level { Normal = "normal", Warning = "warning", Critical = "critical" });

/// How bad an incident is, as people are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Healed; nothing to do.
    #[default]
    Info,
    /// Prevented; worth a look.
    Warning,
    /// Prevented, but the service is at risk: investigate.
    Critical,
    /// Healing was tried and failed: a person is needed.
    Failure,
}

closed_set!(Severity { Info = "info", Warning = "warning", Critical = "critical", Failure = "failure" });

/// Whose work a request is. A better class is always served first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Never shed by a level: sign-in, assigning a task.
    Critical,
    /// What most requests are.
    #[default]
    Normal,
    /// The first to be refused: reports, analytics.
    Sheddable,
    /// Nobody waits for it: deferred and batch work.
    Background,
}

closed_set!(Class {
    Critical = "critical",
    Normal = "normal",
    Sheddable = "sheddable",
    Background = "background",
});

impl Class {
    /// The place of this class in [`Class::ALL`]: 0 is the best.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How far the runtime may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decide and count what would have been done; act on nothing.
    Observe,
    /// Heal.
    #[default]
    Act,
    /// Pass everything through at once: the kill switch.
    Off,
}

closed_set!(Mode { Observe = "observe", Act = "act", Off = "off" });

/// The mode of one runtime, shared by all its parts and read with one load on the hot path.
#[derive(Clone, Debug)]
pub struct ModeCell(Arc<AtomicU8>);

impl ModeCell {
    /// A cell that starts in `mode`.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self(Arc::new(AtomicU8::new(mode as u8)))
    }

    /// The mode in force.
    #[must_use]
    #[inline]
    pub fn get(&self) -> Mode {
        match self.0.load(Ordering::Acquire) {
            0 => Mode::Observe,
            1 => Mode::Act,
            _ => Mode::Off,
        }
    }

    /// Puts `mode` in force and returns the one before it.
    pub fn set(&self, mode: Mode) -> Mode {
        let before = self.get();
        self.0.store(mode as u8, Ordering::Release);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_cell_gives_back_what_was_put_in() {
        for &mode in Mode::ALL {
            let cell = ModeCell::new(Mode::default());
            assert_eq!(cell.set(mode), Mode::Act);
            assert_eq!(cell.get(), mode);
        }
    }

    #[test]
    fn classes_and_levels_are_ordered_from_the_best() {
        assert!(Class::Critical < Class::Background);
        assert!(Level::Normal < Level::Critical);
        assert_eq!(Class::ALL[Class::Sheddable.index()], Class::Sheddable);
    }
}
