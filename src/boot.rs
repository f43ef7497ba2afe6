//! Recovery, the only way in. *lock → locate → scan → decide → load → seal → report*:
//!
//! 1. *lock*: own the directory, or refuse;
//! 2. *locate*: find the newest checkpoint that is whole ([`locate`]);
//! 3. *scan*: read the log from its place on ([`scan`]);
//! 4. *decide*: what a broken place means ([`verdict`]), before anything is written;
//! 5. *load*: put the regions together, without reading their entries;
//! 6. *seal*: make this boot's own segment, which ends the log before it ([`seal`]);
//! 7. *report*.
//!
//! # Invariants
//! - Nothing is written before the verdict is final, except LOCK's name in an empty directory.
//! - No file of an earlier boot is written into; a crash at any point leads to the same state.
//! - What is read reaches the state only through types that verified bytes alone can have.

mod leftovers;
pub(crate) mod load;
pub(crate) mod locate;
mod scan;
mod seal;
pub(crate) mod since;
pub(crate) mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::heal::{Healed, Redundancy};
use crate::checkpoint::layers::Files;
use crate::checkpoint::policy::ReplayRate;
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::catalog::Catalog;
use crate::format::lock::LockSector;
use crate::format::{CheckpointNo, Epoch, Lineage, Malformed, Place, SECTOR_BYTES, disk_len, name};
use crate::log::newest::Newest;
use crate::log::tail::{ReplayWork, Tail};
use crate::log::writer::LogWriter;
use crate::options::Options;
use crate::region::Generation;
use crate::report::{BootReport, LastRun, Phase, Progress};
use crate::state::State;
use crate::storage::directory::{Directory, StoreFile};
use crate::storage::{LockGuard, OpenMode};
use crate::tree::Graveyard;

use leftovers::Leftovers;
use scan::{ScannedLog, UnclaimedFrame};

/// What a boot hands to the engine.
pub(crate) struct Booted {
    pub(crate) dir: Directory,
    pub(crate) files: Arc<Files>,
    pub(crate) lineage: Lineage,
    pub(crate) generation: Generation,
    /// The last thing of a boot that writes; none of a read-only one.
    pub(crate) log: Option<(LogWriter, LockGuard)>,
    pub(crate) state: State,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) healed: Arc<Healed>,
    /// Everything up to here was claimed to be synced.
    pub(crate) claimed: Place,
    /// No region has had this number or a higher one.
    pub(crate) next_region: u64,
    /// What the last run had learnt.
    pub(crate) rate: ReplayRate,
    /// The work that the next boot has from the log that this one replayed.
    pub(crate) replayed: ReplayWork,
    pub(crate) replay_times: (Duration, Duration),
    pub(crate) report: BootReport,
}

/// The checkpoints that a store has.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    /// Newest first; those that are whole.
    pub(crate) kept: Vec<Arc<Catalog>>,
    /// No file has had this number or a higher one.
    pub(crate) next: CheckpointNo,
    /// Something was healed or is damaged without need: a new checkpoint must not depend on it.
    pub(crate) renew: bool,
}

/// The names that a directory holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) lock: bool,
    pub(crate) segments: Vec<crate::format::SegmentNo>,
    pub(crate) checkpoints: Vec<CheckpointNo>,
    pub(crate) temporary: Vec<String>,
    pub(crate) foreign: usize,
}

impl Listing {
    pub(crate) fn read(dir: &Directory) -> std::io::Result<Listing> {
        let mut listing = Listing::default();
        for name in dir.list()? {
            match name::parse(&name) {
                Some(name::Name::Lock) => listing.lock = true,
                Some(name::Name::Segment(number)) => listing.segments.push(number),
                Some(name::Name::Checkpoint(number)) => listing.checkpoints.push(number),
                Some(name::Name::Temporary) => listing.temporary.push(name),
                // What a file system keeps at its root.
                None if name == "lost+found" => {}
                None => listing.foreign += 1,
            }
        }
        listing.segments.sort_unstable();
        listing.checkpoints.sort_unstable();
        Ok(listing)
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.checkpoints.is_empty()
    }
}

