//! Inserting an entry: a leaf that is full shares its entries with a neighbour that has room, or is split in two, as
//! inner nodes are.
//!
//! Leaves that are only ever split are 0.69 full if keys come at random; these are 0.82. To look at the neighbours first
//! is what B*-trees do (Knuth, The Art of Computer Programming, section 6.2.4).

use std::cmp::Ordering;

use super::{Edit, Pair, Replaced, pair_with_most_room};
use crate::error::Result;
use crate::tree::node::{Born, FAN_OUT, Hot, InnerMut, NewValue, NodePtr};
use crate::tree::place::Place;

/// A neighbour with more entries is given none: it would be full soon itself, and each time two leaves are written.
const ROOMY_MAX: usize = 5 * FAN_OUT / 6;

/// The two that a node was split in, and the bound between them.
type Halves<K, V> = (NodePtr<K, V>, Born<K>, NodePtr<K, V>);

/// What an insert into a node came to.
enum Inserted<K, V> {
    /// This takes its place.
    Into(NodePtr<K, V>),
    /// It became too wide: these take its place.
    Split(Halves<K, V>),
    /// It is a leaf that is full, and nothing was inserted: where the key belongs.
    Full(K, usize),
}

impl<K: Clone, V> Edit<'_, K, V> {
    #[inline]
    pub(in super::super) fn insert_at_root(
        &mut self,
        root: &mut NodePtr<K, V>,
        key: K,
        value: NewValue<V>,
        compare: impl Fn(&K, &K) -> Ordering + Copy,
    ) -> Result<Option<Replaced<V>>> {
        let placed = value.placed();
        let inserted = match self.insert(*root, key, value, compare) {
            Ok(inserted) => inserted,
            Err(error) => {
                // SAFETY: a range that could not be loaded was above its place: it has none.
                drop(placed.map(|value| unsafe { value.take(&mut self.spare.values) }));
                return Err(error);
            }
        };
        *root = match inserted {
            Inserted::Into(node) => node,
            Inserted::Split(halves) => self.root_above(halves),
            Inserted::Full(key, at) => {
                let halves = self.split_leaf(*root, at, key, value);
                self.root_above(halves)
            }
        };
        Ok(self.old.take())
    }

    fn root_above(&mut self, (left, bound, right): Halves<K, V>) -> NodePtr<K, V> {
        // SAFETY: the node lives.
        let above = NodePtr::inner(self.stamp, unsafe { left.copies() }, self.spare);
        // SAFETY: it was just made.
        let mut inner = unsafe { above.inner_mut() };
        inner.bounds.push(bound);
        inner.children.push(Place::new(left));
        inner.children.push(Place::new(right));
        above
    }

    fn insert(
        &mut self,
        node: NodePtr<K, V>,
        key: K,
        value: NewValue<V>,
        compare: impl Fn(&K, &K) -> Ordering + Copy,
    ) -> Result<Inserted<K, V>> {
        match Self::hot(node)? {
            Hot::Leaf(leaf) => match leaf.find(|other| compare(&key, other)) {
                Ok(at) => Ok(Inserted::Into(self.put(node, at, value))),
                Err(at) if leaf.len() == FAN_OUT => Ok(Inserted::Full(key, at)),
                Err(at) => {
                    let node = self.own(node);
                    let key = Born { key, born: self.stamp };
                    // SAFETY: it is nobody else's; the leaf that was borrowed is it or what it replaces,
                    // and is not used any more.
                    unsafe { node.leaf_mut() }.insert(at, key, value);
                    Ok(Inserted::Into(node))
                }
            },
            Hot::Inner(inner) => {
                let at = inner.child_for(|bound| compare(&key, bound));
                let child = Self::child(inner, at).expect("a key has a child");
                // The node that was borrowed is not used any more where it is changed.
                match self.insert(child, key, value, compare)? {
                    Inserted::Into(below) if below == child => Ok(Inserted::Into(node)),
                    Inserted::Into(below) => Ok(Inserted::Into(self.set(node, at, below).0)),
                    Inserted::Full(key, to) => Ok(self.insert_beside(node, at, to, key, value)),
                    Inserted::Split(halves) => {
                        let node = self.own(node);
                        Ok(self.insert_child(node, at, halves))
                    }
                }
            }
        }
    }

    /// Inserts into a place of a leaf that is full, which is a child of a node. Apart from the way down, which is short
    /// without it.
    #[inline(never)]
    fn insert_beside(
        &mut self,
        node: NodePtr<K, V>,
        at: usize,
        to: usize,
        key: K,
        value: NewValue<V>,
    ) -> Inserted<K, V> {
        let node = self.own(node);
        // SAFETY: it is nobody else's, and nothing of it is borrowed.
        let inner = unsafe { node.inner_mut() };
        // Keys that only ever ascend are to leave full leaves behind.
        let pair = if to < FAN_OUT { pair_to_level(&inner, at) } else { None };
        if let Some(pair) = pair {
            let (leaf, to) = self.level(inner, at, pair, to);
            // SAFETY: it is nobody else's, and nothing of it is borrowed.
            unsafe { leaf.leaf_mut() }.insert(to, Born { key, born: self.stamp }, value);
            return Inserted::Into(node);
        }
        let Some(child) = inner.children.get(at).map(Place::now) else {
            unreachable!("it is one of its children")
        };
        let halves = self.split_leaf(child, to, key, value);
        self.insert_child(node, at, halves)
    }

    /// Has a child that is a full leaf share its entries with a neighbour; tells where what belongs into a place of it
    /// belongs now, in one that is owned.
    fn level(
        &mut self,
        inner: InnerMut<'_, K, V>,
        at: usize,
        Pair { room, left }: Pair,
        to: usize,
    ) -> (NodePtr<K, V>, usize) {
        let InnerMut { mut bounds, children } = inner;
        let [Some(a), Some(b)] = [left, left + 1].map(|at| children.get(at).map(Place::now)) else {
            unreachable!("both are its children")
        };
        let a = self.own(a);
        let given = room / 2;
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at. What was just made or is
        // owned is nobody else's, and neither of two leaves is the other.
        let (b, before) = unsafe {
            if left == at {
                let new = NodePtr::leaf(self.stamp, a.copies(), self.spare);
                let mut leaf = new.leaf_mut();
                a.leaf_mut().give(FAN_OUT - given..FAN_OUT, &mut leaf);
                if let Some(Hot::Leaf(b)) = b.in_memory() {
                    leaf.append(b);
                }
                self.end_node(b);
                (new, 0)
            } else {
                let b = self.own(b);
                b.leaf_mut().give(0..given, &mut a.leaf_mut());
                (b, FAN_OUT - room)
            }
        };
        for (at, leaf) in [(left, a), (left + 1, b)] {
            if let Some(place) = children.get_mut(at) {
                place.set(leaf);
            }
        }
        let bound = self.bound_before(b);
        let old = bounds.remove(left);
        bounds.insert(left, bound);
        drop(self.end_key(old));
        // What belongs between the two goes behind the first one, so that the bound holds.
        // SAFETY: as above.
        let (len, to) = (unsafe { a.width() }, before + to);
        if to <= len { (a, to) } else { (b, to - len) }
    }

    /// The first key of a leaf that is owned and has some.
    fn bound_before(&self, leaf: NodePtr<K, V>) -> Born<K> {
        // SAFETY: it is nobody else's.
        let key = unsafe { leaf.leaf_mut() }.keys().first().cloned();
        Born { key: key.expect("it has some"), born: self.stamp }
    }

    /// Splits a leaf that is full, and inserts into what was a place of it.
    fn split_leaf(
        &mut self,
        leaf: NodePtr<K, V>,
        at: usize,
        key: K,
        value: NewValue<V>,
    ) -> Halves<K, V> {
        let leaf = self.own(leaf);
        // Keys that only ever ascend would leave every leaf half empty.
        let middle = if at == FAN_OUT { FAN_OUT } else { FAN_OUT / 2 };
        // SAFETY: one is nobody else's, and the other one was just made.
        let new = unsafe {
            let new = NodePtr::leaf(self.stamp, leaf.copies(), self.spare);
            let (mut left, mut right) = (leaf.leaf_mut(), new.leaf_mut());
            left.give(middle..FAN_OUT, &mut right);
            let (half, at) = if at < middle { (&mut left, at) } else { (&mut right, at - middle) };
            half.insert(at, Born { key, born: self.stamp }, value);
            new
        };
        (leaf, self.bound_before(new), new)
    }

    /// Has a node that is owned lead to what its child was split in.
    fn insert_child(
        &mut self,
        node: NodePtr<K, V>,
        at: usize,
        (below, bound, child): Halves<K, V>,
    ) -> Inserted<K, V> {
        // SAFETY: it is nobody else's, and nothing of it is borrowed.
        let mut inner = unsafe { node.inner_mut() };
        if let Some(place) = inner.children.get_mut(at) {
            place.set(below);
        }
        let child = Place::new(child);
        if inner.children.len() < FAN_OUT {
            inner.bounds.insert(at, bound);
            inner.children.insert(at + 1, child);
            return Inserted::Into(node);
        }
        let new = NodePtr::inner(self.stamp, inner.bounds.copies(), self.spare);
        // SAFETY: it was just made.
        let mut right = unsafe { new.inner_mut() };
        if at + 1 == FAN_OUT {
            right.children.push(child);
            return Inserted::Split((node, bound, new));
        }
        let middle = FAN_OUT / 2;
        right.children.extend(inner.children.drain(middle..));
        inner.bounds.give(middle..FAN_OUT - 1, &mut right.bounds);
        let Some(between) = inner.bounds.pop() else { unreachable!("half of many are some") };
        let (half, at) = if at < middle { (&mut inner, at) } else { (&mut right, at - middle) };
        half.bounds.insert(at, bound);
        half.children.insert(at + 1, child);
        Inserted::Split((node, between, new))
    }
}

/// A child that is a full leaf with a neighbour that it can give some of its entries, if there is one.
fn pair_to_level<K, V>(inner: &InnerMut<'_, K, V>, at: usize) -> Option<Pair> {
    pair_with_most_room(at, |at| {
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
        match unsafe { inner.children.get(at)?.now().in_memory() }? {
            Hot::Leaf(leaf) if leaf.len() <= ROOMY_MAX => Some(FAN_OUT - leaf.len()),
            _ => None,
        }
    })
}
