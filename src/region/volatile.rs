//! Volatile maps: state that dies with the process, or sooner.

pub(super) mod edit;
mod lock;
#[cfg(test)]
mod tests;
mod view;

use std::borrow::Borrow;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};

use super::fenced::Fenced;
use super::generation::{Births, Generation};
use super::{Region, sealed};
use crate::engine::AnyVolatile;
use crate::error::{Error, ErrorKind, Result};
use crate::tree::{Draft, Frozen, Graveyard, Live, Tree};
use lock::CrowdLock;
pub use view::{VolatileIter, VolatileView};

/// An ordered map that never touches the disk and is empty after every boot.
///
/// Changes are immediate and need no transaction. [`discard`](Self::discard) throws everything away in constant time,
/// whatever its size, and begins a new generation: a holder of the old one gets `Stale`, never the wrong object.
/// Closures run under the map's lock and must not use the map: whatever they ask of it panics. Nor should they begin a
/// transaction: in that of another thread the map may be waited for, and both wait for ever. Clones and comparisons
/// must not use the map either, under a lock that readers share, and might wait for ever. Destructors of values may.
/// Where a clone or a destructor of a key panics in the middle of a change, which has nowhere to go back to, the map is
/// discarded, and what it held is leaked; whatever else panics leaves the map whole.
///
/// ```
/// use rocstate::{ErrorKind, Store, VolatileMap};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let sessions: VolatileMap<String, u64> = store.volatile_map("sessions")?;
/// let born = sessions.generation();
/// sessions.insert("token".into(), 8);
/// assert_eq!(sessions.get("token"), Some(8));
/// sessions.discard();
/// assert!(sessions.is_empty());
/// assert_eq!(sessions.check(born).unwrap_err().kind(), ErrorKind::Stale);
/// # Ok::<(), rocstate::Error>(())
/// ```
pub struct VolatileMap<K, V> {
    core: Arc<VolatileCore<K, V>>,
}

/// What the handles of a volatile region share.
pub(crate) struct VolatileCore<K, V> {
    name: Arc<str>,
    births: Arc<Births>,
    life: CrowdLock<Life<K, V>>,
    removed: AtomicBool,
}

/// Entries and the generation that they belong to.
struct Life<K, V> {
    generation: Generation,
    tree: Box<Live<K, V>>,
    /// What takes its place when it is emptied, made when it became large: what fills a large map leaves
    /// nothing in the cache of what making an empty one needs.
    successor: Option<Box<Live<K, V>>>,
}

impl<K, V> Life<K, V>
where
    K: Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Makes ready for being emptied, if that is worth it.
    fn provide(&mut self) {
        if self.successor.is_none() && self.tree.is_large() {
            self.successor = Some(self.tree.emptied());
        }
    }

    /// Empties it; what it held is to be ended after the lock.
    fn empty(&mut self) -> Box<Live<K, V>> {
        let empty = self.successor.take().unwrap_or_else(|| self.tree.emptied());
        std::mem::replace(&mut self.tree, empty)
    }
}

impl<K, V> fmt::Debug for VolatileCore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolatileCore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A change, which may panic half way, in a clone or a destructor of a key. Then a new life begins.
struct Change<'a, K, V>
where
    K: Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    life: &'a mut Life<K, V>,
    births: &'a Births,
}

impl<K, V> Drop for Change<'_, K, V>
where
    K: Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    fn drop(&mut self) {
        if self.life.tree.is_torn() {
            self.life.generation = self.births.next();
            // What of it lives nobody knows.
            std::mem::forget(self.life.empty());
        }
    }
}

/// The outcome of a tree operation that reads no file.
fn sure<T>(outcome: Result<T>) -> T {
    outcome.unwrap_or_else(|error| unreachable!("a tree without cold nodes failed: {error}"))
}

