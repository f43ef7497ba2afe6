//! Where values are, and the room of what was freed.
//!
//! # Invariants
//! - A value stays in its place for as long as anybody can see it.
//! - Room in a [`Spare`] is nobody's: what was in it was dropped or moved out. With debug assertions it is
//!   [spoilt](SPOILT), so that whoever uses it still, or frees it twice, is told.

use std::marker::PhantomData;
use std::mem::{ManuallyDrop, needs_drop};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::AtomicPtr;

use super::arenas;
use super::node::{Births, Inner, Stamp, are_seated, leaf_bytes, seating_bytes};
use super::place::{Former, Pointer};
use super::room::Room;
use super::stored::{Old, Why, value_at};
use crate::prefetch::prefetch;

/// Points to a value, which stays where it is for as long as anybody can see it, and has the stamp of its birth.
/// Why one does not decode lies in the same way, marked by the lowest bit of the address; and so does a key that died
/// before what it owns may go.
pub(super) struct ValuePtr<V>(NonNull<V>);

/// Of addresses, since all rooms are aligned to stamps.
const NO_VALUE: usize = 1;

/// What all bytes of a node are that was freed, and of the stamp of a value.
const SPOILT: u8 = 0xA5;
const SPOILT_STAMP: Stamp = Stamp::from_le_bytes([SPOILT; size_of::<Stamp>()]);

/// Whether it is the stamp of what was freed.
pub(super) fn is_spoilt(stamp: Stamp) -> bool {
    stamp == SPOILT_STAMP
}

impl<V> Clone for ValuePtr<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for ValuePtr<V> {}

impl<V> PartialEq for ValuePtr<V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<V> Pointer for ValuePtr<V> {
    type Kept = AtomicPtr<()>;

    fn erase(self) -> NonNull<()> {
        self.0.cast()
    }

    unsafe fn restore(erased: NonNull<()>) -> Self {
        ValuePtr(erased.cast())
    }
}

// SAFETY: it is no more than the way to a value, which threads may share and take over.
unsafe impl<V: Send + Sync> Send for ValuePtr<V> {}
// SAFETY: as above.
unsafe impl<V: Send + Sync> Sync for ValuePtr<V> {}

impl<V> ValuePtr<V> {
    pub(super) fn new(born: Stamp, value: V, spare: &mut Values<V>) -> Self {
        let value = ManuallyDrop::new(value);
        // SAFETY: nobody else uses it from now on.
        unsafe { ValuePtr::moved(born, &raw const *value, spare) }
    }

    /// Moves a value in one copy. Through a variable it would be taken to pieces, and to read across what was just
    /// written in pieces takes a processor longer than to copy it.
    ///
    /// # Safety
    /// The value can be read, and nobody uses it from now on.
    pub(super) unsafe fn moved(born: Stamp, value: *const V, spare: &mut Values<V>) -> Self {
        let room = spare.take().cast::<V>();
        // SAFETY: the room is one for a value with its stamp, and nobody else has it.
        unsafe {
            room.as_ptr().copy_from_nonoverlapping(value, 1);
            Stamped::<V>::ROOM.stamp(room).write(born);
        }
        ValuePtr(room)
    }

    pub(super) fn undecodable(born: Stamp, why: Why, spare: &mut Values<V>) -> Self {
        let room = spare.take().cast::<V>();
        // SAFETY: as above.
        unsafe {
            why.put(room);
            Stamped::<V>::ROOM.stamp(room).write(born);
        }
        ValuePtr(room.map_addr(|address| address | NO_VALUE))
    }

    /// Where it lies.
    #[inline]
    fn at(self) -> NonNull<V> {
        // SAFETY: what is left of the address of a room is not null.
        let unmarked = |address: NonZeroUsize| unsafe {
            NonZeroUsize::new_unchecked(address.get() & !NO_VALUE)
        };
        self.0.map_addr(unmarked)
    }

    #[inline]
    fn is_value(self) -> bool {
        self.0.addr().get() & NO_VALUE == 0
    }

    /// # Safety
    /// The value lives for `'a`, and nobody changes it meanwhile.
    #[inline]
    pub(super) unsafe fn get<'a>(self) -> Result<&'a V, Why> {
        // SAFETY: the caller's promise.
        unsafe { value_at(self.at(), self.is_value()).map(|value| value.as_ref()) }
    }

