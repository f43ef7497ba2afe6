//! What a writer has made durable since a read-only store looked last.

use std::collections::VecDeque;

use super::scan::judge_end;
use super::{Listing, list, locate, read_lock};
use crate::error::{Error, Result};
use crate::format::{Lineage, Place};
use crate::log::chain::{Chain, Ended, read_frames};
use crate::log::scan::SegmentReader;
use crate::log::tail::{Tail, TailBuilder};
use crate::storage::directory::Directory;

/// How the log goes on behind a place.
#[derive(Debug)]
pub(crate) struct Since {
    pub(crate) tail: Tail,
    /// Everything up to here was claimed to be synced.
    pub(crate) claimed: Place,
    pub(crate) listing: Listing,
}

/// Reads the log from a place on that was claimed to be synced, as far as more is. `None` if it does not simply go
/// on: what that means is for a boot to decide.
pub(crate) fn since(dir: &Directory, lineage: Lineage, from: &Place) -> Result<Option<Since>> {
    let listing = list(dir)?;
    let (sector, _) = read_lock(dir, &listing)?;
    let identity = locate::identity(dir, &listing, sector)?;
    if identity.lineage != lineage {
        return Ok(None);
    }
    let Ok(mut chain) = Chain::back_to(dir, lineage, identity.newest_segment, from) else {
        return Ok(None);
    };
    let Some(mut newest) = chain.segments.pop() else { return Ok(None) };
    let mut builder = TailBuilder::default();
    let mut place = chain.start;
    let seals = chain.segments.iter().skip(1).map(|next| next.header.before);
    let seals: Vec<Place> = seals.chain([newest.header.before]).collect();
    for (segment, seal) in chain.segments.iter_mut().zip(seals) {
        if place.segment != segment.header.number {
            place = segment.header.begin();
        }
        let path = segment.path().to_owned();
        let ended = read_frames(segment, &mut place, Some(seal), |frame, window| {
            let taken = builder.add(frame.records, Some(window), frame.header.facts.commits);
            taken.map_err(|why| Error::damaged(&path, frame.header.begin, why))
        })?;
        if !matches!(ended, Ended::AtSeal) {
            return Ok(None);
        }
    }
    if place.segment != newest.header.number {
        place = newest.header.begin();
    }
    let claimed = read_claimed(&mut newest, place, &mut builder)?;
    Ok(Some(Since { tail: builder.finish(), claimed, listing }))
}

/// Reads what is claimed of the newest segment; where that ends.
fn read_claimed(
    segment: &mut SegmentReader,
    from: Place,
    builder: &mut TailBuilder,
) -> Result<Place> {
    let (number, path) = (segment.header.number, segment.path().to_owned());
    let (mut place, mut claimed, mut claim) = (from, from, segment.header.claim);
    let mut pending = VecDeque::new();
    loop {
        let ended = read_frames(segment, &mut place, None, |frame, window| {
            claim = claim.max(frame.header.facts.claim);
            let records = builder.hold(frame.records, Some(window));
            let end = frame.header.place_behind(number);
            pending.push_back((records, frame.header.facts.commits, end));
            while pending.front().is_some_and(|(_, _, end): &(_, _, Place)| end.offset <= claim) {
                let Some((records, commits, end)) = pending.pop_front() else { break };
                let taken = builder.take(&records, commits);
                taken.map_err(|why| Error::damaged(&path, end.offset, why))?;
                claimed = end;
            }
            Ok(())
        })?;
        // Mostly nothing is there, and then what lies far behind is not asked.
        let ends = matches!(ended, Ended::Nothing) && claim <= place.offset;
        if (ends && segment.is_empty_behind(place.offset)?)
            || judge_end(segment, &place, &ended, claim)?.is_some()
        {
            return Ok(claimed);
        }
    }
}
