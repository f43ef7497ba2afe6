//! Long work gives way: to whoever commits, and for good when the store ends.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// Once in so many entries that are read is often enough.
const ENTRIES_PER_STINT: u64 = 256;

/// What those who do long work for one store ask, every so often.
#[derive(Debug, Default)]
pub(crate) struct GiveWay {
    ended: AtomicBool,
}

impl GiveWay {
    /// Lets others go first.
    ///
    /// # Errors
    /// `Closed` once nobody wants the work any more.
    pub(crate) fn ask(&self) -> Result<()> {
        std::thread::yield_now();
        if self.has_ended() { Err(Error::closed()) } else { Ok(()) }
    }

    /// The same once in a while, for who has read so many entries by now.
    pub(crate) fn ask_after(&self, entries: u64) -> Result<()> {
        if entries.is_multiple_of(ENTRIES_PER_STINT) { self.ask() } else { Ok(()) }
    }

    /// Nobody wants any of it any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
