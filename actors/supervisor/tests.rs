//! Scenarios on virtual time, and a random walk beside a plain synchronous model of OTP's rules.

use std::{collections::HashMap, time::Duration};

use super::*;
use crate::{
    backoff::Backoff,
    clock::Tick,
    signal::{Exit, Name},
};

const MS: fn(u64) -> Tick = Tick::from_millis;

/// A supervisor whose children start and stop at once, each start with the next result of its script.
struct Rig {
    machine: Machine,
    scripts: HashMap<Name, Vec<bool>>,
    log: Vec<String>,
    escalated: u32,
    now: Tick,
}

impl Rig {
    fn new(policy: Policy, children: Vec<ChildPolicy>) -> Self {
        Self::with(policy, children, HashMap::new())
    }

    fn with(policy: Policy, children: Vec<ChildPolicy>, scripts: HashMap<Name, Vec<bool>>) -> Self {
        let (machine, effects) = Machine::start(policy, children, Tick::ZERO);
        let mut rig = Self { machine, scripts, log: Vec::new(), escalated: 0, now: Tick::ZERO };
        rig.perform(effects);
        rig
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let answer = match effect {
                Effect::Start(id, generation) => {
                    let ok = self.next_start(&id);
                    self.log.push(format!("{}{id}", if ok { "+" } else { "!" }));
                    let result = if ok { Ok(()) } else { Err("no".into()) };
                    Event::Started { id, generation, result }
                }
                Effect::Stop(id, generation) => {
                    self.log.push(format!("-{id}"));
                    Event::Exited { id, generation, reason: Exit::Shutdown }
                }
                Effect::Ended { escalated, .. } => {
                    self.log.push("end".into());
                    self.escalated += u32::from(escalated);
                    continue;
                }
                Effect::Kill(id, _) | Effect::Abandon(id, _) => panic!("{id} starts and stops at once"),
            };
            let more = self.machine.on(answer, self.now);
            self.perform(more);
        }
        if self.machine.next_timer().is_some_and(|at| at <= self.now) {
            let more = self.machine.on(Event::Timer, self.now);
            self.perform(more);
        }
    }

    fn next_start(&mut self, id: &Name) -> bool {
        match self.scripts.get_mut(id) {
            Some(script) if script.len() > 1 => script.remove(0),
            Some(script) => script[0],
            None => true,
        }
    }

    fn at(&mut self, now: Tick) -> &mut Self {
        while let Some(due) = self.machine.next_timer().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            let effects = self.machine.on(Event::Timer, self.now);
            self.perform(effects);
        }
        self.now = now;
        self
    }

    fn exit(&mut self, id: &str, reason: Exit) {
        let state = self.machine.children().find(|(child, ..)| *child.id == *id).map(|(_, state, _)| state);
        if let Some(State::Running(generation)) = state {
            let effects = self.machine.on(Event::Exited { id: id.into(), generation, reason }, self.now);
            self.perform(effects);
        }
    }

    fn verb(&mut self, result: Result<Vec<Effect>, VerbError>) -> Result<(), VerbError> {
        result.map(|effects| self.perform(effects))
    }

    /// What happened since the last time it was asked.
    fn told(&mut self) -> String {
        std::mem::take(&mut self.log).join(" ")
    }

    fn running(&self) -> String {
        let up = self.machine.children().filter(|(_, state, _)| matches!(state, State::Running(_)));
        up.map(|(child, ..)| child.id.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn specs(&self) -> String {
        self.machine.children().map(|(child, ..)| child.id.to_string()).collect::<Vec<_>>().join(" ")
    }
}

fn otp(strategy: Strategy, max_restarts: u32) -> Policy {
    let within = Duration::from_millis(1000);
    Policy { strategy, max_restarts, within, backoff: Backoff::NONE, ..Policy::default() }
}

fn child(id: &str, restart: Restart) -> ChildPolicy {
    ChildPolicy { id: id.into(), restart, significant: false }
}

fn abc(restart: Restart) -> Vec<ChildPolicy> {
    ["a", "b", "c"].map(|id| child(id, restart)).into()
}

fn panic() -> Exit {
    Exit::Panic("boom".into())
}

#[test]
fn each_strategy_stops_in_reverse_and_starts_in_order() {
    for (strategy, told) in [
        (Strategy::OneForOne, "+b"),
        (Strategy::OneForAll, "-c -a +a +b +c"),
        (Strategy::RestForOne, "-c +b +c"),
    ] {
        let mut rig = Rig::new(otp(strategy, 3), abc(Restart::Permanent));
        assert_eq!(rig.told(), "+a +b +c");
        rig.exit("b", panic());
        assert_eq!((rig.told().as_str(), rig.running().as_str()), (told, "a b c"), "{strategy:?}");
    }
}

#[test]
fn the_kind_of_child_and_the_kind_of_end_decide_whether_it_comes_back() {
    for (restart, reason, running, specs) in [
        (Restart::Permanent, Exit::Normal, "a b c", "a b c"),
        (Restart::Permanent, Exit::Killed, "a b c", "a b c"),
        (Restart::Transient, Exit::Normal, "a c", "a b c"),
        (Restart::Transient, Exit::Shutdown, "a c", "a b c"),
        (Restart::Transient, Exit::Error("e".into()), "a b c", "a b c"),
        (Restart::Transient, Exit::Killed, "a b c", "a b c"),
        (Restart::Temporary, panic(), "a c", "a c"),
        (Restart::Temporary, Exit::Normal, "a c", "a c"),
    ] {
        let mut rig = Rig::new(otp(Strategy::OneForOne, 3), abc(restart));
        rig.exit("b", reason.clone());
        assert_eq!(
            (rig.running().as_str(), rig.specs().as_str()),
            (running, specs),
            "{restart:?} {reason:?}"
        );
    }
}

#[test]
fn one_restart_too_many_within_the_period_ends_it_and_escalates_once() {
    let mut rig = Rig::new(otp(Strategy::OneForOne, 2), abc(Restart::Permanent));
    rig.told();
    for at in [0, 500] {
        rig.at(MS(at)).exit("a", panic());
    }
    rig.at(MS(1000)).exit("b", panic());
    assert_eq!(rig.told(), "+a +a -c -a end");
    assert_eq!((rig.escalated, rig.machine.has_ended()), (1, true));
    assert_eq!(rig.machine.restart_child("a", MS(1001)), Err(VerbError::Ending));
}

#[test]
fn a_failed_restart_counts_and_is_tried_again() {
    let scripts = HashMap::from([("b".into(), vec![true, false, false, true])]);
    let mut rig = Rig::with(otp(Strategy::OneForAll, 3), abc(Restart::Permanent), scripts.clone());
    rig.told();
    rig.exit("b", panic());
    assert_eq!(rig.told(), "-c -a +a !b -a +a !b -a +a +b +c", "all is done again");
    let mut rig = Rig::with(otp(Strategy::RestForOne, 3), abc(Restart::Permanent), scripts.clone());
    rig.told();
    rig.exit("a", panic());
    assert_eq!(rig.told(), "-c -b +a !b !b +b +c", "a stays, only the rest is done again");
    let mut rig = Rig::with(otp(Strategy::OneForOne, 2), abc(Restart::Permanent), scripts);
    rig.exit("b", panic());
    assert!(rig.machine.has_ended(), "three tries are more than two");
}

#[test]
fn a_supervisor_that_cannot_start_a_child_does_not_start() {
    let scripts = HashMap::from([("c".into(), vec![false])]);
    let mut rig = Rig::with(otp(Strategy::OneForOne, 9), abc(Restart::Permanent), scripts);
    assert_eq!((rig.told().as_str(), rig.escalated), ("+a +b !c -b -a end", 0));
}

#[test]
fn a_temporary_bystander_is_ended_and_not_brought_back() {
    let children =
        vec![child("a", Restart::Permanent), child("t", Restart::Temporary), child("c", Restart::Permanent)];
    let mut rig = Rig::new(otp(Strategy::OneForAll, 3), children);
    rig.told();
    rig.exit("a", panic());
    assert_eq!((rig.told().as_str(), rig.specs().as_str()), ("-c -t +a +c", "a c"));
}

#[test]
fn the_end_of_significant_children_ends_the_supervisor_as_asked() {
    for (auto_shutdown, after_one, after_two) in [
        (AutoShutdown::Never, false, false),
        (AutoShutdown::AnySignificant, true, true),
        (AutoShutdown::AllSignificant, false, true),
    ] {
        let mut children = abc(Restart::Transient);
        children[0].significant = true;
        children[1].significant = true;
        let mut rig = Rig::new(Policy { auto_shutdown, ..otp(Strategy::OneForOne, 3) }, children);
        rig.exit("c", Exit::Normal);
        assert!(!rig.machine.has_ended(), "c is not significant");
        rig.exit("a", Exit::Normal);
        assert_eq!(rig.machine.has_ended(), after_one, "{auto_shutdown:?}");
        rig.exit("b", Exit::Normal);
        assert_eq!(rig.machine.has_ended(), after_two, "{auto_shutdown:?}");
        assert_eq!(rig.escalated, 0);
    }
}

#[test]
fn the_administrator_is_told_why_not() {
    let mut rig = Rig::new(otp(Strategy::OneForOne, 3), abc(Restart::Permanent));
    let now = Tick::ZERO;
    assert_eq!(rig.machine.delete_child("a"), Err(VerbError::Running));
    assert_eq!(rig.machine.restart_child("a", now), Err(VerbError::Running));
    assert_eq!(rig.machine.stop_child("z", now), Err(VerbError::NotFound));
    assert_eq!(rig.machine.start_child(child("a", Restart::Permanent), now), Err(VerbError::AlreadyStarted));
    let stop = rig.machine.stop_child("a", now);
    rig.verb(stop).expect("it runs");
    assert_eq!(rig.running(), "b c", "who was stopped by hand stays down");
    assert_eq!(rig.machine.start_child(child("a", Restart::Permanent), now), Err(VerbError::AlreadyPresent));
    let start = rig.machine.restart_child("a", now);
    rig.verb(start).expect("it is down");
    assert_eq!(rig.running(), "a b c");
    let stop = rig.machine.stop_child("b", now);
    rig.verb(stop).expect("it runs");
    rig.machine.delete_child("b").expect("it is down");
    let start = rig.machine.start_child(child("d", Restart::Permanent), now);
    rig.verb(start).expect("it is new");
    assert_eq!(rig.running(), "a c d", "a new child comes last");
}

#[test]
fn a_start_by_hand_that_fails_is_not_tried_again_and_a_new_child_is_not_kept() {
    let scripts = HashMap::from([("a".into(), vec![true, false]), ("d".into(), vec![false])]);
    let mut rig = Rig::with(otp(Strategy::OneForOne, 3), abc(Restart::Permanent), scripts);
    let stop = rig.machine.stop_child("a", Tick::ZERO);
    rig.verb(stop).expect("it runs");
    let start = rig.machine.restart_child("a", Tick::ZERO);
    rig.verb(start).expect("it is down");
    let start = rig.machine.start_child(child("d", Restart::Permanent), Tick::ZERO);
    rig.verb(start).expect("it is new");
    assert_eq!((rig.running().as_str(), rig.specs().as_str()), ("b c", "a b c"));
}

#[test]
fn restarts_back_off_from_the_second_on_and_a_stopped_child_is_not_resurrected() {
    let backoff = Backoff { initial: Duration::from_millis(100), factor: 2.0, max: Duration::from_secs(10) };
    let policy = Policy { backoff, within: Duration::from_secs(30), ..otp(Strategy::OneForOne, 5) };
    let mut rig = Rig::new(policy, abc(Restart::Permanent));
    rig.at(MS(10)).exit("a", panic());
    assert_eq!(rig.running(), "a b c", "the first restart is immediate");
    rig.exit("a", panic());
    assert_eq!(rig.machine.next_timer(), Some(MS(110)));
    assert_eq!(rig.machine.restart_child("a", MS(20)), Err(VerbError::Restarting));
    rig.at(MS(110));
    rig.exit("a", panic());
    assert_eq!(rig.machine.next_timer(), Some(MS(310)));
    let stop = rig.machine.stop_child("a", MS(120));
    rig.verb(stop).expect("it waits");
    assert_eq!((rig.machine.next_timer(), rig.at(MS(9000)).running().as_str()), (None, "b c"));
}

#[test]
fn a_hung_start_delays_no_sibling_and_fails_at_its_timeout() {
    let policy = otp(Strategy::OneForOne, 5);
    let mut rig = Rig::new(policy, abc(Restart::Permanent));
    let exit = |machine: &mut Machine, id: &str, generation, now| {
        machine.on(Event::Exited { id: id.into(), generation, reason: panic() }, now)
    };
    assert_eq!(exit(&mut rig.machine, "a", 1, MS(5)), [Effect::Start("a".into(), 4)]);
    assert_eq!(exit(&mut rig.machine, "b", 2, MS(6)), [Effect::Start("b".into(), 5)], "a still starts");
    let due = MS(5) + policy.start_timeout;
    assert_eq!(rig.machine.next_timer(), Some(due));
    assert_eq!(rig.machine.on(Event::Timer, due), [Effect::Kill("a".into(), 4)]);
    assert_eq!(rig.machine.on(Event::Timer, due), [Effect::Start("a".into(), 6)]);
    let late = Event::Started { id: "a".into(), generation: 4, result: Ok(()) };
    assert_eq!(rig.machine.on(late, due), [], "an older generation says nothing");
}

#[test]
fn a_child_that_does_not_stop_is_killed_and_then_abandoned() {
    let policy = otp(Strategy::OneForOne, 5);
    let mut rig = Rig::new(policy, vec![child("a", Restart::Permanent)]);
    assert_eq!(rig.machine.on(Event::Shutdown, MS(0)), [Effect::Stop("a".into(), 1)]);
    let kill = MS(0) + policy.stop_timeout;
    assert_eq!(rig.machine.on(Event::Timer, kill), [Effect::Kill("a".into(), 1)]);
    let abandon = kill + policy.stop_timeout;
    assert_eq!(
        rig.machine.on(Event::Timer, abandon),
        [Effect::Abandon("a".into(), 1), Effect::Ended { reason: Exit::Shutdown, escalated: false },]
    );
}

/// OTP's rules on plain lists, everything at once: what `supervisor.erl` does between two messages.
struct Reference {
    policy: Policy,
    children: Vec<(ChildPolicy, bool)>,
    scripts: HashMap<Name, Vec<bool>>,
    restarts: Vec<Tick>,
    ended: bool,
}

impl Reference {
    fn starts(&mut self, id: &Name) -> bool {
        match self.scripts.get_mut(id) {
            Some(script) if script.len() > 1 => script.remove(0),
            Some(script) => script[0],
            None => true,
        }
    }

    fn exit(&mut self, id: &str, normal: bool, now: Tick) {
        let Some(at) = self.children.iter().position(|(child, up)| *child.id == *id && *up) else { return };
        self.children[at].1 = false;
        let (child, _) = self.children[at].clone();
        match child.restart {
            Restart::Permanent => self.restart(at, now),
            Restart::Transient if !normal => self.restart(at, now),
            Restart::Transient => self.significant_ended(&child),
            Restart::Temporary => {
                self.children.remove(at);
                self.significant_ended(&child);
            }
        }
    }

    fn significant_ended(&mut self, child: &ChildPolicy) {
        let others = self.children.iter().any(|(child, up)| child.significant && *up);
        self.ended |= child.significant
            && match self.policy.auto_shutdown {
                AutoShutdown::Never => false,
                AutoShutdown::AnySignificant => true,
                AutoShutdown::AllSignificant => !others,
            };
    }

    fn restart(&mut self, mut at: usize, now: Tick) {
        loop {
            self.restarts.push(now);
            let held = self.restarts.iter().filter(|&&then| now.since(then) <= self.policy.within).count();
            if held > self.policy.max_restarts as usize {
                self.ended = true;
                return;
            }
            let from = match self.policy.strategy {
                Strategy::OneForOne => {
                    let id = self.children[at].0.id.clone();
                    if self.starts(&id) {
                        self.children[at].1 = true;
                        return;
                    }
                    continue;
                }
                Strategy::OneForAll => 0,
                Strategy::RestForOne => at,
            };
            let kept = self.children[..from].to_vec();
            let mut rest: Vec<_> =
                self.children[from..].iter().map(|(child, _)| (child.clone(), false)).collect();
            rest.retain(|(child, _)| child.restart != Restart::Temporary);
            let mut failed = None;
            for (i, (child, up)) in rest.iter_mut().enumerate() {
                *up = self.starts(&child.id);
                if !*up {
                    failed = Some(from + i);
                    break;
                }
            }
            self.children = kept.into_iter().chain(rest).collect();
            match failed {
                Some(again) => at = again,
                None => return,
            }
        }
    }

    fn running(&self) -> String {
        let up = self.children.iter().filter(|(_, up)| *up);
        up.map(|(child, _)| child.id.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn specs(&self) -> String {
        self.children.iter().map(|(child, _)| child.id.to_string()).collect::<Vec<_>>().join(" ")
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the seed of a failed run is given back through the environment"
)]
fn a_random_walk_agrees_with_the_plain_model_of_otp() {
    let first: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + 20_000 {
        walk(seed);
    }
}

fn walk(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let strategies = [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne];
    let kinds = [Restart::Permanent, Restart::Transient, Restart::Temporary];
    let endings = [AutoShutdown::Never, AutoShutdown::AnySignificant, AutoShutdown::AllSignificant];
    let policy = Policy {
        auto_shutdown: endings[random.usize(..3)],
        ..otp(strategies[random.usize(..3)], random.u32(0..5))
    };
    let mut children = Vec::new();
    let mut scripts = HashMap::new();
    for i in 0..random.usize(1..6) {
        let restart = kinds[random.usize(..3)];
        let significant = restart != Restart::Permanent && random.bool();
        let id: Name = format!("c{i}").into();
        children.push(ChildPolicy { id: id.clone(), restart, significant });
        let mut script: Vec<_> = (0..random.usize(1..8)).map(|_| random.u8(0..4) > 0).collect();
        script[0] = true;
        scripts.insert(id, script);
    }
    let mut rig = Rig::with(policy, children.clone(), scripts.clone());
    // The first start has taken the first result of each script.
    let taken = |script: &Vec<bool>| if script.len() > 1 { script[1..].to_vec() } else { script.clone() };
    let mut reference = Reference {
        policy,
        children: children.into_iter().map(|child| (child, true)).collect(),
        scripts: scripts.iter().map(|(id, script)| (id.clone(), taken(script))).collect(),
        restarts: Vec::new(),
        ended: false,
    };
    let mut now = Tick::ZERO;
    for _ in 0..30 {
        now = now + Duration::from_millis(random.u64(0..600));
        let id = format!("c{}", random.usize(..5));
        let normal = random.bool();
        rig.at(now).exit(&id, if normal { Exit::Normal } else { panic() });
        reference.exit(&id, normal, now);
        assert_eq!(rig.machine.has_ended(), reference.ended, "SEED={seed}");
        if reference.ended {
            return;
        }
        assert_eq!((rig.running(), rig.specs()), (reference.running(), reference.specs()), "SEED={seed}");
    }
}
