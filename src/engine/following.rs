//! How a read-only store moves on with its writer.
//!
//! What has become durable since is applied to the trees as they are in memory, so that moving on costs about what
//! has changed, and what was read stays read. Regions that nobody has declared have no tree, and those that were made
//! or cleared meanwhile have another one: they are put together as a boot does it, of a checkpoint and the log since.
//! Where the log does not simply go on, as when it was removed before it was read, all of them are.
//!
//! # Invariants
//! - What is cold of a region is the same as when the region was put together, so it is read from a newer checkpoint
//!   only if that is not older than the region is here, nor newer than what is visible.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::checkpointing::move_cold_regions;
use super::{Access, Engine, Head, Open, WAITS_FOR_ITSELF, thread_number};
use crate::boot::load::{Healing, regions};
use crate::boot::since::{Since, since};
use crate::boot::{Booted, boot, locate, older};
use crate::checkpoint::heal::{Healed, Redundancy};
use crate::checkpoint::layers::Files;
use crate::contain::contain;
use crate::error::{Error, ErrorKind, Result};
use crate::format::catalog::Catalog;
use crate::format::{Lsn, Place, RegionNo};
use crate::give_way::GiveWay;
use crate::log::cut::cut;
use crate::log::tail::{RegionTail, Tail};
use crate::options::{Options, Warming};
use crate::region::handle::{RegionCore, WorkingTree};
use crate::state::{RegionRoot, State, StateDraft};
use crate::transaction::Writer;
use crate::tree::Graveyard;
use crate::visible::Publisher;

/// How often a read-only open begins again when a file goes while it reads.
const READ_ONLY_TRIES: usize = 20;

/// A region of which most is on disk, as the program wants it, is put together anew rather than that more of its
/// ranges than this are read.
const RANGES_READ_MAX: usize = 64;

/// Where a read-only store is, and what its regions were put together from.
#[derive(Debug)]
pub(super) struct Follower {
    /// Whoever moves it on has this all the while.
    position: Mutex<Position>,
    basis: Mutex<Arc<Basis>>,
}

#[derive(Debug)]
struct Position {
    publisher: Publisher,
    /// What is visible was read up to here.
    at: Place,
}

/// What regions are put together from.
#[derive(Clone, Debug)]
pub(super) struct Basis {
    files: Arc<Files>,
    /// The checkpoints that are whole, newest first.
    kept: Vec<Arc<Catalog>>,
    healed: Arc<Healed>,
    /// As of which commit regions were put together: all of them by a boot, and these later.
    since: Lsn,
    later: BTreeMap<RegionNo, Lsn>,
}

impl Basis {
    /// What a boot put its regions together from.
    pub(super) fn of(booted: &Booted) -> Basis {
        Basis {
            files: Arc::clone(&booted.files),
            kept: booted.checkpoints.kept.clone(),
            healed: Arc::clone(&booted.healed),
            since: booted.claimed.lsn,
            later: BTreeMap::new(),
        }
    }

