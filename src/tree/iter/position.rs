//! Where a walk is, how it goes on, and what the processor is asked to fetch meanwhile.

use std::ops::Range;

use smallvec::SmallVec;

use crate::error::Result;
use crate::tree::between::{Compare, Edge};
use crate::tree::node::{Carry, Hot, Inner, LeafRef, NodePtr, Stamp};
use crate::tree::place::Place;
use crate::tree::slot::ValuePtr;

/// The processor is asked to fetch values so many at a time, twice as many ahead of the one that is read: beyond
/// that it waits, and with fewer it looks up one page after the other, which a tree of gigabytes feels.
const FETCHED_AT_ONCE: u8 = 8;

/// So many inner nodes lie on the way to most leaves; of more the way lies elsewhere.
const PATH_LEN: usize = 6;

/// A place between two entries: the way down to a leaf, and how many of its entries are before.
pub(super) struct Position<'a, K, V> {
    path: Path<'a, K, V>,
    pub(super) leaf: LeafRef<'a, K, V>,
    pub(super) at: usize,
    /// The leaf that comes next on the way, if that is known and in memory.
    next: Option<LeafRef<'a, K, V>>,
    fetched: Fetched,
    /// As of which everything is seen.
    version: Stamp,
}

type Path<'a, K, V> = SmallVec<[(&'a Inner<K, V>, usize); PATH_LEN]>;

/// What the processor was asked to fetch.
#[derive(Clone, Copy)]
pub(super) struct Fetched {
    /// Steps until more is asked for.
    due: u8,
    /// What is left by then.
    left: u8,
}

impl Fetched {
    /// Where a walk may end at once: two values, and the more the longer it goes on.
    pub(super) const LITTLE: Fetched = Fetched { due: 2, left: 1 };
    /// Where it has an end that it is likely to come to.
    pub(super) const MUCH: Fetched = Fetched { due: FETCHED_AT_ONCE + 1, left: FETCHED_AT_ONCE };

    /// The steps to ask for at first.
    fn begin(self) -> Range<usize> {
        0..usize::from(self.due - 1 + self.left)
    }

    /// The steps to ask for now that it is due: to the 8th, 16th, and then 24th.
    fn go_on(&mut self) -> Range<usize> {
        let ahead = (4 * self.left.max(2)).min(3 * FETCHED_AT_ONCE);
        let steps = self.left.into()..ahead.into();
        self.due = (4 * self.left).min(FETCHED_AT_ONCE);
        self.left = ahead - self.due;
        steps
    }
}

impl<'a, K: Clone, V> Position<'a, K, V> {
    /// Goes to the place where an edge is. It is put where it is to stay: to copy what was just written in pieces
    /// takes a processor longer than to write it.
    ///
    /// # Safety
    /// The version is held for `'a` and sees the root; or it is `Stamp::MAX`, and whoever has the pen
    /// changes nothing meanwhile. So for all that follows.
    pub(super) unsafe fn seek(
        root: NodePtr<K, V>,
        version: Stamp,
        edge: Edge<impl Compare<K>>,
        carry: &mut Carry<K, V>,
        to: &mut Option<Self>,
    ) -> Result<()> {
        let mut path = Path::new();
        let mut node = root;
        loop {
            // SAFETY: the caller's promise.
            match unsafe { node.hot(carry) }? {
                Hot::Inner(inner) => {
                    let at = edge.partition(&inner.bounds);
                    path.push((inner, at));
                    // SAFETY: the caller's promise.
                    let child = unsafe { inner.child(at, version) };
                    let Some(child) = child else { return Ok(()) };
                    child.prefetch();
                    node = child;
                }
                Hot::Leaf(leaf) => {
                    let at = edge.partition(leaf.keys());
                    let fetched = Fetched::LITTLE;
                    *to = Some(Position { path, leaf, at, next: None, fetched, version });
                    return Ok(());
                }
            }
        }
    }

