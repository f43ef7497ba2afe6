//! The keeper: it prepares segments and takes checkpoints, off the commit path, with a thread for each:
//! a log that finds no segment ahead would go on by system calls for as long as a checkpoint takes. Each is begun
//! when there first is something for it to do: many runs are over before that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Condvar, Mutex};

use super::budget::BootBudget;
use super::helpers::{Helper, Helpers};
use super::{Access, Engine};
use crate::commit::{Commits, Pressure};
use crate::contain::contain;
use crate::error::{Error, ErrorKind};
use crate::format::catalog::Catalog;
use crate::format::{CheckpointNo, Lsn};
use crate::give_way::GiveWay;
use crate::log::segment::Spare;
use crate::log::tail::ReplayWork;
use crate::log::writer::LogWriter;
use crate::storage::directory::Directory;

/// What the keeper is asked for, and what it knows of the checkpoints.
#[derive(Debug)]
pub(super) struct Keeper {
    wants: Mutex<Wants>,
    wake: Condvar,
    helpers: Arc<Helpers>,
    spare_asked: AtomicBool,
    checkpoint_asked: AtomicBool,
    /// Room for the next boot is held.
    reserved: AtomicBool,
    pub(super) budget: BootBudget,
    /// Ended when the store is closed, unless the next boot needs the checkpoint.
    pub(super) give_way: Arc<GiveWay>,
    /// The same of what is written ahead, which it never needs.
    ahead: GiveWay,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Wants {
    spare: bool,
    checkpoint: bool,
    closed: bool,
}

/// One thing that the keeper does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    Spare,
    Checkpoint,
}

impl Chore {
    pub(super) const ALL: [Chore; 2] = [Chore::Spare, Chore::Checkpoint];

    /// Who does it.
    fn helper(self) -> Helper {
        match self {
            Chore::Spare => Helper::Ahead,
            Chore::Checkpoint => Helper::Keeper,
        }
    }
}

impl Wants {
    /// Whether something is asked for.
    fn of(&mut self, chore: Chore) -> &mut bool {
        match chore {
            Chore::Spare => &mut self.spare,
            Chore::Checkpoint => &mut self.checkpoint,
        }
    }

    /// Whether something was asked for, which it no longer is.
    fn take(&mut self, chore: Chore) -> bool {
        std::mem::take(self.of(chore))
    }
}

#[derive(Debug)]
struct Taken {
    newest: Lsn,
    /// Since this open.
    count: u64,
    /// Checkpoint files that a kept catalog lists.
    needed: BTreeSet<CheckpointNo>,
    last_error: Option<Error>,
}

fn needed(kept: &[Arc<Catalog>]) -> BTreeSet<CheckpointNo> {
    kept.iter().flat_map(|catalog| catalog.files.keys().copied().chain([catalog.number])).collect()
}

impl Keeper {
    pub(super) fn new(budget: BootBudget, kept: &[Arc<Catalog>], helpers: Arc<Helpers>) -> Keeper {
        let taken = Taken {
            newest: kept.first().map_or(Lsn::ZERO, |newest| newest.lsn()),
            count: 0,
            needed: needed(kept),
            last_error: None,
        };
        Keeper {
            wants: Mutex::default(),
            wake: Condvar::new(),
            helpers,
            spare_asked: AtomicBool::new(false),
            checkpoint_asked: AtomicBool::new(false),
            reserved: AtomicBool::new(false),
            budget,
            give_way: Arc::default(),
            ahead: GiveWay::default(),
            taken: Mutex::new(taken),
        }
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        self.taken.lock().last_error.clone()
    }

    pub(super) fn set_error(&self, error: Option<Error>) {
        self.taken.lock().last_error = error;
    }

    /// The newest checkpoint's commit, and how many were taken since this open.
    pub(super) fn checkpoints(&self) -> (Lsn, u64) {
        let taken = self.taken.lock();
        (taken.newest, taken.count)
    }

    /// A checkpoint holds everything up to where the log had grown to `work`.
    pub(super) fn checkpointed(&self, work: ReplayWork, kept: &[Arc<Catalog>]) {
        let mut taken = self.taken.lock();
        taken.newest = kept.first().map_or(Lsn::ZERO, |newest| newest.lsn());
        taken.count += 1;
        taken.needed = needed(kept);
        drop(taken);
        self.ended(Chore::Checkpoint);
        self.budget.checkpointed(work);
    }

    /// Takes note that a chore has ended: it can be asked for again.
    fn ended(&self, chore: Chore) {
        self.asked(chore).store(false, Ordering::Relaxed);
    }

    fn asked(&self, chore: Chore) -> &AtomicBool {
        match chore {
            Chore::Spare => &self.spare_asked,
            Chore::Checkpoint => &self.checkpoint_asked,
        }
    }

    /// Takes note that a chore came to nothing.
    fn failed(&self, chore: Chore, error: Error) {
        if chore == Chore::Checkpoint {
            self.set_error(Some(error));
        }
        self.ended(chore);
    }

