//! A disk in memory that loses power, tears sectors, fails and lies: crash-test your own recovery.
//!
//! See [`SimDisk`]. Feature `sim`.
//!
//! # The model
//! - A file is sectors of 512 bytes and a length. What was written since the last
//!   [`sync`](crate::StorageFile::sync) may be found after a power loss or not, for each sector on its
//!   own, in any of the states that it had; the length is any that it had since.
//! - A name that was created, changed or removed since the last
//!   [`sync_dir`](crate::Storage::sync_dir) may be found changed or not, each on its own; a renaming
//!   is atomic, and takes its file along.
//! - A sector that was being written may be torn: part old and part new, or garbage. No other sector
//!   is harmed.
//! - What a failed sync should have made stable counts as clean: the cache shows it, no later sync
//!   writes it.
//! - Directories exist and are stable.

mod content;
mod fault;
pub(crate) mod image;
mod replay;
mod world;

use std::any::Any;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use parking_lot::Mutex;

use super::{LockGuard, OpenMode, Storage, StorageFile};
use content::Content;
pub use fault::Fault;
use image::CrashPoint;
pub(crate) use replay::Replay;
use world::{Effect, InodeNo, World};

/// What a disk writes whole or tears.
pub const SECTOR_BYTES: usize = 512;

/// 1 January 2026, when the simulated machine was switched on.
const SWITCHED_ON: Duration = Duration::from_secs(1_767_225_600);

/// A simulated disk with the cache in front of it; clones are the same disk.
///
/// It takes note of every call. [`power_loss`](Self::power_loss) gives what the next boot may find
/// after a crash at this moment, [`kill`](Self::kill) what the next process finds when only this one
/// dies; [`CrashTest`](crate::sim::CrashTest) tries every moment. Everything random comes from the seed,
/// so that one thread makes the same run each time.
///
/// ```
/// use rocstate::sim::SimDisk;
/// use rocstate::{DurableMap, Durability, Store};
///
/// let disk = SimDisk::new(7);
/// let options = Store::options().storage(disk.clone()).threads(false);
/// let store = options.open("/store")?;
/// let map: DurableMap<u8, u8> = store.durable_map("map")?;
/// store.transact(|tx| map.insert(tx, 1, 1))?;                    // synced
/// let mut tx = store.begin();
/// map.insert(&mut tx, 2, 2)?;
/// tx.commit_with(Durability::Process)?;                         // not yet
///
/// let after = disk.power_loss(99);
/// let store = options.clone().storage(after).open("/store")?;
/// let map: DurableMap<u8, u8> = store.durable_map("map")?;
/// assert!(map.contains_key(&store.view(), &1)?);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<Machine>>);

/// The disk, its cache, and what happens to them.
#[derive(Clone, Debug)]
struct Machine {
    world: World,
    /// What the disk was when the machine was switched on.
    before: World,
    history: Vec<Effect>,
    calls: u64,
    paused: Duration,
    faults: Vec<(u64, Fault)>,
    /// What the last call was about to do that a fault has struck.
    struck: Option<&'static str>,
    lying: bool,
    full: bool,
    /// After the power went nothing happens any more.
    dead: bool,
    locked: BTreeSet<InodeNo>,
    random: Rng,
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: InodeNo,
}

impl Machine {
    fn new(world: World, seed: u64) -> Machine {
        Machine {
            before: world.clone(),
            world,
            history: Vec::new(),
            calls: 0,
            paused: Duration::ZERO,
            faults: Vec::new(),
            struck: None,
            lying: false,
            full: false,
            dead: false,
            locked: BTreeSet::new(),
            random: Rng::with_seed(seed),
        }
    }

    /// Counts a call, and says what is wrong with it.
    fn call(&mut self, what: &'static str) -> io::Result<Option<Fault>> {
        self.calls += 1;
        if self.dead {
            return Err(fault::power_is_gone());
        }
        let due = self.faults.iter().find(|(call, _)| *call == self.calls);
        let fault = due.map(|(_, fault)| *fault);
        if fault.is_some() {
            self.struck = Some(what);
        }
        self.dead = fault == Some(Fault::PowerLoss);
        Ok(fault)
    }

