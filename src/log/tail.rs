//! A piece of the log, sorted: the last value of each key, by region.
//!
//! Boot makes the tail readable with it, and a checkpoint makes its deltas with it. It works on
//! encoded bytes alone: no user code runs, and a region that nobody declared is nothing special.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::format::block::Entry;
use crate::format::bytes::{Reader, varint_len};
use crate::format::operation::{Operation, Record};
use crate::format::{Malformed, RegionNo, disk_len};

/// Gathers frames; [`finish`](TailBuilder::finish) sorts.
#[derive(Debug, Default)]
pub(crate) struct TailBuilder {
    arena: Vec<u8>,
    numbers: BTreeMap<RegionNo, usize>,
    regions: Vec<Gathered>,
    /// The region that was changed last, since one is seldom changed alone.
    last: Option<(RegionNo, usize)>,
    next_region: u64,
    commits: u64,
    operations: u64,
}

/// A longer log has space between its frames.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// Where the records of a frame lie in the memory of a tail.
pub(crate) type Held = Range<usize>;

/// What a piece of log does to the state.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    pub(crate) regions: BTreeMap<RegionNo, RegionTail>,
    /// Above every region number that this piece creates.
    pub(crate) next_region: u64,
    pub(crate) commits: u64,
    pub(crate) operations: u64,
    pub(crate) bytes: u64,
    arena: Arc<Vec<u8>>,
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

impl ReplayWork {
    pub(crate) fn less(self, other: ReplayWork) -> ReplayWork {
        ReplayWork {
            bytes: self.bytes.saturating_sub(other.bytes),
            operations: self.operations.saturating_sub(other.operations),
        }
    }
}

#[derive(Debug, Default)]
struct Gathered {
    tail: RegionTail,
    items: Vec<Item>,
    /// How many bytes all keys begin with.
    common: usize,
}

/// Sorted entries in memory, each key once.
#[derive(Debug, Default)]
pub(crate) struct Run {
    arena: Arc<Vec<u8>>,
    items: Vec<Item>,
}

/// Where a key and its value lie in the arena: one behind the other, the length of the value
/// between them.
#[derive(Clone, Copy, Debug)]
struct Item {
    /// The first eight bytes of the key, so that sorting seldom looks at the arena.
    first: u64,
    key: usize,
    key_len: u32,
    value_len: u32,
}

/// Keys that begin alike for so many bytes are sorted by the bytes that follow.
const COMMON_WORTH_SKIPPING: usize = 4;

/// The `value_len` of an [`Item`] that is a tombstone.
const ABSENT: u32 = u32::MAX;

impl TailBuilder {
    /// Takes the records of one frame, which must be as many as its header says.
    pub(crate) fn add(&mut self, records: &[u8], commits: u32) -> Result<(), Malformed> {
        let held = self.hold(records);
        self.take(held, commits)
    }

    /// Makes room for about so many bytes of log.
    pub(crate) fn reserve(&mut self, bytes: u64) {
        self.arena.reserve(crate::format::memory_len(bytes.min(RESERVE_BYTES_MAX)));
    }

    /// Keeps the records of a frame of which it is not known yet whether it counts.
    pub(crate) fn hold(&mut self, records: &[u8]) -> Held {
        let begin = self.arena.len();
        self.arena.extend_from_slice(records);
        begin..self.arena.len()
    }

    /// The frame counts; frames come in the order of the log.
    pub(crate) fn take(&mut self, held: Held, commits: u32) -> Result<(), Malformed> {
        let arena = std::mem::take(&mut self.arena);
        let done = self.take_records(&arena, held, commits);
        self.arena = arena;
        done
    }

