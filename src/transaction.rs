//! Transactions: changes to durable regions that happen together or not at all.
//!
//! # Invariants
//! - Whatever goes wrong while staging leaves the transaction as it was before the call.
//! - A transaction that ends without a commit leaves no trace, and it has ended before the next begins.
//! - One in which a change panicked half way is not committed, unless the change was undone.

mod numbered;
mod work;

use std::fmt;
use std::sync::Arc;

use parking_lot::{ArcMutexGuard, RawMutex};

use crate::commit::Staged;
use crate::engine::{Engine, Head, Open};
use crate::error::{Error, ErrorKind, Result};
use crate::format::operation::Operation;
use crate::format::{Lsn, RegionNo, TRANSACTION_BYTES_MAX};
use crate::options::Durability;
use crate::region::handle::{RegionCore, WorkingTree};
use crate::region::sealed::Token;
use crate::region::{Generation, Region};
use crate::state::State;
use crate::submitted::Submitted;
use crate::tree::Graveyard;
use crate::view::{Readable, sealed};
use work::Touched;
pub(crate) use work::{Operations, Work};

/// Room for the longest label, a region's name and schema, and what frames an operation.
const OPERATION_BYTES_MAX: usize = 64 << 10;

/// The longest label, in bytes.
const LABEL_BYTES_MAX: usize = 4096;

/// A set of changes under the writer lock: one at a time for a store, others queue.
///
/// Reads see the changes made so far. Dropping it, also by a panic, rolls back. What it reads may
/// not be durable yet, and counts only once its own commit is acknowledged. If a change panics half way, in code of a
/// key or value, and the program catches that outside of [`attempt`](Self::attempt), what was changed can be neither
/// read nor changed further: that is `Invalid`, and so is to commit.
///
/// ```
/// use rocstate::{DurableMap, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let stock: DurableMap<String, u32> = store.durable_map("stock")?;
/// let mut tx = store.begin();
/// stock.insert(&mut tx, "apples".into(), 3)?;
/// assert_eq!(stock.get(&tx, "apples")?, Some(&3));
/// let lsn = tx.commit()?;
/// assert_eq!(store.view().lsn(), lsn);
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct Transaction {
    /// Ends before the writer lock is released: whoever gets it next begins at the same trees.
    staged: Box<Work>,
    fences: Vec<(Arc<dyn Token>, Generation)>,
    writer: Writer,
}

/// Who holds the writer lock; it says so until the lock is released, which is before the store may close.
pub(crate) struct Writer {
    /// Absent once it is released.
    head: Option<ArcMutexGuard<RawMutex, Head>>,
    /// Keeps the store open and locked from then on.
    open: Option<Open>,
}

const NOT_ENDED: &str = "a transaction is not used after it has ended";

impl Writer {
    /// Waits for the lock.
    ///
    /// # Panics
    /// If this thread has it.
    pub(crate) fn lock(engine: &Engine, open: &Open) -> Writer {
        Writer { head: Some(engine.lock(open)), open: None }
    }

    fn head(&self) -> &Head {
        self.head.as_ref().expect(NOT_ENDED)
    }

    pub(crate) fn head_mut(&mut self) -> &mut Head {
        self.head.as_mut().expect(NOT_ENDED)
    }

    fn release(&mut self) {
        if let Some(head) = self.head.take() {
            head.engine().writer_ended();
            self.open = Some(ArcMutexGuard::into_arc(head));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.release();
    }
}

impl Transaction {
    pub(crate) fn begin(engine: &Engine, open: &Open) -> Transaction {
        let mut writer = Writer::lock(engine, open);
        let staged = writer.head_mut().spare.take().unwrap_or_default();
        Transaction { staged, fences: Vec::new(), writer }
    }

    /// Names the commit for whoever reads the log; at most 4 KiB are kept.
    pub fn label(&mut self, label: &str) {
        let fits = |end: &usize| label.is_char_boundary(*end);
        let end = (0..=LABEL_BYTES_MAX.min(label.len())).rev().find(fits).unwrap_or_default();
        self.staged.label.clear();
        self.staged.label.push_str(label.get(..end).unwrap_or_default());
    }

    /// Makes the commit depend on a region's generation: checked now, and again where the commit
    /// gets its LSN.
    ///
    /// # Errors
    /// `Stale` if `born` is not the region's generation any more; the commit then fails as well.
    pub fn fence(&mut self, region: &impl Region, born: Generation) -> Result<()> {
        let token = region.token();
        token.check(born)?;
        self.fences.push((token, born));
        Ok(())
    }

