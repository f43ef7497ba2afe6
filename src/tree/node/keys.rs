//! The keys of a node: how one is found, and what happens to them when the node is copied.
//!
//! A key that owns memory costs an allocation for each clone, and a leaf has dozens. So where it is proven that
//! nothing of a key changes behind a shared reference, copies of a node have the same bits, and what their keys
//! own is shared. Such keys carry the stamp of their birth, as values do, and end when their place in the newest
//! tree does: at once if no version sees them, or else as one of the dead.
//!
//! # Invariants
//! - A key whose bits are shared has one owner: its place in the newest tree, or what is noted as dead. No node
//!   that was replaced drops it.
//! - Births are known of as many keys as a node has, but of ranges that were cold: theirs is that of the range.

use std::mem::needs_drop;
use std::ops::Range;
use std::ptr;

use arrayvec::ArrayVec;

use super::{Births, FAN_OUT, Inner, LEAF, NodePtr, Stamp, leaf_bytes};
use crate::tree::frozen::Frozen;

/// The steps in which keys are searched for, before one by one, where a binary search would take longer.
const STRIDE: usize = 8;

/// Of keys that are no longer the steps of a binary search are so short that fewer of them win.
const SHORT: usize = 8;

/// How many of a node's keys `before` holds for, which it does for a prefix of them.
#[inline]
pub(in crate::tree) fn partition<K>(keys: &[K], before: impl Fn(&K) -> bool) -> usize {
    if needs_drop::<K>() {
        stride(keys, before)
    } else if size_of::<K>() <= SHORT {
        keys.partition_point(before)
    } else {
        count(keys, before)
    }
}

/// What a key owns lies elsewhere, mostly not in the cache. Of a binary search each step waits for the one before;
/// where the next steps can be guessed, the processor fetches for several of them at a time.
#[inline]
fn stride<K>(keys: &[K], before: impl Fn(&K) -> bool) -> usize {
    let mut at = 0;
    while keys.get(at + STRIDE - 1).is_some_and(&before) {
        at += STRIDE;
    }
    while keys.get(at).is_some_and(&before) {
        at += 1;
    }
    at
}

/// Two long keys are compared in many steps, and halves wait for each other. So the last key of each stride is compared
/// with, all at a time, and then all of one stride.
#[inline]
fn count<K>(keys: &[K], before: impl Fn(&K) -> bool) -> usize {
    let count = |some: &[K]| some.iter().map(|key| usize::from(before(key))).sum::<usize>();
    let Some(last) = keys.len().checked_sub(STRIDE) else { return count(keys) };
    // As often in every node, so that no branch has to be guessed.
    let ends = (STRIDE - 1..FAN_OUT).step_by(STRIDE);
    let ends = ends.map(|end| keys.get(end).or(keys.last()));
    let strides: usize = ends.map(|key| usize::from(key.is_some_and(&before))).sum();
    let begin = last.min(STRIDE * strides);
    begin + keys.get(begin..).and_then(<[K]>::first_chunk::<STRIDE>).map_or(0, |some| count(some))
}

/// How copies of a node get their keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::tree) enum Copies {
    /// Each node has clones of its own, which end with it.
    Clones,
    /// They have the same bits.
    Bits,
}

impl Copies {
    pub(in crate::tree) fn of<K>(frozen: Option<Frozen<K>>) -> Copies {
        if needs_drop::<K>() && frozen.is_some() { Copies::Bits } else { Copies::Clones }
    }
}

/// A key, and when it was born.
pub(in crate::tree) struct Born<K> {
    pub(in crate::tree) key: K,
    /// The end of time for a clone, which nobody else has.
    pub(in crate::tree) born: Stamp,
}

/// The keys of a node, to be copied.
pub(in crate::tree) struct KeysRef<'n, K> {
    keys: &'n [K],
    born: Each<'n>,
}

/// When each of the keys was born.
enum Each<'n> {
    /// They are clones.
    Alone,
    Alike(Stamp),
    At(&'n Births),
}

