//! What a transaction has done so far, and can undo.
//!
//! # Invariants
//! - What stands in the history is undone in the opposite order, so that each step finds what it left.
//! - A tree is changed only after the innermost attempt has a savepoint of it, or where it was touched since that
//!   began. So an attempt costs what it changes, however much was touched before.

use std::any::Any;
use std::sync::Arc;

use super::numbered::Numbered;
use crate::error::{Error, ErrorKind, Result};
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
    pub(super) touched: Numbered<Touched>,
    /// What the transaction before touched, settled: the next one often changes the same.
    settled: Vec<(RegionNo, Touched)>,
    history: Vec<Step>,
    /// The innermost attempt that has not ended.
    attempt: Attempt,
    /// The last one that began.
    last_attempt: Attempt,
    /// By their names.
    pub(super) removed: Numbered<Arc<str>>,
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

/// Attempts in the order in which they began; 0 is none.
type Attempt = u64;

pub(super) struct Touched {
    /// The handle it was first touched by.
    pub(super) core: Arc<RegionCore>,
    /// None of a region that is removed.
    pub(super) tree: Option<Box<dyn WorkingTree>>,
    /// What undoes this attempt needs no other savepoint of it.
    noted_in: Attempt,
}

/// Something that was done to a tree that was touched.
struct Step {
    at: usize,
    /// By then.
    noted_in: Attempt,
    before: Before,
}

enum Before {
    /// It was changed after this savepoint of it.
    Changed(Box<dyn Any + Send + Sync>),
    /// It was put in the place of this one, or this one was removed.
    SetAside(Box<dyn WorkingTree>),
}

impl Touched {
    pub(super) fn new(core: Arc<RegionCore>, tree: Box<dyn WorkingTree>) -> Touched {
        Touched { core, tree: Some(tree), noted_in: 0 }
    }

    /// Takes a savepoint of it, which is at this place, for an attempt that has none.
    #[cold]
    fn note(&mut self, at: usize, attempt: Attempt) -> Option<Step> {
        let before = Before::Changed(self.tree.as_mut()?.savepoint());
        let noted_in = std::mem::replace(&mut self.noted_in, attempt);
        Some(Step { at, noted_in, before })
    }
}

impl Work {
    /// Settles what was touched, and keeps it in the place of what was settled before.
    pub(super) fn settle(&mut self) {
        for (_, touched) in self.touched.as_mut_slice() {
            if let Some(tree) = &mut touched.tree {
                tree.settle();
            }
        }
        self.touched.hand_out(&mut self.settled);
        self.settled.truncate(SETTLED_MAX);
    }

    /// Takes up again what the transaction before left of a region, if that still has this root.
    pub(super) fn resume(&mut self, core: &Arc<RegionCore>, state: &State) -> Option<Touched> {
        let at = self.settled.iter().position(|(_, settled)| Arc::ptr_eq(&settled.core, core))?;
        let (number, mut settled) = self.settled.swap_remove(at);
        let root = state.region(number)?;
        settled.tree.as_mut()?.resume(root).then_some(settled)
    }

    /// The same room, empty but for what was settled.
    pub(super) fn emptied(mut self: Box<Work>) -> Box<Work> {
        self.touched.truncate(0);
        self.history.clear();
        (self.attempt, self.last_attempt) = (0, 0);
        self.removed.truncate(0);
        self.operations.truncate((0, 0));
        self.operations.bytes.shrink_to(KEPT_BUFFER_BYTES);
        self.label.clear();
        self.scratch.shrink_to(KEPT_BUFFER_BYTES);
        self
    }

    /// Adds a region that is touched for the first time; where it is.
    pub(super) fn touch(&mut self, mut touched: Touched) -> usize {
        touched.noted_in = self.attempt;
        self.touched.push(touched.core.number(), touched)
    }

    /// # Errors
    /// `Invalid` if a change panicked half way.
    pub(super) fn check_whole(&self) -> Result<()> {
        if self.half_changed {
            let what = "a change of this transaction panicked half way, so that it can only be dropped; \
                        run what may panic in Transaction::attempt, which undoes it";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(())
    }

    /// The tree of a region that was touched, to be changed, and what else that changes.
    #[inline]
    pub(super) fn change(
        &mut self,
        at: usize,
    ) -> Option<(&mut dyn WorkingTree, &mut Operations, &mut bool)> {
        let Work { touched, history, attempt, operations, half_changed, .. } = self;
        let touched = touched.get_mut(at)?;
        if touched.noted_in < *attempt {
            history.extend(touched.note(at, *attempt));
        }
        let tree = touched.tree.as_mut()?;
        Some((&mut **tree, operations, half_changed))
    }

    /// Puts another tree, or none, in the place of one that was touched.
    pub(super) fn replace(&mut self, number: RegionNo, by: Option<Box<dyn WorkingTree>>) {
        if let Some(at) = self.touched.position(number)
            && let Some(touched) = self.touched.get_mut(at)
            && let Some(before) = std::mem::replace(&mut touched.tree, by)
        {
            let noted_in = std::mem::replace(&mut touched.noted_in, self.attempt);
            self.history.push(Step { at, noted_in, before: Before::SetAside(before) });
        }
    }

    /// Begins an attempt, which ends with what is returned: by [`keep`](Self::keep) or [`undo`](Self::undo).
    pub(super) fn attempt(&mut self) -> Savepoint {
        self.last_attempt += 1;
        Savepoint {
            outer: std::mem::replace(&mut self.attempt, self.last_attempt),
            touched: self.touched.len(),
            history: self.history.len(),
            removed: self.removed.len(),
            operations: (self.operations.bytes.len(), self.operations.count),
            half_changed: self.half_changed,
            label: self.label.clone(),
        }
    }

    /// Ends an attempt, and leaves to the one around it what that needs.
    pub(super) fn keep(&mut self, savepoint: &Savepoint) {
        self.attempt = savepoint.outer;
        let is_needless = |step: &mut Step| match step.before {
            Before::Changed(_) => step.noted_in >= savepoint.outer,
            Before::SetAside(_) => false,
        };
        self.history.extract_if(savepoint.history.., is_needless).for_each(drop);
    }

    /// Ends an attempt, and all is as it was when that began.
    pub(super) fn undo(&mut self, savepoint: Savepoint) {
        self.attempt = savepoint.outer;
        // Destructors of what is undone may panic.
        self.half_changed = true;
        while self.history.len() > savepoint.history {
            self.undo_step();
        }
        self.touched.truncate(savepoint.touched);
        self.removed.truncate(savepoint.removed);
        self.operations.truncate(savepoint.operations);
        self.label = savepoint.label;
        self.half_changed = savepoint.half_changed;
    }

    fn undo_step(&mut self) {
        if let Some(Step { at, noted_in, before }) = self.history.pop()
            && let Some(touched) = self.touched.get_mut(at)
        {
            touched.noted_in = noted_in;
            match before {
                Before::SetAside(tree) => touched.tree = Some(tree),
                Before::Changed(savepoint) => {
                    if let Some(tree) = &mut touched.tree {
                        tree.undo(&*savepoint);
                    }
                }
            }
        }
    }
}

/// Where [`Work::undo`] goes back to.
pub(super) struct Savepoint {
    /// The attempt around it.
    outer: Attempt,
    touched: usize,
    history: usize,
    removed: usize,
    /// The bytes of operations, and how many.
    operations: (usize, u64),
    half_changed: bool,
    label: String,
}
