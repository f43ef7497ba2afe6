//! A value that one thread at a time replaces while others read it, without a counter that readers share.
//!
//! A reader writes down what it is about to read in a slot of its own and looks whether that is still
//! published (hazard pointers: Michael, "Safe Memory Reclamation for Lock-Free Objects", 2004). Whoever
//! publishes something else looks at the slots, takes a count for each that has what was published before,
//! and empties it: the slot was a count that is owed, as in the crate `arc-swap`. So a slot is taken only
//! as long as what it has is the newest, and readers may keep what they have for as long as they like.
//!
//! There may be thousands of threads, so only those are looked at that have read lately: a bit says so of
//! each. Once in a while all bits are forgotten, and whoever still reads sets its own again.
//!
//! # Invariants
//! - A slot that was checked has what is published, or is emptied by whoever publishes before that lets go
//!   of its own count. That takes a total order (`SeqCst`) of three steps of a reader: write the slot, see
//!   or set the bit, look at what is published; and of two of a publisher: replace, look at bits and slots.
//! - Bits are cleared by the publisher alone, and set again for whoever has a slot that is not empty by then.
//! - A slot is filled by the thread that has its [`Lease`] alone, and only while it is empty; whoever holds
//!   what it has may empty it.

use std::fmt;
use std::ops::Deref;
use std::ptr::{NonNull, null_mut};
use std::sync::OnceLock;

use crate::sync::atomic::{Arc, AtomicPtr, AtomicU64, IS_MODEL, Ordering, total_order};

/// So many times 64 threads have a bit of their own; beyond that they share them.
const WORDS: usize = if IS_MODEL { 1 } else { 8 };

const BITS: usize = u64::BITS as usize;

/// A thread that holds more than this many at a time counts the others; with the one that it passes through
/// they fill a line of the cache.
pub(crate) const SLOTS: usize = if IS_MODEL { 1 } else { 7 };

/// After so many publications it is forgotten who reads.
const REMEMBERED: u32 = if cfg!(test) { 2 } else { 64 };

/// All threads that ever read some values; those that ended leave their slots to others.
pub(crate) struct Readers<T> {
    /// A bit for each that has a lease.
    leased: [AtomicU64; WORDS],
    slots: [OnceLock<Box<Slots<T>>>; WORDS * BITS],
    /// For more threads than that at a time.
    more: OnceLock<Box<Readers<T>>>,
}

/// What one thread is reading.
#[repr(align(128))]
struct Slots<T> {
    held: [AtomicPtr<T>; SLOTS],
    /// For whatever is counted right after.
    passing: AtomicPtr<T>,
}

/// The right to fill slots.
pub(crate) struct Lease<T: 'static> {
    readers: &'static Readers<T>,
    slots: &'static Slots<T>,
    /// Where it is noted, by `bit`.
    leased: &'static AtomicU64,
    word: usize,
    bit: u64,
}

/// What is published.
pub(crate) struct Published<T: 'static> {
    now: AtomicPtr<T>,
    /// Who has read it lately, by its bit.
    recent: [AtomicU64; WORDS],
    readers: &'static Readers<T>,
}

/// The right to publish.
pub(crate) struct Publisher<T: 'static> {
    published: Arc<Published<T>>,
    /// How many publications until it is forgotten who reads.
    remembered: u32,
}

/// Something that was published when it was taken.
pub(crate) struct Seen<T: 'static> {
    value: NonNull<T>,
    /// Where it is owed, unless it was counted at once.
    owed: Option<&'static AtomicPtr<T>>,
}

impl<T> Readers<T> {
    pub(crate) fn new() -> Readers<T> {
        Readers {
            leased: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: [const { OnceLock::new() }; WORDS * BITS],
            more: OnceLock::new(),
        }
    }

    /// Gives a thread slots.
    pub(crate) fn enter(&'static self) -> Lease<T> {
        let mut among = self;
        loop {
            if let Some(lease) = among.lease(self) {
                return lease;
            }
            among = among.more.get_or_init(|| Box::new(Readers::new()));
        }
    }

