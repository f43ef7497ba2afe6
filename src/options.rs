//! How a store is opened.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::Compression;
use crate::format::segment::SEGMENT_BYTES_MAX;
use crate::report::{Progress, Warmth};
use crate::storage::{Disk, Storage};
use crate::store::Store;

/// What a commit survives once it is acknowledged.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let map: rocstate::DurableMap<u8, u8> = store.durable_map("map")?;
/// let mut tx = store.begin();
/// map.insert(&mut tx, 1, 2)?;
/// tx.commit_with(rocstate::Durability::Process)?;   // no sync is waited for
/// store.sync()?;                                    // now it survives the loss of power
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The loss of power: the commit is on stable storage.
    #[default]
    Machine,
    /// Any death of the process, `kill -9` included: the commit is with the operating system. Power
    /// loss may take it until the next sync, at most `sync_interval` later.
    Process,
}

/// When entries that a boot left on disk are read into memory, besides on first touch.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use rocstate::{DurableMap, Store, Warming};
/// let store = Store::options().warming(Warming::OnDemand).open(dir.path())?;
/// let map: DurableMap<u8, u8> = store.durable_map("map")?;
/// map.warm()?;                                  // all of this one, now
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Warming {
    /// From when a region is declared on, by threads in the background: one fewer than the machine
    /// has cores, but at least one and at most eight.
    #[default]
    Background,
    /// Not before somebody asks: each first touch reads a block, and `warm` the rest of a region.
    OnDemand,
    /// Before `durable_map` returns, on all cores. What cannot be read is an error when it is needed.
    Eager,
}

/// What happens when writers outrun checkpoints, so that a boot would take longer than its budget.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use rocstate::{Backpressure, Store};
/// let store = Store::options().backpressure(Backpressure::LetBootSlip).open(dir.path())?;
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backpressure {
    /// Acknowledgements wait until the checkpoint that is being taken has caught up, ten seconds at
    /// most; transactions can be staged meanwhile.
    /// [`Stats::writers_held`](crate::Stats::writers_held) tells.
    #[default]
    SlowWriters,
    /// Writers go on, and the next boot may take longer.
    /// [`Stats::boot_budget_slips`](crate::Stats::boot_budget_slips) tells.
    LetBootSlip,
}

type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;
type OnWarming = Arc<dyn Fn(&Warmth<'_>) + Send + Sync>;

/// Settings for [`Options::open`]; each has a default that suits a service.
///
/// ```
/// use std::time::Duration;
/// use rocstate::{Durability, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::options()
///     .boot_budget(Duration::from_millis(20))
///     .durability(Durability::Process)
///     .keep_checkpoints(3)
///     .open(dir.path())?;
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone)]
pub struct Options {
    pub(crate) boot_budget: Duration,
    pub(crate) backpressure: Backpressure,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Duration,
    pub(crate) compression: Compression,
    pub(crate) keep_checkpoints: usize,
    pub(crate) segment_bytes: u64,
    pub(crate) read_only: bool,
    pub(crate) create: bool,
    pub(crate) warming: Warming,
    pub(crate) threads: bool,
    pub(crate) on_progress: Option<OnProgress>,
    pub(crate) on_warming: Option<OnWarming>,
    pub(crate) storage: Arc<dyn Storage>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            boot_budget: Duration::from_millis(50),
            backpressure: Backpressure::SlowWriters,
            durability: Durability::Machine,
            sync_interval: Duration::from_millis(10),
            compression: Compression::None,
            keep_checkpoints: 2,
            segment_bytes: 16 << 20,
            read_only: false,
            create: true,
            warming: Warming::Background,
            threads: true,
            on_progress: None,
            on_warming: None,
            storage: Arc::new(Disk),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("boot_budget", &self.boot_budget)
            .field("backpressure", &self.backpressure)
            .field("durability", &self.durability)
            .field("sync_interval", &self.sync_interval)
            .field("compression", &self.compression)
            .field("keep_checkpoints", &self.keep_checkpoints)
            .field("segment_bytes", &self.segment_bytes)
            .field("read_only", &self.read_only)
            .field("create", &self.create)
            .field("warming", &self.warming)
            .field("threads", &self.threads)
            .field("storage", &self.storage)
            .finish_non_exhaustive()
    }
}

