//! Values that lie in their leaf: each has a seat there, and the leaf's places tell which.
//!
//! So a value is replaced under the eyes of others as one is that lies elsewhere: the new one takes a free seat, and
//! what its place told before is noted. A leaf has more seats than places.
//!
//! # Invariants
//! - A seat is marked as taken if a place tells of it, or a note that somebody may need. What is in such a seat does
//!   not change, unless nobody but a draft can have come to it.
//! - A seat is one of the leaf's. What tells of it tells as well whether a value is in it.
//! - Such values are plain: a copy of their bits is as good, and what becomes of one that nobody sees any more does not
//!   matter.

use std::any::TypeId;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, needs_drop};
use std::net::Ipv4Addr;
use std::num::NonZero;
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::{FAN_OUT, append};
use crate::tree::place::{Place, Pointer};
use crate::tree::stored::{Old, Why, value_at};

/// A value of no more bytes has a seat in its leaf, if it is plain: it fits into a [`Small`].
const SEATED_BYTES_MAX: usize = size_of::<u64>();

/// So many seats a leaf has: of one that is full, as those are whose keys came in ascending order, a value is replaced
/// under the eyes of others as well, and one more before it is known who saw the first.
pub(in crate::tree) const SEATS: usize = FAN_OUT + 2;

/// Whether values have seats in their leaves. That is known when this is compiled.
#[inline]
pub(in crate::tree) fn are_seated<V>() -> bool {
    let may_be = const { may_be_seated::<V>() };
    may_be && is_plain::<V>()
}

pub(in crate::tree) const fn may_be_seated<V>() -> bool {
    !needs_drop::<V>() && size_of::<V>() <= SEATED_BYTES_MAX && align_of::<V>() <= align_of::<u64>()
}

/// Whether a copy of a value's bits is as good as the value: it owns nothing, and nothing in it changes behind a shared
/// reference. So it is of a type that takes no room. Of others that the crate does not know nothing tells so, not even
/// whether they are `Copy`.
#[inline]
fn is_plain<V>() -> bool {
    let this = typeid::of::<V>();
    // Without optimizations each comparison of types counts.
    macro_rules! is_any {
        ($($plain:ty),* $(,)?) => {
            $(const { size_of::<V>() == size_of::<$plain>() } && this == TypeId::of::<$plain>() ||)* false
        };
    }
    /// What is made of each of these, as far as it [may have a seat](may_be_seated).
    macro_rules! is_made_of {
        ($($part:ty)*) => {
            is_any!($(Option<$part>, ($part, $part), [$part; 1], [$part; 2], [$part; 4], [$part; 8]),*)
        };
    }
    macro_rules! is_not_zero {
        ($($number:ty)*) => { is_any!($(NonZero<$number>, Option<NonZero<$number>>),*) };
    }
    size_of::<V>() == 0
        || is_any!(bool, char, u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64)
        || is_made_of!(bool char u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64)
        || is_not_zero!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize)
        || is_any!([u8; 3], [u8; 5], [u8; 6], [u8; 7], Ipv4Addr)
}

/// Where a value is in its leaf; or why one does not decode, which is [marked](NO_VALUE).
#[derive(Clone, Copy, PartialEq)]
pub(in crate::tree) struct Seat(u8);

const NO_VALUE: u8 = 1 << 6;

const _: () = assert!(SEATS <= NO_VALUE as usize, "the mark is none of the number's bits");

impl Seat {
    fn new(number: u8, is_value: bool) -> Seat {
        Seat(if is_value { number } else { number | NO_VALUE })
    }

    #[inline]
    fn number(self) -> u8 {
        self.0 & !NO_VALUE
    }

    #[inline]
    fn is_value(self) -> bool {
        self.0 & NO_VALUE == 0
    }

    fn bit(self) -> u64 {
        1 << self.number()
    }
}

