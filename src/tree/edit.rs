//! Changing a tree: the nodes on the way down are copied where somebody else can reach them.

use std::cmp::Ordering;

use super::draft::Old;
use super::line::{Dead, Thing};
use super::node::{
    Ahead, FAN_IN, FAN_OUT, Hot, HotMut, Inner, Leaf, NodePtr, Stamp, append, append_clones,
};
use super::slot::{Spare, ValuePtr};
use crate::error::Result;

/// A change of the tree of a draft.
///
/// Every function takes nodes of that tree, which live. What was born at or after the floor has one
/// place in it, and nobody else can reach it.
pub(super) struct Edit<'a, K, V> {
    /// New things are born at it.
    pub(super) stamp: Stamp,
    pub(super) floor: Stamp,
    pub(super) dead: &'a mut Vec<Dead<K, V>>,
    pub(super) spare: &'a mut Spare<K, V>,
}

/// A value that has lost its place. On the way up it stays where it lies.
pub(super) enum Replaced<V> {
    /// Nobody else can reach it, and nothing else will free it.
    Owned(ValuePtr<V>),
    /// It is noted as dead.
    Seen(ValuePtr<V>),
}

impl<V> Replaced<V> {
    /// For as long as the draft is not changed again.
    pub(super) fn into_old<'a, K>(self, spare: &mut Spare<K, V>) -> Old<'a, V> {
        match self {
            // SAFETY: it has lost its place, and this is the only way to it.
            Replaced::Owned(value) => Old::Owned(unsafe { value.take(spare) }),
            // SAFETY: what is noted as dead lives until the draft hands it over, for which it is
            // borrowed anew: the caller borrows it for as long as the reference is used.
            Replaced::Seen(value) => Old::Seen(unsafe { value.get() }),
        }
    }
}

/// The right half of a node that became too wide, and the bound before it.
type Split<K, V> = Option<(K, NodePtr<K, V>)>;

/// What an insert into a node came to: the value that the key had, and whether the node was split.
type Inserted<K, V> = (Option<Replaced<V>>, Split<K, V>);

