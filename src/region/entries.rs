//! Walks over durable maps.

use std::fmt;

use super::Value;
use super::handle::{ReadRegion, ReadTree};
use super::key::Key;
use crate::error::{Error, Result};
use crate::tree;

/// The entries of a durable map in key order, from both ends. After an error it ends.
///
/// `count`, `nth` and so `skip` look at no value that they go past, and `last` goes to the end at once.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let map: rocstate::DurableMap<u8, u8> = store.durable_map("map")?;
/// store.transact(|tx| map.insert(tx, 1, 2))?;
/// for entry in map.iter(&store.view()).rev() {
///     let (key, value) = entry?;
///     assert_eq!((key, value), (&1, &2));
/// }
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct Iter<'a, K, V> {
    entries: Result<Option<tree::Iter<'a, K, V>>>,
    /// Unknown where there are no entries.
    region: Option<ReadRegion<'a>>,
}

impl<'a, K: Key, V: Value> Iter<'a, K, V> {
    /// Nothing is counted for it, which all readers would have to share.
    #[inline]
    pub(super) fn new(
        tree: Result<Option<ReadTree<'a, K, V>>>,
        walk: impl FnOnce(&ReadTree<'a, K, V>) -> tree::Iter<'a, K, V>,
    ) -> Self {
        match tree {
            Ok(Some(tree)) => Iter { entries: Ok(Some(walk(&tree))), region: Some(tree.region) },
            Ok(None) => Iter { entries: Ok(None), region: None },
            Err(error) => Iter { entries: Err(error), region: None },
        }
    }

    #[inline]
    fn step(
        &mut self,
        next: impl FnOnce(&mut tree::Iter<'a, K, V>) -> Option<Result<(&'a K, &'a V)>>,
    ) -> Option<Result<(&'a K, &'a V)>> {
        let Ok(Some(entries)) = &mut self.entries else { return self.begin_failed() };
        match next(entries)? {
            Ok(entry) => Some(Ok(entry)),
            Err(error) => Some(Err(self.fail(error))),
        }
    }

    /// The error with which it began, once.
    #[cold]
    fn begin_failed(&mut self) -> Option<Result<(&'a K, &'a V)>> {
        std::mem::replace(&mut self.entries, Ok(None)).err().map(Err)
    }

    /// Ends with an entry that cannot be read.
    #[cold]
    fn fail(&mut self, error: Error) -> Error {
        self.entries = Ok(None);
        match self.region {
            Some(region) => error.in_region(region.name()),
            None => error,
        }
    }
}

impl<'a, K: Key, V: Value> Iterator for Iter<'a, K, V> {
    type Item = Result<(&'a K, &'a V)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.step(Iterator::next)
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.step(|entries| entries.nth(n))
    }

    fn count(self) -> usize {
        self.entries.map_or(1, |entries| entries.map_or(0, Iterator::count))
    }

    fn last(mut self) -> Option<Self::Item> {
        self.next_back()
    }
}

impl<K: Key, V: Value> DoubleEndedIterator for Iter<'_, K, V> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(DoubleEndedIterator::next_back)
    }

    fn nth_back(&mut self, n: usize) -> Option<Self::Item> {
        self.step(|entries| entries.nth_back(n))
    }
}

impl<K: Key, V: Value> std::iter::FusedIterator for Iter<'_, K, V> {}

impl<K, V> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("region", &self.region.map_or("", ReadRegion::name))
            .finish_non_exhaustive()
    }
}