/// What is in a seat, on the way to it or from there.
pub(in crate::tree) struct Small<V> {
    bits: MaybeUninit<u64>,
    holds: Holds,
    of: PhantomData<V>,
}

/// A word: what is shorter would be moved in pieces, and those who read it wait until all of them are written.
#[derive(Clone, Copy, PartialEq)]
#[repr(usize)]
enum Holds {
    Value,
    Why,
}

impl<V> Clone for Small<V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Small<V> {}

impl<V> Small<V> {
    /// With room for what it is to be.
    fn nothing(holds: Holds) -> Self {
        assert!(const { may_be_seated::<V>() }, "others lie elsewhere");
        Small { bits: MaybeUninit::uninit(), holds, of: PhantomData }
    }

    fn at(&mut self) -> NonNull<V> {
        NonNull::from(&mut self.bits).cast()
    }

    /// # Safety
    /// The value can be read, and nobody uses it from now on.
    #[inline]
    pub(super) unsafe fn moved(value: *const V) -> Self {
        let mut small = Self::nothing(Holds::Value);
        // SAFETY: the caller's promise; there is room.
        unsafe { small.at().as_ptr().copy_from_nonoverlapping(value, 1) };
        small
    }

    pub(super) fn undecodable(why: Why) -> Self {
        let mut small = Self::nothing(Holds::Why);
        // SAFETY: there is room.
        unsafe { why.put(small.at()) };
        small
    }

    #[inline]
    pub(in crate::tree) fn into_old<'a>(mut self) -> Old<'a, V> {
        // SAFETY: one of them was put here, or copied from where it was.
        unsafe { Old::read(self.at(), self.holds == Holds::Value) }
    }
}

impl Pointer for Seat {
    type Kept = AtomicU8;

    /// It is no address; but neither is it null.
    fn erase(self) -> NonNull<()> {
        // SAFETY: it is not null.
        unsafe { NonNull::new_unchecked(ptr::without_provenance_mut(usize::from(self.0) + 1)) }
    }

    unsafe fn restore(erased: NonNull<()>) -> Self {
        Seat(erased.addr().get().to_le_bytes()[0] - 1)
    }
}

/// The values of a leaf.
#[repr(C)]
pub(in crate::tree) struct Seats<V> {
    places: ArrayVec<Place<Seat>, FAN_OUT>,
    /// A bit for each seat that is taken; whoever has the pen looks at it.
    taken: AtomicU64,
    /// Those of them that only a note tells of.
    noted: AtomicU64,
    values: [UnsafeCell<MaybeUninit<V>>; SEATS],
}

const _: () = assert!(SEATS < u64::BITS as usize, "one bit for each");

impl<V> Seats<V> {
    /// # Safety
    /// There is room, which nobody else has.
    pub(super) unsafe fn begin(at: *mut Self) {
        // SAFETY: the caller's promise. Seats that nobody has taken need nothing.
        unsafe {
            ptr::addr_of_mut!((*at).places).write(ArrayVec::new_const());
            ptr::addr_of_mut!((*at).taken).write(AtomicU64::new(0));
            ptr::addr_of_mut!((*at).noted).write(AtomicU64::new(0));
        }
    }

    #[inline]
    pub(in crate::tree) fn places(&self) -> &[Place<Seat>] {
        &self.places
    }

    #[inline]
    fn at(&self, seat: Seat) -> NonNull<V> {
        // SAFETY: a seat is one of the leaf's.
        unsafe { NonNull::from(&self.values).cast::<V>().add(seat.number().into()) }
    }

    /// What is in a seat, to be looked at.
    ///
    /// # Safety
    /// It is taken and the leaf lives for `'a`, and nobody changes it meanwhile.
    #[inline]
    pub(in crate::tree) unsafe fn get<'a>(&self, seat: Seat) -> Result<&'a V, Why> {
        // SAFETY: the caller's promise.
        unsafe { value_at(self.at(seat), seat.is_value()).map(|value| value.as_ref()) }
    }

