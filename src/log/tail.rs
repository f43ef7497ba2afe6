//! A piece of the log, sorted: the last value of each key, by region.
//!
//! Boot makes the tail readable with it, and a checkpoint makes its deltas with it. It works on
//! encoded bytes alone: no user code runs, and a region that nobody declared is nothing special.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::block::Entry;
use crate::format::bytes::Reader;
use crate::format::operation::{Operation, Record};
use crate::format::{Malformed, RegionNo, disk_len};

/// Gathers frames; [`finish`](TailBuilder::finish) sorts.
#[derive(Debug, Default)]
pub(crate) struct TailBuilder {
    arena: Vec<u8>,
    regions: BTreeMap<RegionNo, Gathered>,
    next_region: u64,
    commits: u64,
    operations: u64,
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

/// How much log there is to replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplayWork {
    /// Bytes of the segments that are read, by whole blocks.
    pub(crate) bytes: u64,
    pub(crate) operations: u64,
}

#[derive(Debug, Default)]
struct Gathered {
    tail: RegionTail,
    items: Vec<Item>,
}

/// Sorted entries in memory, each key once.
#[derive(Debug, Default)]
pub(crate) struct Run {
    arena: Arc<Vec<u8>>,
    items: Vec<Item>,
}

/// Where a key and its value lie in the arena.
#[derive(Clone, Copy, Debug)]
struct Item {
    key: usize,
    key_len: u32,
    value_len: u32,
    value: usize,
}

/// The `value` of an [`Item`] that is a tombstone.
const ABSENT: usize = usize::MAX;

impl TailBuilder {
    /// Takes the records of one frame, which must be as many as its header says.
    pub(crate) fn add(&mut self, records: &[u8], commits: u32) -> Result<(), Malformed> {
        let begin = self.arena.len();
        self.arena.extend_from_slice(records);
        let arena = std::mem::take(&mut self.arena);
        let done = self.add_records(&arena, begin, commits);
        self.arena = arena;
        done
    }

    fn add_records(&mut self, arena: &[u8], begin: usize, commits: u32) -> Result<(), Malformed> {
        let mut from = Reader::new(arena.get(begin..).unwrap_or_default());
        for _ in 0..commits {
            let record = Record::decode(&mut from)?;
            let mut operations = Reader::new(record.operations);
            while !operations.is_empty() {
                self.add_operation(arena, &Operation::decode(&mut operations)?)?;
                self.operations += 1;
            }
        }
        self.commits += u64::from(commits);
        if from.is_empty() { Ok(()) } else { Err(Malformed::Field("count of commits")) }
    }

    fn add_operation(&mut self, arena: &[u8], operation: &Operation<'_>) -> Result<(), Malformed> {
        let region = match *operation {
            Operation::Create { region, .. }
            | Operation::RemoveRegion { region }
            | Operation::Insert { region, .. }
            | Operation::Replace { region, .. }
            | Operation::Remove { region, .. }
            | Operation::Clear { region } => region,
        };
        let gathered = self.regions.entry(region).or_default();
        if gathered.tail.removed {
            return Err(Malformed::Field("region: it was removed"));
        }
        match *operation {
            Operation::Create { name, schema, .. } => {
                gathered.tail.created = Some((name.to_owned(), schema.to_vec()));
                self.next_region = self.next_region.max(region.0.saturating_add(1));
            }
            Operation::RemoveRegion { .. } => {
                gathered.items.clear();
                gathered.tail.removed = true;
            }
            Operation::Insert { key, value, .. } => {
                gathered.tail.entries_added += 1;
                gathered.items.push(Item::new(arena, key, Some(value)));
            }
            Operation::Replace { key, value, .. } => {
                gathered.items.push(Item::new(arena, key, Some(value)));
            }
            Operation::Remove { key, .. } => {
                gathered.tail.entries_added -= 1;
                gathered.items.push(Item::new(arena, key, None));
            }
            Operation::Clear { .. } => {
                gathered.items.clear();
                gathered.tail.cleared = true;
                gathered.tail.entries_added = 0;
            }
        }
        Ok(())
    }

