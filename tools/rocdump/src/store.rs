//! A store that is looked at, with the names and shapes of its regions.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::rc::Rc;

use rocstate::format::operation::Operation;
use rocstate::format::{CheckpointNo, RegionNo};
use rocstate::inspect::{Inspector, LogEvent, Snapshot, SnapshotRegion};
use rocstate::{ErrorKind, Lsn};

use crate::exit::{Done, Failure};
use crate::region::{Decoders, Region};

/// A store, and what is known of its regions.
#[derive(Debug)]
pub(crate) struct Opened<'a> {
    pub(crate) files: Inspector,
    pub(crate) decoders: Decoders<'a>,
}

/// Regions by number: those that exist, and those that the log tells of.
#[derive(Debug)]
pub(crate) struct Regions<'a> {
    known: HashMap<RegionNo, Rc<Region>>,
    decoders: Decoders<'a>,
}

impl<'a> Opened<'a> {
    pub(crate) fn open(path: &Path, decoders: &Decoders<'a>) -> Done<Opened<'a>> {
        Ok(Opened { files: Inspector::open(path)?, decoders: decoders.clone() })
    }

    /// Every region that a catalog or the log names. Numbers are never used again.
    pub(crate) fn regions(&self) -> Done<Regions<'a>> {
        let (mut regions, newest) = self.regions_of_catalogs()?;
        self.files.walk_log(newest.next(), |event| {
            if let LogEvent::Frame(frame) = event {
                for commit in frame.commits().flatten() {
                    regions.learn(commit.operations().flatten());
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(regions)
    }

    /// Those that a catalog names, and the last commit in any: for a walk that learns of the others.
    pub(crate) fn regions_of_catalogs(&self) -> Done<(Regions<'a>, Lsn)> {
        let mut regions = Regions { known: HashMap::new(), decoders: self.decoders.clone() };
        let mut newest = Lsn::ZERO;
        for number in self.files.checkpoints() {
            if let Some(catalog) = self.catalog(*number)? {
                newest = newest.max(catalog.lsn());
                for (number, region) in &catalog.regions {
                    regions.add(*number, &region.name, &region.schema);
                }
            }
        }
        Ok((regions, newest))
    }

    /// A catalog that can be read.
    pub(crate) fn catalog(
        &self,
        number: CheckpointNo,
    ) -> Done<Option<rocstate::format::catalog::Catalog>> {
        match self.files.checkpoint(number).and_then(|file| file.catalog()) {
            Ok(catalog) => Ok(Some(catalog)),
            Err(error) if error.kind() == ErrorKind::Damaged || error.kind() == ErrorKind::Io => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn region_of(&self, of: &SnapshotRegion) -> Region {
        Region::new(of.number, &of.name, &of.schema, &self.decoders)
    }

    /// A region of a state, by its name.
    pub(crate) fn find<'s>(
        &self,
        at: &'s Snapshot,
        name: &str,
    ) -> Done<(&'s SnapshotRegion, Region)> {
        let found = at.regions.iter().find(|region| region.name == name);
        let region = found.ok_or_else(|| {
            let names: Vec<&str> = at.regions.iter().map(|region| region.name.as_str()).collect();
            let others = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Failure::no(format!(
                "there is no region {name:?} at commit {}; there are: {others}",
                at.lsn
            ))
        })?;
        Ok((region, self.region_of(region)))
    }
}

impl Regions<'_> {
    fn add(&mut self, number: RegionNo, name: &str, schema: &[u8]) {
        let decoders = &self.decoders;
        self.known
            .entry(number)
            .or_insert_with(|| Rc::new(Region::new(number, name, schema, decoders)));
    }

    /// Takes note of regions that are created.
    pub(crate) fn learn<'o>(&mut self, operations: impl Iterator<Item = Operation<'o>>) {
        for operation in operations {
            if let Operation::Create { region, name, schema } = operation {
                self.add(region, name, schema);
            }
        }
    }

    pub(crate) fn get(&mut self, number: RegionNo) -> Rc<Region> {
        let known = self.known.entry(number);
        Rc::clone(known.or_insert_with(|| Rc::new(Region::unknown(number))))
    }

    pub(crate) fn by_name(&self) -> BTreeMap<&str, &Rc<Region>> {
        self.known.values().map(|region| (region.name.as_str(), region)).collect()
    }
}
