//! The segments that a piece of the log lies in, found backwards by their seals, and the walk
//! forward through them.

use super::ahead::Stretch;
use super::held::Window;
use super::scan::{SegmentReader, Standing, Unreadable};
use crate::control::{Step, left_out};
use crate::error::Result;
use crate::format::frame::Frame;
use crate::format::{Lineage, Lsn, Place, SegmentNo};
use crate::storage::directory::Directory;

/// So many files of a log are kept open while it is read, if a process may have them open.
const OPEN_MAX: usize = 512;

/// Opens segments one after the other. They stay open, since a writer may remove them before they are read; but
/// where they are too many, each is opened when it is read.
#[derive(Debug)]
pub(crate) struct Opener<'a> {
    dir: &'a Directory,
    kept: usize,
}

impl Opener<'_> {
    pub(crate) fn new(dir: &Directory) -> Opener<'_> {
        Opener { dir, kept: 0 }
    }

    /// Opens one beside those that it opened before.
    pub(crate) fn open<'b>(
        &mut self,
        number: SegmentNo,
        before: impl Iterator<Item = &'b mut SegmentReader>,
    ) -> Result<SegmentReader, Unreadable> {
        let mut opened = SegmentReader::open(self.dir, number);
        if let Err(Unreadable::Refused(error)) = &opened
            && error.is_out_of_files()
        {
            before.for_each(|segment| segment.close(self.dir));
            self.kept = OPEN_MAX;
            opened = SegmentReader::open(self.dir, number);
        }
        let mut segment = opened?;
        if self.kept < OPEN_MAX {
            self.kept += 1;
        } else {
            segment.close(self.dir);
        }
        Ok(segment)
    }
}

/// Segments that continue each other, oldest first.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) segments: Vec<SegmentReader>,
    /// Where in the first one to begin.
    pub(crate) start: Place,
}

/// A link of the chain that is not what it should be.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) segment: SegmentNo,
    /// The last commit that is known to have been in it or before it; zero where nothing tells.
    pub(crate) upto: Lsn,
    pub(crate) why: BrokenLink,
}

#[derive(Debug)]
pub(crate) enum BrokenLink {
    Unreadable(Unreadable),
    /// Its header names another store.
    Foreign,
    /// No segment holds the place that the log is needed from.
    BeginsLate,
}

/// How reading a segment up to its seal can end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// At the seal, exactly.
    AtSeal,
    /// Nothing continues here.
    Nothing,
    /// A valid frame stands here that does not continue the chain.
    BreaksChain(u64),
}

impl Chain {
    /// Follows the seals from `newest` back to where `from` lies.
    pub(crate) fn back_to(
        dir: &Directory,
        lineage: Lineage,
        newest: SegmentNo,
        from: &Place,
    ) -> Result<Chain, Broken> {
        let mut segments: Vec<SegmentReader> = Vec::new();
        let (mut number, mut upto) = (newest, Lsn::ZERO);
        let mut opener = Opener::new(dir);
        loop {
            let broken = |why| Broken { segment: number, upto, why };
            let mut segment = opener
                .open(number, segments.iter_mut())
                .map_err(|why| broken(BrokenLink::Unreadable(why)))?;
            if segment.header.lineage != lineage && !left_out(Step::SegmentLineage) {
                return Err(broken(BrokenLink::Foreign));
            }
            let (header, before) = (segment.header, segment.header.before);
            if let Some(next) = segments.last() {
                segment.seal_at(next.header.before.offset);
            }
            segments.push(segment);
            // A place at the end of one segment is the same as the beginning of the next.
            let same = before.lsn == from.lsn && before.chain == from.chain;
            let start = if number == from.segment {
                Some(*from)
            } else if before.segment < number && (before.segment <= from.segment && same) {
                Some(header.begin())
            } else {
                None
            };
            if let Some(start) = start {
                segments.reverse();
                return Ok(Chain { segments, start });
            }
            if before.segment.0 == 0 || before.segment < from.segment {
                return Err(broken(BrokenLink::BeginsLate));
            }
            (number, upto) = (before.segment, before.lsn);
        }
    }

    /// Where to begin in each segment.
    fn begins(&self) -> impl Iterator<Item = Place> {
        let later = self.segments.iter().skip(1).map(|segment| segment.header.begin());
        std::iter::once(self.start).chain(later)
    }

    /// What of each segment is read by whoever reads all of it.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = Stretch> {
        let segments = self.segments.iter().zip(self.begins());
        segments.map(|(segment, begin)| segment.stretch(begin.offset))
    }

    /// Each segment with where to begin in it, and where the next one seals it: nothing seals the newest.
    pub(crate) fn into_parts(self) -> impl Iterator<Item = (SegmentReader, Place, Option<Place>)> {
        let begins: Vec<Place> = self.begins().collect();
        let seals = self.segments.iter().skip(1).map(|next| Some(next.header.before));
        let seals: Vec<Option<Place>> = seals.chain([None]).collect();
        let parts = self.segments.into_iter().zip(begins).zip(seals);
        parts.map(|((segment, begin), seal)| (segment, begin, seal))
    }
}

/// Reads frames until `until`, or until nothing continues; `place` follows.
pub(crate) fn read_frames(
    segment: &mut SegmentReader,
    place: &mut Place,
    until: Option<Place>,
    mut each: impl FnMut(&Frame<'_>, &Window) -> Result<()>,
) -> Result<Ended> {
    loop {
        if until.is_some_and(|until| place.offset >= until.offset) {
            let exact = until.is_some_and(|until| {
                (until.offset, until.lsn, until.chain) == (place.offset, place.lsn, place.chain)
            });
            return Ok(if exact { Ended::AtSeal } else { Ended::BreaksChain(place.offset) });
        }
        match segment.next(place)? {
            Standing::Continues(frame, window) => {
                each(&frame, window)?;
                *place = frame.header.place_behind(place.segment);
            }
            Standing::BreaksChain(offset) => return Ok(Ended::BreaksChain(offset)),
            Standing::Nothing => return Ok(Ended::Nothing),
        }
    }
}
