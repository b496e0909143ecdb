//! The one place that knows dashmap.
//!
//! Every method takes and returns owned values, or runs a closure under the shard's lock: no guard
//! outlives a statement, and none can be held across an await.

use std::fmt;
use std::hash::Hash;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use foldhash::quality::RandomState;

/// A map that many threads use at once. Its hash is seeded for each process; whoever learns nothing of the hashes,
/// as a client who only chooses run ids, can't make them collide.
pub(crate) struct Sharded<K, V>(DashMap<K, V, RandomState>);

impl<K: Eq + Hash, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Sharded(DashMap::default())
    }
}

impl<K: Eq + Hash + Clone, V> Sharded<K, V> {
    /// Looks at a value under its shard's lock.
    pub(crate) fn look<R>(&self, key: &K, look: impl FnOnce(&V) -> R) -> Option<R> {
        self.0.get(key).map(|value| look(&value))
    }

    /// Changes a value under its shard's lock.
    pub(crate) fn change<R>(&self, key: &K, change: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.0.get_mut(key).map(|mut value| change(&mut value))
    }

    /// Inserts where nothing is; says whether it did.
    pub(crate) fn insert_new(&self, key: K, value: V) -> bool {
        match self.0.entry(key) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(value);
                true
            }
        }
    }

    /// Changes the value, made first where there is none, under its shard's lock.
    pub(crate) fn change_or_insert<R>(
        &self,
        key: &K,
        make: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        change(&mut self.0.entry(key.clone()).or_insert_with(make))
    }

    pub(crate) fn remove(&self, key: &K) -> Option<V> {
        self.0.remove(key).map(|(_, value)| value)
    }

    /// Removes the value if `condition` holds, judged under its shard's lock.
    pub(crate) fn remove_if(&self, key: &K, condition: impl FnOnce(&V) -> bool) -> Option<V> {
        self.0
            .remove_if(key, |_, value| condition(value))
            .map(|(_, value)| value)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// What `each` makes of every value, in no particular order.
    pub(crate) fn collect<R>(&self, mut each: impl FnMut(&K, &V) -> Option<R>) -> Vec<R> {
        self.0
            .iter()
            .filter_map(|entry| each(entry.key(), entry.value()))
            .collect()
    }
}

impl<K: Eq + Hash, V> fmt::Debug for Sharded<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sharded({} entries)", self.0.len())
    }
}
