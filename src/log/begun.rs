//! The segment that is appended to before it has its name: what a boot makes of it, and what gives it that.

use std::sync::OnceLock;

use super::newest::Newest;
use super::scan::{SegmentReader, Unreadable};
use super::segment::FIRST_SEGMENT_BYTES;
use crate::checkpoint::reader::malformed;
use crate::control::{Step, left_out};
use crate::error::Result;
use crate::format::segment::{FRAMES_BEGIN, SEGMENT_BYTES_MAX, SegmentHeader};
use crate::format::{Malformed, Place, disk_len, name};
use crate::storage::OpenMode;
use crate::storage::directory::{Directory, PublishSteps, StoreFile};

/// It has its name only when it and the log before it are stable: then its header is the seal of what was
/// synced. Until then it is the end of the log for whoever survives the process, and what a power loss leaves
/// of it is as good as torn.
#[derive(Debug)]
pub(super) struct Begun {
    dir: Directory,
    header: SegmentHeader,
    file: StoreFile,
    /// The segment before it, unless all of it was stable.
    before: Option<StoreFile>,
    /// The same file as `file`, once it has its name for good.
    named: OnceLock<StoreFile>,
}

impl Begun {
    pub(super) fn new(
        dir: Directory,
        header: SegmentHeader,
        file: StoreFile,
        before: Option<StoreFile>,
    ) -> Begun {
        Begun { dir, header, file, before, named: OnceLock::new() }
    }

    /// Whether one of so many bytes may be left without its name for a while, behind one of `before` bytes: a boot
    /// copies what nobody claims, which may be all of both, into one segment.
    pub(super) fn may_wait(before: u64, len: u64) -> bool {
        before + len + FIRST_SEGMENT_BYTES <= SEGMENT_BYTES_MAX
    }

    /// The file under its name, if it has that.
    pub(super) fn named(&self) -> Option<&StoreFile> {
        self.named.get()
    }

    /// Syncs the segment before it and the segment itself, renames it, syncs the directory, and names it in
    /// LOCK, which is left to be synced. Syncs of the log take turns, so that it is done once.
    pub(super) fn name(&self, newest: &Newest) -> Result<()> {
        let before = self.before.as_ref().filter(|_| !left_out(Step::ClosingSync));
        let late = left_out(Step::SealAfterClosing);
        if !late {
            before.map_or(Ok(()), StoreFile::sync)?;
        }
        if left_out(Step::LockAfterSegment) {
            newest.write(&self.header)?;
            newest.sync()?;
        }
        let name = name::segment(self.header.number);
        let named = self.dir.publish(&name, self.file.clone(), PublishSteps::OF_SEGMENT)?;
        if late {
            before.map_or(Ok(()), StoreFile::sync)?;
        }
        newest.write(&self.header)?;
        self.named.set(named).ok();
        Ok(())
    }
}

/// What stands under the name of a segment that was begun.
#[derive(Debug)]
pub(crate) enum Found {
    /// It begins where the log ends.
    Continues(SegmentReader),
    /// It does not, or it is none: so many bytes of it are what a power loss left.
    Torn(u64),
}

/// Looks for what continues the log, which ends at `end` in `newest`.
///
/// # Errors
/// `Io`, and what a newer version has written. Anything else may be what a power loss leaves.
pub(crate) fn find(dir: &Directory, newest: &SegmentHeader, end: &Place) -> Result<Found> {
    let mut begun = match SegmentReader::open_file(dir, name::BEGUN) {
        Ok(begun) => begun,
        Err(Unreadable::Refused(error)) => return Err(error),
        Err(Unreadable::BadHeader(why @ Malformed::Newer(_))) => {
            return Err(malformed(&dir.path_of(name::BEGUN), 0, why));
        }
        Err(Unreadable::Absent) => return Ok(Found::Torn(0)),
        Err(Unreadable::CutShort(_) | Unreadable::BadHeader(_)) => {
            return Ok(Found::Torn(not_zero(&dir.open(name::BEGUN, OpenMode::Read)?)?));
        }
    };
    let SegmentHeader { lineage, number, epoch, nonce, before, .. } = begun.header;
    let is_ours = (lineage, epoch, nonce) == (newest.lineage, newest.epoch, newest.nonce);
    if !is_ours || number.0 != newest.number.0 + 1 {
        // An earlier boot has copied what it held, and ended before it was removed.
        return Ok(Found::Torn(0));
    }
    if before == *end {
        return Ok(Found::Continues(begun));
    }
    Ok(Found::Torn(begun.look_behind(FRAMES_BEGIN)?.not_zero))
}

/// The bytes behind where the header would be, up to the last one that is not zero.
fn not_zero(file: &StoreFile) -> Result<u64> {
    const WINDOW_BYTES: u64 = 1 << 20;
    let (mut window, mut at, mut found) = (Vec::new(), FRAMES_BEGIN, 0);
    loop {
        file.read_into(&mut window, at, WINDOW_BYTES)?;
        if window.is_empty() {
            return Ok(found);
        }
        if let Some(last) = window.iter().rposition(|byte| *byte != 0) {
            found = at + disk_len(last) + 1 - FRAMES_BEGIN;
        }
        at += disk_len(window.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_boot_copies_of_two_segments_fits_one() {
        let [mib, gib] = [1 << 20, 1 << 30];
        for (before, len, may) in [
            (FIRST_SEGMENT_BYTES, 4 * FIRST_SEGMENT_BYTES, true),
            (1023 * mib, gib, true),
            (gib, gib, false),
            (SEGMENT_BYTES_MAX, mib, false),
        ] {
            assert_eq!(Begun::may_wait(before, len), may, "{before} and {len}");
        }
    }
}
