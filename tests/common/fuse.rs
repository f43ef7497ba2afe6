//! What makes one destructor of many panic.

use std::cell::Cell;

thread_local! {
    /// Which one panics, counted from now; 0 is none.
    pub static FUSE: Cell<u64> = const { Cell::new(0) };
}

/// A destructor runs, which panics if that is its turn.
pub fn burn() {
    if FUSE.get() > 0 && !std::thread::panicking() {
        FUSE.set(FUSE.get() - 1);
        assert!(FUSE.get() > 0, "on purpose");
    }
}
