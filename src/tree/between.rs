//! What is between two places of a tree.

use std::cmp::Ordering;

use super::node::partition;

/// A range of keys; where it has no edge it goes on to that end of the tree.
#[derive(Clone, Copy)]
pub(crate) struct Between<First, End> {
    pub(crate) first: Option<Edge<First>>,
    pub(crate) end: Option<Edge<End>>,
}

/// Where a range begins or ends.
#[derive(Clone, Copy)]
pub(crate) struct Edge<F> {
    /// How what is there compares with a key.
    pub(crate) compare: F,
    /// What equals it is before the edge, not behind.
    pub(crate) is_behind_equal: bool,
}

/// How something compares with keys, which ascend.
pub(crate) trait Compare<K>: Fn(&K) -> Ordering + Copy {}

impl<K, F: Fn(&K) -> Ordering + Copy> Compare<K> for F {}

/// All there is.
pub(super) fn everything<K>() -> Between<impl Compare<K>, impl Compare<K>> {
    type Any<K> = Edge<fn(&K) -> Ordering>;
    Between { first: None::<Any<K>>, end: None::<Any<K>> }
}

/// Where everything begins, or ends.
pub(super) fn outer<K>(begin: bool) -> Edge<impl Compare<K>> {
    let order = if begin { Ordering::Less } else { Ordering::Greater };
    Edge { compare: move |_: &K| order, is_behind_equal: false }
}

impl<F> Edge<F> {
    /// How many of a node's keys are before it.
    pub(super) fn partition<K>(self, keys: &[K]) -> usize
    where
        F: Compare<K>,
    {
        // Not to ask at each step which of them is meant.
        if self.is_behind_equal {
            partition(keys, |key| (self.compare)(key).is_ge())
        } else {
            partition(keys, |key| (self.compare)(key).is_gt())
        }
    }
}
