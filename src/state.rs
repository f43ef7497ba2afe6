//! One version of the whole store: the roots of all regions at one LSN.
//!
//! # Invariants
//! - A version is never changed once it is published; a new one shares what did not change, also
//!   with ten thousand regions.

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::checkpoint::cold::{ColdRegion, Warmth};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Lsn, RegionNo};
use crate::region::handle::{ColdRange, RegionTree, WorkingTree};
use crate::region::{Key, Value};
use crate::tree::{Draft, Graveyard, Tree};

/// The state of the durable regions after some commit.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The open that this version belongs to: unique in the process.
    pub(crate) instance: u64,
    pub(crate) lsn: Lsn,
    pub(crate) regions: Tree<RegionNo, RegionRoot>,
    pub(crate) names: Tree<String, RegionNo>,
    pub(crate) graveyard: Graveyard,
}

/// What a region is, apart from what it holds.
#[derive(Debug)]
pub(crate) struct RegionMeta {
    pub(crate) number: RegionNo,
    pub(crate) name: Arc<str>,
    pub(crate) schema: Arc<[u8]>,
}

/// A region at one version.
pub(crate) struct RegionRoot {
    pub(crate) meta: Arc<RegionMeta>,
    pub(crate) len: usize,
    pub(crate) warmth: Arc<Warmth>,
    /// What cold ranges are read from; gone when there are none.
    cold: Weak<ColdRegion>,
    /// The same as long as nobody has asked for the region: the tree has it then.
    untouched: Mutex<Option<Arc<ColdRegion>>>,
    /// A [`RegionTree`] of the types that the region is declared with.
    tree: OnceLock<Box<dyn Any + Send + Sync>>,
}

impl std::fmt::Debug for RegionRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegionRoot")
            .field("meta", &self.meta)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl RegionRoot {
    /// A region as a boot finds it.
    pub(crate) fn cold(meta: Arc<RegionMeta>, cold: ColdRegion, warmth: Arc<Warmth>) -> RegionRoot {
        let cold = Arc::new(cold);
        RegionRoot {
            meta,
            len: warmth.entries,
            warmth,
            cold: Arc::downgrade(&cold),
            untouched: Mutex::new(Some(cold)),
            tree: OnceLock::new(),
        }
    }

    /// A region that did not exist before this commit.
    pub(crate) fn created(meta: Arc<RegionMeta>, tree: &mut dyn WorkingTree) -> RegionRoot {
        RegionRoot {
            meta,
            len: tree.len(),
            warmth: Arc::default(),
            cold: Weak::new(),
            untouched: Mutex::default(),
            tree: OnceLock::from(tree.freeze()),
        }
    }

    /// The same region after a change.
    pub(crate) fn changed(&self, tree: &mut dyn WorkingTree) -> RegionRoot {
        let was_cold = tree.was_cold();
        let mut root = RegionRoot::created(Arc::clone(&self.meta), tree);
        // A region that was cleared has nothing to do with what it was at boot.
        if was_cold {
            root.cold = Weak::clone(&self.cold);
            root.warmth = Arc::clone(&self.warmth);
        }
        root
    }

    /// Entries that are on disk only.
    pub(crate) fn coldness(&self) -> usize {
        match self.cold.strong_count() {
            0 => 0,
            _ => self.warmth.entries.saturating_sub(self.warmth.loaded()),
        }
    }

    /// What its cold ranges are read from, if it has any.
    pub(crate) fn cold_region(&self) -> Option<Arc<ColdRegion>> {
        self.cold.upgrade()
    }

    /// The tree, which the first caller gives its types; no entry is read before one is asked for.
    pub(crate) fn tree<K: Key, V: Value>(
        &self,
        graveyard: &Graveyard,
    ) -> Result<&RegionTree<K, V>> {
        let tree = self.tree.get_or_init(|| {
            let tree: RegionTree<K, V> = match self.untouched.lock().take() {
                Some(cold) => {
                    Tree::cold(Box::new(ColdRange::region(cold)), self.len, graveyard.clone())
                }
                None => Tree::new(graveyard.clone()),
            };
            Box::new(tree)
        });
        tree.downcast_ref().ok_or_else(|| {
            Error::new(ErrorKind::SchemaMismatch, "the region is in use with another type")
                .in_region(&self.meta.name)
        })
    }
}

impl State {
    pub(crate) fn empty(instance: u64, graveyard: Graveyard) -> State {
        State {
            instance,
            lsn: Lsn::ZERO,
            regions: Tree::of_trees(Vec::new(), graveyard.clone()),
            names: Tree::new(graveyard.clone()),
            graveyard,
        }
    }

    pub(crate) fn region(&self, number: RegionNo) -> Result<Option<&RegionRoot>> {
        self.regions.get(|other| number.cmp(other))
    }

    pub(crate) fn number_of(&self, name: &str) -> Result<Option<RegionNo>> {
        Ok(self.names.get(|other| name.cmp(other.as_str()))?.copied())
    }

    /// Begins the state after the next commit.
    pub(crate) fn draft(&self) -> StateDraft<'_> {
        StateDraft { regions: self.regions.draft(), names: None, before: self }
    }
}

/// The next state, while it is made. It ends before the trees do that it was given.
pub(crate) struct StateDraft<'a> {
    regions: Draft<RegionNo, RegionRoot>,
    /// Most commits make and remove no region.
    names: Option<Draft<String, RegionNo>>,
    before: &'a State,
}

impl StateDraft<'_> {
    fn names(&mut self) -> &mut Draft<String, RegionNo> {
        self.names.get_or_insert_with(|| self.before.names.draft())
    }

    /// The region as it was.
    pub(crate) fn region(&self, number: RegionNo) -> Result<Option<&RegionRoot>> {
        self.regions.get(|other| number.cmp(other))
    }

    pub(crate) fn put_region(&mut self, root: RegionRoot) -> Result<()> {
        let (number, meta) = (root.meta.number, Arc::clone(&root.meta));
        if self.regions.insert(number, root)?.is_none() {
            self.names().insert(meta.name.to_string(), number)?;
        }
        Ok(())
    }

    pub(crate) fn remove_region(&mut self, number: RegionNo) -> Result<()> {
        let root = self.region(number)?.map(|root| Arc::clone(&root.meta));
        if let Some(meta) = root {
            self.regions.remove(|other| number.cmp(other))?;
            self.names().remove(|other| meta.name[..].cmp(other.as_str()))?;
        }
        Ok(())
    }

    /// The state, which counts only if the draft is [settled](Self::settle).
    pub(crate) fn freeze(&mut self) -> State {
        let names = self.names.as_mut().map(Draft::freeze);
        State {
            instance: self.before.instance,
            lsn: self.before.lsn.next(),
            regions: self.regions.freeze(),
            names: names.unwrap_or_else(|| self.before.names.clone()),
            graveyard: self.before.graveyard.clone(),
        }
    }

    pub(crate) fn settle(self) {
        self.regions.settle();
        if let Some(names) = self.names {
            names.settle();
        }
    }
}