    /// Looks for newer checkpoints; whether there is one, no newer than what will be visible.
    fn renew(&mut self, engine: &Engine, since: &Since) -> bool {
        let newest = self.kept.first().map(|catalog| catalog.number);
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

    /// Puts regions together as they are at a place.
    fn put_together(
        &mut self,
        engine: &Engine,
        numbers: &[RegionNo],
        at: Place,
        draft: &mut StateDraft<'_>,
    ) -> Result<bool> {
        if numbers.is_empty() {
            return Ok(true);
        }
        let base = self.kept.first().cloned();
        let from = base.as_ref().map_or(Place::START, |catalog| catalog.place);
        // A checkpoint of the same commit may lie behind a frame without any.
        let tail = if from.lsn < at.lsn {
            cut(&engine.dir, engine.lineage, &from, &at, &GiveWay::default())?.0
        } else {
            Tail::default()
        };
        let redundancy = Arc::new(OnceLock::from(self.redundancy(engine, at)));
        let healing = Healing { redundancy, healed: Arc::clone(&self.healed) };
        let made = regions(base.as_deref(), &tail, engine.dir.path(), at.lsn)?;
        for number in numbers {
            // A region that nobody made is damage.
            let Some(made) = made.get(number) else { return Ok(false) };
            draft.put_region(healing.region(*number, made, &self.files, &engine.graveyard)?)?;
            self.later.insert(*number, at.lsn);
        }
        Ok(true)
    }

    /// Has what is cold read from the newest checkpoint.
    fn move_cold_regions(&mut self, engine: &Engine, state: &State) -> Result<()> {
        let Some(newest) = self.kept.first() else { return Ok(()) };
        let here_since = |region| self.later.get(&region).copied().unwrap_or(self.since);
        let redundancy = self.redundancy(engine, newest.place);
        move_cold_regions(state, newest, redundancy, |region| here_since(region) <= newest.lsn())?;
        self.files.keep_open(newest);
        // Later checkpoints are not older than these either.
        self.later.retain(|_, since| *since > newest.lsn());
        Ok(())
    }

    pub(super) fn checkpoint_lsn(&self) -> Lsn {
        self.kept.first().map_or(Lsn::ZERO, |newest| newest.lsn())
    }

    pub(super) fn healed(&self) -> Vec<String> {
        self.healed.notes()
    }

    /// The bytes of files that are still read from although no checkpoint names them.
    pub(super) fn pinned_bytes(&self) -> u64 {
        self.files.bytes_beside(|file| {
            let needs = |kept: &Arc<Catalog>| kept.number == file || kept.files.contains_key(&file);
            self.kept.iter().any(needs)
        })
    }
}

impl Follower {
    pub(super) fn new(publisher: Publisher, at: Place, basis: Basis) -> Follower {
        let position = Mutex::new(Position { publisher, at });
        Follower { position, basis: Mutex::new(Arc::new(basis)) }
    }

    pub(super) fn basis(&self) -> Arc<Basis> {
        Arc::clone(&self.basis.lock())
    }
}

impl Engine {
    /// Moves a read-only store to what its writer has made durable since.
    pub(crate) fn refresh(self: &Arc<Engine>, open: &Open) -> Result<Lsn> {
        if let Access::Reads(_, follower) = &self.access {
            if self.writer.load(Ordering::Relaxed) == thread_number() {
                return Err(Error::new(ErrorKind::Invalid, WAITS_FOR_ITSELF));
            }
            let mut position = follower.position.lock();
            let before = follower.basis();
            let mut moved = contain(|| self.move_on(&mut position, &before, open));
            if matches!(&moved, Some(Err(error)) if may_be_a_race(error)) {
                moved = contain(|| self.move_on(&mut position, &before, open));
            }
            // Whatever is in the way of that, code of the program included, is not in the way of a boot, which
            // reads no entries; or else it tells what it is.
            let basis = match moved {
                Some(Ok(Some(basis))) => basis,
                _ => self.boot_again(&mut position, open)?,
            };
            *follower.basis.lock() = Arc::new(basis);
        }
        Ok(self.visible().lsn)
    }

    /// Applies what the log has got since; `None` if that cannot be.
    fn move_on(
        self: &Arc<Engine>,
        position: &mut Position,
        basis: &Basis,
        open: &Open,
    ) -> Result<Option<Basis>> {
        let Some(since) = since(&self.dir, self.lineage, &position.at)? else { return Ok(None) };
        let mut basis = basis.clone();
        let renewed = basis.renew(self, &since);
        let mut anew = Vec::new();
        if since.tail.commits > 0 {
            // In the order of locks: a transaction asks the registry as well.
            let mut writer = Writer::lock(self, open);
            let before = Arc::clone(&writer.head_mut().state);
            // They end after the draft, which has what was frozen of them.
            let mut trees: Vec<Box<dyn WorkingTree>> = Vec::new();
            let mut draft = before.draft();
            if !self.follow_tail(&since.tail, &mut draft, &mut trees, &mut anew)?
                || !basis.put_together(self, &anew, since.claimed, &mut draft)?
            {
                return Ok(None);
            }
            let mut state = draft.freeze();
            state.lsn = since.claimed.lsn;
            let replaced = self.publish(position, writer.head_mut(), Arc::new(state));
            draft.settle();
            for tree in &mut trees {
                tree.settle();
            }
            // Whoever has the lock next changes the same trees.
            drop(writer);
            drop(replaced);
        }
        position.at = since.claimed;
        if renewed {
            // What cannot be opened any more is read from where it was.
            basis.move_cold_regions(self, &self.visible()).ok();
        }
        self.warm_again(|core| anew.contains(&core.number()));
        Ok(Some(basis))
    }

