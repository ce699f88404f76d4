//! Things under keys that are never mistaken for one another.
//!
//! A key is an index with a generation: finding a thing costs no hash, and a key whose thing is gone finds
//! nothing, even after its place was taken again. So a late or doubled message about something that has ended
//! (a timer, a second release) changes nothing, without anybody having to cancel it.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    marker::PhantomData,
};

/// Finds one `T` in the [`Slab`] that gave the key out, for as long as it is there.
pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// Where the thing lies: below the most that were ever there at once, and taken again after its removal.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    const fn as_pair(self) -> (u32, u32) {
        (self.index, self.generation)
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Key<T> {}

impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_pair() == other.as_pair()
    }
}

impl<T> Eq for Key<T> {}

impl<T> PartialOrd for Key<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Key<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_pair().cmp(&other.as_pair())
    }
}

impl<T> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_pair().hash(state);
    }
}

impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}v{}", self.index, self.generation)
    }
}

/// A table of things under [`Key`]s. Its memory is that of the most things it ever held at once.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Puts `thing` in and returns its key.
    pub fn insert(&mut self, thing: T) -> Key<T> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        });
        let (generation, place) = &mut self.places[index as usize];
        *place = Some(thing);
        Key { index, generation: *generation, of: PhantomData }
    }

    /// Takes out the thing under `key`, if it is still there. Its place is taken again by a later thing, under
    /// another key.
    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let (generation, place) = self.places.get_mut(key.index())?;
        if *generation != key.generation {
            return None;
        }
        let thing = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.index);
        Some(thing)
    }

    /// The thing under `key`, if it is still there.
    #[must_use]
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let (generation, place) = self.places.get(key.index())?;
        place.as_ref().filter(|_| *generation == key.generation)
    }

    /// The thing under `key`, to be changed, if it is still there.
    #[must_use]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let (generation, place) = self.places.get_mut(key.index())?;
        place.as_mut().filter(|_| *generation == key.generation)
    }

    /// Every thing with its key, in the order of their places: the same run gives the same order.
    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.places.iter().enumerate().filter_map(|(index, (generation, place))| {
            let index = u32::try_from(index).ok()?;
            Some((Key { index, generation: *generation, of: PhantomData }, place.as_ref()?))
        })
    }

    /// How many things are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_something_gone_finds_nothing_even_when_its_place_is_taken() {
        let mut slab = Slab::default();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_eq!(old.index(), new.index());
        assert!(slab.get(old).is_none() && slab.remove(old).is_none());
        assert_eq!((slab.get(new), slab.len()), (Some(&"new"), 1));
    }
}
