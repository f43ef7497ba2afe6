//! Taking a checkpoint: the log since the last one, cut into deltas, merged where deltas are fat.
//!
//! *cut → write → publish → remove.* The caller has cut the tail; the file has its name before
//! anything that it replaces is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::heal::{Healed, Redundancy};
use super::layers::{LayerPiece, Layers};
use super::merge::Merge;
use super::plan::{MergeBudget, MergePlan, SparseFiles, piece_bytes};
use super::reader::CheckpointFile;
use super::writer::{CheckpointWriter, SectionWriter};
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::Compression;
use crate::format::catalog::{BootCost, Catalog, CatalogRegion, Piece, SectionRef};
use crate::format::{CheckpointNo, Epoch, RegionNo, name, total};
use crate::give_way::GiveWay;
use crate::log::tail::{RegionTail, Tail};
use crate::storage::directory::Directory;

/// What a checkpoint is made from besides the log.
#[derive(Debug)]
pub(crate) struct Ingredients<'a> {
    pub(crate) epoch: Epoch,
    pub(crate) compression: Compression,
    /// The number of the new checkpoint, never used before.
    pub(crate) number: CheckpointNo,
    /// The newest checkpoint, or an empty catalog.
    pub(crate) previous: &'a Catalog,
    /// The older ones that stay.
    pub(crate) kept: Vec<CheckpointNo>,
    pub(crate) boot_cost: BootCost,
    /// Every piece is written anew: healing leaves nothing that depends on what was damaged.
    pub(crate) merge_all: bool,
    /// The store, its log's place that the checkpoint is for, and what a damaged region is written
    /// anew from.
    pub(crate) redundancy: &'a Redundancy,
    pub(crate) healed: &'a Healed,
    pub(crate) give_way: &'a Arc<GiveWay>,
}

/// Why there is no checkpoint.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// A write or a sync failed, not only a read.
    pub(crate) writing: bool,
}

/// A checkpoint that has its name.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) catalog: Catalog,
    pub(crate) file: Arc<CheckpointFile>,
    /// What could not be read, and stays where it is.
    pub(crate) unread: Option<Error>,
}

/// Writes and publishes the checkpoint that `previous` and `tail` make.
pub(crate) fn take(from: &Ingredients<'_>, tail: &Tail) -> Result<Taken, Failed> {
    let to = CheckpointWriter::create(
        &from.redundancy.dir,
        from.redundancy.lineage,
        from.number,
        from.compression,
        from.redundancy.files.recent(),
        from.give_way,
    );
    // Nothing is written yet.
    let mut to = to.map_err(|error| Failed { error, writing: false })?;
    let (catalog, unread) =
        write(from, tail, &mut to).map_err(|error| Failed { error, writing: to.has_failed() })?;
    let file = to.publish(&catalog).map_err(|error| Failed { error, writing: true })?;
    Ok(Taken { catalog, file, unread })
}

