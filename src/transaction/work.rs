//! What a transaction has done so far, and can undo.

use std::any::Any;
use std::sync::Arc;

use crate::format::RegionNo;
use crate::format::operation::Operation;
use crate::region::handle::{RegionCore, WorkingTree};
use crate::state::State;

/// A buffer that grew beyond this is not kept for the next transaction.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// More regions than this are not kept for the next transaction.
const SETTLED_MAX: usize = 16;

/// What can be undone. Its room is used again by the next transaction.
#[derive(Default)]
pub(crate) struct Work {
    pub(super) touched: Vec<Touched>,
    /// What the transaction before touched, settled: the next one often changes the same.
    settled: Vec<Touched>,
    /// What was touched and then cleared or removed, in this order; it comes back if that is undone.
    pub(super) set_aside: Vec<SetAside>,
    pub(super) removed: Vec<(RegionNo, Arc<str>)>,
    pub(super) operations: Operations,
    /// Trees may have changes of which there is no operation.
    pub(super) half_changed: bool,
    pub(super) label: String,
    /// Where an operation's key and value are encoded before it is staged.
    pub(super) scratch: Vec<u8>,
}

/// Operations that are staged.
#[derive(Default)]
pub(crate) struct Operations {
    pub(super) bytes: Vec<u8>,
    pub(super) count: u64,
}

impl Operations {
    /// Encodes an operation behind the others; there is room for it.
    pub(crate) fn stage(&mut self, operation: &Operation<'_>) {
        operation.encode(&mut self.bytes);
        self.count += 1;
    }

    /// The first of them only.
    fn truncate(&mut self, (bytes, count): (usize, u64)) {
        self.bytes.truncate(bytes);
        self.count = count;
    }
}

pub(super) struct Touched {
    pub(super) number: RegionNo,
    /// The handle it was first touched by.
    pub(super) core: Arc<RegionCore>,
    pub(super) tree: Box<dyn WorkingTree>,
}

/// What was at this place of those that were touched.
pub(super) enum SetAside {
    Removed(usize, Touched),
    Cleared(usize, Box<dyn WorkingTree>),
}

impl Work {
    /// Brings back what was set aside last.
    fn bring_back(&mut self) {
        match self.set_aside.pop() {
            Some(SetAside::Removed(at, touched)) => self.touched.insert(at, touched),
            Some(SetAside::Cleared(at, tree)) => {
                if let Some(touched) = self.touched.get_mut(at) {
                    touched.tree = tree;
                }
            }
            None => {}
        }
    }

    /// Settles what was touched, and keeps it in the place of what was settled before.
    pub(super) fn settle(&mut self) {
        self.touched.iter_mut().for_each(|touched| touched.tree.settle());
        std::mem::swap(&mut self.touched, &mut self.settled);
        self.settled.truncate(SETTLED_MAX);
    }

    /// Takes up again what the transaction before left of a region, if that still has this root.
    pub(super) fn resume(&mut self, core: &Arc<RegionCore>, state: &State) -> Option<Touched> {
        let at = self.settled.iter().position(|settled| Arc::ptr_eq(&settled.core, core))?;
        let mut settled = self.settled.swap_remove(at);
        let root = state.region(settled.number)?;
        settled.tree.resume(root).then_some(settled)
    }

    /// The same room, empty but for what was settled.
    pub(super) fn emptied(mut self: Box<Work>) -> Box<Work> {
        self.touched.clear();
        self.set_aside.clear();
        self.removed.clear();
        self.operations.truncate((0, 0));
        self.operations.bytes.shrink_to(KEPT_BUFFER_BYTES);
        self.label.clear();
        self.scratch.shrink_to(KEPT_BUFFER_BYTES);
        self
    }

    /// Puts an empty tree in the place of one that was touched.
    pub(super) fn clear(&mut self, number: RegionNo, empty: Box<dyn WorkingTree>) {
        let touched = &mut self.touched;
        if let Some(at) = touched.iter().position(|touched| touched.number == number)
            && let Some(touched) = touched.get_mut(at)
        {
            let full = std::mem::replace(&mut touched.tree, empty);
            self.set_aside.push(SetAside::Cleared(at, full));
        }
    }

    pub(super) fn savepoint(&mut self) -> Savepoint {
        let trees = self.touched.iter_mut().map(|touched| touched.tree.savepoint());
        Savepoint {
            trees: trees.collect(),
            set_aside: self.set_aside.len(),
            removed: self.removed.len(),
            operations: (self.operations.bytes.len(), self.operations.count),
            half_changed: self.half_changed,
            label: self.label.clone(),
        }
    }

    pub(super) fn undo_to(&mut self, savepoint: Savepoint) {
        // Destructors of what is undone may panic.
        self.half_changed = true;
        while self.set_aside.len() > savepoint.set_aside {
            self.bring_back();
        }
        self.touched.truncate(savepoint.trees.len());
        for (touched, tree) in self.touched.iter_mut().zip(&savepoint.trees) {
            touched.tree.undo(&**tree);
        }
        self.removed.truncate(savepoint.removed);
        self.operations.truncate(savepoint.operations);
        self.label = savepoint.label;
        self.half_changed = savepoint.half_changed;
    }
}

/// Where [`Work::undo_to`] goes back to.
pub(super) struct Savepoint {
    /// Of each tree that was touched by then.
    trees: Vec<Box<dyn Any + Send + Sync>>,
    set_aside: usize,
    removed: usize,
    /// The bytes of operations, and how many.
    operations: (usize, u64),
    half_changed: bool,
    label: String,
}
