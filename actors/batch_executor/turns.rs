//! How many runs that nobody waits for may work on a pool at once.
//!
//! At level critical none, at level warning one. When the pressure is over it is one more each [`STEP`], not all at once:
//! what gave way to the pressure must not be the next one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{clock::Tick, level::Level, signal::Name};

/// How long after level normal was reached, and after each step, one more may work.
const STEP: Duration = Duration::from_millis(50);

/// Whose turn it is, by pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    /// The level, and since when.
    pools: BTreeMap<Name, (Level, Tick)>,
    heedless: bool,
}

impl Turns {
    pub(super) fn on_level(&mut self, pool: &Name, level: Level, now: Tick) {
        let known = self.pools.get(pool).map(|(level, _)| *level);
        // A pool of which nothing is known was never pressed.
        if known.unwrap_or_default() != level {
            self.pools.insert(Arc::clone(pool), (level, now));
        }
    }

    pub(super) const fn heed(&mut self, levels: bool) {
        self.heedless = !levels;
    }

    pub(super) fn level(&self, pool: &Name) -> Level {
        self.known(pool).map_or(Level::Normal, |(level, _)| level)
    }

    /// So many may work, and when it is more by itself.
    pub(super) fn allowed(&self, pool: &Name, now: Tick) -> (usize, Option<Tick>) {
        match self.known(pool) {
            Some((Level::Critical, _)) => (0, None),
            Some((Level::Warning, _)) => (1, None),
            Some((Level::Normal, since)) => {
                let steps = now.since(since).as_nanos() / STEP.as_nanos();
                let steps = u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1);
                (steps as usize, Some(since + STEP.saturating_mul(steps)))
            }
            None => (usize::MAX, None),
        }
    }

    fn known(&self, pool: &Name) -> Option<(Level, Tick)> {
        self.pools.get(pool).copied().filter(|_| !self.heedless)
    }
}
