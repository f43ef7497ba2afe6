//! A directory that is open: its files are found by their names in it, whatever its path has come to mean.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, renameat, statat, unlinkat};
use rustix::io::retry_on_intr;

use super::{Disk, DiskFile, flock};
use crate::storage::{LockGuard, OpenMode, Storage, StorageFile};

/// For whoever the process's mask lets.
const NEW_FILE: Mode = Mode::from_raw_mode(0o666);

#[derive(Debug)]
pub(super) struct OpenedDir(Arc<File>);

impl OpenedDir {
    pub(super) fn new(dir: File) -> OpenedDir {
        OpenedDir(Arc::new(dir))
    }
}

/// The name of a file in its directory.
fn name_of(path: &Path) -> io::Result<&Path> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "the path names no file");
    path.file_name().map(Path::new).ok_or_else(refused)
}

/// Opens a file of which the path begins at `dir`.
pub(super) fn open_file(
    dir: impl AsFd,
    path: &Path,
    mode: OpenMode,
) -> io::Result<Arc<dyn StorageFile>> {
    let flags = match mode {
        OpenMode::Read => OFlags::RDONLY,
        OpenMode::Write => OFlags::RDWR,
        OpenMode::CreateOrWrite => OFlags::RDWR | OFlags::CREATE,
        OpenMode::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
    };
    // Whoever opens a pipe waits for its other end.
    if mode != OpenMode::CreateNew
        && let Ok(there) = statat(&dir, path, AtFlags::empty())
        && !FileType::from_raw_mode(there.st_mode).is_file()
    {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let file = retry_on_intr(|| openat(&dir, path, flags | OFlags::CLOEXEC, NEW_FILE))?;
    Ok(DiskFile::shared(file.into()))
}

impl Storage for OpenedDir {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name != "." && name != ".." {
                names.push(name.into_owned());
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        open_file(&self.0, name_of(path)?, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(renameat(&self.0, name_of(from)?, &self.0, name_of(to)?)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(unlinkat(&self.0, name_of(path)?, AtFlags::empty())?)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Takes the lock of the directory as well, so that nobody else gets one who finds no file, since somebody
    /// took it for left over, and makes another.
    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        let Some(of_file) = Disk.try_lock(file)? else { return Ok(None) };
        match flock(&self.0) {
            Ok(None) => Ok(None),
            // The directory's ends first: whoever gets the other one then gets this one as well.
            Ok(Some(of_directory)) => Ok(Some(Box::new((of_directory, of_file)))),
            // Not every file system has locks for directories.
            Err(_) => Ok(Some(of_file)),
        }
    }
}
