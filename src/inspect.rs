//! What inspection tools read a store with, and make new ones with. Feature `inspect`.
//!
//! Nothing here writes into a store that exists or takes its lock; another process may be writing it.
//! What bytes mean is asked of [`format`](crate::format), what a boot would decide of the code that boots.
//! What is damaged is shown as far as it reads, and said to be damaged.
//!
//! **These names may change with any version**, as the feature's name says; the format is what lasts.
//!
//! ```
//! use rocstate::inspect::{Inspector, LogEvent};
//! # let dir = tempfile::tempdir().unwrap();
//! let store = rocstate::Store::open(dir.path())?;
//! let map: rocstate::DurableMap<u8, u8> = store.durable_map("map")?;
//! store.transact(|tx| map.insert(tx, 1, 2))?;
//! let mut commits = 0;
//! Inspector::open(dir.path())?.walk_log(rocstate::Lsn::ZERO, |event| {
//!     if let LogEvent::Frame(frame) = event {
//!         commits += frame.commits().count();
//!     }
//!     Ok(std::ops::ControlFlow::Continue(()))
//! })?;
//! assert_eq!(commits, 1);
//! # Ok::<(), rocstate::Error>(())
//! ```

mod blocks;
mod build;
mod checkpoint;
mod log;
mod outlook;
mod snapshot;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::boot::Listing;
use crate::checkpoint::layers::Files;
use crate::checkpoint::reader::malformed;
use crate::error::{Error, ErrorKind, Result};
use crate::format::lock::LockSector;
use crate::format::name::{self, Name};
use crate::format::segment::SegmentHeader;
use crate::format::{CheckpointNo, Lineage, SECTOR_BYTES, SegmentNo, disk_len};
use crate::log::cut::unreadable;
use crate::log::scan::SegmentReader;
use crate::storage::directory::Directory;
use crate::storage::{Disk, OpenMode, Storage};

pub use build::{Builder, Made, write_lock};
pub use checkpoint::{BlockFinding, Checkpoint};
pub use log::{Commit, Commits, LogEnd, LogEvent, LogFrame, LogGap, Operations};
pub use outlook::Outlook;
pub use snapshot::{Snapshot, SnapshotRegion};
pub use walk::{Lost, Walked};

/// A store, or one file out of a store, as it lies on disk.
#[derive(Clone, Debug)]
pub struct Inspector {
    dir: Directory,
    only: Option<Name>,
    segments: Vec<SegmentNo>,
    checkpoints: Vec<CheckpointNo>,
    temporary: Vec<String>,
    lineage: Lineage,
}

impl Inspector {
    /// Looks at the store in a directory, or at one of its files.
    ///
    /// # Errors
    /// `NotFound`: there is nothing at this path. `NotAStore`: it holds something else. `Io`.
    pub fn open(path: impl AsRef<Path>) -> Result<Inspector> {
        Inspector::over(Arc::new(Disk), path.as_ref())
    }

