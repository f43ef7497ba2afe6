//! Reading the log from the checkpoint on, and deciding where it ends.
//!
//! **What a broken frame means is decided in [`judge_end`], by the table in [`super::verdict`].**

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::locate::Identity;
use super::verdict::{Circumstances, Found, Verdict, verdict};
use crate::control::{Step, left_out};
use crate::error::{Error, Result};
use crate::format::catalog::Catalog;
use crate::format::frame::{FrameFacts, FrameHeader};
use crate::format::segment::{FRAMES_BEGIN, SegmentHeader};
use crate::format::{Lsn, Place, disk_len, name};
use crate::log::ahead::Ahead;
use crate::log::begun;
use crate::log::chain::{Broken, BrokenLink, Chain, Ended, read_frames};
use crate::log::cut::broken_link;
use crate::log::held::Held;
use crate::log::scan::{SegmentReader, Standing, Unreadable};
use crate::log::tail::{ReplayWork, Tail, TailBuilder};
use crate::options::Options;
use crate::report::Progress;
use crate::storage::directory::Directory;

/// The log after the checkpoint, as far as it counts.
#[derive(Debug)]
pub(crate) struct ScannedLog {
    pub(crate) builder: TailBuilder,
    /// The newest segment; none in a store that was never begun.
    pub(crate) newest: Option<SegmentHeader>,
    /// Everything up to here was claimed to be synced.
    pub(crate) claimed: Place,
    /// Valid frames after it, which this boot writes again.
    pub(crate) unclaimed: Vec<UnclaimedFrame>,
    pub(crate) torn_bytes: u64,
    pub(crate) bytes: u64,
    pub(crate) segments: u64,
    pub(crate) commits: u64,
    pub(crate) healed: Vec<String>,
    pub(crate) renew: bool,
}

impl ScannedLog {
    /// Nothing yet, from a place on.
    pub(super) fn begin(from: Place) -> ScannedLog {
        ScannedLog {
            builder: TailBuilder::default(),
            newest: None,
            claimed: from,
            unclaimed: Vec::new(),
            torn_bytes: 0,
            bytes: 0,
            segments: 0,
            commits: 0,
            healed: Vec::new(),
            renew: false,
        }
    }

    /// What it took to read it, with what it became.
    pub(super) fn work(&self, tail: &Tail) -> ReplayWork {
        let (bytes, operations, segments) = (self.bytes, tail.operations, self.segments);
        ReplayWork { bytes, operations, segments }
    }

    /// The last commit that it holds.
    pub(super) fn end(&self) -> Lsn {
        self.unclaimed.last().map_or(self.claimed.lsn, |frame| frame.last_lsn)
    }

    /// Takes the commits of one frame, which stands at `offset` of a segment.
    fn take(&mut self, records: &Held, commits: u32, segment: &Path, offset: u64) -> Result<()> {
        self.commits += u64::from(commits);
        let taken = self.builder.take(records, commits);
        taken.map_err(|why| Error::damaged(segment, offset, why))
    }
}

/// A frame that nobody claims to be synced: it may be in the page cache alone.
#[derive(Debug)]
pub(crate) struct UnclaimedFrame {
    /// In the memory of the tail.
    pub(crate) records: Held,
    pub(crate) commits: u32,
    pub(crate) time_us: u64,
    pub(crate) last_lsn: Lsn,
    pub(crate) end: Place,
}

impl UnclaimedFrame {
    fn new(header: &FrameHeader, end: Place, records: Held) -> UnclaimedFrame {
        let FrameFacts { commits, time_us, .. } = header.facts;
        UnclaimedFrame { records, commits, time_us, last_lsn: header.last_lsn(), end }
    }
}

/// Reads the log and decides its end; writes nothing.
pub(crate) fn scan(
    dir: &Directory,
    identity: &Identity,
    kept: &[Arc<Catalog>],
    options: &Options,
) -> Result<ScannedLog> {
    let from = kept.first().map_or(Place::START, |catalog| catalog.place);
    let mut scanned = ScannedLog::begin(from);
    if identity.newest_segment.0 == 0 {
        return Ok(scanned);
    }
    if identity.newest_segment < from.segment {
        let path = dir.path_of(&name::segment(from.segment));
        let what = "the log ends before the newest checkpoint";
        let error = Error::damaged(&path, 0, what).at_lsn(from.lsn.next());
        needed(Found::EndsBeforeCheckpoint, error)?;
    }
    let chain = Chain::back_to(dir, identity.lineage, identity.newest_segment, &from).map_err(
        |broken| {
            let stake = broken.upto.get().saturating_sub(from.lsn.get());
            let error = judge_link(dir, broken, false).unwrap_or_else(Error::closed);
            error.at_lsn(from.lsn.next()).with_commits_at_stake(stake)
        },
    )?;
    look_further_back(dir, identity, kept, &chain, &mut scanned)?;
    let last = chain.segments.len() - 1;
    scanned.segments = disk_len(chain.segments.len());
    let total: u64 = chain.segments.iter().map(|segment| segment.header.len).sum();
    let ahead = options.threads.then(|| Ahead::begin(chain.stretches())).flatten().map(Arc::new);
    for (at, (mut segment, begin, seal)) in chain.into_parts().enumerate() {
        segment.ahead.clone_from(&ahead);
        let mut place = begin;
        if let Some(seal) = seal {
            read_sealed(&mut segment, &mut place, seal, &mut scanned)?;
        } else {
            scanned.newest = Some(segment.header);
            read_newest(&mut segment, &mut place, &mut scanned, options.read_only, judge_end)?;
            if !options.read_only && !left_out(Step::BegunIsRead) {
                read_begun(dir, &segment.header, &place, &mut scanned)?;
            }
        }
        scanned.bytes += place.offset - begin.offset;
        if at == last || at % 4 == 3 {
            let (phase, done) = ("scan", scanned.bytes);
            options.progress(Progress { phase, done, total: total.max(done) });
        }
    }
    Ok(scanned)
}

