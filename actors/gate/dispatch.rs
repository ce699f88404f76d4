//! How waiting begins and ends.

use std::time::Duration;

use crate::{
    clock::Tick,
    gate::{
        Claim, ClaimId, Effect, Machine, Reason,
        claim::State,
        queue::{List, Place, TURNS, Turn},
    },
    level::Class,
    user_limit::UserKey,
};

impl Machine {
    /// Moves time on to `now`, and lets everything happen that was to happen by then, each at its moment.
    pub(super) fn advance(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        while let Some(at) = self.next_timer().filter(|&at| at <= now) {
            self.now = self.now.max(at);
            self.give_up(effects);
            self.dispatch(effects);
        }
        self.now = self.now.max(now);
    }

    /// Grants as much as may be granted, in the order of turns, and keeps what is left within its bounds.
    pub(super) fn dispatch(&mut self, effects: &mut Vec<Effect>) {
        while !self.nobody_waits() {
            self.grant_all(effects);
            if !self.push_out(effects) {
                break;
            }
        }
    }

    /// Whether a claim may have a connection now, if it is its turn.
    pub(super) fn may_grant(&self, claim: &Claim) -> bool {
        let ceiling = if claim.place == Place::Nested {
            self.limit().saturating_add(self.policy.nested_reserve)
        } else {
            self.ceilings.of(claim.served_as, self.now)
        };
        self.used() < ceiling && (!claim.long || self.long_in_use < self.most_long())
    }

    pub(super) fn grant(&mut self, id: ClaimId) {
        let now = self.now;
        let Some(claim) = self.claims.get_mut(id) else { return };
        claim.state = State::Held;
        claim.granted = now;
        let claim = *claim;
        self.in_use += 1;
        self.long_in_use += u32::from(claim.long);
        self.tally.wait[claim.class.index()].record(now.since(claim.arrived));
        self.estimate.granted(&claim, now);
    }

    /// Ends a claim, wherever it is on its way, and lets others have what it leaves.
    pub(super) fn end(&mut self, id: ClaimId, effects: &mut Vec<Effect>) {
        self.take_out(id);
        self.dispatch(effects);
    }

    /// Ends a claim that waits, and tells it.
    pub(super) fn turn_away(&mut self, id: ClaimId, reason: Reason, effects: &mut Vec<Effect>) {
        let Some(&Claim { class, .. }) = self.claims.get(id) else { return };
        let wait = if reason == Reason::Closed { Duration::ZERO } else { self.drain(class) };
        self.take_out(id);
        let refusal = self.refuse(class, reason, wait);
        effects.push(Effect::Refused(id, class, refusal));
    }

    /// Counts a claim as one of those that its user has.
    pub(super) fn count_active(&mut self, id: ClaimId) {
        if let Some(user) = self.claims.get(id).and_then(|claim| claim.user) {
            self.users.hold(user);
        }
    }

    /// Sets a claim aside for its user.
    pub(super) fn set_aside(&mut self, id: ClaimId, user: UserKey<List>, side: Side) {
        let sequence = self.next_sequence();
        let Some(claim) = self.claims.get_mut(id) else { return };
        (claim.state, claim.expires, claim.sequence) = (State::Parked, claim.deadline, sequence);
        self.expiries.insert((claim.expires, id));
        self.parked += 1;
        self.users.park(user);
        let Some(list) = self.users.waiting_mut(user) else { return };
        match side {
            Side::Front => list.push_front(&mut self.claims, id),
            Side::Back => list.push_back(&mut self.claims, id),
        }
    }

    /// Whoever was set aside for their user now waits for the pool.
    pub(super) fn move_on(&mut self, id: ClaimId) {
        if let Some(user) = self.unpark(id) {
            // Counted before it is no longer: a user without a count is forgotten.
            self.users.hold(user);
            self.users.unpark(user);
            self.queue(id);
        }
    }

    pub(super) fn unqueue(&mut self, id: ClaimId) {
        let Some(&Claim { state: State::Waiting, class, expires, .. }) = self.claims.get(id) else { return };
        self.queues.remove(&mut self.claims, id);
        self.expiries.remove(&(expires, id));
        self.waiting[class.index()] -= 1;
    }

    /// After the limit fell: of those that wait, the newest of each user who has too much are set aside.
    pub(super) fn hold_users_to_their_limit(&mut self) {
        if self.users.limit().is_none() {
            return;
        }
        for id in self.in_order(State::Waiting).into_iter().rev() {
            let user = self.claims.get(id).and_then(|claim| claim.user);
            let Some(user) = user.filter(|&user| self.users.is_over(user)) else { continue };
            self.unqueue(id);
            self.set_aside(id, user, Side::Front);
            self.users.free(user);
        }
    }