    /// Runs `f`; if it fails or panics, what it did is undone, and nothing else.
    ///
    /// # Errors
    /// What `f` returns.
    pub fn attempt<T, E>(
        &mut self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let (savepoint, fences) = (self.staged.attempt(), self.fences.len());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(self)));
        if matches!(outcome, Ok(Ok(_))) {
            self.staged.keep(&savepoint);
        } else {
            self.staged.undo(savepoint);
            self.fences.truncate(fences);
        }
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Removes a durable region and all it holds; `false` if there is none by this name. Its number
    /// and generation are never used again, and its handles are `Stale` from this commit on.
    ///
    /// # Errors
    /// `Invalid` for a volatile region: [`Store::remove_region`](crate::Store::remove_region)
    /// removes that.
    pub fn remove_region(&mut self, name: &str) -> Result<bool> {
        if self.engine().is_volatile(name) {
            let what = "a transaction holds no volatile state; use Store::remove_region";
            return Err(Error::new(ErrorKind::Invalid, what).in_region(name));
        }
        let committed = self.state().number_of(name)?.filter(|number| !self.removes(*number));
        let Some(number) = committed.or_else(|| self.created(name)) else {
            return Ok(false);
        };
        self.room_for(0)?;
        self.stage(&Operation::RemoveRegion { region: number });
        self.staged.replace(number, None);
        self.staged.removed.push(number, name.into());
        Ok(true)
    }

    /// Commits and waits until the commit is as durable as the store's options say.
    ///
    /// # Durability
    /// After `Ok` the commit survives what its [`Durability`] says. After `Poisoned` it may have
    /// survived: open again and look. After any other error it has not happened.
    ///
    /// # Errors
    /// `Poisoned`, `Closed`, `ReadOnly`, `Stale` for a fence that fell. `Invalid` if the program caught a panic
    /// of its own key or value in the middle of a change, outside of [`attempt`](Self::attempt).
    pub fn commit(self) -> Result<Lsn> {
        let durability = self.engine().options.durability;
        self.commit_with(durability)
    }

