//! What a checkpoint merges: the pieces that give most for what they cost, within a budget.
//!
//! A piece is worth merging for the changes that lie over it, and for the space that goes with its
//! old section. Among pieces of about the same worth the one merged longest ago comes first, so that
//! what was written together goes together, and whole files with it.
//!
//! A tombstone is small, and what it hides is not: of a queue, whose entries go where others are not
//! touched, it is all that tells that a piece is dead. So tombstones weigh what they hide.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::layers::{LayerPiece, Layers};
use super::section::Section;
use crate::error::{ErrorKind, Result};
use crate::format::block::Entry;
use crate::format::catalog::{Catalog, CatalogRegion, SectionRef};
use crate::format::index::IndexRef;
use crate::format::{CheckpointNo, disk_len, total};
use crate::give_way::GiveWay;

/// A piece may be merged when what that gives weighs this part of it. In a steady state of random
/// updates the budget makes it a third by the time its turn comes, so that each byte that changed is
/// written once as a delta and about three times in a merge.
const MERGE_WHEN_WORTH_ONE_IN: u64 = 4;

/// Space is won back when for each dead byte there are fewer live ones than this.
const DEAD_ONE_IN: u64 = 4;

/// What is hidden weighs so much: what dies in the order of its keys is dead as a whole soon, and costs nothing then.
const HIDDEN_COUNTS_ONE_IN: u64 = 2;

/// A piece that is smaller than this part of what pieces aim at comes along with a neighbour.
const CRUMB_ONE_IN: u64 = 8;

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

/// What lies over a piece.
#[derive(Clone, Copy, Debug, Default)]
struct Over {
    bytes: u64,
    /// Of deltas, about.
    tombstones: u64,
}

/// What merging a piece comes to.
struct Candidate {
    number: usize,
    /// What that is worth, in steps of twice as much.
    class: Option<u32>,
    merged: CheckpointNo,
    /// What comes out of it, about.
    written: u64,
    /// What it takes of the budget.
    charge: u64,
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
        give_way: &GiveWay,
    ) -> Result<MergePlan> {
        let mut over = weigh_runs(layers);
        let run_bytes = total(over.iter().map(|over| over.bytes));
        for delta in layers.deltas.iter() {
            weigh_delta(layers, delta, &mut over)?;
        }
        let doubtful = doubtful(layers, &over, entries);
        let held = held_by(layers);
        let mut candidates = Vec::new();
        for (number, (piece, mut over)) in
            layers.pieces.iter().zip(over.iter().copied()).enumerate()
        {
            let base = piece.bytes();
            let freed = piece.section.as_ref().map_or(0, |section| sparse.freed_with(&section.at));
            let held = layers.deltas_over(piece).filter_map(|delta| held.get(&delta.at.number));
            let others = total([freed, total(held.copied())].into_iter());
            let worth = |over: Over| {
                let hidden = over.hides(piece) / HIDDEN_COUNTS_ONE_IN;
                total([over.bytes, hidden, others].into_iter())
            };
            let is_worth = |worth: u64| worth.saturating_mul(MERGE_WHEN_WORTH_ONE_IN) >= base;
            if is_worth(worth(over)) && !is_worth(over.bytes.saturating_add(others)) {
                over.tombstones = match count_tombstones(layers, number, give_way) {
                    Err(error) if error.kind() == ErrorKind::Closed => return Err(error),
                    // What cannot be read is told by who merges it.
                    counted => counted.unwrap_or(over.tombstones),
                };
            }
            let worth = worth(over);
            if all || (worth > 0 && is_worth(worth)) {
                let hidden = over.hides(piece);
                let written = base.saturating_add(over.bytes).saturating_sub(hidden);
                candidates.push(Candidate {
                    number,
                    class: (worth.saturating_mul(16) / base.max(1)).checked_ilog2(),
                    merged: piece.merged,
                    written,
                    charge: written.saturating_add(doubtful.part_of(hidden)),
                });
            }
        }
        let mut plan = MergePlan { pieces: self.choose(candidates, all), fold: 0 };
        take_crumbs(layers, &over, &mut plan);
        plan.fold = fold(layers, &plan.pieces, run_bytes);
        Ok(plan)
    }

    /// As many as it allows, those first that are worth twice as much, or were merged longer ago.
    fn choose(&mut self, mut candidates: Vec<Candidate>, all: bool) -> BTreeMap<usize, u64> {
        candidates
            .sort_unstable_by_key(|one| (Reverse(one.class), one.merged, one.charge, one.number));
        let mut chosen = BTreeMap::new();
        for one in candidates {
            // The first one always: a piece that is larger than any budget would never be merged.
            if all || one.charge <= self.bytes || !self.spent {
                self.spent |= one.charge > 0;
                self.bytes = self.bytes.saturating_sub(one.charge);
                chosen.insert(one.number, one.written);
            }
        }
        chosen
    }
}

