//! Walking a tree from both ends.

use std::ops::Range;

use super::Before;
use super::node::{Carry, Hot, Inner, Leaf, NodePtr, Stamp, partition};
use super::place::Place;
use super::slot::ValuePtr;
use crate::error::{Error, Result};

/// So many entries before one is read the processor is asked to fetch its value.
const FETCHED_AHEAD: usize = 16;

/// It is asked for so many at a time: beyond that it waits, and with fewer it looks up one page after the other,
/// which a tree of gigabytes feels.
const FETCHED_AT_ONCE: usize = 8;

/// The entries between two places. After an error it ends.
pub(crate) struct Iter<'a, K, V> {
    root: NodePtr<K, V>,
    /// As of which everything is seen.
    version: Stamp,
    state: State<'a, K, V>,
    /// What the loads of cold ranges on the way leave for each other.
    carry: Carry<K, V>,
}

enum State<'a, K, V> {
    /// An end that is the tree's is sought when somebody comes from there: most come from one, and the way to the
    /// other one may not be in memory.
    Between {
        front: Option<Position<'a, K, V>>,
        back: Option<Position<'a, K, V>>,
        /// How many entries of the front's leaf are before the back.
        before_back: usize,
    },
    Failed(Error),
    Ended,
}

/// A place between two entries: the way down to a leaf, and how many of its entries are before.
struct Position<'a, K, V> {
    path: Vec<(&'a Inner<K, V>, usize)>,
    leaf: &'a Leaf<K, V>,
    at: usize,
    /// The leaf that comes next on the way, if that is known and in memory.
    next: Option<&'a Leaf<K, V>>,
    /// As of which everything is seen.
    version: Stamp,
}

impl<'a, K: Clone, V> Position<'a, K, V> {
    /// The place after all keys for which `before` holds; it holds for a prefix of all keys.
    ///
    /// # Safety
    /// The version is held for `'a` and sees the root; or it is `Stamp::MAX`, and whoever has the pen
    /// changes nothing meanwhile. So for all that follows.
    unsafe fn seek(
        root: NodePtr<K, V>,
        version: Stamp,
        before: &dyn Fn(&K) -> bool,
        carry: &mut Carry<K, V>,
    ) -> Result<Option<Self>> {
        let mut path = Vec::new();
        let mut node = root;
        loop {
            // SAFETY: the caller's promise.
            match unsafe { node.hot(carry) }? {
                Hot::Inner(inner) => {
                    let at = partition(&inner.bounds, before);
                    path.push((inner, at));
                    // SAFETY: the caller's promise.
                    let child = unsafe { inner.child(at, version) };
                    let Some(child) = child else { return Ok(None) };
                    child.prefetch();
                    node = child;
                }
                Hot::Leaf(leaf) => {
                    let at = partition(&leaf.keys, before);
                    return Ok(Some(Position { path, leaf, at, next: None, version }));
                }
            }
        }
    }

