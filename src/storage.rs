//! All file I/O goes through [`Storage`]; nothing else in the crate touches a file system.
//!
//! # Invariants
//! - A call does what its name says or fails; no call retries a failed sync.
//! - Whoever needs a name to survive a power loss calls [`Storage::sync_dir`] after making it.

pub(crate) mod directory;
mod disk;
#[cfg(feature = "sim")]
pub(crate) mod sim;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

pub use disk::Disk;

/// What is a small write to a [`StorageFile`].
pub(crate) const SMALL_WRITE_BYTES: usize = 4095;

/// A place that keeps files: the operating system's file systems ([`Disk`]), or a simulated one.
///
/// Every path is given whole. Errors are the operating system's; the engine decides what they mean.
/// Randomness and time come from here as well, so that a simulated machine is the same each time.
///
/// ```
/// use rocstate::{Disk, Storage};
/// let dir = tempfile::tempdir()?;
/// assert!(Disk.list(dir.path())?.is_empty());
/// # std::io::Result::Ok(())
/// ```
pub trait Storage: Debug + Send + Sync + 'static {
    /// Makes a directory and those above it, unless they exist, and makes their names stable; also that of one
    /// which exists, since whoever made it may not have.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order; those that are not UTF-8 come back lossily.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;
    /// Gives a file another name, atomically, in place of whatever had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name; those who have it open keep its content.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory stable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// What keeps the files of a directory that exists, wherever the directory is moved and whatever its path
    /// comes to mean (another working directory, a link that leads elsewhere); paths are given whole all the
    /// same. `None`, the default, where a path always means the same.
    fn open_dir(&self, _path: &Path) -> io::Result<Option<Arc<dyn Storage>>> {
        Ok(None)
    }
    /// Takes the exclusive lock of an open file without waiting; `None` when somebody else has it.
    /// The lock ends when what is returned is dropped, or the process dies.
    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>>;
    /// Random bits, for lineages, nonces and salts; a simulation draws them from its seed.
    fn random(&self) -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::other)
    }
    /// The time of day, which the log keeps for people.
    fn time(&self) -> SystemTime {
        SystemTime::now()
    }
    /// Time that never goes back, by which phases of a boot and checkpoints are measured.
    fn ticks(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        ORIGIN.elapsed()
    }
    /// Waits for somebody else's work to be done.
    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// What [`Storage::try_lock`] returns: dropping it releases the lock.
pub type LockGuard = Box<dyn Any + Send + Sync>;

/// How to open a file.
///
/// ```
/// use rocstate::{Disk, OpenMode, Storage};
/// let dir = tempfile::tempdir()?;
/// let file = Disk.open(&dir.path().join("file"), OpenMode::CreateNew)?;
/// file.write_at(b"text", 0)?;
/// assert_eq!(file.len()?, 4);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    Write,
    /// For reading and writing; made if it is absent.
    CreateOrWrite,
    /// For reading and writing; it must be absent.
    CreateNew,
}

/// An open file; see [`OpenMode`] for an example.
pub trait StorageFile: Debug + Send + Sync + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether its length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }
    /// Fills `to` from `offset` on; fewer bytes than asked only at the end of the file.
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`, in one call where the system takes it.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts or extends it; what is new reads as zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Prepares the file for small writes without a system call, if that can be had: its bytes up to
    /// its length were written and synced before, it keeps this length, and nobody else writes to it.
    /// What [`write_at`](Self::write_at) promises stays the same.
    fn expect_small_writes(&self) {}
    /// Whether [`write_at`](Self::write_at) of less than 4096 bytes takes no longer than copying them into memory of
    /// the system's: then whoever submits a commit that asks for no sync makes that write itself. `false`, the
    /// default, where it may wait for a device: then a thread of the store makes it.
    fn copies_small_writes(&self) -> bool {
        false
    }
    /// Whether [`write_at`](Self::write_at) of less than 4096 bytes is a store into memory by now, without a system call.
    /// `false`, the default, where it is one: whoever waits for such a write of another thread then looks for a while
    /// whether it has ended, before it sleeps.
    fn maps_small_writes(&self) -> bool {
        false
    }
    /// Told that these bytes will be read soon, so that they may be on their way meanwhile; it waits for
    /// nothing, and may be told of bytes beyond the end.
    fn expect_reads(&self, _offset: u64, _len: u64) {}
    /// Prepares the file for syncs that run at the same time, before anything is written that they are to make
    /// stable: then each of them fails if a write did, also if another one was told so before. `false`, the
    /// default, if that cannot be had: then the file gets one sync at a time.
    fn expect_syncs_beside(&self) -> bool {
        false
    }
    /// Makes its bytes and its length stable.
    fn sync(&self) -> io::Result<()>;
    /// For the implementation's own use.
    fn as_any(&self) -> &dyn Any;
}
