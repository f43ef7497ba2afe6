//! Changing a tree: the nodes on the way down are copied where somebody else can reach them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Tree;
use super::node::{FAN_IN, FAN_OUT, Hot, Inner, Leaf, Node, own};
use crate::error::Result;

/// What an insert into a node came to.
struct Inserted<K, V> {
    /// The value that the key had.
    old: Option<Arc<V>>,
    /// The right half of a node that became too wide, and the bound before it.
    split: Option<(K, Arc<Node<K, V>>)>,
}

impl<K: Clone, V> Tree<K, V> {
    /// Inserts or replaces; returns the value that was there. After an error nothing has changed.
    pub(crate) fn insert(&mut self, key: K, value: Arc<V>) -> Result<Option<Arc<V>>>
    where
        K: Ord,
    {
        let Inserted { old, split } = insert(&mut self.root, key, value)?;
        if let Some((bound, right)) = split {
            let left = std::mem::replace(&mut self.root, Arc::new(Node::empty()));
            let inner = Inner { bounds: vec![bound], children: vec![left, right] };
            self.root = Arc::new(Node::Hot(Hot::Inner(inner)));
        }
        if old.is_none() {
            self.len += 1;
        }
        Ok(old)
    }

    /// Puts another value in the place of the one that `probe` finds, and returns that.
    pub(crate) fn replace(
        &mut self,
        probe: impl Fn(&K) -> Ordering,
        value: Arc<V>,
    ) -> Result<Option<Arc<V>>> {
        Ok(self.get_mut(probe)?.map(|slot| std::mem::replace(slot, value)))
    }

    /// The place of a value, with everything on the way to it made this root's own.
    pub(crate) fn get_mut(
        &mut self,
        probe: impl Fn(&K) -> Ordering,
    ) -> Result<Option<&mut Arc<V>>> {
        // Copying the way down for a key that is absent would be work for nothing.
        if self.get(&probe)?.is_none() {
            return Ok(None);
        }
        let mut node = &mut self.root;
        loop {
            match own(node)? {
                Hot::Inner(inner) => {
                    let child = inner.child_for(&probe);
                    match inner.children.get_mut(child) {
                        Some(child) => node = child,
                        None => return Ok(None),
                    }
                }
                Hot::Leaf(leaf) => {
                    let found = leaf.find(&probe).ok();
                    return Ok(found.and_then(|at| leaf.values.get_mut(at)));
                }
            }
        }
    }

    /// Removes the entry that `probe` finds.
    pub(crate) fn remove(&mut self, probe: impl Fn(&K) -> Ordering) -> Result<Option<(K, Arc<V>)>> {
        if self.get(&probe)?.is_none() {
            return Ok(None);
        }
        let removed = remove(&mut self.root, &probe)?;
        if removed.is_some() {
            self.len -= 1;
        }
        // A root with one child gives way to it.
        let only = match self.root.in_memory() {
            Some(Hot::Inner(inner)) if inner.children.len() == 1 => inner.children.first().cloned(),
            _ => None,
        };
        if let Some(only) = only {
            self.root = only;
        }
        Ok(removed)
    }
}

fn insert<K: Clone + Ord, V>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    value: Arc<V>,
) -> Result<Inserted<K, V>> {
    match own(node)? {
        Hot::Leaf(leaf) => Ok(insert_into_leaf(leaf, key, value)),
        Hot::Inner(inner) => {
            let at = inner.child_for(|bound| key.cmp(bound));
            let Some(child) = inner.children.get_mut(at) else {
                return Ok(Inserted { old: None, split: None });
            };
            let Inserted { old, split } = insert(child, key, value)?;
            let Some((bound, right)) = split else { return Ok(Inserted { old, split: None }) };
            inner.bounds.insert(at, bound);
            inner.children.insert(at + 1, right);
            Ok(Inserted { old, split: split_inner(inner) })
        }
    }
}