    /// The same, to be changed.
    ///
    /// # Safety
    /// It is taken and the leaf lives for `'a`, and nobody else looks at it meanwhile.
    pub(in crate::tree) unsafe fn get_mut<'a>(&self, seat: Seat) -> Result<&'a mut V, Why> {
        // SAFETY: the caller's promise.
        unsafe { value_at(self.at(seat), seat.is_value()).map(|mut value| value.as_mut()) }
    }

    /// A copy of what is in a seat.
    ///
    /// # Safety
    /// It is taken, and nobody changes it meanwhile.
    pub(in crate::tree) unsafe fn copy(&self, seat: Seat) -> Small<V> {
        let mut copy = Small::nothing(if seat.is_value() { Holds::Value } else { Holds::Why });
        // SAFETY: the caller's promise; there is room.
        unsafe { copy.at().copy_from_nonoverlapping(self.at(seat), 1) };
        copy
    }

    /// Puts something else into a seat, and tells how to speak of it from now on.
    ///
    /// # Safety
    /// It is taken, and nobody looks at it meanwhile.
    pub(in crate::tree) unsafe fn change(&self, seat: Seat, mut to: Small<V>) -> Seat {
        // SAFETY: the caller's promise.
        unsafe { self.at(seat).copy_from_nonoverlapping(to.at(), 1) };
        Seat::new(seat.number(), to.holds == Holds::Value)
    }

    /// Takes a seat that was free, if there is one.
    pub(in crate::tree) fn seat(&self, value: Small<V>) -> Option<Seat> {
        let taken = self.taken.load(Ordering::Relaxed);
        let free = (!taken).trailing_zeros();
        if free as usize >= SEATS {
            return None;
        }
        self.taken.store(taken | 1 << free, Ordering::Relaxed);
        // SAFETY: nobody reads from a seat that is free.
        Some(unsafe { self.change(Seat(free.to_le_bytes()[0]), value) })
    }

    /// The seats that places tell of.
    fn seated(&self) -> u64 {
        self.taken.load(Ordering::Relaxed) & !self.noted.load(Ordering::Relaxed)
    }

    /// Has the seats be free that notes alone tell of: nobody needs them any more.
    pub(super) fn forget_notes(&self) {
        self.taken.store(self.seated(), Ordering::Relaxed);
        self.noted.store(0, Ordering::Relaxed);
    }

    /// Tells that a seat is that of a note by now, and no other place's.
    pub(in crate::tree) fn note(&self, seat: Seat) {
        self.noted.store(self.noted.load(Ordering::Relaxed) | seat.bit(), Ordering::Relaxed);
    }

    /// Tells that a seat is that of a place again.
    pub(super) fn note_no_more(&self, seat: Seat) {
        self.noted.store(self.noted.load(Ordering::Relaxed) & !seat.bit(), Ordering::Relaxed);
    }

    /// Puts a value into a place, for which there is room.
    pub(super) fn insert(&mut self, at: usize, value: Small<V>) {
        let seat = self.seat(value).or_else(|| {
            // Nobody else can reach the leaf: what was noted is needed no more.
            self.forget_notes();
            self.seat(value)
        });
        let Some(seat) = seat else { unreachable!("no fewer seats than places") };
        self.places.insert(at, Place::new(seat));
    }

    /// Puts a value in the place of another.
    pub(super) fn replace(&mut self, at: usize, value: Small<V>) -> Option<Small<V>> {
        let seat = self.places.get(at)?.now();
        // SAFETY: it is taken, and nobody else can come to it.
        let (before, seat) = unsafe { (self.copy(seat), self.change(seat, value)) };
        self.places.get_mut(at)?.set(seat);
        Some(before)
    }

    pub(super) fn remove(&mut self, at: usize) -> Small<V> {
        let seat = self.places.remove(at).now();
        *self.taken.get_mut() &= !seat.bit();
        // SAFETY: it was taken, and is free from now on.
        unsafe { self.copy(seat) }
    }

