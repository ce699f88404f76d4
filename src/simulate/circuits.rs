//! Circuits: calls that begin and end as the trace says, and what an operator asks for.
//!
//! A path has the circuit of the most specific pattern that matches it, as a route has; a path that nothing in the
//! config matches has one of its own, with the policy of `[breaker]`.

mod lines;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use lines::{
    AdmitLine, Answer, CallLine, CancelLine, Changed, ExpectLine, Expected, How, Operated, OperatorLine,
    Refusal, SettleLine, in_ms,
};
use matchit::Router;
use selfheal_actors::{
    breaker::{Command, Machine, Pass, Policy, View},
    clock::Tick,
    level::Class,
    signal::{Action, Name, Signal, Step},
    user_limit::{self, UserKey},
};

use super::{Output, Part, driver::Line};

/// When a user who has too much at once may come again.
const USER_LIMIT_RETRY: Duration = Duration::from_secs(1);

/// The circuits to simulate.
#[derive(Clone, Debug, Default)]
pub struct Circuits {
    /// The policy of circuits that have none of their own.
    pub policy: Policy,
    /// The endpoints that are configured.
    pub endpoints: Vec<Guarded>,
    /// The pool of endpoints that are not.
    pub pool: Option<Name>,
}

/// An endpoint and its circuit.
#[derive(Clone, Debug)]
pub struct Guarded {
    /// The pattern of its path.
    pub path: Name,
    /// Its class: sheddable ones are shed by a level, critical ones know no user limit.
    pub class: Class,
    /// The pool whose level sheds it.
    pub pool: Option<Name>,
    /// When its circuit opens.
    pub policy: Policy,
}

/// The circuits of a trace, and the calls that have not ended.
pub(super) struct Played {
    circuits: Circuits,
    seed: u64,
    patterns: Router<usize>,
    played: Vec<Circuit>,
    by_name: HashMap<Name, usize>,
    /// Calls that end by themselves, in order.
    ending: BTreeMap<(Tick, u64), (Call, How, Duration)>,
    begun: u64,
    /// Calls that end when the trace says so; `None` for one that was refused.
    open: HashMap<String, Option<Call>>,
    /// Who has how much at once, by pool.
    users: HashMap<Name, user_limit::Machine<()>>,
}

struct Circuit {
    name: Name,
    class: Class,
    pool: Option<Name>,
    machine: Machine,
}

/// A call that was admitted.
struct Call {
    circuit: usize,
    pass: Pass,
    user: Option<(Name, UserKey<()>)>,
}

impl Played {
    pub(super) fn new(circuits: Circuits, seed: u64) -> Self {
        let mut played = Self {
            seed,
            patterns: Router::new(),
            played: Vec::new(),
            by_name: HashMap::new(),
            ending: BTreeMap::new(),
            begun: 0,
            open: HashMap::new(),
            users: HashMap::new(),
            circuits,
        };
        for guarded in played.circuits.endpoints.clone() {
            // One path is one circuit, whatever its methods.
            if played.by_name.contains_key(&guarded.path) {
                continue;
            }
            let index = played.add(guarded);
            let path = &played.played[index].name;
            // A pattern that cannot be matched is found by its name.
            let _ = played.patterns.insert(path.to_string(), index);
        }
        played
    }

    fn add(&mut self, Guarded { path, class, pool, policy }: Guarded) -> usize {
        let index = self.played.len();
        let machine = Machine::new(Arc::new(policy), self.seed.wrapping_add(index as u64));
        self.by_name.insert(Name::clone(&path), index);
        self.played.push(Circuit { name: path, class, pool, machine });
        index
    }

    /// The circuit of `path`, by its name or by the pattern that matches it.
    fn find(&mut self, path: &str) -> usize {
        let matched = || self.patterns.at(path).ok().map(|found| *found.value);
        if let Some(index) = self.by_name.get(path).copied().or_else(matched) {
            return index;
        }
        let (pool, policy) = (self.circuits.pool.clone(), self.circuits.policy.clone());
        self.add(Guarded { path: path.into(), class: Class::Normal, pool, policy })
    }

    /// A call wants to begin.
    fn begin(
        &mut self,
        path: &str,
        user: Option<String>,
        now: Tick,
        out: &mut Output,
    ) -> Result<Call, Refusal> {
        let index = self.find(path);
        let Circuit { class, pool, machine, .. } = &mut self.played[index];
        let user = user.map(Name::from).filter(|_| *class != Class::Critical).zip(pool.clone());
        if let Some((user, pool)) = &user
            && !self.users.entry(Name::clone(pool)).or_insert_with(users).may_enter(user)
        {
            return Err(Refusal { reason: "user_limit", retry_after_ms: in_ms(Some(USER_LIMIT_RETRY)) });
        }
        let admitted = machine.admit(now);
        self.tell(index, out);
        let pass = admitted.map_err(|rejection| Refusal {
            reason: rejection.reason.name(),
            retry_after_ms: in_ms(rejection.retry_after),
        })?;
        let user = user.and_then(|(user, pool)| {
            let key = self.users.get_mut(&pool)?.enter(&user)?;
            Some((pool, key))
        });
        Ok(Call { circuit: index, pass, user })
    }

    /// It ends.
    fn end(&mut self, call: Call, how: How, latency: Duration, now: Tick, out: &mut Output) {
        if let Some((pool, user)) = call.user
            && let Some(users) = self.users.get_mut(&pool)
        {
            users.leave(user);
        }
        let machine = &mut self.played[call.circuit].machine;
        match how.outcome() {
            Some(outcome) => {
                let slow = machine.policy().slow_call.is_some_and(|most| latency > most);
                machine.settle(call.pass, outcome, slow, now);
            }
            None => machine.cancel(call.pass),
        }
        self.tell(call.circuit, out);
    }

