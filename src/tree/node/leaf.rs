//! Leaves: keys, and where their values are.
//!
//! A value lies elsewhere, where it stays, and a place of the leaf points to it. One that is small and plain has a
//! [seat](super::seats) in the leaf itself: with it there is neither a pointer, nor a stamp, nor a cache miss of its
//! own.
//!
//! # Invariants
//! - As many places as keys, in the same order.

use std::cmp::Ordering;
use std::marker::PhantomData;
use std::mem::{ManuallyDrop, offset_of};
use std::ops::Range;
use std::ptr;

use arrayvec::ArrayVec;

use super::seats::{Seat, Seats, Small, are_seated};
use super::{
    Born, Copies, FAN_OUT, Head, Hot, Inner, KeysMut, LEAF, NodePtr, Stamp, append, partition,
};
use crate::tree::place::Place;
use crate::tree::slot::{Spare, ValuePtr, Values};
use crate::tree::stored::{Stored, Why};

/// A leaf of places that point to values, or of seats with values.
#[repr(C)]
struct Leaf<K, S> {
    head: Head,
    keys: ArrayVec<K, FAN_OUT>,
    values: S,
}

type Pointing<K, V> = Leaf<K, ArrayVec<Place<ValuePtr<V>>, FAN_OUT>>;
type Seating<K, V> = Leaf<K, Seats<V>>;

// One way leads to the keys of any node.
const _: () = assert!(offset_of!(Seating<u64, u8>, keys) == offset_of!(Inner<u64, u8>, bounds));
const _: () =
    assert!(offset_of!(Pointing<String, u8>, keys) == offset_of!(Inner<String, u8>, bounds));

/// How many bytes a leaf has, without what lies behind it.
#[inline]
pub(in crate::tree) fn leaf_bytes<K, V>() -> usize {
    if are_seated::<V>() { seating_bytes::<K, V>() } else { size_of::<Pointing<K, V>>() }
}

/// How many any node has at most.
#[inline]
pub(in crate::tree) fn node_bytes<K, V>() -> usize {
    leaf_bytes::<K, V>().max(size_of::<Inner<K, V>>())
}

/// How many a leaf with seats has.
pub(in crate::tree) const fn seating_bytes<K, V>() -> usize {
    size_of::<Seating<K, V>>().next_multiple_of(size_of::<Stamp>())
}

// Other leaves lie in the same room as inner nodes.
const _: () = assert!(size_of::<Pointing<u64, u8>>() == size_of::<Inner<u64, u8>>());
const _: () = assert!(size_of::<Pointing<String, u8>>() == size_of::<Inner<String, u8>>());

/// A value on its way to its place: where it lies, or the value itself.
pub(in crate::tree) enum NewValue<V> {
    Placed(ValuePtr<V>),
    Small(Small<V>),
}

impl<V> Clone for NewValue<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for NewValue<V> {}

impl<V> NewValue<V> {
    #[inline]
    pub(in crate::tree) fn new(born: Stamp, value: V, spare: &mut Values<V>) -> Self {
        let value = ManuallyDrop::new(value);
        // SAFETY: nobody else uses it from now on.
        unsafe { NewValue::moved(born, &raw const *value, spare) }
    }

    /// # Safety
    /// The value can be read, and nobody uses it from now on.
    #[inline]
    pub(in crate::tree) unsafe fn moved(
        born: Stamp,
        value: *const V,
        spare: &mut Values<V>,
    ) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            if are_seated::<V>() {
                NewValue::Small(Small::moved(value))
            } else {
                NewValue::Placed(ValuePtr::moved(born, value, spare))
            }
        }
    }

    /// # Safety
    /// It can be read, and nobody uses it from now on.
    #[inline]
    pub(in crate::tree) unsafe fn stored(
        born: Stamp,
        value: *const Stored<V>,
        spare: &mut Values<V>,
    ) -> Self {
        // SAFETY: the caller's promise.
        match unsafe { &*value } {
            // SAFETY: as above.
            Stored::Value(value) => unsafe { NewValue::moved(born, value, spare) },
            Stored::Undecodable(why) if are_seated::<V>() => {
                NewValue::Small(Small::undecodable(*why))
            }
            Stored::Undecodable(why) => NewValue::Placed(ValuePtr::undecodable(born, *why, spare)),
        }
    }

    /// Where it lies, if that is not to be in its leaf.
    pub(in crate::tree) fn placed(self) -> Option<ValuePtr<V>> {
        if let NewValue::Placed(value) = self { Some(value) } else { None }
    }
}

