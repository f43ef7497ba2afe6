//! Putting the regions together: catalog and tail, no entries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};

use crate::checkpoint::cold::{ColdRegion, Warmth};
use crate::checkpoint::heal::{Healed, Redundancy};
use crate::checkpoint::layers::{Files, Layers};
use crate::error::{Error, Result};
use crate::format::catalog::{Catalog, CatalogRegion};
use crate::format::{Lsn, RegionNo};
use crate::log::run::Run;
use crate::log::tail::{RegionTail, Tail};
use crate::state::{RegionMeta, RegionRoot, Roots, State};
use crate::tree::Graveyard;

/// What regions that are put together at one time share to be healed by.
#[derive(Debug, Default)]
pub(crate) struct Healing {
    pub(crate) redundancy: Arc<OnceLock<Redundancy>>,
    pub(crate) healed: Arc<Healed>,
}

impl Healing {
    /// Puts a region together.
    pub(crate) fn region(
        &self,
        number: RegionNo,
        made: &Made<'_>,
        files: &Files,
        graveyard: &Graveyard,
    ) -> Result<RegionRoot> {
        let meta = RegionMeta { number, name: made.name.into(), schema: made.schema.into() };
        let entries = crate::format::memory_len(made.entries);
        Ok(self.layered(Arc::new(meta), made.layers(files)?, entries, graveyard))
    }

    /// A region of these layers, which hold so many entries.
    pub(crate) fn layered(
        &self,
        meta: Arc<RegionMeta>,
        layers: Layers,
        entries: usize,
        graveyard: &Graveyard,
    ) -> RegionRoot {
        let warmth = Arc::new(Warmth::new(entries));
        let cold = ColdRegion::new(
            meta.number,
            Arc::clone(&meta.name),
            layers,
            Arc::clone(&self.redundancy),
            Arc::clone(&self.healed),
            Arc::clone(&warmth),
        );
        RegionRoot::cold(meta, cold, warmth, graveyard.clone())
    }
}

/// A region as a checkpoint and the tail of the log make it.
pub(crate) struct Made<'a> {
    pub(crate) name: &'a str,
    pub(crate) schema: &'a [u8],
    /// Keys that are present.
    pub(crate) entries: u64,
    /// What the checkpoint holds of it that still counts.
    pub(crate) below: Option<&'a CatalogRegion>,
    pub(crate) run: &'a Arc<Run>,
}

impl Made<'_> {
    /// What it is read from.
    pub(crate) fn layers(&self, files: &Files) -> Result<Layers> {
        Layers::new(files, self.below, Arc::clone(self.run))
    }
}

/// The regions that there are after the tail of the log.
pub(crate) fn regions<'a>(
    base: Option<&'a Catalog>,
    tail: &'a Tail,
    path: &Path,
    lsn: Lsn,
) -> Result<BTreeMap<RegionNo, Made<'a>>> {
    static NOTHING: LazyLock<RegionTail> = LazyLock::new(RegionTail::default);
    let stored = base.map(|catalog| &catalog.regions);
    let created = tail.regions.iter().filter(|(_, change)| change.created.is_some());
    let numbers = stored.into_iter().flat_map(BTreeMap::keys).chain(created.map(|(n, _)| n));
    let mut regions: BTreeMap<RegionNo, Made<'a>> = BTreeMap::new();
    for number in numbers {
        let change = tail.regions.get(number).unwrap_or(&NOTHING);
        if change.removed {
            continue;
        }
        let region = stored.and_then(|regions| regions.get(number));
        let (name, schema) = match (&change.created, region) {
            (Some((name, schema)), _) => (name.as_str(), schema.as_slice()),
            (None, Some(region)) => (region.name.as_str(), region.schema.as_slice()),
            (None, None) => continue,
        };
        let below = region.filter(|_| !change.cleared);
        let entries = below.map_or(0, |region| region.entries);
        let entries = entries.saturating_add_signed(change.entries_added);
        regions.insert(*number, Made { name, schema, entries, below, run: &change.run });
    }
    let mut changed = tail.regions.iter();
    let unknown = changed.find(|(number, change)| !change.removed && !regions.contains_key(number));
    if let Some((number, _)) = unknown {
        let what = format!("the log changes region {}, which does not exist", number.0);
        return Err(Error::damaged(path, 0, what).at_lsn(lsn));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = regions.values().find(|region| !names.insert(region.name)) {
        let what = format!("two regions have the name {:?}", twice.name);
        return Err(Error::damaged(path, 0, what).at_lsn(lsn));
    }
    Ok(regions)
}

/// The state that a checkpoint and the tail of the log make.
pub(super) fn load(
    base: Option<&Catalog>,
    tail: &Tail,
    files: &Files,
    lsn: Lsn,
    instance: u64,
    graveyard: &Graveyard,
    healing: &Healing,
) -> Result<State> {
    let mut roots = Roots::default();
    for (number, made) in regions(base, tail, files.path(), lsn)? {
        roots.insert(number, healing.region(number, &made, files, graveyard)?);
    }
    Ok(State::new(instance, lsn, roots))
}
