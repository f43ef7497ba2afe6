//! What the code rests on that a model runs, as loom has it.

/// All share one counter.
pub(crate) fn thread_number() -> usize {
    1
}

/// As those that run have it; the threads of a model are threads of loom's alone.
#[derive(Default)]
pub(crate) struct Holder(std::sync::Mutex<Option<loom::thread::ThreadId>>);

impl Holder {
    pub(crate) fn is_this_thread(&self) -> bool {
        *self.0.lock().unwrap() == Some(loom::thread::current().id())
    }

    pub(crate) fn set(&self) {
        *self.0.lock().unwrap() = Some(loom::thread::current().id());
    }

    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap() = None;
    }
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Arc, Mutex, MutexGuard, RwLockReadGuard, RwLockWriteGuard};

    pub(crate) const IS_MODEL: bool = true;

    pub(crate) fn total_order() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool) {
        while !is_so() {
            loom::thread::yield_now();
        }
    }

    /// It is not poisoned: a model that panics ends.
    pub(crate) struct RwLock<T>(loom::sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            RwLock(loom::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }
}
