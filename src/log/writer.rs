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

use super::begun::Begun;
use super::newest::Newest;
use super::segment::{FIRST_SEGMENT_BYTES, Spare, next_len};
use super::sync::{Sync, Syncs};
use super::tail::ReplayWork;
use crate::control::{Step, left_out};
use crate::error::Result;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameFacts, seal};
use crate::format::segment::{FRAMES_BEGIN, SegmentHeader};
use crate::format::{BLOCK_BYTES, Lsn, Place, SegmentNo, block_after, disk_len, memory_len};
use crate::storage::SMALL_WRITE_BYTES;
use crate::storage::directory::{Directory, StoreFile};

/// Where the keeper leaves the next segment.
#[derive(Debug, Default)]
pub(crate) struct SpareSlot {
    spare: Mutex<Option<Spare>>,
    /// Whether one is there: writers ask after each frame.
    is_filled: AtomicBool,
}

impl SpareSlot {
    pub(crate) fn fill(&self, spare: Spare) {
        let mut slot = self.spare.lock();
        self.is_filled.store(true, Ordering::Relaxed);
        *slot = Some(spare);
    }

    /// Whether one is there that holds so many bytes.
    fn holds(&self, len: u64) -> bool {
        self.is_filled() && self.spare.lock().as_ref().is_some_and(|spare| spare.len >= len)
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

/// The segment that is appended to.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) header: SegmentHeader,
    pub(crate) file: StoreFile,
    /// After the last frame.
    pub(crate) end: Place,
    /// All of it was written, ahead of use.
    pub(crate) is_written: bool,
}

/// The open end of the log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    dir: Directory,
    header: SegmentHeader,
    file: StoreFile,
    is_written: bool,
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
    /// From here on a spare one is wanted.
    spare_from: u64,
    /// There was no room for the last one.
    lacks_room: bool,
    /// The newest segment, while it has no name yet.
    begun: Option<Arc<Begun>>,
    /// Two syncs of the newest segment may run at a time.
    syncs_beside: bool,
    syncs: Arc<Syncs>,
}

impl LogWriter {
    /// Continues the log in a segment that is stable up to its end.
    pub(crate) fn new(
        dir: Directory,
        newest: Newest,
        own: Current,
        segment_bytes: u64,
    ) -> LogWriter {
        let Current { header, file, end, is_written } = own;
        let next = block_after(end.offset);
        let mut log = LogWriter {
            dir,
            stated_claim: header.claim,
            header,
            syncs_beside: file.expect_syncs_beside(),
            file,
            is_written,
            end,
            next,
            synced: end,
            witnessed: end.lsn,
            work: ReplayWork { segments: 1, ..ReplayWork::default() },
            segment_bytes,
            spare: Arc::default(),
            spare_from: 0,
            lacks_room: !is_written,
            begun: None,
            syncs: Arc::new(Syncs::new(newest)),
        };
        log.expect_spare();
        log
    }