    /// # Safety
    /// The value lives.
    pub(super) unsafe fn born(self) -> Stamp {
        // SAFETY: the caller's promise; a stamp never changes.
        let born = unsafe { Stamped::<V>::ROOM.stamp(self.at()).read() };
        debug_assert!(!is_spoilt(born), "a value is not used when it was freed");
        born
    }

    /// # Safety
    /// The value lives for `'a`, and nobody else can reach it.
    pub(super) unsafe fn get_mut<'a>(self) -> Result<&'a mut V, Why> {
        // SAFETY: the caller's promise.
        unsafe { value_at(self.at(), self.is_value()).map(|mut value| value.as_mut()) }
    }

    /// Takes the value out, and frees where it was.
    ///
    /// # Safety
    /// The value lives, and nobody can reach it from now on.
    pub(super) unsafe fn take<'a>(self, spare: &mut Values<V>) -> Old<'a, V> {
        // SAFETY: it lies in room for a value since `new`, and this is its end, the caller promises. What is in room
        // stays there until somebody takes that, and to move it last is to move it once.
        unsafe {
            self.forget(spare);
            Old::read(self.at(), self.is_value())
        }
    }

    /// Frees where the value was, which lives on elsewhere.
    ///
    /// # Safety
    /// Nobody uses it from now on.
    pub(super) unsafe fn forget(self, spare: &mut Values<V>) {
        // SAFETY: it lies in room for a value since `new`; the caller's promise.
        unsafe {
            if cfg!(debug_assertions) {
                self.born();
                Stamped::<V>::ROOM.stamp(self.at()).write(SPOILT_STAMP);
            }
            spare.give(self.at().cast());
        }
    }

    /// Has the processor fetch it, for somebody who is about to read it.
    #[inline]
    pub(super) fn prefetch(self) {
        prefetch(self.0.as_ptr().cast(), size_of::<V>().min(PREFETCHED_BYTES_MAX));
    }

    /// The same for somebody who is about to free it, with its stamp, which whoever uses the room next writes.
    ///
    /// # Safety
    /// The value lives.
    pub(super) unsafe fn prefetch_whole(self) {
        self.prefetch();
        // SAFETY: the caller's promise.
        let stamp = unsafe { Stamped::<V>::ROOM.stamp(self.at()) };
        prefetch(stamp.as_ptr().cast(), size_of::<Stamp>());
    }
}

/// Room at hand for new nodes and values: what was freed just now is in the processor's cache, and what
/// is taken at once lies side by side.
pub(super) struct Spare<K, V> {
    /// For leaves of values that have seats.
    seating: Rooms<SeatingRoom<K, V>>,
    /// For all other nodes.
    nodes: Rooms<Inner<K, V>>,
    pub(super) values: Values<V>,
    /// For keys that died and may be seen.
    pub(super) keys: Values<K>,
    #[expect(clippy::vec_box, reason = "a note stays where it is while somebody may look at it")]
    notes: Vec<Box<Former>>,
}

pub(super) type Values<V> = Rooms<Stamped<V>>;

/// More room of a kind than this is given back.
pub(super) const SPARE_MAX: usize = if cfg!(test) { 64 } else { 4096 };

/// So much of it at a time.
const GIVEN_AT_ONCE: usize = SPARE_MAX / 16;

/// So much is kept although nobody has needed it lately.
pub(super) const SPARE_MIN: usize = 16;

/// So much is taken at once by whoever takes again and again.
const TAKEN_AT_ONCE: usize = 32;

/// What is put into rooms of one kind.
pub(super) trait Lodger {
    const ROOM: Room;
}

/// How many bytes lie behind a node, for what its keys own.
const fn births_bytes<K>() -> usize {
    if needs_drop::<K>() { size_of::<Births>() } else { 0 }
}

impl<K, V> Lodger for Inner<K, V> {
    const ROOM: Room = {
        // They follow at once.
        assert!(size_of::<Self>().is_multiple_of(size_of::<Stamp>()));
        Room::followed_by::<Self>(births_bytes::<K>())
    };
}