    /// Counts a call that works or fails as a whole.
    fn plain_call(&mut self, what: &'static str) -> io::Result<()> {
        fault::outcome(self.call(what)?)
    }

    fn apply(&mut self, effect: Effect) {
        self.world.apply(&effect);
        self.history.push(effect);
    }
}

impl SimDisk {
    /// An empty disk. Whatever the machine draws at random follows from the seed.
    pub fn new(seed: u64) -> SimDisk {
        SimDisk::holding(World::default(), seed)
    }

    /// A machine that was just switched on.
    fn holding(world: World, seed: u64) -> SimDisk {
        SimDisk::of(Machine::new(world, seed))
    }

    fn of(machine: Machine) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(machine)))
    }

    /// How many calls were made so far.
    pub fn calls(&self) -> u64 {
        self.0.lock().calls
    }

    /// Has the call with this number, counted from 1 as [`calls`](Self::calls) does, go wrong.
    pub fn inject(&self, call: u64, fault: Fault) {
        self.0.lock().faults.push((call, fault));
    }

    /// What the last call was that a fault has struck: `"write"`, `"sync"`, the name of a method.
    pub fn struck(&self) -> Option<&'static str> {
        self.0.lock().struck
    }

    /// While set, syncs of files and directories do nothing and say that they did.
    pub fn lie(&self, lying: bool) {
        self.0.lock().lying = lying;
    }

    /// While set, whatever would need more room fails with `ENOSPC`.
    pub fn fill_up(&self, full: bool) {
        self.0.lock().full = full;
    }

    /// Switches the power off: every call fails from here on.
    pub fn power_off(&self) {
        self.0.lock().dead = true;
    }

    /// What the next boot may find if the power goes now; another seed, another outcome.
    pub fn power_loss(&self, seed: u64) -> SimDisk {
        let machine = self.0.lock();
        let point = CrashPoint::new(&machine.world);
        let mut random = Rng::with_seed(seed);
        let way = point.one_way(&mut random);
        point.disk(&way, random.u64(..))
    }

    /// What the next process finds if this one is killed now: everything that was written, what is not
    /// stable included, and no lock.
    pub fn kill(&self) -> SimDisk {
        let machine = self.0.lock();
        let mut next = Machine::new(machine.world.clone(), machine.random.clone().u64(..));
        next.lying = machine.lying;
        SimDisk::of(next)
    }

    /// A snapshot of the machine, with which nothing that happens to this one is shared.
    pub fn snapshot(&self) -> SimDisk {
        let mut machine = self.0.lock().clone();
        machine.locked.clear();
        SimDisk::of(machine)
    }

    /// The files there are, in order of their names.
    pub fn files(&self) -> Vec<PathBuf> {
        self.0.lock().world.names.keys().cloned().collect()
    }

    /// What a file holds, as a process reads it.
    pub fn contents(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let machine = self.0.lock();
        let inode = machine.world.names.get(path.as_ref())?;
        Some(machine.world.inodes[inode.0].now.to_bytes())
    }

    /// Puts a file on the disk, stable, in place of whatever has its name: damage, or a stale copy.
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        let content = Arc::new(Content::from_bytes(bytes));
        self.0.lock().apply(Effect::Put(path.as_ref().to_owned(), content));
    }

    /// Takes a file off the disk.
    pub fn take_away(&self, path: impl AsRef<Path>) {
        self.0.lock().apply(Effect::TakeAway(path.as_ref().to_owned()));
    }

    /// Rots a bit: bit `bit % 8` of byte `bit / 8` of a file.
    ///
    /// # Panics
    /// If there is no such file, or it has no such bit: damage that damages nothing proves nothing.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: usize) {
        let mut machine = self.0.lock();
        let file = *machine.world.names.get(path.as_ref()).expect("there is a file of this name");
        assert!(bit / 8 < machine.world.inodes[file.0].now.len(), "the file has this byte");
        machine.apply(Effect::Rot { file, bit });
    }

    /// Tells what the disk holds apart from what other disks hold.
    pub fn fingerprint(&self) -> u64 {
        self.0.lock().world.hash()
    }

    /// How many changes were made since the machine was switched on.
    pub(crate) fn changes(&self) -> usize {
        self.0.lock().history.len()
    }

    /// The history, to go through once more.
    pub(crate) fn replay(&self) -> Replay {
        let machine = self.0.lock();
        Replay::new(machine.before.clone(), machine.history.clone())
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} does not exist", path.display()))
}