/// Writes the sections, and says what they and the older ones make, and what could not be read.
fn write(
    from: &Ingredients<'_>,
    tail: &Tail,
    to: &mut CheckpointWriter,
) -> Result<(Catalog, Option<Error>)> {
    let mut catalog = Catalog {
        number: from.number,
        place: from.redundancy.at,
        epoch: from.epoch,
        next_region: if left_out(Step::RegionNumbersGrow) {
            RegionNo(1)
        } else {
            RegionNo(from.previous.next_region.0.max(tail.next_region))
        },
        kept: from.kept.clone(),
        files: BTreeMap::new(),
        regions: from.previous.regions.clone(),
        boot_cost: Some(from.boot_cost),
    };
    let sparse = SparseFiles::of(from.previous);
    let mut budget = MergeBudget::for_tail(tail.bytes);
    apply_directory(&mut catalog, tail);
    let nothing = RegionTail::default();
    let mut unread = None;
    for (number, region) in &mut catalog.regions {
        let change = tail.regions.get(number).unwrap_or(&nothing);
        if change.cleared && !left_out(Step::ClearReachesCheckpoint) {
            region.deltas.clear();
            region.pieces.clear();
            region.entries = 0;
        }
        region.entries = region.entries.saturating_add_signed(change.entries_added);
        let idle = change.run.is_empty() && !from.merge_all && !sparse.concern(region);
        if !idle {
            let layers =
                Layers::new(&from.redundancy.files, Some(region), Arc::clone(&change.run))?;
            let plan = budget.plan(&layers, region.entries, &sparse, from.merge_all, from.give_way);
            let mut written = region.clone();
            let outcome = plan.as_ref().map_err(Error::clone);
            match outcome.and_then(|plan| write_region(&mut written, &layers, plan, to)) {
                Ok(()) => *region = written,
                Err(error) if to.has_failed() || !may_stay(&error, from) => return Err(error),
                Err(error) => {
                    let (plan, why) = readable(&layers, plan.unwrap_or_default(), error, from)?;
                    let is_damaged = why.kind() == ErrorKind::Damaged;
                    if !(is_damaged && mend_region(from, *number, region, &why, to)) {
                        unread.get_or_insert(why);
                        write_region(region, &layers, &plan, to)?;
                    }
                }
            }
        }
    }
    let used = catalog.regions.values().flat_map(CatalogRegion::sections);
    let used: BTreeSet<CheckpointNo> = used.map(|section| section.file).collect();
    for number in used.into_iter().filter(|file| *file != from.number) {
        let len = from.redundancy.files.get(number)?.len();
        catalog.files.insert(number, len);
    }
    Ok((catalog, unread))
}

/// Regions that the tail creates and removes.
fn apply_directory(catalog: &mut Catalog, tail: &Tail) {
    for (number, change) in &tail.regions {
        if change.removed && !left_out(Step::RemovalReachesCheckpoint) {
            catalog.regions.remove(number);
        } else if let Some((name, schema)) = &change.created {
            let region = CatalogRegion {
                name: name.clone(),
                schema: schema.clone(),
                entries: 0,
                deltas: Vec::new(),
                pieces: Vec::new(),
            };
            catalog.regions.insert(*number, region);
        }
    }
}

/// Whether what could not be read may stay where it is, so that it holds nothing else back. If all is to be
/// written anew, what can only not be read just now is waited for.
fn may_stay(error: &Error, from: &Ingredients<'_>) -> bool {
    match error.kind() {
        ErrorKind::Damaged => true,
        ErrorKind::Io => !from.merge_all,
        _ => false,
    }
}

/// What of a plan can be read, and why not all of it: for damage, if there is any.
fn readable(
    layers: &Layers,
    mut plan: MergePlan,
    error: Error,
    from: &Ingredients<'_>,
) -> Result<(MergePlan, Error)> {
    let mut why = error;
    for number in plan.pieces.clone().into_keys() {
        from.give_way.ask()?;
        if let Err(error) = read_piece(layers, number) {
            plan.pieces.remove(&number);
            if error.kind() == ErrorKind::Damaged && why.kind() != ErrorKind::Damaged {
                why = error;
            }
        }
    }
    // What is not merged gets one delta more, which reads no other.
    plan.fold = 0;
    Ok((plan, why))
}

fn read_piece(layers: &Layers, number: usize) -> Result<()> {
    let mut merge = layers.over_piece(number)?;
    while merge.entry().is_some() {
        merge.advance()?;
    }
    Ok(())
}

/// Writes a region whose layers are damaged anew from what is older; whether that could be.
fn mend_region(
    from: &Ingredients<'_>,
    number: RegionNo,
    region: &mut CatalogRegion,
    damage: &Error,
    to: &mut CheckpointWriter,
) -> bool {
    for older in from.redundancy.alternatives(number) {
        let weights = older.pieces.iter().map(LayerPiece::bytes).enumerate();
        let everything = MergePlan { pieces: weights.collect(), fold: 0 };
        let mut written = region.clone();
        if write_region(&mut written, &older, &everything, to).is_ok() {
            from.healed.note(damage);
            // It depends on nothing that is damaged any more.
            from.healed.take_renew();
            *region = written;
            return true;
        }
    }
    false
}