    /// Commits with a durability of its own.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_with(self, durability: Durability) -> Result<Lsn> {
        let engine = Arc::clone(self.engine());
        // The store stays open until the commit is acknowledged.
        let (lsn, _open) = self.enqueue(durability)?;
        engine.wait(lsn).map(|()| lsn)
    }

    /// Commits without waiting: what is returned resolves when the commit is durable.
    pub fn submit(self) -> Submitted {
        let durability = self.engine().options.durability;
        self.submit_with(durability)
    }

    /// Commits without waiting, with a durability of its own.
    pub fn submit_with(self, durability: Durability) -> Submitted {
        let engine = Arc::clone(self.engine());
        match self.enqueue(durability) {
            Ok((lsn, _open)) => Submitted::pending(engine, lsn, Ok(lsn)),
            Err(error) => Submitted::refused(error),
        }
    }

    /// Gives the commit its LSN and its place in the queue; the writer lock ends here.
    pub(crate) fn enqueue(self, durability: Durability) -> Result<(Lsn, Writer)> {
        // Whatever happens, the last of these ends first, and the lock is released last.
        let Transaction { mut writer, fences, mut staged } = self;
        let head = writer.head_mut();
        let writes = staged.operations.count > 0;
        staged.check_whole()?;
        if writes && head.engine().is_read_only() {
            return Err(Error::read_only());
        }
        for (token, born) in &fences {
            token.check(*born)?;
        }
        if !writes {
            let lsn = head.state.lsn;
            head.spare = Some(staged.emptied());
            writer.release();
            return Ok((lsn, writer));
        }
        // What the draft was given ends after it, and nobody has the state by then unless it counts.
        let mut draft = head.state.draft();
        head.engine().commits()?.spare().lend(&mut draft);
        for (number, _) in staged.removed.as_slice() {
            draft.remove_region(*number)?;
        }
        for (number, touched) in staged.touched.as_mut_slice() {
            if let Some(tree) = &mut touched.tree {
                draft.put_region(*number, tree.freeze())?;
            }
        }
        let state = Arc::new(draft.freeze());
        head.engine().enqueue(Staged {
            label: &staged.label,
            operations: &staged.operations.bytes,
            operation_count: staged.operations.count,
            durability,
            state: Arc::clone(&state),
        })?;
        draft.settle();
        let lsn = state.lsn;
        let replaced = std::mem::replace(&mut head.state, state);
        let touched =
            staged.touched.as_slice().iter().filter(|(_, touched)| touched.tree.is_some());
        let cores = touched.map(|(_, touched)| &*touched.core);
        head.engine().note_committed(lsn, cores, staged.removed.as_slice());
        staged.settle();
        head.spare = Some(staged.emptied());
        writer.release();
        drop(replaced);
        Ok((lsn, writer))
    }

    /// The state that this transaction began at.
    pub(crate) fn state(&self) -> &State {
        &self.writer.head().state
    }

    fn engine(&self) -> &Arc<Engine> {
        self.writer.head().engine()
    }

    pub(crate) fn removes(&self, number: RegionNo) -> bool {
        self.staged.removed.position(number).is_some()
    }

    /// # Errors
    /// `Invalid` if a change panicked half way, so that trees may not be as they should.
    pub(crate) fn check_whole(&self) -> Result<()> {
        self.staged.check_whole()
    }

    pub(crate) fn touched(&self, number: RegionNo) -> Option<(&RegionCore, &dyn WorkingTree)> {
        let touched = self.staged.touched.get(self.staged.touched.position(number)?)?;
        Some((&touched.core, touched.tree.as_deref()?))
    }

    /// A region by this name that this transaction has created.
    fn created(&self, name: &str) -> Option<RegionNo> {
        let mut touched = self.staged.touched.as_slice().iter();
        let found =
            touched.find(|(_, touched)| touched.tree.is_some() && *touched.core.name == *name);
        found.map(|(number, _)| *number)
    }

    /// Changes the tree of a region and stages what was changed, by code of the program that may panic in
    /// between; if `f` fails, it has changed nothing.
    pub(crate) fn change<T>(
        &mut self,
        core: &Arc<RegionCore>,
        begin: impl FnOnce(&State, &Graveyard) -> Result<Box<dyn WorkingTree>>,
        f: impl FnOnce(&mut dyn WorkingTree, &mut Operations) -> Result<T>,
    ) -> Result<T> {
        self.check_whole()?;
        let at = self.touch(core, begin)?;
        let (tree, operations, half_changed) =
            self.staged.change(at).ok_or_else(|| core.stale())?;
        let before = std::mem::replace(half_changed, true);
        let done = f(tree, operations);
        *half_changed = before;
        done
    }

    /// Where the tree of a region is that is changed. On its first touch `begin` makes it of what the state has,
    /// or an empty one of a region that does not exist yet.
    fn touch(
        &mut self,
        core: &Arc<RegionCore>,
        begin: impl FnOnce(&State, &Graveyard) -> Result<Box<dyn WorkingTree>>,
    ) -> Result<usize> {
        if core.instance != self.state().instance || self.removes(core.number()) {
            return Err(core.stale());
        }
        if let Some(at) = self.staged.touched.position(core.number()) {
            return Ok(at);
        }
        let touched = match self.staged.resume(core, &self.writer.head().state) {
            Some(touched) => touched,
            None => self.touch_anew(core, begin)?,
        };
        Ok(self.staged.touch(touched))
    }

    fn touch_anew(
        &mut self,
        core: &Arc<RegionCore>,
        begin: impl FnOnce(&State, &Graveyard) -> Result<Box<dyn WorkingTree>>,
    ) -> Result<Touched> {
        let number = core.number();
        let tree = begin(self.state(), &self.engine().graveyard)?;
        if self.state().region(number).is_none() {
            if core.is_created() {
                return Err(core.stale());
            }
            let schema = &core.declared.encoded;
            self.stage(&Operation::Create { region: number, name: &core.name, schema });
        }
        Ok(Touched::new(Arc::clone(core), tree))
    }

    /// Refuses what would make the commit too large: an operation with this many bytes of key and
    /// value, and the creation of its region.
    pub(crate) fn room_for(&self, bytes: usize) -> Result<()> {
        let used = self.staged.operations.bytes.len() + self.staged.label.len();
        if used + bytes + OPERATION_BYTES_MAX <= TRANSACTION_BYTES_MAX {
            return Ok(());
        }
        let what = format!("a transaction may write at most {TRANSACTION_BYTES_MAX} bytes");
        Err(Error::new(ErrorKind::TooLarge, what))
    }

    /// Encodes an operation behind the others; there is room for it.
    pub(crate) fn stage(&mut self, operation: &Operation<'_>) {
        self.staged.operations.stage(operation);
    }

    /// Puts an empty tree in the place of one that was touched.
    pub(crate) fn clear(&mut self, number: RegionNo, empty: Box<dyn WorkingTree>) {
        self.staged.replace(number, Some(empty));
    }

    /// Room to encode in; it is given back with [`return_scratch`](Self::return_scratch).
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.staged.scratch);
        scratch.clear();
        scratch
    }

    pub(crate) fn return_scratch(&mut self, scratch: Vec<u8>) {
        self.staged.scratch = scratch;
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("after", &self.state().lsn)
            .field("operations", &self.staged.operations.count)
            .finish_non_exhaustive()
    }
}

impl Readable for Transaction {
    fn lsn(&self) -> Lsn {
        self.state().lsn
    }
}

impl sealed::Readable for Transaction {
    fn snapshot(&self) -> sealed::Snapshot<'_> {
        sealed::Snapshot::Transaction(self)
    }
}

const _: () = {
    fn is_static_and_sync<T: Sync + 'static>() {}
    let _: fn() = is_static_and_sync::<Transaction>;
};
