//! A region as it lies on disk, shared by all of its ranges that are still cold.
//!
//! # Invariants
//! - A range is loaded before anything in it changes, so what a cold one holds is the same at boot
//!   and at every later commit up to which the region was not cleared. That is why a checkpoint may
//!   [`follow`](ColdRegion::follow) under the readers' feet: the files before it can then go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::heal::{Healed, Redundancy};
use super::layers::Layers;
use super::parts::KeyRange;
use crate::error::{Error, ErrorKind, Result};
use crate::format::RegionNo;

/// Where the cold ranges of one region are read from.
#[derive(Debug)]
pub(crate) struct ColdRegion {
    number: RegionNo,
    name: Arc<str>,
    /// Whoever reads has it for as long as that takes.
    basis: Mutex<Arc<Basis>>,
    healed: Arc<Healed>,
    warmth: Arc<Warmth>,
}

/// How much of a region was cold at boot, and how much of that is in memory now.
#[derive(Debug, Default)]
pub(crate) struct Warmth {
    pub(crate) entries: usize,
    loaded: AtomicUsize,
}

/// One way to read a region, and others that tell the same.
#[derive(Debug)]
struct Basis {
    layers: Arc<Layers>,
    /// It is known once boot is over.
    redundancy: Arc<OnceLock<Redundancy>>,
    /// What the redundancy comes to for this region, worked out when it is needed.
    older: OnceLock<Vec<Arc<Layers>>>,
}

impl Warmth {
    pub(crate) fn new(entries: usize) -> Warmth {
        Warmth { entries, loaded: AtomicUsize::new(0) }
    }

    /// Entries that were cold and are in memory.
    pub(crate) fn loaded(&self) -> usize {
        self.loaded.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, entries: usize) {
        self.loaded.fetch_add(entries, Ordering::Relaxed);
    }
}

impl Basis {
    fn new(layers: Layers, redundancy: Arc<OnceLock<Redundancy>>) -> Arc<Basis> {
        Arc::new(Basis { layers: Arc::new(layers), redundancy, older: OnceLock::new() })
    }

    fn older(&self, region: RegionNo) -> &[Arc<Layers>] {
        let Some(redundancy) = self.redundancy.get() else { return &[] };
        self.older.get_or_init(|| redundancy.alternatives(region).map(Arc::new).collect())
    }
}

impl ColdRegion {
    pub(crate) fn new(
        number: RegionNo,
        name: Arc<str>,
        layers: Layers,
        redundancy: Arc<OnceLock<Redundancy>>,
        healed: Arc<Healed>,
        warmth: Arc<Warmth>,
    ) -> ColdRegion {
        let basis = Mutex::new(Basis::new(layers, redundancy));
        ColdRegion { number, name, basis, healed, warmth }
    }

    pub(crate) fn warmth(&self) -> &Warmth {
        &self.warmth
    }

    /// What it is read from.
    pub(crate) fn layers(&self) -> Arc<Layers> {
        Arc::clone(&self.basis.lock().layers)
    }

    /// Reads from other layers from here on, which hold the same of what is cold.
    pub(crate) fn follow(&self, layers: Layers, redundancy: Arc<OnceLock<Redundancy>>) {
        let next = Basis::new(layers, redundancy);
        // What it held ends without the lock.
        let before = std::mem::replace(&mut *self.basis.lock(), next);
        drop(before);
    }

    /// See [`Layers::expect_reads`].
    pub(crate) fn expect_reads(&self, range: KeyRange<'_>) {
        let basis = Arc::clone(&self.basis.lock());
        basis.layers.expect_reads(range);
    }

    /// Reads something of a range; where that is damaged, by way of an older checkpoint and the log.
    pub(crate) fn read<T>(
        &self,
        range: KeyRange<'_>,
        mut read: impl FnMut(&Arc<Layers>) -> Result<T>,
    ) -> Result<T> {
        let basis = Arc::clone(&self.basis.lock());
        let damage = match read(&basis.layers) {
            Err(error) if error.kind() == ErrorKind::Damaged => error,
            done => return done.map_err(|error| self.blame(error, range)),
        };
        for older in basis.older(self.number) {
            if let Ok(content) = read(older) {
                self.healed.note(&damage);
                return Ok(content);
            }
        }
        Err(self.blame(damage, range))
    }

    fn blame(&self, error: Error, range: KeyRange<'_>) -> Error {
        error.in_region(&self.name).with_keys(range.lower, range.upper)
    }
}