/// Writes the planned pieces and one delta for all other ranges.
fn write_region(
    region: &mut CatalogRegion,
    layers: &Layers,
    plan: &MergePlan,
    to: &mut CheckpointWriter,
) -> Result<()> {
    let old = std::mem::take(&mut region.pieces);
    let mut pieces: Vec<Piece> = Vec::new();
    let bytes =
        layers.pieces.iter().enumerate().map(|(number, piece)| {
            plan.pieces.get(&number).copied().unwrap_or_else(|| piece.bytes())
        });
    let aim = piece_bytes(total(bytes));
    let mut at = 0;
    while at < layers.pieces.len() {
        if plan.pieces.contains_key(&at) {
            // Neighbours are merged into one stream, so that small pieces become whole ones.
            let rest = at..layers.pieces.len();
            let count = rest.take_while(|number| plan.pieces.contains_key(number)).count();
            let bytes = total(plan.pieces.range(at..at + count).map(|(_, bytes)| *bytes));
            merge_pieces(layers, at..at + count, Split::new(bytes, aim), &mut pieces, to)?;
            at += count;
        } else {
            let unmerged = layers.pieces.get(at).map(|piece| Piece {
                lower: piece.lower.clone(),
                merged: piece.merged,
                section: None,
            });
            pieces.extend(old.get(at).cloned().or(unmerged));
            at += 1;
        }
    }
    let delta = write_delta(layers, plan, to)?;
    let oldest_merge = pieces.iter().map(|piece| piece.merged).min();
    let kept = region.deltas.drain(..).skip(plan.fold);
    let deltas: Vec<SectionRef> = delta.into_iter().chain(kept).collect();
    region.deltas = deltas;
    region.deltas.retain(|delta| oldest_merge.is_none_or(|oldest| delta.number > oldest));
    region.pieces = pieces;
    Ok(())
}

/// How a stream of about so many bytes is split into pieces.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// As many pieces of equal size as come closest to their aim.
    pieces: u64,
    bytes: u64,
    /// The last one takes what is more than was estimated, up to this size: it must not become a
    /// tiny piece of its own.
    bytes_max: u64,
}

impl Split {
    fn new(bytes: u64, aim: u64) -> Split {
        let pieces = (bytes.saturating_add(aim / 2) / aim).max(1);
        Split { pieces, bytes: (bytes / pieces).max(aim / 3 * 2), bytes_max: aim.saturating_mul(2) }
    }

    /// Whether a piece of this size is full, after so many others.
    fn is_full(&self, bytes: u64, before: u64) -> bool {
        let full = if before + 1 < self.pieces { self.bytes } else { self.bytes_max };
        bytes > full
    }
}

fn write_delta(
    layers: &Layers,
    plan: &MergePlan,
    to: &mut CheckpointWriter,
) -> Result<Option<SectionRef>> {
    let mut section = SectionWriter::default();
    // Neighbours that the same deltas apply to are read in one go.
    let applying = |number: usize| layers.newest_applying(number, plan.fold);
    let mut at = 0;
    while at < layers.pieces.len() {
        if plan.pieces.contains_key(&at) {
            at += 1;
            continue;
        }
        let deltas = applying(at);
        let alike = (at..layers.pieces.len())
            .take_while(|number| !plan.pieces.contains_key(number) && applying(*number) == deltas)
            .count();
        let mut merge = layers.newest_over(at..at + alike, deltas)?;
        while let Some(entry) = merge.entry() {
            if entry.value.is_some() || !left_out(Step::TombstonesInDeltas) {
                section.push(entry, to)?;
            }
            merge.advance()?;
        }
        at += alike;
    }
    section.finish(to)
}