/// Measures the phases of a boot, one after the other.
struct Clock<'a> {
    options: &'a Options,
    began: Duration,
    phase_began: Duration,
    phases: Vec<Phase>,
}

impl Clock<'_> {
    fn end(&mut self, name: &'static str, bytes: u64, commits: u64) -> Duration {
        let now = self.options.storage.ticks();
        let duration = now.saturating_sub(self.phase_began);
        self.phases.push(Phase { name, duration, bytes, commits });
        self.phase_began = now;
        self.options.progress(Progress { phase: name, done: bytes, total: bytes });
        duration
    }
}

/// Boots the store in `path`; the report counts from `began`.
pub(crate) fn boot(
    path: &Path,
    options: &Options,
    instance: u64,
    graveyard: &Graveyard,
    began: Duration,
) -> Result<Booted> {
    recover(path, options, instance, graveyard, began).map_err(Error::stopping_boot)
}

fn recover(
    path: &Path,
    options: &Options,
    instance: u64,
    graveyard: &Graveyard,
    began: Duration,
) -> Result<Booted> {
    let mut clock = Clock { options, began, phase_began: began, phases: Vec::new() };
    let dir = Directory::new(Arc::clone(&options.storage), path.to_owned());
    // Lock.
    let listing = enter(&dir, options)?;
    let dir = dir.opened()?;
    let locked = if options.read_only { None } else { Some(lock(&dir)?) };
    // Whatever changed until the lock was ours is somebody else's finished work.
    let listing = if options.read_only { listing } else { list(&dir)? };
    let (sector, mut healed) = read_lock(&dir, &listing)?;
    clock.end("lock", 0, 0);
    if listing.is_empty() && locked.is_none() {
        return Err(Error::new(ErrorKind::NotFound, "the store was never begun").at_path(path));
    }
    // Locate.
    let identity = locate::identity(&dir, &listing, sector)?;
    let files = Arc::new(Files::new(dir.clone(), identity.lineage));
    let mut located = locate::locate(&dir, &files, &listing)?;
    clock.end("locate", located.bytes, 0);
    // Scan, decide.
    let mut scanned = scan_from_a_checkpoint(&dir, &identity, &mut located, options)
        .map_err(|error| blame(error, located.damage.as_ref()))?;
    let base = located.kept.first().cloned();
    healed.append(&mut located.healed);
    healed.extend(scanned.healed.iter().cloned());
    let reading = clock.end("scan", scanned.bytes, scanned.commits);
    let end = scanned.end();
    let (mut claimed, mut unclaimed) = (scanned.claimed, std::mem::take(&mut scanned.unclaimed));
    if left_out(Step::UnclaimedAreCopied)
        && let Some(last) = unclaimed.pop()
    {
        dir.open(&name::segment(last.end.segment), OpenMode::Write)?.sync()?;
        claimed = last.end;
        unclaimed.clear();
    }
    let tail = std::mem::take(&mut scanned.builder).finish();
    let sorting = clock.end("sort", tail.bytes, tail.commits);
    let replayed = scanned.work(&tail);
    // Load.
    let visible = if options.read_only { claimed.lsn } else { end };
    let healing = load::Healing::default();
    let state = load::load(base.as_deref(), &tail, &files, visible, instance, graveyard, &healing)?;
    clock.end("load", 0, 0);
    // Seal.
    let ending =
        Ending { identity, scanned: &scanned, claimed, unclaimed: &unclaimed, tail: &tail };
    let (generation, log) = match locked {
        None => (ending.generation_of_writer(&dir, &located.kept)?, None),
        Some(locked) => {
            let mut leftovers = Leftovers::remove(&dir, &listing)?;
            let (generation, log) =
                ending.seal(&dir, locked, &located.kept, &mut leftovers, options)?;
            graveyard.bury(Box::new(leftovers));
            (generation, Some(log))
        }
    };
    clock.end("seal", disk_len(unclaimed.iter().map(|frame| frame.records.len()).sum()), 0);
    let redundancy = Redundancy {
        dir: dir.clone(),
        files: Arc::clone(&files),
        lineage: identity.lineage,
        older: older(&located.kept),
        at: log.as_ref().map_or(claimed, |(log, _)| log.synced()),
    };
    // Nobody else has it yet, so it is empty.
    healing.redundancy.set(redundancy).ok();
    // Report.
    let cost = base.as_ref().and_then(|catalog| catalog.boot_cost);
    let rate = cost.map_or_else(ReplayRate::default, ReplayRate::from_cost);
    let checkpoints = Checkpoints {
        next: CheckpointNo(listing.checkpoints.last().map_or(1, |last| last.0 + 1)),
        renew: located.renew || scanned.renew,
        kept: located.kept,
    };
    let next_region =
        base.as_ref().map_or(1, |catalog| catalog.next_region.0).max(tail.next_region);
    let report = BootReport {
        generation,
        phases: clock.phases,
        duration: clock.phase_began.saturating_sub(clock.began),
        checkpoint_lsn: base.as_ref().map(|catalog| catalog.lsn()),
        lsn: visible,
        commits_replayed: tail.commits,
        operations_replayed: tail.operations,
        log_bytes_read: scanned.bytes,
        torn_bytes: scanned.torn_bytes,
        healed,
        last_run: last_run(&scanned, &unclaimed),
        regions: state.regions.len(),
        estimate: rate.boot(replayed),
        next_boot_estimate: Duration::ZERO,
    };
    Ok(Booted {
        dir,
        files,
        lineage: identity.lineage,
        generation,
        log,
        state,
        checkpoints,
        healed: healing.healed,
        claimed,
        next_region,
        rate,
        replayed,
        replay_times: (reading, sorting),
        report,
    })
}

