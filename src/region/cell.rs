//! Durable cells: one value.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::durable::DurableMap;
use super::generation::Generation;
use super::handle::RegionCore;
use super::{Region, Value, sealed};
use crate::error::Result;
use crate::transaction::Transaction;
use crate::view::Readable;

/// One value, or none, that survives every death of the process.
///
/// ```
/// use rocstate::{DurableCell, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let position: DurableCell<u64> = store.durable_cell("position")?;
/// store.transact(|tx| position.set(tx, 42))?;
/// assert_eq!(position.get(&store.view())?, Some(&42));
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct DurableCell<T> {
    map: DurableMap<(), T>,
}

impl<T> Clone for DurableCell<T> {
    fn clone(&self) -> Self {
        DurableCell { map: self.map.clone() }
    }
}

impl<T> fmt::Debug for DurableCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableCell").field("name", &self.map.name()).finish_non_exhaustive()
    }
}

impl<T> UnwindSafe for DurableCell<T> {}
impl<T> RefUnwindSafe for DurableCell<T> {}

impl<T> DurableCell<T> {
    pub(crate) fn new(core: Arc<RegionCore>) -> Self {
        DurableCell { map: DurableMap::new(core) }
    }

    /// Its name in the store.
    pub fn name(&self) -> &str {
        self.map.name()
    }

    /// Its generation: another one after every boot and removal.
    pub fn generation(&self) -> Generation {
        self.map.generation()
    }

    /// Whether `born` is still its generation.
    ///
    /// # Errors
    /// `Stale` if not.
    pub fn check(&self, born: Generation) -> Result<()> {
        self.map.check(born)
    }
}

impl<T> sealed::Fence for DurableCell<T> {
    fn token(&self) -> Arc<dyn sealed::Token> {
        self.map.token()
    }
}

impl<T> Region for DurableCell<T> {
    fn name(&self) -> &str {
        self.map.name()
    }

    fn generation(&self) -> Generation {
        self.map.generation()
    }

    fn check(&self, born: Generation) -> Result<()> {
        self.map.check(born)
    }
}

impl<T: Value> DurableCell<T> {
    /// The value.
    ///
    /// # Errors
    /// As [`DurableMap::get`].
    pub fn get<'a, R: Readable + ?Sized>(&self, at: &'a R) -> Result<Option<&'a T>> {
        self.map.get(at, &())
    }

    /// Reads the value, if it is not in memory yet.
    ///
    /// # Errors
    /// As [`DurableMap::warm`].
    pub fn warm(&self) -> Result<()> {
        self.map.warm()
    }

    /// Sets the value; returns the one before.
    ///
    /// # Errors
    /// As [`DurableMap::insert`].
    pub fn set(&self, tx: &mut Transaction, value: T) -> Result<Option<T>> {
        self.map.insert(tx, (), value)
    }

    /// Changes the value; `None` if there is none.
    ///
    /// # Errors
    /// As [`DurableMap::update`].
    pub fn update<U>(
        &self,
        tx: &mut Transaction,
        f: impl FnOnce(&mut T) -> U,
    ) -> Result<Option<U>> {
        self.map.update(tx, &(), f)
    }

    /// Takes the value out.
    ///
    /// # Errors
    /// As [`DurableMap::remove`].
    pub fn take(&self, tx: &mut Transaction) -> Result<Option<T>> {
        self.map.remove(tx, &())
    }
}
