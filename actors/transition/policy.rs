//! The table: states, and what each may become.

use std::{collections::BTreeMap, fmt, sync::Arc};

use super::typed::States;
use crate::signal::Name;

/// What a state that the table does not know is counted as.
pub const OTHER: &str = "other";

/// The most states a table may have. Each pair of them can become a series of a metric.
pub const MOST_STATES: usize = 100;

/// The allowed changes of one kind of thing. One that is held is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    machine: Name,
    /// Every state that is listed or led to, with what it may become, in the order in which that was written.
    next: BTreeMap<Name, Arc<[Name]>>,
}

impl Table {
    /// The table of `machine` (what kind of thing it is: "message"), from states and what each may become. A state
    /// that is only led to is final.
    ///
    /// # Errors
    /// [`Invalid`], at the first thing that is wrong.
    pub fn new<S, T, N>(
        machine: impl Into<Name>,
        rows: impl IntoIterator<Item = (S, T)>,
    ) -> Result<Self, Invalid>
    where
        S: Into<Name>,
        T: IntoIterator<Item = N>,
        N: Into<Name>,
    {
        let mut next: BTreeMap<Name, Arc<[Name]>> = BTreeMap::new();
        for (state, targets) in rows {
            let (state, targets) =
                (state.into(), targets.into_iter().map(Into::into).collect::<Arc<[Name]>>());
            if let Some(twice) = repeated(&targets) {
                return Err(Invalid::TargetTwice { state, target: Arc::clone(twice) });
            }
            if next.insert(Arc::clone(&state), targets).is_some() {
                return Err(Invalid::StateTwice { state });
            }
        }
        let led_to: Vec<Name> = next.values().flat_map(|targets| targets.iter().cloned()).collect();
        for state in led_to {
            next.entry(state).or_default();
        }
        match next.len() {
            0 => Err(Invalid::Empty),
            many if many > MOST_STATES => Err(Invalid::TooMany { states: many }),
            _ => Ok(Self { machine: machine.into(), next }),
        }
    }

    /// The table that the type `S` is.
    ///
    /// # Errors
    /// [`Invalid`], where two states have one name.
    pub fn of<S: States>() -> Result<Self, Invalid> {
        let names = |states: &'static [S]| states.iter().map(|state| state.name());
        Self::new(S::MACHINE, S::ALL.iter().map(|state| (state.name(), names(state.next()))))
    }

    /// What kind of thing it is about.
    #[must_use]
    pub const fn machine(&self) -> &Name {
        &self.machine
    }

    /// Every state, in alphabetical order.
    pub fn states(&self) -> impl Iterator<Item = &Name> {
        self.next.keys()
    }

    /// What `state` may become, in the order in which that was written; nothing for one that is final or not
    /// known.
    #[must_use]
    pub fn allowed_from(&self, state: &str) -> &[Name] {
        self.next.get(state).map_or(&[], |next| next)
    }

    /// Which states may become `state`, in alphabetical order.
    pub fn leading_to<'a>(&'a self, state: &'a str) -> impl Iterator<Item = &'a Name> {
        self.next.iter().filter(move |(_, next)| next.iter().any(|to| **to == *state)).map(|(from, _)| from)
    }

    /// Every allowed change, by where it begins.
    pub fn edges(&self) -> impl Iterator<Item = (&Name, &Name)> {
        self.next.iter().flat_map(|(from, next)| next.iter().map(move |to| (from, to)))
    }

    /// Whether `from` may become `to`.
    ///
    /// # Errors
    /// [`Blocked`], which says what it may become instead.
    pub fn check(&self, from: &str, to: &str) -> Result<(), Blocked> {
        if self.allowed_from(from).iter().any(|allowed| **allowed == *to) {
            return Ok(());
        }
        Err(self.blocked(from, to))
    }

    /// The refusal of a change that was not made.
    #[must_use]
    pub fn blocked(&self, from: &str, to: &str) -> Blocked {
        let allowed = self.next.get(from).cloned().unwrap_or_default();
        Blocked { machine: Arc::clone(&self.machine), from: from.into(), to: to.into(), allowed }
    }

    /// The state as it is counted and told: [`OTHER`] for one that the table does not know.
    #[must_use]
    pub fn known(&self, state: &str) -> Name {
        self.next.get_key_value(state).map_or_else(|| OTHER.into(), |(state, _)| Arc::clone(state))
    }

    /// The same for equal tables, whatever the order in which they were written; different for others, as far as
    /// 64 bits can tell (FNV-1a).
    #[must_use]
    pub fn version(&self) -> u64 {
        let mut hash = Fnv::default();
        for (state, next) in &self.next {
            hash.word(state);
            let mut next: Vec<_> = next.iter().collect();
            next.sort();
            next.into_iter().for_each(|to| hash.word(to));
            hash.end();
        }
        hash.0
    }
}

fn repeated(targets: &[Name]) -> Option<&Name> {
    targets.iter().enumerate().find(|(i, target)| targets[..*i].contains(target)).map(|(_, target)| target)
}

/// Fowler, Noll and Vo's hash, which is the same on every machine and in every version of Rust.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    /// No text has the bytes that end a word and a list.
    fn word(&mut self, text: &str) {
        text.bytes().for_each(|byte| self.byte(byte));
        self.byte(0xff);
    }

    fn end(&mut self) {
        self.byte(0xfe);
    }

    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
}

/// A change that the table does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// What kind of thing was to change.
    pub machine: Name,
    /// The state in which it was found.
    pub from: Name,
    /// The state to which it was to change.
    pub to: Name,
    /// What it may become instead.
    pub allowed: Arc<[Name]>,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, allowed, .. } = self;
        write!(f, "{from} → {to} is not allowed: ")?;
        if allowed.is_empty() {
            return write!(f, "{from} is final");
        }
        write!(f, "{from} may become {}", allowed.join(" or "))
    }
}

impl std::error::Error for Blocked {}

/// Why there is no such table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// It has no states.
    Empty,
    /// It has more than [`MOST_STATES`].
    TooMany {
        /// How many.
        states: usize,
    },
    /// A state is listed twice.
    StateTwice {
        /// Which.
        state: Name,
    },
    /// A state may become the same one twice.
    TargetTwice {
        /// Which.
        state: Name,
        /// What it may become.
        target: Name,
    },
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the table has no states"),
            Self::TooMany { states } => write!(f, "the table has {states} states, and {MOST_STATES} at most"),
            Self::StateTwice { state } => write!(f, "{state} is listed twice"),
            Self::TargetTwice { state, target } => write!(f, "{state} may become {target} twice"),
        }
    }
}

impl std::error::Error for Invalid {}
