//! A volatile map as seen by somebody who belongs to one of its generations.

use std::borrow::Borrow;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;

use super::generation::Generation;
use super::volatile::{VolatileCore, VolatileMap, VolatileView, edit};
use crate::error::Result;

/// A [`VolatileMap`] that works only while a generation lasts: to hold instead of the map, where
/// what is held must not outlive a discard. Every method is checked under the map's lock.
///
/// ```
/// use rocstate::{ErrorKind, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let sessions = store.volatile_map::<String, u64>("sessions")?;
/// let mine = sessions.fenced(sessions.generation());
/// mine.insert("token".into(), 1)?;
/// sessions.discard();
/// assert_eq!(mine.get("token").unwrap_err().kind(), ErrorKind::Stale);
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct Fenced<K, V> {
    core: Arc<VolatileCore<K, V>>,
    born: Generation,
}

impl<K, V> Clone for Fenced<K, V> {
    fn clone(&self) -> Self {
        Fenced { core: Arc::clone(&self.core), born: self.born }
    }
}

impl<K, V> fmt::Debug for Fenced<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fenced").field("region", &self.core).field("born", &self.born).finish()
    }
}

impl<K, V> UnwindSafe for Fenced<K, V> {}
impl<K, V> RefUnwindSafe for Fenced<K, V> {}

/// Every method fails with `Stale` once the generation has ended.
#[expect(clippy::missing_errors_doc, reason = "it is the same error for each of them")]
impl<K, V> Fenced<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(super) fn new(core: Arc<VolatileCore<K, V>>, born: Generation) -> Self {
        Fenced { core, born }
    }

    /// The generation that it belongs to.
    pub fn generation(&self) -> Generation {
        self.born
    }

    /// Whether that is still the map's.
    pub fn check(&self) -> Result<()> {
        self.core.read(Some(self.born), |_, _| ())
    }

    /// As [`VolatileMap::get`].
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        self.core.read(Some(self.born), |tree, _| edit::get(tree, key))
    }

    /// As [`VolatileMap::contains_key`].
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> Result<bool>
    where
        K: Borrow<Q>,
    {
        self.core.read(Some(self.born), |tree, _| edit::contains(tree, key))
    }

    /// As [`VolatileMap::first`].
    pub fn first(&self) -> Result<Option<(K, V)>> {
        self.core.read(Some(self.born), |tree, _| edit::outermost(tree, true))
    }

    /// As [`VolatileMap::last`].
    pub fn last(&self) -> Result<Option<(K, V)>> {
        self.core.read(Some(self.born), |tree, _| edit::outermost(tree, false))
    }

    /// As [`VolatileMap::len`].
    pub fn len(&self) -> Result<usize> {
        self.core.read(Some(self.born), |tree, _| tree.len())
    }

    /// As [`VolatileMap::is_empty`].
    pub fn is_empty(&self) -> Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// As [`VolatileMap::view`].
    pub fn view(&self) -> Result<VolatileView<K, V>> {
        self.core.view(Some(self.born))
    }

    /// As [`VolatileMap::insert`].
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>> {
        self.core.write(Some(self.born), |tree| edit::insert(tree, key, value))
    }

    /// As [`VolatileMap::remove`].
    pub fn remove<Q: Ord + ?Sized>(&self, key: &Q) -> Result<Option<V>>
    where
        K: Borrow<Q>,
    {
        self.core.write(Some(self.born), |tree| edit::remove(tree, key))
    }

    /// As [`VolatileMap::update`].
    pub fn update<Q: Ord + ?Sized, T>(
        &self,
        key: &Q,
        f: impl FnOnce(&mut V) -> T,
    ) -> Result<Option<T>>
    where
        K: Borrow<Q>,
    {
        self.core.write(Some(self.born), |tree| edit::update(tree, key, f))
    }

    /// As [`VolatileMap::upsert`].
    pub fn upsert<T>(
        &self,
        key: K,
        new: impl FnOnce() -> V,
        f: impl FnOnce(&mut V) -> T,
    ) -> Result<T> {
        self.core.write(Some(self.born), |tree| edit::upsert(tree, key, new, f))
    }

    /// As [`VolatileMap::pop_first`].
    pub fn pop_first(&self) -> Result<Option<(K, V)>> {
        self.core.write(Some(self.born), |tree| edit::pop(tree, true))
    }

    /// As [`VolatileMap::pop_last`].
    pub fn pop_last(&self) -> Result<Option<(K, V)>> {
        self.core.write(Some(self.born), |tree| edit::pop(tree, false))
    }

    /// As [`VolatileMap::retain`].
    pub fn retain(&self, keep: impl FnMut(&K, &V) -> bool) -> Result<usize> {
        self.core
            .write(Some(self.born), |tree| edit::retain(tree, keep))
            .map(|removed| removed.len())
    }

    /// As [`VolatileMap::clear`].
    pub fn clear(&self) -> Result<()> {
        self.core.clear(Some(self.born))
    }

    /// Discards the generation that it belongs to, and no later one; returns the new one.
    pub fn discard(&self) -> Result<Generation> {
        self.core.discard_if(self.born)
    }

    /// The map, for whoever may go on in another generation.
    pub fn map(&self) -> VolatileMap<K, V> {
        VolatileMap::new(Arc::clone(&self.core))
    }
}
