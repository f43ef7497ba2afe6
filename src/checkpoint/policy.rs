//! When to take a checkpoint, and what to merge in it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::layers::Layers;
use crate::error::Result;
use crate::format::CheckpointNo;
use crate::format::catalog::Catalog;
use crate::log::tail::ReplayWork;

/// A piece is merged when the deltas over it weigh this part of it: each byte that changed is then
/// written once as a delta and about three times more in a merge.
const MERGE_WHEN_DELTAS_ARE_ONE_IN: u64 = 3;

/// More deltas than this over a region are folded into the new one.
const DELTAS_MAX: usize = 12;

/// At least this much may be merged in one checkpoint, so that small stores stay compact.
const MERGE_BYTES_MIN: u64 = 64 << 20;

/// How much is merged for each byte of the tail, at most.
const MERGE_BYTES_PER_TAIL_BYTE: u64 = 4;

/// What a checkpoint does to one region besides writing its delta.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MergePlan {
    /// These pieces are written anew with everything over them.
    pub(crate) pieces: BTreeSet<usize>,
    /// This many of the newest deltas become part of the new one.
    pub(crate) fold: usize,
}

/// How much may still be merged in this checkpoint.
#[derive(Debug)]
pub(crate) struct MergeBudget {
    bytes: u64,
}

impl MergeBudget {
    pub(crate) fn for_tail(tail_bytes: u64) -> MergeBudget {
        let bytes = tail_bytes.saturating_mul(MERGE_BYTES_PER_TAIL_BYTE).max(MERGE_BYTES_MIN);
        MergeBudget { bytes }
    }

    /// Chooses pieces, the one with the fattest deltas first, and how many deltas to fold.
    pub(crate) fn plan(
        &mut self,
        layers: &Layers,
        sparse: &BTreeSet<CheckpointNo>,
        all: bool,
    ) -> Result<MergePlan> {
        let mut candidates = Vec::new();
        for (number, piece) in layers.pieces.iter().enumerate() {
            let upper = layers.upper(number);
            let to = upper.map_or(layers.run.len(), |upper| layers.run.seek(upper));
            let mut over = layers.run.encoded_bytes(layers.run.seek(&piece.lower), to);
            let mut in_sparse_file =
                piece.section.as_ref().is_some_and(|section| sparse.contains(&section.at.file));
            for delta in layers.deltas_over(piece) {
                let bytes = delta.bytes_between(&piece.lower, upper)?;
                in_sparse_file |= bytes > 0 && sparse.contains(&delta.at.file);
                over += bytes;
            }
            let base = piece.section.as_ref().map_or(0, |section| section.at.bytes);
            let fat = over > 0 && over * MERGE_WHEN_DELTAS_ARE_ONE_IN >= base;
            if fat || in_sparse_file || all {
                candidates.push((over * 1000 / base.max(1), base + over, number));
            }
        }
        candidates.sort_unstable_by_key(|candidate| std::cmp::Reverse(candidate.0));
        let mut plan = MergePlan::default();
        for (_, bytes, number) in candidates {
            if all || bytes <= self.bytes {
                self.bytes = self.bytes.saturating_sub(bytes);
                plan.pieces.insert(number);
            }
        }
        plan.fold = fold(layers, &plan.pieces);
        Ok(plan)
    }
}

/// Folds the newest deltas into the new one where there are too many, as long as each is not much
/// larger than all those newer than it: so a byte is folded about once for each doubling.
fn fold(layers: &Layers, merged: &BTreeSet<usize>) -> usize {
    let alive = |number: CheckpointNo| {
        let pieces = layers.pieces.iter().enumerate();
        pieces.into_iter().any(|(at, piece)| !merged.contains(&at) && piece.merged < number)
    };
    let alive = layers.deltas.iter().filter(|delta| alive(delta.at.number)).count();
    if alive <= DELTAS_MAX {
        return 0;
    }
    let mut gathered = layers.run.encoded_bytes(0, layers.run.len()).max(1);
    let small = |bytes: u64, gathered: u64| bytes <= gathered.saturating_mul(2);
    let mut fold = 0;
    for delta in &layers.deltas {
        if !small(delta.at.bytes, gathered) && fold >= DELTAS_MAX / 2 {
            break;
        }
        gathered += delta.at.bytes;
        fold += 1;
    }
    fold
}

/// The files of which less than half is still read by anybody.
pub(crate) fn sparse_files(catalog: &Catalog) -> BTreeSet<CheckpointNo> {
    let live = |number: &CheckpointNo| -> u64 {
        let sections =
            catalog.regions.values().flat_map(crate::format::catalog::CatalogRegion::sections);
        sections.filter(|section| section.file == *number).map(|section| section.bytes).sum()
    };
    let files = catalog.files.iter();
    files.filter(|(number, len)| live(number) * 2 < **len).map(|(number, _)| *number).collect()
}

/// What replaying the log costs on this machine, learnt from every replay and every delta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayRate {
    ns_per_block: f64,
    ns_per_operation: f64,
}

impl Default for ReplayRate {
    /// Slow enough for a slow machine, until this one was measured.
    fn default() -> ReplayRate {
        ReplayRate { ns_per_block: 3_500.0, ns_per_operation: 250.0 }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; it is clamped and needs no more than a few digits"
)]
impl ReplayRate {
    /// How long this much log will take.
    pub(crate) fn estimate(&self, work: ReplayWork) -> Duration {
        let blocks = work.bytes.div_ceil(crate::format::BLOCK_BYTES) as f64;
        let ns = blocks * self.ns_per_block + work.operations as f64 * self.ns_per_operation;
        Duration::from_nanos(ns.clamp(0.0, 1e18) as u64)
    }

    /// Learns from a replay that took `reading` and `sorting`; small ones tell nothing.
    pub(crate) fn learn(&mut self, work: ReplayWork, reading: Duration, sorting: Duration) {
        let blocks = work.bytes / crate::format::BLOCK_BYTES;
        let blend = |old: f64, taken: Duration, count: u64| {
            let seen = taken.as_nanos() as f64 / count as f64;
            // Twice and half at most, so that one stalled read does not throw the estimate off.
            old.mul_add(0.7, 0.3 * seen.clamp(old / 2.0, old * 2.0))
        };
        if blocks >= 64 {
            self.ns_per_block = blend(self.ns_per_block, reading, blocks);
        }
        if work.operations >= 1_000 {
            self.ns_per_operation = blend(self.ns_per_operation, sorting, work.operations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_it_sees() {
        let mut rate = ReplayRate::default();
        let work = ReplayWork { bytes: 4096 * 10_000, operations: 100_000 };
        let before = rate.estimate(work);
        for _ in 0..50 {
            rate.learn(work, Duration::from_millis(10), Duration::from_millis(10));
        }
        let after = rate.estimate(work);
        assert!(after < before);
        assert!(after > Duration::from_millis(19) && after < Duration::from_millis(21));
    }

    #[test]
    fn a_tiny_replay_teaches_nothing() {
        let mut rate = ReplayRate::default();
        let work = ReplayWork { bytes: 4096, operations: 1 };
        let before = rate.estimate(work);
        rate.learn(work, Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(rate.estimate(work), before);
    }
}