    /// Whether a kept checkpoint lists a file.
    pub(super) fn needs(&self, file: CheckpointNo) -> bool {
        self.taken.lock().needed.contains(&file)
    }

    /// Holds room for the next boot, unless that is so.
    pub(super) fn reserve(&self, dir: &Directory) {
        if !self.reserved.load(Ordering::Relaxed) && Spare::reserve(dir) {
            self.reserved.store(true, Ordering::Relaxed);
        }
    }

    /// Calls those who do what is wanted already.
    pub(super) fn call_helpers(&self) {
        for chore in Chore::ALL {
            let is_wanted = *self.wants.lock().of(chore);
            if is_wanted {
                self.call(chore);
            }
        }
    }

    /// Wakes the thread of a chore. When it cannot be begun, the chore can be asked for again.
    fn call(&self, chore: Chore) {
        if let Err(error) = self.helpers.have(chore.helper()) {
            self.failed(chore, error);
        }
        self.wake.notify_all();
    }

    /// Asks for something, unless that is so.
    pub(super) fn want(&self, chore: Chore) {
        let asked = self.asked(chore);
        if !asked.load(Ordering::Relaxed) && !asked.swap(true, Ordering::Relaxed) {
            *self.wants.lock().of(chore) = true;
            self.call(chore);
        }
    }

    /// Waits until something is asked for; `false` once the store is closed.
    fn await_chore(&self, chore: Chore) -> bool {
        let mut wants = self.wants.lock();
        loop {
            if wants.take(chore) {
                return true;
            }
            if wants.closed {
                return false;
            }
            self.wake.wait(&mut wants);
        }
    }

    /// Ends the chores. A checkpoint is abandoned, or not begun, only if the next boot is in its budget without
    /// it: processes that live shorter than it takes would never have one.
    pub(super) fn close(&self) {
        let is_needed = self.budget.is_exceeded();
        if !is_needed {
            self.give_way.end();
        }
        self.ahead.end();
        let mut wants = self.wants.lock();
        wants.closed = true;
        wants.spare = false;
        wants.checkpoint &= is_needed;
        drop(wants);
        self.wake.notify_all();
        self.budget.close();
    }

    pub(super) fn look_at(&self, log: &LogWriter) {
        if log.wants_spare() {
            self.want(Chore::Spare);
        }
        if self.budget.log_grew(log.work()) {
            self.want(Chore::Checkpoint);
        }
    }
}

impl Pressure for Keeper {
    fn log_grew(&self, log: &LogWriter) {
        self.look_at(log);
    }

    fn is_behind(&self) -> bool {
        self.budget.is_behind()
    }

    fn hold(&self) {
        self.budget.hold();
    }
}

impl Engine {
    /// Does one kind of chore until the store is closed.
    pub(super) fn run_keeper(&self, chore: Chore) {
        let Access::Writes(commits) = &self.access else { return };
        while self.keeper.await_chore(chore) {
            if contain(|| self.keep(commits, chore)).is_none() {
                let what = "the thread that takes checkpoints panicked; see what it printed";
                self.keeper.failed(chore, Error::new(ErrorKind::Io, what));
            }
        }
    }

    /// Does what was asked for; without a thread, whoever asks does.
    pub(super) fn keep_up(&self) {
        let Access::Writes(commits) = &self.access else { return };
        loop {
            // The lock is not held while it is done.
            let mut wants = self.keeper.wants.lock();
            let chore = Chore::ALL.into_iter().find(|chore| wants.take(*chore));
            drop(wants);
            let Some(chore) = chore else { break };
            self.keep(commits, chore);
        }
    }

    fn keep(&self, commits: &Commits, chore: Chore) {
        match chore {
            Chore::Spare => {
                // A disk that was full at boot may have room by now.
                self.keeper.reserve(&self.dir);
                self.prepare_spare(commits);
                self.keeper.ended(chore);
            }
            Chore::Checkpoint => {
                let outcome = self.checkpoint_appended(commits);
                self.keeper.ended(chore);
                // A poisoned store says so wherever it is used.
                let error = outcome.err().filter(|error| error.kind() != ErrorKind::Poisoned);
                if error.is_some() {
                    self.keeper.set_error(error);
                }
            }
        }
    }

    /// Writes a segment's zeros ahead of its use. When that fails, whoever needs a segment makes
    /// one, and learns the cause if there still is one.
    fn prepare_spare(&self, commits: &Commits) {
        if let Some((slot, len)) = commits.with_log(|log| log.wanted_spare()) {
            let spare = Spare::written_ahead(&self.dir, len, &self.keeper.ahead)
                .and_then(|spare| spare.sync().map(|()| spare));
            match spare {
                Ok(spare) => {
                    spare.expect_frames();
                    slot.fill(spare);
                }
                Err(_) => commits.with_log(LogWriter::do_without_spare),
            }
        }
    }
}