    /// After the limit rose or was lifted: whoever need not wait for their own any more waits for the pool.
    pub(super) fn unpark_all(&mut self) {
        let users: Vec<_> = self.users.iter().map(|(key, _)| key).collect();
        for user in users {
            while self.let_next_move_on(user) {}
        }
    }

    /// Puts a claim where it waits for a connection.
    pub(super) fn queue(&mut self, id: ClaimId) {
        let (sequence, now) = (self.next_sequence(), self.now);
        let Some(claim) = self.claims.get(id) else { return };
        let expires = self.patience(claim);
        let Some(claim) = self.claims.get_mut(id) else { return };
        (claim.state, claim.expires, claim.sequence) = (State::Waiting, expires, sequence);
        claim.queued = now;
        self.waiting[claim.class.index()] += 1;
        self.expiries.insert((expires, id));
        self.queues.push(&mut self.claims, id, now);
    }

    /// When a claim that begins to wait gives up. What was promised waits to its deadline. What was not waits
    /// while waiting helps: critical work as long as there is a deadline to meet, other work for a short while.
    fn patience(&self, claim: &Claim) -> Tick {
        if claim.job.is_some() || claim.place == Place::Nested || claim.class == Class::Critical {
            return claim.expires;
        }
        let left = claim.deadline.since(self.now);
        claim.deadline.min(self.now + self.policy.queue_wait.max(left / 10))
    }

    fn grant_all(&mut self, effects: &mut Vec<Effect>) {
        for turn in TURNS {
            while let Some(id) = self.next_at(turn) {
                self.unqueue(id);
                self.grant(id);
                effects.push(Effect::Granted(id));
            }
        }
    }

    /// Where more wait than may, the oldest to whom nothing was promised makes room.
    fn push_out(&mut self, effects: &mut Vec<Effect>) -> bool {
        let Some(oldest) = self.queues.too_many(self.most_waiting()) else { return false };
        self.turn_away(oldest, Reason::QueueFull, effects);
        true
    }

    /// Turns away whoever has waited as long as they would.
    fn give_up(&mut self, effects: &mut Vec<Effect>) {
        while let Some(&due @ (_, id)) = self.expiries.first().filter(|&&(at, _)| at <= self.now) {
            // Taken out here, so that the loop ends whatever becomes of the claim.
            self.expiries.remove(&due);
            let reason = self.claims.get(id).map_or(Reason::Deadline, why_late);
            self.turn_away(id, reason, effects);
        }
    }

    fn next_at(&self, turn: Turn) -> Option<ClaimId> {
        let id = self.queues.next(turn, &self.claims, self.policy.standing, self.now)?;
        self.claims.get(id).is_some_and(|claim| self.may_grant(claim)).then_some(id)
    }

    /// Takes a claim out of all counts, and lets the next of its user's move on.
    fn take_out(&mut self, id: ClaimId) {
        let Some(&claim) = self.claims.get(id) else { return };
        match claim.state {
            State::New => {}
            State::Parked => {
                if let Some(user) = self.unpark(id) {
                    self.users.unpark(user);
                }
            }
            State::Waiting => self.unqueue(id),
            State::Held => self.give_back(&claim),
        }
        self.claims.remove(id);
        if let Some(user) = claim.user.filter(|_| claim.state != State::Parked) {
            self.users.free(user);
            self.let_next_move_on(user);
        }
    }

    fn let_next_move_on(&mut self, user: UserKey<List>) -> bool {
        let next = self.users.get(user).and_then(|user| user.waiting.head());
        let Some(next) = next.filter(|_| self.users.may_hold(user)) else { return false };
        self.move_on(next);
        true
    }

    /// Takes a claim back from where it was set aside; it is still counted there.
    fn unpark(&mut self, id: ClaimId) -> Option<UserKey<List>> {
        let &Claim { user, expires, .. } = self.claims.get(id)?;
        let user = user?;
        self.users.waiting_mut(user)?.remove(&mut self.claims, id);
        self.expiries.remove(&(expires, id));
        self.parked -= 1;
        Some(user)
    }

    fn give_back(&mut self, claim: &Claim) {
        self.tally.violations += u64::from(self.in_use == 0 || claim.long && self.long_in_use == 0);
        self.in_use = self.in_use.saturating_sub(1);
        self.long_in_use = self.long_in_use.saturating_sub(u32::from(claim.long));
        self.estimate.given_back(claim, self.now);
    }
}

/// At which end of a user's list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    /// Before those who came later.
    Front,
    /// After those who came earlier.
    Back,
}

/// Why a claim that gave up got no connection.
fn why_late(claim: &Claim) -> Reason {
    if claim.place == Place::Nested && claim.expires < claim.deadline {
        Reason::Nested
    } else if claim.expires < claim.deadline {
        Reason::Shed
    } else {
        Reason::Deadline
    }
}
