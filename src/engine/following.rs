//! How a read-only store moves on with its writer.
//!
//! What has become durable since is applied to the trees as they are in memory, so that moving on costs about what
//! has changed, and what was read stays read. Regions that nobody has declared have no tree, and what is to stay on
//! disk is not read for it: there the log's changes become one more layer of what is cold.
//! Where the log does not simply go on, as when it was removed before it was read, all is put together by a boot.
//!
//! # Invariants
//! - The layers of a region of which something is cold hold all of it, as of what is visible. So the next changes may
//!   be put over them, and what is cold may be read from a newer checkpoint and the log since instead.

mod basis;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(super) use basis::Basis;
use parking_lot::{Mutex, ReentrantMutex};

use super::{Access, Engine, Head, Open, WAITS_FOR_ITSELF};
use crate::boot::since::since;
use crate::boot::{Booted, boot};
use crate::contain::contain;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Lsn, Place, RegionNo};
use crate::log::tail::{RegionTail, Tail};
use crate::options::{Options, Warming};
use crate::region::handle::{RegionCore, WorkingTree};
use crate::state::{RegionRoot, State, StateDraft};
use crate::transaction::Writer;
use crate::tree::Graveyard;
use crate::visible::Publisher;

/// How often a read-only open begins again when a file goes while it reads.
const READ_ONLY_TRIES: usize = 20;

/// A region of which most is on disk, as the program wants it, gets another layer rather than that more of its ranges
/// than this are read.
const RANGES_READ_MAX: usize = 64;

/// Where a read-only store is, and what its regions were put together from.
#[derive(Debug)]
pub(super) struct Follower {
    /// Whoever moves it on holds and borrows this all the while.
    position: ReentrantMutex<RefCell<Position>>,
    basis: Mutex<Arc<Basis>>,
}

#[derive(Debug)]
struct Position {
    publisher: Publisher,
    /// What is visible was read up to here.
    at: Place,
}

/// A region whose tree was changed as the log was.
struct Followed<'a> {
    number: RegionNo,
    change: &'a RegionTail,
    tree: Box<dyn WorkingTree>,
}

impl Follower {
    pub(super) fn new(publisher: Publisher, at: Place, basis: Basis) -> Follower {
        let position = ReentrantMutex::new(RefCell::new(Position { publisher, at }));
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
            if self.writer.is_this_thread() {
                return Err(Error::new(ErrorKind::Invalid, WAITS_FOR_ITSELF));
            }
            let position = follower.position.lock();
            let Ok(mut position) = position.try_borrow_mut() else {
                let what = "what runs while this thread refreshes the store cannot refresh it";
                return Err(Error::new(ErrorKind::Invalid, what));
            };
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
            let mut followed = Vec::new();
            let mut draft = before.draft();
            if !self.follow_tail(&since.tail, &mut draft, &mut followed, &mut anew)?
                || !basis.put_together(self, &anew, since.claimed, &mut draft)?
            {
                return Ok(None);
            }
            let mut state = draft.freeze();
            state.lsn = since.claimed.lsn;
            let names = renamed(&since.tail, &before);
            let state = Arc::new(state);
            let replaced = self.publish(position, writer.head_mut(), state, Some(&names));
            draft.settle();
            for region in &mut followed {
                region.tree.settle();
            }
            let changed = followed.iter().map(|region| (region.number, region.change));
            basis.keep_whole(self, &self.visible(), changed, since.claimed);
            // Whoever has the lock next changes the same trees.
            drop(writer);
            drop(replaced);
        }
        position.at = since.claimed;
        if renewed {
            // What cannot be opened any more is read from where it was.
            basis.move_cold_regions(self, &self.visible(), position.at).ok();
        }
        self.warm_again(anew.iter().map(|(number, _)| *number));
        Ok(Some(basis))
    }

    /// Changes the trees that there are, and tells of the regions that get another layer or are new; whether the
    /// log makes sense.
    fn follow_tail<'a>(
        &self,
        tail: &'a Tail,
        draft: &mut StateDraft<'_>,
        followed: &mut Vec<Followed<'a>>,
        anew: &mut Vec<(RegionNo, &'a RegionTail)>,
    ) -> Result<bool> {
        let declared: BTreeMap<RegionNo, Arc<RegionCore>> = {
            let registry = self.registry.lock();
            let core = |number| registry.declared_as(draft.region(number)?.meta()).cloned();
            tail.regions.keys().filter_map(|number| Some((*number, core(*number)?))).collect()
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
                    anew.push((*number, change));
                    continue;
                }
            };
            let mut tree = (core.declared.follow)(root, &change.run)?;
            if change.entries_after(root.len()) != Some(tree.len()) {
                return Ok(false);
            }
            let root = tree.freeze();
            followed.push(Followed { number: *number, change, tree });
            draft.put_region(*number, root)?;
        }
        Ok(true)
    }

    /// Whether most of a region is on disk, as the program wants it, and too much of it would have to be read.
    fn stays_on_disk(&self, root: &RegionRoot, change: &RegionTail) -> bool {
        self.options.warming == Warming::OnDemand
            && root.coldness() > root.len() / 2
            && change.run.len() > RANGES_READ_MAX
    }

    /// Lets everybody see a state, in which these names or any mean other regions; what was seen before is for the
    /// caller to drop, without the locks.
    fn publish(
        &self,
        position: &mut Position,
        head: &mut Head,
        state: Arc<State>,
        names: Option<&[Arc<str>]>,
    ) -> Arc<State> {
        // Whoever declares a region meanwhile looks for it in what is visible.
        let mut registry = self.registry.lock();
        registry.follow(names, &state);
        head.state = Arc::clone(&state);
        position.publisher.publish(state)
    }

    /// Reads the newest checkpoint and the log since, as an open does.
    fn boot_again(self: &Arc<Engine>, position: &mut Position, open: &Open) -> Result<Basis> {
        let (path, began) = (self.dir.path(), self.options.storage.ticks());
        let booted = boot_read_only(path, &self.options, self.instance, &self.graveyard, began)?;
        let basis = Basis::of(&booted);
        let mut writer = Writer::lock(self, open);
        let replaced = self.publish(position, writer.head_mut(), Arc::new(booted.state), None);
        drop(writer);
        drop(replaced);
        position.at = booted.claimed;
        let visible = self.visible();
        self.warm_again(visible.regions.iter().map(|root| root.meta().number));
        Ok(basis)
    }
}

/// The names that a piece of the log gives to regions and takes from them.
fn renamed(tail: &Tail, before: &State) -> Vec<Arc<str>> {
    let name = |(number, change): (&RegionNo, &RegionTail)| match &change.created {
        Some((name, _)) => Some(name.as_str().into()),
        None if change.removed => Some(Arc::clone(&before.region(*number)?.meta().name)),
        None => None,
    };
    tail.regions.iter().filter_map(name).collect()
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