    /// The same over another storage.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn over(storage: Arc<dyn Storage>, path: &Path) -> Result<Inspector> {
        let dir = Directory::new(Arc::clone(&storage), path.to_owned());
        let (dir, only) = match dir.list() {
            Ok(_) => (dir, None),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotADirectory => {
                let name = path.file_name().and_then(|name| name.to_str()).and_then(name::parse);
                let Some(name) = name.filter(|name| *name != Name::Temporary) else {
                    let what = "the path is neither a directory nor a file that is named as those of \
                                a store are";
                    return Err(Error::new(ErrorKind::NotAStore, what).at_path(path));
                };
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let parent = parent.unwrap_or(Path::new("."));
                (Directory::new(storage, parent.to_owned()), Some(name))
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                let what = "there is nothing at this path";
                return Err(Error::new(ErrorKind::NotFound, what).at_path(path));
            }
            Err(cause) => return Err(Error::io("list the directory", path, cause)),
        };
        let mut inspector = Inspector {
            dir: dir.opened()?,
            only,
            segments: Vec::new(),
            checkpoints: Vec::new(),
            temporary: Vec::new(),
            lineage: Lineage(0),
        };
        inspector.look_again()?;
        Ok(inspector)
    }

    /// Lists the files anew; another process may have made or removed some.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn look_again(&mut self) -> Result<()> {
        let path = self.dir.path();
        let listing = Listing::read(&self.dir)
            .map_err(|cause| Error::io("list the directory", path, cause))?;
        if !listing.lock && listing.segments.is_empty() && listing.checkpoints.is_empty() {
            let what = "the directory holds no store";
            return Err(Error::new(ErrorKind::NotAStore, what).at_path(path));
        }
        let wanted = |name: Name| self.only.is_none_or(|only| only == name);
        self.segments =
            listing.segments.into_iter().filter(|n| wanted(Name::Segment(*n))).collect();
        let checkpoints = listing.checkpoints.into_iter();
        self.checkpoints = checkpoints.filter(|n| wanted(Name::Checkpoint(*n))).collect();
        self.temporary = listing.temporary;
        self.lineage = self.find_lineage().unwrap_or(Lineage(0));
        Ok(())
    }

    /// Which store this is: as LOCK, the newest segment or the newest checkpoint says.
    fn find_lineage(&self) -> Option<Lineage> {
        let lock = self.lock().ok().flatten().filter(|_| self.only.is_none());
        let segments = || {
            let headers = self.segments.iter().rev().map(|number| self.segment(*number));
            headers.flatten().map(|header| header.lineage).next()
        };
        let checkpoints = || {
            let mut files = self.checkpoints.iter().rev();
            files.find_map(|number| checkpoint::lineage_of(&self.dir, *number))
        };
        lock.map(|sector| sector.lineage).or_else(segments).or_else(checkpoints)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of one of its files.
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.dir.path_of(name)
    }

    /// The file that is looked at alone, if it is one.
    pub fn only(&self) -> Option<Name> {
        self.only
    }

    /// Which store this is; `None` where no file tells.
    pub fn lineage(&self) -> Option<Lineage> {
        Some(self.lineage).filter(|lineage| lineage.0 != 0)
    }

    /// The segments of the log, oldest first.
    pub fn segments(&self) -> &[SegmentNo] {
        &self.segments
    }

    /// The checkpoint files, oldest first.
    pub fn checkpoints(&self) -> &[CheckpointNo] {
        &self.checkpoints
    }

    /// The names of files that are being made, or that the next boot removes.
    pub fn temporary(&self) -> &[String] {
        &self.temporary
    }

    /// LOCK's sector; `None` in a store that was never begun.
    ///
    /// # Errors
    /// `Damaged`: it is absent or invalid, and the next boot writes it again. `NewerFormat`. `Io`.
    pub fn lock(&self) -> Result<Option<LockSector>> {
        let path = self.dir.path_of(name::LOCK);
        let file = match self.dir.open(name::LOCK, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.is_absent() => {
                return Err(Error::damaged(&path, 0, "LOCK is absent"));
            }
            Err(error) => return Err(error),
        };
        let bytes = file.read(0, disk_len(SECTOR_BYTES))?;
        if bytes.is_empty() && self.segments.is_empty() && self.checkpoints.is_empty() {
            return Ok(None);
        }
        let whole = file.len()? == disk_len(SECTOR_BYTES);
        match LockSector::decode(&bytes) {
            Ok(sector) if whole => Ok(Some(sector)),
            Ok(_) => Err(Error::damaged(&path, disk_len(SECTOR_BYTES), "LOCK is too long")),
            Err(why) => Err(malformed(&path, 0, why)),
        }
    }

    /// The header of a segment.
    ///
    /// # Errors
    /// `Damaged`: it is invalid, the file is shorter than it says, or absent. `NewerFormat`. `Io`.
    pub fn segment(&self, number: SegmentNo) -> Result<SegmentHeader> {
        self.segment_reader(number).map(|reader| reader.header)
    }

    fn segment_reader(&self, number: SegmentNo) -> Result<SegmentReader> {
        SegmentReader::open(&self.dir, number).map_err(|why| unreadable(&self.dir, number, why))
    }

    /// Whether a file that was listed is no longer there.
    fn is_gone(&self, name: &str) -> bool {
        self.dir.open(name, OpenMode::Read).is_err_and(|error| error.is_absent())
    }

    /// The bytes of a file from `offset` on; fewer where it ends.
    ///
    /// # Errors
    /// `Io`.
    pub fn read(&self, name: &str, offset: u64, len: u64) -> Result<Vec<u8>> {
        self.dir.open(name, OpenMode::Read)?.read(offset, len)
    }

    /// How long a file is.
    ///
    /// # Errors
    /// `Io`.
    pub fn len_of(&self, name: &str) -> Result<u64> {
        self.dir.open(name, OpenMode::Read)?.len()
    }

    fn files(&self) -> Arc<Files> {
        Arc::new(Files::new(self.dir.clone(), self.lineage))
    }
}