impl Over {
    /// How much of a piece is hidden, at most and about.
    fn hides(self, piece: &LayerPiece) -> u64 {
        let Some(section) = &piece.section else { return 0 };
        part(section.at.bytes, self.tombstones.min(section.at.entries), section.at.entries)
    }
}

/// What the log writes over each piece.
fn weigh_runs(layers: &Layers) -> Vec<Over> {
    let mut all = vec![Over::default(); layers.pieces.len()];
    for run in &layers.runs {
        let mut from = 0;
        for (number, over) in all.iter_mut().enumerate() {
            let to = layers.upper(number).map_or(run.len(), |upper| run.seek(upper));
            for entry in (std::mem::replace(&mut from, to)..to).filter_map(|at| run.get(at)) {
                over.bytes = over.bytes.saturating_add(disk_len(entry.encoded_len()));
                over.tombstones += u64::from(entry.value.is_none());
            }
        }
    }
    all
}

/// Adds what a delta has over each piece, about: a block that spans several counts for each in part.
fn weigh_delta(layers: &Layers, delta: &Section, over: &mut [Over]) -> Result<()> {
    let last_piece = layers.pieces.len().saturating_sub(1);
    let mut add = |block: &Weight, first: usize, last: usize| {
        let pieces = disk_len(last.saturating_sub(first)) + 1;
        for (piece, over) in layers.pieces.iter().zip(over.iter_mut()).take(last + 1).skip(first) {
            if piece.merged < delta.at.number {
                over.bytes = over.bytes.saturating_add(block.bytes / pieces);
                let tombstones = block.tombstones(entry_bytes(piece)) / pieces;
                over.tombstones = over.tombstones.saturating_add(tombstones);
            }
        }
    };
    let mut before: Option<(usize, Weight)> = None;
    delta.blocks_between(&[], None, |block| {
        let begins = layers.piece_of(block.first_key);
        if let Some((first, block)) = before.replace((begins, Weight::of(block))) {
            add(&block, first, begins);
        }
    })?;
    if let Some((first, block)) = before {
        add(&block, first, last_piece);
    }
    Ok(())
}

/// What an entry of a piece has, on average.
fn entry_bytes(piece: &LayerPiece) -> u64 {
    piece.section.as_ref().map_or(0, |section| section.at.bytes / section.at.entries.max(1))
}

/// What is known of a block without reading it.
struct Weight {
    bytes: u64,
    entries: u64,
    /// What a tombstone of its first key has.
    tombstone: u64,
}

impl Weight {
    fn of(block: &IndexRef<'_>) -> Weight {
        let tombstone = Entry { key: block.first_key, value: None };
        let tombstone = disk_len(tombstone.encoded_len());
        Weight { bytes: block.bytes, entries: block.entries, tombstone }
    }

