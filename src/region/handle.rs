//! What the handles of a durable region share: its name, number, generation and types.

use std::any::Any;
use std::cmp::Ordering;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering as Atomic};
use std::sync::{Arc, Weak};

use super::generation::Generation;
use super::key::Key;
use super::schema::Declared;
use super::{Value, sealed};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::RegionNo;
use crate::state::{Origin, RegionMeta, RegionRoot, State};
use crate::tree::{self, Between, Compare, Draft, Graveyard, Reader, Tree, TreeSavepoint};
use crate::view::sealed::{Readable, Snapshot};

pub(crate) use super::cold::ColdRange;
pub(crate) use super::schema::{Declared as DeclaredSchema, check as check_schema};
pub(crate) use super::warm::{AsState, Warmer};

/// A region's tree, as it was committed or as a transaction changes it.
pub(crate) struct ReadTree<'a, K, V> {
    tree: Reader<'a, K, V>,
    pub(super) region: ReadRegion<'a>,
}

/// The region whose tree is read.
#[derive(Clone, Copy)]
pub(super) enum ReadRegion<'a> {
    Committed(&'a RegionRoot),
    Changing(&'a RegionCore),
}

impl<'a, K: Key, V: Value> ReadTree<'a, K, V> {
    pub(crate) fn get(&self, probe: impl Fn(&K) -> Ordering) -> Result<Option<&'a V>> {
        self.tree.get(probe).map_err(|error| error.in_region(self.region.name()))
    }

    pub(crate) fn contains(&self, probe: impl Fn(&K) -> Ordering) -> Result<bool> {
        self.tree.contains(probe)
    }

    pub(crate) fn outermost(&self, first: bool) -> Result<Option<(&'a K, &'a V)>> {
        self.tree.outermost(first).map_err(|error| error.in_region(self.region.name()))
    }

    pub(crate) fn range(
        &self,
        between: Between<impl Compare<K>, impl Compare<K>>,
    ) -> tree::Iter<'a, K, V> {
        self.tree.range(between)
    }
}

impl<'a> ReadRegion<'a> {
    pub(super) fn name(self) -> &'a str {
        match self {
            ReadRegion::Committed(root) => &root.meta().name,
            ReadRegion::Changing(core) => &core.name,
        }
    }
}

/// One declared durable region of one open.
pub(crate) struct RegionCore {
    pub(crate) name: Arc<str>,
    number: AtomicU64,
    /// The open that it belongs to.
    pub(crate) instance: u64,
    pub(crate) generation: Generation,
    pub(crate) declared: Arc<Declared>,
    pub(crate) warmer: Box<dyn Warmer>,
    engine: Weak<Engine>,
    /// A commit that creates it has an LSN, or it was there at boot.
    pub(crate) created: AtomicBool,
    /// A commit that removes it has an LSN.
    pub(crate) removed: AtomicBool,
}

impl std::fmt::Debug for RegionCore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegionCore").field("name", &self.name).finish_non_exhaustive()
    }
}

impl RegionCore {
    pub(crate) fn new(
        name: Arc<str>,
        number: RegionNo,
        engine: &Arc<Engine>,
        generation: Generation,
        declared: Arc<Declared>,
        created: bool,
    ) -> RegionCore {
        RegionCore {
            name,
            number: AtomicU64::new(number.0),
            instance: engine.instance,
            generation,
            warmer: (declared.warmer)(),
            declared,
            engine: Arc::downgrade(engine),
            created: AtomicBool::new(created),
            removed: AtomicBool::new(false),
        }
    }

    /// Reads all of it into memory.
    pub(crate) fn warm(self: &Arc<Self>) -> Result<()> {
        if self.is_removed() {
            return Err(self.stale());
        }
        self.engine.upgrade().map_or_else(|| Err(Error::closed()), |engine| engine.warm(self))
    }

    pub(crate) fn number(&self) -> RegionNo {
        RegionNo(self.number.load(Atomic::Relaxed))
    }

    /// A region that a read-only store waited for exists now, by this number.
    pub(crate) fn appears(&self, number: RegionNo) {
        self.number.store(number.0, Atomic::Relaxed);
        self.created.store(true, Atomic::Release);
    }

    pub(crate) fn is_created(&self) -> bool {
        self.created.load(Atomic::Acquire)
    }

