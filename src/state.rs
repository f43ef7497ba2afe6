//! One version of the whole store: the roots of all regions at one LSN.
//!
//! # Invariants
//! - A version is never changed once it is published; a new one shares what did not change, also
//!   with ten thousand regions.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use crate::checkpoint::heal::{Healed, Redundancy};
use crate::checkpoint::layers::Layers;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Lsn, RegionNo};
use crate::region::handle::{LayerSource, RegionTree};
use crate::region::{Key, Value};
use crate::tree::{Graveyard, Tree};

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
    /// Where the entries come from when nobody has asked for them yet.
    cold: Option<ColdRegion>,
    /// A [`RegionTree`] of the types that the region is declared with.
    tree: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// A region as it lies on disk.
#[derive(Clone, Debug)]
pub(crate) struct ColdRegion {
    pub(crate) layers: Arc<Layers>,
    /// What it can be healed from, once boot is over.
    pub(crate) redundancy: Arc<OnceLock<Redundancy>>,
    pub(crate) healed: Arc<Healed>,
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
    pub(crate) fn cold(meta: Arc<RegionMeta>, len: usize, cold: ColdRegion) -> RegionRoot {
        RegionRoot { meta, len, cold: Some(cold), tree: OnceLock::new() }
    }

    pub(crate) fn hot(
        meta: Arc<RegionMeta>,
        len: usize,
        tree: Arc<dyn Any + Send + Sync>,
    ) -> RegionRoot {
        RegionRoot { meta, len, cold: None, tree: OnceLock::from(tree) }
    }

    /// Whether nobody has touched it since boot.
    pub(crate) fn is_untouched(&self) -> bool {
        self.tree.get().is_none()
    }

    /// The tree, which the first caller gives its types; no entry is read before one is asked for.
    pub(crate) fn tree<K: Key, V: Value>(
        &self,
        graveyard: &Graveyard,
    ) -> Result<&RegionTree<K, V>> {
        let tree = self.tree.get_or_init(|| {
            let tree: RegionTree<K, V> = match &self.cold {
                Some(cold) => {
                    let (meta, cold) = (Arc::clone(&self.meta), cold.clone());
                    let source = LayerSource { cold, meta, len: self.len };
                    Tree::cold(Box::new(source), self.len, graveyard.clone())
                }
                None => Tree::new(graveyard.clone()),
            };
            Arc::new(tree)
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
            regions: Tree::new(graveyard.clone()),
            names: Tree::new(graveyard.clone()),
            graveyard,
        }
    }

    pub(crate) fn region(&self, number: RegionNo) -> Result<Option<&Arc<RegionRoot>>> {
        self.regions.get(|other| number.cmp(other))
    }

    pub(crate) fn number_of(&self, name: &str) -> Result<Option<RegionNo>> {
        Ok(self.names.get(|other| name.cmp(other.as_str()))?.map(|number| **number))
    }

    pub(crate) fn put_region(&mut self, root: RegionRoot) -> Result<()> {
        let (number, name) = (root.meta.number, root.meta.name.to_string());
        let new = self.regions.insert(number, Arc::new(root))?.is_none();
        if new {
            self.names.insert(name, Arc::new(number))?;
        }
        Ok(())
    }

    pub(crate) fn remove_region(&mut self, number: RegionNo) -> Result<()> {
        if let Some((_, root)) = self.regions.remove(|other| number.cmp(other))? {
            self.names.remove(|other| root.meta.name[..].cmp(other.as_str()))?;
        }
        Ok(())
    }
}
