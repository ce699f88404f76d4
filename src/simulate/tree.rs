//! Trees of supervisors: what may be said of them in a trace.

use std::{collections::HashSet, fmt};

use selfheal_actors::{
    clock::Tick,
    signal::{Exit, Name},
    supervisor::{self, ChildPolicy, ChildState, Policy, Refused, Verb},
};
use serde::{Deserialize, Serialize, Serializer};

use super::{
    Output, Part, Setup,
    driver::Line,
    forest::{Forest, Place},
};

/// One supervisor of a tree to try out, as the config has it.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its name.
    pub name: Name,
    /// How it treats its children.
    pub policy: Policy,
    /// Its children, in start order.
    pub children: Vec<TreeChild>,
}

/// A child of a [`Tree`].
#[derive(Clone, Debug)]
pub struct TreeChild {
    /// Its name, when it is restarted and how much it matters.
    pub policy: ChildPolicy,
    /// The tree that it is the supervisor of; `None` for a worker.
    pub supervisor: Option<Name>,
    /// Whether its successive starts succeed; the last one repeats, and without any all succeed.
    pub starts: Vec<bool>,
}

impl TreeChild {
    /// A worker whose starts all succeed.
    #[must_use]
    pub const fn worker(policy: ChildPolicy) -> Self {
        Self { policy, supervisor: None, starts: Vec::new() }
    }

    /// The supervisor of the tree called `tree`.
    #[must_use]
    pub fn supervisor(policy: ChildPolicy, tree: impl Into<Name>) -> Self {
        Self { policy: policy.supervisor(), supervisor: Some(tree.into()), starts: Vec::new() }
    }
}

/// Why trees do not fit together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Two trees have this name.
    Duplicate(Name),
    /// A child of `tree` is the supervisor of a tree that does not exist.
    Unknown {
        /// The tree.
        tree: Name,
        /// The one that does not exist.
        supervisor: Name,
    },
    /// Two children are the supervisor of this tree.
    TwoParents(Name),
    /// This tree is, in the end, its own child.
    Circle(Name),
    /// A child cannot live under its tree's policy.
    Child {
        /// The tree.
        tree: Name,
        /// Why not.
        invalid: supervisor::Invalid,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duplicate(tree) => write!(f, "two trees are named {tree}"),
            Self::Unknown { tree, supervisor } => {
                write!(f, "tree {tree}: there is no tree named {supervisor} for its child to supervise")
            }
            Self::TwoParents(tree) => write!(f, "tree {tree} has two parents"),
            Self::Circle(tree) => write!(f, "tree {tree} is below itself"),
            Self::Child { tree, invalid } => write!(f, "tree {tree}: {invalid}"),
        }
    }
}

impl std::error::Error for Invalid {}

/// The trees of the setup and the runtime's own, alive.
pub(super) struct Trees {
    forest: Forest,
}

impl Trees {
    pub(super) fn new(setup: &Setup) -> Result<Self, Invalid> {
        check(&setup.trees)?;
        Ok(Self { forest: Forest::new(&setup.trees, &own(setup)) })
    }

    fn exit(&mut self, line: &ExitLine, now: Tick, out: &mut Output) -> Result<(), String> {
        let place = self.forest.find("exit", &line.exit)?;
        self.forest.exit(&place, line.reason.exit(), now, out);
        Ok(())
    }

    fn child(&mut self, line: ChildLine, now: Tick, out: &mut Output) -> Result<(), String> {
        let (node, child) = match self.forest.find("child", &line.child) {
            Ok(Place::Child(node, child)) => (node, child),
            Ok(Place::Root(_)) => {
                return Err(format!("`child` is {}, which nobody supervises: name a child", line.child));
            }
            // Whom nobody has ever heard of is not found, as an administrator would be told.
            Err(_) => {
                let error = Some(Refused::NotFound.name());
                out.write(Answer { child: line.child, op: line.op, ok: false, error });
                return Ok(());
            }
        };
        let id = || child.policy.id.clone();
        let verb = match line.op {
            Op::Start => Verb::Start(child.policy.clone()),
            Op::Stop => Verb::Stop(id()),
            Op::Restart => Verb::Restart(id()),
            Op::Delete => Verb::Delete(id()),
        };
        let error = self.forest.ask(node, verb, now, out).err().as_ref().map(Refused::name);
        out.write(Answer { child: line.child, op: line.op, ok: error.is_none(), error });
        Ok(())
    }

    fn expect(&self, line: Expect, out: &mut Output) -> Result<(), String> {
        let seen = self.forest.look(&line.expect_tree)?;
        let running = seen.children.iter().filter(|view| view.state == ChildState::Up);
        out.write(State {
            supervisor: line.expect_tree,
            state: if seen.alive { "running" } else { "terminated" },
            reason: seen.reason.as_ref().map(Exit::name),
            running: running.map(|view| &*view.id).collect(),
            specs: seen.children.iter().map(|view| &*view.id).collect(),
            starts: &seen.starts,
        });
        Ok(())
    }
}

