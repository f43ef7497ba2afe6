//! Reading the log: frame after frame, and the search for claims behind a broken place.
//!
//! # Invariants
//! - Reads and never writes; tells what stands at a place and leaves the verdict to others.
//! - Memory is bounded by a window and the longest frame whose header is valid, which is never
//!   longer than the file.

use std::path::Path;
use std::sync::Arc;

use super::ahead::{Ahead, Stretch, WINDOW_BYTES};
use super::held::Window;
use crate::control::{Step, left_out};
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, Frame, FrameHeader, Verified, next_places};
use crate::format::segment::{FRAMES_BEGIN, SegmentHeader};
use crate::format::{
    BLOCK_BYTES, Lsn, Malformed, Place, SECTOR_BYTES, SegmentNo, block_after, disk_len, is_zero,
    memory_len, name,
};
use crate::storage::OpenMode;
use crate::storage::directory::{Directory, StoreFile};

/// What is written follows what was written before; a block of it may be lost.
const NEAR_BYTES: u64 = 4 * BLOCK_BYTES;

/// A segment whose header is valid.
#[derive(Debug)]
pub(crate) struct SegmentReader {
    pub(crate) header: SegmentHeader,
    file: StoreFile,
    /// Nobody needs what is behind this, unless the log is not as it should be.
    needed: u64,
    /// Who has read what comes next, perhaps.
    pub(crate) ahead: Option<Arc<Ahead>>,
    window: Window,
    window_at: u64,
}

/// Evidence that the log was synced up to some place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) offset: u64,
    /// The commit that followed when it was stated.
    pub(crate) stated_before: Lsn,
}

/// What stands behind the place where the log does not continue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behind {
    /// The furthest claim of the segment's header and of every block from there on.
    pub(crate) claim: Claim,
    /// The bytes up to the last one that is not zero: what a torn tail leaves.
    pub(crate) not_zero: u64,
}

/// Why a segment cannot be read at all.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// The system refused: an I/O error, not a verdict on the bytes.
    Refused(Error),
    /// There is no such file.
    Absent,
    /// The file is shorter than its header says; this many bytes.
    CutShort(u64),
    /// The header is not one.
    BadHeader(Malformed),
}

/// What stands at a place of the log.
#[derive(Debug)]
pub(crate) enum Standing<'a> {
    /// A valid frame that continues the chain, and what it was read into.
    Continues(Frame<'a>, &'a Window),
    /// A valid frame in the right place that names another predecessor; it begins here.
    BreaksChain(u64),
    /// Anything else.
    Nothing,
}

impl SegmentReader {
    /// Opens a segment by its number and checks its header and length.
    pub(crate) fn open(dir: &Directory, number: SegmentNo) -> Result<SegmentReader, Unreadable> {
        let segment = SegmentReader::open_file(dir, &name::segment(number))?;
        if segment.header.number != number && !left_out(Step::SegmentNumber) {
            return Err(Unreadable::BadHeader(Malformed::Field("number")));
        }
        Ok(segment)
    }

    pub(super) fn open_file(dir: &Directory, name: &str) -> Result<SegmentReader, Unreadable> {
        let file = match dir.open(name, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.is_absent() => return Err(Unreadable::Absent),
            Err(error) => return Err(Unreadable::Refused(error)),
        };
        let head = file.read(0, disk_len(SECTOR_BYTES)).map_err(Unreadable::Refused)?;
        let header = SegmentHeader::decode(&head).map_err(Unreadable::BadHeader)?;
        let len = file.len().map_err(Unreadable::Refused)?;
        if len < header.len {
            return Err(Unreadable::CutShort(len));
        }
        let needed = header.len;
        let (ahead, window) = (None, Window::default());
        Ok(SegmentReader { header, file, needed, ahead, window, window_at: 0 })
    }

    /// Takes note that the next segment seals this one there.
    pub(crate) fn seal_at(&mut self, end: u64) {
        self.needed = block_after(end).min(self.header.len);
    }

    /// Closes the file; it is opened again for each time that it is read.
    pub(crate) fn close(&mut self, dir: &Directory) {
        self.file = dir.closed(&name::segment(self.header.number));
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// What is read of it by whoever reads from there to its end.
    pub(crate) fn stretch(&self, begin: u64) -> Stretch {
        let (number, file) = (self.header.number, self.file.clone());
        Stretch { number, file, begin, end: self.needed }
    }

    /// Looks at the place where the log should continue.
    pub(crate) fn next(&mut self, place: &Place) -> Result<Standing<'_>> {
        let mut found = None;
        for offset in next_places(place.offset) {
            let Some(header) = self.header_at(offset)? else { continue };
            if header.facts.follows != place.offset {
                continue;
            }
            let Some(verified) = self.verify(header)? else { continue };
            let continues =
                header.facts.chain == place.chain && header.facts.first_lsn == place.lsn.next();
            if !continues {
                return Ok(Standing::BreaksChain(offset));
            }
            found = Some(verified);
            break;
        }
        let Some(verified) = found else { return Ok(Standing::Nothing) };
        let (begin, len) = (verified.header().begin, verified.header().len);
        // They are in the window, where they were checked.
        self.bytes(begin, len)?;
        let frame = verified.frame(part(&self.window, begin - self.window_at, len));
        Ok(Standing::Continues(frame, &self.window))
    }