    /// The place where an edge is, if it is in this leaf, which most ranges end in that begin there; or this place, where
    /// an inverted range ends, which is empty.
    pub(super) fn back_within(&self, edge: Edge<impl Compare<K>>) -> Option<Self> {
        let at = self.at + edge.partition(self.leaf.keys().get(self.at..)?);
        let (next, fetched) = (None, Fetched::LITTLE);
        let is_within = at < self.leaf.len();
        is_within.then(|| Position { path: self.path.clone(), at, next, fetched, ..*self })
    }

    /// Goes to the beginning of the next leaf, or to the end of the one before; `false` where
    /// there is none.
    pub(super) fn turn(&mut self, forward: bool, carry: &mut Carry<K, V>) -> Result<bool> {
        while let Some((inner, at)) = self.path.pop() {
            let next = if forward { Some(at + 1) } else { at.checked_sub(1) };
            let Some((next, child)) =
                next.and_then(|next| self.child(inner, next).map(|child| (next, child)))
            else {
                continue;
            };
            self.path.push((inner, next));
            return self.descend(child, forward, carry);
        }
        Ok(false)
    }

    fn descend(
        &mut self,
        child: NodePtr<K, V>,
        forward: bool,
        carry: &mut Carry<K, V>,
    ) -> Result<bool> {
        let mut node = child;
        loop {
            // SAFETY: whoever made this position promised that what it is in lives for `'a`.
            match unsafe { node.hot(carry) }? {
                Hot::Inner(inner) => {
                    let at = if forward { 0 } else { inner.children.len() - 1 };
                    self.path.push((inner, at));
                    let Some(child) = self.child(inner, at) else { return Ok(false) };
                    node = child;
                }
                Hot::Leaf(leaf) => {
                    debug_assert!(self.next.is_none_or(|next| next == leaf));
                    let is_known = self.next.is_some();
                    self.leaf = leaf;
                    self.at = if forward { 0 } else { leaf.len() };
                    self.look_ahead(forward);
                    if !is_known {
                        self.fetch_first(Fetched::MUCH, forward, leaf.len());
                    }
                    return Ok(true);
                }
            }
        }
    }

    /// Finds the leaf that comes next, and has the processor fetch the one after that.
    fn look_ahead(&mut self, forward: bool) {
        // SAFETY: as above.
        let next = self.behind(1, forward).and_then(|node| unsafe { node.in_memory() });
        self.next = if let Some(Hot::Leaf(leaf)) = next { Some(leaf) } else { None };
        if let Some(node) = self.behind(2, forward) {
            node.prefetch_beginning();
        }
    }

    /// The node so many steps behind the leaf, if their parents are the same or neighbours in memory.
    fn behind(&self, steps: usize, forward: bool) -> Option<NodePtr<K, V>> {
        let [above @ .., (inner, at)] = self.path.as_slice() else { return None };
        let left = if forward { inner.children.len().checked_sub(at + 1)? } else { *at };
        let Some(beyond) = steps.checked_sub(left + 1) else {
            return self.child(inner, if forward { at + steps } else { at - steps });
        };
        let (above, at) = above.last()?;
        let neighbour = self.child(above, if forward { at + 1 } else { at.checked_sub(1)? })?;
        // SAFETY: as above.
        let Some(Hot::Inner(inner)) = (unsafe { neighbour.in_memory() }) else { return None };
        let from_end = inner.children.len().checked_sub(beyond + 1)?;
        self.child(inner, if forward { beyond } else { from_end })
    }

    /// Has the processor fetch what comes next, where a walk begins.
    pub(super) fn fetch_first(&mut self, fetched: Fetched, forward: bool, end: usize) {
        self.fetched = fetched;
        self.fetch(fetched.begin(), forward, end);
    }

    /// Has the processor go on with that, once in a few steps.
    #[inline]
    fn fetch_more(&mut self, forward: bool, end: usize) {
        self.fetched.due -= 1;
        if self.fetched.due == 0 {
            let steps = self.fetched.go_on();
            self.fetch(steps, forward, end);
        }
    }

