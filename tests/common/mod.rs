//! What the tests share: a disk that fails, stalls or panics on demand.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::case_sensitive_file_extension_comparisons,
    clippy::must_use_candidate,
    reason = "each test binary uses a part of it, and a test that fails says where"
)]

pub mod cold;
pub mod devices;
pub mod followed;
pub mod fuse;
pub mod settings;
mod waiting;

use std::any::Any;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;

pub use waiting::{eventually, within};

use rocstate::{Disk, Error, ErrorKind, LockGuard, OpenMode, Storage, StorageFile};

/// What a [`FaultyDisk`] does next.
#[derive(Debug, Default)]
pub struct Faults {
    /// The n-th write from now fails; 0 or less is never.
    pub write: AtomicI64,
    pub sync: AtomicI64,
    pub read: AtomicI64,
    pub rename: AtomicI64,
    pub sync_dir: AtomicI64,
    /// A failure is a panic instead of an error.
    pub panic: AtomicBool,
    pub syncs: AtomicU64,
    /// How often a directory was made, or its name made stable.
    pub dirs_made: AtomicU64,
    pub writes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub reads: AtomicU64,
    /// Bytes that the disk was told of before they were read.
    pub expected_bytes: AtomicU64,
    /// A file and bytes of it that cannot be read.
    pub unreadable: Mutex<Option<(PathBuf, Range<u64>)>>,
    /// Too many files are open.
    pub out_of_files: AtomicBool,
    /// No file of this name can be made.
    pub no_room_for: Mutex<Option<&'static str>>,
    /// How often that was tried.
    pub refused: AtomicU64,
    /// Files get one sync at a time.
    pub in_turns: AtomicBool,
    /// Small writes may wait.
    pub waits: AtomicBool,
    /// They are calls of the system, as where it is not known whether a file is written in place.
    pub unmapped: AtomicBool,
    /// Who wrote last.
    pub writer: Mutex<Option<ThreadId>>,
    /// Syncs up to this one, by their number, wait.
    held: Mutex<u64>,
    gate: Condvar,
}

impl Faults {
    fn hit(&self, counter: &AtomicI64, what: &str) -> io::Result<()> {
        if counter.load(Ordering::SeqCst) > 0 && counter.fetch_sub(1, Ordering::SeqCst) == 1 {
            assert!(!self.panic.load(Ordering::SeqCst), "the disk panics in a {what}");
            return Err(io::Error::other(format!("injected failure of a {what}")));
        }
        Ok(())
    }

    pub fn hold_syncs(&self) {
        *self.held.lock().unwrap() = u64::MAX;
    }

    /// Those after it do not wait.
    pub fn hold_next_sync(&self) {
        *self.held.lock().unwrap() = self.syncs.load(Ordering::SeqCst) + 1;
    }

    pub fn release_syncs(&self) {
        *self.held.lock().unwrap() = 0;
        self.gate.notify_all();
    }
}

#[derive(Clone, Debug, Default)]
pub struct FaultyDisk(pub Arc<Faults>);

#[derive(Debug)]
struct FaultyFile(Arc<dyn StorageFile>, Arc<Faults>, PathBuf);

impl Storage for FaultyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.dirs_made.fetch_add(1, Ordering::SeqCst);
        Disk.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if self.0.out_of_files.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(24));
        }
        if self.0.no_room_for.lock().unwrap().is_some_and(|name| path.ends_with(name)) {
            self.0.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Arc::new(FaultyFile(Disk.open(path, mode)?, Arc::clone(&self.0), path.to_owned())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.hit(&self.0.rename, "rename")?;
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.hit(&self.0.sync_dir, "sync of a directory")?;
        Disk.sync_dir(dir)
    }
    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        let file = file.as_any().downcast_ref::<FaultyFile>().unwrap();
        Disk.try_lock(&file.0)
    }
}

impl StorageFile for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.reads.fetch_add(1, Ordering::SeqCst);
        self.1.hit(&self.1.read, "read")?;
        if let Some((path, bytes)) = &*self.1.unreadable.lock().unwrap()
            && *path == self.2
            && offset < bytes.end
            && bytes.start < offset + to.len() as u64
        {
            return Err(io::Error::other("a bad sector"));
        }
        self.0.read_at(to, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.writes.fetch_add(1, Ordering::SeqCst);
        self.1.written_bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        *self.1.writer.lock().unwrap() = Some(std::thread::current().id());
        self.1.hit(&self.1.write, "write")?;
        self.0.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn expect_small_writes(&self) {
        if !self.1.unmapped.load(Ordering::SeqCst) {
            self.0.expect_small_writes();
        }
    }
    fn maps_small_writes(&self) -> bool {
        self.0.maps_small_writes()
    }
    fn copies_small_writes(&self) -> bool {
        self.0.copies_small_writes() && !self.1.waits.load(Ordering::SeqCst)
    }
    fn expect_reads(&self, offset: u64, len: u64) {
        assert!(
            offset + len <= self.0.len().unwrap(),
            "{len} bytes at {offset} are beyond the end"
        );
        self.1.expected_bytes.fetch_add(len, Ordering::SeqCst);
        self.0.expect_reads(offset, len);
    }
    fn sync(&self) -> io::Result<()> {
        let number = self.1.syncs.fetch_add(1, Ordering::SeqCst) + 1;
        let mut held = self.1.held.lock().unwrap();
        while number <= *held {
            held = self.1.gate.wait(held).unwrap();
        }
        drop(held);
        self.1.hit(&self.1.sync, "sync")?;
        self.0.sync()
    }
    fn expect_syncs_beside(&self) -> bool {
        self.0.expect_syncs_beside() && !self.1.in_turns.load(Ordering::SeqCst)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Of what has to fail.
pub fn kind<T>(outcome: Result<T, Error>) -> ErrorKind {
    match outcome {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.kind(),
    }
}

/// The files of a store, with their content.
pub fn image(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Makes a directory hold exactly these files.
pub fn restore(dir: &Path, image: &[(PathBuf, Vec<u8>)]) {
    for entry in std::fs::read_dir(dir).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (path, bytes) in image {
        std::fs::write(dir.join(path.file_name().unwrap()), bytes).unwrap();
    }
}

/// The files whose name begins with `prefix` and ends with `.roc`, in order.
pub fn files(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(prefix) && name.ends_with(".roc")
        })
        .collect();
    files.sort();
    files
}
