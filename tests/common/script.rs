//! Scripts of everything that the engine does, run over a simulated disk beside a model.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    reason = "each test binary uses a part of it, and a test that fails says where"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rocstate::sim::SimDisk;
use rocstate::{Durability, DurableMap, Error, Generation, Options, Store, VolatileMap};

pub const DIR: &str = "/store";

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A commit of one entry, synced, or not.
    Put,
    PutProcess,
    /// One commit in two regions.
    Both,
    Remove,
    Clear,
    /// The first commit of a region that did not exist.
    Create,
    RemoveRegion,
    /// A volatile region is filled and discarded.
    Discard,
    Checkpoint,
    Sync,
    /// The store falls idle.
    Tend,
    /// The store is dropped and opened again, by the same machine.
    Reopen,
    /// A commit so large that two of them change the segment, synced, or not.
    Big,
    BigProcess,
    /// A bit of the newest checkpoint rots, and the store is opened again.
    Fallback,
    /// A thousand entries, so that the base has several pieces; and one in twelve of them replaced.
    Fill,
    Scatter,
    /// An entry of a region that no other step touches.
    Beside,
    /// A bit of the first block of the newest checkpoint rots, and the store is opened again and read.
    Rot,
}

/// Those that short scripts are enumerated over.
pub const OPS: [Op; 15] = [
    Op::Put,
    Op::PutProcess,
    Op::Both,
    Op::Remove,
    Op::Clear,
    Op::Create,
    Op::RemoveRegion,
    Op::Discard,
    Op::Checkpoint,
    Op::Sync,
    Op::Tend,
    Op::Reopen,
    Op::Big,
    Op::BigProcess,
    Op::Fallback,
];

/// A long script.
pub fn random_script(seed: u64, len: usize) -> Vec<Op> {
    let mut random = fastrand::Rng::with_seed(seed);
    let op = |random: &mut fastrand::Rng| match random.u8(..40) {
        0 => [Op::Fill, Op::Scatter, Op::Beside][random.usize(..3)],
        1..12 => Op::Put,
        12..18 => Op::PutProcess,
        roll => OPS[usize::from(roll) % OPS.len()],
    };
    (0..len).map(|_| op(&mut random)).collect()
}

pub type Content = BTreeMap<String, BTreeMap<u32, String>>;

/// What the state after each commit is, by its LSN.
#[derive(Debug, Default)]
pub struct Model {
    digests: Vec<u64>,
    content: Content,
    created: u32,
    puts: u32,
    /// A checkpoint was damaged, so that a boot may have something to heal; in its blocks, so that more
    /// damage might leave nothing to heal it from.
    pub damaged: bool,
    rotten: bool,
}

/// What a script promises on its way.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    /// This commit survives the loss of power.
    Kept(u64),
    /// This generation was seen.
    Born(Generation),
}

/// Tells contents apart.
pub fn digest(content: &Content) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

impl Model {
    pub fn new() -> Model {
        Model { digests: vec![digest(&Content::new())], ..Model::default() }
    }

    fn region(&mut self, name: &str) -> &mut BTreeMap<u32, String> {
        self.content.entry(name.to_owned()).or_default()
    }

    /// The commits of the state that was reached.
    pub fn len(&self) -> usize {
        self.digests.len() - 1
    }

    fn committed(&mut self) {
        self.digests.push(digest(&self.content));
    }

    /// Whether this is the state after a commit.
    pub fn is_state(&self, lsn: u64, found: u64) -> bool {
        usize::try_from(lsn).ok().and_then(|lsn| self.digests.get(lsn)) == Some(&found)
    }

    /// A program that opens the store again knows no more than the store does.
    pub fn fall_back_to(&mut self, lsn: u64, content: Content) {
        self.digests.truncate(usize::try_from(lsn).unwrap() + 1);
        self.content = content;
    }
}

pub fn options(disk: &SimDisk) -> Options {
    Store::options()
        .storage(disk.clone())
        .threads(false)
        .segment_bytes(64 << 10)
        .boot_budget(Duration::from_secs(3600))
}

/// Everything that a store holds.
pub fn content(store: &Store) -> Result<Content, Error> {
    let view = store.view();
    let mut content = Content::new();
    for region in store.regions() {
        if region.durable {
            let map: DurableMap<u32, String> = store.durable_map(&region.name)?;
            let entries = map.iter(&view).map(|entry| entry.map(|(k, v)| (*k, v.clone())));
            content.insert(region.name, entries.collect::<Result<_, _>>()?);
        }
    }
    Ok(content)
}

