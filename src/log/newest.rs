//! LOCK's sector, which names the newest segment, so that to lose that one is seen.

use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::lock::LockSector;
use crate::format::segment::SegmentHeader;
use crate::storage::directory::StoreFile;
use crate::sync::Mutex;

/// The file, and whether what it says is stable. No commit counts as synced before that, and no boot waits for
/// it: until there is such a commit, a segment that is lost takes nothing with it.
#[derive(Debug)]
pub(crate) struct Newest {
    file: StoreFile,
    /// How the sync of what was written last ended, once somebody has begun it.
    synced: Mutex<Option<Result<()>>>,
}

impl Newest {
    /// Names a boot's own segment, which is durable.
    pub(crate) fn of_boot(file: StoreFile, segment: &SegmentHeader) -> Result<Newest> {
        let newest = Newest { file, synced: Mutex::default() };
        newest.write(segment)?;
        Ok(newest)
    }

    /// Names a segment that is durable.
    pub(super) fn write(&self, segment: &SegmentHeader) -> Result<()> {
        let mut synced = self.synced.lock();
        if !left_out(Step::LockWrite) {
            name_in_lock(&self.file, segment)?;
        }
        *synced = None;
        Ok(())
    }

    /// Makes it stable, unless that is so. Who comes while somebody does waits for that; a sync that failed is not
    /// repeated.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut synced = self.synced.lock();
        if let Some(outcome) = &*synced {
            return outcome.clone();
        }
        let what = "the thread that synced LOCK panicked";
        *synced = Some(Err(Error::new(ErrorKind::Poisoned, what)));
        let outcome = if left_out(Step::LockSync) { Ok(()) } else { self.file.sync() };
        *synced = Some(outcome.clone());
        outcome
    }
}

/// Writes the sector, which is not stable yet.
pub(crate) fn name_in_lock(file: &StoreFile, segment: &SegmentHeader) -> Result<()> {
    let SegmentHeader { lineage, epoch, number, .. } = *segment;
    let sector = LockSector { lineage, epoch, newest_segment: number };
    file.write(&sector.encode(), 0)
}