impl<K: Clone, V> Edit<'_, K, V> {
    /// The node in memory, this draft's own: copied where somebody else can reach it.
    fn own<'n>(&mut self, node: &'n mut NodePtr<K, V>) -> Result<HotMut<'n, K, V>> {
        // SAFETY: nodes of the tree live; what was born at or after the floor is nobody else's, and
        // it is borrowed by its one place.
        unsafe {
            node.hot(&mut Ahead::default())?;
            if node.born() < self.floor {
                let copy = node.copy(self.stamp, self.spare);
                self.bury(Thing::Node(*node));
                *node = copy;
            }
            Ok(node.hot_mut())
        }
    }

    /// Notes that others may see something and newer versions do not.
    fn bury(&mut self, what: Thing<K, V>) {
        self.dead.push(Dead { what, died: self.stamp });
    }

    /// Ends a node that has lost its place; what is below it has another one.
    fn end_node(&mut self, node: NodePtr<K, V>) {
        // SAFETY: it lives; and if nobody else can reach it this was the last way to it.
        unsafe {
            if node.born() < self.floor {
                self.bury(Thing::Node(node));
            } else {
                node.free(self.spare);
            }
        }
    }

    /// Ends a value that has lost its place.
    fn end_value(&mut self, value: ValuePtr<V>) -> Replaced<V> {
        // SAFETY: it lives.
        if unsafe { value.born() } < self.floor {
            self.bury(Thing::Value(value));
            Replaced::Seen(value)
        } else {
            Replaced::Owned(value)
        }
    }

    /// Puts another value in a place.
    fn put(&mut self, place: &mut ValuePtr<V>, value: ValuePtr<V>) -> Replaced<V> {
        self.end_value(std::mem::replace(place, value))
    }

    pub(super) fn insert_at_root(
        &mut self,
        root: &mut NodePtr<K, V>,
        key: K,
        value: V,
    ) -> Result<Option<Replaced<V>>>
    where
        K: Ord,
    {
        // It lies where it will stay before the way down, which would move it with each step.
        let value = ValuePtr::new(self.stamp, value, self.spare);
        let (old, split) = match self.insert(root, key, value) {
            Ok(inserted) => inserted,
            Err(error) => {
                // SAFETY: a range that could not be loaded was above its place: it has none.
                drop(unsafe { value.take(self.spare) });
                return Err(error);
            }
        };
        if let Some((bound, right)) = split {
            let above = NodePtr::inner(self.stamp, self.spare);
            // SAFETY: it was just made.
            if let HotMut::Inner(inner) = unsafe { above.hot_mut() } {
                inner.bounds.push(bound);
                inner.children.push(*root);
                inner.children.push(right);
            }
            *root = above;
        }
        Ok(old)
    }

    fn insert(
        &mut self,
        node: &mut NodePtr<K, V>,
        key: K,
        value: ValuePtr<V>,
    ) -> Result<Inserted<K, V>>
    where
        K: Ord,
    {
        match self.own(node)? {
            HotMut::Leaf(leaf) => match leaf.find(|other| key.cmp(other)) {
                Ok(at) => Ok((leaf.values.get_mut(at).map(|place| self.put(place, value)), None)),
                Err(at) => Ok((None, self.insert_into_leaf(leaf, at, key, value))),
            },
            HotMut::Inner(inner) => {
                let at = inner.child_for(|bound| key.cmp(bound));
                let Some(child) = inner.children.get_mut(at) else { return Ok((None, None)) };
                let (old, split) = self.insert(child, key, value)?;
                let split =
                    split.and_then(|(bound, right)| self.insert_child(inner, at, bound, right));
                Ok((old, split))
            }
        }
    }

    fn insert_into_leaf(
        &mut self,
        leaf: &mut Leaf<K, V>,
        at: usize,
        key: K,
        value: ValuePtr<V>,
    ) -> Split<K, V> {
        if leaf.len() < FAN_OUT {
            leaf.keys.insert(at, key);
            leaf.values.insert(at, value);
            return None;
        }
        // Keys that only ever ascend would leave every leaf half empty.
        let middle = if at == FAN_OUT { FAN_OUT } else { FAN_OUT / 2 };
        let new = NodePtr::leaf(self.stamp, self.spare);
        // SAFETY: it was just made.
        let HotMut::Leaf(right) = (unsafe { new.hot_mut() }) else { return None };
        right.keys.extend(leaf.keys.drain(middle..));
        right.values.extend(leaf.values.drain(middle..));
        let (half, at) = if at < middle { (leaf, at) } else { (&mut *right, at - middle) };
        half.keys.insert(at, key);
        half.values.insert(at, value);
        right.keys.first().map(|bound| (bound.clone(), new))
    }

    /// Puts a child behind the one at `at`.
    fn insert_child(
        &mut self,
        inner: &mut Inner<K, V>,
        at: usize,
        bound: K,
        child: NodePtr<K, V>,
    ) -> Split<K, V> {
        if inner.children.len() < FAN_OUT {
            inner.bounds.insert(at, bound);
            inner.children.insert(at + 1, child);
            return None;
        }
        let new = NodePtr::inner(self.stamp, self.spare);
        // SAFETY: it was just made.
        let HotMut::Inner(right) = (unsafe { new.hot_mut() }) else { return None };
        if at + 1 == FAN_OUT {
            right.children.push(child);
            return Some((bound, new));
        }
        let middle = FAN_OUT / 2;
        right.children.extend(inner.children.drain(middle..));
        right.bounds.extend(inner.bounds.drain(middle..));
        let between = inner.bounds.pop()?;
        let (half, at) = if at < middle { (inner, at) } else { (right, at - middle) };
        half.bounds.insert(at, bound);
        half.children.insert(at + 1, child);
        Some((between, new))
    }

    /// The place of a value, with everything on the way to it made this draft's own.
    fn place<'n>(
        &mut self,
        root: &'n mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<&'n mut ValuePtr<V>>> {
        // Copying the way down for a key that is absent would be work for nothing.
        if !Self::has(*root, probe)? {
            return Ok(None);
        }
        let mut node = root;
        loop {
            match self.own(node)? {
                HotMut::Inner(inner) => {
                    let child = inner.child_for(probe);
                    match inner.children.get_mut(child) {
                        Some(child) => node = child,
                        None => return Ok(None),
                    }
                }
                HotMut::Leaf(leaf) => {
                    let found = leaf.find(probe).ok();
                    return Ok(found.and_then(|at| leaf.values.get_mut(at)));
                }
            }
        }
    }

    fn has(root: NodePtr<K, V>, probe: &impl Fn(&K) -> Ordering) -> Result<bool> {
        // SAFETY: the nodes of the tree live, and nothing changes them during this call.
        Ok(unsafe { super::find(root, probe) }?.is_some())
    }

    pub(super) fn replace(
        &mut self,
        root: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
        value: V,
    ) -> Result<Option<Replaced<V>>> {
        Ok(self.place(root, probe)?.map(|place| {
            let value = ValuePtr::new(self.stamp, value, self.spare);
            self.put(place, value)
        }))
    }

    pub(super) fn get_mut<'n>(
        &mut self,
        root: &'n mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<&'n mut V>>
    where
        V: Clone,
    {
        let Some(place) = self.place(root, probe)? else { return Ok(None) };
        // SAFETY: the value lives; after this it is nobody else's, and borrowed by its place.
        unsafe {
            if place.born() < self.floor {
                let copy = ValuePtr::new(self.stamp, place.get().clone(), self.spare);
                // Others see the one before.
                self.put(place, copy);
            }
            Ok(Some(place.get_mut()))
        }
    }

    pub(super) fn remove_at_root(
        &mut self,
        root: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<(K, Replaced<V>)>> {
        if !Self::has(*root, probe)? {
            return Ok(None);
        }
        let removed = self.remove(root, probe)?;
        // A root with one child gives way to it.
        // SAFETY: nodes of the tree live, and nobody changes them here.
        while let Some(Hot::Inner(inner)) = unsafe { root.in_memory() }
            && let [only] = inner.children.as_slice()
        {
            let above = std::mem::replace(root, *only);
            self.end_node(above);
        }
        Ok(removed)
    }

    fn remove(
        &mut self,
        node: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<(K, Replaced<V>)>> {
        match self.own(node)? {
            HotMut::Leaf(leaf) => {
                let Ok(at) = leaf.find(probe) else { return Ok(None) };
                let (key, value) = (leaf.keys.remove(at), leaf.values.remove(at));
                Ok(Some((key, self.end_value(value))))
            }
            HotMut::Inner(inner) => {
                let at = inner.child_for(probe);
                let Some(child) = inner.children.get_mut(at) else { return Ok(None) };
                let removed = self.remove(child, probe)?;
                // SAFETY: nodes of the tree live, and nobody changes them here.
                if unsafe { child.width() } < FAN_IN {
                    self.widen(inner, at)?;
                }
                Ok(removed)
            }
        }
    }

    /// Joins a narrow child with a neighbour, or takes it away if it is empty.
    fn widen(&mut self, inner: &mut Inner<K, V>, at: usize) -> Result<()> {
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
        let width = |node: &NodePtr<K, V>| unsafe { node.width() };
        let empty = inner.children.get(at).is_some_and(|child| width(child) == 0);
        if empty && inner.children.len() > 1 {
            let child = inner.children.remove(at);
            inner.bounds.remove(at.saturating_sub(1));
            self.end_node(child);
            return Ok(());
        }
        let left = if at + 1 < inner.children.len() { at } else { at.saturating_sub(1) };
        let [a, b] = [inner.children.get(left), inner.children.get(left + 1)];
        let (Some(a), Some(b)) = (a, b) else { return Ok(()) };
        // SAFETY: as above.
        let alike = matches!(
            unsafe { (a.in_memory(), b.in_memory()) },
            (Some(Hot::Leaf(_)), Some(Hot::Leaf(_))) | (Some(Hot::Inner(_)), Some(Hot::Inner(_)))
        );
        if !alike || width(a) + width(b) > FAN_OUT {
            return Ok(());
        }
        let right = inner.children.remove(left + 1);
        let bound = inner.bounds.remove(left);
        let Some(joined) = inner.children.get_mut(left) else { return Ok(()) };
        // SAFETY: as above; the right one is not the left one.
        match (self.own(joined)?, unsafe { right.in_memory() }) {
            (HotMut::Leaf(a), Some(Hot::Leaf(b))) => {
                append_clones(&mut a.keys, &b.keys);
                append(&mut a.values, &b.values);
            }
            (HotMut::Inner(a), Some(Hot::Inner(b))) => {
                a.bounds.push(bound);
                append_clones(&mut a.bounds, &b.bounds);
                append(&mut a.children, &b.children);
            }
            _ => {}
        }
        self.end_node(right);
        Ok(())
    }
}