    /// Whether the next few blocks hold nothing.
    pub(crate) fn is_empty_behind(&mut self, offset: u64) -> Result<bool> {
        let end = (offset + NEAR_BYTES).min(self.header.len);
        let bytes = self.bytes(offset, end.saturating_sub(offset))?;
        Ok(bytes.chunks(memory_len(BLOCK_BYTES)).all(is_zero))
    }

    /// Looks at every block after `offset`, up to the segment's end.
    pub(crate) fn look_behind(&mut self, offset: u64) -> Result<Behind> {
        let claim = Claim { offset: self.header.claim, stated_before: self.header.before.lsn };
        let mut behind = Behind { claim, not_zero: 0 };
        let mut at = offset;
        while at < self.header.len {
            let end = block_after(at + 1).min(self.header.len);
            let bytes = self.bytes(at, end - at)?;
            if !is_zero(bytes) {
                let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or_default();
                behind.not_zero = at + disk_len(last) + 1 - offset;
                let begins_block = at.is_multiple_of(BLOCK_BYTES) && at >= FRAMES_BEGIN;
                if begins_block
                    && let Some(header) = self.header_at(at)?
                    && header.facts.claim > behind.claim.offset
                {
                    let stated_before = header.facts.first_lsn;
                    behind.claim = Claim { offset: header.facts.claim, stated_before };
                }
            }
            at = end;
        }
        Ok(behind)
    }

    /// The next frame at or behind a broken place that is valid in itself, whatever it continues: where
    /// the next one should stand, behind one whose header is whole and whose body is not, or at the
    /// beginning of a block. Whoever goes on from what it follows finds it, further on than here.
    #[cfg(feature = "inspect")]
    pub(crate) fn resume_behind(&mut self, offset: u64) -> Result<Option<FrameHeader>> {
        let blocks = (block_after(offset + 1)..self.header.len).step_by(memory_len(BLOCK_BYTES));
        for at in next_places(offset).chain(blocks) {
            let Some(header) = self.header_at(at)? else { continue };
            for next in [at].into_iter().chain(next_places(header.end())) {
                let Some(header) = self.header_at(next)? else { continue };
                let follows = header.facts.follows;
                let found = follows >= offset && next_places(follows).any(|place| place == next);
                if found && self.verify(header)?.is_some() {
                    return Ok(Some(header));
                }
            }
        }
        Ok(None)
    }

    /// Forgets what was read, also ahead, to look again.
    pub(crate) fn forget(&mut self) {
        self.ahead = None;
        self.window = Arc::default();
    }

    fn header_at(&mut self, offset: u64) -> Result<Option<FrameHeader>> {
        let salt = self.header.salt;
        let room = self.header.len.saturating_sub(offset);
        if room < disk_len(FRAME_HEADER_BYTES) {
            return Ok(None);
        }
        let bytes = self.bytes(offset, disk_len(FRAME_HEADER_BYTES))?;
        Ok(FrameHeader::decode(bytes, salt, offset).filter(|header| header.len <= room))
    }

    fn verify(&mut self, header: FrameHeader) -> Result<Option<Verified>> {
        let salt = self.header.salt;
        Ok(header.verify(self.bytes(header.begin, header.len)?, salt))
    }

    /// The bytes at `offset`, through a window that moves forward.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let inside = offset >= self.window_at
            && offset + len <= self.window_at + disk_len(self.window.len());
        if !inside {
            // A window that somebody keeps is left to them.
            let ours = Arc::into_inner(std::mem::take(&mut self.window)).unwrap_or_default();
            let ahead = self.ahead.as_ref();
            let read = ahead.and_then(|ahead| ahead.bytes(self.header.number, offset, len));
            (self.window, self.window_at) = match read {
                Some(read) => read,
                None => (self.read(ours, offset, len)?, offset),
            };
        }
        Ok(part(&self.window, offset - self.window_at, len))
    }

    fn read(&self, mut window: Vec<u8>, offset: u64, len: u64) -> Result<Window> {
        let want = len.max(WINDOW_BYTES.min(self.needed.saturating_sub(offset)));
        let read = self.file.read_into(&mut window, offset, want);
        if read.is_err() && left_out(Step::FailedReadRefuses) {
            window = vec![0; memory_len(want)];
        } else {
            read?;
        }
        if disk_len(window.len()) < len {
            let end = offset + disk_len(window.len());
            return Err(Error::damaged(self.file.path(), end, "the file became shorter"));
        }
        Ok(Arc::new(window))
    }
}

fn part(window: &[u8], from: u64, len: u64) -> &[u8] {
    let from = memory_len(from);
    window.get(from..from + memory_len(len)).unwrap_or_default()
}
