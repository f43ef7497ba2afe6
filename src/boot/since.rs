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
    let Ok(Chain { mut segments, start }) =
        Chain::back_to(dir, lineage, identity.newest_segment, from)
    else {
        return Ok(None);
    };
    let Some(mut newest) = segments.pop() else { return Ok(None) };
    let (mut scanned, mut place) = (ScannedLog::begin(start), start);
    let seals = segments.iter().skip(1).map(|next| next.header.before);
    let seals: Vec<Place> = seals.chain([newest.header.before]).collect();
    for (segment, seal) in segments.iter_mut().zip(seals) {
        place = first_place(segment, place);
        read_sealed(segment, &mut place, seal, &mut scanned)?;
    }
    place = first_place(&newest, place);
    read_newest(&mut newest, &mut place, &mut scanned, true, ends)?;
    Ok(Some(Since { tail: scanned.builder.finish(), claimed: scanned.claimed, listing }))
}

/// Where to read on in a segment.
fn first_place(segment: &SegmentReader, place: Place) -> Place {
    if place.segment == segment.header.number { place } else { segment.header.begin() }
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