impl Part for Trees {
    fn keys(&self) -> &'static [&'static str] {
        &["exit", "child", "expect_tree"]
    }

    fn begin(&mut self, out: &mut Output) {
        self.forest.begin(out);
    }

    fn next_timer(&self) -> Option<Tick> {
        self.forest.next_timer()
    }

    fn timer(&mut self, now: Tick, out: &mut Output) {
        self.forest.timer(now, out);
    }

    fn line(&mut self, key: &str, line: Line, now: Tick, out: &mut Output) -> Result<(), String> {
        match key {
            "exit" => self.exit(&line.parse()?, now, out),
            "child" => self.child(line.parse()?, now, out),
            _ => self.expect(line.parse()?, out),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExitLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    exit: String,
    reason: Reason,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Panic,
    Error,
    Kill,
    Normal,
    Shutdown,
}

impl Reason {
    fn exit(self) -> Exit {
        match self {
            Self::Panic => Exit::Panic("simulated".into()),
            Self::Error => Exit::Error("simulated".into()),
            Self::Kill => Exit::Killed,
            Self::Normal => Exit::Normal,
            Self::Shutdown => Exit::Shutdown,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChildLine {
    #[serde(rename = "at_ms")]
    _at: u64,
    child: String,
    op: Op,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Start,
    Stop,
    Restart,
    Delete,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    #[serde(rename = "at_ms")]
    _at: u64,
    expect_tree: String,
}

#[derive(Serialize)]
struct Answer {
    child: String,
    op: Op,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Serialize)]
struct State<'a> {
    supervisor: String,
    state: &'static str,
    reason: Option<&'static str>,
    running: Vec<&'a str>,
    specs: Vec<&'a str>,
    #[serde(serialize_with = "in_order")]
    starts: &'a [(Name, u64)],
}

fn in_order<S: Serializer>(starts: &[(Name, u64)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(starts.iter().map(|(id, n)| (&**id, n)))
}

/// Whether the trees fit together: each is named once, is below at most one other, and not below itself.
fn check(trees: &[Tree]) -> Result<(), Invalid> {
    let (mut names, mut below) = (HashSet::new(), HashSet::new());
    for tree in trees {
        if !names.insert(&tree.name) {
            return Err(Invalid::Duplicate(tree.name.clone()));
        }
        let children = tree.children.iter().map(|child| &child.policy);
        tree.policy.check(children).map_err(|invalid| Invalid::Child { tree: tree.name.clone(), invalid })?;
    }
    for (tree, supervisor) in trees.iter().flat_map(|tree| supervised(tree).map(move |name| (tree, name))) {
        if !names.contains(supervisor) {
            let (tree, supervisor) = (tree.name.clone(), supervisor.clone());
            return Err(Invalid::Unknown { tree, supervisor });
        }
        if !below.insert(supervisor) {
            return Err(Invalid::TwoParents(supervisor.clone()));
        }
    }
    circle(trees, &below)
}

fn supervised(tree: &Tree) -> impl Iterator<Item = &Name> {
    tree.children.iter().filter_map(|child| child.supervisor.as_ref())
}

/// Each tree has one parent at most, so whatever cannot be reached from those without one runs in a circle.
fn circle(trees: &[Tree], below: &HashSet<&Name>) -> Result<(), Invalid> {
    let mut reached: Vec<&Tree> = trees.iter().filter(|tree| !below.contains(&tree.name)).collect();
    let mut seen: HashSet<&Name> = reached.iter().map(|tree| &tree.name).collect();
    while let Some(tree) = reached.pop() {
        for name in supervised(tree) {
            seen.insert(name);
            reached.extend(trees.iter().find(|tree| tree.name == *name));
        }
    }
    match trees.iter().find(|tree| !seen.contains(&tree.name)) {
        Some(tree) => Err(Invalid::Circle(tree.name.clone())),
        None => Ok(()),
    }
}

/// The runtime's own tree: `root { alert, pools { pool-monitor:NAME … }, breakers { breaker:ENDPOINT … } }`, the last
/// where endpoints are configured. A circuit goes on without its actor, so an `exit` of one changes no call's answer.
fn own(setup: &Setup) -> Vec<Tree> {
    let policy = setup.supervision;
    let worker = |name: String| TreeChild::worker(ChildPolicy::permanent(name));
    let below = |name: &str| TreeChild::supervisor(ChildPolicy::permanent(name), name);
    let tree = |name: &str, children| Tree { name: name.into(), policy, children };
    let pools = setup.pools.iter().map(|pool| worker(format!("pool-monitor:{}", pool.name)));
    let mut root = vec![worker("alert".into()), below("pools")];
    let mut trees = vec![tree("pools", pools.collect())];
    // One actor a path, with a budget of its own: one that keeps failing does not take down the others.
    let mut paths = HashSet::new();
    let named = setup.circuits.endpoints.iter().filter(|endpoint| paths.insert(&endpoint.path));
    let breakers: Vec<_> = named
        .map(|endpoint| ChildPolicy::permanent(format!("breaker:{}", endpoint.path)))
        .map(|child| TreeChild::worker(child.budget(policy.max_restarts, policy.within)))
        .collect();
    if !breakers.is_empty() {
        root.push(below("breakers"));
        trees.push(tree("breakers", breakers));
    }
    trees.insert(0, tree("root", root));
    trees
}