/// The keys of a node that nobody else can reach, to be changed.
pub(in crate::tree) struct KeysMut<'n, K> {
    keys: &'n mut ArrayVec<K, FAN_OUT>,
    /// Absent for clones.
    births: Option<&'n mut Births>,
}

impl Each<'_> {
    fn born(&self, at: usize) -> Stamp {
        match self {
            Each::Alone => Stamp::MAX,
            Each::Alike(born) => *born,
            Each::At(births) => births.at(at),
        }
    }
}

impl<K> KeysRef<'_, K> {
    /// Those that copies of the node share, to be ended.
    ///
    /// # Safety
    /// Each of them has lost its place.
    pub(in crate::tree) unsafe fn shared(&self) -> impl Iterator<Item = Born<K>> {
        let shared = if let Each::Alone = self.born { &[] } else { self.keys };
        // SAFETY: the caller's promise; no node drops them.
        let keys = shared.iter().map(|key| unsafe { ptr::read(key) });
        keys.enumerate().map(|(at, key)| Born { key, born: self.born.born(at) })
    }
}

impl<K> KeysMut<'_, K> {
    pub(in crate::tree) fn len(&self) -> usize {
        self.keys.len()
    }

    /// How copies of the node get their keys.
    pub(in crate::tree) fn copies(&self) -> Copies {
        if self.births.is_some() { Copies::Bits } else { Copies::Clones }
    }

    pub(in crate::tree) fn first(&self) -> Option<&K> {
        self.keys.first()
    }

    pub(in crate::tree) fn insert(&mut self, at: usize, Born { key, born }: Born<K>) {
        let len = self.keys.len();
        self.keys.insert(at, key);
        self.births.iter_mut().for_each(|births| births.insert(at, len, born));
    }

    pub(in crate::tree) fn push(&mut self, Born { key, born }: Born<K>) {
        let at = self.keys.len();
        self.keys.push(key);
        self.births.iter_mut().for_each(|births| births.set(at, born));
    }

    pub(in crate::tree) fn remove(&mut self, at: usize) -> Born<K> {
        let len = self.keys.len();
        let key = self.keys.remove(at);
        // Nobody else has a clone.
        let born = self.births.as_mut().map_or(Stamp::MAX, |births| births.remove(at, len));
        Born { key, born }
    }

    pub(in crate::tree) fn pop(&mut self) -> Option<Born<K>> {
        Some(self.remove(self.len().checked_sub(1)?))
    }

    /// Moves some of the keys behind those of another node of the same line, where there is room.
    pub(in crate::tree) fn give(&mut self, which: Range<usize>, to: &mut Self) {
        let len = self.keys.len();
        if let (Some(from), Some(births)) = (&mut self.births, &mut to.births) {
            births.append(to.keys.len(), from, which.clone());
            from.drain(which.clone(), len);
        }
        to.keys.extend(self.keys.drain(which));
    }

    /// Appends the keys of another node of the same line, for which there is room. Of plain keys this is one copy
    /// of a block of memory: nothing is counted between two of them.
    pub(in crate::tree) fn append(&mut self, from: &KeysRef<'_, K>)
    where
        K: Clone,
    {
        let (len, count) = (self.keys.len(), from.keys.len());
        assert!(len + count <= FAN_OUT, "a node is not wider than its room");
        // SAFETY: there is room, which is not initialized. Should a clone panic, those before it are leaked. Where
        // births are known bits are copied: the node that they come from does not drop them.
        unsafe {
            let room = self.keys.as_mut_ptr().add(len);
            if let Some(births) = &mut self.births {
                ptr::copy_nonoverlapping(from.keys.as_ptr(), room, count);
                match from.born {
                    Each::At(from) => births.append(len, from, 0..count),
                    _ => (0..count).for_each(|at| births.set(len + at, from.born.born(at))),
                }
            } else {
                for (at, key) in from.keys.iter().enumerate() {
                    room.add(at).write(key.clone());
                }
            }
            self.keys.set_len(len + count);
        }
    }
}