/// A leaf in memory, to be read.
pub(in crate::tree) struct LeafRef<'n, K, V>(NodePtr<K, V>, PhantomData<&'n (K, V)>);

impl<K, V> Clone for LeafRef<'_, K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for LeafRef<'_, K, V> {}

impl<K, V> PartialEq for LeafRef<'_, K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<'n, K, V> LeafRef<'n, K, V> {
    /// # Safety
    /// The node is a leaf and lives for `'n`, and meanwhile nobody changes more of it than what its places tell of.
    pub(super) unsafe fn of(node: NodePtr<K, V>) -> Self {
        LeafRef(node, PhantomData)
    }

    fn leaf<S>(self) -> *const Leaf<K, S> {
        self.0.0.as_ptr().cast()
    }

    #[inline]
    pub(in crate::tree) fn keys(self) -> &'n [K] {
        // SAFETY: the promise of whoever made this. Keys are in the same place in every leaf.
        unsafe { &(*self.leaf::<Seats<V>>()).keys }
    }

    #[inline]
    pub(in crate::tree) fn len(self) -> usize {
        self.keys().len()
    }

    /// The places that point to its values, if those have no seats.
    #[inline]
    pub(in crate::tree) fn places(self) -> &'n [Place<ValuePtr<V>>] {
        if are_seated::<V>() {
            return &[];
        }
        // SAFETY: the promise of whoever made this; it is a leaf of places.
        unsafe { &(*self.leaf::<ArrayVec<_, FAN_OUT>>()).values }
    }

    /// Its values, if they have seats.
    #[inline]
    pub(super) fn seats(self) -> Option<&'n Seats<V>> {
        // SAFETY: the promise of whoever made this; it is a leaf of seats then.
        are_seated::<V>().then(|| unsafe { &(*self.leaf::<Seats<V>>()).values })
    }

    /// The value that a version has in a place.
    ///
    /// # Safety
    /// The version is held for `'n` and sees the leaf, or it is `Stamp::MAX` and the caller has the pen.
    #[inline]
    pub(in crate::tree) unsafe fn value(
        self,
        at: usize,
        version: Stamp,
    ) -> Option<Result<&'n V, Why>> {
        // SAFETY: the caller's promise; what is in a seat does not change as long as somebody may see it.
        unsafe {
            let past = self.0.past();
            match self.seats() {
                Some(seats) => past.see(seats.places(), at, version).map(|seat| seats.get(seat)),
                None => past.see(self.places(), at, version).map(|value| value.get()),
            }
        }
    }

    /// Where a key is, or where it belongs.
    pub(in crate::tree) fn find(self, probe: impl Fn(&K) -> Ordering) -> Result<usize, usize> {
        let at = partition(self.keys(), |key| probe(key) == Ordering::Greater);
        match self.keys().get(at) {
            Some(key) if probe(key) == Ordering::Equal => Ok(at),
            _ => Err(at),
        }
    }
}

/// A leaf in memory, to be changed.
pub(in crate::tree) struct LeafMut<'n, K, V> {
    keys: KeysMut<'n, K>,
    values: ValuesMut<'n, V>,
}

