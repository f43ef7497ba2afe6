//! What the regions of a read-only store are put together from.

use std::sync::{Arc, OnceLock};

use super::super::Engine;
use super::super::checkpointing::move_cold_regions;
use crate::boot::load::{Healing, regions};
use crate::boot::since::Since;
use crate::boot::{Booted, locate, older};
use crate::checkpoint::heal::{Healed, Redundancy};
use crate::checkpoint::layers::{Files, Layers};
use crate::error::Result;
use crate::format::catalog::Catalog;
use crate::format::{CheckpointNo, Lsn, Place, RegionNo};
use crate::give_way::GiveWay;
use crate::log::cut::cut;
use crate::log::tail::{RegionTail, Tail};
use crate::state::{RegionMeta, RegionRoot, State, StateDraft};

/// The checkpoints, and what was healed by them.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Basis {
    files: Arc<Files>,
    /// Those that are whole, newest first.
    kept: Vec<Arc<Catalog>>,
    healed: Arc<Healed>,
}

/// A region, and what it is read from.
struct Before {
    meta: Arc<RegionMeta>,
    entries: usize,
    layers: Arc<Layers>,
}

impl Basis {
    /// What a boot put its regions together from.
    pub(in crate::engine) fn of(booted: &Booted) -> Basis {
        Basis {
            files: Arc::clone(&booted.files),
            kept: booted.checkpoints.kept.clone(),
            healed: Arc::clone(&booted.healed),
        }
    }

    fn newest(&self) -> Option<&Arc<Catalog>> {
        self.kept.first()
    }

    /// Looks for newer checkpoints; whether there is one, no newer than what will be visible.
    pub(super) fn renew(&mut self, engine: &Engine, since: &Since) -> bool {
        let newest = self.newest().map(|catalog| catalog.number);
        if since.listing.checkpoints.last().copied() <= newest {
            return false;
        }
        // One that goes while it is read has a successor, which is found next time.
        let Ok(located) = locate::locate(&engine.dir, &self.files, &since.listing) else {
            return false;
        };
        let fits = |catalog: &Arc<Catalog>| {
            Some(catalog.number) > newest && catalog.lsn() <= since.claimed.lsn
        };
        let renewed = located.kept.first().is_some_and(fits);
        if renewed {
            self.kept = located.kept;
        }
        renewed
    }

    /// What heals regions as they are at a place.
    fn redundancy(&self, engine: &Engine, at: Place) -> Redundancy {
        Redundancy {
            dir: engine.dir.clone(),
            files: Arc::clone(&self.files),
            lineage: engine.lineage,
            older: older(&self.kept),
            at,
        }
    }

    /// What the log has got since the newest checkpoint, up to a place; no region keeps in memory what is of others.
    fn tail(&self, engine: &Engine, at: Place) -> Result<Tail> {
        let from = self.newest().map_or(Place::START, |catalog| catalog.place);
        // A checkpoint of the same commit may lie behind a frame without any.
        if from.lsn >= at.lsn {
            return Ok(Tail::default());
        }
        let (mut tail, _) = cut(&engine.dir, engine.lineage, &from, &at, &GiveWay::default())?;
        for change in tail.regions.values_mut() {
            change.run = change.run.alone();
        }
        Ok(tail)
    }

    /// Puts regions together which the log has changed up to a place: from what they were read from before, under
    /// what the log has got. Whether that makes sense.
    pub(super) fn put_together(
        &self,
        engine: &Engine,
        changed: &[(RegionNo, &RegionTail)],
        at: Place,
        draft: &mut StateDraft<'_>,
    ) -> Result<bool> {
        if changed.is_empty() {
            return Ok(true);
        }
        let redundancy = Arc::new(OnceLock::from(self.redundancy(engine, at)));
        let healing = Healing { redundancy, healed: Arc::clone(&self.healed) };
        for (number, change) in changed {
            let Some(before) = self.before(draft, *number, change)? else { return Ok(false) };
            let Some(entries) = change.entries_after(before.entries) else { return Ok(false) };
            let layers = before.layers.under(&change.run);
            let root = healing.layered(before.meta, layers, entries, &engine.graveyard);
            draft.put_region(*number, root)?;
        }
        Ok(true)
    }

    /// A region as it was before a change, unless there cannot be such a change.
    fn before(
        &self,
        draft: &StateDraft<'_>,
        number: RegionNo,
        change: &RegionTail,
    ) -> Result<Option<Before>> {
        let (meta, root) = match (&change.created, draft.region(number)) {
            (None, Some(root)) => (Arc::clone(root.meta()), Some(root)),
            (Some((name, schema)), None) if draft.number_of(name)?.is_none() => {
                let (name, schema) = (name.as_str().into(), schema.as_slice().into());
                (Arc::new(RegionMeta { number, name, schema }), None)
            }
            _ => return Ok(None),
        };
        let entries = root.map_or(0, RegionRoot::len);
        let layers = match root.filter(|_| !change.cleared) {
            Some(root) => root.cold_region().map(|cold| cold.layers()),
            None => Some(Arc::new(Layers::new(&self.files, None, Arc::default())?)),
        };
        Ok(layers.map(|layers| Before { meta, entries, layers }))
    }

    /// Puts what was changed in memory over the layers of these regions as well. What is still cold is not among it,
    /// but the changes that come next may be put over the same layers.
    pub(super) fn keep_whole<'a>(
        &self,
        engine: &Engine,
        state: &State,
        changed: impl Iterator<Item = (RegionNo, &'a RegionTail)>,
        at: Place,
    ) {
        let redundancy = OnceLock::new();
        for (number, change) in changed {
            let Some(cold) = state.region(number).and_then(RegionRoot::cold_region) else {
                continue;
            };
            let redundancy =
                redundancy.get_or_init(|| Arc::new(OnceLock::from(self.redundancy(engine, at))));
            cold.follow(cold.layers().under(&change.run), Arc::clone(redundancy));
        }
    }

    /// Has what is cold of a state, which is that of a place, read from the newest checkpoint and the log since.
    pub(super) fn move_cold_regions(
        &self,
        engine: &Engine,
        state: &State,
        at: Place,
    ) -> Result<()> {
        let Some(newest) = self.newest() else { return Ok(()) };
        if state.regions.iter().any(|root| root.cold_region().is_some()) {
            let tail = self.tail(engine, at)?;
            let made = regions(Some(newest), &tail, engine.dir.path(), at.lsn)?;
            move_cold_regions(state, self.redundancy(engine, at), |number| {
                made.get(&number).map(|made| made.layers(&self.files)).transpose()
            })?;
        }
        self.files.keep_open(newest);
        Ok(())
    }

    pub(in crate::engine) fn checkpoint_lsn(&self) -> Lsn {
        self.newest().map_or(Lsn::ZERO, |newest| newest.lsn())
    }

    pub(in crate::engine) fn healed(&self) -> Vec<String> {
        self.healed.notes()
    }

    /// The bytes of files that are still read from although no checkpoint names them.
    pub(in crate::engine) fn pinned_bytes(&self) -> u64 {
        self.files.bytes_beside(|file: CheckpointNo| {
            let needs = |kept: &Arc<Catalog>| kept.number == file || kept.files.contains_key(&file);
            self.kept.iter().any(needs)
        })
    }
}
