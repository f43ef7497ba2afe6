//! The end of the log: where frames are appended and syncs begin.
//!
//! # Invariants
//! - Starting a sync closes the block: the next frame begins a new one.
//! - A frame's claim is what had been synced when it was written, and a frame with a new claim
//!   begins a block.
//! - After an error the writer is not used again; the store is poisoned.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::segment::{Spare, next_len};
use super::tail::ReplayWork;
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameFacts, seal};
use crate::format::lock::LockSector;
use crate::format::segment::{FRAMES_BEGIN, SegmentHeader};
use crate::format::{BLOCK_BYTES, Lsn, Place, SegmentNo, block_after, disk_len, memory_len};
use crate::storage::directory::{Directory, PublishSteps, StoreFile};

/// Where the keeper leaves the next segment.
#[derive(Debug, Default)]
pub(crate) struct SpareSlot {
    spare: Mutex<Option<Spare>>,
    /// Whether one is there: writers ask after each frame.
    is_filled: AtomicBool,
}

impl SpareSlot {
    pub(crate) fn fill(&self, spare: Option<Spare>) {
        let mut slot = self.spare.lock();
        self.is_filled.store(spare.is_some(), Ordering::Relaxed);
        *slot = spare;
    }

    fn take(&self) -> Option<Spare> {
        let mut slot = self.spare.lock();
        self.is_filled.store(false, Ordering::Relaxed);
        slot.take()
    }

    fn is_filled(&self) -> bool {
        self.is_filled.load(Ordering::Relaxed)
    }
}

/// The open end of the log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: Directory,
    lock_file: StoreFile,
    header: SegmentHeader,
    file: StoreFile,
    /// After the last frame.
    end: Place,
    /// Where the next frame goes.
    next: u64,
    /// Everything up to here is stable.
    synced: Place,
    /// The claim of the last frame written, or of the header.
    stated_claim: u64,
    /// The last commit that some frame or header states to be stable.
    witnessed: Lsn,
    /// What a boot would replay of all that was appended since this open.
    work: ReplayWork,
    segment_bytes: u64,
    spare: Arc<SpareSlot>,
    turn: Arc<crate::sync::Mutex<Turn>>,
}

/// A sync under way: what will be stable when it returns.
#[derive(Debug)]
pub(crate) struct Sync {
    file: StoreFile,
    place: Place,
    turn: Arc<crate::sync::Mutex<Turn>>,
}

/// How the syncs before this one ended.
#[derive(Debug, Default)]
enum Turn {
    #[default]
    Well,
    /// Under way; or it panicked, for whoever has the lock after it.
    Begun,
    Failed(Error),
}

impl Sync {
    /// Runs the sync, after any that is under way; the log may be appended to meanwhile.
    ///
    /// The system tells of a write that failed once for each open file: of two syncs at a time one would
    /// return as if nothing had happened.
    pub(crate) fn run(&self) -> Result<()> {
        let mut turn = self.turn.lock();
        match &*turn {
            Turn::Well => {}
            _ if left_out(Step::FailedSyncIsFinal) => {}
            Turn::Begun => {
                return Err(Error::new(
                    ErrorKind::Poisoned,
                    "the thread that synced the log panicked",
                ));
            }
            Turn::Failed(first) => return Err(first.clone()),
        }
        *turn = Turn::Begun;
        let synced = self.file.sync();
        *turn = synced.as_ref().map_or_else(|error| Turn::Failed(error.clone()), |()| Turn::Well);
        synced
    }
}

impl LogWriter {
    /// Continues the log in a segment that is stable up to `end`.
    pub(crate) fn new(
        dir: Directory,
        lock_file: StoreFile,
        header: SegmentHeader,
        file: StoreFile,
        end: Place,
        segment_bytes: u64,
    ) -> LogWriter {
        let next = block_after(end.offset);
        LogWriter {
            dir,
            lock_file,
            stated_claim: header.claim,
            header,
            file,
            end,
            next,
            synced: end,
            witnessed: end.lsn,
            work: ReplayWork { segments: 1, ..ReplayWork::default() },
            segment_bytes,
            spare: Arc::default(),
            turn: Arc::default(),
        }
    }

    /// Appends one frame: `frame` holds [`FRAME_HEADER_BYTES`] of room and the records. With
    /// `close`, a sync will follow, so the write fills its block.
    pub(crate) fn append(&mut self, frame: &mut Vec<u8>, commits: u32, close: bool) -> Result<()> {
        let len = disk_len(frame.len());
        if self.place_for_frame() + len > self.header.len {
            self.begin_segment(len)?;
        }
        let offset = self.place_for_frame();
        let facts = FrameFacts {
            chain: self.end.chain,
            commits,
            claim: self.claim(),
            follows: self.end.offset,
            first_lsn: self.end.lsn.next(),
            time_us: self.dir.time_us(),
        };
        let chain = seal(frame, &facts, self.header.salt, offset);
        if close {
            // A whole block is written without reading what the page held before.
            frame.resize(memory_len(block_after(offset + len) - offset), 0);
        }
        self.file.write(frame, offset)?;
        self.stated_claim = facts.claim;
        self.witnessed = self.synced.lsn;
        self.work.bytes += block_after(offset + len) - block_after(self.end.offset.min(offset));
        self.end = Place {
            segment: self.header.number,
            offset: offset + len,
            lsn: self.end.lsn.plus(u64::from(commits)),
            chain,
        };
        self.next = self.end.offset;
        Ok(())
    }

