//! Supervisors that live side by side and below one another, with children that do at once what they are told.

use std::collections::VecDeque;

use selfheal_actors::{
    clock::Tick,
    signal::{ChildEvent, Exit, Name, Signal},
    supervisor::{ChildState, ChildView, Effect, End, Event, Machine, Refused, Verb},
};
use serde::Serialize;

use super::{
    Output,
    tree::{Tree, TreeChild},
};

/// Supervisors, found by index.
pub(super) struct Forest {
    nodes: Vec<Node>,
    events: VecDeque<(usize, Event)>,
    replies: Vec<Result<(), Refused>>,
    /// False while the runtime's own tree comes up, of which nobody asked to hear.
    tells: bool,
}

/// One supervisor, alive or not.
struct Node {
    tree: Tree,
    /// One of the runtime's own.
    own: bool,
    /// The node and child that it is started as.
    above: Option<(usize, Name)>,
    /// Which start of that child it is.
    generation: u64,
    machine: Option<Machine>,
    /// How it ended the last time.
    reason: Option<Exit>,
    /// How often each child was started, over the whole simulation.
    starts: Vec<u64>,
}

/// What a name in a trace stands for.
pub(super) enum Place {
    /// A child of a node.
    Child(usize, TreeChild),
    /// A supervisor that nobody supervises.
    Root(usize),
}

/// A supervisor as it is.
pub(super) struct Seen {
    pub(super) alive: bool,
    pub(super) reason: Option<Exit>,
    pub(super) children: Vec<ChildView>,
    pub(super) starts: Vec<(Name, u64)>,
}

impl Forest {
    /// The trees of a config, and the runtime's own, none of them started.
    pub(super) fn new(trees: &[Tree], own: &[Tree]) -> Self {
        let all = trees.iter().map(|tree| (tree, false)).chain(own.iter().map(|tree| (tree, true)));
        let nodes: Vec<_> = all.map(|(tree, own)| Node::new(tree.clone(), own)).collect();
        let mut forest = Self { nodes, events: VecDeque::new(), replies: Vec::new(), tells: true };
        for node in 0..forest.nodes.len() {
            for child in forest.nodes[node].tree.children.clone() {
                if let Some(below) = forest.below(node, &child) {
                    forest.nodes[below].above = Some((node, child.policy.id));
                }
            }
        }
        forest
    }

