//! One version of the whole store: the roots of all regions at one LSN.
//!
//! # Invariants
//! - A version is never changed once it is published; a new one shares what did not change, also
//!   with ten thousand regions.

mod roots;

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::checkpoint::cold::{ColdRegion, Warmth};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Lsn, RegionNo};
use crate::region::handle::{ColdRange, WorkingTree};
use crate::region::{Key, Value};
use crate::tree::{Draft, Graveyard, Tree};
pub(crate) use roots::Roots;

/// The state of the durable regions after some commit.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The open that this version belongs to: unique in the process.
    pub(crate) instance: u64,
    pub(crate) lsn: Lsn,
    pub(crate) regions: Roots,
    /// Where they are by name, if they are many: few are looked through.
    names: Option<Tree<String, RegionNo>>,
}

/// What a region is, apart from what it holds.
#[derive(Debug)]
pub(crate) struct RegionMeta {
    pub(crate) number: RegionNo,
    pub(crate) name: Arc<str>,
    pub(crate) schema: Arc<[u8]>,
}

/// A region at one version.
pub(crate) struct RegionRoot<T: ?Sized = dyn Any + Send + Sync> {
    pub(crate) meta: Arc<RegionMeta>,
    pub(crate) len: usize,
    /// What boot found of it, unless it was cleared since.
    found: Option<Arc<Found>>,
    /// A [`Tree`] of the types that the region is declared with, or [`Untyped`].
    tree: T,
}

/// A tree as boot found it; whoever asks first gives it its types.
struct Untyped {
    tree: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Where it goes to be freed.
    graveyard: Graveyard,
}

/// What boot found of a region, which its versions share.
pub(crate) struct Found {
    warmth: Arc<Warmth>,
    /// What cold ranges are read from; gone when there are none.
    cold: Weak<ColdRegion>,
    /// The same as long as nobody has asked for the region: the tree has it then.
    untouched: Mutex<Option<Arc<ColdRegion>>>,
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
    pub(crate) fn cold(
        meta: Arc<RegionMeta>,
        cold: ColdRegion,
        warmth: Arc<Warmth>,
        graveyard: Graveyard,
    ) -> Arc<RegionRoot> {
        let (len, cold) = (warmth.entries, Arc::new(cold));
        let (weak, untouched) = (Arc::downgrade(&cold), Mutex::new(Some(cold)));
        let found = Some(Arc::new(Found { warmth, cold: weak, untouched }));
        let tree = Untyped { tree: OnceLock::new(), graveyard };
        Arc::new(RegionRoot { meta, len, found, tree })
    }

    /// A region with this tree; what boot found of it counts as long as its ranges may be cold.
    pub(crate) fn new<K: Key, V: Value>(
        meta: Arc<RegionMeta>,
        found: Option<Arc<Found>>,
        tree: Tree<K, V>,
    ) -> Arc<RegionRoot> {
        Arc::new(RegionRoot { meta, len: tree.len(), found, tree })
    }

    /// A region of which nothing matters but its number and its name.
    #[cfg(test)]
    fn named(number: RegionNo, name: usize) -> Arc<RegionRoot> {
        RegionRoot::holding(number, name, ())
    }

    /// The same, and what it holds.
    #[cfg(test)]
    pub(crate) fn holding(
        number: RegionNo,
        name: usize,
        tree: impl Any + Send + Sync,
    ) -> Arc<RegionRoot> {
        let (name, schema) = (name.to_string().into(), Arc::default());
        let meta = Arc::new(RegionMeta { number, name, schema });
        Arc::new(RegionRoot { meta, len: 0, found: None, tree })
    }

    /// The same region after a change.
    pub(crate) fn changed(&self, tree: &mut dyn WorkingTree) -> Arc<RegionRoot> {
        // A region that was cleared has nothing to do with what it was at boot.
        let found = self.found.as_ref().filter(|_| tree.was_cold());
        tree.freeze(Arc::clone(&self.meta), found.cloned())
    }