impl<K, V> VolatileCore<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(name: Arc<str>, births: Arc<Births>, graveyard: Graveyard) -> Self {
        let tree = Box::new(Live::new(&Tree::new(Frozen::known(), graveyard)));
        let life = Life { generation: births.next(), tree, successor: None };
        VolatileCore { name, births, life: CrowdLock::new(life), removed: AtomicBool::new(false) }
    }

    /// Reads under the lock, if `born` is still the generation.
    pub(super) fn read<T>(
        &self,
        born: Option<Generation>,
        f: impl FnOnce(&Draft<K, V>, Generation) -> T,
    ) -> Result<T> {
        let life = self.life.read();
        self.check_born(&life, born)?;
        Ok(f(life.tree.get(), life.generation))
    }

    /// A snapshot, if `born` is still the generation.
    pub(super) fn view(&self, born: Option<Generation>) -> Result<VolatileView<K, V>> {
        let life = self.life.read();
        self.check_born(&life, born)?;
        if let Some(tree) = life.tree.unchanged() {
            return Ok(VolatileView::of(tree, life.generation));
        }
        drop(life);
        let mut life = self.life.write();
        self.check_born(&life, born)?;
        let (tree, unswept) = life.tree.version();
        let view = VolatileView::of(tree, life.generation);
        drop(life);
        unswept.sweep();
        Ok(view)
    }

    /// Changes under the lock, if `born` is still the generation.
    pub(super) fn write<T>(
        &self,
        born: Option<Generation>,
        f: impl FnOnce(&mut Draft<K, V>) -> T,
    ) -> Result<T> {
        let mut life = self.life.write();
        self.check_born(&life, born)?;
        let change = Change { life: &mut *life, births: &self.births };
        let (done, unswept) = change.life.tree.change(f);
        drop(change);
        life.provide();
        drop(life);
        unswept.sweep();
        Ok(done)
    }

    fn check_born(&self, life: &Life<K, V>, born: Option<Generation>) -> Result<()> {
        let Some(born) = born else { return Ok(()) };
        if self.removed.load(Atomic::Acquire) {
            let what = "the region was removed; declare it again";
            return Err(Error::new(ErrorKind::Stale, what).in_region(&self.name));
        }
        if life.generation == born {
            Ok(())
        } else {
            Err(life.generation.stale(born).in_region(&self.name))
        }
    }

    /// Throws everything away; what that frees is freed elsewhere, after the lock.
    fn discard(&self) -> Generation {
        sure(self.end_life(None))
    }

    pub(super) fn discard_if(&self, born: Generation) -> Result<Generation> {
        self.end_life(Some(born))
    }

    fn end_life(&self, born: Option<Generation>) -> Result<Generation> {
        let mut life = self.life.write();
        self.check_born(&life, born)?;
        let generation = self.births.next();
        life.generation = generation;
        let old = life.empty();
        drop(life);
        old.end();
        Ok(generation)
    }

    /// Removes everything, and keeps the generation; what that frees is freed after the lock.
    pub(super) fn clear(&self, born: Option<Generation>) -> Result<()> {
        let mut life = self.life.write();
        self.check_born(&life, born)?;
        let old = life.empty();
        drop(life);
        old.end();
        Ok(())
    }
}

impl<K, V> AnyVolatile for VolatileCore<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn len(&self) -> usize {
        self.life.read().tree.get().len()
    }

    fn remove(&self) {
        self.removed.store(true, Atomic::Release);
        self.discard();
    }

    fn as_any(self: Arc<Self>) -> Arc<dyn std::any::Any + Send + Sync> {
        self
    }
}

impl<K, V> sealed::Token for VolatileCore<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn check(&self, born: Generation) -> Result<()> {
        self.read(Some(born), |_, _| ())
    }
}

impl<K, V> Clone for VolatileMap<K, V> {
    fn clone(&self) -> Self {
        VolatileMap { core: Arc::clone(&self.core) }
    }
}

impl<K, V> fmt::Debug for VolatileMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolatileMap").field("name", &self.core.name).finish_non_exhaustive()
    }
}

impl<K, V> UnwindSafe for VolatileMap<K, V> {}
impl<K, V> RefUnwindSafe for VolatileMap<K, V> {}

