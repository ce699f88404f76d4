//! What must hold between any two events, recomputed from scratch.

use std::collections::HashMap;

use crate::gate::{Claim, ClaimId, Machine, claim::State, queue::Place};

impl Machine {
    /// Every invariant that does not hold, by name; it looks at everything, so it is for tests and for people.
    #[must_use]
    pub fn invariants(&self) -> Vec<&'static str> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, name: &'static str| {
            if !holds {
                broken.push(name);
            }
        };
        let count = |of: &dyn Fn(State, bool) -> bool| {
            self.claims.iter().filter(|(_, claim)| of(claim.state, claim.long)).count()
        };
        must(count(&|state, _| state == State::New) == 0, "no claim is undecided");
        must(count(&|state, _| state == State::Held) == self.in_use as usize, "held claims are in use");
        let long = count(&|state, long| state == State::Held && long);
        must(long == self.long_in_use as usize, "long claims that are held are in use");
        let waiting = self.waiting.iter().sum::<u32>() as usize;
        must(count(&|state, _| state == State::Waiting) == waiting, "waiting claims are counted");
        must(self.queues.iter(&self.claims).count() == waiting, "waiting claims are queued once");
        must(count(&|state, _| state == State::Parked) == self.parked as usize, "parked claims are counted");
        must(self.expiries.len() == waiting + self.parked as usize, "whoever waits gives up once");
        must(self.expiries.first().is_none_or(|&(at, _)| at > self.now), "nobody waits beyond their time");
        must(self.users_are_counted(), "users have what is counted for them");
        must(self.jobs_are_counted(), "queries promised are those of jobs in flight");
        must(self.nobody_could_be_granted(), "nobody waits who could be granted");
        must(self.queues.too_many(self.most_waiting()).is_none(), "queues are bounded");
        must(self.tally.violations == 0, "nothing was given back twice");
        broken
    }

    /// Whoever waits for a connection or is parked, by their places.
    pub(super) fn who_waits(&self) -> impl Iterator<Item = ClaimId> {
        let waits = |claim: &Claim| matches!(claim.state, State::Waiting | State::Parked);
        self.claims.iter().filter(move |&(_, claim)| waits(claim)).map(|(id, _)| id)
    }

    fn users_are_counted(&self) -> bool {
        let mut counts: HashMap<_, (u32, u32, u32)> = HashMap::new();
        for (_, claim) in self.claims.iter() {
            let Some(user) = claim.user else { continue };
            let (_, active, parked) = counts.entry(user).or_default();
            *(if claim.state == State::Parked { parked } else { active }) += 1;
        }
        for user in self.jobs.iter().filter_map(|(_, job)| job.user) {
            counts.entry(user).or_default().0 += 1;
        }
        let listed = self.users.iter().all(|(key, user)| {
            let has = (user.in_flight(), user.active(), user.parked());
            let fits = user.waiting.iter(&self.claims).count() == user.parked() as usize;
            fits && counts.remove(&key) == Some(has) && (user.parked() == 0 || !self.users.may_hold(key))
        });
        listed && counts.is_empty()
    }

    fn jobs_are_counted(&self) -> bool {
        self.jobs.iter().map(|(_, job)| u64::from(job.left)).sum::<u64>() == self.estimate.promised()
    }

    fn nobody_could_be_granted(&self) -> bool {
        let mut waiting = self.queues.iter(&self.claims).filter_map(|id| self.claims.get(id));
        !waiting.any(|claim| self.may_grant(claim) && claim.place != Place::Nested)
    }
}
