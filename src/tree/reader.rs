//! Reading a tree, as a version sees it or as a draft changes it.

use std::cmp::Ordering;
use std::marker::PhantomData;

use super::between::{Between, Compare, everything};
use super::iter::Iter;
use super::node::{Hot, LeafRef, NodePtr, Stamp};
use crate::error::Result;

/// What a version sees, for as long as it is held; or a draft, for as long as it is not changed.
pub(crate) struct Reader<'a, K, V> {
    root: NodePtr<K, V>,
    version: Stamp,
    of: PhantomData<&'a (K, V)>,
}

impl<K, V> Clone for Reader<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Reader<'_, K, V> {}

impl<'a, K: Clone, V> Reader<'a, K, V> {
    /// # Safety
    /// The version is held for `'a` and sees the node; or it is `Stamp::MAX`, and the node is the root of a draft that is
    /// not changed for `'a`.
    pub(super) unsafe fn new(root: NodePtr<K, V>, version: Stamp) -> Self {
        Reader { root, version, of: PhantomData }
    }

    /// The value of the key for which `probe` is `Equal`; `probe` says how what is sought compares
    /// with a key of the tree.
    pub(crate) fn get(self, probe: impl Fn(&K) -> Ordering) -> Result<Option<&'a V>> {
        let found = self.find(probe)?;
        // SAFETY: as in `find`.
        let value = found.and_then(|(leaf, at)| unsafe { leaf.value(at, self.version) });
        Ok(value.transpose()?)
    }

    /// Whether there is an entry, be it one whose value does not decode.
    pub(crate) fn contains(self, probe: impl Fn(&K) -> Ordering) -> Result<bool> {
        Ok(self.find(probe)?.is_some())
    }

    /// The entries between two places, from both ends.
    pub(crate) fn range(
        self,
        between: Between<impl Compare<K>, impl Compare<K>>,
    ) -> Iter<'a, K, V> {
        // SAFETY: as in `find`; the iterator borrows what this does.
        unsafe { Iter::new(self.root, self.version, between) }
    }

    pub(crate) fn iter(self) -> Iter<'a, K, V> {
        self.range(everything())
    }

    /// The leaf in which `probe` finds a key, and where it is there.
    fn find(self, probe: impl Fn(&K) -> Ordering) -> Result<Option<(LeafRef<'a, K, V>, usize)>> {
        let mut node = self.root;
        loop {
            // SAFETY: the promise to `new`; what a version sees lives as long as it is held, and the newest nodes of a
            // line live, which take their draft exclusively to be changed.
            unsafe {
                match node.hot_alone()? {
                    Hot::Inner(inner) => match inner.child(inner.child_for(&probe), self.version) {
                        Some(child) => {
                            node = child;
                            node.prefetch();
                        }
                        None => return Ok(None),
                    },
                    Hot::Leaf(leaf) => {
                        return Ok(leaf.find(&probe).ok().map(|at| (leaf, at)));
                    }
                }
            }
        }
    }

    /// The first entry, or the last one: with one way down, which loads no other range than that.
    pub(crate) fn outermost(self, first: bool) -> Result<Option<(&'a K, &'a V)>> {
        let outer = |len: usize| if first { 0 } else { len.saturating_sub(1) };
        let mut node = self.root;
        // SAFETY: as in `find`.
        unsafe {
            loop {
                match node.hot_alone()? {
                    Hot::Inner(inner) => {
                        match inner.child(outer(inner.children.len()), self.version) {
                            Some(child) => node = child,
                            None => return Ok(None),
                        }
                    }
                    Hot::Leaf(leaf) => {
                        let at = outer(leaf.len());
                        let value = leaf.value(at, self.version);
                        if let (Some(key), Some(value)) = (leaf.keys().get(at), value) {
                            return Ok(Some((key, value?)));
                        }
                        // A range that holds nothing: whoever walks looks into the next one.
                        let mut entries = self.iter();
                        return if first { entries.next() } else { entries.next_back() }
                            .transpose();
                    }
                }
            }
        }
    }
}
