//! The locks of the group commit, and which thread has one. In unit tests with the feature `schedules` they are ones
//! whose schedules a test explores: a wait that may time out then ends at any moment.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether schedules are explored.
pub(crate) const EXPLORED: bool = cfg!(all(test, feature = "schedules"));

#[cfg(not(all(test, feature = "schedules")))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

#[cfg(all(test, feature = "schedules"))]
pub(crate) use explored::{Condvar, Mutex, MutexGuard, lock_awake, look_awake};

/// A number for this thread, from 1.
pub(crate) fn thread_number() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
    }
    NUMBER.get()
}

/// Which thread has a lock, to tell it when it would wait for itself: no other one finds its own number here.
#[derive(Debug, Default)]
pub(crate) struct Holder(AtomicUsize);

impl Holder {
    pub(crate) fn is_this_thread(&self) -> bool {
        self.0.load(Ordering::Relaxed) == thread_number()
    }

    /// This thread has it now.
    pub(crate) fn set(&self) {
        self.0.store(thread_number(), Ordering::Relaxed);
    }

    /// It is about to let go of it.
    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Looks at a lock so often before it sleeps for it. Whoever has it may have lost its processor for a while.
const LOOKS: u32 = 300;

/// Takes a lock that is held for less than it takes to sleep and to be woken, as a rule.
#[cfg(not(all(test, feature = "schedules")))]
pub(crate) fn lock_awake<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    keep_looking(LOOKS, std::hint::spin_loop, || lock.try_lock()).unwrap_or_else(|| lock.lock())
}

/// Looks for a while whether it is so, as it soon should be.
#[cfg(not(all(test, feature = "schedules")))]
pub(crate) fn look_awake(is_so: impl Fn() -> bool) -> bool {
    keep_looking(LOOKS, std::hint::spin_loop, || is_so().then_some(())).is_some()
}

/// Looks so often whether there is something, and does this in between.
pub(crate) fn keep_looking<T>(
    times: u32,
    meanwhile: impl Fn(),
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    (0..times).find_map(|_| {
        look().or_else(|| {
            meanwhile();
            None
        })
    })
}

/// Sleeps until then, or lets others run where there is no time.
pub(crate) fn sleep_until(until: std::time::Instant) {
    #[cfg(not(all(test, feature = "schedules")))]
    std::thread::sleep(until.saturating_duration_since(std::time::Instant::now()));
    #[cfg(all(test, feature = "schedules"))]
    {
        let _: std::time::Instant = until;
        shuttle::thread::yield_now();
    }
}

/// What publishing, a desk and a lock for crowds rest on; a test puts those in their place that it runs in every order.
pub(crate) mod atomic {
    pub(crate) use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
    pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
    use std::time::Duration;

    use super::{LOOKS, keep_looking};

    /// Whoever is waited for is let go first so often, before the one that waits sleeps for so long at a time.
    const YIELDS: u32 = 100;
    const NAP: Duration = Duration::from_micros(50);

    /// Whether every order is run, so that there should not be too many.
    pub(crate) const IS_MODEL: bool = false;

    /// What was written before comes before what is read after, in an order that all threads share. That
    /// both are `SeqCst` says it already, but not to loom, which takes them for `AcqRel`.
    pub(crate) fn total_order() {}

    /// Waits for what others do, who may have lost their processors, or run code of users.
    pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
        let mut look = || is_so().then_some(());
        let seen = keep_looking(LOOKS, std::hint::spin_loop, &mut look)
            .or_else(|| keep_looking(YIELDS, std::thread::yield_now, &mut look));
        if seen.is_none() {
            while !is_so() {
                std::thread::sleep(NAP);
            }
        }
    }
}

/// Those of the standard library wake all who wait by one call of the system.
pub(crate) mod bell {
    #[cfg(all(test, feature = "schedules"))]
    pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard};
    #[cfg(not(all(test, feature = "schedules")))]
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
}

#[cfg(all(test, feature = "schedules"))]
mod explored {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    use shuttle::sync;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T> {
        lock: &'a Mutex<T>,
        /// Absent only while it is unlocked.
        guard: Option<sync::MutexGuard<'a, T>>,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(sync::Condvar);

    pub(crate) fn lock_awake<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
        lock.lock()
    }

    pub(crate) fn look_awake(is_so: impl Fn() -> bool) -> bool {
        shuttle::thread::yield_now();
        is_so()
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard { lock: self, guard: Some(self.raw()) }
        }

        /// Whoever panics under such a lock poisons nothing.
        fn raw(&self) -> sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    impl<T> MutexGuard<'_, T> {
        pub(crate) fn unlocked<U>(this: &mut Self, f: impl FnOnce() -> U) -> U {
            this.guard = None;
            let done = f();
            this.guard = Some(this.lock.raw());
            done
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.guard.as_ref().expect("it is locked")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_mut().expect("it is locked")
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Condvar {
            Condvar::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.guard.take().expect("it is locked");
            let again = self.0.wait(held).unwrap_or_else(std::sync::PoisonError::into_inner);
            guard.guard = Some(again);
        }

        #[expect(clippy::unused_self, reason = "it is used where time passes")]
        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) {
            MutexGuard::unlocked(guard, shuttle::thread::yield_now);
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}
