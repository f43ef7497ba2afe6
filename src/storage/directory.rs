//! A store's directory: names relative to it, and errors that say which file it was.

use std::any::Any;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::{LockGuard, OpenMode, Storage, StorageFile};
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::memory_len;

/// The directory of one store.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    storage: Arc<dyn Storage>,
    path: PathBuf,
}

/// The steps of giving a file its name, as the tests know them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublishSteps {
    sync: Step,
    dir_sync: Step,
    name_after_sync: Step,
}

impl PublishSteps {
    pub(crate) const OF_SEGMENT: PublishSteps = PublishSteps {
        sync: Step::SegmentSync,
        dir_sync: Step::SegmentDirSync,
        name_after_sync: Step::SegmentNameAfterSync,
    };
    pub(crate) const OF_BOOT_SEGMENT: PublishSteps = PublishSteps {
        sync: Step::BootSegmentSync,
        dir_sync: Step::BootSegmentDirSync,
        name_after_sync: Step::BootSegmentNameAfterSync,
    };
    pub(crate) const OF_CHECKPOINT: PublishSteps = PublishSteps {
        sync: Step::CheckpointSync,
        dir_sync: Step::CheckpointDirSync,
        name_after_sync: Step::CheckpointNameAfterSync,
    };
}

/// An open file of the store, with the path that errors name.
#[derive(Clone, Debug)]
pub(crate) struct StoreFile {
    path: Arc<Path>,
    file: Arc<dyn StorageFile>,
}

impl Directory {
    pub(crate) fn new(storage: Arc<dyn Storage>, path: PathBuf) -> Directory {
        Directory { storage, path }
    }

    /// The same directory from here on, whatever its path comes to mean; it exists.
    pub(crate) fn opened(self) -> Result<Directory> {
        match self.storage.open_dir(&self.path) {
            Ok(Some(storage)) => Ok(Directory { storage, path: self.path }),
            Ok(None) => Ok(self),
            Err(cause) => Err(Error::io("open the directory", &self.path, cause)),
        }
    }

    /// What keeps its files.
    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.storage)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Random bits of the machine.
    pub(crate) fn random(&self) -> Result<u64> {
        self.storage.random().map_err(|cause| {
            Error::new(ErrorKind::Io, "the operating system gave no random bytes")
                .caused_by(Arc::new(cause))
        })
    }

    /// The time of day in microseconds since 1970.
    pub(crate) fn time_us(&self) -> u64 {
        let since = self.storage.time().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Time that never goes back.
    pub(crate) fn ticks(&self) -> Duration {
        self.storage.ticks()
    }

    /// Waits, for somebody else to get on.
    pub(crate) fn pause(&self, duration: Duration) {
        self.storage.pause(duration);
    }

    pub(crate) fn create(&self) -> Result<()> {
        self.storage
            .create_dir(&self.path)
            .map_err(|cause| Error::io("create the directory", &self.path, cause))
    }

    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        self.storage.list(&self.path)
    }

    pub(crate) fn open(&self, name: &str, mode: OpenMode) -> Result<StoreFile> {
        let path = self.path_of(name);
        match self.storage.open(&path, mode) {
            Ok(file) => Ok(StoreFile { path: path.into(), file }),
            Err(cause) => Err(Error::io("open the file", &path, cause)),
        }
    }

    /// A file that is opened each time that something is read of it.
    pub(crate) fn closed(&self, name: &str) -> StoreFile {
        let path: Arc<Path> = self.path_of(name).into();
        let file = ClosedFile { storage: Arc::clone(&self.storage), path: Arc::clone(&path) };
        StoreFile { path, file: Arc::new(file) }
    }

    /// Makes a new file under a temporary name, in place of what an earlier attempt left there: a
    /// file of its own, whoever still writes to the old one.
    pub(crate) fn create_temporary(&self, temporary: &str) -> Result<StoreFile> {
        self.remove(temporary)?;
        self.open(temporary, OpenMode::CreateNew)
    }

    /// Makes a whole temporary file stable, and gives it its name, for good.
    pub(crate) fn publish(
        &self,
        name: &str,
        file: StoreFile,
        steps: PublishSteps,
    ) -> Result<StoreFile> {
        let early = left_out(steps.name_after_sync);
        if !early && !left_out(steps.sync) {
            file.sync()?;
        }
        let file = self.rename(file, name)?;
        if early {
            file.sync()?;
        }
        if !left_out(steps.dir_sync) {
            self.sync()?;
        }
        Ok(file)
    }

    /// Gives a file another name, which is not stable yet.
    pub(crate) fn rename(&self, file: StoreFile, name: &str) -> Result<StoreFile> {
        let path = self.path_of(name);
        match self.storage.rename(&file.path, &path) {
            Ok(()) => Ok(StoreFile { path: path.into(), file: file.file }),
            Err(cause) => Err(Error::io("give the file its name", &path, cause)),
        }
    }

    /// Removes a file; one that is gone already is as good as removed.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        let path = self.path_of(name);
        match self.storage.remove(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove the file", &path, cause))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.storage
            .sync_dir(&self.path)
            .map_err(|cause| Error::io("sync the directory", &self.path, cause))
    }

    pub(crate) fn try_lock(&self, file: &StoreFile) -> Result<Option<LockGuard>> {
        self.storage
            .try_lock(&file.file)
            .map_err(|cause| Error::io("lock the file", &file.path, cause))
    }
}

