//! A disk in memory that loses power: it knows what is stable, and after a crash yields an image
//! that a real disk may hold.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rocstate::{LockGuard, OpenMode, Storage, StorageFile};

const SECTOR: usize = 512;

/// Random enough, and repeatable.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.roll() as usize) % limit.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

#[derive(Debug, Default)]
struct Inode {
    stable: Vec<u8>,
    now: Vec<u8>,
    /// Writes and lengths since the last sync, in order.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    stable_names: BTreeMap<PathBuf, usize>,
    unsynced_names: Vec<NameChange>,
    locked: bool,
    calls: u64,
    crash_at: Option<u64>,
    /// Negative controls: these do nothing but say that they did.
    pub skip_sync: bool,
    pub skip_sync_dir: bool,
}

impl World {
    /// Counts a call; from the crash on nothing happens any more.
    fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        match self.crash_at {
            Some(at) if self.calls > at => Err(io::Error::other("the power is gone")),
            _ => Ok(()),
        }
    }
}

fn apply_name(names: &mut BTreeMap<PathBuf, usize>, change: &NameChange) {
    match change {
        NameChange::Set(path, inode) => {
            names.insert(path.clone(), *inode);
        }
        NameChange::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
        NameChange::Remove(path) => {
            names.remove(path);
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct SimDisk(Arc<Mutex<World>>);

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimDisk {
    pub fn calls(&self) -> u64 {
        self.0.lock().unwrap().calls
    }

    pub fn crash_at(&self, call: u64) {
        self.0.lock().unwrap().crash_at = Some(call);
    }

    pub fn lie(&self, sync: bool, sync_dir: bool) {
        let mut world = self.0.lock().unwrap();
        (world.skip_sync, world.skip_sync_dir) = (sync, sync_dir);
    }

    /// What the disk may hold after the power went: a prefix of the unsynced changes of names, and
    /// of each file any subset of its unsynced sectors, one of them torn.
    pub fn image(&self, dice: &mut Dice) -> SimDisk {
        let world = self.0.lock().unwrap();
        let mut names = world.stable_names.clone();
        let some = match dice.below(3) {
            0 => 0,
            1 => world.unsynced_names.len(),
            _ => dice.below(world.unsynced_names.len() + 1),
        };
        for change in world.unsynced_names.iter().take(some) {
            apply_name(&mut names, change);
        }
        let mut image = World::default();
        for (path, inode) in names {
            let content = surviving(&world.inodes[inode], dice);
            image.inodes.push(Inode { stable: content.clone(), now: content, unsynced: vec![] });
            image.names.insert(path, image.inodes.len() - 1);
        }
        image.stable_names = image.names.clone();
        SimDisk(Arc::new(Mutex::new(image)))
    }
}

fn surviving(inode: &Inode, dice: &mut Dice) -> Vec<u8> {
    let mut content = inode.stable.clone();
    let mood = dice.below(4);
    for change in &inode.unsynced {
        match change {
            Change::Len(len) => {
                if mood != 0 {
                    content.resize(*len, 0);
                }
            }
            Change::Write(offset, bytes) => {
                for begin in (0..bytes.len()).step_by(SECTOR) {
                    let keep = match mood {
                        0 => false,
                        1 => true,
                        _ => dice.one_in(2),
                    };
                    if !keep {
                        continue;
                    }
                    let mut end = (begin + SECTOR).min(bytes.len());
                    if dice.one_in(16) {
                        end = begin + dice.below(end - begin + 1);
                    }
                    if content.len() < offset + end {
                        content.resize(offset + end, 0);
                    }
                    content[offset + begin..offset + end].copy_from_slice(&bytes[begin..end]);
                }
            }
        }
    }
    content
}

impl Storage for SimDisk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut world = self.0.lock().unwrap();
        world.call()?;
        let inside = world.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let mut world = self.0.lock().unwrap();
        world.call()?;
        let inode = match (world.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                world.names.insert(path.to_owned(), inode);
                world.unsynced_names.push(NameChange::Set(path.to_owned(), inode));
                inode
            }
        };
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        world.call()?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        apply_name(&mut world.names, &change);
        world.unsynced_names.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        world.call()?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Remove(path.to_owned());
        apply_name(&mut world.names, &change);
        world.unsynced_names.push(change);
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut world = self.0.lock().unwrap();
        world.call()?;
        if !world.skip_sync_dir {
            world.stable_names = world.names.clone();
            world.unsynced_names.clear();
        }
        Ok(())
    }

    fn try_lock(&self, _: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        let mut world = self.0.lock().unwrap();
        if std::mem::replace(&mut world.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(SimLock(self.clone()))))
    }
}

struct SimLock(SimDisk);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().locked = false;
    }
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut world = self.disk.0.lock().unwrap();
        world.call()?;
        Ok(world.inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.disk.0.lock().unwrap();
        world.call()?;
        let now = &world.inodes[self.inode].now;
        let from = (offset as usize).min(now.len());
        let count = to.len().min(now.len() - from);
        to[..count].copy_from_slice(&now[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock().unwrap();
        // The call at which the power goes may still have reached the disk, in part.
        let dying = world.crash_at == Some(world.calls);
        let outcome = world.call();
        if outcome.is_err() && !dying {
            return outcome;
        }
        let offset = offset as usize;
        let inode = &mut world.inodes[self.inode];
        if inode.now.len() < offset + bytes.len() {
            inode.now.resize(offset + bytes.len(), 0);
        }
        inode.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        inode.unsynced.push(Change::Write(offset, bytes.to_vec()));
        outcome
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut world = self.disk.0.lock().unwrap();
        world.call()?;
        let inode = &mut world.inodes[self.inode];
        inode.now.resize(len as usize, 0);
        inode.unsynced.push(Change::Len(len as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.disk.0.lock().unwrap();
        world.call()?;
        if !world.skip_sync {
            let inode = &mut world.inodes[self.inode];
            inode.stable = inode.now.clone();
            inode.unsynced.clear();
        }
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