    fn take_records(&mut self, arena: &[u8], held: Held, commits: u32) -> Result<(), Malformed> {
        let mut from = Reader::new(arena.get(held).unwrap_or_default());
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

    fn add_operation(&mut self, arena: &[u8], operation: &Operation<'_>) -> Result<(), Malformed> {
        let region = match *operation {
            Operation::Create { region, .. }
            | Operation::RemoveRegion { region }
            | Operation::Insert { region, .. }
            | Operation::Replace { region, .. }
            | Operation::Remove { region, .. }
            | Operation::Clear { region } => region,
        };
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
                gathered.items.clear();
                gathered.tail.removed = true;
            }
            Operation::Insert { key, value, .. } => {
                gathered.tail.entries_added += 1;
                gathered.push(arena, key, Some(value));
            }
            Operation::Replace { key, value, .. } => {
                gathered.push(arena, key, Some(value));
            }
            Operation::Remove { key, .. } => {
                gathered.tail.entries_added -= 1;
                gathered.push(arena, key, None);
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
    pub(crate) fn finish(mut self) -> Tail {
        let bytes = disk_len(self.arena.len());
        let arena = Arc::new(self.arena);
        let mut regions = BTreeMap::new();
        for (number, at) in self.numbers {
            let Some(gathered) = self.regions.get_mut(at).map(std::mem::take) else { continue };
            let run = Run::sorted(Arc::clone(&arena), &gathered);
            regions.insert(number, RegionTail { run: Arc::new(run), ..gathered.tail });
        }
        Tail {
            regions,
            next_region: self.next_region,
            commits: self.commits,
            operations: self.operations,
            bytes,
            arena,
        }
    }
}

impl Tail {
    /// The records of a frame that was held.
    pub(crate) fn records(&self, held: &Held) -> &[u8] {
        self.arena.get(held.clone()).unwrap_or_default()
    }
}

impl Gathered {
    fn push(&mut self, arena: &[u8], key: &[u8], value: Option<&[u8]>) {
        self.common = match self.items.first().map(|item| item.key(arena)) {
            None => key.len(),
            Some(first) => {
                let pairs = key.iter().zip(first).take(self.common);
                pairs.take_while(|(a, b)| a == b).count()
            }
        };
        self.items.push(Item::new(arena, key, value));
    }
}

impl Item {
    /// `key` and the value behind it are parts of `arena`.
    fn new(arena: &[u8], key: &[u8], value: Option<&[u8]>) -> Item {
        let short = crate::format::short_len;
        Item {
            first: prefix(key, 0),
            key: key.as_ptr().addr() - arena.as_ptr().addr(),
            key_len: short(key.len()),
            value_len: value.map_or(ABSENT, |value| short(value.len())),
        }
    }

    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        part(arena, self.key, self.key_len)
    }

    fn entry<'a>(&self, arena: &'a [u8]) -> Entry<'a> {
        let value = (self.value_len != ABSENT).then(|| {
            let begin = self.key + crate::format::memory_len(u64::from(self.key_len));
            part(arena, begin + varint_len(u64::from(self.value_len)), self.value_len)
        });
        Entry { key: self.key(arena), value }
    }
}

fn part(arena: &[u8], begin: usize, len: u32) -> &[u8] {
    let len = crate::format::memory_len(u64::from(len));
    arena.get(begin..begin + len).unwrap_or_default()
}

/// Eight bytes of a key from `skip` on, as a number that sorts as they do.
fn prefix(key: &[u8], skip: usize) -> u64 {
    let key = key.get(skip..).unwrap_or_default();
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(first)
}

/// Whether these are all writes of one key.
fn same_key(mut items: impl Iterator<Item = Item>, arena: &[u8]) -> bool {
    let first = items.next();
    first.is_some_and(|first| items.all(|item| item.key(arena) == first.key(arena)))
}

impl Run {
    /// Sorts by key and keeps the last write of each.
    ///
    /// What is sorted are numbers: the first eight bytes in which the keys differ, and the order of
    /// the writes. That is several times faster than comparing slices, and decides nearly always.
    fn sorted(arena: Arc<Vec<u8>>, gathered: &Gathered) -> Run {
        let Gathered { tail, items, common } = gathered;
        let differing = |item: &Item| match common {
            0..COMMON_WORTH_SKIPPING => item.first,
            _ => prefix(item.key(&arena), *common),
        };
        let mut order: Vec<u128> = (0u32..)
            .zip(items)
            .map(|(at, item)| u128::from(differing(item)) << 64 | u128::from(at))
            .collect();
        order.sort_unstable();
        let mut sorted: Vec<Item> = Vec::with_capacity(order.len());
        for same in order.chunk_by(|a, b| a >> 64 == b >> 64) {
            let at = |number: &u128| items.get((number & u128::from(u32::MAX)) as usize).copied();
            if let [only] = same {
                sorted.extend(at(only));
                continue;
            }
            if let (true, Some(last)) = (same_key(same.iter().filter_map(at), &arena), same.last())
            {
                sorted.extend(at(last));
                continue;
            }
            let mut writes: Vec<Item> = same.iter().filter_map(at).collect();
            // It is stable: the last write of a key stays behind those before it.
            writes.sort_by(|a, b| a.key(&arena).cmp(b.key(&arena)));
            let keys = writes.chunk_by(|a, b| a.key(&arena) == b.key(&arena));
            sorted.extend(keys.filter_map(|writes| writes.last()));
        }
        if tail.cleared {
            sorted.retain(|item| item.value_len != ABSENT);
        }
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
