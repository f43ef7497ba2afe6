//! Which regions this program has declared, and by which types.

use std::any::Any;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::format::shape::Schema;
use crate::format::{Lsn, REGION_NAME_BYTES_MAX, RegionNo};
use crate::region::VolatileCore;
use crate::region::handle::{DeclaredSchema, RegionCore, check_schema};
use crate::report::RegionInfo;
use crate::state::{RegionMeta, State};

#[derive(Debug)]
pub(super) struct Registry {
    durable: HashMap<Arc<str>, Arc<RegionCore>>,
    volatile: HashMap<Arc<str>, Arc<dyn AnyVolatile>>,
    /// Regions whose removal has an LSN, in that order; readers may still see them.
    removed: VecDeque<(Lsn, RegionNo)>,
    numbers: Numbers,
}

/// Which numbers regions get that do not exist yet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbers {
    /// No region has had this one or a higher one.
    From(u64),
    /// Of a store that makes none: its writer comes to these last, and not to one that somebody waits under.
    DownFrom(u64),
}

impl Numbers {
    fn take(&mut self) -> RegionNo {
        let (Numbers::From(next) | Numbers::DownFrom(next)) = *self;
        *self = match self {
            Numbers::From(_) => Numbers::From(next.saturating_add(1)),
            Numbers::DownFrom(_) => Numbers::DownFrom(next.saturating_sub(1)),
        };
        RegionNo(next)
    }
}

