//! What the machine's disk and cache hold: of every sector, length and name, what is stable and what
//! may have become of it since.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::SECTOR_BYTES;
use super::content::{Content, Sector};

/// A file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeNo(pub(super) usize);

/// A change that a call made.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Create(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir,
    Write {
        file: InodeNo,
        at: usize,
        bytes: Arc<[u8]>,
    },
    SetLen {
        file: InodeNo,
        len: usize,
    },
    Sync(InodeNo),
    /// A sync that failed: what it should have made stable counts as clean from here on.
    FailedSync(InodeNo),
    /// What no program does: another file in place of one, none in place of one, a bit that rots.
    Put(PathBuf, Arc<Content>),
    TakeAway(PathBuf),
    Rot {
        file: InodeNo,
        bit: usize,
    },
}

#[derive(Clone, Debug, Default)]
pub(super) struct World {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<PathBuf, InodeNo>,
    pub(super) stable_names: BTreeMap<PathBuf, InodeNo>,
    /// Since the directory was last synced, in order.
    pub(super) name_changes: Vec<NameChange>,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create(PathBuf, InodeNo),
    /// The file comes along, whatever has the old name where that change was lost.
    Rename(PathBuf, PathBuf, InodeNo),
    Remove(PathBuf),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) stable: Content,
    /// What the cache shows.
    pub(super) now: Content,
    /// What each sector may hold instead of what is stable, oldest first.
    pub(super) unstable: BTreeMap<usize, Vec<Version>>,
    /// The lengths that it had since its last sync, oldest first.
    pub(super) lens: Vec<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) sector: Arc<Sector>,
    /// Its sync failed, so that no later one makes it stable.
    lost: bool,
}

impl NameChange {
    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, InodeNo>) {
        match self {
            NameChange::Create(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

impl Inode {
    fn stable(content: Content) -> Inode {
        Inode { stable: content.clone(), now: content, ..Inode::default() }
    }

    /// Whether that changed anything.
    fn write(&mut self, at: usize, bytes: &[u8]) -> bool {
        let mut matters = false;
        let len = self.now.len();
        self.now.write(at, bytes);
        if self.now.len() != len {
            self.lens.push(self.now.len());
            matters = true;
        }
        let sectors = at / SECTOR_BYTES..(at + bytes.len()).div_ceil(SECTOR_BYTES);
        for number in sectors {
            let sector = self.now.sector(number);
            let unstable = self.unstable.contains_key(&number);
            if unstable || self.stable.sector(number) != sector {
                let version = Version { sector: Arc::new(*sector), lost: false };
                self.unstable.entry(number).or_default().push(version);
                matters = true;
            }
        }
        matters
    }

    fn set_len(&mut self, len: usize) {
        self.now.set_len(len);
        self.lens.push(len);
        // What was cut off is gone, also where the file grows again.
        self.unstable.retain(|number, _| number * SECTOR_BYTES < len);
    }

    fn sync(&mut self) {
        self.stable.set_len(self.now.len());
        self.lens.clear();
        self.unstable.retain(|number, versions| {
            let Some(newest) = versions.last().filter(|version| !version.lost) else {
                return true;
            };
            self.stable.put_sector(*number, &newest.sector);
            false
        });
    }

    fn rot(&mut self, bit: usize) {
        for content in [&mut self.now, &mut self.stable] {
            let mut byte = [0];
            if content.read(bit / 8, &mut byte) == 1 {
                content.write(bit / 8, &[byte[0] ^ 1 << (bit % 8)]);
            }
        }
    }

    fn lose(&mut self) {
        let versions = self.unstable.values_mut().flatten();
        versions.for_each(|version| version.lost = true);
    }
}

impl World {
    /// A machine after a power loss: what is there is stable.
    pub(super) fn stable(files: impl IntoIterator<Item = (PathBuf, Content)>) -> World {
        let mut world = World::default();
        for (path, content) in files {
            let inode = world.add(Inode::stable(content));
            world.names.insert(path, inode);
        }
        world.stable_names.clone_from(&world.names);
        world
    }

    /// Makes a change; whether it may have changed what a crash leaves.
    pub(super) fn apply(&mut self, effect: &Effect) -> bool {
        match effect {
            Effect::Create(path) => {
                let inode = self.add(Inode::default());
                self.change_names(NameChange::Create(path.clone(), inode));
            }
            Effect::Rename(from, to) => {
                if let Some(inode) = self.names.get(from) {
                    self.change_names(NameChange::Rename(from.clone(), to.clone(), *inode));
                }
            }
            Effect::Remove(path) => self.change_names(NameChange::Remove(path.clone())),
            Effect::SyncDir => {
                self.stable_names.clone_from(&self.names);
                self.name_changes.clear();
            }
            Effect::Write { file, at, bytes } => return self.inodes[file.0].write(*at, bytes),
            Effect::SetLen { file, len } => self.inodes[file.0].set_len(*len),
            Effect::Sync(file) => self.inodes[file.0].sync(),
            Effect::FailedSync(file) => self.inodes[file.0].lose(),
            Effect::Put(path, content) => self.put(path, Content::clone(content)),
            Effect::TakeAway(path) => {
                self.names.remove(path);
                self.stable_names.remove(path);
            }
            Effect::Rot { file, bit } => self.inodes[file.0].rot(*bit),
        }
        true
    }

    fn add(&mut self, inode: Inode) -> InodeNo {
        self.inodes.push(inode);
        InodeNo(self.inodes.len() - 1)
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn put(&mut self, path: &Path, content: Content) {
        let inode = self.add(Inode::stable(content));
        self.names.insert(path.to_owned(), inode);
        self.stable_names.insert(path.to_owned(), inode);
    }

    /// Tells it apart from others, by what a process would read.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, inode) in &self.names {
            path.hash(&mut hasher);
            self.inodes[inode.0].now.hash_into(&mut hasher);
        }
        hasher.finish()
    }
}
