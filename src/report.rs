//! What a boot did, and how the store is now.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::format::Lsn;
use crate::region::Generation;

/// A step of a boot, for [`Options::on_progress`](crate::Options::on_progress).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// rocstate::Store::options()
///     .on_progress(|step| println!("{}: {} of {}", step.phase, step.done, step.total))
///     .open(dir.path())?;
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The name of the phase, as in the [`BootReport`].
    pub phase: &'static str,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do in this phase, as far as is known.
    pub total: u64,
}

/// How warm a region is, for [`Options::on_warming`](crate::Options::on_warming).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// rocstate::Store::options()
///     .on_warming(|now| println!("{}: {} of {} entries", now.region, now.warm, now.entries))
///     .open(dir.path())?;
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Warmth<'a> {
    /// The region's name.
    pub region: &'a str,
    /// Entries of those that boot left on disk that are in memory now.
    pub warm: usize,
    /// Entries that boot left on disk.
    pub entries: usize,
}

/// One phase of a boot.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let slowest = store.boot_report().phases.iter().max_by_key(|phase| phase.duration);
/// assert!(slowest.is_some());
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Phase {
    /// `lock`, `locate`, `scan`, `sort`, `load`, `seal` or `start`.
    pub name: &'static str,
    /// How long it took.
    pub duration: Duration,
    /// Bytes that it read or wrote.
    pub bytes: u64,
    /// Commits that it saw.
    pub commits: u64,
}

/// How the run before this boot ended, as far as the disk tells.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// assert_eq!(store.boot_report().last_run, rocstate::LastRun::None);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub enum LastRun {
    /// There was none: the store is new.
    None,
    /// With an idle log, or right after a sync that was claimed.
    Idle,
    /// With commits that nobody had claimed to be synced; they are kept.
    Busy,
    /// While it wrote: the end of the log is torn and was dropped.
    Torn,
}

impl fmt::Display for LastRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none before",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Torn => "torn while writing",
        })
    }
}

/// What recovery did, phase by phase: `Display` for people, `Serialize` for machines.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let report = store.boot_report();
/// assert_eq!(report.torn_bytes, 0);
/// println!("{report}");
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BootReport {
    /// The generation that this boot began.
    pub generation: Generation,
    /// What it did, in order; they cover at least 99 % of `duration`.
    pub phases: Vec<Phase>,
    /// The whole of `open`.
    pub duration: Duration,
    /// The commit of the checkpoint that it started from; `None` if there was none.
    pub checkpoint_lsn: Option<Lsn>,
    /// The last commit that there is.
    pub lsn: Lsn,
    /// Commits of the log's tail.
    pub commits_replayed: u64,
    /// Operations in them.
    pub operations_replayed: u64,
    /// Bytes of the log that were read.
    pub log_bytes_read: u64,
    /// Bytes at the log's end that were never acknowledged and are dropped.
    pub torn_bytes: u64,
    /// What was wrong and made good, a sentence each.
    pub healed: Vec<String>,
    /// How the last run ended.
    pub last_run: LastRun,
    /// Durable regions.
    pub regions: usize,
    /// How long the rates that the last run had learnt say that this boot would take.
    pub estimate: Duration,
    /// How long the next boot would take if the process died now.
    pub next_boot_estimate: Duration,
}

impl fmt::Display for BootReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "generation  {}", self.generation)?;
        let checkpoint = self.checkpoint_lsn.map_or("none".to_owned(), |lsn| lsn.to_string());
        writeln!(f, "state       commit {}, from checkpoint {checkpoint}", self.lsn)?;
        writeln!(
            f,
            "replayed    {} commits, {} operations, {} bytes of log; {} torn bytes dropped",
            self.commits_replayed, self.operations_replayed, self.log_bytes_read, self.torn_bytes
        )?;
        writeln!(f, "last run    {}; {} durable regions", self.last_run, self.regions)?;
        for phase in &self.phases {
            let ms = phase.duration.as_secs_f64() * 1e3;
            write!(f, "{:<10}  {ms:>9.3} ms", phase.name)?;
            if phase.bytes > 0 {
                write!(f, "  {} bytes", phase.bytes)?;
            }
            if phase.commits > 0 {
                write!(f, "  {} commits", phase.commits)?;
            }
            writeln!(f)?;
        }
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let (total, estimate) = (ms(self.duration), ms(self.estimate));
        writeln!(f, "total       {total:>9.3} ms  estimated {estimate:.3} ms")?;
        for healed in &self.healed {
            writeln!(f, "healed      {healed}")?;
        }
        write!(f, "next boot   {:>9.3} ms", ms(self.next_boot_estimate))
    }
}

/// A region that a store holds.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// store.volatile_map::<u8, u8>("cache")?;
/// assert_eq!(store.regions()[0].name, "cache");
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RegionInfo {
    /// Its name.
    pub name: String,
    /// Whether it is durable; else it is volatile.
    pub durable: bool,
    /// Whether this program has declared it.
    pub declared: bool,
    /// Entries at the visible state.
    pub len: usize,
    /// Those of them that boot left on disk and that are not in memory yet.
    pub cold: usize,
    /// What it holds, in words; empty for a volatile region.
    pub shape: String,
}

/// How a store is now.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// assert_eq!(store.stats().visible_lsn.get(), 0);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// The last commit that readers see.
    pub visible_lsn: Lsn,
    /// The last commit that survives a power loss.
    pub durable_lsn: Lsn,
    /// The commit of the newest checkpoint.
    pub checkpoint_lsn: Lsn,
    /// Bytes of log after it.
    pub tail_bytes: u64,
    /// Operations in them.
    pub tail_operations: u64,
    /// How long a boot would take to the first read, at the rates measured on this machine.
    pub next_boot_estimate: Duration,
    /// How often that went over the boot budget since this open.
    pub boot_budget_slips: u64,
    /// How long groups of commits were held for checkpoints since this open, in all.
    pub writers_held: Duration,
    /// Checkpoints taken since this open.
    pub checkpoints_taken: u64,
    /// Why the last automatic checkpoint, or the removal of what it made unnecessary, failed; or what the last
    /// checkpoint could not read, and left where it lies.
    pub checkpoint_error: Option<Error>,
    /// What was damaged and rebuilt since this open, a sentence each.
    pub healed: Vec<String>,
    /// Entries that boot left on disk and that are not in memory yet, of all regions.
    pub cold_entries: usize,
    /// What could not be read while regions were warmed: who needs it gets the same error.
    pub unreadable: Vec<Error>,
    /// Bytes of checkpoint files that were superseded and that views still read from.
    pub pinned_bytes: u64,
    /// The first cause, if the store is poisoned.
    pub poisoned: Option<Error>,
}
