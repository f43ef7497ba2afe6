//! Where something lies that one thread at a time takes and gives back, and that others may look at while it
//! lies there.
//!
//! A lock around it would cost four atomic operations each time; so taking it is one, and giving it back a store.
//!
//! # Invariants
//! - What lies there is a box. Nothing does while one thread has taken it, or looks at it.
//! - Whoever looks has the lock of those who look, and puts it back before the lock is released.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::PoisonError;

use crate::sync::atomic::{AtomicPtr, Mutex, MutexGuard, Ordering};

pub(crate) struct Desk<T> {
    at: AtomicPtr<T>,
    /// Threads hand it over to each other, as by a lock.
    looks: Mutex<PhantomData<Box<T>>>,
}

impl<T> Desk<T> {
    pub(crate) fn new(what: Box<T>) -> Desk<T> {
        const { assert!(size_of::<T>() > 0, "a box has a place of its own") };
        Desk { at: AtomicPtr::new(Box::into_raw(what)), looks: Mutex::new(PhantomData) }
    }

    /// What the desk holds while somebody looks; nothing lies at this address.
    fn looked_at() -> *mut T {
        NonNull::dangling().as_ptr()
    }

    fn lock(&self) -> MutexGuard<'_, PhantomData<Box<T>>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what lies there; `None` if another one has it.
    pub(crate) fn take(&self) -> Option<Box<T>> {
        let mut taken = self.at.swap(ptr::null_mut(), Ordering::Acquire);
        if taken == Self::looked_at() {
            // Whoever looks stores it over this null; and then nobody does.
            let _looks = self.lock();
            taken = self.at.swap(ptr::null_mut(), Ordering::Acquire);
        }
        // SAFETY: what is not null was a box, which is left to whoever finds it.
        (!taken.is_null()).then(|| unsafe { Box::from_raw(taken) })
    }

    /// Puts back what was taken.
    pub(crate) fn put(&self, what: Box<T>) {
        self.at.store(Box::into_raw(what), Ordering::Release);
    }

    /// Lets `f` look at what lies there, if it does.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        let _looks = self.lock();
        let (there, looked_at) = (self.at.load(Ordering::Relaxed), Self::looked_at());
        if there.is_null() {
            return None;
        }
        self.at.compare_exchange(there, looked_at, Ordering::Acquire, Ordering::Relaxed).ok()?;
        // SAFETY: it was a box, and nobody else finds it before it is put back.
        let mut back = Back { desk: self, what: Some(unsafe { Box::from_raw(there) }) };
        back.what.as_deref_mut().map(f)
    }
}

impl<T> Drop for Desk<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

/// Puts back what was looked at, also after a panic.
struct Back<'a, T> {
    desk: &'a Desk<T>,
    what: Option<Box<T>>,
}

impl<T> Drop for Back<'_, T> {
    fn drop(&mut self) {
        if let Some(what) = self.what.take() {
            // A store would do; but loom does not see that it comes after the null of whoever takes meanwhile.
            self.desk.at.swap(Box::into_raw(what), Ordering::Release);
        }
    }
}
