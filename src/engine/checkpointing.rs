//! Checkpoints of a running store: the log is cut, the files are written, the cold regions move on.

use std::sync::{Arc, OnceLock};

use super::Engine;
use crate::boot::{Checkpoints, older};
use crate::checkpoint::heal::Redundancy;
use crate::checkpoint::layers::Layers;
use crate::checkpoint::take::{Failed, Ingredients, Taken, remove_unused, take};
use crate::commit::Commits;
use crate::control::{Step, left_out};
use crate::error::{ErrorKind, Result};
use crate::format::catalog::Catalog;
use crate::format::{CheckpointNo, Lsn, RegionNo};
use crate::log::cut::cut;
use crate::state::State;

impl Engine {
    /// Takes a checkpoint of everything that is committed; waits for one that is under way.
    pub(crate) fn checkpoint(&self) -> Result<Lsn> {
        let commits = self.commits()?;
        commits.settle()?;
        self.checkpoint_appended(commits)
    }

    /// The same of everything that is appended, which is all that is acknowledged. Leaders may be held for it,
    /// so it waits for no commit that is not written.
    pub(super) fn checkpoint_appended(&self, commits: &Commits) -> Result<Lsn> {
        let mut checkpoints = self.checkpoints.lock();
        let unless_it_fails = self.keeper.budget.begin();
        let lsn = self.take_checkpoint(commits, &mut checkpoints)?;
        unless_it_fails.end();
        Ok(lsn)
    }

    fn take_checkpoint(&self, commits: &Commits, checkpoints: &mut Checkpoints) -> Result<Lsn> {
        commits.sync_appended()?;
        let (place, work) = commits.with_log(|log| (log.synced(), log.work()));
        checkpoints.renew |= self.healed.take_renew();
        let previous =
            checkpoints.kept.first().map_or_else(|| Arc::new(Catalog::empty()), Arc::clone);
        if place.lsn == previous.lsn() && !checkpoints.renew {
            return Ok(place.lsn);
        }
        let redundancy = Redundancy {
            dir: self.dir.clone(),
            files: Arc::clone(&self.files),
            lineage: self.lineage,
            older: older(&checkpoints.kept),
            at: place,
        };
        let give_way = &self.keeper.give_way;
        let (tail, cost) = cut(&self.dir, self.lineage, &previous.place, &place, give_way)?;
        let ingredients = Ingredients {
            epoch: crate::format::Epoch(self.births.boot().epoch()),
            compression: self.options.compression,
            number: checkpoints.next,
            previous: &previous,
            kept: checkpoints
                .kept
                .iter()
                .take(self.options.keep_checkpoints - 1)
                .map(|catalog| catalog.number)
                .collect(),
            boot_cost: self.keeper.budget.rate().to_cost(),
            merge_all: checkpoints.renew && !left_out(Step::HealedIsRenewed),
            redundancy: &redundancy,
            healed: &self.healed,
            give_way,
        };
        if left_out(Step::RemovalAfterCheckpoint) {
            let soon = Catalog { place, ..Catalog::clone(&previous) };
            remove_unused(&self.dir, &[Arc::new(soon)])?;
        }
        // A number is used once, also where its file came to nothing.
        checkpoints.next = CheckpointNo(ingredients.number.0 + 1);
        let Taken { catalog, file, unread } =
            take(&ingredients, &tail).map_err(|Failed { error, writing }| {
                let poisons = writing
                    && error.kind() == ErrorKind::Io
                    && !left_out(Step::FailedCheckpointPoisons);
                if poisons { commits.poison(&error) } else { error }
            })?;
        self.files.add(&file);
        self.files.keep_open(&catalog);
        let catalog = Arc::new(catalog);
        checkpoints.kept.insert(0, Arc::clone(&catalog));
        checkpoints.kept.truncate(self.options.keep_checkpoints);
        checkpoints.renew = false;
        self.keeper.budget.learn(cost.work, cost.reading + cost.sorting);
        self.keeper.checkpointed(work, &checkpoints.kept);
        // Which regions were not cleared since boot is asked of a state that is not older than the
        // checkpoint: what such a region has cold is then the same in both.
        commits.wait(catalog.lsn())?;
        let redundancy = Redundancy { older: older(&checkpoints.kept), ..redundancy };
        move_cold_regions(&self.visible(), redundancy, |number| {
            let region = catalog.regions.get(&number);
            region.map(|region| Layers::new(&self.files, Some(region), Arc::default())).transpose()
        })?;
        let removed = remove_unused(&self.dir, &checkpoints.kept);
        self.keeper.set_error(unread.or(removed.err()));
        Ok(place.lsn)
    }
}

/// Lets cold ranges read from a newer checkpoint, so that the files and the log that they were read from so far can go:
/// from `layers`, which hold what the region has cold in this state.
pub(super) fn move_cold_regions(
    state: &State,
    redundancy: Redundancy,
    layers: impl Fn(RegionNo) -> Result<Option<Layers>>,
) -> Result<()> {
    let redundancy = Arc::new(OnceLock::from(redundancy));
    for root in state.regions.iter() {
        if let Some(cold) = root.cold_region()
            && let Some(layers) = layers(root.meta().number)?
        {
            cold.follow(layers, Arc::clone(&redundancy));
        }
    }
    Ok(())
}