enum ValuesMut<'n, V> {
    Placed(&'n mut ArrayVec<Place<ValuePtr<V>>, FAN_OUT>),
    Seated(&'n mut Seats<V>),
}

impl<'n, K, V> LeafMut<'n, K, V> {
    /// # Safety
    /// The node is a leaf, lives for `'n`, and nobody else can reach it.
    pub(super) unsafe fn of(node: NodePtr<K, V>) -> Self {
        let at = node.0.as_ptr();
        // SAFETY: the caller's promise. Keys and values are borrowed apart.
        unsafe {
            let values = if are_seated::<V>() {
                ValuesMut::Seated(&mut (*at.cast::<Seating<K, V>>()).values)
            } else {
                ValuesMut::Placed(&mut (*at.cast::<Pointing<K, V>>()).values)
            };
            LeafMut { keys: node.keys_mut(), values }
        }
    }

    pub(in crate::tree) fn keys(&self) -> &KeysMut<'n, K> {
        &self.keys
    }

    /// The places that point to its values, if those have no seats.
    pub(in crate::tree) fn into_places(self) -> &'n mut [Place<ValuePtr<V>>] {
        if let ValuesMut::Placed(places) = self.values { places } else { &mut [] }
    }

    /// Puts a value that has a seat in the place of another.
    pub(in crate::tree) fn replace(&mut self, at: usize, value: Small<V>) -> Option<Small<V>> {
        if let ValuesMut::Seated(seats) = &mut self.values {
            seats.replace(at, value)
        } else {
            None
        }
    }

    /// Puts an entry into a place, for which there is room.
    pub(in crate::tree) fn insert(&mut self, at: usize, key: Born<K>, value: NewValue<V>) {
        self.keys.insert(at, key);
        match (&mut self.values, value) {
            (ValuesMut::Placed(places), NewValue::Placed(value)) => {
                places.insert(at, Place::new(value));
            }
            (ValuesMut::Seated(seats), NewValue::Small(value)) => {
                seats.insert(at, value);
            }
            _ => not_alike(),
        }
    }

    pub(in crate::tree) fn push(&mut self, key: Born<K>, value: NewValue<V>) {
        self.insert(self.keys.len(), key, value);
    }

    pub(in crate::tree) fn remove(&mut self, at: usize) -> (Born<K>, NewValue<V>) {
        let value = match &mut self.values {
            ValuesMut::Placed(places) => NewValue::Placed(places.remove(at).now()),
            ValuesMut::Seated(seats) => NewValue::Small(seats.remove(at)),
        };
        (self.keys.remove(at), value)
    }

    /// Moves some of the entries behind those of another leaf of the same line, where there is room.
    pub(in crate::tree) fn give(&mut self, which: Range<usize>, to: &mut Self) {
        self.keys.give(which.clone(), &mut to.keys);
        match (&mut self.values, &mut to.values) {
            (ValuesMut::Placed(places), ValuesMut::Placed(to)) => to.extend(places.drain(which)),
            (ValuesMut::Seated(seats), ValuesMut::Seated(to)) => seats.give(which, to),
            _ => not_alike(),
        }
    }

    /// Appends the entries of another leaf of the same line, for which there is room. Should a clone of a key panic,
    /// nothing was appended.
    ///
    /// # Safety
    /// The caller has the pen.
    pub(in crate::tree) unsafe fn append(&mut self, from: LeafRef<'_, K, V>)
    where
        K: Clone,
    {
        // SAFETY: the caller's promise, and that of whoever made the other one.
        unsafe {
            self.keys.append(&from.0.keys());
            match (&mut self.values, from.seats()) {
                (ValuesMut::Placed(places), None) => append(places, from.places()),
                (ValuesMut::Seated(seats), Some(from)) => seats.append(from),
                _ => not_alike(),
            }
        }
    }
}

#[cold]
fn not_alike() -> ! {
    unreachable!("all values of a type have seats, or none")
}

impl<K, V> NodePtr<K, V> {
    /// The seats of a leaf, if its values have some, and a place that tells of one.
    ///
    /// # Safety
    /// The node lives for `'a`, and meanwhile nobody changes more of it than what its places tell of.
    pub(in crate::tree) unsafe fn seat_of<'a>(
        self,
        at: usize,
    ) -> Option<(&'a Seats<V>, &'a Place<Seat>)>
    where
        K: 'a,
    {
        // SAFETY: the caller's promise.
        let Some(Hot::Leaf(leaf)) = (unsafe { self.in_memory() }) else { return None };
        let seats = leaf.seats()?;
        Some((seats, seats.places().get(at)?))
    }

    /// An empty leaf.
    pub(in crate::tree) fn leaf(born: Stamp, copies: Copies, spare: &mut Spare<K, V>) -> Self {
        let node = spare.leaf();
        let at = node.as_ptr();
        // SAFETY: the room is nobody else's. Every field is written, in the place that it has: on the stack it would be
        // copied once more. Nodes of either kind begin alike.
        unsafe {
            ptr::addr_of_mut!((*at).head).write(Head::new(born, LEAF, copies));
            ptr::addr_of_mut!((*at).bounds).write(ArrayVec::new_const());
            if are_seated::<V>() {
                Seats::begin(ptr::addr_of_mut!((*at.cast::<Seating<K, V>>()).values));
            } else {
                let values = ptr::addr_of_mut!((*at.cast::<Pointing<K, V>>()).values);
                values.write(ArrayVec::new_const());
            }
            NodePtr::to(node).begin_births();
        }
        NodePtr::to(node)
    }
}
