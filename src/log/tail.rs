//! A piece of the log, sorted: the last value of each key, by region.
//!
//! Boot makes the tail readable with it, and a checkpoint makes its deltas with it. It works on
//! encoded bytes alone: no user code runs, and a region that nobody declared is nothing special.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::held::{Held, Memory, Position, Window};
use super::run::Run;
use super::sort::Writes;
use crate::format::bytes::Reader;
use crate::format::operation::{Operation, Record};
use crate::format::{Malformed, RegionNo};

/// Gathers frames; [`finish`](TailBuilder::finish) sorts.
#[derive(Debug, Default)]
pub(crate) struct TailBuilder {
    memory: Memory,
    numbers: BTreeMap<RegionNo, usize>,
    regions: Vec<Gathered>,
    /// The region that was changed last, since one is seldom changed alone.
    last: Option<(RegionNo, usize)>,
    next_region: u64,
    commits: u64,
    operations: u64,
    bytes: u64,
}

/// What a piece of log does to the state.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) regions: BTreeMap<RegionNo, RegionTail>,
    /// Above every region number that this piece creates.
    pub(crate) next_region: u64,
    pub(crate) commits: u64,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    memory: Arc<Memory>,
}

/// What a piece of log does to one region.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionTail {
    /// Its name and encoded schema, if this piece creates it.
    pub(crate) created: Option<(String, Vec<u8>)>,
    pub(crate) removed: bool,
    /// What the region held before is gone.
    pub(crate) cleared: bool,
    /// Keys that this piece adds, less those that it takes away, since the last clear.
    pub(crate) entries_added: i64,
    /// The last write of each key, sorted.
    pub(crate) run: Arc<Run>,
}

impl RegionTail {
    /// How many entries there are where there were so many; `None` if there cannot have been.
    pub(crate) fn entries_after(&self, before: usize) -> Option<usize> {
        let before = if self.cleared { 0 } else { before };
        before.checked_add_signed(isize::try_from(self.entries_added).ok()?)
    }
}

/// How much log there is to replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplayWork {
    /// Bytes of the segments that are read, by whole blocks.
    pub(crate) bytes: u64,
    pub(crate) operations: u64,
    /// Each has to be opened, however little it holds.
    pub(crate) segments: u64,
}

impl ReplayWork {
    pub(crate) fn less(self, other: ReplayWork) -> ReplayWork {
        ReplayWork {
            bytes: self.bytes.saturating_sub(other.bytes),
            operations: self.operations.saturating_sub(other.operations),
            segments: self.segments.saturating_sub(other.segments),
        }
    }
}

#[derive(Debug, Default)]
struct Gathered {
    tail: RegionTail,
    writes: Writes,
}

impl TailBuilder {
    /// Takes the records of one frame, which must be as many as its header says.
    pub(crate) fn add(
        &mut self,
        records: &[u8],
        window: Option<&Window>,
        commits: u32,
    ) -> Result<(), Malformed> {
        let held = self.hold(records, window);
        self.take(&held, commits)
    }

    /// Keeps the records of a frame of which it is not known yet whether it counts.
    pub(crate) fn hold(&mut self, records: &[u8], window: Option<&Window>) -> Held {
        self.memory.hold(records, window)
    }

    /// The frame counts; frames come in the order of the log.
    pub(crate) fn take(&mut self, held: &Held, commits: u32) -> Result<(), Malformed> {
        let memory = std::mem::take(&mut self.memory);
        let done = self.take_records(memory.get(held), held, commits);
        self.memory = memory;
        done
    }

    /// Takes the first `commits` of a frame, where a state between its commits is asked for.
    #[cfg(feature = "inspect")]
    pub(crate) fn add_first(&mut self, records: &[u8], commits: u32) -> Result<(), Malformed> {
        let mut from = Reader::new(records);
        for _ in 0..commits {
            Record::decode(&mut from)?;
        }
        let records = records.get(..records.len() - from.rest().len()).unwrap_or_default();
        self.add(records, None, commits)
    }

    fn take_records(&mut self, records: &[u8], held: &Held, commits: u32) -> Result<(), Malformed> {
        let mut from = Reader::new(records);
        for _ in 0..commits {
            let record = Record::decode(&mut from)?;
            let mut operations = Reader::new(record.operations);
            // Behind the operations comes what is left of the frame.
            let end = records.len() - from.rest().len();
            while !operations.is_empty() {
                let at = held.position(end - operations.rest().len());
                self.add_operation(&Operation::decode(&mut operations)?, at)?;
                self.operations += 1;
            }
        }
        self.commits += u64::from(commits);
        self.bytes += crate::format::disk_len(records.len());
        if from.is_empty() { Ok(()) } else { Err(Malformed::Field("count of commits")) }
    }

