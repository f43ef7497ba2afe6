//! Removing an entry: a node that became narrow is joined with a neighbour, and a root of one child gives
//! way to it.

use std::cmp::Ordering;

use super::{Edit, InnerMut, Replaced};
use crate::error::Result;
use crate::tree::node::{FAN_IN, FAN_OUT, Hot, HotMut, NodePtr, append};
use crate::tree::place::Place;

/// What removing from a node came to: what takes its place, and the entry that was there; of its key what nobody
/// else can reach, for whoever can let go of it.
type Removed<K, V> = (NodePtr<K, V>, (Option<K>, Replaced<V>));

impl<K: Clone, V> Edit<'_, K, V> {
    /// Removes the entry that is probed for, if there is one.
    pub(in super::super) fn remove_at_root(
        &mut self,
        root: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<(Option<K>, Replaced<V>)>> {
        let Some((node, removed)) = self.remove(*root, probe)? else { return Ok(None) };
        *root = node;
        // A root with one child gives way to it.
        // SAFETY: nodes of the tree live, and nobody changes them here.
        while let Some(Hot::Inner(inner)) = unsafe { root.in_memory() }
            && let [only] = inner.children.as_slice()
        {
            let above = std::mem::replace(root, only.now());
            self.end_node(above);
        }
        Ok(Some(removed))
    }

    fn remove(
        &mut self,
        node: NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<Removed<K, V>>> {
        match Self::hot(node)? {
            Hot::Leaf(leaf) => {
                let Ok(at) = leaf.find(probe) else { return Ok(None) };
                let value = leaf.values.get(at).map(Place::now);
                let is_new = value.is_some_and(|value| self.is_new(node, &value.into()));
                let node = self.own(node);
                // SAFETY: it is nobody else's; the leaf that was borrowed is it or what it replaces, and
                // is not used any more.
                let mut leaf = unsafe { node.leaf_mut() };
                let (key, value) = (leaf.keys.remove(at), leaf.values.remove(at));
                Ok(Some((node, (self.end_key(key), self.end_value(value.now(), is_new)))))
            }
            Hot::Inner(inner) => {
                let at = inner.child_for(probe);
                let Some(child) = Self::child(inner, at) else { return Ok(None) };
                let Some((below, removed)) = self.remove(child, probe)? else { return Ok(None) };
                // SAFETY: nodes of the tree live, and nobody changes them here.
                if unsafe { below.width() } >= FAN_IN {
                    let node = if below == child { node } else { self.set(node, at, below).0 };
                    return Ok(Some((node, removed)));
                }
                let node = self.own(node);
                // SAFETY: as above.
                let inner = unsafe { node.inner_mut() };
                if let Some(place) = inner.children.get_mut(at) {
                    place.set(below);
                }
                self.widen(inner, at);
                Ok(Some((node, removed)))
            }
        }
    }

    /// Joins a narrow child with a neighbour, or takes it away if it is empty.
    fn widen(&mut self, inner: InnerMut<'_, K, V>, at: usize) {
        let InnerMut { mut bounds, children } = inner;
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
        let width = |node: NodePtr<K, V>| unsafe { node.width() };
        let child = children.get(at).map(Place::now);
        if let Some(child) = child.filter(|child| width(*child) == 0 && children.len() > 1) {
            children.remove(at);
            self.end_node(child);
            return drop(self.end_key(bounds.remove(at.saturating_sub(1))));
        }
        let left = if at + 1 < children.len() { at } else { at.saturating_sub(1) };
        let [a, b] = [left, left + 1].map(|at| children.get(at).map(Place::now));
        let (Some(a), Some(b)) = (a, b) else { return };
        // SAFETY: as above.
        let alike = matches!(
            unsafe { (a.in_memory(), b.in_memory()) },
            (Some(Hot::Leaf(_)), Some(Hot::Leaf(_))) | (Some(Hot::Inner(_)), Some(Hot::Inner(_)))
        );
        if !alike || width(a) + width(b) > FAN_OUT {
            return;
        }
        children.remove(left + 1);
        let bound = bounds.remove(left);
        let a = self.own(a);
        if let Some(place) = children.get_mut(left) {
            place.set(a);
        }
        // SAFETY: as above; the right one is not the left one, which is nobody else's.
        let between = unsafe {
            let keys = b.keys();
            match (a.hot_mut(), b.in_memory()) {
                (HotMut::Leaf(mut a), Some(Hot::Leaf(b))) => {
                    a.keys.append(&keys);
                    append(a.values, &b.values);
                    Some(bound)
                }
                (HotMut::Inner(mut a), Some(Hot::Inner(b))) => {
                    a.bounds.push(bound);
                    a.bounds.append(&keys);
                    append(a.children, &b.children);
                    None
                }
                _ => Some(bound),
            }
        };
        self.end_node(b);
        drop(between.and_then(|bound| self.end_key(bound)));
    }
}
