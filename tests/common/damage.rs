//! Damage of every kind to small stores of several shapes: what must come of it is the exact state, or a
//! typed error with the place and what is at stake.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "each test binary uses a part of it, and a test that fails says where"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use rocstate::sim::{Fault, SimDisk};
use rocstate::{Error, ErrorKind, Store};

use super::script::{self, Model, Op, content, options};

/// What was done to a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    BitFlipped,
    CutShort,
    SectorZeroed,
    BlockMisdirected,
    FileRemoved,
    FileDuplicated,
    FilesSwapped,
    FileRenamed,
    StaleFile,
    ForeignFile,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Came {
    /// The exact state; what was damaged is needed by nobody.
    Exact,
    /// The exact state, and the report says what was healed.
    Healed,
    /// An error when the store is opened.
    RefusedAtOpen,
    /// An error for whoever reads what was damaged, and for nobody else.
    RefusedOnRead,
    /// Older than it was: the newest segment was replaced by an older copy of the same length.
    OlderCopy,
    /// Without the last commit, which nothing on disk was a witness of yet.
    LastGroup,
}

/// What cannot be told from a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excused {
    Nothing,
    OlderCopy,
}

/// Outcomes by class.
#[derive(Clone, Debug, Default)]
pub struct Table(BTreeMap<(Kind, Came), u64>);

impl Table {
    pub fn add(&mut self, kind: Kind, came: Came) {
        *self.0.entry((kind, came)).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Table) {
        for (class, count) in &other.0 {
            *self.0.entry(*class).or_default() += count;
        }
    }

    pub fn count(&self, kind: Kind, came: Came) -> u64 {
        self.0.get(&(kind, came)).copied().unwrap_or(0)
    }

    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            Came::Exact,
            Came::Healed,
            Came::RefusedAtOpen,
            Came::RefusedOnRead,
            Came::OlderCopy,
            Came::LastGroup,
        ];
        let heads = "exact | healed | refused at open | refused on read | older copy | last group";
        writeln!(f, "| damage | {heads} |")?;
        writeln!(f, "|---|---|---|---|---|---|---|")?;
        let kinds: BTreeSet<Kind> = self.0.keys().map(|(kind, _)| *kind).collect();
        for kind in kinds {
            let counts = all.map(|came| self.count(kind, came).to_string());
            writeln!(f, "| {kind:?} | {} |", counts.join(" | "))?;
        }
        Ok(())
    }
}

/// A store of some shape, idle, so that its last commit has a witness; and all files that it ever had.
pub struct Subject {
    name: &'static str,
    disk: SimDisk,
    found: u64,
    /// Where the last commit has no witness: the state without it.
    before_last: Option<u64>,
    stale: Vec<(PathBuf, Vec<u8>)>,
    foreign: SimDisk,
}

/// The shapes that are damaged.
pub fn shapes() -> Vec<Subject> {
    use Op::{
        Both, Checkpoint, Clear, Create, Put, PutProcess, Remove, RemoveRegion, Reopen, Scatter,
        Tend,
    };
    vec![
        Subject::new("one segment", &[Put, Both, PutProcess, Put, Clear, Create, Put, Remove]),
        Subject::new(
            "many segments",
            &[Put, Both, Reopen, Put, PutProcess, Reopen, Remove, Put, Tend, Reopen, Create, Put],
        ),
        // Without redundancy: the log that it was made from is gone.
        Subject::new("one checkpoint", &[Put, Scatter, Reopen, Both, Checkpoint, Put, Reopen, Put]),
        Subject::new(
            "several checkpoints",
            &[Put, Both, Put, Checkpoint, Put, Remove, Create, Checkpoint, Put, Reopen, Both, Put],
        ),
        Subject::new(
            "merged",
            &[
                Scatter,
                Both,
                Checkpoint,
                Put,
                Checkpoint,
                Remove,
                Put,
                Checkpoint,
                Scatter,
                Checkpoint,
                RemoveRegion,
                Put,
                Checkpoint,
                Reopen,
                Put,
                Checkpoint,
                Put,
                PutProcess,
            ],
        ),
        Subject::mid_checkpoint(),
    ]
}

