//! A region's entries as they lie on disk and in the tail: immutable layers, newest first.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::cache::BlockCache;
use super::merge::{Cursor, Merge};
use super::parts::{KeyRange, Parts};
use super::reader::CheckpointFile;
use super::section::Section;
use crate::control::{Step, left_out};
use crate::error::{Error, Result};
use crate::format::block::{BLOCK_TARGET_BYTES, Entry};
use crate::format::catalog::{Catalog, CatalogRegion, SectionRef};
use crate::format::{CheckpointNo, Lineage, disk_len, total};
use crate::log::run::Run;
use crate::storage::directory::Directory;

/// A range of keys whose layers hold less is read at once.
const RANGE_BYTES_MIN: u64 = 2 * disk_len(BLOCK_TARGET_BYTES);

/// Less than this the system reads ahead by itself, and more would keep others from the disk for long.
const EXPECTED_BYTES: RangeInclusive<u64> = 256 << 10..=8 << 20;

/// What an entry of the log's tail has, about.
const RUN_ENTRY_BYTES: usize = 64;

/// How many entries of the log's tail count as one place to divide at.
const RUN_STEP: usize = 64;

/// The checkpoint files that somebody reads from, each opened once.
#[derive(Debug)]
pub(crate) struct Files {
    dir: Directory,
    lineage: Lineage,
    recent: Arc<BlockCache>,
    open: Mutex<BTreeMap<CheckpointNo, Weak<CheckpointFile>>>,
    /// Those that the next one reads from: of the newest checkpoint, and of all that a boot found.
    kept_open: Mutex<Vec<Arc<CheckpointFile>>>,
}

impl Files {
    pub(crate) fn new(dir: Directory, lineage: Lineage) -> Files {
        let (recent, open, kept_open) = (Arc::default(), Mutex::default(), Mutex::default());
        Files { dir, lineage, recent, open, kept_open }
    }

    /// The directory that they lie in.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Where blocks that were read lately are kept.
    pub(crate) fn recent(&self) -> &Arc<BlockCache> {
        &self.recent
    }

    /// Keeps the files of a checkpoint open, in place of those of the one before.
    pub(crate) fn keep_open(&self, newest: &Catalog) {
        let numbers = newest.files.keys().copied().chain([newest.number]);
        // One that cannot be opened is for whoever needs it to report.
        let files = numbers.filter_map(|number| self.get(number).ok()).collect();
        *self.kept_open.lock() = files;
    }

    /// The bytes of files that are still read from although `listed` does not name them.
    pub(crate) fn bytes_beside(&self, listed: impl Fn(CheckpointNo) -> bool) -> u64 {
        let open = self.open.lock();
        let beside = open.iter().filter(|(number, _)| !listed(**number));
        beside.filter_map(|(_, file)| file.upgrade()).map(|file| file.len()).sum()
    }

    pub(crate) fn get(&self, number: CheckpointNo) -> Result<Arc<CheckpointFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let recent = Arc::clone(&self.recent);
        let file = Arc::new(CheckpointFile::open(&self.dir, number, self.lineage, recent)?);
        open.insert(number, Arc::downgrade(&file));
        Ok(file)
    }

    pub(crate) fn add(&self, file: &Arc<CheckpointFile>) {
        let mut open = self.open.lock();
        open.retain(|_, file| file.strong_count() > 0);
        open.insert(file.number(), Arc::downgrade(file));
    }

    /// Opens every file that a catalog names and checks its length against the catalog; they stay
    /// open, since who reads from the catalog comes next.
    pub(crate) fn open_all(&self, catalog: &Catalog) -> Result<()> {
        let mut files = vec![self.get(catalog.number)?];
        for (number, len) in &catalog.files {
            let file = self.get(*number)?;
            if file.len() != *len {
                let what = format!("the catalog says that this file has {len} bytes");
                return Err(Error::damaged(file.path(), *len, what));
            }
            files.push(file);
        }
        self.kept_open.lock().extend(files);
        Ok(())
    }

    fn section(&self, at: &SectionRef) -> Result<Arc<Section>> {
        Ok(Arc::new(Section::new(at.clone(), self.get(at.file)?)))
    }
}