/// A leaf of values that have seats in it; it is aligned like any node.
pub(super) struct SeatingRoom<K, V>(PhantomData<(K, V)>);

impl<K, V> Lodger for SeatingRoom<K, V> {
    const ROOM: Room =
        Room::followed_by::<[Inner<K, V>; 0]>(seating_bytes::<K, V>() + births_bytes::<K>());
}

/// A value that has a stamp of the room's.
pub(super) struct Stamped<T>(PhantomData<T>);

impl<T> Lodger for Stamped<T> {
    const ROOM: Room = Room::stamped::<T>();
}

/// Rooms of one kind, each nobody's.
pub(super) struct Rooms<T: Lodger> {
    free: Vec<NonNull<T>>,
    /// So much was never needed since somebody asked for that.
    unneeded: usize,
    /// How much to take next.
    next: usize,
}

// SAFETY: what is free holds nothing.
unsafe impl<T: Lodger> Send for Rooms<T> {}
// SAFETY: as above.
unsafe impl<T: Lodger> Sync for Rooms<T> {}

impl<T: Lodger> Default for Rooms<T> {
    fn default() -> Self {
        Rooms { free: Vec::new(), unneeded: 0, next: 1 }
    }
}

impl<T: Lodger> Rooms<T> {
    fn take(&mut self) -> NonNull<T> {
        if let Some(room) = self.free.pop() {
            return room;
        }
        self.take_more()
    }

    #[cold]
    fn take_more(&mut self) -> NonNull<T> {
        self.fill(self.next);
        self.next = (self.next * 2).min(TAKEN_AT_ONCE);
        self.free.pop().expect("as many as were asked for are handed out")
    }

    /// Takes so many, where there are none.
    fn expect(&mut self, count: usize) {
        if self.free.is_empty() {
            self.fill(count.min(SPARE_MAX));
        }
    }

    /// Takes so many.
    fn fill(&mut self, count: usize) {
        arenas::know_this_thread();
        self.free.reserve(count);
        T::ROOM.take(count, |room| self.free.push(room.cast()));
        // Ascending addresses are handed out in this order.
        self.free.reverse();
    }

    /// # Safety
    /// It was taken, and nobody uses it from now on.
    unsafe fn give(&mut self, room: NonNull<T>) {
        if self.free.len() >= SPARE_MAX {
            self.keep(SPARE_MAX - GIVEN_AT_ONCE);
        }
        self.free.push(room);
    }

    /// Gives back what is more than so many.
    fn keep(&mut self, count: usize) {
        let more = self.free.drain(count.min(self.free.len())..);
        // SAFETY: rooms that are free were taken, and are nobody's.
        unsafe { T::ROOM.give(more.map(NonNull::cast)) };
    }

    /// Takes what others have, as much as is kept at hand: what was freed last.
    fn take_from(&mut self, other: &mut Self) {
        let fits = SPARE_MAX.saturating_sub(self.free.len());
        self.free.extend(other.free.drain(other.free.len().saturating_sub(fits)..));
    }

    /// Notes that who needed some has had enough of it.
    fn had(&mut self) {
        self.unneeded = self.unneeded.min(self.free.len());
    }

    /// Parts with what was never needed since this was asked last, and takes what others have.
    fn part(&mut self, other: &mut Self) -> Self {
        let parted = self.unneeded.min(self.free.len()).saturating_sub(SPARE_MIN);
        let free = self.free.drain(..parted).collect();
        self.take_from(other);
        self.free.shrink_to(SPARE_MIN);
        self.unneeded = self.free.len();
        Rooms { free, unneeded: 0, next: 1 }
    }
}

impl<T: Lodger> Drop for Rooms<T> {
    fn drop(&mut self) {
        self.keep(0);
    }
}

impl<K, V> Default for Spare<K, V> {
    fn default() -> Self {
        Spare {
            seating: Rooms::default(),
            nodes: Rooms::default(),
            values: Rooms::default(),
            keys: Rooms::default(),
            notes: Vec::new(),
        }
    }
}