impl Storage for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        self.0.lock().plain_call("create_dir")
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut machine = self.0.lock();
        machine.plain_call("list")?;
        let inside = machine.world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut machine = self.0.lock();
        machine.plain_call("open")?;
        let known = machine.world.names.get(path).copied();
        let inode = match (known, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(not_found(path)),
            (None, _) if machine.full => return Err(fault::no_space()),
            (None, _) => {
                machine.apply(Effect::Create(path.to_owned()));
                machine.world.names[path]
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.plain_call("rename")?;
        if !machine.world.names.contains_key(from) {
            return Err(not_found(from));
        }
        machine.apply(Effect::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        machine.plain_call("remove")?;
        if !machine.world.names.contains_key(path) {
            return Err(not_found(path));
        }
        machine.apply(Effect::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut machine = self.0.lock();
        let fault = machine.call("sync_dir")?;
        fault::outcome(fault)?;
        if !machine.lying && fault != Some(Fault::LyingSync) {
            machine.apply(Effect::SyncDir);
        }
        Ok(())
    }

    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        let file = file.as_any().downcast_ref::<SimFile>().ok_or(io::ErrorKind::InvalidInput)?;
        let mut machine = self.0.lock();
        machine.plain_call("try_lock")?;
        let free = machine.locked.insert(file.inode);
        Ok(free.then(|| Box::new(SimLock(self.clone(), file.inode)) as LockGuard))
    }

    fn random(&self) -> io::Result<u64> {
        Ok(self.0.lock().random.u64(..))
    }

    fn time(&self) -> SystemTime {
        UNIX_EPOCH + SWITCHED_ON + self.ticks()
    }

    fn ticks(&self) -> Duration {
        let machine = self.0.lock();
        Duration::from_micros(machine.calls) + machine.paused
    }

    fn pause(&self, duration: Duration) {
        self.0.lock().paused += duration;
    }
}

struct SimLock(SimDisk, InodeNo);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.0.lock().locked.remove(&self.1);
    }
}

fn in_memory(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut machine = self.disk.0.lock();
        machine.plain_call("len")?;
        Ok(machine.world.inodes[self.inode.0].now.len() as u64)
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.disk.0.lock();
        machine.plain_call("read")?;
        Ok(machine.world.inodes[self.inode.0].now.read(in_memory(offset)?, to))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.disk.0.lock();
        let fault = machine.call("write")?;
        let mut at = in_memory(offset)?;
        let grows = at + bytes.len() > machine.world.inodes[self.inode.0].now.len();
        if machine.full && grows {
            return Err(fault::no_space());
        }
        let written = match fault {
            Some(Fault::Error | Fault::NoSpace) => 0,
            Some(Fault::ShortWrite) => machine.random.usize(..=bytes.len()),
            Some(Fault::Misdirected(by)) => {
                at = at.saturating_add_signed(by);
                bytes.len()
            }
            // What the power leaves of a write is for the crash to choose.
            None | Some(Fault::LyingSync | Fault::PowerLoss) => bytes.len(),
        };
        if written > 0 {
            machine.apply(Effect::Write { file: self.inode, at, bytes: bytes[..written].into() });
        }
        fault::outcome(fault)
    }

    fn copies_small_writes(&self) -> bool {
        true
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut machine = self.disk.0.lock();
        machine.plain_call("set_len")?;
        let len = in_memory(len)?;
        machine.apply(Effect::SetLen { file: self.inode, len });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut machine = self.disk.0.lock();
        let fault = machine.call("sync")?;
        match fault {
            None if !machine.lying => machine.apply(Effect::Sync(self.inode)),
            Some(Fault::Error | Fault::NoSpace | Fault::ShortWrite) => {
                machine.apply(Effect::FailedSync(self.inode));
            }
            _ => {}
        }
        fault::outcome(fault)
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