/// Everything that a region reads from: what the log has over the checkpoint, deltas, base pieces.
#[derive(Debug)]
pub(crate) struct Layers {
    /// Newest first.
    pub(crate) runs: Vec<Arc<Run>>,
    /// Newest first.
    pub(crate) deltas: Arc<[Arc<Section>]>,
    /// In key order, never empty; the first one begins before every key.
    pub(crate) pieces: Arc<[LayerPiece]>,
}

/// A key range of the base.
#[derive(Debug)]
pub(crate) struct LayerPiece {
    pub(crate) lower: Vec<u8>,
    pub(crate) merged: CheckpointNo,
    pub(crate) section: Option<Arc<Section>>,
}

impl LayerPiece {
    /// The bytes of its section.
    pub(crate) fn bytes(&self) -> u64 {
        self.section.as_ref().map_or(0, |section| section.at.bytes)
    }
}

impl Layers {
    /// The layers of a region of a catalog, under a run of the log that came after it; without a
    /// catalog's region there is only the run.
    pub(crate) fn new(
        files: &Files,
        region: Option<&CatalogRegion>,
        run: Arc<Run>,
    ) -> Result<Layers> {
        let (mut deltas, mut pieces) = (Vec::new(), Vec::new());
        if let Some(region) = region {
            for delta in &region.deltas {
                deltas.push(files.section(delta)?);
            }
            for piece in &region.pieces {
                let section = piece.section.as_ref().map(|at| files.section(at)).transpose()?;
                let (lower, merged) = (piece.lower.clone(), piece.merged);
                pieces.push(LayerPiece { lower, merged, section });
            }
        }
        if pieces.is_empty() {
            pieces.push(LayerPiece { lower: Vec::new(), merged: CheckpointNo(0), section: None });
        }
        let runs = if run.is_empty() { Vec::new() } else { vec![run] };
        Ok(Layers { runs, deltas: deltas.into(), pieces: pieces.into() })
    }

    /// The same under what the log has got since, which is joined with the newest runs unless they are much longer:
    /// so they stay few, and each entry is copied as often as there are runs, about.
    pub(crate) fn under(&self, newest: &Arc<Run>) -> Layers {
        let (mut joined, mut entries) = (vec![Arc::clone(newest)], newest.len());
        let mut older = self.runs.iter();
        while let Some(run) = older.as_slice().first().filter(|run| run.len() <= 2 * entries) {
            joined.push(Arc::clone(run));
            entries += run.len();
            older.next();
        }
        let newest = Arc::new(Run::joined(&joined));
        let runs =
            [newest].into_iter().chain(older.cloned()).filter(|run| !run.is_empty()).collect();
        Layers { runs, deltas: Arc::clone(&self.deltas), pieces: Arc::clone(&self.pieces) }
    }

    /// The first key beyond a piece.
    pub(crate) fn upper(&self, piece: usize) -> Option<&[u8]> {
        self.pieces.get(piece + 1).map(|next| next.lower.as_slice())
    }

    /// The piece whose range holds a key.
    pub(crate) fn piece_of(&self, key: &[u8]) -> usize {
        self.pieces.partition_point(|piece| piece.lower.as_slice() <= key).saturating_sub(1)
    }

    /// The pieces that begin in a range, and not with it.
    pub(crate) fn beginning_in(&self, range: KeyRange<'_>) -> &[LayerPiece] {
        let begins = |piece: &LayerPiece| range.upper.is_none_or(|upper| *piece.lower < *upper);
        let end = self.pieces.partition_point(begins);
        self.pieces.get(self.piece_of(range.lower) + 1..end).unwrap_or_default()
    }

