//! The operating system's file systems.

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{LockGuard, OpenMode, Storage, StorageFile};

/// Files of the operating system: `pread`, `pwrite`, `fdatasync`, `flock`.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::options().storage(rocstate::Disk).open(dir.path())?;
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.create_dir(parent)?;
        match fs::create_dir(path) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            done => done?,
        }
        self.sync_dir(parent)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = File::options()
            .read(true)
            .write(mode != OpenMode::Read)
            .create(mode == OpenMode::CreateOrWrite)
            .create_new(mode == OpenMode::CreateNew)
            .truncate(false)
            .open(path)?;
        Ok(Arc::new(DiskFile(Arc::new(file))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        File::open(dir)?.sync_all()
    }

    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        let file = file.as_any().downcast_ref::<DiskFile>().ok_or(io::ErrorKind::InvalidInput)?;
        match fs2::FileExt::try_lock_exclusive(&*file.0) {
            Ok(()) => Ok(Some(Box::new(Flock(Arc::clone(&file.0))))),
            Err(cause) if cause.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
                Ok(None)
            }
            Err(cause) => Err(cause),
        }
    }
}

/// Unlocks when dropped, also while the file stays open elsewhere.
struct Flock(Arc<File>);

impl Drop for Flock {
    fn drop(&mut self) {
        // A failed unlock leaves the lock to the closing of the file, which ends it as well.
        fs2::FileExt::unlock(&*self.0).ok();
    }
}

#[derive(Debug)]
struct DiskFile(Arc<File>);

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.0.metadata().map(|data| data.len())
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = to.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
