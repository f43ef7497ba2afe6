//! Sorted entries in memory, each key once: the last write of each key of a piece of the log.

use std::cmp::Ordering;
use std::sync::Arc;

use super::held::Memory;
use super::sort::{Sorted, Write, Writes, begins, position, prefix};
use crate::format::block::Entry;

/// Sorted entries, tombstones included.
#[derive(Debug, Default)]
pub(crate) struct Run {
    memory: Arc<Memory>,
    /// What all keys begin with, as far as it was skipped.
    skipped: Vec<u8>,
    /// Eight bytes of each key from there on, and positions in the lower half.
    sorted: Vec<Write>,
}

impl Run {
    /// Sorts by key and keeps the last write of each; without tombstones if nothing is below.
    pub(super) fn sorted(memory: Arc<Memory>, writes: Writes, from_nothing: bool) -> Run {
        let Sorted { skipped, mut writes } = writes.sort(&memory);
        if from_nothing {
            let is_there = |entry: Entry<'_>| entry.value.is_some();
            writes.retain(|write| memory.entry(position(*write)).is_some_and(is_there));
        }
        Run { memory, skipped, sorted: writes }
    }

    /// Several as one that keeps nothing else in memory; the newest comes first.
    pub(crate) fn joined(runs: &[Arc<Run>]) -> Run {
        let bytes = runs.iter().map(|run| run.bytes()).sum();
        let (mut memory, mut writes) = (Memory::with_room(bytes), Writes::default());
        for run in runs.iter().rev() {
            for write in &run.sorted {
                let encoded = run.memory.encoded(position(*write)).unwrap_or_default();
                writes
                    .push(run.memory.key(position(*write)), memory.hold(encoded, None).position(0));
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
            |write: &Write| self.memory.encoded(position(*write)).unwrap_or_default().len();
        self.sorted.iter().map(encoded).sum()
    }

    pub(crate) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    pub(crate) fn get(&self, at: usize) -> Option<Entry<'_>> {
        self.sorted.get(at).and_then(|write| self.memory.entry(position(*write)))
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
            Ordering::Equal => self.memory.key(position(*write)) < lower,
            order => order == Ordering::Less,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::format::RegionNo;
    use crate::format::operation::Operation;

    /// Removes a key, or gives it a value.
    type Change = (Vec<u8>, Option<Vec<u8>>);

    fn run_of(all: &[Change], from_nothing: bool) -> Run {
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

    /// Keys that are often alike for long, or end where others go on.
    fn any_key() -> impl Strategy<Value = Vec<u8>> {
        let parts = vec![
            &b"a part of a key: 1"[..],
            b"a part of a key: 2",
            b"\0\0\0\0\0\0\0\0",
            b"\0",
            b"\x01",
        ];
        let parts = prop::collection::vec(prop::sample::select(parts), 0..5);
        let end = || prop::collection::vec(0u8..3, 0..12);
        prop_oneof![
            end(),
            (parts, end()).prop_map(|(parts, end)| [parts.concat(), end].concat()),
            // Each look tells few from the others.
            (0..15usize, end()).prop_map(|(times, end)| [b"12345678".repeat(times), end].concat()),
        ]
    }

    proptest! {
        #[test]
        fn a_run_is_the_last_write_of_each_key(
            common in prop::sample::select(vec!["", "abc", "abcd", "a common beginning"]),
            keys in prop::collection::vec((any_key(), any::<bool>()), 1..200),
            same_length in prop::option::weighted(0.3, 0usize..24),
            from_nothing in any::<bool>(),
            sought in prop::collection::vec(prop::collection::vec(0u8..3, 0..12), 20),
            part in 1..50usize,
        ) {
            let write = |(at, (mut key, remove)): (usize, (Vec<u8>, bool))| -> Change {
                key.resize(same_length.unwrap_or(key.len()), 1);
                key.splice(..0, common.bytes());
                (key, (!remove).then(|| at.to_le_bytes().to_vec()))
            };
            let writes: Vec<Change> = keys.into_iter().enumerate().map(write).collect();
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
        let all: Vec<Change> = (0..1_000).map(write).collect();
        let whole = Arc::new(run_of(&all, false));
        assert!(Arc::ptr_eq(&whole, &whole.alone()));
        let (memory, sorted) = (Arc::clone(&whole.memory), whole.sorted[..5].to_vec());
        let few = Arc::new(Run { memory, skipped: whole.skipped.clone(), sorted });
        assert_eq!(entries(&few.alone()), entries(&few));
        assert_eq!(few.alone().memory.len(), few.bytes());
    }
}
