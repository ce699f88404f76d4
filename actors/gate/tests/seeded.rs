//! Random lives of a gate, each event followed by a recount of everything. `SELFHEAL_SEEDS` says how many, `SEED`
//! replays one.

use std::{
    collections::HashMap,
    env,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use super::*;
use crate::{
    gate::{
        Claim,
        claim::State,
        queue::{List, Place},
    },
    user_limit::{self, UserKey},
};

const EVENTS: usize = 500;
const USERS: [&str; 4] = ["ann", "bob", "cleo", "dan"];
const OPERATIONS: [&str; 5] =
    ["/api/auth/login", "/api/tasks/assign", "/api/dashboard", "/api/reports", "/api/assistance"];

/// The seeds to run: one if `SEED` is set, else as many as `SELFHEAL_SEEDS` says (2,000).
#[expect(clippy::disallowed_methods, reason = "a test is told its seeds by the environment")]
fn seeds() -> Range<u64> {
    let number = |name| env::var(name).ok().and_then(|n| n.parse().ok());
    number("SEED").map_or_else(|| 0..number("SELFHEAL_SEEDS").unwrap_or(2_000), |seed| seed..seed + 1)
}

/// What the outside knows of a claim.
#[derive(Clone, Copy, Debug)]
struct Known {
    class: Class,
    job: bool,
    nested: bool,
    deadline: Tick,
    held: bool,
}

/// What was so before an event.
struct Before {
    waiting: Vec<(ClaimId, Claim)>,
    in_use: u32,
    active: HashMap<UserKey<List>, u32>,
}

/// One gate, its callers, and the books that they keep.
struct Life {
    random: fastrand::Rng,
    machine: Machine,
    policy: Policy,
    now: Tick,
    users: Vec<Name>,
    operations: Vec<Name>,
    jobs: Vec<(JobId, Class, Tick)>,
    claims: HashMap<ClaimId, Known>,
    told: Vec<Effect>,
    /// The use at which work that is not critical was held, while it is.
    held_at: Option<u32>,
    hash: DefaultHasher,
}

impl Life {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let policy = random_policy(&mut random);
        let limit = random.u32(0..12);
        Self {
            machine: Machine::new(policy.clone(), limit, seed),
            policy,
            random,
            now: Tick::ZERO,
            users: USERS.map(Name::from).to_vec(),
            operations: OPERATIONS.map(Name::from).to_vec(),
            jobs: Vec::new(),
            claims: HashMap::new(),
            told: Vec::new(),
            held_at: None,
            hash: DefaultHasher::new(),
        }
    }

    /// Time goes on, and something happens; what must hold after each.
    fn event(&mut self) {
        let before = self.before();
        self.step();
        self.follow(&before, None);
        let before = self.before();
        let arrived = match self.random.u32(0..100) {
            0..20 => self.enter(),
            20..58 => self.acquire(),
            58..78 => self.release(),
            78..83 => self.abandon(),
            83..88 => self.leave(),
            88..93 => self.change(),
            _ => self.resize(),
        };
        self.follow(&before, arrived);
    }

    /// No time at all, a little, until the next timer, or a long time.
    fn step(&mut self) {
        let step = match self.random.u32(0..100) {
            0 => self.random.u64(0..40_000_000),
            1..40 => return,
            40..50 => 0,
            _ => self.random.u64(0..60_000),
        };
        let timer = self.machine.next_timer().filter(|_| step == 0);
        self.now = timer.unwrap_or(self.now + Duration::from_micros(step)).max(self.now);
        self.machine.tick(self.now, &mut self.told);
    }

    fn enter(&mut self) -> Option<ClaimId> {
        let (users, operations) = (self.users.clone(), self.operations.clone());
        let work = self.random_work(&users, &operations);
        let deadline = work.deadline.unwrap_or(self.now + self.policy.patience);
        if self.random.u32(0..5) == 0 {
            let job = self.machine.join(&work, self.now, &mut self.told);
            self.jobs.push((job, work.class, deadline));
            return None;
        }
        let entered = self.machine.enter(&work, self.now, &mut self.told);
        format!("{entered:?}").hash(&mut self.hash);
        match entered {
            Ok(job) => self.jobs.push((job, work.class, deadline)),
            Err(refusal) if work.class == Class::Critical => {
                assert_eq!(refusal.reason, Reason::Deadline, "critical work is refused by nothing else");
                assert!(deadline <= self.now, "and only by its own");
            }
            Err(refusal) => assert_ne!(refusal.reason, Reason::Nested),
        }
        None
    }

    fn acquire(&mut self) -> Option<ClaimId> {
        let (users, operations) = (self.users.clone(), self.operations.clone());
        let work = self.random_work(&users, &operations);
        let job = self.random.choice(&self.jobs).copied().filter(|_| self.random.u32(0..4) > 0);
        let nested = !self.claims.is_empty() && self.random.u32(0..12) == 0;
        let operation = work.operation.filter(|_| self.random.bool());
        let answer = self.machine.acquire(
            &Ask { job: job.map(|(job, ..)| job), work, operation, nested },
            self.now,
            &mut self.told,
        );
        format!("{answer:?}").hash(&mut self.hash);
        let (class, deadline) = job.map_or_else(
            || (work.class, work.deadline.unwrap_or(self.now + self.policy.patience)),
            |(_, class, deadline)| (class, deadline),
        );
        let known = Known { class, job: job.is_some(), nested, deadline, held: false };
        match answer {
            Answer::Granted(claim) => {
                self.claims.insert(claim, Known { held: true, ..known });
                return Some(claim);
            }
            Answer::Parked(claim) => drop(self.claims.insert(claim, known)),
            Answer::Refused(refusal) => self.may_be_refused(known, refusal.reason, true),
        }
        None
    }

    fn release(&mut self) -> Option<ClaimId> {
        let claim = self.random_claim(|known| known.held)?;
        self.claims.remove(&claim);
        self.machine.release(claim, self.now, &mut self.told);
        if self.random.u32(0..10) == 0 {
            self.machine.release(claim, self.now, &mut self.told);
        }
        None
    }

    fn abandon(&mut self) -> Option<ClaimId> {
        let claim = self.random_claim(|_| true)?;
        self.claims.remove(&claim);
        self.machine.abandon(claim, self.now, &mut self.told);
        None
    }

    fn leave(&mut self) -> Option<ClaimId> {
        if !self.jobs.is_empty() {
            let (job, ..) = self.jobs.swap_remove(self.random.usize(0..self.jobs.len()));
            self.machine.leave(job, self.now, &mut self.told);
        }
        None
    }

    fn change(&mut self) -> Option<ClaimId> {
        let on = self.random.bool();
        let change = match self.random.u32(0..6) {
            0 => Change::Shed(on),
            1 => Change::UserLimit(on.then(|| self.random.u32(0..6))),
            2 => Change::CriticalOnly(on),
            3 => Change::OmitOptional(on),
            4 => Change::PauseDurable(on),
            _ => Change::Batch(self.random.u32(1..100)),
        };
        match change {
            Change::CriticalOnly(true) => self.held_at = self.held_at.or(Some(self.machine.used().max(1))),
            Change::CriticalOnly(false) => self.held_at = None,
            Change::Shed(_)
            | Change::UserLimit(_)
            | Change::OmitOptional(_)
            | Change::PauseDurable(_)
            | Change::Batch(_) => {}
        }
        self.machine.apply(change, self.now, &mut self.told);
        None
    }

    fn resize(&mut self) -> Option<ClaimId> {
        let size = self.random.u32(0..15);
        match self.random.u32(0..4) {
            0 => self.machine.server_full(self.now, &mut self.told),
            1 => self.machine.set_outside(size / 3, self.now, &mut self.told),
            _ => self.machine.set_limit(size, self.now, &mut self.told),
        }
        None
    }

    /// Enters in the books what was told, and holds it against the rules.
    fn follow(&mut self, before: &Before, arrived: Option<ClaimId>) {
        let mut granted = Vec::from_iter(arrived);
        for effect in std::mem::take(&mut self.told) {
            format!("{effect:?}").hash(&mut self.hash);
            match effect {
                Effect::Granted(claim) => {
                    let known = self.claims.get_mut(&claim).expect("only claims that are known are told of");
                    assert!(!std::mem::replace(&mut known.held, true), "{claim:?} is granted once");
                    granted.push(claim);
                }
                Effect::Refused(claim, class, refusal) => {
                    let known = self.claims.remove(&claim).expect("only claims that are known are told of");
                    assert!(!known.held && known.class == class);
                    self.may_be_refused(known, refusal.reason, false);
                }
            }
        }
        granted.iter().for_each(|&claim| self.nobody_was_overtaken(before, claim));
        self.ceilings_hold(&granted);
        self.check(before);
    }

    /// Nobody of a better class waited before, and waits still, who was not held up by a rule of their own.
    fn nobody_was_overtaken(&self, before: &Before, granted: ClaimId) {
        let Some(granted) = self.machine.claims.get(granted).filter(|claim| claim.place != Place::Nested)
        else {
            return;
        };
        for (id, better) in before.waiting.iter().filter(|(_, claim)| claim.served_as < granted.served_as) {
            let waits = self.machine.claims.get(*id).is_some_and(|claim| claim.state == State::Waiting);
            // A job's query has its own moment, and what holds long its own share.
            let excused = better.place == Place::Job || better.long;
            assert!(!waits || excused, "{granted:?} overtook {better:?}");
        }
    }

    /// After grants of none but one class, the use of the pool is at most at that class's ceiling.
    fn ceilings_hold(&self, granted: &[ClaimId]) {
        let claims: Vec<_> = granted.iter().filter_map(|&id| self.machine.claims.get(id)).collect();
        let classes: Vec<_> = claims.iter().map(|claim| claim.served_as).collect();
        let nested = claims.iter().any(|claim| claim.place == Place::Nested);
        let Some(&class) = classes.first().filter(|&class| !nested && classes.iter().all(|c| c == class))
        else {
            return;
        };
        let percent = match (self.policy.reserve, class) {
            (Reserve::Auto, _) | (_, Class::Critical) => 100,
            (Reserve::Static, Class::Normal) => 92,
            (Reserve::Static, Class::Sheddable | Class::Background) => 85,
        };
        let most = (self.machine.limit() * percent / 100).max(1);
        let most = self.held_at.filter(|_| class != Class::Critical).map_or(most, |at| most.min(at));
        assert!(self.machine.used() <= most, "{class}: {} of {most}", self.machine.used());
    }

    fn may_be_refused(&self, known: Known, reason: Reason, on_arrival: bool) {
        match reason {
            Reason::Deadline => assert!(known.deadline <= self.now, "the deadline has passed"),
            Reason::Nested => assert!(known.nested),
            Reason::Shed | Reason::QueueFull | Reason::UserLimit => {
                assert!(!known.job, "what was admitted is not shed: {known:?} {reason}");
                let by_level = known.class == Class::Critical && reason != Reason::QueueFull;
                assert!(!by_level, "no level refuses critical work: {known:?} {reason}");
                assert!(on_arrival || reason != Reason::UserLimit);
            }
            Reason::Closed => panic!("nobody closed it"),
        }
    }

    fn check(&self, before: &Before) {
        let machine = &self.machine;
        assert_eq!(machine.invariants(), Vec::<&str>::new());
        let held = self.claims.values().filter(|known| known.held).count();
        assert_eq!(held, machine.in_use() as usize, "every connection has its holder");
        let waiting = machine.waiting().iter().sum::<u32>() + machine.parked();
        assert_eq!(self.claims.len() - held, waiting as usize, "every waiter is known to the gate");
        assert_eq!(self.jobs.len(), machine.in_flight());
        if machine.in_use() > before.in_use {
            let most = machine.limit() + self.policy.nested_reserve;
            assert!(machine.used() <= most, "{} of {most}", machine.used());
        }
        if let Some(limit) = machine.users.limit() {
            for (user, now) in self.active() {
                let before = before.active.get(&user).copied().unwrap_or(0);
                assert!(now <= limit.max(before), "{user:?} has {now}, had {before}, may have {limit}");
            }
        }
    }

    /// All is given back; every waiter is granted or refused by its deadline, and nothing is left.
    fn end(&mut self) {
        while let Some(claim) = self.random_claim(|known| known.held) {
            self.release_now(claim);
        }
        while let Some(due) = self.machine.next_timer() {
            let last = self.claims.values().map(|known| known.deadline).max().expect("somebody waits");
            assert!(due <= last, "a timer later than every deadline");
            let before = self.before();
            self.now = self.now.max(due);
            self.machine.tick(self.now, &mut self.told);
            self.follow(&before, None);
            while let Some(claim) = self.random_claim(|known| known.held) {
                self.release_now(claim);
            }
        }
        assert!(self.claims.is_empty(), "nobody waits for ever: {:?}", self.claims);
        while !self.jobs.is_empty() {
            self.leave();
        }
        let machine = &self.machine;
        assert_eq!((machine.in_use(), machine.parked(), machine.waiting()), (0, 0, [0; 4]));
        assert_eq!((machine.users(), machine.in_flight(), machine.estimate.promised()), (0, 0, 0));
        assert_eq!(machine.invariants(), Vec::<&str>::new());
    }

    fn release_now(&mut self, claim: ClaimId) {
        let before = self.before();
        self.claims.remove(&claim);
        self.machine.release(claim, self.now, &mut self.told);
        self.follow(&before, None);
    }

    fn before(&self) -> Before {
        let waiting = self.machine.claims.iter().filter(|(_, claim)| claim.state == State::Waiting);
        let waiting = waiting.map(|(id, claim)| (id, *claim)).collect();
        Before { waiting, in_use: self.machine.in_use(), active: self.active() }
    }

    fn active(&self) -> HashMap<UserKey<List>, u32> {
        self.machine.users.iter().map(|(key, user)| (key, user.active())).collect()
    }

    fn random_claim(&mut self, of: impl Fn(&Known) -> bool) -> Option<ClaimId> {
        let mut claims: Vec<_> =
            self.claims.iter().filter(|(_, known)| of(known)).map(|(&id, _)| id).collect();
        claims.sort_unstable();
        self.random.choice(claims)
    }

    fn random_work<'a>(&mut self, users: &'a [Name], operations: &'a [Name]) -> Work<'a> {
        let random = &mut self.random;
        let deadline = random.u64(0..3_000);
        Work {
            class: random.choice(Class::ALL.iter().copied()).unwrap_or_default(),
            user: random.choice(users).filter(|_| random.u32(0..5) > 0),
            deadline: random.bool().then(|| self.now + Duration::from_millis(deadline)),
            operation: random.choice(operations).filter(|_| random.bool()),
            queries: random.choice([None, None, None, Some(1), Some(3), Some(20), Some(160)]).flatten(),
            attempt: random.u32(0..6) / 5,
        }
    }
}