    /// A witness that what was acknowledged is stable, for a log that falls idle.
    pub(crate) fn append_witness(&mut self) -> Result<()> {
        self.append(&mut vec![0; FRAME_HEADER_BYTES], 0, false)
    }

    /// Whether the last acknowledged commit has no witness yet.
    pub(crate) fn lacks_witness(&self) -> bool {
        let acknowledged = self.synced.lsn == self.end.lsn;
        acknowledged && self.synced.lsn > self.witnessed && !left_out(Step::Witness)
    }

    /// Closes the block and says what to sync.
    pub(crate) fn begin_sync(&mut self) -> Sync {
        if !left_out(Step::BlockIsClosed) {
            self.next = block_after(self.end.offset);
        }
        Sync { file: self.file.clone(), place: self.end, turn: Arc::clone(&self.turn) }
    }

    /// Takes note that a sync returned.
    pub(crate) fn end_sync(&mut self, sync: &Sync) {
        let newer =
            (sync.place.segment, sync.place.offset) > (self.synced.segment, self.synced.offset);
        if newer {
            self.synced = sync.place;
        }
    }

    /// Takes note of how many operations a frame held.
    pub(crate) fn count_operations(&mut self, operations: u64) {
        self.work.operations += operations;
    }

    /// What a boot would replay of all that was appended since this open.
    pub(crate) fn work(&self) -> ReplayWork {
        self.work
    }

    /// Whether every commit that was appended is stable.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced.lsn == self.end.lsn
    }

    /// Everything before this place is stable.
    pub(crate) fn synced(&self) -> Place {
        self.synced
    }

    /// Whether a spare segment should be made: when this one is half used, unless one is there.
    pub(crate) fn wants_spare(&self) -> bool {
        self.next * 2 > self.header.len && !self.spare.is_filled()
    }

    /// Where to put a spare segment that is wanted, and the length it needs. A spare leaves its place
    /// and its temporary name within one call of [`append`](Self::append), so that two are never made
    /// under one name.
    pub(crate) fn wanted_spare(&self) -> Option<(Arc<SpareSlot>, u64)> {
        let len = next_len(self.header.len, 0, self.segment_bytes);
        self.wants_spare().then(|| (Arc::clone(&self.spare), len))
    }

    fn claim(&self) -> u64 {
        let here = self.synced.segment == self.header.number;
        if left_out(Step::ClaimsAreSynced) {
            return self.end.offset.max(self.header.claim);
        }
        if here && !left_out(Step::FramesClaim) {
            self.synced.offset.max(self.header.claim)
        } else {
            self.header.claim
        }
    }

    fn place_for_frame(&self) -> u64 {
        let closed = self.claim() > self.stated_claim && !left_out(Step::BlockIsClosed);
        if closed { block_after(self.next) } else { self.next }
    }

    /// Closes this segment and begins the next: sync the old one, unless all of it is stable, then give
    /// the new one a header that seals it, sync, rename, sync the directory, and name it in LOCK.
    fn begin_segment(&mut self, frame: u64) -> Result<()> {
        let sync = self.begin_sync();
        let late = left_out(Step::SealAfterClosing);
        let is_stable = self.synced == self.end;
        if !is_stable && !late && !left_out(Step::ClosingSync) {
            sync.run()?;
        }
        self.end_sync(&sync);
        let number = SegmentNo(self.header.number.0 + 1);
        let len = next_len(self.header.len, frame, self.segment_bytes);
        let ready = self.spare.take();
        let spare = match ready {
            Some(spare) if spare.len >= FRAMES_BEGIN + frame => spare,
            _ => Spare::allocated_in_time(&self.dir, len)?,
        };
        let header = SegmentHeader {
            number,
            len: spare.len,
            salt: self.dir.random()?,
            claim: FRAMES_BEGIN,
            before: self.end,
            ..self.header
        };
        if left_out(Step::LockAfterSegment) {
            write_lock_sector(&self.lock_file, &header)?;
        }
        self.file = spare.publish(&self.dir, &header, PublishSteps::OF_SEGMENT)?;
        if late {
            sync.run()?;
        }
        self.header = header;
        self.work.segments += 1;
        self.end = header.begin();
        self.synced = self.end;
        self.next = FRAMES_BEGIN;
        self.stated_claim = header.claim;
        self.witnessed = self.synced.lsn;
        write_lock_sector(&self.lock_file, &header)
    }
}

/// Names the newest segment in LOCK, after it is durable.
pub(crate) fn write_lock_sector(lock_file: &StoreFile, newest: &SegmentHeader) -> Result<()> {
    let sector =
        LockSector { lineage: newest.lineage, epoch: newest.epoch, newest_segment: newest.number };
    if !left_out(Step::LockWrite) {
        lock_file.write(&sector.encode(), 0)?;
    }
    if left_out(Step::LockSync) { Ok(()) } else { lock_file.sync() }
}

const _: () = assert!(FRAME_HEADER_BYTES as u64 <= BLOCK_BYTES);