    /// Moves some of the values behind those of another leaf, where there is room.
    pub(super) fn give(&mut self, which: Range<usize>, to: &mut Self) {
        for place in self.places.get(which.clone()).unwrap_or_default() {
            // SAFETY: it is taken, and free as soon as it has lost its place.
            to.push(unsafe { self.copy(place.now()) });
        }
        for place in self.places.drain(which) {
            *self.taken.get_mut() &= !place.now().bit();
        }
    }

    fn push(&mut self, value: Small<V>) {
        self.insert(self.places.len(), value);
    }

    /// Puts copies of all values of another leaf behind its own, for which there is room.
    ///
    /// # Safety
    /// The caller has the pen.
    pub(super) unsafe fn append(&mut self, from: &Self) {
        // SAFETY: values that have seats are plain, and those of the newest tree are not changed while they are looked
        // at. Nobody reads from a seat that is free. Whoever has the pen reads the places.
        unsafe {
            if self.places.is_empty() {
                // All of them keep their seats.
                ptr::copy_nonoverlapping(&raw const from.values, &raw mut self.values, 1);
                *self.taken.get_mut() = from.seated();
                *self.noted.get_mut() = 0;
                append(&mut self.places, &from.places);
            } else {
                from.places.iter().for_each(|place| self.push(from.copy(place.now())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Box<Seats<u32>> {
        let mut room = Box::new_uninit();
        // SAFETY: the room is nobody else's, and what is not written needs nothing.
        unsafe {
            Seats::begin(room.as_mut_ptr());
            room.assume_init()
        }
    }

    #[test]
    fn what_the_crate_knows_and_what_takes_no_room_has_a_seat() {
        struct Nothing;
        #[derive(Clone, Copy)]
        struct Money(#[expect(dead_code, reason = "it is like a number")] i64);
        struct Parting;
        impl Drop for Parting {
            fn drop(&mut self) {}
        }
        let seated = [
            are_seated::<()>(),
            are_seated::<Nothing>(),
            are_seated::<f64>(),
            are_seated::<(u32, u32)>(),
            are_seated::<Option<char>>(),
            are_seated::<[u8; 7]>(),
            are_seated::<Option<NonZero<u64>>>(),
            are_seated::<Ipv4Addr>(),
        ];
        let others = [
            are_seated::<u128>(),
            are_seated::<Option<u64>>(),
            are_seated::<(u64, u64)>(),
            are_seated::<Box<u8>>(),
            are_seated::<Money>(),
            are_seated::<AtomicU8>(),
            are_seated::<Option<AtomicU8>>(),
            are_seated::<Parting>(),
        ];
        assert_eq!((seated, others), ([true; 8], [false; 8]));
    }

    fn small(value: u32) -> Small<u32> {
        // SAFETY: it is read once.
        unsafe { Small::moved(&raw const value) }
    }

    /// As in a leaf that others saw once and that was emptied since.
    #[test]
    fn a_seat_of_a_note_that_nobody_needs_is_taken_with_what_is_appended() {
        let (mut to, mut from) = (empty(), empty());
        to.insert(0, small(1));
        to.note(to.places()[0].now());
        let seat = to.seat(small(2)).expect("most are free");
        *to.places.last_mut().unwrap() = Place::new(seat);
        to.remove(0);
        (0..3).for_each(|at| from.insert(at, small(10 + u32::try_from(at).unwrap())));
        // SAFETY: nobody else has them.
        unsafe { to.append(&from) };
        to.forget_notes();
        to.insert(3, small(13));
        // SAFETY: they are taken.
        let values = to.places().iter().map(|place| unsafe { *to.get(place.now()).ok().unwrap() });
        let values: Vec<u32> = values.collect();
        assert_eq!(values, [10, 11, 12, 13]);
    }
}
