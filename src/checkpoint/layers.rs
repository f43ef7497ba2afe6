//! A region's entries as they lie on disk and in the tail: immutable layers, newest first.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::merge::{Cursor, Merge};
use super::reader::CheckpointFile;
use super::section::Section;
use crate::error::{Error, Result};
use crate::format::block::Entry;
use crate::format::catalog::{Catalog, CatalogRegion, SectionRef};
use crate::format::{CheckpointNo, Lineage};
use crate::log::tail::Run;
use crate::storage::directory::Directory;

/// The checkpoint files that somebody reads from, each opened once.
#[derive(Debug)]
pub(crate) struct Files {
    dir: Directory,
    lineage: Lineage,
    open: Mutex<BTreeMap<CheckpointNo, Weak<CheckpointFile>>>,
}

impl Files {
    pub(crate) fn new(dir: Directory, lineage: Lineage) -> Files {
        Files { dir, lineage, open: Mutex::default() }
    }

    /// The directory that they lie in.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn get(&self, number: CheckpointNo) -> Result<Arc<CheckpointFile>> {
        let mut open = self.open.lock();
        if let Some(file) = open.get(&number).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(CheckpointFile::open(&self.dir, number, self.lineage)?);
        open.insert(number, Arc::downgrade(&file));
        Ok(file)
    }

    pub(crate) fn add(&self, file: &Arc<CheckpointFile>) {
        let mut open = self.open.lock();
        open.retain(|_, file| file.strong_count() > 0);
        open.insert(file.number(), Arc::downgrade(file));
    }

    /// Opens every file that a catalog names and checks its length against the catalog.
    pub(crate) fn open_all(&self, catalog: &Catalog) -> Result<Vec<Arc<CheckpointFile>>> {
        let listed = catalog.files.iter().map(|(number, len)| {
            let file = self.get(*number)?;
            if file.len() == *len {
                Ok(file)
            } else {
                let what = format!("the catalog says that this file has {len} bytes");
                Err(Error::damaged(file.path(), *len, what))
            }
        });
        listed.collect()
    }

    fn section(&self, at: &SectionRef) -> Result<Section> {
        Ok(Section { at: at.clone(), file: self.get(at.file)? })
    }
}

/// Everything that a region reads from: the tail of the log, deltas, base pieces.
#[derive(Clone, Debug)]
pub(crate) struct Layers {
    pub(crate) run: Arc<Run>,
    /// Newest first.
    pub(crate) deltas: Vec<Section>,
    /// In key order, never empty; the first one begins before every key.
    pub(crate) pieces: Vec<LayerPiece>,
}

/// A key range of the base.
#[derive(Clone, Debug)]
pub(crate) struct LayerPiece {
    pub(crate) lower: Vec<u8>,
    pub(crate) merged: CheckpointNo,
    pub(crate) section: Option<Section>,
}

impl Layers {
    /// The layers of a region of a catalog, under a run of the log that came after it; without a
    /// catalog's region there is only the run.
    pub(crate) fn new(
        files: &Files,
        region: Option<&CatalogRegion>,
        run: Arc<Run>,
    ) -> Result<Layers> {
        let mut layers = Layers { run, deltas: Vec::new(), pieces: Vec::new() };
        if let Some(region) = region {
            for delta in &region.deltas {
                layers.deltas.push(files.section(delta)?);
            }
            for piece in &region.pieces {
                let section = piece.section.as_ref().map(|at| files.section(at)).transpose()?;
                let (lower, merged) = (piece.lower.clone(), piece.merged);
                layers.pieces.push(LayerPiece { lower, merged, section });
            }
        }
        if layers.pieces.is_empty() {
            let nothing = LayerPiece { lower: Vec::new(), merged: CheckpointNo(0), section: None };
            layers.pieces.push(nothing);
        }
        Ok(layers)
    }

    /// The first key beyond a piece.
    pub(crate) fn upper(&self, piece: usize) -> Option<&[u8]> {
        self.pieces.get(piece + 1).map(|next| next.lower.as_slice())
    }

    /// The deltas that apply to a piece, newest first.
    pub(crate) fn deltas_over(&self, piece: &LayerPiece) -> impl Iterator<Item = &Section> {
        let merged = piece.merged;
        self.deltas.iter().filter(move |delta| delta.at.number > merged)
    }

    /// Everything over the range of one piece, as one run with tombstones.
    pub(crate) fn over_piece(&self, number: usize) -> Result<Merge> {
        let upper = self.upper(number).map(<[u8]>::to_vec);
        let Some(piece) = self.pieces.get(number) else {
            return Ok(Merge::new(Vec::new(), upper));
        };
        let mut cursors = vec![Cursor::over_run(&self.run, &piece.lower)];
        for delta in self.deltas_over(piece) {
            cursors.push(Cursor::over_section(delta, &piece.lower)?);
        }
        if let Some(section) = &piece.section {
            cursors.push(Cursor::over_section(section, &piece.lower)?);
        }
        Ok(Merge::new(cursors, upper))
    }

    /// The run and the newest `deltas` over the range of one piece, with tombstones.
    pub(crate) fn newest_over_piece(&self, number: usize, deltas: usize) -> Result<Merge> {
        let upper = self.upper(number).map(<[u8]>::to_vec);
        let Some(piece) = self.pieces.get(number) else {
            return Ok(Merge::new(Vec::new(), upper));
        };
        let mut cursors = vec![Cursor::over_run(&self.run, &piece.lower)];
        for delta in self.deltas.iter().take(deltas) {
            if delta.at.number > piece.merged {
                cursors.push(Cursor::over_section(delta, &piece.lower)?);
            }
        }
        Ok(Merge::new(cursors, upper))
    }

    /// Calls `each` with every key that is present, in order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        for number in 0..self.pieces.len() {
            let mut merge = self.over_piece(number)?;
            while let Some(Entry { key, value }) = merge.entry() {
                if let Some(value) = value {
                    each(key, value)?;
                }
                merge.advance()?;
            }
        }
        Ok(())
    }
}
