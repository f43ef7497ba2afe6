//! Code of the program that must not end more than itself: destructors, wakers, callbacks, what reads values.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs it; `None` if it panics, of which the panic hook has told by then. Whoever asks for it has other work
/// to do, on which more depends than what panicked.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
