//! The state that readers see, and how they hold it.

#![allow(unsafe_code, reason = "readers hold a state that they do not count")]

mod published;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use crate::state::State;
use published::{Lease, Published, Readers};

pub(crate) type Seen = published::Seen<State>;
pub(crate) type Publisher = published::Publisher<State>;

/// Of all stores: a thread has one place.
static READERS: LazyLock<Readers<State>> = LazyLock::new(Readers::new);

thread_local! {
    static LEASE: Lease<State> = READERS.enter();
}

/// The state that readers of one store see.
#[derive(Debug)]
pub(crate) struct Visible(Arc<Published<State>>);

impl Visible {
    pub(crate) fn new(first: Arc<State>) -> (Visible, Publisher) {
        let (shared, publisher) = Published::new(first, &READERS);
        (Visible(shared), publisher)
    }

    /// The state for a while: nothing is counted before it is replaced.
    pub(crate) fn see(&self) -> Seen {
        let seen = LEASE.try_with(|lease| self.0.see(lease));
        // A thread that is about to end has given its place back.
        seen.unwrap_or_else(|_| self.0.see(&READERS.enter()))
    }
}
