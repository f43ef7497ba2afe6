//! What a writer has made durable since a read-only store looked last.

use super::scan::{ScannedLog, judge_end, read_newest, read_sealed};
use super::{Listing, list, locate, read_lock};
use crate::error::Result;
use crate::format::{Lineage, Place};
use crate::log::chain::{Chain, Ended};
use crate::log::scan::SegmentReader;
use crate::log::tail::Tail;
use crate::storage::directory::Directory;

/// How the log goes on behind a place.
#[derive(Debug)]
pub(crate) struct Since {
    pub(crate) tail: Tail,
    /// Everything up to here was claimed to be synced.
    pub(crate) claimed: Place,
    pub(crate) listing: Listing,
}

/// Reads the log from a place on that was claimed to be synced, as far as more is. `None` if the place is not in the
/// log any more.
pub(crate) fn since(dir: &Directory, lineage: Lineage, from: &Place) -> Result<Option<Since>> {
    let listing = list(dir)?;
    let (sector, _) = read_lock(dir, &listing)?;
    let identity = locate::identity(dir, &listing, sector)?;
    let Ok(chain) = Chain::back_to(dir, lineage, identity.newest_segment, from) else {
        return Ok(None);
    };
    let mut scanned = ScannedLog::begin(chain.start);
    for (mut segment, mut place, seal) in chain.into_parts() {
        match seal {
            Some(seal) => read_sealed(&mut segment, &mut place, seal, &mut scanned)?,
            None => read_newest(&mut segment, &mut place, &mut scanned, true, ends)?,
        }
    }
    Ok(Some(Since { tail: scanned.builder.finish(), claimed: scanned.claimed, listing }))
}

/// Mostly there is nothing behind the end, and then claims are not looked for in all of the segment, as a boot does.
fn ends(
    segment: &mut SegmentReader,
    place: &Place,
    ended: &Ended,
    claim: u64,
) -> Result<Option<u64>> {
    let ends = matches!(ended, Ended::Nothing) && claim <= place.offset;
    if ends && segment.is_empty_behind(place.offset)? {
        return Ok(Some(0));
    }
    judge_end(segment, place, ended, claim)
}