    /// Appends one frame: `frame` holds [`FRAME_HEADER_BYTES`] of room and the records. With
    /// `close`, a sync will follow, so the write fills its block.
    pub(crate) fn append(&mut self, frame: &mut Vec<u8>, commits: u32, close: bool) -> Result<()> {
        let len = disk_len(frame.len());
        let is_full = self.place_for_frame() + len > self.header.len;
        if is_full || commits > 0 && self.leaves_for(len) {
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
        if self.synced.segment == self.header.number {
            self.witnessed = self.synced.lsn;
        }
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
        let (file, begun, syncs) = (self.file.clone(), self.begun.clone(), Arc::clone(&self.syncs));
        Sync { file, begun, place: self.end, beside: self.syncs_beside, syncs }
    }

    /// Takes note that a sync returned.
    pub(crate) fn end_sync(&mut self, sync: &Sync) {
        let newer =
            (sync.place.segment, sync.place.offset) > (self.synced.segment, self.synced.offset);
        if newer {
            self.synced = sync.place;
        }
        if let Some(named) = self.begun.as_ref().and_then(|begun| begun.named().cloned()) {
            self.file = named;
            self.begun = None;
            self.witnessed = self.witnessed.max(self.header.before.lsn);
        }
    }

    /// Whether a frame that is less than a block is written without a call of the system.
    pub(crate) fn maps_small_writes(&self) -> bool {
        self.file.maps_small_writes()
    }

    /// Whether two syncs may run at a time.
    pub(crate) fn syncs_beside(&self) -> bool {
        self.syncs_beside
    }

    /// How long a frame may be that is only copied to where it belongs, whatever is appended and synced before it.
    /// To leave a segment that was made in a hurry takes some calls of the system besides, and no sync.
    pub(crate) fn copied_bytes_max(&self) -> usize {
        if !self.file.copies_small_writes() {
            return 0;
        }
        // A witness, and the rest of the block that its sync closes.
        let next = block_after(self.next) + BLOCK_BYTES;
        memory_len(self.header.len.saturating_sub(next)).min(SMALL_WRITE_BYTES)
    }

    /// What names the newest segment that has a name.
    pub(crate) fn newest(&self) -> Arc<Newest> {
        Arc::clone(&self.syncs.newest)
    }

    /// Whether the newest segment waits for a sync, to have its name.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.begun.is_some()
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

    /// Whether a spare segment should be made, unless one is there.
    pub(crate) fn wants_spare(&self) -> bool {
        self.next > self.spare_from && !self.spare.is_filled()
    }

    /// A spare segment is wanted when this one is half used; and at once if it was made in a hurry, but not for
    /// want of room: then its commits need what is left of that, which an attempt takes for a while.
    fn expect_spare(&mut self) {
        self.spare_from = if self.is_written || self.lacks_room { self.header.len / 2 } else { 0 };
    }

    /// None could be made: it is tried again, but not after each commit.
    pub(crate) fn do_without_spare(&mut self) {
        self.lacks_room = true;
        self.expect_spare();
        self.spare_from = self.spare_from.max(self.next + FIRST_SEGMENT_BYTES);
    }

    /// Where to put a spare segment that is wanted, and the length it needs. A spare leaves its place
    /// and its temporary name within one call of [`append`](Self::append), so that two are never made
    /// under one name.
    pub(crate) fn wanted_spare(&self) -> Option<(Arc<SpareSlot>, u64)> {
        let len = next_len(self.header.len, 0, self.segment_bytes);
        self.wants_spare().then(|| (Arc::clone(&self.spare), len))
    }

    /// Whether a segment that was made in a hurry is left for one that was written ahead and holds such a frame: there
    /// commits cost half as much. The rest of it was never written, and takes no room. A witness is worth no segment.
    fn leaves_for(&self, frame: u64) -> bool {
        !self.is_written && self.begun.is_none() && self.spare.holds(FRAMES_BEGIN + frame)
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

    /// Begins the next segment, with a header that seals this one. Whoever appends waits for no sync: until the
    /// first one of the new segment, which makes this one stable as well, it has a name that only a boot knows.
    fn begin_segment(&mut self, frame: u64) -> Result<()> {
        if self.begun.is_some() {
            // One at a time is left without its name.
            self.name_segment()?;
        }
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
        self.syncs_beside = spare.expect_syncs_beside();
        self.is_written = spare.is_written;
        self.lacks_room &= !spare.is_written;
        let file = spare.begin(&self.dir, &header)?;
        let may_wait = Begun::may_wait(self.header.len, header.len);
        let is_stable = self.synced == self.end;
        let before = (!is_stable).then(|| self.file.clone());
        let begun = Begun::new(self.dir.clone(), header, file.clone(), before);
        self.begun = Some(Arc::new(begun));
        self.file = file;
        self.header = header;
        self.work.segments += 1;
        self.end = header.begin();
        self.next = FRAMES_BEGIN;
        self.expect_spare();
        self.stated_claim = header.claim;
        if may_wait { Ok(()) } else { self.name_segment() }
    }

    /// Gives the newest segment its name, while nobody appends.
    fn name_segment(&mut self) -> Result<()> {
        let sync = self.begin_sync();
        sync.run()?;
        self.end_sync(&sync);
        Ok(())
    }
}

const _: () = assert!(FRAME_HEADER_BYTES as u64 <= BLOCK_BYTES);