/// What a boot would decide, up to and without the first thing that it writes. Putting the regions
/// together ([`load::regions`]) is left to whoever asks.
#[cfg(feature = "inspect")]
pub(crate) struct Foreseen {
    /// The checkpoints that are whole, newest first.
    pub(crate) kept: Vec<Arc<Catalog>>,
    pub(crate) healed: Vec<String>,
    pub(crate) claimed: Place,
    pub(crate) unclaimed: usize,
    pub(crate) torn_bytes: u64,
    pub(crate) last_run: LastRun,
    pub(crate) work: ReplayWork,
    pub(crate) rate: ReplayRate,
    pub(crate) tail: Tail,
    /// The last commit that there will be.
    pub(crate) end: crate::format::Lsn,
}

/// Locks nothing and writes nothing.
#[cfg(feature = "inspect")]
pub(crate) fn foresee(dir: &Directory) -> Result<Foreseen> {
    let options = Options { create: false, ..Options::default() };
    let listing = enter(dir, &options)?;
    let (sector, mut healed) = read_lock(dir, &listing)?;
    let identity = locate::identity(dir, &listing, sector)?;
    let files = Files::new(dir.clone(), identity.lineage);
    let mut located = locate::locate(dir, &files, &listing)?;
    let mut scanned = scan_from_a_checkpoint(dir, &identity, &mut located, &options)
        .map_err(|error| blame(error, located.damage.as_ref()).stopping_boot())?;
    healed.append(&mut located.healed);
    healed.append(&mut scanned.healed);
    let end = scanned.end();
    let tail = std::mem::take(&mut scanned.builder).finish();
    let unclaimed = std::mem::take(&mut scanned.unclaimed);
    let cost = located.kept.first().and_then(|catalog| catalog.boot_cost);
    Ok(Foreseen {
        healed,
        claimed: scanned.claimed,
        unclaimed: unclaimed.len(),
        torn_bytes: scanned.torn_bytes,
        last_run: last_run(&scanned, &unclaimed),
        work: scanned.work(&tail),
        rate: cost.map_or_else(ReplayRate::default, ReplayRate::from_cost),
        kept: located.kept,
        tail,
        end,
    })
}

