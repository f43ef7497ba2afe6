//! What a checkpoint merges: the pieces that give most for what they cost, within a budget.
//!
//! A piece is worth merging for the changes that lie over it, and for the space that goes with its
//! old section. Among pieces of about the same worth the one merged longest ago comes first, so that
//! what was written together goes together, and whole files with it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::layers::Layers;
use super::section::Section;
use crate::error::Result;
use crate::format::catalog::{Catalog, CatalogRegion, SectionRef};
use crate::format::{CheckpointNo, disk_len, total};

/// A piece may be merged when what that gives weighs this part of it. In a steady state of random
/// updates the budget makes it a third by the time its turn comes, so that each byte that changed is
/// written once as a delta and about three times in a merge.
const MERGE_WHEN_WORTH_ONE_IN: u64 = 4;

/// Space is won back when for each dead byte there are fewer live ones than this.
const DEAD_ONE_IN: u64 = 4;

/// More deltas than this over a region are folded into the new one.
const DELTAS_MAX: usize = 12;

/// How much is merged for each byte of the tail, at most, besides the first piece.
const MERGE_BYTES_PER_TAIL_BYTE: u64 = 4;

/// At least this much may be merged in one checkpoint.
const MERGE_BYTES_MIN: u64 = 64 << 10;

/// A base is divided into about so many pieces, as far as their size allows: then changes that lie
/// close together cause little to be written that did not change.
const PIECES: u64 = 256;

/// The sizes that a piece may aim at: two blocks, and what one checkpoint can well merge.
const PIECE_BYTES: std::ops::RangeInclusive<u64> = 32 << 10..=8 << 20;

/// The size that pieces of a region aim at.
pub(crate) fn piece_bytes(region_bytes: u64) -> u64 {
    (region_bytes / PIECES).clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end())
}

/// What a checkpoint does to one region besides writing its delta.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MergePlan {
    /// These pieces are written anew with everything over them, which is about so many bytes.
    pub(crate) pieces: BTreeMap<usize, u64>,
    /// This many of the newest deltas become part of the new one.
    pub(crate) fold: usize,
}

/// How much may still be merged in this checkpoint.
#[derive(Debug)]
pub(crate) struct MergeBudget {
    bytes: u64,
    spent: bool,
}

/// What is dead in the files of a catalog of which less than half is still read by anybody.
#[derive(Debug)]
pub(crate) struct SparseFiles {
    /// Bytes that nobody reads, and bytes that somebody does.
    dead_and_live: BTreeMap<CheckpointNo, (u64, u64)>,
}

impl SparseFiles {
    pub(crate) fn of(catalog: &Catalog) -> SparseFiles {
        let mut live: BTreeMap<CheckpointNo, u64> = BTreeMap::new();
        for region in catalog.regions.values() {
            for delta in &region.deltas {
                let bytes = live.entry(delta.file).or_default();
                *bytes = bytes.saturating_add(live_part(delta, region));
            }
            for section in region.pieces.iter().filter_map(|piece| piece.section.as_ref()) {
                let bytes = live.entry(section.file).or_default();
                *bytes = bytes.saturating_add(section.bytes);
            }
        }
        let files = catalog.files.iter().map(|(number, len)| {
            let live = live.get(number).copied().unwrap_or_default();
            (*number, (len.saturating_sub(live), live))
        });
        let files: Vec<_> = files.collect();
        let dead = total(files.iter().map(|(_, (dead, _))| *dead));
        let live = total(files.iter().map(|(_, (_, live))| *live));
        // As long as little is dead altogether, writing what is live again would cost more.
        let enough = dead.saturating_mul(DEAD_ONE_IN) > live;
        let sparse = |(dead, live): &(u64, u64)| enough && dead > live;
        SparseFiles {
            dead_and_live: files.into_iter().filter(|(_, bytes)| sparse(bytes)).collect(),
        }
    }

    /// Whether a region reads from such a file.
    pub(crate) fn concern(&self, region: &CatalogRegion) -> bool {
        region.sections().any(|section| self.dead_and_live.contains_key(&section.file))
    }

    /// What is freed for a section that leaves such a file, as its part of what is dead there.
    fn freed_with(&self, section: &SectionRef) -> u64 {
        let Some((dead, live)) = self.dead_and_live.get(&section.file) else { return 0 };
        part(*dead, section.bytes.min(*live).max(1), *live)
    }
}