/// A store whose last commit has no witness yet: damage to it looks like a crash before it.
pub fn busy() -> Subject {
    let script = [Op::Put, Op::Both, Op::Put, Op::Remove];
    let disk = SimDisk::new(11);
    let model = RefCell::new(Model::new());
    let mut runner = script::Runner::open(&disk, &model, &|_| {}).unwrap();
    for op in script {
        runner.step(op).unwrap();
    }
    let before_last = digest(runner.store()).unwrap();
    runner.step(Op::Put).unwrap();
    drop(runner);
    let subject = Subject::of("busy", disk.snapshot(), Vec::new(), SimDisk::new(12));
    Subject { before_last: Some(before_last), ..subject }
}

fn digest(store: &Store) -> Result<u64, Error> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    content(store)?.hash(&mut hasher);
    Ok(hasher.finish())
}

impl Subject {
    fn new(name: &'static str, script: &[Op]) -> Subject {
        let mut stale: Vec<(PathBuf, Vec<u8>)> = Vec::new();
        let disk = written(11, script, &mut |disk| {
            for path in disk.files() {
                let file = (path.clone(), disk.contents(&path).unwrap());
                if !stale.contains(&file) {
                    stale.push(file);
                }
            }
        });
        Subject::of(name, disk, stale, foreign(script))
    }

    /// The power went while a checkpoint was written.
    fn mid_checkpoint() -> Subject {
        let script = [Op::Put, Op::Scatter, Op::Checkpoint, Op::Put, Op::Both];
        let disk = written(11, &script, &mut |_| {});
        let next = disk.kill();
        let store = options(&next).open(script::DIR).unwrap();
        next.inject(next.calls() + 12, Fault::PowerLoss);
        assert!(store.checkpoint().is_err(), "the power goes while it is taken");
        drop(store);
        let disk = next.kill();
        assert!(disk.files().iter().any(|path| script::is_temporary(path)));
        Subject::of("mid-checkpoint", disk, Vec::new(), foreign(&script))
    }

    fn of(
        name: &'static str,
        disk: SimDisk,
        stale: Vec<(PathBuf, Vec<u8>)>,
        foreign: SimDisk,
    ) -> Subject {
        let store = options(&disk.snapshot()).open(script::DIR).unwrap();
        let found = digest(&store).unwrap();
        assert!(store.boot_report().healed.is_empty(), "{name}: {}", store.boot_report());
        Subject { name, disk, found, before_last: None, stale, foreign }
    }

    /// What comes of a damaged copy, or in what way that is wrong.
    fn outcome(&self, disk: &SimDisk, excused: Excused) -> Result<Came, String> {
        let store = match options(disk).open(script::DIR) {
            Ok(store) => store,
            Err(error) => return tells_enough(&error).map(|()| Came::RefusedAtOpen),
        };
        match digest(&store) {
            Ok(found) if found == self.found => {
                let healed = [&store.boot_report().healed, &store.stats().healed];
                Ok(if healed.iter().all(|notes| notes.is_empty()) {
                    Came::Exact
                } else {
                    Came::Healed
                })
            }
            Ok(_) if excused == Excused::OlderCopy => Ok(Came::OlderCopy),
            Ok(found) if self.before_last == Some(found) => Ok(Came::LastGroup),
            Ok(_) => Err(format!("another state, in silence: {}", store.boot_report())),
            Err(error) => tells_enough(&error).map(|()| Came::RefusedOnRead),
        }
    }

    /// Does something to a copy, and adds what came of it.
    fn with(
        &self,
        table: &mut Table,
        kind: Kind,
        what: &dyn Fn() -> String,
        damage: impl FnOnce(&SimDisk),
    ) -> Result<(), String> {
        self.with_excuse(table, kind, Excused::Nothing, what, damage)
    }

