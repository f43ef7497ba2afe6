//! The handle of a store.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Engine, Open};
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::options::Options;
use crate::region::{
    DurableCell, DurableMap, Generation, Key, Value, VolatileMap, declare_cell, declare_map,
};
use crate::report::{BootReport, RegionInfo, Stats};
use crate::submitted::Submitted;
use crate::transaction::Transaction;
use crate::view::View;

/// A store: a directory whose durable regions survive every death of this process.
///
/// Clones are handles of the same store. The store is locked as long as a clone or a transaction
/// lives; maps, views and submitted commits do not keep it. There is no `close`: dropping the last
/// handle is a crash like any other, and opening again is the same recovery. It waits for what is being
/// written to the log, and for a checkpoint only if the next boot would not be in its budget without it.
///
/// ```
/// use rocstate::{DurableMap, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path();
/// let store = Store::open(path)?;
/// let visits: DurableMap<String, u64> = store.durable_map("visits")?;
/// store.transact(|tx| visits.upsert(tx, "home".into(), || 0, |count| *count += 1))?;
/// drop(store);
///
/// let store = Store::open(path)?;
/// let visits: DurableMap<String, u64> = store.durable_map("visits")?;
/// assert_eq!(visits.get(&store.view(), "home")?, Some(&1));
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    open: Open,
    engine: Arc<Engine>,
}