impl<K, V> NodePtr<K, V> {
    /// Its keys, or the bounds of its children.
    ///
    /// # Safety
    /// The node lives for `'a` and is in memory, and meanwhile nobody changes more of it than what its places
    /// point to.
    pub(in crate::tree) unsafe fn keys<'a>(self) -> KeysRef<'a, K> {
        // SAFETY: the caller's promise. Both kinds of nodes have their keys in the same place.
        unsafe {
            let keys = &(*self.0.as_ptr()).bounds;
            KeysRef { keys, born: self.births() }
        }
    }

    /// When its keys were born.
    ///
    /// # Safety
    /// As for [`keys`](Self::keys).
    unsafe fn births<'a>(self) -> Each<'a> {
        // SAFETY: the caller's promise. The copies of a node are bits only if its keys may own something, and
        // births lie behind all such nodes but those that were cold.
        unsafe {
            match self.copies() {
                Copies::Clones => Each::Alone,
                Copies::Bits if self.was_cold() => Each::Alike(self.born()),
                Copies::Bits => Each::At(&*self.births_room()),
            }
        }
    }

    /// Has it know the births of its keys from now on, if copies have their bits.
    ///
    /// # Safety
    /// The node was just made, but for this.
    pub(super) unsafe fn begin_births(self) {
        // SAFETY: the caller's promise; there is room behind nodes whose keys may own something.
        unsafe {
            if self.copies() == Copies::Bits {
                self.births_room().write(Births::none(self.born()));
            }
        }
    }

    /// Behind the node.
    ///
    /// # Safety
    /// The node lives.
    unsafe fn births_room(self) -> *mut Births {
        // SAFETY: the caller's promise.
        let is_leaf = unsafe { self.kind() } == LEAF;
        let bytes = if is_leaf { leaf_bytes::<K, V>() } else { size_of::<Inner<K, V>>() };
        self.0.as_ptr().wrapping_byte_add(bytes).cast()
    }

    /// Its keys, or the bounds of its children, to be changed.
    ///
    /// # Safety
    /// The node lives for `'a`, is in memory and never was cold, and nobody else can reach it.
    pub(in crate::tree) unsafe fn keys_mut<'a>(self) -> KeysMut<'a, K> {
        // SAFETY: as for `births`; the places are no part of what is borrowed.
        unsafe {
            let keys = &mut *ptr::addr_of_mut!((*self.0.as_ptr()).bounds);
            let births = (self.copies() == Copies::Bits).then(|| &mut *self.births_room());
            KeysMut { keys, births }
        }
    }

    /// Drops the keys that the node shares with others and that were born since; those that it has alone go
    /// with it.
    ///
    /// # Safety
    /// The node lives and is about to be freed, nobody can reach such keys, and it is the newest tree's.
    pub(in crate::tree) unsafe fn drop_shared(self, since: Stamp) {
        // SAFETY: the caller's promise. It has no keys from then on.
        unsafe {
            if self.copies() == Copies::Clones {
                return;
            }
            let born = self.births();
            let keys: *mut ArrayVec<K, FAN_OUT> = ptr::addr_of_mut!((*self.0.as_ptr()).bounds);
            let len = (*keys).len();
            (*keys).set_len(0);
            let first = (*keys).as_mut_ptr();
            for at in (0..len).filter(|at| born.born(*at) >= since) {
                ptr::drop_in_place(first.add(at));
            }
        }
    }

    /// Has a node that is about to be freed drop no key that it shares with others.
    ///
    /// # Safety
    /// Nobody can reach the node.
    pub(super) unsafe fn forget_shared(self) {
        // SAFETY: the caller's promise; it is a node of either kind, whose keys are in the same place.
        unsafe {
            if self.copies() == Copies::Bits {
                (*ptr::addr_of_mut!((*self.0.as_ptr()).bounds)).set_len(0);
            }
        }
    }
}
