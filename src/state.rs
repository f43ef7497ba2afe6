//! One version of the whole store: the roots of all regions at one LSN.
//!
//! # Invariants
//! - A version is never changed once it is published; a new one shares what did not change, also
//!   with ten thousand regions.

mod roots;
mod spare;

use std::any::Any;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::checkpoint::cold::{ColdRegion, Warmth};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Lsn, RegionNo};
use crate::region::handle::ColdRange;
use crate::region::{Key, Value};
use crate::tree::{AnyVersion, Draft, Graveyard, Owner, Tree, Version};
pub(crate) use roots::Roots;
pub(crate) use spare::Spare;

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

/// A region at one version; cheap to clone.
#[derive(Clone)]
pub(crate) struct RegionRoot {
    /// A [`Version`] of the types that the region is declared with, or [`Untyped`]. Its owner is an [`Origin`].
    tree: Arc<dyn AnyVersion>,
}

/// What all versions of a region's tree share: a tree that takes its place, when it is cleared, has another one.
pub(crate) struct Origin {
    meta: Arc<RegionMeta>,
    /// What boot found of it, unless it was cleared since.
    found: Option<Found>,
}

/// A tree as boot found it; whoever asks first gives it its types.
struct Untyped {
    /// The [`Origin`].
    owner: Owner,
    len: usize,
    tree: OnceLock<Box<dyn Any + Send + Sync>>,
    /// Where it goes to be freed.
    graveyard: Graveyard,
}

/// What boot found of a region.
struct Found {
    warmth: Arc<Warmth>,
    /// What cold ranges are read from; gone when there are none.
    cold: Weak<ColdRegion>,
    /// The same as long as nobody has asked for the region: the tree has it then.
    untouched: Mutex<Option<Arc<ColdRegion>>>,
}

impl std::fmt::Debug for RegionRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegionRoot")
            .field("meta", self.meta())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl AnyVersion for Untyped {
    fn len(&self) -> usize {
        self.len
    }

    fn owner(&self) -> Option<&Owner> {
        Some(&self.owner)
    }
}

impl Origin {
    /// That of a region of which boot found nothing.
    pub(crate) fn owner(meta: Arc<RegionMeta>) -> Owner {
        Arc::new(Origin { meta, found: None })
    }

    /// That of a region's tree.
    fn of(owner: Option<&Owner>) -> &Origin {
        let origin = owner.and_then(|owner| owner.downcast_ref());
        origin.expect("the tree of a region is owned by its origin")
    }

    /// That of the empty tree that takes the place of the one that this owns.
    pub(crate) fn cleared(owner: Option<&Owner>) -> Owner {
        Origin::owner(Arc::clone(&Origin::of(owner).meta))
    }
}

impl RegionRoot {
    /// A region as a boot finds it.
    pub(crate) fn cold(
        meta: Arc<RegionMeta>,
        cold: ColdRegion,
        warmth: Arc<Warmth>,
        graveyard: Graveyard,
    ) -> RegionRoot {
        let (len, cold) = (warmth.entries, Arc::new(cold));
        let (weak, untouched) = (Arc::downgrade(&cold), Mutex::new(Some(cold)));
        let found = Some(Found { warmth, cold: weak, untouched });
        let owner = Arc::new(Origin { meta, found });
        let tree = Untyped { owner, len, tree: OnceLock::new(), graveyard };
        RegionRoot { tree: Arc::new(tree) }
    }

    /// A region with this tree, which is owned by its origin.
    pub(crate) fn new<K: Key, V: Value>(tree: Tree<K, V>) -> RegionRoot {
        RegionRoot { tree: tree.of_any_types() }
    }

    /// A region of which nothing matters but its number and its name.
    #[cfg(test)]
    fn named(number: RegionNo, name: usize) -> RegionRoot {
        let (name, schema) = (name.to_string().into(), Arc::default());
        RegionRoot::owned_by(Origin::owner(Arc::new(RegionMeta { number, name, schema })))
    }

