//! Syncs of the log, which take turns; the first of a segment gives it its name.

use std::sync::Arc;

use super::begun::Begun;
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
    pub(super) turn: Turn,
}

/// Whose turn it is, and how the syncs before ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Mutex<LastSync>>);

#[derive(Debug, Default)]
enum LastSync {
    #[default]
    Well,
    /// Or it panicked, for whoever has the lock after it.
    UnderWay,
    Failed(Error),
}

impl Sync {
    /// Runs the sync, after any that is under way; the log may be appended to meanwhile.
    ///
    /// The system tells of a write that failed once for each open file: of two syncs at a time one would
    /// return as if nothing had happened.
    pub(crate) fn run(&self) -> Result<()> {
        let mut last = self.turn.0.lock();
        match &*last {
            LastSync::Well => {}
            _ if left_out(Step::FailedSyncIsFinal) => {}
            LastSync::UnderWay => {
                return Err(Error::new(
                    ErrorKind::Poisoned,
                    "the thread that synced the log panicked",
                ));
            }
            LastSync::Failed(first) => return Err(first.clone()),
        }
        *last = LastSync::UnderWay;
        let synced = match &self.begun {
            Some(begun) if begun.named().is_none() => begun.name(),
            _ => self.file.sync(),
        };
        *last = synced
            .as_ref()
            .map_or_else(|error| LastSync::Failed(error.clone()), |()| LastSync::Well);
        synced
    }
}
