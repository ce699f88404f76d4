//! Who waits, and whose turn it is.
//!
//! Each place is two linked lists through the waiters themselves: of those to whom their turn was *promised*
//! (a request or job stands behind them, which was admitted), and of the *loose* ones, which the bound of the
//! queue may push out. A waiter that goes away is unlinked at once: nothing dead is ever skipped or compacted.
//! The queries of whole jobs lie apart, by the moment at which each is due.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    clock::Tick,
    gate::claim::{Claim, ClaimId},
    level::Class,
    slab::Slab,
};

/// Where a claim waits. Those at a better place go first, whatever happens in the meantime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// Holders of a connection that need another: until they get it, they give none back.
    Nested,
    Critical,
    Normal,
    LongNormal,
    Sheddable,
    LongSheddable,
    Background,
    LongBackground,
    /// Queries of whole jobs of class normal: before the sheddable ones when they are due, else after them.
    Job,
}

impl Place {
    /// The places that are lists. What holds long waits apart, so that it never stands in the way of others.
    const LISTS: usize = 8;

    pub(super) const fn of(class: Class, long: bool) -> Self {
        match (class, long) {
            (Class::Critical, _) => Self::Critical,
            (Class::Normal, false) => Self::Normal,
            (Class::Normal, true) => Self::LongNormal,
            (Class::Sheddable, false) => Self::Sheddable,
            (Class::Sheddable, true) => Self::LongSheddable,
            (Class::Background, false) => Self::Background,
            (Class::Background, true) => Self::LongBackground,
        }
    }
}

/// The order in which places are served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// The next waiter of a place that is a list.
    Of(Place),
    /// The next query of a job, if it is due.
    DueJob,
    /// The next query of a job, due or not.
    AnyJob,
}

/// From the first to the last.
pub(super) const TURNS: [Turn; 10] = [
    Turn::Of(Place::Nested),
    Turn::Of(Place::Critical),
    Turn::Of(Place::Normal),
    Turn::Of(Place::LongNormal),
    Turn::DueJob,
    Turn::Of(Place::Sheddable),
    Turn::AnyJob,
    Turn::Of(Place::LongSheddable),
    Turn::Of(Place::Background),
    Turn::Of(Place::LongBackground),
];

/// A list through claims, oldest first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct List {
    head: Option<ClaimId>,
    tail: Option<ClaimId>,
    len: u32,
}

/// The neighbours of a claim in the one list that it is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    before: Option<ClaimId>,
    after: Option<ClaimId>,
}

impl List {
    pub(super) const fn head(&self) -> Option<ClaimId> {
        self.head
    }

    pub(super) fn push_back(&mut self, claims: &mut Slab<Claim>, id: ClaimId) {
        link(claims, self.tail, Some(id));
        link(claims, Some(id), None);
        self.tail = Some(id);
        self.head = self.head.or(Some(id));
        self.len += 1;
    }

    pub(super) fn push_front(&mut self, claims: &mut Slab<Claim>, id: ClaimId) {
        link(claims, None, Some(id));
        link(claims, Some(id), self.head);
        self.head = Some(id);
        self.tail = self.tail.or(Some(id));
        self.len += 1;
    }

    /// Takes out a claim that is in this list.
    pub(super) fn remove(&mut self, claims: &mut Slab<Claim>, id: ClaimId) {
        let Some(claim) = claims.get_mut(id) else { return };
        let Links { before, after } = std::mem::take(&mut claim.links);
        link(claims, before, after);
        if self.head == Some(id) {
            self.head = after;
        }
        if self.tail == Some(id) {
            self.tail = before;
        }
        self.len = self.len.saturating_sub(1);
    }

    pub(super) fn iter(self, claims: &Slab<Claim>) -> impl Iterator<Item = ClaimId> {
        let after = |id: &ClaimId| claims.get(*id).and_then(|claim| claim.links.after);
        std::iter::successors(self.head, after)
    }
}

/// Makes two claims neighbours; `None` is the end of a list.
fn link(claims: &mut Slab<Claim>, before: Option<ClaimId>, after: Option<ClaimId>) {
    if let Some(claim) = before.and_then(|id| claims.get_mut(id)) {
        claim.links.after = after;
    }
    if let Some(claim) = after.and_then(|id| claims.get_mut(id)) {
        claim.links.before = before;
    }
}