    /// The pieces that have to do with a range.
    fn pieces_of(&self, range: KeyRange<'_>) -> &[LayerPiece] {
        let first = self.piece_of(range.lower);
        let last = first + self.beginning_in(range).len();
        self.pieces.get(first..=last).unwrap_or_default()
    }

    /// The bytes of the base's pieces that have to do with a range.
    fn base_bytes(&self, range: KeyRange<'_>) -> u64 {
        total(self.pieces_of(range).iter().map(LayerPiece::bytes))
    }

    /// About how many bytes have to do with a range, as far as can be told without reading: of what lies over
    /// the base its share, and at the end all of it, since that is where keys go that ascend.
    pub(crate) fn bytes_about(&self, range: KeyRange<'_>) -> u64 {
        let deltas = total(self.deltas.iter().map(|delta| delta.at.bytes));
        let entries: usize = self.runs.iter().map(|run| run.len()).sum();
        let over = deltas.saturating_add(disk_len(entries * RUN_ENTRY_BYTES));
        let share = range.upper.map_or(1, |_| self.pieces.len());
        self.base_bytes(range).saturating_add(over / disk_len(share.max(1)))
    }

    /// Has the system begin to read the base of a range, if that is worth it and not too much at once.
    pub(crate) fn expect_reads(&self, range: KeyRange<'_>) {
        if !EXPECTED_BYTES.contains(&self.base_bytes(range)) {
            return;
        }
        let pieces = self.pieces_of(range).iter();
        let sections: Vec<&Section> = pieces.filter_map(|piece| piece.section.as_deref()).collect();
        // Those that were written one after the other lie so, and are asked for together.
        let adjoin =
            |a: &&Section, b: &&Section| a.at.file == b.at.file && a.place().end == b.place().start;
        for run in sections.chunk_by(adjoin) {
            if let [first, .., last] | [first @ last] = run {
                first.file.expect_reads(first.place().start..last.place().end);
            }
        }
    }

    /// The deltas that apply to a piece, newest first.
    pub(crate) fn deltas_over(&self, piece: &LayerPiece) -> impl Iterator<Item = &Arc<Section>> {
        let merged = piece.merged;
        self.deltas
            .iter()
            .filter(move |delta| delta.at.number > merged || left_out(Step::DeltasAreNumbered))
    }

    /// Everything over the range of one piece, as one run with tombstones.
    pub(crate) fn over_piece(&self, number: usize) -> Result<Merge> {
        self.over_piece_from(number, &[])
    }

    /// The same from a key on.
    fn over_piece_from(&self, number: usize, from: &[u8]) -> Result<Merge> {
        let upper = self.upper(number).map(<[u8]>::to_vec);
        let Some(piece) = self.pieces.get(number) else {
            return Ok(Merge::new(Vec::new(), upper));
        };
        let lower = from.max(&piece.lower);
        let mut cursors = self.cursors_over(self.deltas_over(piece), lower)?;
        if let Some(section) = &piece.section {
            cursors.push(Cursor::over_base(section, lower)?);
        }
        Ok(Merge::new(cursors, upper))
    }

    /// How many of the newest `deltas` apply to a piece; those that do are the newest of them.
    pub(crate) fn newest_applying(&self, number: usize, deltas: usize) -> usize {
        let merged = self.pieces.get(number).map(|piece| piece.merged);
        let newest = self.deltas.iter().take(deltas);
        newest.take_while(|delta| Some(delta.at.number) > merged).count()
    }

    /// The runs and the newest `deltas` over the range of these pieces, with tombstones.
    pub(crate) fn newest_over(&self, pieces: Range<usize>, deltas: usize) -> Result<Merge> {
        let upper = self.upper(pieces.end.saturating_sub(1)).map(<[u8]>::to_vec);
        let lower = self.pieces.get(pieces.start).map_or(&[][..], |piece| &piece.lower);
        let cursors = self.cursors_over(self.deltas.iter().take(deltas), lower)?;
        Ok(Merge::new(cursors, upper))
    }

