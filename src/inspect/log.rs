//! Walking the kept log from its oldest frame to its end, over what is damaged as well.

use std::ops::ControlFlow;

use super::Inspector;
use crate::error::{Error, ErrorKind, Result};
use crate::format::bytes::Reader;
use crate::format::frame::{Frame, FrameHeader};
use crate::format::operation::{Operation, Record};
use crate::format::segment::{FRAMES_BEGIN, SegmentHeader};
use crate::format::{Lsn, Place, SegmentNo, disk_len, name};
use crate::log::begun;
use crate::log::chain::Opener;
use crate::log::cut::unreadable;
use crate::log::scan::{SegmentReader, Standing};

/// What a walk through the log meets, in the order of the log.
#[derive(Debug)]
pub enum LogEvent<'a> {
    /// A segment begins; [`name_of_segment`](Inspector::name_of_segment) tells which file that is.
    Segment(&'a SegmentHeader),
    /// A valid frame.
    Frame(LogFrame<'a>),
    /// Something that should be there cannot be read.
    Gap(LogGap),
    /// The newest segment ends; once, at last.
    End(LogEnd),
}

/// A valid frame of the log.
#[derive(Clone, Copy, Debug)]
pub struct LogFrame<'a> {
    /// The segment it lies in.
    pub segment: SegmentNo,
    /// Its header.
    pub header: FrameHeader,
    /// Whether anything on disk says that it was synced.
    pub claimed: bool,
    records: &'a [u8],
}

/// A place where the log does not continue although it should.
#[derive(Clone, Debug)]
pub struct LogGap {
    /// The segment, also if it is absent.
    pub segment: SegmentNo,
    /// The commits that are lost with it, as far as is known: the first one, and the last if it is known.
    pub first: Lsn,
    /// The last commit lost; `None` where nothing tells.
    pub last: Option<Lsn>,
    /// What is wrong, with the file and the byte.
    pub error: Error,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug)]
pub struct LogEnd {
    /// The segment that it ends in.
    pub segment: SegmentNo,
    /// The byte after the last valid frame.
    pub offset: u64,
    /// The last commit.
    pub lsn: Lsn,
    /// The segment was synced up to this byte, as far as anything says.
    pub claim: u64,
    /// Bytes behind it that are not zero and no frame: a torn tail, or one that is being written.
    pub torn_bytes: u64,
}

/// One commit of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// Its place in the order.
    pub lsn: Lsn,
    /// What its writer called it; may be empty.
    pub label: &'a str,
    /// Where its record begins in the [records](LogFrame::records) of its frame, and where it ends.
    pub record: (usize, usize),
    operations: &'a [u8],
}

/// The commits of a frame, from [`LogFrame::commits`]; ends after an error.
#[derive(Clone, Debug)]
pub struct Commits<'a> {
    from: Reader<'a>,
    len: usize,
    left: u32,
    lsn: Lsn,
    begin: u64,
}

/// The operations of a commit, from [`Commit::operations`]; ends after an error.
#[derive(Clone, Debug)]
pub struct Operations<'a> {
    from: Reader<'a>,
}

impl<'a> LogFrame<'a> {
    /// Its commits in order.
    pub fn commits(&self) -> Commits<'a> {
        let facts = &self.header.facts;
        let from = Reader::new(self.records);
        let (len, left, lsn) = (self.records.len(), facts.commits, facts.first_lsn);
        Commits { from, len, left, lsn, begin: self.header.begin }
    }

    /// The bytes of its commits, behind its header.
    pub fn records(&self) -> &'a [u8] {
        self.records
    }
}

impl<'a> Commit<'a> {
    /// What it changes, in order.
    pub fn operations(&self) -> Operations<'a> {
        Operations { from: Reader::new(self.operations) }
    }

    /// The bytes of its operations.
    pub fn bytes(&self) -> u64 {
        disk_len(self.operations.len())
    }
}

impl<'a> Iterator for Commits<'a> {
    type Item = Result<Commit<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let lsn = self.lsn;
        self.lsn = lsn.next();
        let begin = self.len - self.from.rest().len();
        match Record::decode(&mut self.from) {
            Ok(Record { label, operations }) => {
                let record = (begin, self.len - self.from.rest().len());
                Some(Ok(Commit { lsn, label, record, operations }))
            }
            Err(why) => {
                self.left = 0;
                Some(Err(Error::damaged(std::path::Path::new(""), self.begin, why).at_lsn(lsn)))
            }
        }
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Result<Operation<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.from.is_empty() {
            return None;
        }
        let operation = Operation::decode(&mut self.from);
        Some(operation.map_err(|why| {
            self.from = Reader::new(&[]);
            Error::damaged(std::path::Path::new(""), 0, why)
        }))
    }
}

