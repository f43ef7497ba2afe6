//! Values that lie in their leaf: each has a seat there, and the leaf's places tell which.
//!
//! So a value is replaced under the eyes of others as one is that lies elsewhere: the new one takes a free seat, and
//! what its place told before is noted. Most leaves have free seats, since few are full.
//!
//! # Invariants
//! - A seat is marked as taken if a place tells of it, or a note that somebody may need. What is in such a seat does
//!   not change, unless nobody but a draft can have come to it.
//! - A seat is one of the leaf's.
//! - Such values are plain: a copy of their bits is as good, and what becomes of one that nobody sees any more does not
//!   matter.

use std::cell::UnsafeCell;
use std::mem::{MaybeUninit, needs_drop, offset_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::{FAN_OUT, append};
use crate::tree::place::{Place, Pointer};
use crate::tree::stored::is_plain;

/// A value of no more bytes has a seat in its leaf, if it is plain.
const SEATED_BYTES_MAX: usize = 16;

/// Whether values have seats in their leaves. That is known when this is compiled.
#[inline]
pub(in crate::tree) fn are_seated<V>() -> bool {
    let may_be = const { may_be_seated::<V>() };
    may_be && is_plain::<V>()
}

pub(in crate::tree) const fn may_be_seated<V>() -> bool {
    !needs_drop::<V>() && size_of::<V>() <= SEATED_BYTES_MAX && align_of::<V>() <= align_of::<u64>()
}

/// Where a value is in its leaf.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::tree) struct Seat(u8);

impl Seat {
    fn bit(self) -> u64 {
        1 << self.0
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
    values: [UnsafeCell<MaybeUninit<V>>; FAN_OUT],
}

const _: () = assert!(FAN_OUT < u64::BITS as usize, "one bit for each");

impl<V> Seats<V> {
    /// Where the values begin.
    pub(super) const VALUES: usize = offset_of!(Self, values);

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

    /// What lies in a seat.
    #[inline]
    pub(in crate::tree) fn at(&self, Seat(seat): Seat) -> NonNull<V> {
        // SAFETY: a seat is one of the leaf's.
        unsafe { NonNull::from(&self.values).cast::<V>().add(seat.into()) }
    }

    /// Puts a value into a seat that was free, if there is one.
    pub(in crate::tree) fn seat(&self, value: V) -> Result<Seat, V> {
        let taken = self.taken.load(Ordering::Relaxed);
        let free = (!taken).trailing_zeros();
        if free as usize >= FAN_OUT {
            return Err(value);
        }
        self.taken.store(taken | 1 << free, Ordering::Relaxed);
        let seat = Seat(free.to_le_bytes()[0]);
        // SAFETY: nobody reads from a seat that is free.
        unsafe { self.at(seat).write(value) };
        Ok(seat)
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

    /// The value in a place.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut V> {
        let seat = self.places.get(at)?.now();
        // SAFETY: it is taken, and nobody else can come to it.
        Some(unsafe { self.at(seat).as_mut() })
    }

    /// Puts a value into a place, for which there is room.
    pub(super) fn insert(&mut self, at: usize, value: V) {
        let seat = self.seat(value).or_else(|value| {
            // Nobody else can reach the leaf: what was noted is needed no more.
            self.forget_notes();
            self.seat(value)
        });
        let Ok(seat) = seat else { unreachable!("as many seats as places") };
        self.places.insert(at, Place::new(seat));
    }

    pub(super) fn remove(&mut self, at: usize) -> V {
        let seat = self.places.remove(at).now();
        *self.taken.get_mut() &= !seat.bit();
        // SAFETY: it was taken, and is free from now on.
        unsafe { self.at(seat).read() }
    }

    /// Moves the values from a place on to an empty leaf.
    pub(super) fn split_off(&mut self, at: usize, to: &mut Self) {
        for place in self.places.iter().skip(at) {
            // SAFETY: it is taken, and free as soon as it has lost its place.
            to.push(unsafe { self.at(place.now()).read() });
        }
        self.truncate(at);
    }

    fn push(&mut self, value: V) {
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
                from.places.iter().for_each(|place| self.push(from.at(place.now()).read()));
            }
        }
    }

    /// Lets go of all but so many.
    fn truncate(&mut self, len: usize) {
        for place in self.places.drain(len.min(self.places.len())..) {
            *self.taken.get_mut() &= !place.now().bit();
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

    /// As in a leaf that others saw once and that was emptied since.
    #[test]
    fn a_seat_of_a_note_that_nobody_needs_is_taken_with_what_is_appended() {
        let (mut to, mut from) = (empty(), empty());
        to.insert(0, 1);
        to.note(to.places()[0].now());
        let seat = to.seat(2).unwrap_or_else(|_| unreachable!("most are free"));
        *to.places.last_mut().unwrap() = Place::new(seat);
        to.remove(0);
        (0..3).for_each(|at| from.insert(at, 10 + u32::try_from(at).unwrap()));
        // SAFETY: nobody else has them.
        unsafe { to.append(&from) };
        to.forget_notes();
        to.insert(3, 13);
        let values: Vec<u32> = (0..4).map(|at| *to.get_mut(at).unwrap()).collect();
        assert_eq!(values, [10, 11, 12, 13]);
    }
}
