//! Removing an entry: a node that became narrow is joined with a neighbour, what is empty is taken away, and a
//! root of one child gives way to it.
//!
//! Empty nodes must not stay beside the place where entries are removed: of a queue nobody comes back to where its
//! oldest ones were, but each walk from its beginning goes through what is left there. Ranges that were cold may
//! turn out to be empty as well; readers, who load them, change nothing above them.

use std::cmp::Ordering;
use std::ops::Range;

use super::{Edit, Replaced, pair_with_most_room};
use crate::error::Result;
use crate::tree::node::{FAN_IN, FAN_OUT, Hot, HotMut, Inner, InnerMut, NewValue, NodePtr, append};
use crate::tree::place::Place;

/// What removing from a node came to.
struct Removed<K, V> {
    /// What takes its place.
    node: NodePtr<K, V>,
    /// Whether nothing below the node is before it, and nothing behind it.
    was_first: bool,
    was_last: bool,
}

/// What an inner node needs besides, when something was removed from a child.
enum Repair {
    /// These children are empty, and go; the one from which something was removed is among them, and may stay.
    Empty { range: Range<usize>, itself: bool },
    /// One that became narrow is joined with a neighbour: this is the left one of the two.
    Join { left: usize },
}

impl<K: Clone, V> Edit<'_, K, V> {
    /// Removes the entry that is probed for, if there is one.
    pub(in super::super) fn remove_at_root(
        &mut self,
        root: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<(Option<K>, Replaced<V>)>> {
        let Some(removed) = self.remove(*root, probe)? else { return Ok(None) };
        *root = removed.node;
        // A root with one child gives way to it.
        // SAFETY: nodes of the tree live, and nobody changes them here.
        while let Some(Hot::Inner(inner)) = unsafe { root.in_memory() }
            && let [only] = inner.children.as_slice()
        {
            let above = std::mem::replace(root, only.now());
            self.end_node(above);
        }
        Ok(self.old.take().map(|old| (self.old_key.take(), old)))
    }

    fn remove(
        &mut self,
        node: NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<Removed<K, V>>> {
        match Self::hot(node)? {
            Hot::Leaf(leaf) => {
                let Ok(at) = leaf.find(probe) else { return Ok(None) };
                let (was_first, was_last) = (at == 0, at + 1 == leaf.len());
                let value = leaf.places().get(at).map(Place::now);
                let is_new = value.is_some_and(|value| self.is_new(node, &value.into()));
                let node = self.own(node);
                // SAFETY: it is nobody else's; the leaf that was borrowed is it or what it replaces, and
                // is not used any more.
                let (key, value) = unsafe { node.leaf_mut() }.remove(at);
                self.old = Some(match value {
                    NewValue::Placed(value) => self.end_value(value, is_new),
                    NewValue::Small(value) => Replaced::Small(value),
                });
                self.old_key = self.end_key(key);
                Ok(Some(Removed { node, was_first, was_last }))
            }
            Hot::Inner(inner) => {
                let at = inner.child_for(probe);
                let Some(child) = Self::child(inner, at) else { return Ok(None) };
                let Some(below) = self.remove(child, probe)? else { return Ok(None) };
                let empty = empty_around(inner, at, &below);
                let was_first = below.was_first && empty.start == 0;
                let was_last = below.was_last && empty.end == inner.children.len();
                let itself = below.was_first && below.was_last && inner.children.len() > 1;
                let repair = if itself || empty.len() > 1 {
                    Some(Repair::Empty { range: empty, itself })
                } else {
                    pair_to_join(inner, at, below.node).map(|left| Repair::Join { left })
                };
                let node = match repair {
                    // The node that was borrowed is not used any more.
                    Some(repair) => self.repair(node, at, below.node, repair),
                    None if below.node == child => node,
                    None => self.set(node, at, below.node).0,
                };
                Ok(Some(Removed { node, was_first, was_last }))
            }
        }
    }

    /// Has a place of a node lead to what its child has become, and does away with what is empty or narrow there;
    /// returns what takes the place of the node.
    fn repair(
        &mut self,
        node: NodePtr<K, V>,
        at: usize,
        below: NodePtr<K, V>,
        repair: Repair,
    ) -> NodePtr<K, V> {
        let node = self.own(node);
        // SAFETY: it is nobody else's, and nothing of it is borrowed.
        let mut inner = unsafe { node.inner_mut() };
        if let Some(place) = inner.children.get_mut(at) {
            place.set(below);
        }
        match repair {
            Repair::Join { left } => self.join(inner, left),
            Repair::Empty { range, itself } => {
                for gone in range.rev().filter(|gone| itself || *gone != at) {
                    // A node has a child, be it an empty one.
                    if inner.children.len() > 1 {
                        let child = inner.children.remove(gone).now();
                        let bound = inner.bounds.remove(gone.saturating_sub(1));
                        self.end_empty(child);
                        drop(self.end_key(bound));
                    }
                }
            }
        }
        node
    }

    /// Ends an empty node that has lost its place, with what is below it.
    fn end_empty(&mut self, node: NodePtr<K, V>) {
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at; the bounds of this one
        // have lost their place.
        unsafe {
            if let Some(Hot::Inner(inner)) = node.in_memory() {
                inner.children.iter().for_each(|child| self.end_empty(child.now()));
                node.keys().shared().for_each(|bound| drop(self.end_key(bound)));
            }
        }
        self.end_node(node);
    }

    /// Joins a child with the one behind it; they are alike, and there is room.
    fn join(&mut self, inner: InnerMut<'_, K, V>, left: usize) {
        let InnerMut { mut bounds, children } = inner;
        let [a, b] = [left, left + 1].map(|at| children.get(at).map(Place::now));
        let (Some(a), Some(b)) = (a, b) else { return };
        let a = self.own(a);
        if let Some(place) = children.get_mut(left) {
            place.set(a);
        }
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at; the right one is not
        // the left one, which is nobody else's.
        let between = unsafe {
            match (a.hot_mut(), b.in_memory()) {
                (HotMut::Leaf(mut a), Some(Hot::Leaf(b))) => {
                    a.append(b);
                    Some(bounds.remove(left))
                }
                (HotMut::Inner(mut a), Some(Hot::Inner(inner))) => {
                    let between = a.bounds.len();
                    a.bounds.append(&b.keys());
                    append(a.children, &inner.children);
                    a.bounds.insert(between, bounds.remove(left));
                    None
                }
                _ => return,
            }
        };
        children.remove(left + 1);
        self.end_node(b);
        drop(between.and_then(|bound| self.end_key(bound)));
    }
}

/// The children that are empty around one from which something was removed, and that one.
fn empty_around<K, V>(inner: &Inner<K, V>, at: usize, below: &Removed<K, V>) -> Range<usize> {
    let is_empty = |at: &usize| inner.children.get(*at).is_some_and(|child| is_empty(child.now()));
    let before = if below.was_first { (0..at).rev().take_while(is_empty).count() } else { 0 };
    let behind = at + 1..inner.children.len();
    let behind = if below.was_last { behind.take_while(is_empty).count() } else { 0 };
    at - before..at + 1 + behind
}

/// Whether nothing is below a node; of a range that is not in memory that is not known.
fn is_empty<K, V>(node: NodePtr<K, V>) -> bool {
    // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
    match unsafe { node.in_memory() } {
        Some(Hot::Leaf(leaf)) => leaf.len() == 0,
        Some(Hot::Inner(inner)) => inner.children.iter().all(|child| is_empty(child.now())),
        None => false,
    }
}

/// The left one of two children to be joined, if the one at a place, which is this node by now, has become narrow:
/// it and its narrower neighbour.
fn pair_to_join<K, V>(inner: &Inner<K, V>, at: usize, now: NodePtr<K, V>) -> Option<usize> {
    // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
    let (width, is_leaf) = unsafe { (now.width(), matches!(now.in_memory(), Some(Hot::Leaf(_)))) };
    if width >= FAN_IN {
        return None;
    }
    let room = |at: usize| {
        // SAFETY: as above.
        let other = match unsafe { inner.children.get(at)?.now().in_memory() }? {
            Hot::Leaf(leaf) if is_leaf => leaf.len(),
            Hot::Inner(inner) if !is_leaf => inner.children.len(),
            _ => return None,
        };
        FAN_OUT.checked_sub(width + other)
    };
    pair_with_most_room(at, room).map(|pair| pair.left)
}