fn insert_into_leaf<K: Clone + Ord, V>(
    leaf: &mut Leaf<K, V>,
    key: K,
    value: Arc<V>,
) -> Inserted<K, V> {
    match leaf.find(|other| key.cmp(other)) {
        Ok(at) => {
            let old = leaf.values.get_mut(at).map(|slot| std::mem::replace(slot, value));
            Inserted { old, split: None }
        }
        Err(at) => {
            leaf.keys.insert(at, key);
            leaf.values.insert(at, value);
            if leaf.keys.len() <= FAN_OUT {
                return Inserted { old: None, split: None };
            }
            // Keys that only ever ascend would leave every leaf half empty.
            let middle = if at + 1 == leaf.keys.len() { FAN_OUT } else { leaf.keys.len() / 2 };
            let keys = leaf.keys.split_off(middle);
            let values = leaf.values.split_off(middle);
            let split = keys
                .first()
                .cloned()
                .map(|bound| (bound, Arc::new(Node::Hot(Hot::Leaf(Leaf { keys, values })))));
            Inserted { old: None, split }
        }
    }
}

fn split_inner<K, V>(inner: &mut Inner<K, V>) -> Option<(K, Arc<Node<K, V>>)> {
    if inner.children.len() <= FAN_OUT {
        return None;
    }
    let middle = inner.children.len() / 2;
    let children = inner.children.split_off(middle);
    let bounds = inner.bounds.split_off(middle);
    let bound = inner.bounds.pop()?;
    Some((bound, Arc::new(Node::Hot(Hot::Inner(Inner { bounds, children })))))
}

fn remove<K: Clone, V>(
    node: &mut Arc<Node<K, V>>,
    probe: &impl Fn(&K) -> Ordering,
) -> Result<Option<(K, Arc<V>)>> {
    match own(node)? {
        Hot::Leaf(leaf) => {
            Ok(leaf.find(probe).ok().map(|at| (leaf.keys.remove(at), leaf.values.remove(at))))
        }
        Hot::Inner(inner) => {
            let at = inner.child_for(probe);
            let Some(child) = inner.children.get_mut(at) else { return Ok(None) };
            let removed = remove(child, probe)?;
            if child.width() < FAN_IN {
                widen(inner, at)?;
            }
            Ok(removed)
        }
    }
}

/// Joins a narrow child with a neighbour, or takes it away if it is empty.
fn widen<K: Clone, V>(inner: &mut Inner<K, V>, at: usize) -> Result<()> {
    let empty = inner.children.get(at).is_some_and(|child| child.width() == 0);
    if empty && inner.children.len() > 1 {
        inner.children.remove(at);
        inner.bounds.remove(at.saturating_sub(1));
        return Ok(());
    }
    let left = if at + 1 < inner.children.len() { at } else { at.saturating_sub(1) };
    let (Some(a), Some(b)) = (inner.children.get(left), inner.children.get(left + 1)) else {
        return Ok(());
    };
    let joinable = match (a.in_memory(), b.in_memory()) {
        (Some(Hot::Leaf(_)), Some(Hot::Leaf(_))) | (Some(Hot::Inner(_)), Some(Hot::Inner(_))) => {
            a.width() + b.width() <= FAN_OUT
        }
        _ => false,
    };
    if !joinable {
        return Ok(());
    }
    let mut right = inner.children.remove(left + 1);
    let bound = inner.bounds.remove(left);
    let right = std::mem::replace(own(&mut right)?, Hot::empty());
    let Some(joined) = inner.children.get_mut(left) else { return Ok(()) };
    match (own(joined)?, right) {
        (Hot::Leaf(a), Hot::Leaf(b)) => {
            a.keys.extend(b.keys);
            a.values.extend(b.values);
        }
        (Hot::Inner(a), Hot::Inner(b)) => {
            a.bounds.push(bound);
            a.bounds.extend(b.bounds);
            a.children.extend(b.children);
        }
        _ => {}
    }
    Ok(())
}
