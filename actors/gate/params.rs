//! What the level of a pool asks of its gate, published to all who should know.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    level::Level,
    signal::{Action, Step},
};

/// One parameter, as the monitor publishes it. Doing it twice is doing it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sheddable work is refused on arrival, or no longer.
    Shed(bool),
    /// Each user is held to so many requests in flight and connections held, or no longer.
    UserLimit(Option<u32>),
    /// Only critical work may use more connections than are in use now, or all may again, step by step.
    CriticalOnly(bool),
    /// Work marked optional is left out, or no longer.
    OmitOptional(bool),
    /// Background work is refused on arrival, or no longer.
    PauseDurable(bool),
    /// Items in a batch.
    Batch(u32),
}

impl Change {
    /// What a monitor's action asks of its pool's gate, as it is taken or undone.
    #[must_use]
    pub const fn of(action: Action, step: Step) -> Self {
        let on = matches!(step, Step::Taken);
        match action {
            Action::Shed => Self::Shed(on),
            Action::Batch { from, to } => Self::Batch(if on { to } else { from }),
            Action::UserLimit { limit } => Self::UserLimit(if on { Some(limit) } else { None }),
            Action::CriticalOnly => Self::CriticalOnly(on),
            Action::OmitOptional => Self::OmitOptional(on),
            Action::PauseDurable => Self::PauseDurable(on),
        }
    }
}

/// The parameters in force, all of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Sheddable work is refused on arrival.
    pub shed: bool,
    /// Requests in flight, and connections held, of each user.
    pub user_limit: Option<u32>,
    /// Only critical work may use more connections than when this began.
    pub critical_only: bool,
    /// Work marked optional is left out.
    pub omit_optional: bool,
    /// Background work is refused on arrival.
    pub pause_durable: bool,
    /// Items in a batch.
    pub batch: u32,
}

impl Params {
    /// Nothing is asked of anybody, and batches have `batch` items.
    #[must_use]
    pub const fn calm(batch: u32) -> Self {
        Self {
            shed: false,
            user_limit: None,
            critical_only: false,
            omit_optional: false,
            pause_durable: false,
            batch,
        }
    }

    /// The level that such parameters belong to.
    #[must_use]
    pub const fn level(self) -> Level {
        if self.critical_only || self.omit_optional || self.pause_durable {
            Level::Critical
        } else if self.shed || self.user_limit.is_some() {
            Level::Warning
        } else {
            Level::Normal
        }
    }

    /// These parameters after `change`.
    #[must_use]
    pub const fn with(mut self, change: Change) -> Self {
        match change {
            Change::Shed(on) => self.shed = on,
            Change::UserLimit(limit) => self.user_limit = limit,
            Change::CriticalOnly(on) => self.critical_only = on,
            Change::OmitOptional(on) => self.omit_optional = on,
            Change::PauseDurable(on) => self.pause_durable = on,
            Change::Batch(size) => self.batch = size,
        }
        self
    }
}

/// [`Params`] in one word: readers see all of one moment, with one load and no lock.
#[derive(Debug)]
pub(super) struct Cell(AtomicU64);

/// The most that a limit or a batch size may be in the word.
const MOST: u32 = (1 << 28) - 1;

impl Cell {
    pub(super) fn new(params: Params) -> Self {
        Self(AtomicU64::new(pack(params)))
    }

    pub(super) fn get(&self) -> Params {
        unpack(self.0.load(Ordering::Acquire))
    }

    pub(super) fn set(&self, params: Params) {
        self.0.store(pack(params), Ordering::Release);
    }
}

fn pack(params: Params) -> u64 {
    let flags = [params.shed, params.critical_only, params.omit_optional, params.pause_durable];
    let flags = flags.iter().rev().fold(0, |word, &on| word << 1 | u64::from(on));
    // A limit of `n` is stored as `n + 1`, so that 0 is none.
    let limit = params.user_limit.map_or(0, |n| n.min(MOST - 1) + 1);
    flags | u64::from(limit) << 4 | u64::from(params.batch.min(MOST)) << 32
}

const fn unpack(word: u64) -> Params {
    let limit = (word >> 4) as u32 & MOST;
    Params {
        shed: word & 1 != 0,
        critical_only: word & 2 != 0,
        omit_optional: word & 4 != 0,
        pause_durable: word & 8 != 0,
        user_limit: limit.checked_sub(1),
        batch: (word >> 32) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parameter_comes_out_of_the_word_as_it_went_in() {
        let cell = Cell::new(Params::calm(10));
        assert_eq!(cell.get(), Params::calm(10));
        let changes = [
            Change::Shed(true),
            Change::UserLimit(Some(5)),
            Change::Batch(50),
            Change::CriticalOnly(true),
            Change::OmitOptional(true),
            Change::PauseDurable(true),
            Change::UserLimit(Some(0)),
            Change::Shed(false),
            Change::UserLimit(None),
        ];
        let mut params = Params::calm(10);
        for change in changes {
            params = params.with(change);
            cell.set(params);
            assert_eq!(cell.get(), params, "after {change:?}");
        }
    }

    #[test]
    fn the_level_is_that_of_the_strongest_parameter() {
        let warning = Params::calm(10).with(Change::Shed(true));
        assert_eq!(Params::calm(50).level(), Level::Normal);
        assert_eq!(warning.level(), Level::Warning);
        assert_eq!(warning.with(Change::CriticalOnly(true)).level(), Level::Critical);
    }
}