/// A segment of the kept log, and where the one after it says that it ends.
struct Part {
    number: SegmentNo,
    reader: Result<SegmentReader>,
    seal: Option<Place>,
    newest: bool,
}

impl Part {
    fn reader(&mut self) -> Option<&mut SegmentReader> {
        self.reader.as_mut().ok()
    }
}

type Each<'a> = dyn FnMut(LogEvent<'_>) -> Result<ControlFlow<()>> + 'a;

impl Inspector {
    /// Calls `each` with what the log holds from the frame with commit `from` on, until it breaks off.
    ///
    /// # Errors
    /// `Io`, and what `each` returns. Damage is an event.
    pub fn walk_log(
        &self,
        from: Lsn,
        mut each: impl FnMut(LogEvent<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut lsn: Option<Lsn> = None;
        for part in self.parts(from)? {
            if self.walk_part(part, from, &mut lsn, &mut each)?.is_break() {
                return Ok(());
            }
        }
        match self.missing_end() {
            Some((segment, error)) => {
                let first = lsn.unwrap_or(Lsn::ZERO).next();
                each(LogEvent::Gap(LogGap { segment, first, last: None, error })).map(drop)
            }
            None => Ok(()),
        }
    }

    /// The newest segment, if LOCK names one that is not there: then the log's end is lost.
    fn missing_end(&self) -> Option<(SegmentNo, Error)> {
        let named = self.lock().ok().flatten()?.newest_segment;
        let listed = self.segments().last().is_some_and(|newest| *newest >= named);
        let name = name::segment(named);
        // It may have been made since the others were listed.
        let lost = self.only.is_none() && !listed && self.is_gone(&name);
        let what = "the newest segment of the log is absent";
        lost.then(|| (named, Error::damaged(&self.path_of(&name), 0, what)))
    }

    /// The segments that hold what comes from a commit on.
    fn parts(&self, from: Lsn) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut next: Option<SegmentHeader> = None;
        let mut opener = Opener::new(&self.dir);
        for (at, number) in self.segments().iter().enumerate().rev() {
            let newest = at + 1 == self.segments().len();
            let found = opener.open(*number, parts.iter_mut().filter_map(Part::reader));
            let reader = match found.map_err(|why| unreadable(&self.dir, *number, why)) {
                // It was removed since it was listed, as what nothing needs any more, oldest first.
                Err(_) if self.is_gone(&name::segment(*number)) => break,
                Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
                Ok(reader) if reader.header.lineage != self.lineage => {
                    let path = reader.path().to_owned();
                    Err(Error::damaged(&path, 0, "this segment belongs to another store"))
                }
                reader => reader,
            };
            let before = next.map(|next| next.before);
            // A boot that found no commit in it has taken its place.
            if before.is_some_and(|before| before.segment < *number) {
                continue;
            }
            next = reader.as_ref().ok().map(|reader| reader.header);
            let seal = before.filter(|before| before.segment == *number);
            parts.push(Part { number: *number, reader, seal, newest });
            if next.is_some_and(|next| next.before.lsn < from) {
                break;
            }
        }
        parts.reverse();
        Ok(parts)
    }

