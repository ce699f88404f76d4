//! What each active user has at once.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    signal::Name,
    slab::{Key, Slab},
    user_limit::Policy,
};

/// Finds an active user's counts.
pub type UserKey<Q> = Key<User<Q>>;

/// What one user has at once, and, as `Q`, whatever waits for it.
#[derive(Clone, Debug)]
pub struct User<Q> {
    name: Name,
    in_flight: u32,
    active: u32,
    parked: u32,
    /// What waits for one of the user's own connections, in its owner's terms.
    pub waiting: Q,
}

impl<Q> User<Q> {
    /// Requests in flight.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Acquisitions that hold a connection or compete for one.
    #[must_use]
    pub const fn active(&self) -> u32 {
        self.active
    }

    /// Acquisitions that wait for one of the user's own.
    #[must_use]
    pub const fn parked(&self) -> u32 {
        self.parked
    }

    const fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.active == 0 && self.parked == 0
    }
}

/// The counts of all active users.
#[derive(Clone, Debug)]
pub struct Machine<Q> {
    policy: Policy,
    limit: Option<u32>,
    keys: HashMap<Name, UserKey<Q>>,
    users: Slab<User<Q>>,
}

impl<Q: Default> Machine<Q> {
    /// Nobody is active and there is no limit.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, limit: None, keys: HashMap::new(), users: Slab::default() }
    }

    /// The limit in force, if any.
    #[must_use]
    pub const fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Puts a limit in force, or lifts it. A limit of zero would never end, so it is one.
    pub fn set_limit(&mut self, limit: Option<u32>) {
        self.limit = limit.map(|n| n.max(1));
    }

    /// Whether one more request of `user` may enter.
    #[must_use]
    pub fn may_enter(&self, user: &Name) -> bool {
        let Some(limit) = self.limit else { return true };
        self.keys.get(user).and_then(|&key| self.users.get(key)).is_none_or(|user| user.in_flight < limit)
    }

    /// Counts a request of `user`; `None` if there are too many users to count one more.
    pub fn enter(&mut self, user: &Name) -> Option<UserKey<Q>> {
        let key = self.find_or_add(user)?;
        self.users.get_mut(key)?.in_flight += 1;
        Some(key)
    }

    /// A request has ended.
    pub fn leave(&mut self, key: UserKey<Q>) {
        self.change(key, |user| user.in_flight = user.in_flight.saturating_sub(1));
    }

    /// Whether one more acquisition may hold a connection or compete for one.
    #[must_use]
    pub fn may_hold(&self, key: UserKey<Q>) -> bool {
        let Some(limit) = self.limit else { return true };
        self.users.get(key).is_none_or(|user| user.active < limit)
    }

    /// Whether the user has more than the limit that is in force now.
    #[must_use]
    pub fn is_over(&self, key: UserKey<Q>) -> bool {
        self.limit.is_some_and(|limit| self.users.get(key).is_some_and(|user| user.active > limit))
    }

    /// Whether one more acquisition that nobody promised anything may wait for the user's own connections.
    #[must_use]
    pub fn may_park(&self, key: UserKey<Q>) -> bool {
        self.users.get(key).is_some_and(|user| user.parked < self.policy.parked)
    }

    /// Counts an acquisition that holds a connection or competes for one.
    pub fn hold(&mut self, key: UserKey<Q>) {
        self.change(key, |user| user.active += 1);
    }

    /// Such an acquisition has ended.
    pub fn free(&mut self, key: UserKey<Q>) {
        self.change(key, |user| user.active = user.active.saturating_sub(1));
    }

    /// Counts an acquisition that waits for one of the user's own connections.
    pub fn park(&mut self, key: UserKey<Q>) {
        self.change(key, |user| user.parked += 1);
    }

    /// Such an acquisition waits no longer.
    pub fn unpark(&mut self, key: UserKey<Q>) {
        self.change(key, |user| user.parked = user.parked.saturating_sub(1));
    }

    /// The counts under `key`.
    #[must_use]
    pub fn get(&self, key: UserKey<Q>) -> Option<&User<Q>> {
        self.users.get(key)
    }

    /// What waits for the user under `key`.
    pub fn waiting_mut(&mut self, key: UserKey<Q>) -> Option<&mut Q> {
        self.users.get_mut(key).map(|user| &mut user.waiting)
    }

    /// Every active user.
    pub fn iter(&self) -> impl Iterator<Item = (UserKey<Q>, &User<Q>)> {
        self.users.iter()
    }

    /// How many users are active.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether no user is active.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The key of `user`, who becomes active; `None` if there are too many users to count one more. The
    /// caller counts something for them next: an entry without a count would stay.
    pub fn find_or_add(&mut self, user: &Name) -> Option<UserKey<Q>> {
        let place = match self.keys.entry(Name::clone(user)) {
            Entry::Occupied(known) => return Some(*known.get()),
            Entry::Vacant(_) if self.users.len() >= self.policy.users => return None,
            Entry::Vacant(place) => place,
        };
        let name = Name::clone(user);
        let idle = User { name, in_flight: 0, active: 0, parked: 0, waiting: Q::default() };
        Some(*place.insert(self.users.insert(idle)))
    }

    fn change(&mut self, key: UserKey<Q>, change: impl FnOnce(&mut User<Q>)) {
        let Some(user) = self.users.get_mut(key) else { return };
        change(user);
        if user.is_idle()
            && let Some(gone) = self.users.remove(key)
        {
            self.keys.remove(&gone.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five() -> Machine<()> {
        let mut machine = Machine::new(Policy::default());
        machine.set_limit(Some(5));
        machine
    }

    #[test]
    fn a_user_has_five_requests_in_flight_and_others_do_not_suffer() {
        let mut machine = five();
        let (ann, bob) = (Name::from("ann"), Name::from("bob"));
        let keys: Vec<_> = (0..5).filter_map(|_| machine.enter(&ann)).collect();
        assert!(!machine.may_enter(&ann) && machine.may_enter(&bob));
        machine.leave(keys[0]);
        assert!(machine.may_enter(&ann));
    }

    #[test]
    fn an_entry_is_gone_when_nothing_is_left_of_its_user() {
        let mut machine = five();
        let key = machine.enter(&Name::from("ann")).expect("there is room");
        machine.hold(key);
        machine.park(key);
        machine.leave(key);
        machine.free(key);
        assert_eq!(machine.len(), 1, "one still waits");
        machine.unpark(key);
        assert!(machine.is_empty() && machine.keys.is_empty());
        machine.free(key);
        assert!(machine.is_empty(), "a late message changes nothing");
    }

    #[test]
    fn beyond_the_bound_a_user_is_not_limited() {
        let mut machine: Machine<()> = Machine::new(Policy { users: 1, ..Policy::default() });
        machine.set_limit(Some(1));
        assert!(machine.enter(&Name::from("ann")).is_some());
        assert_eq!(machine.enter(&Name::from("bob")), None);
        assert!(machine.may_enter(&Name::from("bob")) && !machine.may_enter(&Name::from("ann")));
    }

    #[test]
    fn a_limit_above_which_somebody_is_takes_nothing_back() {
        let mut machine: Machine<()> = Machine::new(Policy::default());
        let key = machine.find_or_add(&Name::from("ann")).expect("there is room");
        (0..9).for_each(|_| machine.hold(key));
        machine.set_limit(Some(5));
        assert!(machine.is_over(key) && !machine.may_hold(key));
        (0..5).for_each(|_| machine.free(key));
        assert!(!machine.is_over(key) && machine.may_hold(key));
    }
}