    /// Has the processor fetch the values that are reached after so many steps; going forward those before the end,
    /// which may be that of the leaf. Of those that have seats in their leaves, the next leaf.
    #[inline(never)]
    fn fetch(&self, steps: Range<usize>, forward: bool, end: usize) {
        let (values, at) = (self.leaf.places(), self.at);
        let left = if forward { end.saturating_sub(at) } else { at };
        let (from, to) = (steps.start.min(left), steps.end.min(left));
        let within = if forward { at + from..at + to } else { at - to..at - from };
        let within = values.get(within).unwrap_or_default();
        for place in within {
            place.now().prefetch();
        }
        if steps.end > left && (!forward || end == self.leaf.len()) {
            let beyond = steps.start.max(left) - left..steps.end - left;
            let beyond = beyond.filter_map(|beyond| self.place_beyond(beyond, forward));
            beyond.for_each(|place| place.now().prefetch());
        }
    }

    /// The place so far beyond the leaf in the next one; where that is not known, the processor is asked for it
    /// instead.
    fn place_beyond(&self, beyond: usize, forward: bool) -> Option<&'a Place<ValuePtr<V>>> {
        match self.next {
            Some(next) if forward => next.places().get(beyond),
            Some(next) => next.places().get(next.len().checked_sub(beyond + 1)?),
            None => {
                if beyond == 0
                    && let Some(node) = self.behind(1, forward)
                {
                    node.prefetch_beginning();
                }
                None
            }
        }
    }

    fn child(&self, inner: &Inner<K, V>, at: usize) -> Option<NodePtr<K, V>> {
        // SAFETY: as above.
        unsafe { inner.child(at, self.version) }
    }

    #[inline]
    fn entry(&self, at: usize) -> Option<Result<(&'a K, &'a V)>> {
        let key = self.leaf.keys().get(at)?;
        // SAFETY: as above.
        let value = unsafe { self.leaf.value(at, self.version) }?;
        Some(value.map(|value| (key, value)).map_err(Into::into))
    }

    /// Goes past so many entries, which are in this leaf; of what comes then nothing was asked for.
    pub(super) fn pass(&mut self, steps: usize, forward: bool) {
        if steps > 0 {
            self.at = if forward { self.at + steps } else { self.at - steps };
            self.fetched = Fetched::LITTLE;
        }
    }

    #[inline]
    pub(super) fn step(&mut self, end: usize) -> Option<Result<(&'a K, &'a V)>> {
        self.fetch_more(true, end);
        self.entry(self.at).inspect(|_| self.at += 1)
    }

    #[inline]
    pub(super) fn step_back(&mut self) -> Option<Result<(&'a K, &'a V)>> {
        let at = self.at.checked_sub(1)?;
        self.fetch_more(false, 0);
        self.entry(at).inspect(|_| self.at = at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::between::outer;
    use crate::tree::{Graveyard, Tree};

    /// How many leaves a walk over all of a tree came to, and of how many it knew before.
    fn leaves(tree: &Tree<u32, u32>, forward: bool) -> (usize, usize) {
        let (version, carry) = (&tree.0, &mut Carry::default());
        let edge = outer(forward);
        let mut position = None;
        // SAFETY: the version is held.
        let sought =
            unsafe { Position::seek(version.root, version.stamp, edge, carry, &mut position) };
        sought.unwrap();
        let mut position = position.unwrap();
        let (mut leaves, mut known) = (1, 0);
        loop {
            known += usize::from(position.next.is_some());
            if !position.turn(forward, carry).unwrap() {
                return (leaves, known);
            }
            leaves += 1;
        }
    }

    #[test]
    fn a_walk_knows_the_leaf_that_comes_next() {
        let entries = (0..10_000).map(|key| (key, key)).collect();
        let tree = Tree::from_sorted(None, entries, Graveyard::none());
        for forward in [true, false] {
            let (leaves, known) = leaves(&tree, forward);
            assert!(leaves > 100, "of several nodes: {leaves}");
            // But for the one where the walk began.
            assert_eq!(known, leaves - 2, "forward: {forward}");
        }
    }
}