/// A volatile region, whatever its types.
pub(crate) trait AnyVolatile: Any + Send + Sync + std::fmt::Debug {
    fn len(&self) -> usize;
    fn remove(&self);
    fn as_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl Registry {
    pub(super) fn new(numbers: Numbers) -> Registry {
        Registry {
            durable: HashMap::new(),
            volatile: HashMap::new(),
            removed: VecDeque::new(),
            numbers,
        }
    }

    /// The durable regions that are declared.
    pub(super) fn declared(&self) -> impl Iterator<Item = &Arc<RegionCore>> {
        self.durable.values()
    }

    /// Whether the removal of a region that is visible has an LSN.
    fn is_being_removed(&mut self, number: RegionNo, visible: &State) -> bool {
        self.forget_removed(visible.lsn);
        self.removed.iter().any(|(_, removed)| *removed == number)
    }

    /// Nobody finds a region whose removal is visible.
    fn forget_removed(&mut self, visible: Lsn) {
        while self.removed.front().is_some_and(|(lsn, _)| *lsn <= visible) {
            self.removed.pop_front();
        }
    }

    /// How a region that exists is declared.
    pub(super) fn declared_as(&self, region: &RegionMeta) -> Option<&Arc<RegionCore>> {
        let core = self.durable.get(&region.name)?;
        (core.is_created() && core.number() == region.number).then_some(core)
    }

    /// A read-only store has moved on, and these names were given or taken away, or any: a region that was declared
    /// before it existed may exist, and one that existed be gone.
    pub(super) fn follow(&mut self, names: Option<&[Arc<str>]>, state: &State) {
        let names = names.map_or_else(|| self.durable.keys().cloned().collect(), <[_]>::to_vec);
        for name in names {
            let Some(core) = self.durable.get(&name) else { continue };
            match state.number_of(&name).ok().flatten() {
                Some(number) if !core.is_created() => core.appears(number),
                Some(number) if number == core.number() => {}
                _ if core.is_created() => {
                    core.removed.store(true, Ordering::Release);
                    self.durable.remove(&name);
                }
                _ => {}
            }
        }
    }
}

fn check_name(name: &str) -> Result<()> {
    if (1..=REGION_NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    let what =
        format!("a region's name has 1 to {REGION_NAME_BYTES_MAX} bytes, not {}", name.len());
    Err(Error::new(ErrorKind::Invalid, what))
}

fn mismatch(name: &str, what: &str) -> Error {
    Error::new(ErrorKind::SchemaMismatch, what).in_region(name)
}

impl Engine {
    /// The durable region of this name; neither the writer lock nor, unless
    /// warming is eager, a file is touched.
    pub(crate) fn declare(
        self: &Arc<Engine>,
        name: &str,
        declared: &Arc<DeclaredSchema>,
    ) -> Result<Arc<RegionCore>> {
        check_name(name)?;
        let mut registry = self.registry.lock();
        if registry.volatile.contains_key(name) {
            return Err(mismatch(name, "it is in use as a volatile region; choose another name"));
        }
        if let Some(core) = registry.durable.get(name).filter(|core| !core.is_removed()) {
            check_schema(&core.declared.encoded, declared, name)?;
            if core.declared.types != declared.types {
                let what = "it is in use with another Rust type of the same shape";
                return Err(mismatch(name, what));
            }
            return Ok(Arc::clone(core));
        }
        let visible = self.visible();
        let existing =
            visible.number_of(name)?.filter(|number| !registry.is_being_removed(*number, &visible));
        if let Some(number) = existing
            && let Some(root) = visible.region(number)
        {
            check_schema(&root.meta().schema, declared, name)?;
        }
        let number = existing.unwrap_or_else(|| registry.numbers.take());
        let core = Arc::new(RegionCore::new(
            name.into(),
            number,
            self,
            self.births.next(),
            Arc::clone(declared),
            existing.is_some(),
        ));
        registry.durable.insert(Arc::clone(&core.name), Arc::clone(&core));
        drop(registry);
        self.warm_declared(&core);
        Ok(core)
    }

    /// The volatile region of this name.
    pub(crate) fn declare_volatile<K, V>(&self, name: &str) -> Result<Arc<VolatileCore<K, V>>>
    where
        K: Ord + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        check_name(name)?;
        if self.is_read_only() {
            return Err(Error::read_only());
        }
        let mut registry = self.registry.lock();
        if let Some(known) = registry.volatile.get(name) {
            return Arc::clone(known)
                .as_any()
                .downcast::<VolatileCore<K, V>>()
                .map_err(|_| mismatch(name, "it is in use as a volatile region of another type"));
        }
        let durable = registry.durable.get(name).is_some_and(|core| !core.is_removed());
        if durable || self.visible().number_of(name)?.is_some() {
            return Err(mismatch(name, "it is a durable region; choose another name"));
        }
        let core = Arc::new(VolatileCore::new(
            name.into(),
            Arc::clone(&self.births),
            self.graveyard.clone(),
        ));
        registry.volatile.insert(name.into(), Arc::clone(&core) as Arc<dyn AnyVolatile>);
        Ok(core)
    }

    pub(crate) fn is_volatile(&self, name: &str) -> bool {
        self.registry.lock().volatile.contains_key(name)
    }

    pub(crate) fn remove_volatile(&self, name: &str) -> bool {
        let removed = self.registry.lock().volatile.remove(name);
        removed.inspect(|region| region.remove()).is_some()
    }

    /// A commit that touches `cores` and removes `removed` has its LSN.
    pub(crate) fn note_committed<'a>(
        &self,
        lsn: Lsn,
        cores: impl Iterator<Item = &'a RegionCore>,
        removed: &[(RegionNo, Arc<str>)],
    ) {
        for core in cores {
            core.created.store(true, Ordering::Release);
        }
        if removed.is_empty() {
            return;
        }
        let mut registry = self.registry.lock();
        registry.forget_removed(self.visible().lsn);
        for (number, name) in removed {
            registry.removed.push_back((lsn, *number));
            if let Entry::Occupied(declared) = registry.durable.entry(Arc::clone(name))
                && declared.get().number() == *number
            {
                declared.remove().removed.store(true, Ordering::Release);
            }
        }
    }

    pub(crate) fn regions(&self) -> Vec<RegionInfo> {
        let registry = self.registry.lock();
        let visible = self.visible();
        let mut regions: Vec<RegionInfo> = Vec::new();
        for root in visible.regions.iter() {
            let name = root.meta().name.to_string();
            let shape = Schema::decode(&root.meta().schema);
            regions.push(RegionInfo {
                durable: true,
                declared: registry.durable.contains_key(name.as_str()),
                len: root.len(),
                cold: root.coldness(),
                shape: shape.map_or_else(|why| why.to_string(), |schema| schema.to_string()),
                name,
            });
        }
        let unborn = registry.durable.values().filter(|core| {
            !core.is_removed() && visible.number_of(&core.name).ok().flatten().is_none()
        });
        regions.extend(unborn.map(|core| RegionInfo {
            name: core.name.to_string(),
            durable: true,
            declared: true,
            len: 0,
            cold: 0,
            shape: core.declared.schema.to_string(),
        }));
        regions.extend(registry.volatile.iter().map(|(name, region)| RegionInfo {
            name: name.to_string(),
            durable: false,
            declared: true,
            len: region.len(),
            cold: 0,
            shape: String::new(),
        }));
        regions.sort_by(|a, b| a.name.cmp(&b.name));
        regions
    }
}