/// Longer than any process lives, and short enough to be reckoned with.
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Options {
    /// How long a boot may take, to the first read: checkpoints keep the log short enough, as far as
    /// the rates measured on this machine tell. Default 50 ms; more than a year counts as one.
    pub fn boot_budget(mut self, budget: Duration) -> Options {
        self.boot_budget = budget.min(YEAR);
        self
    }

    /// What happens when writers outrun checkpoints. Default [`Backpressure::SlowWriters`].
    pub fn backpressure(mut self, backpressure: Backpressure) -> Options {
        self.backpressure = backpressure;
        self
    }

    /// The durability of commits that do not say. Default [`Durability::Machine`].
    pub fn durability(mut self, durability: Durability) -> Options {
        self.durability = durability;
        self
    }

    /// How soon a `Process` commit is synced. Default 10 ms; more than a year counts as one.
    pub fn sync_interval(mut self, interval: Duration) -> Options {
        self.sync_interval = interval.min(YEAR);
        self
    }

    /// How checkpoint blocks are kept. Default [`Compression::None`].
    pub fn compression(mut self, compression: Compression) -> Options {
        self.compression = compression;
        self
    }

    /// How many checkpoints are kept, 1 to 64; with two, a damaged newest one is healed from the
    /// older and the log since. Default 2.
    pub fn keep_checkpoints(mut self, count: usize) -> Options {
        self.keep_checkpoints = count;
        self
    }

    /// How long segments of the log become, 64 KiB to 1 GiB; the first ones are shorter, and one
    /// that must hold a larger commit is longer. Default 16 MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Options {
        self.segment_bytes = bytes;
        self
    }

    /// Opens without a lock and without writing, also while another process writes, which
    /// [`Store::refresh`](crate::Store::refresh) follows. Default no.
    pub fn read_only(mut self, read_only: bool) -> Options {
        self.read_only = read_only;
        self
    }

    /// Whether a store is made where there is none. Default yes.
    pub fn create(mut self, create: bool) -> Options {
        self.create = create;
        self
    }

    /// When entries that a boot left on disk are read. Default [`Warming::Background`].
    pub fn warming(mut self, warming: Warming) -> Options {
        self.warming = warming;
        self
    }

    /// Whether the store has threads of its own. Default yes.
    ///
    /// Without them whoever commits also makes segments and takes checkpoints that are due, what is
    /// submitted is written before [`Submitted`](crate::Submitted) is returned, entries are read on
    /// demand, and what only time brings about (the sync of `Process` commits, the witness of an idle
    /// log) is left to [`Store::tend`]. One thread that uses such a store over a
    /// simulated disk makes the same calls in the same order each time.
    pub fn threads(mut self, threads: bool) -> Options {
        self.threads = threads;
        self
    }

    /// Is called every few milliseconds while a region is warmed, from the threads that do it.
    pub fn on_warming(mut self, call: impl Fn(&Warmth<'_>) + Send + Sync + 'static) -> Options {
        self.on_warming = Some(Arc::new(call));
        self
    }

    /// Is called during boot, from the opening thread, so that a host can feed its watchdog.
    pub fn on_progress(mut self, call: impl Fn(Progress) + Send + Sync + 'static) -> Options {
        self.on_progress = Some(Arc::new(call));
        self
    }

    /// Where files are kept. Default [`Disk`].
    pub fn storage(mut self, storage: impl Storage) -> Options {
        self.storage = Arc::new(storage);
        self
    }

    /// Boots the store in a directory. Blocks: in async code, call it where blocking is allowed.
    ///
    /// # Errors
    /// `Locked`: another process or handle has it. `NotFound`: it is absent and `create` is off.
    /// `NotAStore`: the path holds something else. `NewerFormat`. `Damaged`: what is needed is
    /// wrong and no redundancy heals it; nothing was changed. `Io`: the system refused; nothing was
    /// changed. `Invalid`: a setting is out of range.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        self.check()?;
        Store::boot(path.as_ref(), self)
    }

    pub(crate) fn progress(&self, progress: Progress) {
        if let Some(call) = &self.on_progress {
            call(progress);
        }
    }

    pub(crate) fn warmed(&self, warmth: &Warmth<'_>) {
        if let Some(call) = &self.on_warming {
            call(warmth);
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |what: &str| Err(Error::new(ErrorKind::Invalid, what));
        if !(1..=64).contains(&self.keep_checkpoints) {
            return refuse("keep_checkpoints must be 1 to 64");
        }
        if !(64 << 10..=SEGMENT_BYTES_MAX / 2).contains(&self.segment_bytes) {
            return refuse("segment_bytes must be 64 KiB to 1 GiB");
        }
        if self.sync_interval.is_zero() || self.boot_budget.is_zero() {
            return refuse("sync_interval and boot_budget must be more than zero");
        }
        match self.compression {
            Compression::Zstd(level) if !(1..=19).contains(&level) => {
                refuse("the level of zstd must be 1 to 19")
            }
            _ => Ok(()),
        }
    }
}
