//! Syncs of the log, two at a time where the storage allows it; the first of a segment gives it its name.

use std::sync::{Arc, OnceLock};

use super::begun::Begun;
use super::newest::Newest;
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Place;
use crate::storage::directory::StoreFile;
use crate::sync::Mutex;

/// A sync under way: what will be stable when it returns.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(super) file: StoreFile,
    /// What `file` is, if it had no name of its own.
    pub(super) begun: Option<Arc<Begun>>,
    pub(super) place: Place,
    /// Others may run beside it.
    pub(super) beside: bool,
    pub(super) syncs: Arc<Syncs>,
}

/// What the syncs of a log share.
#[derive(Debug)]
pub(super) struct Syncs {
    /// What names the newest segment.
    pub(super) newest: Arc<Newest>,
    /// Whose turn it is, of those that run beside none of their kind.
    turn: Mutex<()>,
    /// The first that failed. None counts that begins after it.
    failed: OnceLock<Error>,
}

impl Syncs {
    pub(super) fn new(newest: Newest) -> Syncs {
        Syncs { newest: Arc::new(newest), turn: Mutex::default(), failed: OnceLock::new() }
    }

    fn check(&self) -> Result<()> {
        match self.failed.get() {
            Some(first) if !left_out(Step::FailedSyncIsFinal) => Err(first.clone()),
            _ => Ok(()),
        }
    }
}

/// Notes that a sync panicked.
struct UnlessItEnds<'a>(&'a Syncs);

impl Drop for UnlessItEnds<'_> {
    fn drop(&mut self) {
        let what = "the thread that synced the log panicked";
        self.0.failed.set(Error::new(ErrorKind::Poisoned, what)).ok();
    }
}

impl Sync {
    /// Runs the sync; the log may be appended to meanwhile.
    ///
    /// The system tells of a write that failed once for each open file: of two syncs at a time one would return as
    /// if nothing had happened. So they take turns, unless each has a file of its own.
    pub(crate) fn run(&self) -> Result<()> {
        let unnamed = self.begun.as_ref().filter(|begun| begun.named().is_none());
        let _turn = (unnamed.is_some() || !self.beside).then(|| self.syncs.turn.lock());
        self.syncs.check()?;
        let unless_it_ends = UnlessItEnds(&self.syncs);
        let synced = match unnamed {
            Some(begun) if begun.named().is_none() => begun.name(&self.syncs.newest),
            // Whoever had the turn before has named it.
            _ => self.file.sync(),
        };
        let synced = synced.and_then(|()| self.syncs.newest.sync());
        std::mem::forget(unless_it_ends);
        if let Err(error) = &synced {
            self.syncs.failed.set(error.clone()).ok();
        }
        synced
    }
}
