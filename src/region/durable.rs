//! Durable maps.

use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::entries::Iter;
use super::generation::Generation;
use super::handle::{ReadTree, RegionCore, WorkingTree, cleared};
use super::key::{AsKey, Key, KeyWriter};
use super::range::{KeyPrefix, KeyRange, beginning, between};
use super::stored;
use super::{Region, Value, sealed};
use crate::error::{Error, ErrorKind, Result};
use crate::format::KEY_BYTES_MAX;
use crate::format::operation::Operation;
use crate::state::State;
use crate::transaction::{Operations, Transaction};
use crate::tree::{Draft, Graveyard, Old};
use crate::view::Readable;

/// An ordered map whose entries survive every death of the process.
///
/// It is read at a [`View`](crate::View) or in a [`Transaction`], and changed in a transaction. A
/// clone is the same region. It does not keep the store open.
///
/// The first touch of entries that are not in memory reads them, a block or so, also inside a
/// transaction, since an insert must know whether it replaces. Threads in the background read ahead
/// ([`Options::warming`](crate::Options::warming)), and [`warm`](Self::warm) waits for all of it.
///
/// Values lie side by side with their keys, which spares a read a cache miss, if they take no more than eight bytes and
/// are known to be plain: numbers, `bool`, `char`, `NonZero`, `Ipv4Addr`, an `Option` or an array of one of these, a pair
/// of two of the same, and what takes no room at all. A struct or an enum of a program's own is not known, however small.
///
/// ```
/// use rocstate::{DurableMap, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let log: DurableMap<(String, u64), String> = store.durable_map("log")?;
/// store.transact(|tx| {
///     log.insert(tx, ("ann".into(), 1), "in".into())?;
///     log.insert(tx, ("ann".into(), 2), "out".into())?;
///     log.insert(tx, ("bob".into(), 1), "in".into())
/// })?;
/// let view = store.view();
/// let of_ann: Vec<_> = log.prefix(&view, &("ann",)).collect::<Result<_, _>>()?;
/// assert_eq!(of_ann.len(), 2);
/// assert_eq!(log.get(&view, &("bob", 1))?.map(String::as_str), Some("in"));
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct DurableMap<K, V> {
    core: Arc<RegionCore>,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Clone for DurableMap<K, V> {
    fn clone(&self) -> Self {
        DurableMap { core: Arc::clone(&self.core), types: PhantomData }
    }
}

impl<K, V> fmt::Debug for DurableMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DurableMap").field("name", &self.core.name).finish_non_exhaustive()
    }
}

impl<K, V> UnwindSafe for DurableMap<K, V> {}
impl<K, V> RefUnwindSafe for DurableMap<K, V> {}

impl<K, V> DurableMap<K, V> {
    pub(crate) fn new(core: Arc<RegionCore>) -> Self {
        DurableMap { core, types: PhantomData }
    }

    /// Its name in the store.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its generation: another one after every boot and removal.
    pub fn generation(&self) -> Generation {
        self.core.generation
    }

    /// Whether `born` is still its generation.
    ///
    /// # Errors
    /// `Stale` if not.
    pub fn check(&self, born: Generation) -> Result<()> {
        self.core.check(born)
    }
}

impl<K, V> sealed::Fence for DurableMap<K, V> {
    fn token(&self) -> Arc<dyn sealed::Token> {
        Arc::clone(&self.core) as Arc<dyn sealed::Token>
    }
}

impl<K, V> Region for DurableMap<K, V> {
    fn name(&self) -> &str {
        &self.core.name
    }

    fn generation(&self) -> Generation {
        self.core.generation
    }

    fn check(&self, born: Generation) -> Result<()> {
        self.core.check(born)
    }
}

