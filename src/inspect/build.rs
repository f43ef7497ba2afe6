//! Making a new store out of entries: LOCK, a checkpoint, an empty log behind it, in this order.
//!
//! # Invariants
//! - Nothing that exists is touched: the directory is made, or is empty.
//! - LOCK gets its name when it names a segment that comes last: until that is there, the directory is
//!   refused as damaged, so that half a store is never opened, nor taken for a new one.

use std::path::Path;
use std::sync::Arc;

use crate::checkpoint::plan::piece_bytes;
use crate::checkpoint::writer::{CheckpointWriter, SectionWriter};
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{Compression, Entry};
use crate::format::catalog::{Catalog, CatalogRegion, Piece};
use crate::format::segment::{FRAMES_BEGIN, SegmentHeader};
use crate::format::shape::Schema;
use crate::format::{CheckpointNo, Epoch, Lineage, Lsn, Place, RegionNo, SegmentNo, name};
use crate::log::newest::name_in_lock;
use crate::log::segment::{FIRST_SEGMENT_BYTES, Spare};
use crate::storage::directory::{Directory, PublishSteps};
use crate::storage::{Disk, LockGuard, Storage};
use crate::{KEY_BYTES_MAX, REGION_NAME_BYTES_MAX, VALUE_BYTES_MAX};

/// LOCK has this name until it is whole: an empty one would be that of a store to be begun.
const LOCK_STEM: &str = "log-lock";

/// A store that is being made.
#[derive(Debug)]
pub struct Builder {
    dir: Directory,
    guard: LockGuard,
    header: SegmentHeader,
    writer: CheckpointWriter,
    catalog: Catalog,
    region: Option<Region>,
    entries: u64,
}

/// What became of a [`Builder`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Made {
    /// The new store's own.
    pub lineage: Lineage,
    /// Its entries.
    pub entries: u64,
    /// Its regions.
    pub regions: u64,
    /// The bytes of its files.
    pub bytes: u64,
}

/// The region that entries go to.
#[derive(Debug)]
struct Region {
    number: RegionNo,
    made: CatalogRegion,
    section: SectionWriter,
    lower: Vec<u8>,
    last: Option<Vec<u8>>,
    bytes: u64,
}

impl Builder {
    /// Begins a store in a directory that is empty or absent; it gets a lineage of its own, and its next
    /// commit will be the one after `lsn`.
    ///
    /// # Errors
    /// `Invalid`: the directory holds something. `Io`.
    pub fn create(path: impl AsRef<Path>, lsn: Lsn, compression: Compression) -> Result<Builder> {
        Builder::over(Arc::new(Disk), path.as_ref(), lsn, compression)
    }