    fn walk_part(
        &self,
        part: Part,
        from: Lsn,
        lsn: &mut Option<Lsn>,
        each: &mut Each<'_>,
    ) -> Result<ControlFlow<()>> {
        let Part { number, reader, seal, newest } = part;
        let mut reader = match reader {
            Ok(reader) => reader,
            Err(error) => {
                let first = lsn.unwrap_or(Lsn::ZERO).next();
                *lsn = None;
                return each(LogEvent::Gap(LogGap { segment: number, first, last: None, error }));
            }
        };
        let header = reader.header;
        if let Some(before) = lsn.filter(|lsn| *lsn < header.before.lsn) {
            let missing = SegmentNo(header.before.segment.0.max(1));
            let path = self.path_of(&name::segment(missing));
            let error = Error::damaged(&path, 0, "the log between two segments is absent");
            let gap = LogGap {
                segment: missing,
                first: before.next(),
                last: Some(header.before.lsn),
                error,
            };
            if each(LogEvent::Gap(gap))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        if each(LogEvent::Segment(&header))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let claim = match seal {
            Some(seal) => seal.offset,
            None => reader.look_behind(FRAMES_BEGIN)?.claim.offset,
        };
        let mut walk = Walk { reader, place: header.begin(), seal, claim, from };
        let done = walk.run(each)?;
        *lsn = Some(walk.place.lsn);
        if done.is_break() || !newest {
            return Ok(done);
        }
        let Some(begun) = self.begun(&header, &walk.place)? else { return walk.end(each) };
        if each(LogEvent::Segment(&begun.header))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let place = begun.header.begin();
        let mut walk = Walk { reader: begun, place, seal: None, claim: FRAMES_BEGIN, from };
        let done = walk.run(each)?;
        *lsn = Some(walk.place.lsn);
        if done.is_break() { Ok(done) } else { walk.end(each) }
    }

    /// What continues the log and has no name of its own yet.
    fn begun(&self, newest: &SegmentHeader, end: &Place) -> Result<Option<SegmentReader>> {
        if self.only.is_some() {
            return Ok(None);
        }
        match begun::find(&self.dir, newest, end)? {
            begun::Found::Continues(reader) => Ok(Some(reader)),
            begun::Found::Torn(_) => Ok(None),
        }
    }

    /// The file that a segment is kept in of which [`walk_log`](Self::walk_log) tells.
    pub fn name_of_segment(&self, number: SegmentNo) -> String {
        let is_begun = self.segments().last().is_some_and(|newest| *newest < number);
        if is_begun { name::BEGUN.to_owned() } else { name::segment(number) }
    }
}

/// The walk through one segment.
struct Walk {
    reader: SegmentReader,
    place: Place,
    seal: Option<Place>,
    claim: u64,
    from: Lsn,
}

impl Walk {
    /// Up to the segment's seal, or to where nothing continues and nothing claims that it should.
    fn run(&mut self, each: &mut Each<'_>) -> Result<ControlFlow<()>> {
        loop {
            if self.seal.is_some_and(|seal| self.place.offset >= seal.offset) {
                return Ok(ControlFlow::Continue(()));
            }
            let what = match self.reader.next(&self.place)? {
                Standing::Continues(frame, _) => {
                    self.place = frame.header.place_behind(self.place.segment);
                    if frame.header.last_lsn() < self.from {
                        continue;
                    }
                    let event = event(self.place.segment, &frame, self.claim);
                    if each(event)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                    continue;
                }
                Standing::BreaksChain(_) => "a frame does not continue the one before it",
                Standing::Nothing if self.claim > self.place.offset => {
                    "a frame that was synced is no longer valid"
                }
                Standing::Nothing => return Ok(ControlFlow::Continue(())),
            };
            if self.pass_over(what, each)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    /// Goes on behind a broken place, with the next frame that is valid in itself.
    fn pass_over(&mut self, what: &str, each: &mut Each<'_>) -> Result<ControlFlow<()>> {
        let broken = self.place;
        let limit = self.seal.map_or(u64::MAX, |seal| seal.offset);
        let found = self.reader.resume_behind(broken.offset)?;
        let found = found.filter(|header| header.begin < limit && header.last_lsn() >= broken.lsn);
        let last = match (&found, self.seal) {
            (Some(header), _) => Some(Lsn::new(header.facts.first_lsn.get().saturating_sub(1))),
            (None, Some(seal)) => Some(seal.lsn),
            (None, None) => None,
        };
        self.place = match found {
            Some(header) => Place {
                offset: header.facts.follows,
                lsn: Lsn::new(header.facts.first_lsn.get().saturating_sub(1)),
                chain: header.facts.chain,
                ..broken
            },
            // Nothing more: as if it ended at its seal, or here.
            None => self.seal.unwrap_or(broken),
        };
        if found.is_none() {
            self.claim = broken.offset;
            self.seal = Some(self.place);
        }
        let first = broken.lsn.next();
        let error = Error::damaged(self.reader.path(), broken.offset, what).at_lsn(first);
        each(LogEvent::Gap(LogGap { segment: broken.segment, first, last, error }))
    }

    fn end(mut self, each: &mut Each<'_>) -> Result<ControlFlow<()>> {
        let Place { segment, offset, lsn, .. } = self.place;
        let torn_bytes = self.reader.look_behind(offset)?.not_zero;
        each(LogEvent::End(LogEnd { segment, offset, lsn, claim: self.claim, torn_bytes }))
    }
}

fn event<'a>(segment: SegmentNo, frame: &Frame<'a>, claim: u64) -> LogEvent<'a> {
    let claimed = frame.header.end() <= claim;
    LogEvent::Frame(LogFrame { segment, header: frame.header, claimed, records: frame.records })
}