/// Refuses what the table calls damaged; everything below passes its finding through here.
fn needed(found: Found, error: Error) -> Result<()> {
    let at = Circumstances { claimed: true, below_checkpoint: false };
    match verdict(found, at) {
        Verdict::Damaged | Verdict::Refuse => Err(error),
        Verdict::Take | Verdict::End | Verdict::NotNeeded => Ok(()),
    }
}

/// What to do about a segment that is not what it should be: an error, or nothing.
fn judge_link(dir: &Directory, broken: Broken, below_checkpoint: bool) -> Option<Error> {
    let found = match &broken.why {
        BrokenLink::Unreadable(Unreadable::Refused(_)) => Found::ReadFailed,
        BrokenLink::Unreadable(Unreadable::CutShort(_)) => Found::ShortSegment,
        BrokenLink::Unreadable(Unreadable::Absent) | BrokenLink::BeginsLate => Found::AbsentSegment,
        BrokenLink::Unreadable(Unreadable::BadHeader(_)) | BrokenLink::Foreign => Found::BadHeader,
    };
    let at = Circumstances { claimed: true, below_checkpoint };
    match verdict(found, at) {
        Verdict::NotNeeded => None,
        _ => Some(broken_link(dir, broken)),
    }
}

/// The log between the oldest kept checkpoint and the newest is what a later healing would replay:
/// nothing needs it now, so what is wrong with it is reported, and a new checkpoint made.
fn look_further_back(
    dir: &Directory,
    identity: &Identity,
    kept: &[Arc<Catalog>],
    chain: &Chain,
    scanned: &mut ScannedLog,
) -> Result<()> {
    let (Some(oldest), Some(first)) = (kept.last(), chain.segments.first()) else {
        return Ok(());
    };
    if kept.len() < 2 {
        return Ok(());
    }
    let number = first.header.number;
    let Err(broken) = Chain::back_to(dir, identity.lineage, number, &oldest.place) else {
        return Ok(());
    };
    let path = dir.path_of(&name::segment(broken.segment));
    if let Some(error) = judge_link(dir, broken, true) {
        return Err(error);
    }
    scanned.healed.push(format!("{} is damaged or absent, and not needed", path.display()));
    scanned.renew = true;
    Ok(())
}

/// Reads a segment that the next one seals: all of it was synced.
pub(super) fn read_sealed(
    segment: &mut SegmentReader,
    place: &mut Place,
    seal: Place,
    scanned: &mut ScannedLog,
) -> Result<()> {
    let path = segment.path().to_owned();
    let ended = read_frames(segment, place, Some(seal), |frame, window| {
        let commits = frame.header.facts.commits;
        let records = scanned.builder.hold(frame.records, Some(window));
        scanned.take(&records, commits, &path, frame.header.begin)
    })?;
    let stake = seal.lsn.get().saturating_sub(place.lsn.get()).max(1);
    let lost = |offset, what: &str| {
        let error = Error::damaged(&path, offset, what);
        error.at_lsn(place.lsn.next()).with_commits_at_stake(stake)
    };
    match ended {
        Ended::AtSeal => Ok(()),
        Ended::Nothing => {
            let what = "a frame that was synced is no longer valid";
            needed(Found::Invalid, lost(place.offset, what))
        }
        Ended::BreaksChain(offset) => {
            let what = "a frame does not continue the one before it";
            needed(Found::ChainBreak, lost(offset, what))
        }
    }
}