impl Store {
    /// Boots the store in a directory with the default [`Options`]; makes it if there is none.
    ///
    /// Blocks: in async code, call it where blocking is allowed.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Options::default().open(path)
    }

    /// Options to open a store with.
    pub fn options() -> Options {
        Options::default()
    }

    pub(crate) fn boot(path: &Path, options: &Options) -> Result<Store> {
        let (open, engine) = Engine::open(path, options)?;
        Ok(Store { open, engine })
    }

    /// The durable map of this name. It comes to be with the first commit that touches it.
    ///
    /// # Errors
    /// `SchemaMismatch`: it holds, or is in use with, other types; both shapes are shown.
    /// `Unsupported`: what `V` writes could not be read back. `Invalid`: the name is empty or longer
    /// than 255 bytes.
    pub fn durable_map<K: Key, V: Value>(&self, name: &str) -> Result<DurableMap<K, V>> {
        Ok(DurableMap::new(self.engine.declare(name, &declare_map::<K, V>()?)?))
    }

    /// The durable cell of this name: one value, or none.
    ///
    /// # Errors
    /// As [`durable_map`](Self::durable_map).
    pub fn durable_cell<T: Value>(&self, name: &str) -> Result<DurableCell<T>> {
        Ok(DurableCell::new(self.engine.declare(name, &declare_cell::<T>()?)?))
    }

    /// The volatile map of this name: empty after every boot, never on disk.
    ///
    /// # Errors
    /// `SchemaMismatch`: it is in use with other types, or durable. `ReadOnly`. `Invalid`: the name.
    pub fn volatile_map<K, V>(&self, name: &str) -> Result<VolatileMap<K, V>>
    where
        K: Ord + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        Ok(VolatileMap::new(self.engine.declare_volatile(name)?))
    }

    /// Removes a region and all it holds; `false` if there is none by this name. Its handles are
    /// `Stale` from then on.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub fn remove_region(&self, name: &str) -> Result<bool> {
        if self.engine.remove_volatile(name) {
            return Ok(true);
        }
        self.transact(|tx| tx.remove_region(name))
    }

    /// All regions that exist or are declared, by name.
    pub fn regions(&self) -> Vec<RegionInfo> {
        self.engine.regions()
    }

    /// The visible state; constant time, waits for nobody, also in a poisoned store.
    pub fn view(&self) -> View {
        View::new(self.engine.seen())
    }

    /// Begins a transaction; waits while another one is open, and, ten seconds at most, while more than 64 MiB
    /// are committed of which nothing is written yet.
    ///
    /// # Panics
    /// If this thread already has a transaction open on this store: it would wait for itself.
    pub fn begin(&self) -> Transaction {
        Transaction::begin(&self.engine, &self.open)
    }

    /// Runs `f` in a transaction, commits, and waits until the commit is durable.
    ///
    /// `f` runs once. What it returns, `Ok` or `Err`, is handed out only when everything it read is
    /// visible.
    ///
    /// # Durability
    /// After `Ok` the commit survives what [`Options::durability`] says.
    ///
    /// # Errors
    /// What `f` returns, after rolling back; else as [`Transaction::commit`].
    pub fn transact<T>(&self, f: impl FnOnce(&mut Transaction) -> Result<T>) -> Result<T> {
        self.try_transact(f)
    }

    /// The same for a closure with errors of its own.
    ///
    /// # Errors
    /// As [`transact`](Self::transact).
    pub fn try_transact<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let (lsn, outcome) = self.run(f)?;
        self.engine.wait(lsn)?;
        outcome
    }

    /// Runs `f` in a transaction now, and commits; what is returned resolves when that is durable.
    ///
    /// A thread of the store writes and syncs it. A small commit that asks for no sync is only copied into memory of
    /// the system's, if nobody is ahead of it: that is done before this returns.
    pub fn submit<T>(&self, f: impl FnOnce(&mut Transaction) -> Result<T>) -> Submitted<T> {
        self.try_submit(f)
    }

    /// The same for a closure with errors of its own.
    pub fn try_submit<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Submitted<T, E> {
        match self.run(f) {
            Ok((lsn, outcome)) => Submitted::pending(Arc::clone(&self.engine), lsn, outcome),
            Err(error) => Submitted::refused(error),
        }
    }

    /// Runs `f` and gives its commit an LSN; or, where it fails, the LSN of what it read.
    fn run<T, E: From<Error>>(
        &self,
        f: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<(Lsn, Result<T, E>)> {
        let mut tx = self.begin();
        match f(&mut tx) {
            Ok(value) => Ok((tx.enqueue(self.engine.options.durability)?.0, Ok(value))),
            Err(error) => Ok((tx.state().lsn, Err(error))),
        }
    }

    /// Takes a checkpoint of everything that is committed; returns the LSN that it holds.
    ///
    /// Checkpoints are taken as needed without this; it stops neither readers nor writers.
    ///
    /// # Errors
    /// `Poisoned`: a write or sync failed. `Damaged` or `Io`: the log could not be read; nothing
    /// was changed.
    pub fn checkpoint(&self) -> Result<Lsn> {
        self.engine.checkpoint()
    }

    /// Makes all commits so far survive the loss of power; returns the last one that does.
    ///
    /// # Errors
    /// `Poisoned`, `ReadOnly`.
    pub fn sync(&self) -> Result<Lsn> {
        self.engine.sync()
    }

    /// Does at once what a store's threads do when it falls idle: syncs what is not durable yet, writes
    /// the witness of the last commit, and makes what is due. Only a store without
    /// [threads](crate::Options::threads) needs it.
    ///
    /// # Errors
    /// `Poisoned`, `ReadOnly`.
    pub fn tend(&self) -> Result<()> {
        self.engine.tend()
    }

    /// Moves a read-only store to what its writer has made durable since; any other store is there already.
    ///
    /// That costs about what has changed: it is applied to the regions that are declared here, of which what was read
    /// stays in memory, and put over what others have on disk. Of a region that was cleared meanwhile, and of one of which
    /// most is on disk and much has changed if it is [warmed](crate::Options::warming) on demand, all is read again when it
    /// is asked for. So are all regions where the writer has removed a part of the log that this store has not seen,
    /// which it does after a few checkpoints.
    ///
    /// A commit can be seen once something on disk tells that it is durable: the next sync of the log, or what the writer
    /// writes when nothing was committed for 250 ms.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// use rocstate::{DurableMap, Store};
    /// let store = Store::open(dir.path())?;
    /// let stock: DurableMap<String, u32> = store.durable_map("stock")?;
    ///
    /// // Elsewhere, as a rule in another process:
    /// let reader = Store::options().read_only(true).open(dir.path())?;
    /// let seen: DurableMap<String, u32> = reader.durable_map("stock")?;
    ///
    /// let lsn = store.transact(|tx| stock.insert(tx, "apples".into(), 3)).map(|_| store.visible_lsn())?;
    /// while reader.refresh()? < lsn {
    ///     std::thread::sleep(Duration::from_millis(10));
    /// }
    /// assert_eq!(seen.get(&reader.view(), "apples")?, Some(&3));
    /// # Ok::<(), rocstate::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Options::open`]; the state that was visible stays. `Invalid` if this thread has a transaction open on
    /// this store, or refreshes it already, and this is code of the program that runs meanwhile: it would wait for
    /// itself.
    pub fn refresh(&self) -> Result<Lsn> {
        self.engine.refresh(&self.open)
    }

    /// The last commit that survives the loss of power.
    pub fn durable_lsn(&self) -> Lsn {
        self.engine.durable_lsn()
    }

    /// The last commit that readers see.
    pub fn visible_lsn(&self) -> Lsn {
        self.engine.seen().lsn
    }

    /// The generation that this boot began.
    pub fn generation(&self) -> Generation {
        self.engine.births.boot()
    }

    /// How the store is now.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// What this boot did.
    pub fn boot_report(&self) -> &BootReport {
        self.engine.report()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl UnwindSafe for Store {}
impl RefUnwindSafe for Store {}
