//! The operating system's file systems.
//!
//! # Invariants
//! - A file is mapped only where the engine has written every block of it and synced it, and keeps its
//!   length, on a file system that writes in place: a store to the map then needs no room on the disk.
#![allow(unsafe_code, reason = "small writes go through a memory map")]

mod opened;

use std::any::Any;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use memmap2::{MmapRaw, UncheckedAdvice};
use parking_lot::Mutex;

use super::{LockGuard, OpenMode, SMALL_WRITE_BYTES, Storage, StorageFile};
use crate::prefetch::prefetch;
use opened::OpenedDir;

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
        let Some(parent) = path.parent() else { return Ok(()) };
        if path.is_dir() {
            // One that may not be looked at, or has nothing to sync, was made by somebody else, long ago.
            let Ok(above) = File::open(here_if_empty(parent)) else { return Ok(()) };
            return match above.sync_all() {
                Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Ok(()),
                synced => synced,
            };
        }
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
        opened::open_file(rustix::fs::CWD, path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(here_if_empty(dir))?.sync_all()
    }

    fn open_dir(&self, path: &Path) -> io::Result<Option<Arc<dyn Storage>>> {
        Ok(Some(Arc::new(OpenedDir::new(File::open(here_if_empty(path))?))))
    }

    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        let file = file.as_any().downcast_ref::<DiskFile>().ok_or(io::ErrorKind::InvalidInput)?;
        flock(&file.file)
    }
}

