//! This boot's own segment: it seals the log before it, and is the durable bump of the epoch.
//!
//! The frames that nobody claims to be synced are *written again*, not synced again: a page whose
//! sync once failed counts as clean, so that another sync would change nothing while the cache
//! shows bytes that the disk does not have.

use super::leftovers::Leftovers;
use super::scan::UnclaimedFrame;
use crate::control::{Step, left_out};
use crate::error::{Error, Result};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameFacts, seal as seal_frame};
use crate::format::segment::{FRAMES_BEGIN, SEGMENT_BYTES_MAX, SegmentHeader};
use crate::format::{Epoch, Lineage, Place, SegmentNo, block_after, disk_len, name};
use crate::log::segment::{Spare, first_len};
use crate::log::tail::Tail;
use crate::log::writer::Current;
use crate::storage::directory::{Directory, PublishSteps};

/// What the seal is made from; the verdict is final.
pub(super) struct Plan<'a> {
    pub(super) dir: &'a Directory,
    pub(super) lineage: Lineage,
    pub(super) epoch: Epoch,
    pub(super) nonce: u64,
    pub(super) newest: Option<SegmentHeader>,
    /// The newest segment that exists or is named.
    pub(super) named: SegmentNo,
    pub(super) claimed: Place,
    pub(super) unclaimed: &'a [UnclaimedFrame],
    /// What their records lie in.
    pub(super) tail: &'a Tail,
    /// Segments that a kept checkpoint continues in.
    pub(super) needed: Vec<SegmentNo>,
}

impl Plan<'_> {
    /// A predecessor that holds no commit and that nothing refers to, so that boots which write
    /// nothing do not lengthen the log. A checkpoint may continue behind a witness in it.
    fn superseded(&self) -> Option<SegmentHeader> {
        self.newest.filter(|newest| {
            let needed = self.needed.contains(&newest.number);
            self.claimed.lsn == newest.before.lsn && (!needed || left_out(Step::NeededSegmentStays))
        })
    }
}

/// Writes the segment under its temporary name, syncs it, names it, syncs the directory.
pub(super) fn seal(plan: &Plan<'_>, leftovers: &mut Leftovers) -> Result<Current> {
    let number = SegmentNo(plan.named.0 + 1);
    let before = match (plan.superseded(), plan.newest) {
        (Some(superseded), _) => superseded.before,
        (None, Some(_)) => plan.claimed,
        (None, None) => Place::START,
    };
    let salt = plan.dir.random()?;
    let begin = Place { segment: number, offset: FRAMES_BEGIN, ..before };
    let (copies, end) = copy_frames(plan, begin, salt);
    if end.offset > SEGMENT_BYTES_MAX {
        let path = plan.dir.path_of(&name::segment(plan.named));
        let what = "more of the log is claimed by nobody than a segment holds";
        return Err(Error::damaged(&path, plan.claimed.offset, what));
    }
    let used = plan.claimed.offset + (end.offset - begin.offset);
    let room = first_len(plan.newest.as_ref(), used);
    let len = block_after(room.max(end.offset + room / 4)).min(SEGMENT_BYTES_MAX);
    let mut prewritten = Spare::prewritten(plan.dir, len);
    if prewritten.is_err() && leftovers.give_back() {
        prewritten = Spare::prewritten(plan.dir, len);
    }
    // A full disk has room for a segment that is only as long as it says.
    let spare = prewritten.or_else(|_| Spare::allocated(plan.dir, len))?;
    if !copies.is_empty() {
        spare.write(&copies, FRAMES_BEGIN)?;
    }
    let header = SegmentHeader {
        lineage: plan.lineage,
        number,
        len: spare.len,
        epoch: plan.epoch,
        nonce: plan.nonce,
        salt,
        claim: end.offset,
        before,
    };
    let is_written = spare.is_written;
    let file = spare.publish(plan.dir, &header, PublishSteps::OF_BOOT_SEGMENT)?;
    if is_written {
        file.expect_small_writes();
    }
    Ok(Current { header, file, end, is_written })
}

/// Frames with the same commits for another place.
fn copy_frames(plan: &Plan<'_>, begin: Place, salt: u64) -> (Vec<u8>, Place) {
    let mut copies = Vec::new();
    let mut place = begin;
    for frame in plan.unclaimed {
        let mut copy = vec![0; FRAME_HEADER_BYTES];
        copy.extend_from_slice(plan.tail.records(&frame.records));
        let facts = FrameFacts {
            chain: place.chain,
            commits: frame.commits,
            claim: FRAMES_BEGIN,
            follows: place.offset,
            first_lsn: place.lsn.next(),
            time_us: frame.time_us,
        };
        let chain = seal_frame(&mut copy, &facts, salt, place.offset);
        place.offset += disk_len(copy.len());
        place.lsn = frame.last_lsn;
        place.chain = chain;
        copies.extend_from_slice(&copy);
    }
    (copies, place)
}

/// Removes the segment that this boot's own supersedes, now that that is durable.
pub(super) fn remove_superseded(plan: &Plan<'_>) -> Result<()> {
    if let Some(superseded) = plan.superseded() {
        plan.dir.remove(&name::segment(superseded.number))?;
    }
    Ok(())
}
