//! Sorted entries in memory, each key once: the last write of each key of a piece of the log.

use std::cmp::Ordering;
use std::sync::Arc;

use super::held::{Memory, Position};
use crate::format::block::Entry;
use crate::format::operation::Operation;

/// Keys that begin alike for so many bytes are sorted by the bytes that follow.
const COMMON_WORTH_SKIPPING: usize = 4;

/// Sorted entries, tombstones included.
#[derive(Debug, Default)]
pub(crate) struct Run {
    memory: Arc<Memory>,
    /// What all keys begin with, as far as it was skipped.
    skipped: Vec<u8>,
    /// Eight bytes of each key from there on, and positions in the lower half.
    sorted: Vec<u128>,
}

/// The writes of one region in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// The first eight bytes of the key, then the position.
    all: Vec<u128>,
    first_key: Vec<u8>,
    /// How many bytes all keys begin with, and how many the shortest and the longest one have.
    common: usize,
    shortest: usize,
    longest: usize,
}

impl Writes {
    pub(super) fn push(&mut self, key: &[u8], at: Position) {
        if self.all.is_empty() {
            self.first_key.clear();
            self.first_key.extend_from_slice(key);
            (self.common, self.shortest, self.longest) = (key.len(), key.len(), 0);
        } else {
            let pairs = key.iter().zip(&self.first_key).take(self.common);
            self.common = pairs.take_while(|(a, b)| a == b).count();
        }
        self.shortest = self.shortest.min(key.len());
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

/// The bytes of the key that were written down.
fn begins(write: u128) -> u64 {
    u64::try_from(write >> 64).unwrap_or_default()
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
        let Writes { all: mut writes, first_key, common, shortest, longest } = writes;
        let skip = common >= COMMON_WORTH_SKIPPING && longest > 8;
        if skip {
            for one in &mut writes {
                *one = write(prefix(key(&memory, *one), common), position(*one));
            }
        }
        writes.sort_unstable();
        let seen = if skip { common + 8 } else { 8 };
        // Keys of one length, of which every byte was compared.
        let whole = shortest == longest && longest <= seen;
        keep_last(&memory, &mut writes, whole);
        if from_nothing {
            writes.retain(|one| entry(&memory, *one).is_some_and(|entry| entry.value.is_some()));
        }
        let mut skipped = first_key;
        skipped.truncate(if skip { common } else { 0 });
        Run { memory, skipped, sorted: writes }
    }

    /// Several as one that keeps nothing else in memory; the newest comes first.
    pub(crate) fn joined(runs: &[Arc<Run>]) -> Run {
        let bytes = runs.iter().map(|run| run.bytes()).sum();
        let (mut memory, mut writes) = (Memory::with_room(bytes), Writes::default());
        for run in runs.iter().rev() {
            for write in &run.sorted {
                let encoded = run.memory.encoded(position(*write)).unwrap_or_default();
                writes.push(key(&run.memory, *write), memory.hold(encoded, None).position(0));
            }
        }
        Run::sorted(Arc::new(memory), writes, false)
    }

    /// The same, without what others have in its memory if that is most of it.
    pub(crate) fn alone(self: &Arc<Run>) -> Arc<Run> {
        if self.bytes() >= self.memory.len() / 2 {
            return Arc::clone(self);
        }
        Arc::new(Run::joined(std::slice::from_ref(self)))
    }

    /// The bytes of what it keeps in memory for itself.
    fn bytes(&self) -> usize {
        let encoded =
            |write: &u128| self.memory.encoded(position(*write)).unwrap_or_default().len();
        self.sorted.iter().map(encoded).sum()
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

    /// Has the processor fetch the entry at a place, for somebody who reads all in order: the next one lies
    /// wherever it was written.
    pub(crate) fn prefetch(&self, at: usize) {
        if let Some(write) = self.sorted.get(at) {
            self.memory.prefetch(position(*write));
        }
    }

    /// The place of the first key that is not below `lower`.
    pub(crate) fn seek(&self, lower: &[u8]) -> usize {
        if !lower.starts_with(&self.skipped) {
            return if lower < self.skipped.as_slice() { 0 } else { self.sorted.len() };
        }
        // Looking at a key costs a cache miss, and its beginning decides nearly always.
        let first = prefix(lower, self.skipped.len());
        self.sorted.partition_point(|write| match begins(*write).cmp(&first) {
            Ordering::Equal => key(&self.memory, *write) < lower,
            order => order == Ordering::Less,
        })
    }
}

/// Keeps the last write of each key; they are sorted by prefix and order in the log.
/// With `whole`, equal prefixes are equal keys.
fn keep_last(memory: &Memory, writes: &mut Vec<u128>, whole: bool) {
    let (mut from, mut kept) = (0, 0);
    let mut group = Vec::new();
    while let Some(first) = writes.get(from).copied() {
        let rest = writes.get(from..).unwrap_or_default();
        let alike = rest.iter().take_while(|write| **write >> 64 == first >> 64).count();
        group.clear();
        from += alike;
        if alike == 1 || whole || one_key(memory, rest.get(..alike).unwrap_or_default()) {
            group.extend(rest.get(alike - 1));
        } else {
            group.extend_from_slice(rest.get(..alike).unwrap_or_default());
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

fn one_key(memory: &Memory, writes: &[u128]) -> bool {
    writes.windows(2).all(|pair| match pair {
        [a, b] => key(memory, *a) == key(memory, *b),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::held::Memory;
    use super::*;
    use crate::format::RegionNo;

    /// Removes a key, or gives it a value.
    type Write = (Vec<u8>, Option<Vec<u8>>);

    fn run_of(all: &[Write], from_nothing: bool) -> Run {
        let region = RegionNo(1);
        let (mut memory, mut writes) = (Memory::default(), Writes::default());
        for (key, value) in all {
            let operation = match value {
                Some(value) => Operation::Replace { region, key, value },
                None => Operation::Remove { region, key },
            };
            let mut bytes = Vec::new();
            operation.encode(&mut bytes);
            writes.push(key, memory.hold(&bytes, None).position(0));
        }
        Run::sorted(Arc::new(memory), writes, from_nothing)
    }

    fn entries(run: &Run) -> Vec<Entry<'_>> {
        (0..run.len()).filter_map(|at| run.get(at)).collect()
    }

    proptest! {
        #[test]
        fn a_run_is_the_last_write_of_each_key(
            common in prop::sample::select(vec!["", "abc", "abcd", "a common beginning"]),
            keys in prop::collection::vec(
                (prop::collection::vec(0u8..3, 0..12), any::<bool>()), 1..200),
            same_length in prop::option::of(0usize..12),
            from_nothing in any::<bool>(),
            sought in prop::collection::vec(prop::collection::vec(0u8..3, 0..12), 20),
            part in 1..50usize,
        ) {
            let write = |(at, (mut key, remove)): (usize, (Vec<u8>, bool))| -> Write {
                key.resize(same_length.unwrap_or(key.len()), 1);
                key.splice(..0, common.bytes());
                (key, (!remove).then(|| at.to_le_bytes().to_vec()))
            };
            let writes: Vec<Write> = keys.into_iter().enumerate().map(write).collect();
            let mut model: BTreeMap<Vec<u8>, Option<Vec<u8>>> = writes.iter().cloned().collect();
            let parts: Vec<Arc<Run>> =
                writes.chunks(part).rev().map(|part| Arc::new(run_of(part, false))).collect();
            let (joined, whole) = (Run::joined(&parts), run_of(&writes, false));
            prop_assert_eq!(entries(&joined), entries(&whole));
            if from_nothing {
                model.retain(|_, value| value.is_some());
            }
            let run = run_of(&writes, from_nothing);
            let expected: Vec<_> = model
                .iter()
                .map(|(key, value)| Entry { key, value: value.as_deref() })
                .collect();
            prop_assert_eq!(entries(&run), expected);
            let beside = sought.iter().flat_map(|key| [key.clone(), [common.as_bytes(), key].concat()]);
            for key in model.keys().cloned().chain(beside) {
                prop_assert_eq!(run.seek(&key), model.range(..key).count());
            }
        }
    }

    #[test]
    fn a_run_that_is_alone_keeps_nothing_else_in_memory() {
        let write = |key: u32| (key.to_be_bytes().to_vec(), Some(vec![1; 100]));
        let all: Vec<Write> = (0..1_000).map(write).collect();
        let whole = Arc::new(run_of(&all, false));
        assert!(Arc::ptr_eq(&whole, &whole.alone()));
        let (memory, sorted) = (Arc::clone(&whole.memory), whole.sorted[..5].to_vec());
        let few = Arc::new(Run { memory, skipped: whole.skipped.clone(), sorted });
        assert_eq!(entries(&few.alone()), entries(&few));
        assert_eq!(few.alone().memory.len(), few.bytes());
    }
}