    /// Entries that are on disk only.
    pub(crate) fn coldness(&self) -> usize {
        match &self.found {
            Some(found) if found.cold.strong_count() > 0 => {
                found.warmth.entries.saturating_sub(found.warmth.loaded())
            }
            _ => 0,
        }
    }

    /// How many entries boot found, as far as they still count.
    pub(crate) fn found_entries(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.warmth.entries)
    }

    /// What its cold ranges are read from, if it has any.
    pub(crate) fn cold_region(&self) -> Option<Arc<ColdRegion>> {
        self.found.as_ref()?.cold.upgrade()
    }

    /// The tree, which the first caller gives its types; no entry is read before one is asked for.
    pub(crate) fn tree<K: Key, V: Value>(&self) -> Result<&Tree<K, V>> {
        let known = self.tree.downcast_ref::<Tree<K, V>>();
        known.or_else(|| self.untyped::<K, V>()?.downcast_ref()).ok_or_else(|| {
            Error::new(ErrorKind::SchemaMismatch, "the region is in use with another type")
                .in_region(&self.meta.name)
        })
    }

    /// The tree as boot found it, of these types if it has none yet; `None` once it was changed.
    fn untyped<K: Key, V: Value>(&self) -> Option<&(dyn Any + Send + Sync)> {
        let Untyped { tree, graveyard } = self.tree.downcast_ref()?;
        Some(&**tree.get_or_init(|| {
            let untouched = self.found.as_ref().and_then(|found| found.untouched.lock().take());
            let tree: Tree<K, V> = match untouched {
                Some(cold) => {
                    let source = Box::new(ColdRange::region(cold));
                    Tree::cold(K::frozen(), source, self.len, graveyard.clone())
                }
                None => Tree::new(K::frozen(), graveyard.clone()),
            };
            Box::new(tree)
        }))
    }
}

impl State {
    pub(crate) fn new(instance: u64, lsn: Lsn, regions: Roots) -> State {
        let names = regions.are_many().then(|| names_of(&regions));
        State { instance, lsn, regions, names }
    }

    pub(crate) fn region(&self, number: RegionNo) -> Option<&RegionRoot> {
        self.regions.get(number)
    }

    pub(crate) fn number_of(&self, name: &str) -> Result<Option<RegionNo>> {
        if let Some(names) = &self.names {
            return Ok(names.get(|other| name.cmp(other.as_str()))?.copied());
        }
        Ok(self.regions.named(name))
    }

    /// Begins the state after the next commit.
    pub(crate) fn draft(&self) -> StateDraft<'_> {
        StateDraft { changed: None, names: None, before: self }
    }
}

/// Where regions are by name. A tree of a few thousand names is freed where it is dropped.
fn names_of(regions: &Roots) -> Tree<String, RegionNo> {
    let entry = |root: &RegionRoot| (root.meta.name.to_string(), root.meta.number);
    let mut names: Vec<_> = regions.iter().map(entry).collect();
    names.sort_unstable();
    Tree::from_sorted(String::frozen(), names, Graveyard::none())
}

/// The next state, while it is made. It ends before the trees do that it was given.
pub(crate) struct StateDraft<'a> {
    /// All regions, once one of them was changed.
    changed: Option<Roots>,
    /// Most commits make and remove no region, and few regions are not listed by name.
    names: Option<Draft<String, RegionNo>>,
    before: &'a State,
}

