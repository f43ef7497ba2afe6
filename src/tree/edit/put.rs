//! Putting a value in the place of another.

use std::cmp::Ordering;

use super::{Edit, Replaced};
use crate::error::Result;
use crate::tree::node::{Hot, NewValue, NodePtr, Small};
use crate::tree::place::Place;
use crate::tree::slot::ValuePtr;
use crate::tree::stored::Why;

impl<K: Clone, V> Edit<'_, K, V> {
    /// Puts another value into a place of a leaf, and tells of the one that was there; returns what takes the place of the
    /// leaf.
    #[inline]
    pub(super) fn put(
        &mut self,
        leaf: NodePtr<K, V>,
        at: usize,
        value: NewValue<V>,
    ) -> NodePtr<K, V> {
        match value {
            NewValue::Placed(value) => {
                let before = Self::place(leaf, at);
                let (leaf, is_new) = self.set(leaf, at, value);
                self.old = before.map(|before| self.end_value(before, is_new));
                leaf
            }
            NewValue::Small(value) => self.put_seated(leaf, at, value),
        }
    }

    /// The same of a value that has a seat.
    fn put_seated(&mut self, leaf: NodePtr<K, V>, at: usize, value: Small<V>) -> NodePtr<K, V> {
        if let Some(before) = self.put_seated_seen(leaf, at, value) {
            self.old = Some(Replaced::Small(before));
            return leaf;
        }
        let own = self.own(leaf);
        // SAFETY: it is nobody else's, and nothing of it is borrowed.
        let before = unsafe { own.leaf_mut() }.replace(at, value);
        self.old = before.map(Replaced::Small);
        own
    }

    /// The same under the eyes of others; nothing if the leaf is nobody else's, or has to be copied for it.
    fn put_seated_seen(
        &mut self,
        leaf: NodePtr<K, V>,
        at: usize,
        value: Small<V>,
    ) -> Option<Small<V>> {
        // SAFETY: nodes of the tree live, and this is the holder of the pen. What the newest of the others does not see
        // here is new: nobody looks at it.
        unsafe {
            if leaf.born() >= self.floor {
                return None;
            }
            let (seats, place) = leaf.seat_of(at)?;
            let (now, others) = (place.now(), self.floor - 1);
            let past = leaf.past();
            if past.is_newer_than(others) && past.see(seats.places(), at, others) != Some(now) {
                let before = seats.copy(now);
                place.change_again(seats.change(now, value));
                return Some(before);
            }
            if !self.has_room_for_a_note(leaf) {
                return None;
            }
            let seat = seats.seat(value)?;
            self.note(leaf, place, at, seat);
            seats.note(now);
            Some(seats.copy(now))
        }
    }

    /// What a place of a leaf points to, if its values have no seats.
    fn place(leaf: NodePtr<K, V>, at: usize) -> Option<ValuePtr<V>> {
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
        let Some(Hot::Leaf(leaf)) = (unsafe { leaf.in_memory() }) else { return None };
        leaf.places().get(at).map(Place::now)
    }

    /// The value in a place of a leaf, to be changed: a clone of it where others see it. Returns what takes the place of
    /// the leaf as well.
    fn value_mut<'n>(
        &mut self,
        leaf: NodePtr<K, V>,
        at: usize,
    ) -> (NodePtr<K, V>, Option<Result<&'n mut V, Why>>)
    where
        K: 'n,
        V: Clone,
    {
        let Some(before) = Self::place(leaf, at) else {
            return self.seated_mut(leaf, at);
        };
        // SAFETY: what is in the tree lives; what was born at or after the floor is nobody else's.
        unsafe {
            if self.is_new(leaf, &before.into()) {
                return (leaf, Some(before.get_mut()));
            }
            let clone = match before.get() {
                Ok(value) => value.clone(),
                Err(why) => return (leaf, Some(Err(why))),
            };
            let now = ValuePtr::new(self.stamp, clone, &mut self.spare.values);
            let (leaf, is_new) = self.set(leaf, at, now);
            self.end_value(before, is_new);
            (leaf, Some(now.get_mut()))
        }
    }

    /// The same of a value that has a seat.
    fn seated_mut<'n>(
        &mut self,
        mut leaf: NodePtr<K, V>,
        at: usize,
    ) -> (NodePtr<K, V>, Option<Result<&'n mut V, Why>>)
    where
        K: 'n,
    {
        // SAFETY: nodes of the tree live, and this is the holder of the pen; nobody else looks at what was just put, or
        // at what is in a leaf that is the draft's own.
        unsafe {
            if leaf.born() < self.floor
                && let Some((seats, place)) = leaf.seat_of(at)
            {
                if let Err(why) = seats.get(place.now()) {
                    return (leaf, Some(Err(why)));
                }
                leaf = self.put_seated(leaf, at, seats.copy(place.now()));
            }
            let place = leaf.seat_of(at);
            (leaf, place.map(|(seats, place)| seats.get_mut(place.now())))
        }
    }

    /// Has `change` look after the place in a leaf that `probe` finds; returns what takes the node's place, and what
    /// `change` makes of it.
    fn change<T>(
        &mut self,
        node: NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
        change: impl FnOnce(&mut Self, NodePtr<K, V>, usize) -> (NodePtr<K, V>, Option<T>),
    ) -> Result<(NodePtr<K, V>, Option<T>)> {
        match Self::hot(node)? {
            Hot::Leaf(leaf) => Ok(match leaf.find(probe) {
                Ok(at) => change(self, node, at),
                Err(_) => (node, None),
            }),
            Hot::Inner(inner) => {
                let at = inner.child_for(probe);
                let Some(child) = Self::child(inner, at) else { return Ok((node, None)) };
                let (below, done) = self.change(child, probe, change)?;
                Ok((if below == child { node } else { self.set(node, at, below).0 }, done))
            }
        }
    }

    pub(in super::super) fn replace(
        &mut self,
        root: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
        value: V,
    ) -> Result<Option<Replaced<V>>> {
        let (node, _) = self.change(*root, probe, |edit, leaf, at| {
            let value = NewValue::new(edit.stamp, value, &mut edit.spare.values);
            (edit.put(leaf, at, value), Some(()))
        })?;
        *root = node;
        Ok(self.old.take())
    }

    pub(in super::super) fn get_mut<'n>(
        &mut self,
        root: &mut NodePtr<K, V>,
        probe: &impl Fn(&K) -> Ordering,
    ) -> Result<Option<&'n mut V>>
    where
        K: 'n,
        V: Clone,
    {
        let (node, value) = self.change(*root, probe, Self::value_mut)?;
        *root = node;
        Ok(value.transpose()?)
    }
}