/// See [`Directory::closed`].
#[derive(Debug)]
struct ClosedFile {
    storage: Arc<dyn Storage>,
    path: Arc<Path>,
}

impl ClosedFile {
    fn open(&self) -> io::Result<Arc<dyn StorageFile>> {
        self.storage.open(&self.path, OpenMode::Read)
    }
}

impl StorageFile for ClosedFile {
    fn len(&self) -> io::Result<u64> {
        self.open()?.len()
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.open()?.read_at(to, offset)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl StoreFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> Result<u64> {
        self.file.len().map_err(|cause| Error::io("read the length", &self.path, cause))
    }

    /// Reads `len` bytes at `offset`; fewer only where the file ends.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(&mut bytes, offset, len)?;
        Ok(bytes)
    }

    /// The same into a buffer that is used again.
    pub(crate) fn read_into(&self, to: &mut Vec<u8>, offset: u64, len: u64) -> Result<()> {
        let len = memory_len(len);
        if to.capacity() < len {
            // What is new comes as zeros without being written.
            *to = vec![0; len];
        }
        to.resize(len, 0);
        let count = self
            .file
            .read_at(to, offset)
            .map_err(|cause| Error::io("read the file", &self.path, cause).at_offset(offset))?;
        to.truncate(count);
        Ok(())
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file
            .write_at(bytes, offset)
            .map_err(|cause| Error::io("write the file", &self.path, cause).at_offset(offset))
    }

    pub(crate) fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|cause| Error::io("size the file", &self.path, cause))
    }

    /// See [`StorageFile::expect_reads`].
    pub(crate) fn expect_reads(&self, offset: u64, len: u64) {
        self.file.expect_reads(offset, len);
    }

    /// See [`StorageFile::expect_small_writes`].
    pub(crate) fn expect_small_writes(&self) {
        self.file.expect_small_writes();
    }

    /// See [`StorageFile::copies_small_writes`].
    pub(crate) fn copies_small_writes(&self) -> bool {
        self.file.copies_small_writes()
    }

    /// See [`StorageFile::maps_small_writes`].
    pub(crate) fn maps_small_writes(&self) -> bool {
        self.file.maps_small_writes()
    }

    /// See [`StorageFile::expect_syncs_beside`].
    pub(crate) fn expect_syncs_beside(&self) -> bool {
        self.file.expect_syncs_beside()
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(|cause| Error::io("sync the file", &self.path, cause))
    }
}
