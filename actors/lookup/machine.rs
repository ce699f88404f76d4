//! Who waits for which key, what has left, and who goes for a connection.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::Hash,
};

use super::policy::Policy;
use crate::level::Class;

/// A key with all who are to be answered by it.
#[derive(Debug, PartialEq, Eq)]
pub struct Share<K, W> {
    /// The key.
    pub key: K,
    /// Who asked for it, in order.
    pub callers: Vec<W>,
}

/// Everybody who asks one kind of question.
#[derive(Debug)]
pub struct Machine<K, W> {
    /// What waits, in the order in which it was first asked for.
    waiting: BTreeMap<u64, Waiting<K, W>>,
    places: HashMap<K, u64>,
    next: u64,
    left: HashSet<K>,
    /// How many are on their way to a connection, by the class as which they go.
    going: [u32; Class::ALL.len()],
}

#[derive(Debug)]
struct Waiting<K, W> {
    key: K,
    callers: Vec<(Class, W)>,
}

impl<K, W> Default for Machine<K, W> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
            left: HashSet::new(),
            going: [0; Class::ALL.len()],
        }
    }
}

impl<K: Clone + Eq + Hash, W> Machine<K, W> {
    /// `caller` asks for `key`.
    pub fn ask(&mut self, key: K, class: Class, caller: W) {
        let place = *self.places.entry(key.clone()).or_insert(self.next);
        self.next += u64::from(place == self.next);
        let new = || Waiting { key, callers: Vec::new() };
        self.waiting.entry(place).or_insert_with(new).callers.push((class, caller));
    }

    /// As which class somebody should go for a connection now; whoever is told so counts as going until
    /// [`came`](Self::came). `None` while nothing can leave, or somebody as good is going.
    pub fn go(&mut self) -> Option<Class> {
        let callers = self.ready().flat_map(|(_, waiting)| &waiting.callers);
        let best = callers.map(|(class, _)| *class).min()?;
        if self.going[..=best.index()].iter().any(|going| *going > 0) {
            return None;
        }
        self.going[best.index()] += 1;
        Some(best)
    }

    /// Somebody who went as `class` has a connection, or has given up.
    pub fn came(&mut self, class: Class) {
        let going = &mut self.going[class.index()];
        *going = going.saturating_sub(1);
    }

    /// The first caller of that class whose key can leave: it is their ticket with which one goes.
    #[must_use]
    pub fn first(&self, class: Class) -> Option<&W> {
        let mut callers = self.ready().flat_map(|(_, waiting)| &waiting.callers);
        callers.find(|(of, _)| *of == class).map(|(_, caller)| caller)
    }

    /// What leaves now, the best classes first and in order within them. Callers who are not `here` any more are
    /// forgotten, and a key without any is not asked for.
    pub fn leave(&mut self, policy: Policy, here: impl Fn(&W) -> bool) -> Vec<Share<K, W>> {
        self.forget(here);
        let best = |waiting: &Waiting<K, W>| waiting.callers.iter().map(|(class, _)| *class).min();
        let mut ready: Vec<_> = self.ready().map(|(place, waiting)| (best(waiting), place)).collect();
        ready.sort_unstable();
        ready.truncate(policy.keys());
        ready.into_iter().filter_map(|(_, place)| self.take(place)).collect()
    }

    /// Takes out the callers that `are` meant, wherever they wait: they will be answered otherwise.
    pub fn withdraw(&mut self, are: impl Fn(&W) -> bool) -> Vec<W> {
        let mut out = Vec::new();
        for waiting in self.waiting.values_mut() {
            let (meant, others) =
                std::mem::take(&mut waiting.callers).into_iter().partition(|(_, caller)| are(caller));
            waiting.callers = others;
            out.extend(Vec::into_iter(meant).map(|(_, caller): (Class, W)| caller));
        }
        self.forget(|_| true);
        out
    }

    /// The query about these keys has ended; they can be asked for again.
    pub fn done<'a>(&mut self, keys: impl IntoIterator<Item = &'a K>)
    where
        K: 'a,
    {
        for key in keys {
            self.left.remove(key);
        }
    }

    /// How many callers wait whose query has not left.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.values().map(|waiting| waiting.callers.len()).sum()
    }

    /// What can leave: the keys that no query is about.
    fn ready(&self) -> impl Iterator<Item = (u64, &Waiting<K, W>)> {
        let ready = |(_, waiting): &(&u64, &Waiting<K, W>)| !self.left.contains(&waiting.key);
        self.waiting.iter().filter(ready).map(|(place, waiting)| (*place, waiting))
    }

    fn take(&mut self, place: u64) -> Option<Share<K, W>> {
        let Waiting { key, callers } = self.waiting.remove(&place)?;
        self.places.remove(&key);
        self.left.insert(key.clone());
        Some(Share { key, callers: callers.into_iter().map(|(_, caller)| caller).collect() })
    }

    fn forget(&mut self, here: impl Fn(&W) -> bool) {
        let places = &mut self.places;
        self.waiting.retain(|_, waiting| {
            waiting.callers.retain(|(_, caller)| here(caller));
            if waiting.callers.is_empty() {
                places.remove(&waiting.key);
            }
            !waiting.callers.is_empty()
        });
    }
}