    /// The same over another storage.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn over(
        storage: Arc<dyn Storage>,
        path: &Path,
        lsn: Lsn,
        compression: Compression,
    ) -> Result<Builder> {
        let dir = Directory::new(storage, path.to_owned());
        refuse_unless_empty(&dir)?;
        dir.create()?;
        let dir = dir.opened()?;
        let file = dir.create_temporary(&name::temporary(LOCK_STEM))?;
        let guard = dir.try_lock(&file)?.ok_or_else(|| {
            let what = "another process makes a store here";
            Error::new(ErrorKind::Locked, what).at_path(dir.path())
        })?;
        let lineage = Lineage(dir.random()?);
        let header = SegmentHeader {
            lineage,
            number: SegmentNo(1),
            len: FIRST_SEGMENT_BYTES,
            epoch: Epoch(0),
            nonce: dir.random()?,
            salt: dir.random()?,
            claim: FRAMES_BEGIN,
            before: Place { lsn, ..Place::START },
        };
        name_in_lock(&file, &header)?;
        dir.publish(name::LOCK, file, PublishSteps::OF_SEGMENT)?;
        let number = CheckpointNo(1);
        let writer = CheckpointWriter::create(
            &dir,
            lineage,
            number,
            compression,
            &Arc::default(),
            &Arc::default(),
        )?;
        let catalog = Catalog { number, place: header.begin(), ..Catalog::empty() };
        Ok(Builder { dir, guard, header, writer, catalog, region: None, entries: 0 })
    }

    /// Begins a region; entries go to it until the next one begins.
    ///
    /// # Errors
    /// `Invalid`: the number or name was used before, or the name or schema is none. `Io`.
    pub fn region(&mut self, number: RegionNo, name: &str, schema: &[u8]) -> Result<()> {
        self.end_region()?;
        let refuse = |what: &str| Err(Error::new(ErrorKind::Invalid, what).in_region(name));
        let mut made = self.catalog.regions.iter();
        // The next number must be one as well.
        let numbers = 1..u64::MAX;
        let known = made.any(|(other, made)| *other == number || made.name == name);
        if known || !numbers.contains(&number.0) {
            return refuse("two regions have this number or name, or the number is out of range");
        }
        if name.is_empty() || name.len() > REGION_NAME_BYTES_MAX {
            return refuse("a region's name has 1 to 255 bytes");
        }
        if Schema::decode(schema).is_err() {
            return refuse("these bytes are no schema");
        }
        let made = CatalogRegion {
            name: name.to_owned(),
            schema: schema.to_vec(),
            entries: 0,
            deltas: Vec::new(),
            pieces: Vec::new(),
        };
        let section = SectionWriter::default();
        self.region =
            Some(Region { number, made, section, lower: Vec::new(), last: None, bytes: 0 });
        Ok(())
    }

    /// Adds an entry to the region; keys ascend.
    ///
    /// # Errors
    /// `Invalid`: there is no region, or the key is not above the one before. `TooLarge`. `Io`.
    pub fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        let Some(region) = &mut self.region else {
            return Err(Error::new(ErrorKind::Invalid, "an entry comes before its region"));
        };
        let name = region.made.name.as_str();
        if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            let what = "a key has at most 64 KiB, a value 64 MiB";
            return Err(Error::new(ErrorKind::TooLarge, what).in_region(name));
        }
        if region.last.as_deref().is_some_and(|last| last >= key) {
            let what = "the keys of a region must ascend, each once, as an export writes them";
            return Err(Error::new(ErrorKind::Invalid, what).in_region(name).with_keys(key, None));
        }
        if region.section.bytes() >= piece_bytes(region.bytes) {
            region.end_piece(&mut self.writer)?;
            region.lower = key.to_vec();
        }
        region.section.push(Entry { key, value: Some(value) }, &mut self.writer)?;
        region.made.entries += 1;
        let last = region.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        Ok(())
    }

    /// Keeps region numbers below `next` from ever being used again.
    pub fn keep_region_numbers(&mut self, next: RegionNo) {
        self.catalog.next_region = self.catalog.next_region.max(next);
    }

    fn end_region(&mut self) -> Result<()> {
        let Some(mut region) = self.region.take() else { return Ok(()) };
        region.end_piece(&mut self.writer)?;
        self.keep_region_numbers(RegionNo(region.number.0.saturating_add(1)));
        self.entries += region.made.entries;
        self.catalog.regions.insert(region.number, region.made);
        Ok(())
    }

    /// Makes it a store: stable when this returns.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(mut self) -> Result<Made> {
        self.end_region()?;
        let checkpoint = self.writer.publish(&self.catalog)?;
        let spare = Spare::prewritten(&self.dir, self.header.len)?;
        spare.publish(&self.dir, &self.header, PublishSteps::OF_SEGMENT)?;
        drop(self.guard);
        Ok(Made {
            lineage: self.header.lineage,
            entries: self.entries,
            regions: crate::format::disk_len(self.catalog.regions.len()),
            bytes: checkpoint.len()
                + self.header.len
                + crate::format::disk_len(crate::format::SECTOR_BYTES),
        })
    }
}

/// Writes the LOCK of a copy of a store whose newest segment has this header, and makes it stable: before
/// anything else, so that the copy is refused until that segment is there.
///
/// # Errors
/// `Io`.
pub fn write_lock(path: impl AsRef<Path>, newest: &SegmentHeader) -> Result<()> {
    let dir = Directory::new(Arc::new(Disk), path.as_ref().to_owned());
    let file = dir.create_temporary(&name::temporary(LOCK_STEM))?;
    name_in_lock(&file, newest)?;
    dir.publish(name::LOCK, file, PublishSteps::OF_SEGMENT).map(drop)
}

impl Region {
    fn end_piece(&mut self, writer: &mut CheckpointWriter) -> Result<()> {
        let section = std::mem::take(&mut self.section).finish(writer)?;
        self.bytes += section.as_ref().map_or(0, |section| section.bytes);
        let lower = std::mem::take(&mut self.lower);
        self.made.pieces.push(Piece { lower, merged: CheckpointNo(1), section });
        Ok(())
    }
}

/// Refuses a directory that holds anything.
fn refuse_unless_empty(dir: &Directory) -> Result<()> {
    match dir.list() {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(Error::io("list the directory", dir.path(), cause)),
        Ok(names) if names.is_empty() => Ok(()),
        Ok(_) => {
            let what = "the directory holds something; choose one that is empty or does not exist";
            Err(Error::new(ErrorKind::Invalid, what).at_path(dir.path()))
        }
    }
}
