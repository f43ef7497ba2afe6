//! Cutting a stable piece out of the log of a running store, for a checkpoint.

use std::time::Duration;

use super::chain::{Broken, BrokenLink, Chain, Ended, read_frames};
use super::scan::Unreadable;
use super::tail::{ReplayWork, Tail, TailBuilder};
use crate::error::{Error, Result};
use crate::format::{Lineage, Lsn, Place, SegmentNo, disk_len, name};
use crate::give_way::GiveWay;
use crate::storage::directory::Directory;

/// How much is read between two looks whether somebody else wants to run.
const YIELD_BYTES: u64 = 64 << 10;

/// What a cut read, and how long that took: the same as a boot would.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutCost {
    pub(crate) work: ReplayWork,
    pub(crate) reading: Duration,
    pub(crate) sorting: Duration,
}

/// Reads and sorts what lies between two stable places. Whatever is wrong with it is damage: all
/// of it was synced.
pub(crate) fn cut(
    dir: &Directory,
    lineage: Lineage,
    from: &Place,
    to: &Place,
    give_way: &GiveWay,
) -> Result<(Tail, CutCost)> {
    let began = dir.ticks();
    let mut bytes = 0;
    let chain = Chain::back_to(dir, lineage, to.segment, from)
        .map_err(|broken| broken_link(dir, broken))?;
    let mut builder = TailBuilder::default();
    let segments = disk_len(chain.segments.len());
    for (mut segment, begin, seal) in chain.into_parts() {
        let (mut place, until) = (begin, seal.unwrap_or(*to));
        let path = segment.path().to_owned();
        let ended = read_frames(&mut segment, &mut place, Some(until), |frame, window| {
            if frame.header.begin / YIELD_BYTES != frame.header.end() / YIELD_BYTES {
                give_way.ask()?;
            }
            builder
                .add(frame.records, Some(window), frame.header.facts.commits)
                .map_err(|why| Error::damaged(&path, frame.header.begin, why))
        })?;
        match ended {
            Ended::AtSeal => bytes += place.offset - begin.offset,
            Ended::Nothing => {
                let what = "a frame that was synced is no longer valid";
                return Err(Error::damaged(&path, place.offset, what).at_lsn(place.lsn.next()));
            }
            Ended::BreaksChain(offset) => {
                let what = "a frame does not continue the one before it";
                return Err(Error::damaged(&path, offset, what).at_lsn(place.lsn.next()));
            }
        }
    }
    let reading = dir.ticks().saturating_sub(began);
    let tail = builder.finish();
    let work = ReplayWork { bytes, operations: tail.operations, segments };
    let sorting = dir.ticks().saturating_sub(began + reading);
    Ok((tail, CutCost { work, reading, sorting }))
}

/// The error for a segment that cannot be read.
pub(crate) fn unreadable(dir: &Directory, segment: SegmentNo, why: Unreadable) -> Error {
    broken_link(dir, Broken { segment, upto: Lsn::ZERO, why: BrokenLink::Unreadable(why) })
}

/// The error for a segment that is needed and cannot be used.
pub(crate) fn broken_link(dir: &Directory, broken: Broken) -> Error {
    let path = dir.path_of(&name::segment(broken.segment));
    match broken.why {
        BrokenLink::Unreadable(Unreadable::Refused(error)) => error,
        BrokenLink::Unreadable(Unreadable::Absent) => {
            Error::damaged(&path, 0, "a segment of the log that is needed is absent")
        }
        BrokenLink::Unreadable(Unreadable::CutShort(len)) => {
            Error::damaged(&path, len, "the segment is shorter than its header says")
        }
        BrokenLink::Unreadable(Unreadable::BadHeader(why)) => {
            crate::checkpoint::reader::malformed(&path, 0, why)
        }
        BrokenLink::Foreign => Error::damaged(&path, 0, "this segment belongs to another store"),
        BrokenLink::BeginsLate => {
            Error::damaged(&path, 0, "the log before this segment is needed and gone")
        }
    }
}