    /// Starts whoever is below nobody.
    pub(super) fn begin(&mut self, out: &mut Output) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].above.is_none() {
                self.tells = !self.nodes[node].own;
                self.boot(node, 0);
                self.settle(Tick::ZERO, out);
            }
        }
        self.tells = true;
    }

    pub(super) fn next_timer(&self) -> Option<Tick> {
        self.nodes.iter().filter_map(|node| node.machine.as_ref()?.next_timer()).min()
    }

    pub(super) fn timer(&mut self, now: Tick, out: &mut Output) {
        for node in 0..self.nodes.len() {
            let due = self.nodes[node].machine.as_ref().and_then(Machine::next_timer);
            if due.is_some_and(|due| due <= now) {
                self.events.push_back((node, Event::Timer));
                self.settle(now, out);
            }
        }
    }

    /// The child or supervisor called `name`: by its id, by `SUPERVISOR/ID` where several have that id, or by
    /// the name of the tree. The trees of the config come before the runtime's own.
    pub(super) fn find(&self, key: &str, name: &str) -> Result<Place, String> {
        for own in [false, true] {
            let nodes = || self.nodes.iter().enumerate().filter(move |(_, node)| node.own == own);
            let children =
                || nodes().flat_map(|(n, node)| node.tree.children.iter().map(move |c| (n, node, c)));
            let named: Vec<_> = children().filter(|(_, node, child)| node.calls(child, name)).collect();
            if let [(node, _, child)] = named[..] {
                return Ok(Place::Child(node, child.clone()));
            }
            if let [(_, first, _), (_, second, _), ..] = named[..] {
                let (first, second) = (&first.tree.name, &second.tree.name);
                return Err(format!(
                    "`{key}` is {name}, which is in several trees: write {first}/{name} or {second}/{name}"
                ));
            }
            if let Some((node, found)) = nodes().find(|(_, node)| *node.tree.name == *name) {
                return Ok(match &found.above {
                    Some((above, id)) => Place::Child(*above, self.nodes[*above].child(id)?.clone()),
                    None => Place::Root(node),
                });
            }
        }
        let all = self.nodes.iter().flat_map(|node| node.tree.children.iter().map(|child| &*child.policy.id));
        let all = all.collect::<Vec<_>>().join(", ");
        Err(format!("`{key}` is {name}, which no tree has: name one of {all}"))
    }

    /// A child, or a supervisor below nobody, ends by itself. One that does not run cannot.
    pub(super) fn exit(&mut self, place: &Place, exit: Exit, now: Tick, out: &mut Output) {
        match place {
            Place::Root(node) => self.fall(*node, &exit, out),
            Place::Child(node, child) => {
                let Some(generation) = self.running(*node, &child.policy.id) else { return };
                if let Some(below) = self.below(*node, child) {
                    self.fall(below, &exit, out);
                }
                let id = child.policy.id.clone();
                self.events.push_back((*node, Event::Exited { id, generation, exit }));
                self.settle(now, out);
            }
        }
    }

    /// The administrator asks a supervisor for something.
    pub(super) fn ask(
        &mut self,
        node: usize,
        verb: Verb,
        now: Tick,
        out: &mut Output,
    ) -> Result<(), Refused> {
        self.events.push_back((node, Event::Verb { request: 0, verb }));
        self.settle(now, out);
        // Children do at once what they are told, so the answer is there; the dead do not answer.
        self.replies.pop().unwrap_or(Err(Refused::Terminated))
    }

    /// The supervisor called `name`.
    pub(super) fn look(&self, name: &str) -> Result<Seen, String> {
        let node = self.nodes.iter().find(|node| *node.tree.name == *name).ok_or_else(|| {
            let all = self.nodes.iter().map(|node| &*node.tree.name).collect::<Vec<_>>().join(", ");
            format!("`expect_tree` is {name}, which is no tree: name one of {all}")
        })?;
        let starts = node.tree.children.iter().zip(&node.starts).filter(|(_, n)| **n > 0);
        Ok(Seen {
            alive: node.machine.is_some(),
            reason: node.reason.clone().filter(|_| node.machine.is_none()),
            children: node.machine.iter().flat_map(Machine::children).collect(),
            starts: starts.map(|(child, n)| (child.policy.id.clone(), *n)).collect(),
        })
    }

    /// Gives every machine what there is to hear, until all is quiet.
    fn settle(&mut self, now: Tick, out: &mut Output) {
        while let Some((node, event)) = self.events.pop_front() {
            let effects = self.nodes[node].machine.as_mut().map(|machine| machine.on(event, now));
            for effect in effects.into_iter().flatten() {
                self.perform(node, effect, out);
            }
        }
    }

    fn perform(&mut self, node: usize, effect: Effect, out: &mut Output) {
        match effect {
            Effect::Start { id, generation } => self.start(node, id, generation),
            Effect::Stop { id, generation, .. } => match self.below_named(node, &id) {
                Some(below) => self.events.push_back((below, Event::Stop)),
                None => self.events.push_back((node, Event::Exited { id, generation, exit: Exit::Shutdown })),
            },
            Effect::Kill { id, generation } => {
                if let Some(below) = self.below_named(node, &id) {
                    self.fall(below, &Exit::Killed, out);
                }
                self.events.push_back((node, Event::Exited { id, generation, exit: Exit::Killed }));
            }
            Effect::Abandon { .. } => {}
            Effect::Emit(signal) => self.tell(&signal, out),
            Effect::Reply { result, .. } => self.replies.push(result),
            Effect::Up => self.tell_above(node, |id, generation| Event::Started { id, generation }),
            Effect::Terminated(end) => self.terminated(node, end),
        }
    }

    fn start(&mut self, node: usize, id: Name, generation: u64) {
        let Some(result) = self.nodes[node].next_start(&id) else { return };
        let event = match (result, self.below_named(node, &id)) {
            (false, _) => Event::StartFailed { id, generation, error: "simulated".into() },
            (true, None) => Event::Started { id, generation },
            (true, Some(below)) => return self.boot(below, generation),
        };
        self.events.push_back((node, event));
    }

    fn boot(&mut self, node: usize, generation: u64) {
        let Node { tree, above, .. } = &self.nodes[node];
        let children = tree.children.iter().map(|child| child.policy.clone()).collect();
        // The trees were checked when they were taken in.
        let machine = Machine::new(tree.name.clone(), tree.policy, children).ok();
        let machine = if above.is_none() { machine.map(Machine::at_root) } else { machine };
        self.nodes[node].machine = machine;
        self.nodes[node].generation = generation;
        self.events.push_back((node, Event::Boot));
    }

    fn terminated(&mut self, node: usize, end: End) {
        self.nodes[node].machine = None;
        // In OTP, too, each of these ends has the reason `shutdown`, with more or less said beside it.
        self.nodes[node].reason = Some(Exit::Shutdown);
        match end {
            End::StartFailed { child, error } => {
                let error = Name::from(format!("{child} could not be started: {error}"));
                self.tell_above(node, |id, generation| Event::StartFailed { id, generation, error });
            }
            End::Asked | End::Intensity | End::AutoShutdown => {
                self.tell_above(node, |id, generation| Event::Exited {
                    id,
                    generation,
                    exit: Exit::Shutdown,
                });
            }
        }
    }

    /// A supervisor dies in an instant, and its children with it.
    fn fall(&mut self, node: usize, exit: &Exit, out: &mut Output) {
        let Some(machine) = self.nodes[node].machine.take() else { return };
        self.nodes[node].reason = Some(exit.clone());
        let reason = if exit.is_normal() { Exit::Shutdown } else { Exit::Killed };
        let running = |view: &ChildView| view.state == ChildState::Up;
        let children: Vec<_> = machine.children().filter(running).collect();
        for view in children.into_iter().rev() {
            if let Some(below) = self.below_named(node, &view.id) {
                self.fall(below, &reason, out);
            }
            let event = ChildEvent::Stopped { reason: reason.clone() };
            self.tell(&Signal::Child { supervisor: view.supervisor, child: view.id, event }, out);
        }
    }

    fn tell_above(&mut self, node: usize, event: impl FnOnce(Name, u64) -> Event) {
        let Node { above, generation, .. } = &self.nodes[node];
        if let Some((above, id)) = above {
            self.events.push_back((*above, event(id.clone(), *generation)));
        }
    }

    fn tell(&self, signal: &Signal, out: &mut Output) {
        if !self.tells {
            return;
        }
        // Supervisors speak of their children and of themselves, and of nothing else.
        if let Signal::Child { supervisor, child, event } = signal {
            out.write(Told::of(supervisor, child, event));
        } else if let Signal::Escalated { supervisor, .. } = signal {
            out.write(Told::new("escalate", None, supervisor));
        }
    }

    fn running(&self, node: usize, id: &str) -> Option<u64> {
        let mut children = self.nodes[node].machine.as_ref()?.children();
        children.find(|view| *view.id == *id && view.state == ChildState::Up).map(|view| view.generation)
    }

    fn below_named(&self, node: usize, id: &str) -> Option<usize> {
        self.nodes[node].child(id).ok().and_then(|child| self.below(node, child))
    }

    /// The node that a child is the supervisor of.
    fn below(&self, node: usize, child: &TreeChild) -> Option<usize> {
        let (name, own) = (child.supervisor.as_ref()?, self.nodes[node].own);
        self.nodes.iter().position(|node| node.own == own && node.tree.name == *name)
    }
}