    /// Changes the trees that there are, and tells of the regions that have to be put together; whether the log
    /// makes sense.
    fn follow_tail(
        &self,
        tail: &Tail,
        draft: &mut StateDraft<'_>,
        trees: &mut Vec<Box<dyn WorkingTree>>,
        anew: &mut Vec<RegionNo>,
    ) -> Result<bool> {
        let declared: BTreeMap<RegionNo, Arc<RegionCore>> = {
            let registry = self.registry.lock();
            let created = registry.declared().filter(|core| core.is_created());
            created.map(|core| (core.number(), Arc::clone(core))).collect()
        };
        // First, since another may have the name.
        for (number, _) in tail.regions.iter().filter(|(_, change)| change.removed) {
            draft.remove_region(*number)?;
        }
        for (number, change) in tail.regions.iter().filter(|(_, change)| !change.removed) {
            let known = declared.get(number).filter(|_| !change.cleared);
            let (root, core) = match (draft.region(*number), known) {
                (Some(root), Some(core)) if !self.stays_on_disk(root, change) => (root, core),
                _ => {
                    anew.push(*number);
                    continue;
                }
            };
            let added = isize::try_from(change.entries_added).ok();
            let len = added.and_then(|added| root.len.checked_add_signed(added));
            let mut tree = (core.declared.follow)(root, &change.run)?;
            if len != Some(tree.len()) {
                return Ok(false);
            }
            let root = root.changed(&mut *tree);
            trees.push(tree);
            draft.put_region(root)?;
        }
        Ok(true)
    }

    /// Whether most of a region is on disk, as the program wants it, and too much of it would have to be read.
    fn stays_on_disk(&self, root: &RegionRoot, change: &RegionTail) -> bool {
        self.options.warming == Warming::OnDemand
            && root.coldness() > root.len / 2
            && change.run.len() > RANGES_READ_MAX
    }

    /// Lets everybody see a state; what was seen before is for the caller to drop, without the locks.
    fn publish(&self, position: &mut Position, head: &mut Head, state: Arc<State>) -> Arc<State> {
        // Whoever declares a region meanwhile looks for it in what is visible.
        let mut registry = self.registry.lock();
        registry.follow(&state);
        head.state = Arc::clone(&state);
        position.publisher.publish(state)
    }

    /// Reads the newest checkpoint and the log since, as an open does.
    fn boot_again(self: &Arc<Engine>, position: &mut Position, open: &Open) -> Result<Basis> {
        let (path, began) = (self.dir.path(), self.options.storage.ticks());
        let booted = boot_read_only(path, &self.options, self.instance, &self.graveyard, began)?;
        let basis = Basis::of(&booted);
        let mut writer = Writer::lock(self, open);
        let replaced = self.publish(position, writer.head_mut(), Arc::new(booted.state));
        drop(writer);
        drop(replaced);
        position.at = booted.claimed;
        self.warm_again(|_| true);
        Ok(basis)
    }
}

/// Boots without a lock. The writer may remove a file while it is read, or write a place between
/// two looks at it: then it begins again from the newest checkpoint.
pub(super) fn boot_read_only(
    path: &std::path::Path,
    options: &Options,
    instance: u64,
    graveyard: &Graveyard,
    began: Duration,
) -> Result<Booted> {
    let mut tries = 0;
    loop {
        tries += 1;
        match boot(path, options, instance, graveyard, began) {
            Err(error) if tries < READ_ONLY_TRIES && may_be_a_race(&error) => {
                options.storage.pause(Duration::from_millis(tries as u64));
            }
            outcome => return outcome,
        }
    }
}

fn may_be_a_race(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged || error.is_absent()
}