    fn with_excuse(
        &self,
        table: &mut Table,
        kind: Kind,
        excused: Excused,
        what: &dyn Fn() -> String,
        damage: impl FnOnce(&SimDisk),
    ) -> Result<(), String> {
        let disk = self.disk.snapshot();
        damage(&disk);
        let came = self.outcome(&disk, excused);
        table.add(kind, came.map_err(|why| format!("{}: {}: {why}", self.name, what()))?);
        Ok(())
    }

    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let with_bytes = |path: PathBuf| {
            let bytes = self.disk.contents(&path).unwrap();
            (path, bytes)
        };
        self.disk.files().into_iter().map(with_bytes).collect()
    }

    /// Flips bits: every one where a file says something, and one in `padding` where it has zeros; of
    /// both, only each `stride`-th.
    pub fn flip_bits(&self, stride: usize, padding: usize) -> Result<Table, String> {
        let mut table = Table::default();
        for (path, bytes) in self.files() {
            let said = (0..bytes.len()).filter(|at| bytes[*at] != 0);
            // What follows something is as likely to be read.
            let near =
                said.clone().flat_map(|at| at / 64 * 64..(at / 64 * 64 + 64).min(bytes.len()));
            let near: BTreeSet<usize> = near.collect();
            let bits = near.iter().flat_map(|at| at * 8..at * 8 + 8).step_by(stride);
            let rest = (0..bytes.len() * 8)
                .step_by(padding.saturating_mul(stride))
                .filter(|bit| !near.contains(&(bit / 8)));
            for bit in bits.chain(rest) {
                let what = || format!("bit {bit} of {} flipped", path.display());
                self.with(&mut table, Kind::BitFlipped, &what, |disk| disk.flip_bit(&path, bit))?;
            }
        }
        Ok(table)
    }

    /// Cuts every file at every `stride`-th length.
    pub fn cut(&self, stride: usize) -> Result<Table, String> {
        let mut table = Table::default();
        for (path, bytes) in self.files() {
            for len in (0..bytes.len()).rev().step_by(stride) {
                let what = || format!("{} cut to {len} bytes", path.display());
                let cut = &bytes[..len];
                self.with(&mut table, Kind::CutShort, &what, |disk| disk.put(&path, cut))?;
            }
        }
        Ok(table)
    }

    /// Zeroes every sector that holds something.
    pub fn zero_sectors(&self) -> Result<Table, String> {
        let mut table = Table::default();
        for (path, bytes) in self.files() {
            for at in (0..bytes.len()).step_by(512) {
                let end = (at + 512).min(bytes.len());
                if bytes[at..end].iter().all(|byte| *byte == 0) {
                    continue;
                }
                let mut zeroed = bytes.clone();
                zeroed[at..end].fill(0);
                let what = || format!("the sector at {at} of {} zeroed", path.display());
                self.with(&mut table, Kind::SectorZeroed, &what, |disk| disk.put(&path, &zeroed))?;
            }
        }
        Ok(table)
    }

    /// Puts each block that holds something, of any file, over each other one of the same file.
    pub fn misdirect_blocks(&self, stride: usize) -> Result<Table, String> {
        let mut table = Table::default();
        for (path, bytes) in self.files() {
            let used =
                |at: &usize| bytes[*at..(*at + 512).min(bytes.len())].iter().any(|byte| *byte != 0);
            let blocks: Vec<usize> = (0..bytes.len()).step_by(512).filter(used).collect();
            let pairs = blocks.iter().flat_map(|from| blocks.iter().map(move |to| (*from, *to)));
            for (from, to) in pairs.filter(|(from, to)| from != to).step_by(stride) {
                let len = 512.min(bytes.len() - from.max(to));
                let mut bad = bytes.clone();
                bad.copy_within(from..from + len, to);
                let what = || format!("the sector at {from} of {} over {to}", path.display());
                self.with(&mut table, Kind::BlockMisdirected, &what, |disk| disk.put(&path, &bad))?;
            }
        }
        Ok(table)
    }

    /// Removes, duplicates, swaps and renames whole files, and brings in those of an earlier time and of
    /// another store.
    pub fn move_files(&self) -> Result<Table, String> {
        let mut table = Table::default();
        let files = self.files();
        for (path, bytes) in &files {
            let what = |how: &str| format!("{} {how}", path.display());
            self.with(&mut table, Kind::FileRemoved, &|| what("removed"), |disk| {
                disk.take_away(path);
            })?;
            for other in numbered_like(path) {
                let to = || what(&format!("copied to {}", other.display()));
                self.with(&mut table, Kind::FileDuplicated, &to, |disk| disk.put(&other, bytes))?;
                let to = || what(&format!("renamed to {}", other.display()));
                self.with(&mut table, Kind::FileRenamed, &to, |disk| {
                    disk.put(&other, bytes);
                    disk.take_away(path);
                })?;
            }
            for (other, others) in files.iter().filter(|(other, _)| other > path) {
                let with = || what(&format!("swapped with {}", other.display()));
                self.with(&mut table, Kind::FilesSwapped, &with, |disk| {
                    disk.put(path, others);
                    disk.put(other, bytes);
                })?;
            }
        }
        for (path, bytes) in &self.stale {
            let now = self.disk.contents(path);
            if now.as_ref() == Some(bytes) {
                continue;
            }
            // A crash could have lost what such a copy lacks.
            let as_long = now.is_some_and(|now| now.len() == bytes.len());
            let excused = if as_long && Some(path) == script::segments(&self.disk).last() {
                Excused::OlderCopy
            } else {
                Excused::Nothing
            };
            let what = || format!("an older {} ({} bytes)", path.display(), bytes.len());
            let put = |disk: &SimDisk| disk.put(path, bytes);
            self.with_excuse(&mut table, Kind::StaleFile, excused, &what, put)?;
        }
        for path in self.foreign.files() {
            let bytes = self.foreign.contents(&path).unwrap();
            let what = || format!("{} of another store", path.display());
            self.with(&mut table, Kind::ForeignFile, &what, |disk| disk.put(&path, &bytes))?;
        }
        Ok(table)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// A store that a script has written, idle and closed; `each` looks at it after every step.
fn written(seed: u64, script: &[Op], each: &mut dyn FnMut(&SimDisk)) -> SimDisk {
    let disk = SimDisk::new(seed);
    let model = RefCell::new(Model::new());
    let mut runner = script::Runner::open(&disk, &model, &|_| {}).unwrap();
    for op in script {
        runner.step(*op).unwrap();
        each(&disk);
    }
    runner.step(Op::Tend).unwrap();
    drop(runner);
    disk.snapshot()
}

/// Another store that has come about the same way, and holds something else.
fn foreign(script: &[Op]) -> SimDisk {
    written(12, &[&[Op::Both], script].concat(), &mut |_| {})
}

/// The names beside this one: the numbers before and after.
fn numbered_like(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let Some((prefix, number)) = name.strip_suffix(".roc").and_then(|name| name.split_once('-'))
    else {
        return Vec::new();
    };
    let number: u64 = number.parse().unwrap();
    let others = [number - 1, number + 1, number + 2].into_iter().filter(|number| *number > 0);
    others.map(|number| path.with_file_name(format!("{prefix}-{number:010}.roc"))).collect()
}

/// A refusal says which file, where in it, and what is at stake.
fn tells_enough(error: &Error) -> Result<(), String> {
    let known = matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NewerFormat);
    let place = error.path().is_some() && error.offset().is_some();
    // A newer format is no damage, and what a region cannot read has keys.
    let stake = error.kind() == ErrorKind::NewerFormat
        || error.commits_at_stake().is_some()
        || error.keys().is_some();
    if known && place && stake { Ok(()) } else { Err(format!("it does not tell enough: {error}")) }
}