fn random_policy(random: &mut fastrand::Rng) -> Policy {
    let reserve = if random.bool() { Reserve::Auto } else { Reserve::Static };
    let long_operations = if random.bool() { vec![Name::from(OPERATIONS[3])] } else { Vec::new() };
    let users = user_limit::Policy { parked: random.u32(0..6), ..Default::default() };
    let nested_reserve = random.u32(0..3);
    let patience = Duration::from_millis(random.u64(1..40_000));
    let retry_jitter = random.bool();
    Policy { reserve, long_operations, users, nested_reserve, patience, retry_jitter, ..Policy::default() }
}

/// One life from its seed; the hash of all that was answered and told.
fn life(seed: u64) -> u64 {
    let _told = OnPanic(seed);
    let mut life = Life::new(seed);
    (0..EVENTS).for_each(|_| life.event());
    life.end();
    life.hash.finish()
}

#[test]
fn every_life_keeps_its_books_and_leaves_nothing_behind() {
    let Range { start, end } = seeds();
    let next = AtomicU64::new(start);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&seed| seed < end) {
                    let hash = life(seed);
                    assert!(!seed.is_multiple_of(64) || life(seed) == hash, "SEED={seed} tells two stories");
                }
            });
        }
    });
}

/// Names the seed of a failing test.
struct OnPanic(u64);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("SEED={} replays it", self.0);
        }
    }
}