impl<K: Key, V: Value> DurableMap<K, V> {
    /// The value of a key.
    ///
    /// # Errors
    /// `Stale`: the handle is of an earlier open, or the region was removed. `Damaged`: the entries
    /// could not be read, or this value not by its type. `Io`.
    pub fn get<'a, Q: AsKey<K> + ?Sized, R: Readable + ?Sized>(
        &self,
        at: &'a R,
        key: &Q,
    ) -> Result<Option<&'a V>> {
        let Some(tree) = self.tree(at)? else { return Ok(None) };
        tree.get(|other| key.compare(other))
    }

    /// Whether a key is present.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn contains_key<Q: AsKey<K> + ?Sized, R: Readable + ?Sized>(
        &self,
        at: &R,
        key: &Q,
    ) -> Result<bool> {
        let Some(tree) = self.tree(at)? else { return Ok(false) };
        tree.contains(|other| key.compare(other))
    }

    /// How many entries there are, in constant time; 0 for a stale handle.
    pub fn len<R: Readable + ?Sized>(&self, at: &R) -> usize {
        self.core.len(at)
    }

    /// Whether there are none.
    pub fn is_empty<R: Readable + ?Sized>(&self, at: &R) -> bool {
        self.len(at) == 0
    }

    /// The lowest entry.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn first<'a, R: Readable + ?Sized>(&self, at: &'a R) -> Result<Option<(&'a K, &'a V)>> {
        self.outermost(at, true)
    }

    /// The highest entry.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn last<'a, R: Readable + ?Sized>(&self, at: &'a R) -> Result<Option<(&'a K, &'a V)>> {
        self.outermost(at, false)
    }

    /// All entries in key order, from both ends.
    pub fn iter<'a, R: Readable + ?Sized>(&self, at: &'a R) -> Iter<'a, K, V> {
        self.range(at, ..)
    }

    /// The entries in a range of keys, from both ends.
    #[expect(clippy::needless_pass_by_value, reason = "a range is written where it is used")]
    pub fn range<'a, R: Readable + ?Sized>(
        &self,
        at: &'a R,
        keys: impl KeyRange<K>,
    ) -> Iter<'a, K, V> {
        Iter::new(self.tree(at), |tree| tree.range(between(keys.bounds(), AsKey::compare)))
    }

    /// The entries whose keys begin with a prefix, from both ends.
    pub fn prefix<'a, P: KeyPrefix<K> + ?Sized, R: Readable + ?Sized>(
        &self,
        at: &'a R,
        prefix: &P,
    ) -> Iter<'a, K, V> {
        Iter::new(self.tree(at), |tree| tree.range(beginning(prefix)))
    }

    /// Reads everything that is not in memory yet, with the help of the threads that warm in the
    /// background, and waits until it is there.
    ///
    /// # Errors
    /// `Damaged` or `Io`: the first range that could not be read; all others are in memory then.
    /// `Stale`: the region was removed. `Closed`: the store was.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = rocstate::Store::open(dir.path())?;
    /// let map: rocstate::DurableMap<u8, u8> = store.durable_map("map")?;
    /// map.warm()?;
    /// assert_eq!(store.regions()[0].cold, 0);
    /// # Ok::<(), rocstate::Error>(())
    /// ```
    pub fn warm(&self) -> Result<()> {
        self.core.warm()
    }

    /// Inserts or replaces; returns the value that was there, if it could be read by its type.
    ///
    /// # Errors
    /// `TooLarge`: the key has more than 64 KiB, the value more than 64 MiB, or the transaction
    /// more than 256 MiB. `Unsupported`: the value could not be read back. Else as
    /// [`get`](Self::get). The transaction is then as it was.
    pub fn insert(&self, tx: &mut Transaction, key: K, value: V) -> Result<Option<V>> {
        let old = self.put_and_tell(tx, key, value, |old| old.into_value().ok())?;
        Ok(old.flatten())
    }

    /// Inserts or replaces, without handing back what was there: views may still see it, so that
    /// handing it back takes a clone. Returns whether the key was present.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = rocstate::Store::open(dir.path())?;
    /// let map: rocstate::DurableMap<u8, u8> = store.durable_map("map")?;
    /// assert!(!store.transact(|tx| map.put(tx, 1, 2))?);
    /// assert!(store.transact(|tx| map.put(tx, 1, 3))?);
    /// # Ok::<(), rocstate::Error>(())
    /// ```
    pub fn put(&self, tx: &mut Transaction, key: K, value: V) -> Result<bool> {
        Ok(self.put_and_tell(tx, key, value, |_| ())?.is_some())
    }

    /// Removes a key; returns its value, if it could be read by its type.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `TooLarge` for the transaction.
    pub fn remove<Q: AsKey<K> + ?Sized>(&self, tx: &mut Transaction, key: &Q) -> Result<Option<V>> {
        // A region that is not there yet is not made for what is not in it.
        if self.tree(&*tx)?.is_none() {
            return Ok(None);
        }
        match self.take(tx, key, |old| old.into_value().ok()) {
            // What is not there asks for no room.
            Err(error)
                if error.kind() == ErrorKind::TooLarge && !self.contains_key(&*tx, key)? =>
            {
                Ok(None)
            }
            removed => Ok(removed?.flatten()),
        }
    }

    /// Changes the value of a key that is present; `None` if it is absent.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn update<Q: AsKey<K> + ?Sized, T>(
        &self,
        tx: &mut Transaction,
        key: &Q,
        f: impl FnOnce(&mut V) -> T,
    ) -> Result<Option<T>> {
        let Some(mut value) = self.get(tx, key)?.cloned() else { return Ok(None) };
        let result = f(&mut value);
        let bytes = self.encode(tx, key, &value)?;
        let region = self.core.number();
        tx.room_for(bytes.len())?;
        self.change(tx, |tree, operations| {
            tree.replace(|other| key.compare(other), value)?;
            operations.stage(&Operation::Replace {
                region,
                key: bytes.key(),
                value: bytes.value(),
            });
            Ok(())
        })?;
        tx.return_scratch(bytes.bytes);
        Ok(Some(result))
    }

    /// Changes the value of a key, after inserting `new()` if it is absent.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn upsert<T>(
        &self,
        tx: &mut Transaction,
        key: K,
        new: impl FnOnce() -> V,
        f: impl FnOnce(&mut V) -> T,
    ) -> Result<T> {
        let mut value = self.get(tx, &key)?.cloned().unwrap_or_else(new);
        let result = f(&mut value);
        self.put(tx, key, value)?;
        Ok(result)
    }

    /// Removes and returns the lowest entry.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn pop_first(&self, tx: &mut Transaction) -> Result<Option<(K, V)>> {
        let key = self.first(tx)?.map(|(key, _)| key.clone());
        self.pop(tx, key)
    }

    /// Removes and returns the highest entry.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn pop_last(&self, tx: &mut Transaction) -> Result<Option<(K, V)>> {
        let key = self.last(tx)?.map(|(key, _)| key.clone());
        self.pop(tx, key)
    }

    /// Removes the entries in a range for which `keep` is false; returns how many.
    ///
    /// # Errors
    /// As [`remove`](Self::remove); the transaction is then as it was.
    pub fn retain(
        &self,
        tx: &mut Transaction,
        keys: impl KeyRange<K>,
        mut keep: impl FnMut(&K, &V) -> bool,
    ) -> Result<usize> {
        let mut unwanted = Vec::new();
        for entry in self.range(&*tx, keys) {
            let (key, value) = entry?;
            if !keep(key, value) {
                unwanted.push(key.clone());
            }
        }
        tx.attempt(|tx| {
            for key in &unwanted {
                self.take(tx, key, |_| ())?;
            }
            Ok(unwanted.len())
        })
    }

    /// Removes all entries, in constant time.
    ///
    /// # Errors
    /// `Stale`, and `TooLarge` for the transaction.
    pub fn clear(&self, tx: &mut Transaction) -> Result<()> {
        // A stale handle is refused, and what is empty needs no operation.
        self.tree(&*tx)?;
        if self.is_empty(&*tx) {
            return Ok(());
        }
        tx.room_for(0)?;
        let empty = self.change(tx, |tree, _| Ok(cleared(tree).draft()))?;
        tx.clear(self.core.number(), Box::new(empty));
        tx.stage(&Operation::Clear { region: self.core.number() });
        Ok(())
    }

    fn outermost<'a, R: Readable + ?Sized>(
        &self,
        at: &'a R,
        first: bool,
    ) -> Result<Option<(&'a K, &'a V)>> {
        let Some(tree) = self.tree(at)? else { return Ok(None) };
        tree.outermost(first)
    }

    fn tree<'a, R: Readable + ?Sized>(&self, at: &'a R) -> Result<Option<ReadTree<'a, K, V>>> {
        self.core.tree(at)
    }

    /// Changes the region's tree of this transaction, and stages what is changed.
    fn change<T>(
        &self,
        tx: &mut Transaction,
        f: impl FnOnce(&mut Draft<K, V>, &mut Operations) -> Result<T>,
    ) -> Result<T> {
        let begin = |state: &State, graveyard: &Graveyard| {
            self.core
                .draft::<K, V>(state, graveyard)
                .map(|tree| Box::new(tree) as Box<dyn WorkingTree>)
        };
        tx.change(&self.core, begin, |tree, operations| {
            let tree = tree.as_any_mut().downcast_mut().ok_or_else(|| {
                Error::new(ErrorKind::SchemaMismatch, "the region is in use with another type")
                    .in_region(&self.core.name)
            })?;
            f(tree, operations)
        })
    }

    /// Inserts or replaces; tells of the value that was there.
    fn put_and_tell<T>(
        &self,
        tx: &mut Transaction,
        key: K,
        value: V,
        told: impl FnOnce(Old<'_, V>) -> T,
    ) -> Result<Option<T>> {
        let bytes = self.encode(tx, &key, &value)?;
        let region = self.core.number();
        tx.room_for(bytes.len())?;
        let old = self.change(tx, |tree, operations| {
            let old = tree.insert_by(key, value, K::compare)?.map(told);
            let (key, value) = (bytes.key(), bytes.value());
            operations.stage(&match old {
                None => Operation::Insert { region, key, value },
                Some(_) => Operation::Replace { region, key, value },
            });
            Ok(old)
        })?;
        tx.return_scratch(bytes.bytes);
        Ok(old)
    }

    /// Removes an entry that is there, and tells of it: of a key that is absent nothing would be changed.
    fn take<Q: AsKey<K> + ?Sized, T>(
        &self,
        tx: &mut Transaction,
        key: &Q,
        told: impl FnOnce(Old<'_, V>) -> T,
    ) -> Result<Option<T>> {
        let bytes = self.encode_key(tx, key)?;
        tx.room_for(bytes.len())?;
        let removed = self.change(tx, |tree, operations| {
            let removed = tree.remove(|other| key.compare(other))?.map(told);
            if removed.is_some() {
                operations.stage(&Operation::Remove { region: self.core.number(), key: &bytes });
            }
            Ok(removed)
        })?;
        tx.return_scratch(bytes);
        Ok(removed)
    }

    fn pop(&self, tx: &mut Transaction, key: Option<K>) -> Result<Option<(K, V)>> {
        let Some(key) = key else { return Ok(None) };
        let told =
            |old: Old<'_, V>| old.into_value().map_err(|error| error.in_region(&self.core.name));
        let value = self.take(tx, &key, told)?.transpose()?;
        Ok(value.map(|value| (key, value)))
    }

    fn encode_key<Q: AsKey<K> + ?Sized>(&self, tx: &mut Transaction, key: &Q) -> Result<Vec<u8>> {
        let mut to = KeyWriter::over(tx.take_scratch());
        key.encode(&mut to);
        let bytes = to.into_bytes();
        if bytes.len() > KEY_BYTES_MAX {
            let what = format!(
                "a key has {} bytes when it is encoded; the limit is {KEY_BYTES_MAX}",
                bytes.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, what).in_region(&self.core.name));
        }
        Ok(bytes)
    }

    fn encode<Q: AsKey<K> + ?Sized>(
        &self,
        tx: &mut Transaction,
        key: &Q,
        value: &V,
    ) -> Result<EntryBytes> {
        let mut bytes = self.encode_key(tx, key)?;
        let key_len = bytes.len();
        stored::encode(value, &mut bytes, self.core.declared.read_back, &self.core.name)?;
        Ok(EntryBytes { bytes, key_len })
    }
}

/// An encoded key and value, one behind the other.
struct EntryBytes {
    bytes: Vec<u8>,
    key_len: usize,
}

impl EntryBytes {
    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn key(&self) -> &[u8] {
        self.bytes.get(..self.key_len).unwrap_or_default()
    }

    fn value(&self) -> &[u8] {
        self.bytes.get(self.key_len..).unwrap_or_default()
    }
}