/// One place: the promised and the loose.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    promised: List,
    loose: List,
    busy_since: Tick,
}

impl Line {
    const fn len(&self) -> u32 {
        self.promised.len + self.loose.len
    }

    /// Whose turn it is: the oldest, or the newest once the line was never empty for `standing`. A line that
    /// stands is longer than its oldest can wait for; the newest can still be served in time.
    fn next(&self, claims: &Slab<Claim>, standing: Duration, now: Tick) -> Option<ClaimId> {
        let sequence = |id: ClaimId| claims.get(id).map_or(u64::MAX, |claim| claim.sequence);
        if now.since(self.busy_since) > standing {
            [self.promised.tail, self.loose.tail].into_iter().flatten().max_by_key(|&id| sequence(id))
        } else {
            [self.promised.head, self.loose.head].into_iter().flatten().min_by_key(|&id| sequence(id))
        }
    }
}

/// All who wait for a connection of the pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Queues {
    lines: [Line; Place::LISTS],
    jobs: BTreeSet<(Tick, u64, ClaimId)>,
}

impl Queues {
    pub(super) fn len(&self, place: Place) -> usize {
        match place {
            Place::Job => self.jobs.len(),
            Place::Nested
            | Place::Critical
            | Place::Normal
            | Place::LongNormal
            | Place::Sheddable
            | Place::LongSheddable
            | Place::Background
            | Place::LongBackground => self.lines[place as usize].len() as usize,
        }
    }

    pub(super) fn push(&mut self, claims: &mut Slab<Claim>, id: ClaimId, now: Tick) {
        let Some(&Claim { place, due, sequence, .. }) = claims.get(id) else { return };
        if place == Place::Job {
            self.jobs.insert((due, sequence, id));
            return;
        }
        let line = &mut self.lines[place as usize];
        if line.len() == 0 {
            line.busy_since = now;
        }
        line.list_of(claims, id).push_back(claims, id);
    }

    pub(super) fn remove(&mut self, claims: &mut Slab<Claim>, id: ClaimId) {
        let Some(&Claim { place, due, sequence, .. }) = claims.get(id) else { return };
        if place == Place::Job {
            self.jobs.remove(&(due, sequence, id));
        } else {
            self.lines[place as usize].list_of(claims, id).remove(claims, id);
        }
    }

    /// Who is next at this turn.
    pub(super) fn next(
        &self,
        turn: Turn,
        claims: &Slab<Claim>,
        standing: Duration,
        now: Tick,
    ) -> Option<ClaimId> {
        match turn {
            Turn::Of(place) => self.lines[place as usize].next(claims, standing, now),
            Turn::DueJob => self.jobs.first().filter(|&&(due, ..)| due <= now).map(|&(.., id)| id),
            Turn::AnyJob => self.jobs.first().map(|&(.., id)| id),
        }
    }

    /// Who is served next, if anybody may be.
    pub(super) fn first(&self, claims: &Slab<Claim>, standing: Duration, now: Tick) -> Option<ClaimId> {
        TURNS.into_iter().find_map(|turn| self.next(turn, claims, standing, now))
    }

    /// The oldest loose waiter of a place that has more than `most` of them.
    pub(super) fn too_many(&self, most: u32) -> Option<ClaimId> {
        self.lines.iter().find(|line| line.loose.len > most)?.loose.head
    }

    /// Everyone who waits, place by place.
    pub(super) fn iter(&self, claims: &Slab<Claim>) -> impl Iterator<Item = ClaimId> {
        let lists = self.lines.iter().flat_map(|line| [line.promised, line.loose]);
        lists.flat_map(|list| list.iter(claims)).chain(self.jobs.iter().map(|&(.., id)| id))
    }
}

impl Line {
    fn list_of(&mut self, claims: &Slab<Claim>, id: ClaimId) -> &mut List {
        let promised = claims.get(id).is_some_and(|claim| claim.job.is_some());
        if promised { &mut self.promised } else { &mut self.loose }
    }
}
