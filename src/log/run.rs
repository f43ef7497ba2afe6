//! Sorted entries in memory, each key once: the last write of each key of a piece of the log.

use std::sync::Arc;

use super::held::{Memory, Position};
use crate::format::block::Entry;
use crate::format::disk_len;
use crate::format::operation::Operation;

/// Keys that begin alike for so many bytes are sorted by the bytes that follow.
const COMMON_WORTH_SKIPPING: usize = 4;

/// Sorted entries, tombstones included.
#[derive(Debug, Default)]
pub(crate) struct Run {
    memory: Arc<Memory>,
    /// Positions in the lower half.
    sorted: Vec<u128>,
}

/// The writes of one region in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// The first eight bytes of the key, then the position.
    all: Vec<u128>,
    first_key: Vec<u8>,
    /// How many bytes all keys begin with, and how many the longest one has.
    common: usize,
    longest: usize,
}

impl Writes {
    pub(super) fn push(&mut self, key: &[u8], at: Position) {
        if self.all.is_empty() {
            self.first_key.clear();
            self.first_key.extend_from_slice(key);
            (self.common, self.longest) = (key.len(), 0);
        } else {
            let pairs = key.iter().zip(&self.first_key).take(self.common);
            self.common = pairs.take_while(|(a, b)| a == b).count();
        }
        self.longest = self.longest.max(key.len());
        self.all.push(write(prefix(key, 0), at));
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }
}

fn write(prefix: u64, at: Position) -> u128 {
    u128::from(prefix) << 64 | u128::from(at)
}

fn position(write: u128) -> Position {
    // The lower half is what it is.
    u64::try_from(write & u128::from(u64::MAX)).unwrap_or_default()
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

fn entry(memory: &Memory, write: u128) -> Option<Entry<'_>> {
    match memory.operation(position(write)).ok()? {
        Operation::Insert { key, value, .. } | Operation::Replace { key, value, .. } => {
            Some(Entry { key, value: Some(value) })
        }
        Operation::Remove { key, .. } => Some(Entry { key, value: None }),
        _ => None,
    }
}

fn key(memory: &Memory, write: u128) -> &[u8] {
    entry(memory, write).map_or(&[], |entry| entry.key)
}

impl Run {
    /// Sorts by key and keeps the last write of each; without tombstones if nothing is below.
    ///
    /// What is sorted are numbers: eight bytes from where the keys begin to differ, and the order of
    /// the log. That is several times faster than comparing slices, and decides nearly always.
    pub(super) fn sorted(memory: Arc<Memory>, writes: Writes, from_nothing: bool) -> Run {
        let Writes { all: mut writes, common, longest, .. } = writes;
        if common >= COMMON_WORTH_SKIPPING && longest > 8 {
            for one in &mut writes {
                *one = write(prefix(key(&memory, *one), common), position(*one));
            }
        }
        writes.sort_unstable();
        keep_last(&memory, &mut writes);
        if from_nothing {
            writes.retain(|one| entry(&memory, *one).is_some_and(|entry| entry.value.is_some()));
        }
        Run { memory, sorted: writes }
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    pub(crate) fn get(&self, at: usize) -> Option<Entry<'_>> {
        self.sorted.get(at).and_then(|write| entry(&self.memory, *write))
    }

    /// The place of the first key that is not below `lower`.
    pub(crate) fn seek(&self, lower: &[u8]) -> usize {
        self.sorted.partition_point(|write| key(&self.memory, *write) < lower)
    }

    /// The bytes that its entries use in a section.
    pub(crate) fn encoded_bytes(&self, from: usize, to: usize) -> u64 {
        let writes = self.sorted.get(from..to).unwrap_or_default().iter();
        let entries = writes.filter_map(|write| entry(&self.memory, *write));
        entries.map(|entry| disk_len(entry.encoded_len())).sum()
    }
}

/// Keeps the last write of each key; they are sorted by prefix and order in the log.
fn keep_last(memory: &Memory, writes: &mut Vec<u128>) {
    let (mut from, mut kept) = (0, 0);
    let mut group = Vec::new();
    while let Some(first) = writes.get(from).copied() {
        let rest = writes.get(from..).unwrap_or_default();
        let alike = rest.iter().take_while(|write| **write >> 64 == first >> 64).count();
        group.clear();
        group.extend_from_slice(rest.get(..alike).unwrap_or_default());
        from += alike;
        let first_key = if alike > 1 { key(memory, first) } else { &[] };
        if alike == 1 || group.iter().skip(1).all(|write| key(memory, *write) == first_key) {
            group.drain(..alike - 1);
        } else {
            // It is stable: the last write of a key stays behind those before it.
            group.sort_by(|a, b| key(memory, *a).cmp(key(memory, *b)));
            group.reverse();
            group.dedup_by(|a, b| key(memory, *a) == key(memory, *b));
            group.reverse();
        }
        for last in &group {
            if let Some(to) = writes.get_mut(kept) {
                *to = *last;
            }
            kept += 1;
        }
    }
    writes.truncate(kept);
}