    fn lease(&'static self, readers: &'static Readers<T>) -> Option<Lease<T>> {
        for (word, leased) in self.leased.iter().enumerate() {
            let mut taken = leased.load(Ordering::Relaxed);
            while taken != u64::MAX {
                let nth = taken.trailing_ones() as usize;
                let bit = 1 << nth;
                taken = leased.fetch_or(bit, Ordering::AcqRel);
                if taken & bit == 0 {
                    let slots = self.slots.get(word * BITS + nth)?;
                    let slots = slots.get_or_init(|| Box::new(Slots::new()));
                    return Some(Lease { readers, slots, leased, word, bit });
                }
            }
        }
        None
    }

    /// The slots of those who have this bit.
    fn of(&self, word: usize, nth: usize) -> impl Iterator<Item = &AtomicPtr<T>> {
        let all =
            std::iter::successors(Some(self), |readers| readers.more.get().map(|more| &**more));
        let slots = all.filter_map(move |readers| readers.slots.get(word * BITS + nth)?.get());
        slots.flat_map(|slots| slots.held.iter().chain([&slots.passing]))
    }
}

impl<T> Slots<T> {
    fn new() -> Slots<T> {
        let empty = || AtomicPtr::new(null_mut());
        Slots { held: std::array::from_fn(|_| empty()), passing: empty() }
    }
}

#[cfg(test)]
impl<T> Lease<T> {
    /// Where its slots are.
    pub(crate) fn place(&self) -> usize {
        std::ptr::from_ref(self.slots).addr()
    }
}

impl<T> Drop for Lease<T> {
    fn drop(&mut self) {
        self.leased.fetch_and(!self.bit, Ordering::AcqRel);
    }
}

/// Which bits are set.
fn set(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let nth = word.trailing_zeros();
        word &= word.wrapping_sub(1);
        (nth < u64::BITS).then_some(nth as usize)
    })
}

impl<T: Send + Sync> Published<T> {
    pub(crate) fn new(
        first: Arc<T>,
        readers: &'static Readers<T>,
    ) -> (Arc<Published<T>>, Publisher<T>) {
        let shared = Arc::new(Published {
            now: AtomicPtr::new(Arc::into_raw(first).cast_mut()),
            recent: std::array::from_fn(|_| AtomicU64::new(0)),
            readers,
        });
        let publisher = Publisher { published: Arc::clone(&shared), remembered: REMEMBERED };
        (shared, publisher)
    }

    /// What is published now. Waits for nobody: it looks again only if something else was published.
    ///
    /// # Panics
    /// If the lease is one of other readers.
    pub(crate) fn see(&self, lease: &Lease<T>) -> Seen<T> {
        assert!(std::ptr::eq(self.readers, lease.readers), "the publisher looks at other readers");
        let Slots { held, passing } = lease.slots;
        match held.iter().find(|slot| slot.load(Ordering::Relaxed).is_null()) {
            Some(slot) => self.see_by(slot, lease),
            None => self.see_by(passing, lease).clone(),
        }
    }

    fn see_by(&self, slot: &'static AtomicPtr<T>, lease: &Lease<T>) -> Seen<T> {
        let recent = self.recent.get(lease.word).expect("a lease of these readers");
        loop {
            let now = self.now.load(Ordering::Relaxed);
            slot.swap(now, Ordering::SeqCst);
            total_order();
            if recent.load(Ordering::SeqCst) & lease.bit == 0 {
                recent.fetch_or(lease.bit, Ordering::SeqCst);
                total_order();
            }
            let value = NonNull::new(now).expect("something is published");
            // If it is not what is published any more, it may be gone. Then nothing is owed; or the same
            // place has something new, which was counted here, and ends below.
            let seen = Seen { value, owed: Some(slot) };
            if self.now.load(Ordering::SeqCst) == now {
                return seen;
            }
        }
    }
}

impl<T> Published<T> {
    /// Counts what is owed for something that is published no more; the caller has a count of it.
    fn settle(&self, before: *mut T) {
        for (at, recent) in self.recent.iter().enumerate() {
            let bits = recent.load(Ordering::SeqCst);
            if bits == 0 {
                continue;
            }
            for nth in set(bits) {
                for slot in self.readers.of(at, nth) {
                    if slot.load(Ordering::SeqCst) == before {
                        settle_one(slot, before);
                    }
                }
            }
        }
    }

