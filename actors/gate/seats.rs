//! Who holds what, and since when.

use std::{panic::Location, sync::Arc, time::Duration};

use crate::{
    clock::Tick,
    gate::{ClaimId, Hold, slot::Slot},
    level::Class,
    signal::{Name, Signal},
};

/// One connection that is held.
#[derive(Clone, Debug)]
pub struct Holder {
    /// What it is held for.
    pub operation: Option<Name>,
    /// Where in the code it was taken.
    pub site: &'static Location<'static>,
    /// On whose behalf.
    pub user: Option<Name>,
    /// Of which class.
    pub class: Class,
    /// For how long.
    pub held: Duration,
    /// Whether it was told as leaked.
    pub leaked: bool,
}

/// What is known of one claim beside what is decided by.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) claim: ClaimId,
    pub(super) slot: Option<Arc<Slot>>,
    pub(super) operation: Option<Name>,
    pub(super) site: &'static Location<'static>,
    pub(super) user: Option<Name>,
    pub(super) class: Class,
    /// When it got its connection; `None` while it waits.
    since: Option<Tick>,
    leaked: bool,
}

/// A seat for each claim, at the claim's own place.
#[derive(Debug, Default)]
pub(super) struct Seats(Vec<Option<Seat>>);

impl Seat {
    pub(super) const fn new(claim: ClaimId, hold: &Hold, class: Class) -> Self {
        let (site, slot) = (hold.site, None);
        Self { claim, slot, operation: None, site, user: None, class, since: None, leaked: false }
    }

    fn leak(&mut self, pool: &Name, now: Tick, returned: bool) -> Signal {
        self.leaked = true;
        Signal::Leak {
            pool: Name::clone(pool),
            operation: self.operation.clone().unwrap_or_else(|| Name::from("unnamed")),
            site: format!("{}:{}", self.site.file(), self.site.line()).into(),
            held: self.since.map(|since| now.since(since)).unwrap_or_default(),
            returned,
        }
    }
}

impl Seats {
    pub(super) fn seat(&mut self, seat: Seat) -> &mut Seat {
        let index = seat.claim.index();
        if self.0.len() <= index {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index].insert(seat)
    }

    pub(super) fn get_mut(&mut self, claim: ClaimId) -> Option<&mut Seat> {
        self.0.get_mut(claim.index())?.as_mut().filter(|seat| seat.claim == claim)
    }

    /// The claim has its connection.
    pub(super) fn granted(&mut self, claim: ClaimId, now: Tick) -> Option<Arc<Slot>> {
        let seat = self.get_mut(claim)?;
        seat.since = Some(now);
        seat.slot.take()
    }

    /// The claim is gone.
    pub(super) fn leave(&mut self, claim: ClaimId) -> Option<Seat> {
        self.0.get_mut(claim.index())?.take_if(|seat| seat.claim == claim)
    }

    /// What is to be told of a seat that is given back, if anything was told before.
    pub(super) fn returned(&mut self, claim: ClaimId, pool: &Name, now: Tick) -> Option<Signal> {
        self.leave(claim).filter(|seat| seat.leaked).map(|mut seat| seat.leak(pool, now, true))
    }

    /// What is to be told of those held for `leak_after` or longer, each once.
    pub(super) fn leaks(&mut self, pool: &Name, leak_after: Duration, now: Tick) -> Vec<Signal> {
        let late = |seat: &Seat| {
            let since = seat.since.filter(|_| !seat.leaked);
            since.is_some_and(|since| now.since(since) >= leak_after)
        };
        self.0
            .iter_mut()
            .flatten()
            .filter(|seat| late(seat))
            .map(|seat| seat.leak(pool, now, false))
            .collect()
    }

    /// Those who can be told how their waiting ends, by their places.
    pub(super) fn waiting(&self) -> impl Iterator<Item = ClaimId> {
        self.0.iter().flatten().filter(|seat| seat.slot.is_some()).map(|seat| seat.claim)
    }

    pub(super) fn holders(&self, now: Tick) -> Vec<Holder> {
        let holders = self.0.iter().flatten().filter_map(|seat| {
            Some(Holder {
                operation: seat.operation.clone(),
                site: seat.site,
                user: seat.user.clone(),
                class: seat.class,
                held: now.since(seat.since?),
                leaked: seat.leaked,
            })
        });
        holders.collect()
    }

    /// How many hold a connection.
    pub(super) fn held(&self) -> usize {
        self.0.iter().flatten().filter(|seat| seat.since.is_some()).count()
    }
}