/// Writes a range of pieces anew; tombstones end here.
fn merge_pieces(
    layers: &Layers,
    range: std::ops::Range<usize>,
    split: Split,
    pieces: &mut Vec<Piece>,
    to: &mut CheckpointWriter,
) -> Result<()> {
    let merged = to.number();
    let mut lower = layers.pieces.get(range.start).map(|piece| piece.lower.clone());
    let mut section = SectionWriter::default();
    let (mut full, mut entries) = (0, 0u64);
    for number in range {
        let mut merge: Merge = layers.over_piece(number)?;
        while let Some(entry) = merge.entry() {
            // Where all is dead nothing is written, which gives way otherwise.
            entries += 1;
            to.give_way().ask_after(entries)?;
            if split.is_full(section.bytes(), full) {
                full += 1;
                let written = std::mem::take(&mut section).finish(to)?;
                let lower = lower.replace(entry.key.to_vec()).unwrap_or_default();
                pieces.push(Piece { lower, merged, section: written });
            }
            if entry.value.is_some() {
                section.push(entry, to)?;
            }
            merge.advance()?;
        }
    }
    let lower = lower.unwrap_or_default();
    pieces.push(Piece { lower, merged, section: section.finish(to)? });
    Ok(())
}

/// Removes what no kept checkpoint needs any more: files that none of their catalogs lists, and
/// the log before the oldest one.
pub(crate) fn remove_unused(dir: &Directory, kept: &[Arc<Catalog>]) -> Result<()> {
    let oldest = if left_out(Step::KeptLogStays) { kept.get(..1) } else { Some(kept) };
    let oldest = oldest.unwrap_or(kept).iter().map(|catalog| catalog.place.segment).min();
    let Some(oldest) = oldest else { return Ok(()) };
    let newest = kept.iter().map(|catalog| catalog.number).max();
    let kept = if left_out(Step::KeptFilesStay) { kept.get(..1).unwrap_or(kept) } else { kept };
    let needed = |number: CheckpointNo| {
        Some(number) > newest
            || kept
                .iter()
                .any(|catalog| catalog.number == number || catalog.files.contains_key(&number))
    };
    let mut names =
        dir.list().map_err(|cause| Error::io("list the directory", dir.path(), cause))?;
    // The oldest first, so that what is left of the log has no gap at any moment.
    names.sort_unstable_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    for name in names {
        let unused = match name::parse(&name) {
            Some(name::Name::Segment(number)) => number < oldest,
            Some(name::Name::Checkpoint(number)) => !needed(number),
            _ => false,
        };
        if unused {
            dir.remove(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AIM: u64 = 90_000;

    /// The sizes of the pieces that `bytes` become when they were estimated as `estimate`.
    fn pieces(bytes: u64, estimate: u64) -> Vec<u64> {
        let split = Split::new(estimate, AIM);
        let (mut done, mut sizes) = (0, vec![0]);
        while done < bytes {
            let before = sizes.len() as u64 - 1;
            if split.is_full(*sizes.last().unwrap(), before) {
                sizes.push(0);
            }
            *sizes.last_mut().unwrap() += 1_000;
            done += 1_000;
        }
        sizes
    }

    #[test]
    fn pieces_have_about_the_size_that_they_aim_at() {
        for bytes in [60_000, 90_000, 130_000, 140_000, 300_000, 9_000_000] {
            for size in pieces(bytes, bytes) {
                assert!((AIM / 2..AIM * 3 / 2 + 2_000).contains(&size), "{size} of {bytes}");
            }
        }
    }

    #[test]
    fn an_estimate_that_is_off_makes_no_crumbs() {
        assert_eq!(pieces(95_000, 90_000), [95_000]);
        assert_eq!(pieces(150_000, 0), [150_000]);
        // Whatever was estimated, a piece has about half of its aim, except perhaps the last.
        for estimate in [0, 1, 50_000, u64::MAX] {
            let sizes = pieces(1_000_000, estimate);
            assert!(sizes.len() < 20, "{} pieces", sizes.len());
            assert!(sizes.iter().all(|size| *size < AIM * 3), "{sizes:?}");
        }
    }
}
