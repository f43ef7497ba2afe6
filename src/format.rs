//! Bytes to values and back: pure, no I/O, one file per section of FORMAT.md.
//!
//! # Invariants
//! - A layout is written down once, here; everything else calls these functions.
//! - Decoders take hostile bytes: no panic, no allocation beyond a multiple of the input.
//! - Integers are little endian; the exceptions (keys) sort by their bytes.

pub(crate) mod block;
pub(crate) mod bytes;
pub mod catalog;
pub mod checkpoint;
pub mod frame;
pub mod index;
pub mod lock;
pub mod name;
pub mod operation;
pub mod segment;
pub mod shape;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the format that this crate writes; see the history in FORMAT.md.
pub const FORMAT_VERSION: u32 = 1;

/// The unit of the log: a sync closes a block, and a closed block is never written again.
pub const BLOCK_BYTES: u64 = 4096;

/// The unit that a disk writes whole.
pub const SECTOR_BYTES: usize = 512;

/// The longest encoded key.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// The longest encoded value.
pub const VALUE_BYTES_MAX: usize = 64 << 20;

/// The most that one transaction may write to the log.
pub const TRANSACTION_BYTES_MAX: usize = 256 << 20;

/// The longest region name, in bytes of UTF-8.
pub const REGION_NAME_BYTES_MAX: usize = 255;

/// The place of a commit in the order of commits: dense, from 1; 0 is "before the first".
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// assert_eq!(store.visible_lsn().get(), 0);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first commit.
    pub const ZERO: Lsn = Lsn(0);

    /// Makes an LSN out of its number.
    pub const fn new(number: u64) -> Lsn {
        Lsn(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The commit after this one.
    pub const fn next(self) -> Lsn {
        Lsn(self.0.saturating_add(1))
    }

    pub(crate) const fn plus(self, commits: u64) -> Lsn {
        Lsn(self.0.saturating_add(commits))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells the store apart from every other store and from its own branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub u64);

/// Boots of this store, counted durably, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// The number of a segment of the log, from 1; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNo(pub u64);

/// The number of a checkpoint, from 1; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointNo(pub u64);

/// The number of a region, from 1; never used again, also after a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionNo(pub u64);

/// A place between two frames of the log: where one ends and the next continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The segment, or 0 before the first one.
    pub segment: SegmentNo,
    /// The byte after the last frame.
    pub offset: u64,
    /// The last commit before this place.
    pub lsn: Lsn,
    /// The checksum of the last frame: what the next one must name.
    pub chain: u32,
}

impl Place {
    /// Before the first segment of a store.
    pub const START: Place = Place { segment: SegmentNo(0), offset: 0, lsn: Lsn::ZERO, chain: 0 };
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The bytes end before the value does.
    #[error("it is cut short")]
    Short,
    /// The checksum does not fit the bytes.
    #[error("its checksum does not match")]
    Checksum,
    /// The magic bytes are those of something else.
    #[error("it does not begin with the magic of its kind")]
    Magic,
    /// A version this crate does not know.
    #[error("it has format version {0}, and this version reads up to {FORMAT_VERSION}")]
    Newer(u32),
    /// A field has a value that is never written.
    #[error("its {0} is out of range")]
    Field(&'static str),
}

/// A block that holds nothing.
pub(crate) static ZERO_BLOCK: [u8; 4096] = [0; 4096];
const _: () = assert!(disk_len(ZERO_BLOCK.len()) == BLOCK_BYTES);

/// Whether a block, or a part of one, holds nothing; comparing with zeros is the fastest way to see it.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    ZERO_BLOCK.get(..bytes.len()) == Some(bytes)
}

/// The first multiple of [`BLOCK_BYTES`] at or after `offset`.
pub(crate) const fn block_after(offset: u64) -> u64 {
    offset.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// A length in memory, out of a length on disk that the caller has bounded.
pub(crate) fn memory_len(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A length on disk, out of a length in memory.
pub(crate) const fn disk_len(bytes: usize) -> u64 {
    bytes as u64
}

/// A sum of lengths that were read from a file, which may say anything.
pub fn total(lengths: impl Iterator<Item = u64>) -> u64 {
    lengths.fold(0, u64::saturating_add)
}

/// A length that the format keeps in four bytes; the limits above keep every such length below.
pub(crate) fn short_len(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