    fn gathered(&mut self, region: RegionNo) -> Option<&mut Gathered> {
        let at = match self.last {
            Some((last, at)) if last == region => at,
            _ => *self.numbers.entry(region).or_insert_with(|| {
                self.regions.push(Gathered::default());
                self.regions.len() - 1
            }),
        };
        self.last = Some((region, at));
        self.regions.get_mut(at)
    }

    fn add_operation(&mut self, operation: &Operation<'_>, at: Position) -> Result<(), Malformed> {
        let region = operation.region();
        if let Operation::Create { .. } = operation {
            self.next_region = self.next_region.max(region.0.saturating_add(1));
        }
        let Some(gathered) = self.gathered(region) else { return Ok(()) };
        if gathered.tail.removed {
            return Err(Malformed::Field("region: it was removed"));
        }
        match *operation {
            Operation::Create { name, schema, .. } => {
                gathered.tail.created = Some((name.to_owned(), schema.to_vec()));
            }
            Operation::RemoveRegion { .. } => {
                gathered.writes.clear();
                gathered.tail.removed = true;
            }
            Operation::Insert { key, .. } => {
                gathered.tail.entries_added += 1;
                gathered.writes.push(key, at);
            }
            Operation::Replace { key, .. } => gathered.writes.push(key, at),
            Operation::Remove { key, .. } => {
                gathered.tail.entries_added -= 1;
                gathered.writes.push(key, at);
            }
            Operation::Clear { .. } => {
                gathered.writes.clear();
                gathered.tail.cleared = true;
                gathered.tail.entries_added = 0;
            }
        }
        Ok(())
    }

    /// Sorts what was gathered.
    pub(crate) fn finish(mut self) -> Tail {
        let memory = Arc::new(self.memory);
        let mut regions = BTreeMap::new();
        for (number, at) in self.numbers {
            let Some(gathered) = self.regions.get_mut(at).map(std::mem::take) else { continue };
            let Gathered { tail, writes } = gathered;
            let run = Run::sorted(Arc::clone(&memory), writes, tail.cleared);
            regions.insert(number, RegionTail { run: Arc::new(run), ..tail });
        }
        Tail {
            regions,
            next_region: self.next_region,
            commits: self.commits,
            operations: self.operations,
            bytes: self.bytes,
            memory,
        }
    }
}

impl Tail {
    /// The records of a frame that was held.
    pub(crate) fn records(&self, held: &Held) -> &[u8] {
        self.memory.get(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::block::Entry;
    use crate::format::operation::put_record;

    fn frame(operations: &[Operation<'_>]) -> Vec<u8> {
        let mut encoded = Vec::new();
        for operation in operations {
            operation.encode(&mut encoded);
        }
        let mut record = Vec::new();
        put_record(&mut record, "", &encoded);
        record
    }

    fn tail(frames: &[Vec<u8>]) -> Tail {
        let mut builder = TailBuilder::default();
        for frame in frames {
            builder.add(frame, None, 1).unwrap();
        }
        builder.finish()
    }

    const REGION: RegionNo = RegionNo(1);

    fn insert<'a>(key: &'a [u8], value: &'a [u8]) -> Operation<'a> {
        Operation::Insert { region: REGION, key, value }
    }

    #[test]
    fn the_last_write_of_each_key_is_kept_in_key_order() {
        let tail = tail(&[
            frame(&[insert(b"longer than eight b", b"1"), insert(b"longer than eight a", b"2")]),
            frame(&[Operation::Replace {
                region: REGION,
                key: b"longer than eight b",
                value: b"3",
            }]),
            frame(&[insert(b"gone", b"4"), Operation::Remove { region: REGION, key: b"gone" }]),
        ]);
        let region = &tail.regions[&REGION];
        let entries: Vec<_> = (0..region.run.len()).filter_map(|at| region.run.get(at)).collect();
        assert_eq!(
            entries,
            [
                Entry { key: b"gone", value: None },
                Entry { key: b"longer than eight a", value: Some(b"2") },
                Entry { key: b"longer than eight b", value: Some(b"3") },
            ]
        );
        assert_eq!((region.entries_added, tail.commits, tail.operations), (2, 3, 5));
        assert_eq!(region.run.seek(b"h"), 1);
    }

    #[test]
    fn a_clear_forgets_what_was_before_it_and_needs_no_tombstones() {
        let tail = tail(&[
            frame(&[insert(b"a", b"1")]),
            frame(&[Operation::Clear { region: REGION }, insert(b"b", b"2")]),
            frame(&[Operation::Remove { region: REGION, key: b"b" }]),
        ]);
        let region = &tail.regions[&REGION];
        assert!(region.cleared && region.run.is_empty());
        assert_eq!(region.entries_added, 0);
    }

    #[test]
    fn a_count_that_is_not_true_is_refused() {
        let mut builder = TailBuilder::default();
        assert!(builder.add(&frame(&[]), None, 2).is_err());
        assert!(TailBuilder::default().add(&frame(&[]), None, 0).is_err());
    }
}
