//! Where values are, and the room of what was freed.
//!
//! # Invariants
//! - A value stays in its place for as long as anybody can see it.
//! - Room in a [`Spare`] is nobody's: what was in it was dropped or moved out.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use super::node::{Leaf, Stamp};
use super::place::{Former, Pointer};

/// A value, where it stays for as long as anybody can see it.
pub(super) struct Slot<V> {
    pub(super) born: Stamp,
    pub(super) value: V,
}

/// Points to a value.
pub(super) struct ValuePtr<V>(NonNull<Slot<V>>);

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
    pub(super) fn new<K>(born: Stamp, value: V, spare: &mut Spare<K, V>) -> Self {
        let room = spare.values.pop().unwrap_or_else(Box::new_uninit);
        let slot = Box::leak(room).write(Slot { born, value });
        ValuePtr(NonNull::from(slot))
    }

    /// # Safety
    /// The value lives for `'a`, and nobody changes it meanwhile.
    pub(super) unsafe fn get<'a>(self) -> &'a V {
        // SAFETY: the caller's promise.
        unsafe { &self.0.as_ref().value }
    }

    /// # Safety
    /// The value lives.
    pub(super) unsafe fn born(self) -> Stamp {
        // SAFETY: the caller's promise; a stamp never changes.
        unsafe { (*self.0.as_ptr()).born }
    }

    /// # Safety
    /// The value lives for `'a`, and nobody else can reach it.
    pub(super) unsafe fn get_mut<'a>(mut self) -> &'a mut V {
        // SAFETY: the caller's promise.
        unsafe { &mut self.0.as_mut().value }
    }

    /// Takes the value out, and frees where it was.
    ///
    /// # Safety
    /// The value lives, and nobody can reach it from now on.
    pub(super) unsafe fn take<K>(self, spare: &mut Spare<K, V>) -> V {
        // SAFETY: it was made by `Box::leak` in `new`, and this is its end, the caller promises.
        let (slot, room) = unsafe {
            (self.0.read(), Box::from_raw(self.0.as_ptr().cast::<MaybeUninit<Slot<V>>>()))
        };
        if spare.values.len() < SPARE_MAX {
            spare.values.push(room);
        }
        slot.value
    }

    /// Has the processor fetch it, for somebody who is about to read it.
    #[inline]
    pub(super) fn prefetch(self) {
        prefetch(self.0.as_ptr().cast(), size_of::<Slot<V>>().min(PREFETCHED_BYTES_MAX));
    }
}

/// Room of nodes and values that were freed, for new ones: with a node for each step down to a change,
/// asking the allocator would be a good part of what a change costs.
pub(super) struct Spare<K, V> {
    nodes: Vec<Box<MaybeUninit<Leaf<K, V>>>>,
    values: Vec<Box<MaybeUninit<Slot<V>>>>,
    #[expect(clippy::vec_box, reason = "a note stays where it is while somebody may look at it")]
    notes: Vec<Box<Former>>,
}

/// More room of a kind than this is given back.
const SPARE_MAX: usize = 4096;

/// With less room the next change may have to ask for more.
const SPARE_LOW: usize = 16;

impl<K, V> Default for Spare<K, V> {
    fn default() -> Self {
        Spare { nodes: Vec::new(), values: Vec::new(), notes: Vec::new() }
    }
}

impl<K, V> Spare<K, V> {
    /// Whether there is little room for the next change.
    pub(super) fn is_low(&self) -> bool {
        self.nodes.len() < SPARE_LOW || self.values.len() < SPARE_LOW
    }

    pub(super) fn take_from(&mut self, other: &mut Spare<K, V>) {
        self.nodes.append(&mut other.nodes);
        self.values.append(&mut other.values);
        self.notes.append(&mut other.notes);
    }

    /// Gives back what nobody needs soon.
    pub(super) fn trim(&mut self) {
        self.nodes.truncate(SPARE_LOW);
        self.nodes.shrink_to(SPARE_LOW);
        self.values.truncate(SPARE_LOW);
        self.values.shrink_to(SPARE_LOW);
        self.notes.truncate(SPARE_LOW);
        self.notes.shrink_to(SPARE_LOW);
    }

    pub(super) fn room(&mut self) -> Box<MaybeUninit<Leaf<K, V>>> {
        self.nodes.pop().unwrap_or_else(Box::new_uninit)
    }

    pub(super) fn give(&mut self, room: Box<MaybeUninit<Leaf<K, V>>>) {
        if self.nodes.len() < SPARE_MAX {
            self.nodes.push(room);
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

/// Of what is larger the beginning is fetched, and the rest by whoever needs it.
pub(super) const PREFETCHED_BYTES_MAX: usize = 640;

/// Has the processor fetch bytes into its cache, all at once: the steps of a search would wait for one
/// line after the other.
#[inline]
pub(super) fn prefetch(from: *const u8, bytes: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for line in (0..bytes).step_by(64) {
            // SAFETY: a prefetch reads nothing, whatever the address.
            unsafe { _mm_prefetch(from.wrapping_add(line).cast(), _MM_HINT_T0) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _: (*const u8, usize) = (from, bytes);
}
