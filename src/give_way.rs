//! Long work gives way: to whoever commits, and for good when the store ends.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

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

    /// Nobody wants any of it any more.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}