    /// Over the runs and these deltas from a key on, newest first; there is room for one more.
    fn cursors_over<'a>(
        &'a self,
        deltas: impl Iterator<Item = &'a Arc<Section>>,
        lower: &[u8],
    ) -> Result<Vec<Cursor>> {
        let mut cursors = Vec::with_capacity(self.runs.len() + self.deltas.len() + 1);
        cursors.extend(self.runs.iter().map(|run| Cursor::over_run(run, lower)));
        for delta in deltas {
            cursors.push(Cursor::over_delta(delta, lower)?);
        }
        Ok(cursors)
    }

    /// Divides a range so that each part is about a block of the largest layer. Reads indexes and no
    /// entries.
    pub(crate) fn divide(&self, range: KeyRange<'_>) -> Result<Parts> {
        let marks = self.marks(range)?;
        let weight =
            |layer: &usize| total(marks.get(*layer).into_iter().flatten().map(|mark| mark.bytes));
        let guide = (0..marks.len()).max_by_key(weight);
        let mut all: Vec<(&Mark, bool)> = Vec::new();
        for (at, layer) in marks.iter().enumerate() {
            all.extend(layer.iter().map(|mark| (mark, Some(at) == guide)));
        }
        all.sort_by(|a, b| a.0.key.cmp(&b.0.key));
        let bytes = total(all.iter().map(|(mark, _)| mark.bytes));
        let mut at: Vec<&[u8]> = Vec::new();
        let mut gathered = 0;
        for (mark, is_guide) in all.into_iter().filter(|_| bytes > RANGE_BYTES_MIN) {
            // The blocks of the largest layer are read whole and once; where others are fat, or all
            // keys are beyond it, their own blocks divide.
            let enough = if is_guide { RANGE_BYTES_MIN / 4 } else { RANGE_BYTES_MIN * 2 };
            let last = at.last().copied().unwrap_or(range.lower);
            if gathered >= enough && mark.key.as_slice() > last {
                at.push(&mark.key);
                gathered = 0;
            }
            gathered = gathered.saturating_add(mark.bytes);
        }
        Ok(Parts::new(range, &at))
    }

    /// Where the blocks of each layer begin in a range, layer by layer.
    fn marks(&self, range: KeyRange<'_>) -> Result<Vec<Vec<Mark>>> {
        let KeyRange { lower: from, upper } = range;
        let of = |section: &Section, lower: &[u8], upper: Option<&[u8]>| -> Result<Vec<Mark>> {
            let mut marks = Vec::new();
            section.blocks_between(lower, upper, |block| {
                let key = block.first_key.max(from).to_vec();
                marks.push(Mark { key, bytes: block.bytes });
            })?;
            Ok(marks)
        };
        let mut layers = Vec::new();
        let mut base = Vec::new();
        let mut oldest = None;
        for (number, piece) in (self.piece_of(from)..).zip(self.pieces_of(range)) {
            oldest = oldest.into_iter().chain([piece.merged]).min();
            if let Some(section) = &piece.section {
                let lower = from.max(&piece.lower);
                let end = self.upper(number).into_iter().chain(upper).min();
                base.extend(of(section, lower, end)?);
            }
        }
        layers.push(base);
        for delta in self.deltas.iter().filter(|delta| Some(delta.at.number) > oldest) {
            layers.push(of(delta, from, upper)?);
        }
        layers.extend(self.runs.iter().map(|run| marks_of_run(run, range)));
        Ok(layers)
    }
}

/// Places of a run to divide a range at. One entry speaks for those up to the next place: looking at each of a long
/// tail would take longer than all else in a first read.
fn marks_of_run(run: &Run, range: KeyRange<'_>) -> Vec<Mark> {
    let to = range.upper.map_or(run.len(), |upper| run.seek(upper));
    let mark = |at: usize| {
        let entry = run.get(at)?;
        let bytes = disk_len(entry.encoded_len() * RUN_STEP.min(to - at));
        Some(Mark { key: entry.key.to_vec(), bytes })
    };
    (run.seek(range.lower)..to).step_by(RUN_STEP).filter_map(mark).collect()
}