impl Node {
    fn new(tree: Tree, own: bool) -> Self {
        let starts = vec![0; tree.children.len()];
        Self { tree, own, above: None, generation: 0, machine: None, reason: None, starts }
    }

    fn child(&self, id: &str) -> Result<&TreeChild, String> {
        let child = self.tree.children.iter().find(|child| *child.policy.id == *id);
        child.ok_or_else(|| format!("{} has no child {id}", self.tree.name))
    }

    fn calls(&self, child: &TreeChild, name: &str) -> bool {
        let (tree, id) = (&*self.tree.name, &*child.policy.id);
        name == id || name.strip_prefix(tree).and_then(|rest| rest.strip_prefix('/')) == Some(id)
    }

    /// Counts a start and says what its script has for it.
    fn next_start(&mut self, id: &str) -> Option<bool> {
        let at = self.tree.children.iter().position(|child| *child.policy.id == *id)?;
        let script = &self.tree.children[at].starts;
        let tries = usize::try_from(self.starts[at]).ok()?;
        self.starts[at] += 1;
        Some(*script.get(tries).or(script.last()).unwrap_or(&true))
    }
}

/// A thing that happened to a child or a supervisor.
#[derive(Serialize)]
struct Told<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<&'a str>,
    supervisor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restarts: Option<u32>,
}

impl<'a> Told<'a> {
    const fn new(event: &'static str, child: Option<&'a str>, supervisor: &'a str) -> Self {
        Self { event, child, supervisor, reason: None, error: None, after_ms: None, restarts: None }
    }

    fn of(supervisor: &'a str, child: &'a str, event: &'a ChildEvent) -> Self {
        let told = |event| Self::new(event, Some(child), supervisor);
        match event {
            ChildEvent::Started => told("start"),
            ChildEvent::Restarted { after, restarts } => {
                let after_ms = u64::try_from(after.as_millis()).ok();
                Self { after_ms, restarts: Some(*restarts), ..told("restart") }
            }
            ChildEvent::StartFailed { error } => Self { error: Some(error), ..told("start_failed") },
            ChildEvent::Stopped { reason } => Self { reason: Some(reason.name()), ..told("stop") },
            ChildEvent::Abandoned => told("abandon"),
            ChildEvent::GivenUp => told("given_up"),
        }
    }
}