impl<K, V> VolatileMap<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(core: Arc<VolatileCore<K, V>>) -> Self {
        VolatileMap { core }
    }

    fn read<T>(&self, f: impl FnOnce(&Draft<K, V>, Generation) -> T) -> T {
        sure(self.core.read(None, f))
    }

    fn write<T>(&self, f: impl FnOnce(&mut Draft<K, V>) -> T) -> T {
        sure(self.core.write(None, f))
    }

    /// Its name in the store.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its generation: another one after every boot, discard and removal.
    pub fn generation(&self) -> Generation {
        self.read(|_, generation| generation)
    }

    /// Whether `born` is still its generation.
    ///
    /// # Errors
    /// `Stale` if not.
    pub fn check(&self, born: Generation) -> Result<()> {
        self.core.read(Some(born), |_, _| ())
    }

    /// A clone of the value of a key; [`view`](Self::view) gives references.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.read(|tree, _| edit::get(tree, key))
    }

    /// Whether a key is present.
    pub fn contains_key<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.read(|tree, _| edit::contains(tree, key))
    }

    /// A clone of the lowest entry.
    pub fn first(&self) -> Option<(K, V)> {
        self.read(|tree, _| edit::outermost(tree, true))
    }

    /// A clone of the highest entry.
    pub fn last(&self) -> Option<(K, V)> {
        self.read(|tree, _| edit::outermost(tree, false))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.read(|tree, _| tree.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A snapshot, in constant time.
    pub fn view(&self) -> VolatileView<K, V> {
        sure(self.core.view(None))
    }

    /// Inserts or replaces; returns the value that was there.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.write(|tree| edit::insert(tree, key, value))
    }

    /// Removes a key; returns its value.
    pub fn remove<Q: Ord + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.write(|tree| edit::remove(tree, key))
    }

    /// Changes the value of a key that is present; `None` if it is absent.
    pub fn update<Q: Ord + ?Sized, T>(&self, key: &Q, f: impl FnOnce(&mut V) -> T) -> Option<T>
    where
        K: Borrow<Q>,
    {
        self.write(|tree| edit::update(tree, key, f))
    }

    /// Changes the value of a key, after inserting `new()` if it is absent.
    pub fn upsert<T>(&self, key: K, new: impl FnOnce() -> V, f: impl FnOnce(&mut V) -> T) -> T {
        self.write(|tree| edit::upsert(tree, key, new, f))
    }

    /// Removes and returns the lowest entry.
    pub fn pop_first(&self) -> Option<(K, V)> {
        self.write(|tree| edit::pop(tree, true))
    }

    /// Removes and returns the highest entry.
    pub fn pop_last(&self) -> Option<(K, V)> {
        self.write(|tree| edit::pop(tree, false))
    }

    /// Removes the entries for which `keep` is false; returns how many.
    pub fn retain(&self, keep: impl FnMut(&K, &V) -> bool) -> usize {
        self.write(|tree| edit::retain(tree, keep)).len()
    }

    /// Removes all entries, in constant time, and keeps the generation.
    pub fn clear(&self) {
        sure(self.core.clear(None));
    }

    /// Throws everything away in constant time, and begins and returns a new generation.
    pub fn discard(&self) -> Generation {
        self.core.discard()
    }

    /// A handle that works only while `born` is the generation.
    pub fn fenced(&self, born: Generation) -> Fenced<K, V> {
        Fenced::new(Arc::clone(&self.core), born)
    }
}

impl<K, V> sealed::Fence for VolatileMap<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn token(&self) -> Arc<dyn sealed::Token> {
        Arc::clone(&self.core) as Arc<dyn sealed::Token>
    }
}

impl<K, V> Region for VolatileMap<K, V>
where
    K: Ord + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        &self.core.name
    }

    fn generation(&self) -> Generation {
        VolatileMap::generation(self)
    }

    fn check(&self, born: Generation) -> Result<()> {
        VolatileMap::check(self, born)
    }
}