/// Reads the log from the newest checkpoint on. Where it is not there as that one names it, as when an
/// earlier boot could not read the checkpoint and sealed the log without it, from an older one: if that
/// reaches as far as the newer one did.
fn scan_from_a_checkpoint(
    dir: &Directory,
    identity: &locate::Identity,
    located: &mut locate::Located,
    options: &Options,
) -> Result<ScannedLog> {
    let damage = match scan::scan(dir, identity, &located.kept, options) {
        Err(error) if error.kind() == ErrorKind::Damaged => error,
        outcome => return outcome,
    };
    let newest = located.kept.first().map(|catalog| catalog.lsn());
    for older in 1..located.kept.len() {
        let kept = located.kept.get(older..).unwrap_or_default();
        match scan::scan(dir, identity, kept, options) {
            Ok(scanned) if Some(scanned.end()) >= newest => {
                located.kept.drain(..older);
                located.renew = true;
                located
                    .healed
                    .push(format!("{damage} (healed by an older checkpoint and the log)"));
                return Ok(scanned);
            }
            Err(error) if error.kind() != ErrorKind::Damaged => return Err(error),
            _ => {}
        }
    }
    Err(damage)
}

/// How the log that was found ends, and what this boot makes of that.
struct Ending<'a> {
    identity: locate::Identity,
    scanned: &'a ScannedLog,
    claimed: Place,
    unclaimed: &'a [UnclaimedFrame],
    tail: &'a Tail,
}

impl Ending<'_> {
    /// Begins this boot's own segment: the durable bump of the epoch.
    fn seal(
        &self,
        dir: &Directory,
        (lock_file, guard): (StoreFile, LockGuard),
        kept: &[Arc<Catalog>],
        leftovers: &mut Leftovers,
        options: &Options,
    ) -> Result<(Generation, (LogWriter, LockGuard))> {
        let lineage = self.identity.lineage;
        let Epoch(highest) =
            locate::highest_epoch(&self.identity, self.scanned.newest.as_ref(), kept);
        let epoch = Epoch(highest.saturating_add(u64::from(!left_out(Step::EpochGrows))));
        let nonce = if left_out(Step::FreshNonce) { 0 } else { dir.random()? };
        let plan = seal::Plan {
            dir,
            lineage,
            epoch,
            nonce,
            newest: self.scanned.newest,
            named: self.identity.newest_segment,
            claimed: self.claimed,
            unclaimed: self.unclaimed,
            tail: self.tail,
            needed: kept.iter().map(|catalog| catalog.place.segment).collect(),
        };
        if left_out(Step::SupersededAfterSeal) {
            seal::remove_superseded(&plan)?;
        }
        let own = seal::seal(&plan, leftovers)?;
        let newest = Newest::of_boot(lock_file, &own.header)?;
        seal::remove_superseded(&plan)?;
        leftovers.remove_begun(dir)?;
        let log = LogWriter::new(dir.clone(), newest, own, options.segment_bytes);
        Ok((Generation::of_boot(lineage, epoch, nonce), (log, guard)))
    }

    /// The generation that a read-only open looks at.
    fn generation_of_writer(&self, dir: &Directory, kept: &[Arc<Catalog>]) -> Result<Generation> {
        let (epoch, nonce) = match self.scanned.newest {
            Some(newest) => (newest.epoch, newest.nonce),
            None => (locate::highest_epoch(&self.identity, None, kept), dir.random()?),
        };
        Ok(Generation::of_boot(self.identity.lineage, epoch, nonce))
    }
}

fn last_run(scanned: &ScannedLog, unclaimed: &[UnclaimedFrame]) -> LastRun {
    match (scanned.newest, scanned.torn_bytes, unclaimed.len()) {
        (None, ..) => LastRun::None,
        (Some(_), 0, 0) => LastRun::Idle,
        (Some(_), 0, _) => LastRun::Busy,
        (Some(_), ..) => LastRun::Torn,
    }
}

