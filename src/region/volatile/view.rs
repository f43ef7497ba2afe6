//! Snapshots of volatile maps.

use std::borrow::Borrow;
use std::fmt;
use std::ops::RangeBounds;
use std::panic::{RefUnwindSafe, UnwindSafe};

use super::sure;
use crate::region::generation::Generation;
use crate::region::range::between;
use crate::tree::{self, Tree};

/// A snapshot of a volatile map, which never changes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let cache = store.volatile_map::<u32, String>("cache")?;
/// cache.insert(1, "one".into());
/// let view = cache.view();
/// cache.clear();
/// assert_eq!(view.get(&1).map(String::as_str), Some("one"));
/// assert_eq!(view.range(0..5).count(), 1);
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct VolatileView<K, V> {
    tree: Tree<K, V>,
    generation: Generation,
}

impl<K, V> Clone for VolatileView<K, V> {
    fn clone(&self) -> Self {
        VolatileView { tree: self.tree.clone(), generation: self.generation }
    }
}

impl<K, V> fmt::Debug for VolatileView<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolatileView").field("len", &self.tree.len()).finish_non_exhaustive()
    }
}

impl<K, V> UnwindSafe for VolatileView<K, V> {}
impl<K, V> RefUnwindSafe for VolatileView<K, V> {}

impl<K: Ord + Clone, V> VolatileView<K, V> {
    pub(in crate::region) fn of(tree: Tree<K, V>, generation: Generation) -> Self {
        VolatileView { tree, generation }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        sure(self.tree.read().get(|other| key.cmp(other.borrow())))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// The lowest entry.
    pub fn first(&self) -> Option<(&K, &V)> {
        sure(self.tree.read().outermost(true))
    }

    /// The highest entry.
    pub fn last(&self) -> Option<(&K, &V)> {
        sure(self.tree.read().outermost(false))
    }

    /// All entries in key order, from both ends.
    pub fn iter(&self) -> VolatileIter<'_, K, V> {
        VolatileIter { entries: self.tree.read().iter() }
    }

    /// The entries in a range of keys, from both ends; an inverted range is empty.
    pub fn range(&self, keys: impl RangeBounds<K>) -> VolatileIter<'_, K, V> {
        let between = between((keys.start_bound(), keys.end_bound()), K::cmp);
        VolatileIter { entries: self.tree.read().range(between) }
    }

    /// The generation that these entries belong to.
    pub fn generation(&self) -> Generation {
        self.generation
    }
}

impl<'a, K: Ord + Clone, V> IntoIterator for &'a VolatileView<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = VolatileIter<'a, K, V>;

    fn into_iter(self) -> VolatileIter<'a, K, V> {
        self.iter()
    }
}

/// The entries of a volatile view in key order, from both ends.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let cache = store.volatile_map::<u8, u8>("cache")?;
/// cache.insert(1, 2);
/// assert_eq!(cache.view().iter().next_back(), Some((&1, &2)));
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct VolatileIter<'a, K, V> {
    entries: tree::Iter<'a, K, V>,
}

impl<'a, K: Clone, V> Iterator for VolatileIter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(sure)
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.entries.nth(n).map(sure)
    }

    fn count(self) -> usize {
        self.entries.count()
    }

    fn last(mut self) -> Option<Self::Item> {
        self.next_back()
    }
}

impl<K: Clone, V> DoubleEndedIterator for VolatileIter<'_, K, V> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entries.next_back().map(sure)
    }

    fn nth_back(&mut self, n: usize) -> Option<Self::Item> {
        self.entries.nth_back(n).map(sure)
    }
}

impl<K, V> fmt::Debug for VolatileIter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolatileIter").finish_non_exhaustive()
    }
}