    fn call(&mut self, line: CallLine, now: Tick, out: &mut Output) {
        let begun = self.begin(&line.call, line.user, now, out);
        out.write(Answer { call: Some(&line.call), admit: None, id: None, ..Answer::to(&begun) });
        let Ok(call) = begun else { return };
        let latency = Duration::from_millis(line.latency_ms);
        if latency.is_zero() {
            self.end(call, line.outcome, latency, now, out);
        } else {
            self.begun += 1;
            self.ending.insert((now + latency, self.begun), (call, line.outcome, latency));
        }
    }

    fn admit(&mut self, line: AdmitLine, now: Tick, out: &mut Output) -> Result<(), String> {
        if matches!(self.open.get(&line.id), Some(Some(_))) {
            return Err(format!("call `{}` has not ended: its id is free again when it has", line.id));
        }
        let begun = self.begin(&line.admit, line.user, now, out);
        out.write(Answer { call: None, admit: Some(&line.admit), id: Some(&line.id), ..Answer::to(&begun) });
        self.open.insert(line.id, begun.ok());
        Ok(())
    }

    /// A call ends that the trace has named. One that was refused has nothing to end.
    fn ends(
        &mut self,
        id: &str,
        how: How,
        latency_ms: u64,
        now: Tick,
        out: &mut Output,
    ) -> Result<(), String> {
        let call = self
            .open
            .remove(id)
            .ok_or_else(|| format!("no call `{id}` is under way: admit it first, and end it once"))?;
        if let Some(call) = call {
            self.end(call, how, Duration::from_millis(latency_ms), now, out);
        }
        Ok(())
    }

    fn operate(&mut self, line: &OperatorLine, now: Tick, out: &mut Output) {
        let index = self.find(&line.operator);
        let lasts = line.for_ms.map(Duration::from_millis);
        let command = Command { lasts, ..Command::new(line.state, "trace", line.reason.as_str()) };
        let done = self.played[index].machine.operate(&command, now);
        self.tell(index, out);
        out.write(Operated::of(&line.operator, done));
    }

    fn expect(&mut self, line: &ExpectLine, now: Tick, out: &mut Output) {
        let index = self.find(&line.expect);
        let Circuit { name, machine, .. } = &mut self.played[index];
        let view = View::of(Name::clone(name), machine, now);
        self.tell(index, out);
        out.write(Expected::of(&line.expect, &view));
    }

    /// What a circuit has to tell.
    fn tell(&mut self, index: usize, out: &mut Output) {
        let Circuit { name, machine, .. } = &mut self.played[index];
        while let Some(change) = machine.take_untold() {
            let (from, to, cause, would) = (change.from, change.to, change.cause, change.would);
            out.write(Changed { event: "breaker", endpoint: name, from, to, reason: cause, would });
            out.happened(Signal::Circuit { endpoint: Name::clone(name), from, to, cause, would });
        }
    }
}

fn users() -> user_limit::Machine<()> {
    user_limit::Machine::new(user_limit::Policy::default())
}

impl Answer<'_> {
    fn to(begun: &Result<Call, Refusal>) -> Self {
        let refusal = begun.as_ref().err().copied();
        Self { call: None, admit: None, id: None, admitted: refusal.is_none(), refusal }
    }
}

impl Part for Played {
    fn keys(&self) -> &'static [&'static str] {
        &["call", "admit", "settle", "cancel", "operator", "expect"]
    }

    fn begin(&mut self, _: &mut Output) {}

    fn next_timer(&self) -> Option<Tick> {
        let circuits = self.played.iter().filter_map(|circuit| circuit.machine.next_timer()).min();
        // Time in a trace is whole milliseconds: what is due within one is seen at its end.
        let circuits = circuits.map(|at| Tick::from_millis(at.as_nanos().div_ceil(1_000_000)));
        let calls = self.ending.keys().next().map(|&(at, _)| at);
        circuits.into_iter().chain(calls).min()
    }

    fn timer(&mut self, now: Tick, out: &mut Output) {
        for index in 0..self.played.len() {
            self.played[index].machine.tick(now);
            self.tell(index, out);
        }
        while let Some(first) = self.ending.first_entry().filter(|first| first.key().0 <= now) {
            let (call, how, latency) = first.remove();
            self.end(call, how, latency, now, out);
        }
    }

    fn line(&mut self, key: &str, line: Line, now: Tick, out: &mut Output) -> Result<(), String> {
        match key {
            "call" => self.call(line.parse()?, now, out),
            "admit" => return self.admit(line.parse()?, now, out),
            "settle" => {
                let SettleLine { settle, outcome, latency_ms, .. } = line.parse()?;
                return self.ends(&settle, outcome, latency_ms, now, out);
            }
            "cancel" => {
                let CancelLine { cancel, .. } = line.parse()?;
                return self.ends(&cancel, How::Cancelled, 0, now, out);
            }
            "operator" => self.operate(&line.parse()?, now, out),
            _ => self.expect(&line.parse()?, now, out),
        }
        Ok(())
    }

    fn hear(&mut self, signal: &Signal, now: Tick, out: &mut Output) {
        let Signal::Action { pool, action, step, .. } = signal else { return };
        let taken = *step == Step::Taken;
        if let Action::UserLimit { limit } = action {
            let users = self.users.entry(Name::clone(pool)).or_insert_with(users);
            users.set_limit(taken.then_some(*limit));
        }
        if *action == Action::Shed {
            for index in 0..self.played.len() {
                let Circuit { class, pool: of, machine, .. } = &mut self.played[index];
                if *class == Class::Sheddable && of.as_ref() == Some(pool) {
                    machine.shed(taken, now);
                    self.tell(index, out);
                }
            }
        }
    }
}