    /// The same, but for what its tree belongs to.
    #[cfg(test)]
    pub(crate) fn owned_by(owner: Owner) -> RegionRoot {
        let tree: Tree<u64, u64> = Tree::new(None, Graveyard::none());
        RegionRoot::new(tree.owned_by(owner))
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    /// What its tree belongs to.
    fn origin(&self) -> &Origin {
        Origin::of(self.tree.owner())
    }

    pub(crate) fn meta(&self) -> &Arc<RegionMeta> {
        &self.origin().meta
    }

    /// Entries that are on disk only.
    pub(crate) fn coldness(&self) -> usize {
        match &self.origin().found {
            Some(found) if found.cold.strong_count() > 0 => {
                found.warmth.entries.saturating_sub(found.warmth.loaded())
            }
            _ => 0,
        }
    }

    /// How many entries boot found, as far as they still count.
    pub(crate) fn found_entries(&self) -> usize {
        self.origin().found.as_ref().map_or(0, |found| found.warmth.entries)
    }

    /// What its cold ranges are read from, if it has any.
    pub(crate) fn cold_region(&self) -> Option<Arc<ColdRegion>> {
        self.origin().found.as_ref()?.cold.upgrade()
    }

    /// The tree to read, which the first caller gives its types; no entry is read before one is asked for.
    pub(crate) fn tree<K: Key, V: Value>(&self) -> Result<&Version<K, V>> {
        let any: &(dyn Any + Send + Sync) = &*self.tree;
        let known = any.downcast_ref();
        known.or_else(|| Some(&**self.untyped::<K, V>()?)).ok_or_else(|| self.has_other_types())
    }

    /// The tree to hold.
    pub(crate) fn to_tree<K: Key, V: Value>(&self) -> Result<Tree<K, V>> {
        let known = Tree::of_types(Arc::clone(&self.tree));
        known.or_else(|| self.untyped().cloned()).ok_or_else(|| self.has_other_types())
    }

    fn has_other_types(&self) -> Error {
        Error::new(ErrorKind::SchemaMismatch, "the region is in use with another type")
            .in_region(&self.meta().name)
    }

    /// The tree as boot found it, of these types if it has none yet; `None` once it was changed.
    fn untyped<K: Key, V: Value>(&self) -> Option<&Tree<K, V>> {
        let any: &(dyn Any + Send + Sync) = &*self.tree;
        let Untyped { owner, len, tree, graveyard } = any.downcast_ref()?;
        let typed = tree.get_or_init(|| {
            let found = self.origin().found.as_ref();
            let untouched = found.and_then(|found| found.untouched.lock().take());
            let tree: Tree<K, V> = match untouched {
                Some(cold) => {
                    let source = Box::new(ColdRange::region(cold));
                    Tree::cold(K::frozen(), source, *len, graveyard.clone())
                }
                None => Tree::new(K::frozen(), graveyard.clone()),
            };
            Box::new(tree.owned_by(Arc::clone(owner)))
        });
        typed.downcast_ref()
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
            return Ok(names.read().get(|other| name.cmp(other.as_str()))?.copied());
        }
        Ok(self.regions.named(name))
    }

    /// Begins the state after the next commit.
    pub(crate) fn draft(&self) -> StateDraft<'_> {
        StateDraft { regions: None, names: None, before: self }
    }
}

/// Where regions are by name. A tree of a few thousand names is freed where it is dropped.
fn names_of(regions: &Roots) -> Tree<String, RegionNo> {
    let entry = |root: &RegionRoot| (root.meta().name.to_string(), root.meta().number);
    let mut names: Vec<_> = regions.iter().map(entry).collect();
    names.sort_unstable();
    Tree::from_sorted(String::frozen(), names, Graveyard::none())
}

/// The next state, while it is made. It ends before the trees do that it was given.
pub(crate) struct StateDraft<'a> {
    /// All regions, once there is a copy of its own.
    regions: Option<Roots>,
    /// Most commits make and remove no region, and few regions are not listed by name.
    names: Option<Draft<String, RegionNo>>,
    before: &'a State,
}

impl StateDraft<'_> {
    /// Where regions are by name, to be changed; made of them if there was none.
    fn names(&mut self) -> &mut Draft<String, RegionNo> {
        let names = self.names.take().unwrap_or_else(|| match &self.before.names {
            Some(names) => names.draft(),
            None => names_of(self.regions()).draft(),
        });
        self.names.insert(names)
    }

    /// Takes regions to change, which are as they were before, in the place of a copy.
    pub(crate) fn begin_with(&mut self, mut regions: Roots) {
        regions.note_begin();
        self.regions = Some(regions);
    }

    fn regions(&self) -> &Roots {
        self.regions.as_ref().unwrap_or(&self.before.regions)
    }

    /// The region as it was.
    pub(crate) fn region(&self, number: RegionNo) -> Option<&RegionRoot> {
        self.regions().get(number)
    }

    pub(crate) fn number_of(&self, name: &str) -> Result<Option<RegionNo>> {
        match &self.names {
            Some(names) if self.regions().are_many() => {
                Ok(names.read().get(|other| name.cmp(other.as_str()))?.copied())
            }
            None if self.regions().are_many() => self.before.number_of(name),
            _ => Ok(self.regions().named(name)),
        }
    }

    pub(crate) fn put_region(&mut self, number: RegionNo, root: RegionRoot) -> Result<()> {
        let is_new = if let Some(regions) = &mut self.regions {
            regions.insert(number, root)
        } else {
            let (regions, is_new) = self.before.regions.with(number, root);
            self.regions = Some(regions);
            is_new
        };
        if is_new
            && self.regions().are_many()
            && let Some(new) = self.regions().get(number)
        {
            let name = new.meta().name.to_string();
            self.names().insert(name, number)?;
        }
        Ok(())
    }

    pub(crate) fn remove_region(&mut self, number: RegionNo) -> Result<()> {
        let root = self.region(number).map(|root| Arc::clone(root.meta()));
        if let Some(meta) = root {
            let before = &self.before.regions;
            self.regions.get_or_insert_with(|| before.to_be_changed()).remove(number);
            if self.regions().are_many() {
                self.names().remove(|other| meta.name[..].cmp(other.as_str()))?;
            }
        }
        Ok(())
    }

    /// The state, which counts only if the draft is [settled](Self::settle). Nothing is put after it.
    pub(crate) fn freeze(&mut self) -> State {
        let names = self.names.as_mut().map(Draft::freeze);
        let before = &self.before.regions;
        State {
            instance: self.before.instance,
            lsn: self.before.lsn.next(),
            regions: self.regions.take().unwrap_or_else(|| before.to_be_changed()),
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
                        (_, Some(number)) => draft.put_region(number, RegionRoot::named(number, name)).unwrap(),
                        (_, None) => {
                            let number = RegionNo(next);
                            draft.put_region(number, RegionRoot::named(number, name)).unwrap();
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