    /// Forgets who has read, but for those who have anything in their slots: also if it is not what is
    /// published now, since something else may come to be published that lies in the same place.
    fn forget(&self) {
        for (at, recent) in self.recent.iter().enumerate() {
            if recent.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let forgotten = recent.swap(0, Ordering::SeqCst);
            total_order();
            for nth in set(forgotten) {
                if self.readers.of(at, nth).any(|slot| !slot.load(Ordering::SeqCst).is_null()) {
                    recent.fetch_or(1 << nth, Ordering::SeqCst);
                }
            }
        }
    }
}

#[cfg(test)]
impl<T> Published<T> {
    /// How many readers whoever publishes looks at.
    pub(crate) fn looked_at(&self) -> u32 {
        self.recent.iter().map(|word| word.load(Ordering::SeqCst).count_ones()).sum()
    }
}

/// Counts what one slot owes; the caller has a count of it.
fn settle_one<T>(slot: &AtomicPtr<T>, value: *mut T) {
    // SAFETY: it came from an `Arc`, of which the caller has a count.
    unsafe { Arc::increment_strong_count(value) };
    // What is read under what was released in the meantime comes before whatever the caller does next.
    let emptied =
        slot.compare_exchange(value, null_mut(), Ordering::SeqCst, Ordering::Acquire).is_ok();
    if !emptied {
        // SAFETY: it was counted above for nobody.
        unsafe { Arc::decrement_strong_count(value) };
    }
}

impl<T: Send + Sync> Publisher<T> {
    /// Publishes something else; returns what was published before, which others may still have.
    pub(crate) fn publish(&mut self, next: Arc<T>) -> Arc<T> {
        let next = Arc::into_raw(next).cast_mut();
        let before = self.published.now.swap(next, Ordering::SeqCst);
        total_order();
        self.published.settle(before);
        self.remembered -= 1;
        if self.remembered == 0 {
            self.remembered = REMEMBERED;
            self.published.forget();
        }
        // SAFETY: it came from an `Arc`, whose count was that of the place where it was published.
        unsafe { Arc::from_raw(before) }
    }
}

impl<T> Seen<T> {
    /// Takes a count, which is the caller's to end.
    fn count(&self) {
        // SAFETY: it came from an `Arc`. A count of it is here, or owed here: then the place where it was
        // published has one, until this one has been counted.
        unsafe { Arc::increment_strong_count(self.value.as_ptr()) }
    }

    /// Counts it, so that it is independent of all others.
    pub(crate) fn to_arc(&self) -> Arc<T> {
        self.count();
        // SAFETY: it came from an `Arc`, and was counted for this one.
        unsafe { Arc::from_raw(self.value.as_ptr()) }
    }
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Seen<T> {
        self.count();
        Seen { value: self.value, owed: None }
    }
}

impl<T> Deref for Seen<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: as in `count`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> Drop for Seen<T> {
    fn drop(&mut self) {
        let value = self.value.as_ptr();
        // Slots of one value owe the same, so it does not matter if this one was settled and filled anew.
        let is_settled = self.owed.is_none_or(|slot| {
            slot.compare_exchange(value, null_mut(), Ordering::AcqRel, Ordering::Acquire).is_err()
        });
        if is_settled {
            // SAFETY: it came from an `Arc`, and was counted for this one.
            drop(unsafe { Arc::from_raw(value) });
        }
    }
}

impl<T> Drop for Published<T> {
    fn drop(&mut self) {
        let last = self.now.load(Ordering::Relaxed);
        self.settle(last);
        // SAFETY: it came from an `Arc`, whose count was that of this place.
        drop(unsafe { Arc::from_raw(last) });
    }
}

// SAFETY: it is a reference to what may be shared, and its end may drop what may be sent.
unsafe impl<T: Send + Sync> Send for Seen<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Seen<T> {}

impl<T> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Published").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}