impl<K, V> Spare<K, V> {
    /// Takes at once what so many leaves and values need, for somebody who begins with nothing.
    pub(super) fn expect(&mut self, leaves: usize, values: usize) {
        if are_seated::<V>() {
            self.seating.expect(leaves);
        } else {
            self.nodes.expect(leaves);
            self.values.expect(values);
        }
    }

    /// Takes what others have, as much as is kept at hand.
    pub(super) fn take_from(&mut self, other: &mut Spare<K, V>) {
        self.seating.take_from(&mut other.seating);
        self.nodes.take_from(&mut other.nodes);
        self.values.take_from(&mut other.values);
        self.keys.take_from(&mut other.keys);
        self.notes.append(&mut other.notes);
        self.notes.truncate(SPARE_MAX);
    }

    /// Notes that a draft has had what it needed.
    pub(super) fn had(&mut self) {
        self.seating.had();
        self.nodes.had();
        self.values.had();
        self.keys.had();
    }

    /// Parts with what no draft has needed since this was asked last, and takes what others have. What it parts with goes
    /// back when it is dropped, which takes its time.
    #[must_use]
    pub(super) fn part(&mut self, other: &mut Spare<K, V>) -> Spare<K, V> {
        self.notes.append(&mut other.notes);
        self.notes.truncate(SPARE_MIN);
        self.notes.shrink_to(SPARE_MIN);
        Spare {
            seating: self.seating.part(&mut other.seating),
            nodes: self.nodes.part(&mut other.nodes),
            values: self.values.part(&mut other.values),
            keys: self.keys.part(&mut other.keys),
            notes: Vec::new(),
        }
    }

    /// Whether there is more than what is always kept.
    pub(super) fn is_much(&self) -> bool {
        let Spare { seating, nodes, values, keys, .. } = self;
        let counts = [seating.free.len(), nodes.free.len(), values.free.len(), keys.free.len()];
        counts.into_iter().any(|count| count > SPARE_MIN)
    }

    /// How many leaves there is room for.
    #[cfg(test)]
    pub(super) fn leaves(&self) -> usize {
        if are_seated::<V>() { self.seating.free.len() } else { self.nodes.free.len() }
    }

    /// Room for a leaf.
    pub(super) fn leaf(&mut self) -> NonNull<Inner<K, V>> {
        if are_seated::<V>() { self.seating.take().cast() } else { self.nodes.take() }
    }

    /// # Safety
    /// It is [room for a leaf](Self::leaf) that was taken, and nobody uses it from now on.
    pub(super) unsafe fn give_leaf(&mut self, room: NonNull<Inner<K, V>>) {
        // SAFETY: the caller's promise.
        unsafe {
            spoil(room, leaf_bytes::<K, V>());
            if are_seated::<V>() {
                self.seating.give(room.cast());
            } else {
                self.nodes.give(room);
            }
        }
    }

    /// Room for an inner node.
    pub(super) fn inner(&mut self) -> NonNull<Inner<K, V>> {
        self.nodes.take()
    }

    /// # Safety
    /// It is [room for an inner node](Self::inner) that was taken, and nobody uses it from now on.
    pub(super) unsafe fn give_inner(&mut self, room: NonNull<Inner<K, V>>) {
        // SAFETY: the caller's promise.
        unsafe {
            spoil(room, size_of::<Inner<K, V>>());
            self.nodes.give(room);
        }
    }

    /// Puts a note where it stays; it comes back by [`give_note`](Self::give_note).
    pub(super) fn note(&mut self, former: Former) -> *mut Former {
        Box::into_raw(match self.notes.pop() {
            Some(mut room) => {
                *room = former;
                room
            }
            None => Box::new(former),
        })
    }

    pub(super) fn give_note(&mut self, note: Box<Former>) {
        if self.notes.len() < SPARE_MAX {
            self.notes.push(note);
        }
    }
}

/// # Safety
/// There are so many bytes, and nobody uses them from now on.
unsafe fn spoil<T>(room: NonNull<T>, bytes: usize) {
    if cfg!(debug_assertions) {
        // SAFETY: the caller's promise.
        unsafe { room.cast::<u8>().write_bytes(SPOILT, bytes) };
    }
}

/// Of what is larger the beginning is fetched, and the rest by whoever needs it.
pub(super) const PREFETCHED_BYTES_MAX: usize = 640;