impl StateDraft<'_> {
    /// Where regions are by name, to be changed; made of them if there was none.
    fn names(&mut self) -> &mut Draft<String, RegionNo> {
        let before = self.before;
        self.names.get_or_insert_with(|| match &before.names {
            Some(names) => names.draft(),
            None => names_of(self.changed.as_ref().unwrap_or(&before.regions)).draft(),
        })
    }

    fn regions(&self) -> &Roots {
        self.changed.as_ref().unwrap_or(&self.before.regions)
    }

    /// The region as it was.
    pub(crate) fn region(&self, number: RegionNo) -> Option<&RegionRoot> {
        self.regions().get(number)
    }

    pub(crate) fn number_of(&self, name: &str) -> Result<Option<RegionNo>> {
        match &self.names {
            Some(names) if self.regions().are_many() => {
                Ok(names.get(|other| name.cmp(other.as_str()))?.copied())
            }
            None if self.regions().are_many() => self.before.number_of(name),
            _ => Ok(self.regions().named(name)),
        }
    }

    pub(crate) fn put_region(&mut self, root: Arc<RegionRoot>) -> Result<()> {
        let number = root.meta.number;
        let is_new = if let Some(regions) = &mut self.changed {
            regions.insert(root)
        } else {
            let (regions, is_new) = self.before.regions.with(root);
            self.changed = Some(regions);
            is_new
        };
        if is_new
            && self.regions().are_many()
            && let Some(new) = self.regions().get(number)
        {
            let name = new.meta.name.to_string();
            self.names().insert(name, number)?;
        }
        Ok(())
    }

    pub(crate) fn remove_region(&mut self, number: RegionNo) -> Result<()> {
        let root = self.region(number).map(|root| Arc::clone(&root.meta));
        if let Some(meta) = root {
            self.changed.get_or_insert_with(|| self.before.regions.clone()).remove(number);
            if self.regions().are_many() {
                self.names().remove(|other| meta.name[..].cmp(other.as_str()))?;
            }
        }
        Ok(())
    }

    /// The state, which counts only if the draft is [settled](Self::settle). Nothing is put after it.
    pub(crate) fn freeze(&mut self) -> State {
        let names = self.names.as_mut().map(Draft::freeze);
        State {
            instance: self.before.instance,
            lsn: self.before.lsn.next(),
            regions: self.changed.take().unwrap_or_else(|| self.before.regions.clone()),
            names: names.or_else(|| self.before.names.clone()),
        }
    }

    pub(crate) fn settle(self) {
        if let Some(mut names) = self.names {
            names.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put and removed, each version finds its own regions by name, few or many.
        #[test]
        fn regions_are_found_by_name(
            commits in proptest::collection::vec(
                (any::<bool>(), proptest::collection::vec((0..4u8, 0..9usize), 1..4)), 1..12),
        ) {
            let mut state = State::new(1, Lsn::ZERO, Roots::default());
            let (mut model, mut next) = (BTreeMap::new(), 1);
            let mut versions = Vec::new();
            for (settles, changes) in commits {
                let (mut draft, before) = (state.draft(), model.clone());
                for (what, name) in changes {
                    let known = model.get(&name).copied();
                    match (what, known) {
                        (0, Some(number)) => {
                            draft.remove_region(number).unwrap();
                            model.remove(&name);
                        }
                        (_, Some(number)) => draft.put_region(RegionRoot::named(number, name)).unwrap(),
                        (_, None) => {
                            draft.put_region(RegionRoot::named(RegionNo(next), name)).unwrap();
                            model.insert(name, RegionNo(next));
                            next += 1;
                        }
                    }
                }
                let new = draft.freeze();
                if settles {
                    draft.settle();
                    state = new;
                } else {
                    drop(new);
                    drop(draft);
                    model = before;
                }
                versions.push((state.clone(), model.clone()));
            }
            for (state, model) in versions {
                let booted = State::new(1, Lsn::ZERO, state.regions.clone());
                prop_assert_eq!(state.names.is_some(), state.regions.are_many());
                for name in 0..9 {
                    let (number, name) = (model.get(&name).copied(), name.to_string());
                    prop_assert_eq!(state.number_of(&name).unwrap(), number);
                    prop_assert_eq!(booted.number_of(&name).unwrap(), number);
                }
            }
        }
    }
}