/// Reads the newest segment up to where it ends, which `judge` decides.
pub(super) fn read_newest(
    segment: &mut SegmentReader,
    place: &mut Place,
    scanned: &mut ScannedLog,
    claimed_only: bool,
    judge: fn(&mut SegmentReader, &Place, &Ended, u64) -> Result<Option<u64>>,
) -> Result<()> {
    let mut pending: VecDeque<UnclaimedFrame> = VecDeque::new();
    let mut claim = segment.header.claim;
    scanned.claimed = *place;
    loop {
        let path = segment.path().to_owned();
        let ended = read_frames(segment, place, None, |frame, window| {
            claim = claim.max(frame.header.facts.claim);
            settle(scanned, &mut pending, claim, &path)?;
            let records = scanned.builder.hold(frame.records, Some(window));
            let end = frame.header.place_behind(scanned.claimed.segment);
            pending.push_back(UnclaimedFrame::new(&frame.header, end, records));
            Ok(())
        })?;
        settle(scanned, &mut pending, claim, &path)?;
        if let Some(torn_bytes) = judge(segment, place, &ended, claim)? {
            scanned.torn_bytes = torn_bytes;
            break;
        }
    }
    if claimed_only {
        return Ok(());
    }
    for frame in &pending {
        scanned.take(&frame.records, frame.commits, segment.path(), frame.end.offset)?;
    }
    scanned.unclaimed = pending.into();
    Ok(())
}

/// Reads what was appended after the newest segment that has its name. Nothing claims any of it: before anybody
/// was told that it is stable, it would have had a name.
fn read_begun(
    dir: &Directory,
    newest: &SegmentHeader,
    end: &Place,
    scanned: &mut ScannedLog,
) -> Result<()> {
    let mut segment = match begun::find(dir, newest, end)? {
        begun::Found::Continues(segment) => segment,
        begun::Found::Torn(bytes) => {
            scanned.torn_bytes += bytes;
            return Ok(());
        }
    };
    let (path, mut place) = (segment.path().to_owned(), segment.header.begin());
    scanned.segments += 1;
    let number = segment.header.number;
    let ended = read_frames(&mut segment, &mut place, None, |frame, window| {
        let records = scanned.builder.hold(frame.records, Some(window));
        scanned.take(&records, frame.header.facts.commits, &path, frame.header.begin)?;
        let end = frame.header.place_behind(number);
        scanned.unclaimed.push(UnclaimedFrame::new(&frame.header, end, records));
        Ok(())
    })?;
    if let Ended::BreaksChain(offset) = ended {
        let error = Error::damaged(&path, offset, "a frame does not continue the one before it");
        needed(Found::ChainBreak, error.at_lsn(place.lsn.next()))?;
    }
    scanned.bytes += place.offset - FRAMES_BEGIN;
    scanned.torn_bytes += segment.look_behind(place.offset)?.not_zero;
    Ok(())
}

/// Takes the frames that end within the claim for good.
fn settle(
    scanned: &mut ScannedLog,
    pending: &mut VecDeque<UnclaimedFrame>,
    claim: u64,
    path: &Path,
) -> Result<()> {
    while pending.front().is_some_and(|frame| frame.end.offset <= claim) {
        let Some(frame) = pending.pop_front() else { break };
        scanned.take(&frame.records, frame.commits, path, frame.end.offset)?;
        scanned.claimed = frame.end;
    }
    Ok(())
}

/// Decides what it means that nothing continues the log here: the bytes of its torn tail if it ends,
/// nothing to read on, or damage. A writer that works meanwhile may have written this place after it was read and
/// before its claim was: so a claim is believed only if the place is still wrong after it was seen.
pub(super) fn judge_end(
    segment: &mut SegmentReader,
    place: &Place,
    ended: &Ended,
    claim_seen: u64,
) -> Result<Option<u64>> {
    let found = match ended {
        Ended::AtSeal => return Ok(Some(0)),
        Ended::Nothing => Found::Invalid,
        Ended::BreaksChain(_) => Found::ChainBreak,
    };
    let behind = segment.look_behind(place.offset)?;
    let claimed = claim_seen.max(behind.claim.offset) > place.offset;
    let claimed = (claimed && !left_out(Step::ClaimedIsDamaged))
        || (behind.not_zero > 0 && left_out(Step::UnclaimedIsTorn));
    let at = Circumstances { claimed, below_checkpoint: false };
    if verdict(found, at) == Verdict::End {
        return Ok(Some(behind.not_zero));
    }
    segment.forget();
    let (found, offset, what) = match segment.next(place)? {
        Standing::Continues(..) => (Found::Continuing, place.offset, ""),
        Standing::Nothing => (Found::Invalid, place.offset, "a frame that was synced is not valid"),
        Standing::BreaksChain(offset) => {
            (Found::ChainBreak, offset, "a frame does not continue the one before it")
        }
    };
    match verdict(found, at) {
        Verdict::Take => Ok(None),
        Verdict::End | Verdict::NotNeeded => Ok(Some(behind.not_zero)),
        Verdict::Damaged | Verdict::Refuse => {
            let next = place.lsn.next();
            let stake = behind.claim.stated_before.get().saturating_sub(next.get()).max(1);
            let error = Error::damaged(segment.path(), offset, what);
            Err(error.at_lsn(next).with_commits_at_stake(stake))
        }
    }
}