/// A place to divide a range at, and what lies from there to the next one.
#[derive(Debug)]
struct Mark {
    key: Vec<u8>,
    bytes: u64,
}

/// A walk through what is present in layers, over as many pieces as there are.
#[derive(Debug)]
pub(crate) struct LayerWalk {
    layers: Arc<Layers>,
    piece: usize,
    merge: Merge,
    /// It stands before every key from here on that was not walked over.
    at: Vec<u8>,
}

impl LayerWalk {
    pub(crate) fn from(layers: &Arc<Layers>, lower: &[u8]) -> Result<LayerWalk> {
        let piece = layers.piece_of(lower);
        let merge = layers.over_piece_from(piece, lower)?;
        Ok(LayerWalk { layers: Arc::clone(layers), piece, merge, at: lower.to_vec() })
    }

    /// Whether it walks through these layers and stands at the beginning of a range.
    pub(crate) fn stands_at(&self, layers: &Arc<Layers>, lower: &[u8]) -> bool {
        Arc::ptr_eq(&self.layers, layers) && self.at == lower
    }

    /// Calls `each` with every key that is present up to the end of a range, in order.
    pub(crate) fn walk_to(
        &mut self,
        upper: Option<&[u8]>,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<()> {
        loop {
            while let Some(Entry { key, value }) = self.merge.entry() {
                if upper.is_some_and(|upper| key >= upper) {
                    break;
                }
                if let Some(value) = value {
                    each(key, value)?;
                }
                self.merge.advance()?;
            }
            let next = self.layers.pieces.get(self.piece + 1);
            let more =
                next.is_some_and(|next| upper.is_none_or(|upper| next.lower.as_slice() < upper));
            if self.merge.entry().is_some() || !more {
                break;
            }
            self.piece += 1;
            self.merge = self.layers.over_piece(self.piece)?;
        }
        if let Some(upper) = upper {
            self.at.clear();
            self.at.extend_from_slice(upper);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::RegionNo;
    use crate::format::operation::{Operation, put_record};
    use crate::log::tail::TailBuilder;

    /// What one commit writes.
    fn run(keys: Range<u32>, value: u32) -> Arc<Run> {
        let (region, value) = (RegionNo(1), value.to_be_bytes());
        let (mut operations, mut record) = (Vec::new(), Vec::new());
        for key in keys {
            Operation::Replace { region, key: &key.to_be_bytes(), value: &value }
                .encode(&mut operations);
        }
        put_record(&mut record, "", &operations);
        let mut tail = TailBuilder::default();
        tail.add(&record, None, 1).unwrap();
        Arc::clone(&tail.finish().regions[&region].run)
    }

    #[test]
    fn runs_stay_few_and_the_newest_counts() {
        let pieces = [LayerPiece { lower: Vec::new(), merged: CheckpointNo(0), section: None }];
        let tail = run(0..1_000, 0);
        let (runs, deltas) = (vec![Arc::clone(&tail)], Arc::default());
        let mut layers = Layers { runs, deltas, pieces: pieces.into() };
        for value in 1..400 {
            layers = layers.under(&run(value..value + 3, value));
            assert!(layers.runs.len() < 12, "{} runs", layers.runs.len());
            // Few changes do not copy a long tail.
            assert!(value > 100 || layers.runs.last().is_some_and(|last| Arc::ptr_eq(last, &tail)));
        }
        let (mut walk, mut found) = (LayerWalk::from(&Arc::new(layers), &[]).unwrap(), Vec::new());
        let each = |key: &[u8], value: &[u8]| {
            let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap_or_default());
            found.push((number(key), number(value)));
            Ok(())
        };
        walk.walk_to(None, each).unwrap();
        let newest = |key: u32| if key < 402 { key.min(399) } else { 0 };
        assert!(found.into_iter().eq((0..1_000).map(|key| (key, newest(key)))));
    }
}