    /// Goes to the beginning of the next leaf, or to the end of the one before; `false` where
    /// there is none.
    fn turn(&mut self, forward: bool, carry: &mut Carry<K, V>) -> Result<bool> {
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
                    debug_assert!(self.next.is_none_or(|next| std::ptr::eq(next, leaf)));
                    let is_known = self.next.is_some();
                    self.leaf = leaf;
                    self.at = if forward { 0 } else { leaf.keys.len() };
                    self.look_ahead(forward);
                    if !is_known {
                        self.fetch_first(forward, leaf.len());
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
            node.prefetch();
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
    fn fetch_first(&self, forward: bool, end: usize) {
        self.fetch(0..FETCHED_AHEAD, forward, end);
    }

    /// Has the processor go on with that, once in a few steps.
    #[inline]
    fn fetch_more(&self, forward: bool, end: usize) {
        if self.at.is_multiple_of(FETCHED_AT_ONCE) {
            self.fetch(FETCHED_AHEAD..FETCHED_AHEAD + FETCHED_AT_ONCE, forward, end);
        }
    }

    #[inline(never)]
    fn fetch(&self, steps: Range<usize>, forward: bool, end: usize) {
        let places = steps.filter_map(|steps| self.place_behind(steps, forward, end));
        places.for_each(|place| place.now().prefetch());
    }

    /// The place of the value that is reached after so many steps; going forward, if it is before the end,
    /// which may be that of the leaf.
    fn place_behind(
        &self,
        steps: usize,
        forward: bool,
        end: usize,
    ) -> Option<&'a Place<ValuePtr<V>>> {
        let (values, at) = (&self.leaf.values, self.at);
        if forward {
            let at = at + steps;
            if at < end {
                values.get(at)
            } else {
                self.place_beyond(at.checked_sub(values.len())?, forward)
            }
        } else if at > steps {
            values.get(at - steps - 1)
        } else {
            self.place_beyond(steps - at, forward)
        }
    }

    /// The same in the next leaf; where that is not known, the processor is asked for it instead.
    fn place_beyond(&self, beyond: usize, forward: bool) -> Option<&'a Place<ValuePtr<V>>> {
        match self.next {
            Some(next) if forward => next.values.get(beyond),
            Some(next) => next.values.get(next.len().checked_sub(beyond + 1)?),
            None => {
                if beyond == 0
                    && let Some(node) = self.behind(1, forward)
                {
                    node.prefetch();
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
    fn entry(&self, at: usize) -> Option<(&'a K, &'a V)> {
        let key = self.leaf.keys.get(at)?;
        // SAFETY: as above.
        unsafe { Some((key, self.leaf.value(at, self.version)?.get())) }
    }
}

impl<'a, K: Clone, V> Iter<'a, K, V> {
    /// # Safety
    /// As for `Position::seek`.
    pub(super) unsafe fn new(
        root: NodePtr<K, V>,
        version: Stamp,
        before_first: Before<'_, K>,
        before_end: Before<'_, K>,
    ) -> Self {
        let mut carry = Carry::default();
        // SAFETY: the caller's promise.
        let state = unsafe { State::between(root, version, before_first, before_end, &mut carry) };
        Iter { root, version, state: state.unwrap_or_else(State::Failed), carry }
    }

    /// The place before all entries, or behind them.
    fn outer(&mut self, forward: bool) -> Result<Option<Position<'a, K, V>>> {
        // SAFETY: whoever made this promised it.
        let outer =
            unsafe { Position::seek(self.root, self.version, &|_| !forward, &mut self.carry) };
        outer.map(|outer| outer.inspect(|outer| outer.fetch_first(forward, outer.leaf.len())))
    }

    /// Goes on to the front's next leaf that has entries, or to the back's.
    #[cold]
    #[inline(never)]
    fn turn(&mut self, forward: bool) -> Option<Result<(&'a K, &'a V)>> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let State::Between { mut front, mut back, .. } = state else {
            return if let State::Failed(error) = state { Some(Err(error)) } else { None };
        };
        let from = if forward { &mut front } else { &mut back };
        if from.is_none() {
            match self.outer(forward) {
                Ok(outer) => *from = outer,
                Err(error) => return Some(Err(error)),
            }
        }
        while !is_met(front.as_ref(), back.as_ref()) {
            let end = before_back(front.as_ref(), back.as_ref());
            let from = if forward { &mut front } else { &mut back }.as_mut()?;
            let entry = if forward { from.step(end) } else { from.step_back() };
            if entry.is_some() {
                let before_back = before_back(front.as_ref(), back.as_ref());
                self.state = State::Between { front, back, before_back };
                return entry.map(Ok);
            }
            match from.turn(forward, &mut self.carry) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// Whether nothing is between two places, of which the second one is not before the first.
#[inline]
fn is_met<K, V>(front: Option<&Position<'_, K, V>>, back: Option<&Position<'_, K, V>>) -> bool {
    let (Some(front), Some(back)) = (front, back) else { return false };
    std::ptr::eq(front.leaf, back.leaf) && front.at >= back.at
}

/// How many entries of the front's leaf are before the back.
#[inline]
fn before_back<K, V>(
    front: Option<&Position<'_, K, V>>,
    back: Option<&Position<'_, K, V>>,
) -> usize {
    match (front, back) {
        (Some(front), Some(back)) if std::ptr::eq(front.leaf, back.leaf) => back.at,
        (Some(front), _) => front.leaf.len(),
        (None, _) => 0,
    }
}

impl<'a, K: Clone, V> Position<'a, K, V> {
    #[inline]
    fn step(&mut self, end: usize) -> Option<(&'a K, &'a V)> {
        self.fetch_more(true, end);
        self.entry(self.at).inspect(|_| self.at += 1)
    }

    #[inline]
    fn step_back(&mut self) -> Option<(&'a K, &'a V)> {
        let at = self.at.checked_sub(1)?;
        self.fetch_more(false, 0);
        self.entry(at).inspect(|_| self.at = at)
    }
}

impl<K: Clone, V> State<'_, K, V> {
    /// # Safety
    /// As for `Position::seek`.
    unsafe fn between(
        root: NodePtr<K, V>,
        version: Stamp,
        before_first: Before<'_, K>,
        before_end: Before<'_, K>,
        carry: &mut Carry<K, V>,
    ) -> Result<Self> {
        let (mut front, mut back) = (None, None);
        if let Some(before_first) = before_first {
            // SAFETY: the caller's promise.
            let Some(mut place) = (unsafe { Position::seek(root, version, before_first, carry) })?
            else {
                return Ok(State::Ended);
            };
            while place.entry(place.at).is_none() {
                if !place.turn(true, carry)? {
                    return Ok(State::Ended);
                }
            }
            // An inverted range is empty: its first entry is already beyond its end.
            let first = place.entry(place.at).map(|(key, _)| key);
            if before_end.zip(first).is_some_and(|(before_end, first)| !before_end(first)) {
                return Ok(State::Ended);
            }
            front = Some(place);
        }
        if let Some(before_end) = before_end {
            // SAFETY: as above.
            back = unsafe { Position::seek(root, version, before_end, &mut Carry::default()) }?;
            if back.is_none() {
                return Ok(State::Ended);
            }
        }
        let before_back = before_back(front.as_ref(), back.as_ref());
        if let Some(front) = &front {
            front.fetch_first(true, before_back);
        }
        Ok(State::Between { front, back, before_back })
    }
}

impl<'a, K: Clone, V> Iterator for Iter<'a, K, V> {
    type Item = Result<(&'a K, &'a V)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let State::Between { front: Some(front), before_back, .. } = &mut self.state
            && front.at < *before_back
        {
            return front.step(*before_back).map(Ok);
        }
        self.turn(true)
    }
}

impl<K: Clone, V> DoubleEndedIterator for Iter<'_, K, V> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if let State::Between { front, back, before_back: end } = &mut self.state
            && !is_met(front.as_ref(), back.as_ref())
            && let Some(place) = back
            && place.at > 0
        {
            let entry = place.step_back();
            *end = before_back(front.as_ref(), back.as_ref());
            return entry.map(Ok);
        }
        self.turn(false)
    }
}

impl<K: Clone, V> std::iter::FusedIterator for Iter<'_, K, V> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Graveyard, Tree};

    /// How many leaves a walk over all of a tree came to, and of how many it knew before.
    fn leaves(tree: &Tree<u32, u32>, forward: bool) -> (usize, usize) {
        let (version, carry) = (&tree.0, &mut Carry::default());
        let before = |_: &u32| !forward;
        // SAFETY: the version is held.
        let first = unsafe { Position::seek(version.root, version.stamp, &before, carry) };
        let mut position = first.unwrap().unwrap();
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
