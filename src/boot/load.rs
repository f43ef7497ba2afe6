//! Putting the regions together: catalog and tail, no entries.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::checkpoint::cold::{ColdRegion, Warmth};
use crate::checkpoint::heal::{Healed, Redundancy};
use crate::checkpoint::layers::{Files, Layers};
use crate::error::{Error, Result};
use crate::format::catalog::Catalog;
use crate::format::{Lsn, RegionNo};
use crate::log::tail::{RegionTail, Tail};
use crate::state::{RegionMeta, RegionRoot, State};
use crate::tree::{Graveyard, Tree};

/// What the regions of one boot share to be healed by.
#[derive(Debug, Default)]
pub(super) struct Healing {
    pub(super) redundancy: Arc<OnceLock<Redundancy>>,
    pub(super) healed: Arc<Healed>,
}

impl Healing {
    fn root(&self, meta: RegionMeta, len: u64, layers: Layers) -> RegionRoot {
        let warmth = Arc::new(Warmth::new(crate::format::memory_len(len)));
        let cold = ColdRegion::new(
            meta.number,
            Arc::clone(&meta.name),
            layers,
            Arc::clone(&self.redundancy),
            Arc::clone(&self.healed),
            Arc::clone(&warmth),
        );
        RegionRoot::cold(Arc::new(meta), cold, warmth)
    }
}

/// The state that a checkpoint and the tail of the log make.
pub(super) fn load(
    base: Option<&Catalog>,
    tail: &Tail,
    files: &Files,
    lsn: Lsn,
    instance: u64,
    graveyard: Graveyard,
    healing: &Healing,
) -> Result<State> {
    let nothing = RegionTail::default();
    let stored = base.map(|catalog| &catalog.regions);
    let created = tail.regions.iter().filter(|(_, change)| change.created.is_some());
    let numbers = stored.into_iter().flat_map(BTreeMap::keys).chain(created.map(|(n, _)| n));
    let mut roots: BTreeMap<RegionNo, RegionRoot> = BTreeMap::new();
    for number in numbers {
        let change = tail.regions.get(number).unwrap_or(&nothing);
        if change.removed {
            continue;
        }
        let region = stored.and_then(|regions| regions.get(number));
        let (name, schema) = match (&change.created, region) {
            (Some((name, schema)), _) => (name.as_str(), schema.as_slice()),
            (None, Some(region)) => (region.name.as_str(), region.schema.as_slice()),
            (None, None) => continue,
        };
        let meta = RegionMeta { number: *number, name: name.into(), schema: schema.into() };
        let below = region.filter(|_| !change.cleared);
        let entries = below.map_or(0, |region| region.entries);
        let len = entries.saturating_add_signed(change.entries_added);
        let layers = Layers::new(files, below, Arc::clone(&change.run))?;
        roots.insert(*number, healing.root(meta, len, layers));
    }
    let unknown =
        tail.regions.iter().find(|(number, change)| !change.removed && !roots.contains_key(number));
    if let Some((number, _)) = unknown {
        let what = format!("the log changes region {}, which does not exist", number.0);
        return Err(Error::damaged(files.path(), 0, what).at_lsn(lsn));
    }
    let mut names: BTreeMap<String, RegionNo> = BTreeMap::new();
    for (number, root) in &roots {
        if names.insert(root.meta.name.to_string(), *number).is_some() {
            let what = format!("two regions have the name {:?}", root.meta.name);
            return Err(Error::damaged(files.path(), 0, what).at_lsn(lsn));
        }
    }
    let (regions, names) = (roots.into_iter().collect(), names.into_iter().collect());
    Ok(State {
        lsn,
        regions: Tree::of_trees(regions, graveyard.clone()),
        names: Tree::of_trees(names, graveyard.clone()),
        ..State::empty(instance, graveyard)
    })
}