/// Whether what is written over something is known to need no other room on the disk: where it does and there is
/// none, a system call fails, and a store to a map ends the process. Some file systems write nothing in place
/// (btrfs, ZFS), and those that lie over another one do not say what is below them (overlayfs, FUSE).
fn is_written_in_place(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        // Of statfs(2): ext2 to ext4, XFS, tmpfs.
        const IN_PLACE: [u32; 3] = [0xef53, 0x5846_5342, 0x0102_1994];
        rustix::fs::fstatfs(file).is_ok_and(|system| {
            u32::try_from(system.f_type).is_ok_and(|kind| IN_PLACE.contains(&kind))
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// What is above a name alone is the working directory.
fn here_if_empty(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

/// Takes the exclusive lock of something open, unless somebody else has it.
fn flock(file: &Arc<File>) -> io::Result<Option<LockGuard>> {
    match fs2::FileExt::try_lock_exclusive(&**file) {
        Ok(()) => {
            let file = Arc::clone(file);
            Ok(Some(Box::new(Flock { file, of_process: std::process::id() })))
        }
        Err(cause) if cause.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
            Ok(None)
        }
        Err(cause) => Err(cause),
    }
}

/// Unlocks when dropped, also while the file stays open elsewhere; but not in a process that was forked from the
/// one that took the lock, with which it shares it.
struct Flock {
    file: Arc<File>,
    of_process: u32,
}

impl Drop for Flock {
    fn drop(&mut self) {
        if self.of_process == std::process::id() {
            // A failed unlock leaves the lock to the closing of the file, which ends it as well.
            fs2::FileExt::unlock(&*self.file).ok();
        }
    }
}

#[derive(Debug)]
struct DiskFile {
    file: Arc<File>,
    /// All of the file, for small writes.
    window: OnceLock<Window>,
    /// For syncs at the same time.
    syncs: OnceLock<Syncs>,
}

/// Two syncs of a file at a time. To each open file the system tells once of a write that failed, so that each of
/// them has its own.
#[derive(Debug)]
struct Syncs {
    /// The same file, opened again.
    beside: File,
    /// Whose turn it is with the first one, and with the other.
    turns: [Mutex<()>; 2],
}

impl Syncs {
    fn sync(&self, first: &File) -> io::Result<()> {
        let [of_first, of_other] = &self.turns;
        if let Some(_turn) = of_first.try_lock() {
            return first.sync_data();
        }
        let _turn = of_other.lock();
        self.beside.sync_data()
    }
}

/// Opens a file again, if the system tells that one as well of a write that failed.
fn opened_again(file: &File) -> Option<File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // As the first one: of layered file systems, whoever only reads may have another file.
        File::options().read(true).write(true).open(path).ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        None
    }
}

#[derive(Debug)]
struct Window {
    map: MmapRaw,
    /// Where the last write ended.
    end: AtomicUsize,
    /// The pages before this are not mapped any more.
    begin: AtomicUsize,
}

/// A commit of a small value.
const PREFETCHED_BYTES: usize = 256;

/// Of one call Linux cuts off what is more than a device takes at once, or than its read-ahead, of which this is
/// the least that is usual (`force_page_cache_ra` in mm/readahead.c).
#[cfg(target_os = "linux")]
const EXPECTED_AT_ONCE: u64 = 128 << 10;

/// Of most processors. Where pages are larger, some are let go of too early, and found again.
const PAGE_BYTES: usize = 4096;

impl Window {
    /// Whether it could.
    fn write(&self, bytes: &[u8], offset: u64) -> bool {
        let end = offset.checked_add(bytes.len() as u64).and_then(|end| usize::try_from(end).ok());
        let Some(end) = end.filter(|end| *end <= self.map.len()) else { return false };
        // SAFETY: the place lies in the map, which lives as long as this file, and no reference to
        // what is mapped exists anywhere: files are read by `pread`. The engine appends under a lock;
        // two writes at the same place would leave either's bytes, as two system calls would.
        unsafe {
            let place = self.map.as_mut_ptr().add(end - bytes.len());
            ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
        // Another processor wrote the zeros that the next write goes over.
        let next = self.map.as_ptr().wrapping_add(end);
        prefetch(next, PREFETCHED_BYTES);
        self.end.store(end, Ordering::Relaxed);
        true
    }

    /// Lets go of the pages that are full, before they are synced.
    ///
    /// A page that is mapped is protected against writes while it is synced, which interrupts every
    /// processor that this process runs on: once for each page, but once for all that are let go of here.
    fn let_go_of_full_pages(&self) {
        let end = self.end.load(Ordering::Relaxed) / PAGE_BYTES * PAGE_BYTES;
        let begin = self.begin.fetch_max(end, Ordering::Relaxed);
        if begin < end {
            // SAFETY: the map is shared and no reference to it exists: what was written stays in the
            // file's pages, and whoever writes there again finds them.
            let advised = unsafe {
                self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, begin, end - begin)
            };
            // Without it a sync takes longer, and nothing else.
            advised.ok();
        }
    }
}

impl DiskFile {
    fn shared(file: File) -> Arc<dyn StorageFile> {
        Arc::new(DiskFile { file: Arc::new(file), window: OnceLock::new(), syncs: OnceLock::new() })
    }
}

impl StorageFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.file.metadata().map(|data| data.len())
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = to.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // Whole blocks are cheaper by a system call than by a page fault for each of them.
        let window = self.window.get().filter(|_| bytes.len() <= SMALL_WRITE_BYTES);
        if window.is_some_and(|window| window.write(bytes, offset)) {
            return Ok(());
        }
        self.file.write_all_at(bytes, offset)
    }

    fn expect_small_writes(&self) {
        // What cannot be mapped is written by system calls, as before.
        if is_written_in_place(&self.file)
            && let Ok(map) = MmapRaw::map_raw(&*self.file)
        {
            self.window
                .set(Window { map, end: AtomicUsize::new(0), begin: AtomicUsize::new(0) })
                .ok();
        }
    }

    fn copies_small_writes(&self) -> bool {
        true
    }

    fn maps_small_writes(&self) -> bool {
        self.window.get().is_some()
    }

    fn expect_reads(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{Advice, fadvise};
            let end = offset.saturating_add(len).min(self.len().unwrap_or(0));
            let mut begin = offset;
            while begin < end {
                let part = (end - begin).min(EXPECTED_AT_ONCE);
                // Without it a read takes longer, and nothing else.
                fadvise(&*self.file, begin, part.try_into().ok(), Advice::WillNeed).ok();
                begin += part;
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _: (u64, u64) = (offset, len);
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(window) = self.window.get() {
            window.let_go_of_full_pages();
        }
        match self.syncs.get() {
            Some(syncs) => syncs.sync(&self.file),
            None => self.file.sync_data(),
        }
    }

    fn expect_syncs_beside(&self) -> bool {
        if self.syncs.get().is_none()
            && let Some(beside) = opened_again(&self.file)
        {
            self.syncs.set(Syncs { beside, turns: Default::default() }).ok();
        }
        self.syncs.get().is_some()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
