//! Where the threads that wait for one group sleep.
//!
//! All of them are woken by one call of the system and learn there that they may go, without the lock of
//! the queue.

use std::sync::PoisonError;

use crate::sync::bell::{Condvar, Mutex, MutexGuard};

/// What a thread that waits for a commit is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Nobody leads; one of those who wait should look.
    Look,
    /// The group is written, and what it holds is visible.
    Acknowledged,
    /// It will not be, or nobody knows: the queue says why.
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct Bell {
    /// What is said to all is said for good.
    call: Mutex<Option<Call>>,
    ring: Condvar,
}

impl Bell {
    /// Sleeps until it is called.
    pub(super) fn wait(&self) -> Call {
        let mut call = self.lock();
        loop {
            match *call {
                // One of them is enough.
                Some(Call::Look) => {
                    *call = None;
                    return Call::Look;
                }
                Some(last) => return last,
                None => call = self.ring.wait(call).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Calls one of them, or whoever comes next.
    pub(super) fn ask_for_a_look(&self) {
        self.lock().get_or_insert(Call::Look);
        self.ring.notify_one();
    }

    /// Calls all of them, for the last time.
    pub(super) fn end(&self, call: Call) {
        *self.lock() = Some(call);
        self.ring.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