    /// How many of its entries are tombstones, if the others have so many bytes. Where that is not much more than
    /// tombstones have, their bytes weigh enough.
    fn tombstones(&self, others: u64) -> u64 {
        if others < self.tombstone.saturating_mul(2) {
            return 0;
        }
        let missing = others.saturating_mul(self.entries).saturating_sub(self.bytes);
        (missing / others.saturating_sub(self.tombstone).max(1)).min(self.entries)
    }
}

/// How many keys of a piece are absent by what lies over it, of which all is read, and nothing of the base.
fn count_tombstones(layers: &Layers, number: usize, give_way: &GiveWay) -> Result<u64> {
    let deltas = layers.newest_applying(number, layers.deltas.len());
    let mut merge = layers.newest_over(number..number + 1, deltas)?;
    let (mut entries, mut tombstones) = (0u64, 0);
    while let Some(entry) = merge.entry() {
        give_way.ask_after(entries)?;
        entries += 1;
        tombstones += u64::from(entry.value.is_none());
        merge.advance()?;
    }
    Ok(tombstones)
}

/// How much of what tombstones seem to hide may not be there: the entry of one that came and went lies in deltas
/// alone, and then merging takes more than it seems.
struct Doubtful {
    tombstones: u64,
    all: u64,
}

/// So many entries are hidden for certain as the base has more than the region.
fn doubtful(layers: &Layers, over: &[Over], entries: u64) -> Doubtful {
    let sections = layers.pieces.iter().filter_map(|piece| piece.section.as_ref());
    let stored = total(sections.map(|section| section.at.entries));
    let all = total(over.iter().map(|over| over.tombstones));
    Doubtful { tombstones: all.saturating_sub(stored.saturating_sub(entries)), all }
}

impl Doubtful {
    fn part_of(&self, hidden: u64) -> u64 {
        part(hidden, self.tombstones, self.all)
    }
}

/// Has the small neighbours of what is merged come along. Otherwise each run of dead pieces would leave one that is
/// empty, for ever, and those that have hardly an entry would never be one.
fn take_crumbs(layers: &Layers, over: &[Over], plan: &mut MergePlan) {
    let crumb = piece_bytes(total(layers.pieces.iter().map(LayerPiece::bytes))) / CRUMB_ONE_IN;
    let crumb = |number: usize| {
        let piece = layers.pieces.get(number)?;
        let bytes = piece.bytes().saturating_add(over.get(number)?.bytes);
        (bytes <= crumb).then_some((number, bytes))
    };
    let planned: Vec<usize> = plan.pieces.keys().copied().collect();
    let beside =
        planned.into_iter().flat_map(|number| [number.checked_sub(1), number.checked_add(1)]);
    for (number, bytes) in beside.flatten().filter_map(crumb) {
        plan.pieces.entry(number).or_insert(bytes);
    }
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
    for delta in layers.deltas.iter() {
        if !small(delta.at.bytes, gathered) && fold >= DELTAS_MAX / 2 {
            break;
        }
        gathered = gathered.saturating_add(delta.at.bytes);
        fold += 1;
    }
    fold
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_about_how_many_tombstones_it_has() {
        let of = |bytes, entries| Weight { bytes, entries, tombstone: 10 };
        // None, all, and a fourth of entries that have a hundred bytes otherwise.
        assert_eq!(of(16_016, 160).tombstones(100), 0);
        assert_eq!(of(16_000, 1_600).tombstones(100), 1_600);
        assert_eq!(of(100 * 120 + 10 * 40, 160).tombstones(100), 40);
        assert_eq!(of(16_000, 1_600).tombstones(19), 0, "their bytes weigh enough");
        assert_eq!(of(16_000, 1_600).tombstones(0), 0, "nothing lies below");
        // Whatever an index says.
        assert_eq!(of(u64::MAX, 7).tombstones(u64::MAX), 0);
        assert_eq!(of(0, u64::MAX).tombstones(u64::MAX), 1);
    }
}