/// A program that runs a script.
pub struct Runner<'a> {
    disk: &'a SimDisk,
    store: Option<Store>,
    pub model: &'a RefCell<Model>,
    /// Is told what is promised.
    promise: &'a dyn Fn(Promise),
}

impl<'a> Runner<'a> {
    pub fn open(
        disk: &'a SimDisk,
        model: &'a RefCell<Model>,
        promise: &'a dyn Fn(Promise),
    ) -> Result<Runner<'a>, Error> {
        let mut runner = Runner { disk, store: None, model, promise };
        runner.reopen()?;
        Ok(runner)
    }

    pub fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub fn is_open(&self) -> bool {
        self.store.is_some()
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.store = None;
        let store = options(self.disk).open(DIR)?;
        (self.promise)(Promise::Born(store.generation()));
        (self.promise)(Promise::Kept(store.visible_lsn().get()));
        self.store = Some(store);
        Ok(())
    }

    fn map(&self, name: &str) -> Result<DurableMap<u32, String>, Error> {
        self.store().durable_map(name)
    }

    /// Commits what `change` stages, and the same in the model.
    fn commit(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut rocstate::Transaction) -> Result<(), Error>,
        modelled: impl FnOnce(&mut Model),
    ) -> Result<(), Error> {
        let mut tx = self.store().begin();
        change(&mut tx)?;
        {
            // What was begun may come to be, acknowledged or not.
            let mut model = self.model.borrow_mut();
            modelled(&mut model);
            model.committed();
        }
        let lsn = tx.commit_with(durability)?.get();
        if durability == Durability::Machine {
            (self.promise)(Promise::Kept(lsn));
        }
        Ok(())
    }

    fn put(&self, durability: Durability, names: &[&str], len: usize) -> Result<(), Error> {
        self.put_text(durability, names, &"x".repeat(len))
    }

    /// A value that spans blocks and looks like the headers of frames that claim something.
    fn put_big(&self, durability: Durability) -> Result<(), Error> {
        let shift = self.model.borrow().puts as usize % 4;
        let words = "\0 \0\0".repeat((130 << 10) / 4);
        self.put_text(durability, &["a"], &["x".repeat(shift), words].concat())
    }

    fn put_text(&self, durability: Durability, names: &[&str], text: &str) -> Result<(), Error> {
        let puts = {
            let mut model = self.model.borrow_mut();
            model.puts += 1;
            model.puts
        };
        let (key, value) = (puts % 5, format!("{puts}:{text}"));
        let maps = names.iter().map(|name| self.map(name)).collect::<Result<Vec<_>, _>>()?;
        self.commit(
            durability,
            |tx| maps.iter().try_for_each(|map| map.insert(tx, key, value.clone()).map(drop)),
            |model| {
                for name in names {
                    model.region(name).insert(key, value.clone());
                }
            },
        )
    }

    pub fn step(&mut self, op: Op) -> Result<(), Error> {
        let machine = Durability::Machine;
        match op {
            Op::Put => self.put(machine, &["a"], 40),
            Op::PutProcess => self.put(Durability::Process, &["a"], 700),
            Op::Both => self.put(machine, &["a", "b"], 20),
            Op::Big => self.put_big(machine),
            Op::BigProcess => self.put_big(Durability::Process),
            Op::Fill => self.fill(1),
            Op::Scatter => self.fill(12),
            Op::Beside => self.put(machine, &["beside"], 9),
            Op::Remove => self.remove(),
            Op::Clear => self.clear(),
            Op::Create => {
                let name = {
                    let mut model = self.model.borrow_mut();
                    model.created += 1;
                    format!("new {}", model.created)
                };
                self.put(machine, &[&name], 10)
            }
            Op::RemoveRegion => self.remove_region(),
            Op::Discard => self.discard(),
            Op::Checkpoint => {
                let lsn = self.store().checkpoint()?;
                (self.promise)(Promise::Kept(lsn.get()));
                Ok(())
            }
            Op::Sync => {
                let lsn = self.store().sync()?;
                (self.promise)(Promise::Kept(lsn.get()));
                Ok(())
            }
            Op::Tend => {
                self.store().tend()?;
                (self.promise)(Promise::Kept(self.store().visible_lsn().get()));
                Ok(())
            }
            Op::Reopen => self.reopen(),
            Op::Fallback | Op::Rot if self.model.borrow().rotten => self.reopen(),
            // A footer that is damaged still leaves no room for a damaged block.
            Op::Rot if self.model.borrow().damaged => self.reopen(),
            Op::Fallback => self.rot_and_reopen(|len| len - 40),
            Op::Rot => {
                self.model.borrow_mut().rotten = true;
                self.rot_and_reopen(|_| 64 + 40)?;
                content(self.store())?;
                // What was found to be damaged is written anew when there is time.
                self.store().tend()
            }
        }
    }

    fn fill(&self, step: usize) -> Result<(), Error> {
        let map = self.map("a")?;
        let round = self.model.borrow().len();
        let text = "y".repeat(90);
        let entry = |n: u32| (n * 3 + 1, format!("filled {n} in {round} {text}"));
        let entries = || (0..1_000).step_by(step).map(entry);
        self.commit(
            Durability::Machine,
            |tx| entries().try_for_each(|(k, v)| map.insert(tx, k, v).map(drop)),
            |model| model.region("a").extend(entries()),
        )
    }

    /// Removes the first entry, if there is one; else it puts one.
    fn remove(&self) -> Result<(), Error> {
        let first = self.model.borrow().content.get("a").and_then(|a| a.keys().next().copied());
        let Some(key) = first else { return self.put(Durability::Machine, &["a"], 5) };
        let map = self.map("a")?;
        self.commit(
            Durability::Machine,
            |tx| map.remove(tx, &key).map(drop),
            |model| drop(model.region("a").remove(&key)),
        )
    }

    fn clear(&self) -> Result<(), Error> {
        let map = self.map("a")?;
        self.commit(
            Durability::Machine,
            |tx| {
                map.clear(tx)?;
                map.insert(tx, 77, "after the clear".to_owned()).map(drop)
            },
            |model| {
                *model.region("a") = BTreeMap::from([(77, "after the clear".to_owned())]);
            },
        )
    }

    /// Removes region `b`, or the first one that there is; else it puts something.
    fn remove_region(&self) -> Result<(), Error> {
        let name = {
            let content = &self.model.borrow().content;
            let b = content.keys().find(|name| *name == "b");
            b.or_else(|| content.keys().next()).cloned()
        };
        let Some(name) = name else { return self.put(Durability::Machine, &["b"], 5) };
        self.commit(
            Durability::Machine,
            |tx| tx.remove_region(&name).map(|removed| assert!(removed)),
            |model| drop(model.content.remove(&name)),
        )
    }

    fn discard(&self) -> Result<(), Error> {
        let map: VolatileMap<u32, u32> = self.store().volatile_map("sessions")?;
        let born = map.generation();
        (self.promise)(Promise::Born(born));
        map.insert(1, 1);
        let next = map.discard();
        assert!(born < next && map.is_empty() && map.check(born).is_err());
        (self.promise)(Promise::Born(next));
        Ok(())
    }

    /// Rots a byte of the newest checkpoint, where it has an older one to be healed from.
    fn rot_and_reopen(&mut self, byte: impl Fn(usize) -> usize) -> Result<(), Error> {
        self.store = None;
        // The first one has no older one to fall back to.
        let mut checkpoints = checkpoints(self.disk);
        if let (Some(newest), false) = (checkpoints.pop(), checkpoints.is_empty()) {
            let len = self.disk.contents(&newest).unwrap().len();
            self.disk.flip_bit(&newest, byte(len) * 8);
            self.model.borrow_mut().damaged = true;
        }
        self.reopen()
    }
}

/// The checkpoint files of a store, oldest first.
pub fn checkpoints(disk: &SimDisk) -> Vec<PathBuf> {
    named(disk, "checkpoint-")
}

/// The segments of a store, oldest first.
pub fn segments(disk: &SimDisk) -> Vec<PathBuf> {
    named(disk, "log-")
}

fn named(disk: &SimDisk, prefix: &str) -> Vec<PathBuf> {
    let whole = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(prefix) && path.extension().is_some_and(|extension| extension == "roc")
    };
    disk.files().into_iter().filter(whole).collect()
}

/// Runs a script to its end, or to its first error.
pub fn run(
    disk: &SimDisk,
    script: &[Op],
    model: &RefCell<Model>,
    promise: &dyn Fn(Promise),
) -> Result<(), Error> {
    let mut runner = Runner::open(disk, model, promise)?;
    script.iter().try_for_each(|op| runner.step(*op))
}

/// Whether a path is that of a file that is still being made.
pub fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}
