//! Checkpoints of a running store: the log is cut, the files are written, the cold regions move on.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::{Access, Engine};
use crate::boot::older;
use crate::checkpoint::heal::Redundancy;
use crate::checkpoint::layers::Layers;
use crate::checkpoint::take::{Ingredients, remove_unused, take};
use crate::error::{ErrorKind, Result};
use crate::format::catalog::Catalog;
use crate::format::{CheckpointNo, Lsn, RegionNo};
use crate::log::cut::cut;
use crate::log::tail::Run;
use crate::state::{ColdRegion, RegionRoot, State};

/// How long a checkpoint waits for the writer lock to let go of the files before it.
const MOVE_PATIENCE: Duration = Duration::from_millis(20);

impl Engine {
    /// Takes a checkpoint of everything that is acknowledged; waits for one that is under way.
    pub(crate) fn checkpoint(&self) -> Result<Lsn> {
        let commits = self.commits()?;
        let mut checkpoints = self.checkpoints.lock();
        commits.sync()?;
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
        let (tail, cost) = cut(&self.dir, self.lineage, &previous.place, &place)?;
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
            merge_all: checkpoints.renew,
            redundancy: &redundancy,
            healed: &self.healed,
        };
        // A number is used once, also where its file came to nothing.
        checkpoints.next = CheckpointNo(ingredients.number.0 + 1);
        let (catalog, file) = take(&ingredients, &tail).map_err(|error| {
            if error.kind() == ErrorKind::Io { commits.poison(&error) } else { error }
        })?;
        self.files.add(&file);
        let catalog = Arc::new(catalog);
        checkpoints.kept.insert(0, Arc::clone(&catalog));
        checkpoints.kept.truncate(self.options.keep_checkpoints);
        checkpoints.renew = false;
        self.keeper.learn(cost.work, (cost.reading, cost.sorting));
        self.keeper.checkpointed(work, place.lsn);
        self.move_cold_regions(
            &catalog,
            Redundancy { older: older(&checkpoints.kept), ..redundancy },
        )?;
        let removed = remove_unused(&self.dir, &checkpoints.kept);
        self.keeper.set_error(removed.err());
        Ok(place.lsn)
    }

    /// Lets regions that nobody has touched read from the new checkpoint, so that the files and the
    /// tail that they were booted from can go.
    fn move_cold_regions(&self, catalog: &Catalog, redundancy: Redundancy) -> Result<()> {
        let redundancy = Arc::new(OnceLock::from(redundancy));
        let Access::Writes(commits) = &self.access else { return Ok(()) };
        // Whoever holds the writer lock may be the one who asked for this checkpoint; the next one
        // will move them then.
        let Some(mut head) = self.head.try_lock_for(MOVE_PATIENCE) else { return Ok(()) };
        let untouched = cold_numbers(&head.state);
        if untouched.is_empty() {
            return Ok(());
        }
        let moved = self.moved(&head.state, catalog, &redundancy, &untouched)?;
        let visible = commits.visible();
        let same = Arc::ptr_eq(&visible, &head.state);
        let moved = Arc::new(moved);
        let moved_visible = if same {
            Arc::clone(&moved)
        } else {
            Arc::new(self.moved(&visible, catalog, &redundancy, &untouched)?)
        };
        if commits.exchange(&visible, moved_visible) {
            head.state = moved;
        }
        Ok(())
    }

    /// The same state, with these regions cold in the new checkpoint.
    fn moved(
        &self,
        state: &State,
        catalog: &Catalog,
        redundancy: &Arc<OnceLock<Redundancy>>,
        regions: &[RegionNo],
    ) -> Result<State> {
        let mut state = State::clone(state);
        for number in regions {
            let Some(root) = state.region(*number)?.filter(|root| root.is_untouched()) else {
                continue;
            };
            let Some(region) = catalog.regions.get(number) else { continue };
            let layers = Layers::new(&self.files, Some(region), Arc::new(Run::default()))?;
            let (meta, len) = (Arc::clone(&root.meta), root.len);
            let cold = ColdRegion {
                layers: Arc::new(layers),
                redundancy: Arc::clone(redundancy),
                healed: Arc::clone(&self.healed),
            };
            state.put_region(RegionRoot::cold(meta, len, cold))?;
        }
        Ok(state)
    }
}

fn cold_numbers(state: &State) -> Vec<RegionNo> {
    let regions = state.regions.iter().flatten();
    regions.filter(|(_, root)| root.is_untouched()).map(|(number, _)| *number).collect()
}