    pub(crate) fn stale(&self) -> Error {
        let what = "the region was removed, or the handle belongs to an earlier open of a store; \
                    declare the region again";
        Error::new(ErrorKind::Stale, what).in_region(&self.name)
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Atomic::Acquire)
    }

    /// The region's tree at what is read; `None` before its first commit.
    pub(crate) fn tree<'a, K: Key, V: Value, R: Readable + ?Sized>(
        &self,
        at: &'a R,
    ) -> Result<Option<ReadTree<'a, K, V>>> {
        let committed = |state| {
            let root: Option<&'a RegionRoot> = self.root(state)?;
            let Some(root) = root else { return Ok(None) };
            Ok(Some(ReadTree { tree: root.tree()?.read(), region: ReadRegion::Committed(root) }))
        };
        match at.snapshot() {
            Snapshot::State(state) => committed(state),
            Snapshot::Transaction(tx) => {
                if tx.state().instance != self.instance || tx.removes(self.number()) {
                    return Err(self.stale());
                }
                match tx.touched(self.number()) {
                    Some((core, tree)) => {
                        tx.check_whole()?;
                        let tree = tree.as_any().downcast_ref::<Draft<K, V>>();
                        Ok(tree.map(|tree| ReadTree {
                            tree: tree.read(),
                            region: ReadRegion::Changing(core),
                        }))
                    }
                    None => committed(tx.state()),
                }
            }
        }
    }

    /// The region in a state; `None` before its first commit.
    pub(super) fn root<'a>(&self, state: &'a State) -> Result<Option<&'a RegionRoot>> {
        if state.instance != self.instance {
            return Err(self.stale());
        }
        match state.region(self.number()) {
            None if self.is_removed() => Err(self.stale()),
            root => Ok(root),
        }
    }

    /// The region's tree in a state, to be changed; an empty one before its first commit.
    pub(super) fn draft<K: Key, V: Value>(
        &self,
        state: &State,
        graveyard: &Graveyard,
    ) -> Result<Draft<K, V>> {
        if let Some(root) = self.root(state)? {
            return Ok(root.to_tree()?.draft());
        }
        let (name, schema) = (Arc::clone(&self.name), self.declared.encoded.as_slice().into());
        let owner = Origin::owner(RegionMeta { number: self.number(), name, schema }.into());
        Ok(Tree::new(K::frozen(), graveyard.clone()).owned_by(owner).draft())
    }

    /// Entries at what is read, without touching any of them; 0 for what is stale.
    pub(crate) fn len<R: Readable + ?Sized>(&self, at: &R) -> usize {
        let in_state = |state: &State| {
            let ours = state.instance == self.instance;
            let root = if ours { state.region(self.number()) } else { None };
            root.map_or(0, RegionRoot::len)
        };
        match at.snapshot() {
            Snapshot::State(state) => in_state(state),
            Snapshot::Transaction(tx) if tx.removes(self.number()) => 0,
            Snapshot::Transaction(tx) if tx.state().instance == self.instance => {
                let touched = tx.touched(self.number());
                touched.map_or_else(|| in_state(tx.state()), |(_, tree)| tree.len())
            }
            Snapshot::Transaction(_) => 0,
        }
    }

    pub(crate) fn check(&self, born: Generation) -> Result<()> {
        if self.is_removed() {
            return Err(self.stale());
        }
        if born == self.generation {
            Ok(())
        } else {
            Err(self.generation.stale(born).in_region(&self.name))
        }
    }
}

impl sealed::Token for RegionCore {
    fn check(&self, born: Generation) -> Result<()> {
        RegionCore::check(self, born)
    }
}

/// The empty tree that takes the place of a region's.
pub(super) fn cleared<K: Key, V: Value>(tree: &Draft<K, V>) -> Tree<K, V> {
    let empty = Tree::new(K::frozen(), tree.graveyard().clone());
    empty.owned_by(Origin::cleared(tree.owner()))
}

/// A tree under change in a transaction, whatever its types.
pub(crate) trait WorkingTree: Send + Sync {
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn savepoint(&mut self) -> Box<dyn Any + Send + Sync>;
    fn undo(&mut self, savepoint: &(dyn Any + Send + Sync));
    /// The region with this tree, which counts only if this is settled.
    fn freeze(&mut self) -> RegionRoot;
    /// It is not changed any more unless it is resumed.
    fn settle(&mut self);
    /// Begins to change the tree that it was settled with, if a region still has that.
    fn resume(&mut self, at: &RegionRoot) -> bool;
    fn len(&self) -> usize;
}

impl<K: Key, V: Value> WorkingTree for Draft<K, V> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn savepoint(&mut self) -> Box<dyn Any + Send + Sync> {
        Box::new(Draft::savepoint(self))
    }

    fn undo(&mut self, savepoint: &(dyn Any + Send + Sync)) {
        let savepoint = savepoint.downcast_ref::<TreeSavepoint<K, V>>();
        Draft::undo(self, savepoint.expect("a tree goes back to a savepoint of its own"));
    }

    fn freeze(&mut self) -> RegionRoot {
        RegionRoot::new(Draft::freeze(self))
    }

    fn settle(&mut self) {
        Draft::settle(self);
    }

    fn resume(&mut self, at: &RegionRoot) -> bool {
        at.tree().is_ok_and(|tree| Draft::resume(self, tree))
    }

    fn len(&self) -> usize {
        Draft::len(self)
    }
}