/// The checkpoints that the newest one can be healed from, and the beginning of the log.
pub(crate) fn older(kept: &[Arc<Catalog>]) -> Vec<Arc<Catalog>> {
    kept.iter().skip(1).cloned().chain([Arc::new(Catalog::empty())]).collect()
}

/// A log that does not reach back far enough is the fault of the checkpoint that it cannot replace.
fn blame(error: Error, checkpoint: Option<&Error>) -> Error {
    match checkpoint {
        Some(damage) if error.kind() == ErrorKind::Damaged => damage.clone().caused_by_own(error),
        _ => error,
    }
}

fn list(dir: &Directory) -> Result<Listing> {
    Listing::read(dir).map_err(|cause| Error::io("list the directory", dir.path(), cause))
}

/// Looks at the directory, and makes it if that is wanted.
fn enter(dir: &Directory, options: &Options) -> Result<Listing> {
    use std::io::ErrorKind as Io;
    let not_found = || {
        Error::new(ErrorKind::NotFound, "there is no store here, and it is not to be made")
            .at_path(dir.path())
    };
    let may_create = options.create && !options.read_only;
    let listing = match Listing::read(dir) {
        Ok(listing) => listing,
        Err(cause) if cause.kind() == Io::NotFound && may_create => {
            dir.create()?;
            return Ok(Listing::default());
        }
        Err(cause) if cause.kind() == Io::NotFound => return Err(not_found()),
        Err(cause) if cause.kind() == Io::NotADirectory => {
            let what = "the path is not a directory; a store is one";
            return Err(Error::new(ErrorKind::NotAStore, what).at_path(dir.path()));
        }
        Err(cause) => return Err(Error::io("list the directory", dir.path(), cause)),
    };
    if !listing.lock && listing.is_empty() {
        if listing.foreign > 0 {
            let what = "the directory holds other files and no store; choose an empty one";
            return Err(Error::new(ErrorKind::NotAStore, what).at_path(dir.path()));
        }
        if !may_create {
            return Err(not_found());
        }
        // Whoever made the directory may not have made its name stable.
        dir.create()?;
    }
    Ok(listing)
}

fn lock(dir: &Directory) -> Result<(StoreFile, LockGuard)> {
    let file = dir.open(name::LOCK, OpenMode::CreateOrWrite)?;
    if let Some(guard) = dir.try_lock(&file)? {
        return Ok((file, guard));
    }
    let what = "another process, or another handle of this one, has the store open; wait for it to \
                end, or open read-only";
    Err(Error::new(ErrorKind::Locked, what).at_path(dir.path()))
}

/// Reads LOCK's sector; one that is no good is reported and will be written again.
fn read_lock(dir: &Directory, listing: &Listing) -> Result<(Option<LockSector>, Vec<String>)> {
    let path = dir.path_of(name::LOCK);
    let file = match dir.open(name::LOCK, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.is_absent() => {
            return Ok((None, vec!["LOCK was absent and was written again".to_owned()]));
        }
        Err(error) => return Err(error),
    };
    let bytes = file.read(0, disk_len(SECTOR_BYTES))?;
    match LockSector::decode(&bytes) {
        Ok(sector) => Ok((Some(sector), Vec::new())),
        Err(Malformed::Newer(version)) => {
            Err(crate::checkpoint::reader::malformed(&path, 8, Malformed::Newer(version)))
        }
        // A store that was never begun has an empty one.
        Err(_) if bytes.is_empty() && listing.is_empty() => Ok((None, Vec::new())),
        Err(why) if listing.is_empty() => {
            Err(Error::damaged(&path, 0, format!("{why}, and the store has no other file")))
        }
        Err(why) => Ok((None, vec![format!("LOCK was invalid ({why}) and was written again")])),
    }
}