/// The part of a whole that belongs to `of` in `all`.
fn part(whole: u64, of: u64, all: u64) -> u64 {
    let part = u128::from(whole) * u128::from(of) / u128::from(all.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// The bytes of a delta that are over pieces which have not merged it, about.
fn live_part(delta: &SectionRef, region: &CatalogRegion) -> u64 {
    let needing = region.pieces.iter().filter(|piece| piece.merged < delta.number).count();
    match disk_len(region.pieces.len()) {
        0 => delta.bytes,
        pieces => part(delta.bytes, disk_len(needing), pieces),
    }
}

impl MergeBudget {
    pub(crate) fn for_tail(tail_bytes: u64) -> MergeBudget {
        let bytes = tail_bytes.saturating_mul(MERGE_BYTES_PER_TAIL_BYTE).max(MERGE_BYTES_MIN);
        MergeBudget { bytes, spent: false }
    }

    /// Chooses pieces of a region that has so many entries, and how many deltas to fold.
    pub(crate) fn plan(
        &mut self,
        layers: &Layers,
        entries: u64,
        sparse: &SparseFiles,
        all: bool,
    ) -> Result<MergePlan> {
        let mut candidates = Vec::new();
        let mut over = weigh_run(layers);
        let run_bytes = total(over.iter().copied());
        for delta in &layers.deltas {
            weigh_delta(layers, delta, &mut over)?;
        }
        let removed = removed(layers, &over, entries);
        let held = held_by(layers);
        let weighed = layers.pieces.iter().zip(over).zip(removed);
        for (number, ((piece, over), removed)) in weighed.enumerate() {
            let base = piece.bytes();
            // What comes out of it.
            let written = base.saturating_add(over).saturating_sub(removed);
            let freed = piece.section.as_ref().map_or(0, |section| sparse.freed_with(&section.at));
            let held = layers.deltas_over(piece).filter_map(|delta| held.get(&delta.at.number));
            let worth = total([over, removed, freed, total(held.copied())].into_iter());
            if all || (worth > 0 && worth.saturating_mul(MERGE_WHEN_WORTH_ONE_IN) >= base) {
                // Worth twice as much, or merged longer ago.
                let class = (worth.saturating_mul(16) / base.max(1)).checked_ilog2();
                candidates.push((Reverse(class), piece.merged, written, number));
            }
        }
        candidates.sort_unstable();
        let mut plan = MergePlan::default();
        for (_, _, bytes, number) in candidates {
            // The first one always: a piece that is larger than any budget would never be merged.
            if all || bytes <= self.bytes || !self.spent {
                self.spent = true;
                self.bytes = self.bytes.saturating_sub(bytes);
                plan.pieces.insert(number, bytes);
            }
        }
        plan.fold = fold(layers, &plan.pieces, run_bytes);
        Ok(plan)
    }
}

/// What the run writes over each piece.
fn weigh_run(layers: &Layers) -> Vec<u64> {
    let mut from = 0;
    let pieces = 0..layers.pieces.len();
    let over = pieces.map(|number| {
        let to = layers.upper(number).map_or(layers.run.len(), |upper| layers.run.seek(upper));
        layers.run.encoded_bytes(std::mem::replace(&mut from, to), to)
    });
    over.collect()
}

/// Adds what a delta has over each piece, about: a block that spans several counts for each in part.
fn weigh_delta(layers: &Layers, delta: &Section, over: &mut [u64]) -> Result<()> {
    let mut add = |first: usize, last: usize, bytes: u64| {
        let share = bytes / (disk_len(last.saturating_sub(first)) + 1);
        for (piece, over) in layers.pieces.iter().zip(over.iter_mut()).take(last + 1).skip(first) {
            if piece.merged < delta.at.number {
                *over = over.saturating_add(share);
            }
        }
    };
    let mut before: Option<(usize, u64)> = None;
    delta.blocks_between(&[], None, |block| {
        let begins = layers.piece_of(block.first_key);
        if let Some((first, bytes)) = before.replace((begins, block.bytes)) {
            add(first, begins, bytes);
        }
    })?;
    if let Some((first, bytes)) = before {
        add(first, layers.pieces.len().saturating_sub(1), bytes);
    }
    Ok(())
}

/// What a merge of each piece would leave out, about: a tombstone is small, what it hides is not. How
/// much is hidden in all is known from the counts of entries; it lies where the changes do.
fn removed(layers: &Layers, over: &[u64], entries: u64) -> Vec<u64> {
    let sections = || layers.pieces.iter().filter_map(|piece| piece.section.as_ref());
    let stored = total(sections().map(|section| section.at.entries));
    let bytes = total(sections().map(|section| section.at.bytes));
    let hidden = part(bytes, stored.saturating_sub(entries), stored);
    let changes = total(over.iter().copied());
    let pieces = layers.pieces.iter().zip(over);
    pieces.map(|(piece, over)| part(hidden, *over, changes).min(piece.bytes())).collect()
}

/// The deltas that most pieces have merged, with what each of the others holds of their bytes.
fn held_by(layers: &Layers) -> BTreeMap<CheckpointNo, u64> {
    let needing = |number: CheckpointNo| {
        disk_len(layers.pieces.iter().filter(|piece| piece.merged < number).count())
    };
    let deltas = layers.deltas.iter().map(|delta| (&delta.at, needing(delta.at.number)));
    let mostly_dead = deltas.filter(|(_, needing)| needing * 2 < disk_len(layers.pieces.len()));
    mostly_dead.map(|(delta, needing)| (delta.number, delta.bytes / needing.max(1))).collect()
}

/// Folds the newest deltas into the new one where there are too many, as long as each is not much
/// larger than all those newer than it: so a byte is folded about once for each doubling.
fn fold(layers: &Layers, merged: &BTreeMap<usize, u64>, run_bytes: u64) -> usize {
    let alive = |number: CheckpointNo| {
        let pieces = layers.pieces.iter().enumerate();
        pieces.into_iter().any(|(at, piece)| !merged.contains_key(&at) && piece.merged < number)
    };
    let alive = layers.deltas.iter().filter(|delta| alive(delta.at.number)).count();
    if alive <= DELTAS_MAX {
        return 0;
    }
    let mut gathered = run_bytes.max(1);
    let small = |bytes: u64, gathered: u64| bytes <= gathered.saturating_mul(2);
    let mut fold = 0;
    for delta in &layers.deltas {
        if !small(delta.at.bytes, gathered) && fold >= DELTAS_MAX / 2 {
            break;
        }
        gathered = gathered.saturating_add(delta.at.bytes);
        fold += 1;
    }
    fold
}
