//! A lock for what many threads read, and few change: readers of a lock write to what they share, which goes back and
//! forth between their processors.
//!
//! Once something has been read for a while and not changed, readers only count themselves, in one of several
//! counters, each in a line of the cache of its own. Whoever changes it then says that it will be changed, and waits
//! until nobody is counted. This is the biased lock of Dice and Kogan (*BRAVO: Biased Locking for Reader-Writer Locks*,
//! 2019), with counters instead of a table of who reads what.
//!
//! # Invariants
//! - The value is reached by whoever has the lock, and by those who were counted before they saw that it is not to be
//!   changed. That takes a total order (`SeqCst`) of two steps of a reader, to be counted and to look; and of two of a
//!   writer, to say so and to look at the counters.
//! - Who may be counted is said under the lock: by a reader that has it, and taken back by a writer.

#![allow(unsafe_code, reason = "some readers have no lock")]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::OnceLock;

use crate::sync::atomic::{
    AtomicBool, AtomicU64, IS_MODEL, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard,
    total_order, wait_until,
};
use crate::sync::{Holder, thread_number};

const WAITS_FOR_ITSELF: &str =
    "a closure, a clone or a comparison that runs while a volatile map is changed uses that map";

/// So many counters; threads share them in turn.
const COUNTERS: usize = if IS_MODEL { 1 } else { 32 };

/// So many reads without a change are worth that the next one looks at all counters.
pub(super) const CALM: u64 = if IS_MODEL { 1 } else { 128 };

pub(crate) struct CrowdLock<T> {
    lock: RwLock<()>,
    /// Readers need not take the lock.
    is_open: AtomicBool,
    /// How often it was read under the lock since it was changed, as far as readers know of each other.
    calm: AtomicU64,
    counters: OnceLock<Box<[Counter; COUNTERS]>>,
    /// Whoever changes it.
    writer: Holder,
    value: UnsafeCell<T>,
}

/// Readers without the lock.
#[repr(align(128))]
struct Counter(AtomicU64);

// SAFETY: as for a lock: who has read and write access is said above, and both may be other threads.
unsafe impl<T: Send + Sync> Sync for CrowdLock<T> {}

/// The right to read. Like the other one it has no reference to the value, which would outlive the right while that ends.
pub(crate) struct Read<'a, T> {
    lock: &'a CrowdLock<T>,
    _held: Held<'a>,
}

/// What keeps others from changing it.
enum Held<'a> {
    Lock { _guard: RwLockReadGuard<'a, ()> },
    Counted(&'a AtomicU64),
}

/// The right to change.
pub(crate) struct Write<'a, T> {
    lock: &'a CrowdLock<T>,
    _guard: RwLockWriteGuard<'a, ()>,
}

impl<T> CrowdLock<T> {
    pub(crate) fn new(value: T) -> CrowdLock<T> {
        let lock = CrowdLock {
            lock: RwLock::new(()),
            is_open: AtomicBool::new(false),
            calm: AtomicU64::new(0),
            counters: OnceLock::new(),
            writer: Holder::default(),
            value: UnsafeCell::new(value),
        };
        if IS_MODEL {
            // Loom does not see that whoever gets them comes after whoever made them.
            lock.counters();
        }
        lock
    }

    fn counters(&self) -> &[Counter] {
        let new = || Box::new(std::array::from_fn(|_| Counter(AtomicU64::new(0))));
        self.counters.get_or_init(new).as_slice()
    }

    pub(crate) fn read(&self) -> Read<'_, T> {
        Read { lock: self, _held: self.counted().unwrap_or_else(|| self.locked()) }
    }

    /// Counts this reader, if that is enough.
    fn counted(&self) -> Option<Held<'_>> {
        if !self.is_open.load(Ordering::Relaxed) {
            return None;
        }
        let counters = self.counters.get()?.as_slice();
        let Counter(counter) = counters.get(thread_number() % counters.len())?;
        counter.fetch_add(1, Ordering::SeqCst);
        let held = Held::Counted(counter);
        total_order();
        // Acquires what was changed before it was opened.
        self.is_open.load(Ordering::SeqCst).then_some(held)
    }

    fn locked(&self) -> Held<'_> {
        assert!(!self.writer.is_this_thread(), "{WAITS_FOR_ITSELF}");
        let guard = self.lock.read();
        if !self.is_open.load(Ordering::Relaxed) {
            let calm = self.calm.load(Ordering::Relaxed) + 1;
            self.calm.store(calm, Ordering::Relaxed);
            if calm >= CALM {
                self.counters();
                self.is_open.store(true, Ordering::SeqCst);
            }
        }
        Held::Lock { _guard: guard }
    }

    pub(crate) fn write(&self) -> Write<'_, T> {
        assert!(!self.writer.is_this_thread(), "{WAITS_FOR_ITSELF}");
        let guard = self.lock.write();
        self.writer.set();
        self.calm.store(0, Ordering::Relaxed);
        if self.is_open.load(Ordering::Relaxed) {
            self.is_open.store(false, Ordering::SeqCst);
            total_order();
            for Counter(counter) in self.counters.get().into_iter().flat_map(|all| all.iter()) {
                wait_until(|| counter.load(Ordering::SeqCst) == 0);
            }
        }
        Write { lock: self, _guard: guard }
    }
}

#[cfg(test)]
impl<T> CrowdLock<T> {
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Held::Counted(counter) = self {
            counter.fetch_sub(1, Ordering::Release);
        }
    }
}

impl<T> Drop for Write<'_, T> {
    fn drop(&mut self) {
        self.lock.writer.clear();
    }
}

impl<T> Deref for Read<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: whoever changes it has the lock, and waits until nobody is counted.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Deref for Write<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: nobody else has the lock, and nobody is counted who saw that it was open.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Write<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.lock.value.get() }
    }
}