    /// Sorts what was gathered.
    pub(crate) fn finish(self) -> Tail {
        let bytes = disk_len(self.arena.len());
        let arena = Arc::new(self.arena);
        let regions = self.regions.into_iter().map(|(number, gathered)| {
            let run = Run::sorted(Arc::clone(&arena), &gathered.items, gathered.tail.cleared);
            (number, RegionTail { run: Arc::new(run), ..gathered.tail })
        });
        Tail {
            regions: regions.collect(),
            next_region: self.next_region,
            commits: self.commits,
            operations: self.operations,
            bytes,
        }
    }
}

impl Item {
    /// `key` and `value` are parts of `arena`.
    fn new(arena: &[u8], key: &[u8], value: Option<&[u8]>) -> Item {
        let place = |part: &[u8]| part.as_ptr().addr() - arena.as_ptr().addr();
        let short = crate::format::short_len;
        Item {
            key: place(key),
            key_len: short(key.len()),
            value: value.map_or(ABSENT, place),
            value_len: value.map_or(0, |value| short(value.len())),
        }
    }

    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        part(arena, self.key, self.key_len)
    }

    fn entry<'a>(&self, arena: &'a [u8]) -> Entry<'a> {
        let value = (self.value != ABSENT).then(|| part(arena, self.value, self.value_len));
        Entry { key: self.key(arena), value }
    }
}

fn part(arena: &[u8], begin: usize, len: u32) -> &[u8] {
    let len = crate::format::memory_len(u64::from(len));
    arena.get(begin..begin + len).unwrap_or_default()
}

/// The first eight bytes of a key as a number that sorts as they do.
fn prefix(key: &[u8]) -> u64 {
    let mut first = [0; 8];
    let len = key.len().min(8);
    first[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(first)
}

impl Run {
    /// Sorts by key and keeps the last write of each; comparing the first eight bytes as a number
    /// is several times faster than comparing slices, and decides nearly always.
    fn sorted(arena: Arc<Vec<u8>>, items: &[Item], from_nothing: bool) -> Run {
        let mut order: Vec<(u64, u32)> =
            items.iter().zip(0u32..).map(|(item, at)| (prefix(item.key(&arena)), at)).collect();
        let item = |at: u32| items[at as usize];
        order.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| item(a.1).key(&arena).cmp(item(b.1).key(&arena)))
                .then(b.1.cmp(&a.1))
        });
        let mut sorted: Vec<Item> = Vec::with_capacity(order.len());
        for (_, at) in order {
            let candidate = item(at);
            let repeated =
                sorted.last().is_some_and(|last| last.key(&arena) == candidate.key(&arena));
            if !repeated {
                sorted.push(candidate);
            }
        }
        if from_nothing {
            sorted.retain(|item| item.value != ABSENT);
        }
        sorted.shrink_to_fit();
        Run { arena, items: sorted }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(crate) fn get(&self, at: usize) -> Option<Entry<'_>> {
        self.items.get(at).map(|item| item.entry(&self.arena))
    }

    /// The place of the first key that is not below `key`.
    pub(crate) fn seek(&self, key: &[u8]) -> usize {
        self.items.partition_point(|item| item.key(&self.arena) < key)
    }

    /// The bytes that its entries use in a section.
    pub(crate) fn encoded_bytes(&self, from: usize, to: usize) -> u64 {
        let entries = self.items.get(from..to).unwrap_or_default().iter();
        entries.map(|item| disk_len(item.entry(&self.arena).encoded_len())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            builder.add(frame, 1).unwrap();
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
        assert!(builder.add(&frame(&[]), 2).is_err());
        assert!(TailBuilder::default().add(&frame(&[]), 0).is_err());
    }
}
