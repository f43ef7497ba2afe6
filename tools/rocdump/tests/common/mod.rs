//! Running the tool, and stores whose every state is known.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "each test binary uses a part of it, and a test that fails says where"
)]

#[path = "../../../../tests/common/settings.rs"]
pub mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rocdump::{Exit, Rocdump};
use rocstate::{DurableCell, DurableMap, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use settings::seeded;

/// What a run printed.
#[derive(Debug)]
pub struct Ran {
    pub exit: Exit,
    pub out: String,
    pub errors: String,
}

impl Ran {
    /// The one JSON document that it printed.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|why| panic!("{why}: {self:?}"))
    }

    /// The lines of JSON that it printed.
    pub fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn expect(self, exit: Exit) -> Ran {
        assert_eq!(self.exit, exit, "{}\n{}", self.out, self.errors);
        self
    }
}

/// Runs the tool in this process.
pub fn rocdump(arguments: &[&str]) -> Ran {
    run(Rocdump::new(), arguments)
}

pub fn run(tool: Rocdump, arguments: &[&str]) -> Ran {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let all = ["rocdump", "--color", "never"].iter().chain(arguments);
    let exit = tool.run_with(all, &mut out, &mut errors);
    Ran { exit, out: String::from_utf8(out).unwrap(), errors: String::from_utf8(errors).unwrap() }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kind {
    Plain,
    Tagged(String),
    Both { left: Option<i8>, right: (u16, char) },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Thing {
    pub name: String,
    pub kind: Kind,
    pub parts: Vec<u32>,
}

/// The state after a commit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub things: BTreeMap<u32, Thing>,
    pub pairs: BTreeMap<(String, i64), f64>,
    pub cell: Option<u64>,
}

impl Model {
    /// The entries of each region that exists, as the tool shows them.
    pub fn shown(&self) -> BTreeMap<String, Vec<(Value, Value)>> {
        fn pair(key: impl Serialize, value: impl Serialize) -> (Value, Value) {
            (serde_json::to_value(key).unwrap(), serde_json::to_value(value).unwrap())
        }
        let things = self.things.iter().map(|(key, value)| pair(key, value)).collect();
        let pairs = self.pairs.iter().map(|(key, value)| pair(key, value)).collect();
        let cell = self.cell.iter().map(|value| pair((), value)).collect();
        [("things".to_owned(), things), ("pairs".to_owned(), pairs), ("cell".to_owned(), cell)]
            .into()
    }
}

/// What is done to a store, one commit each.
pub struct Work {
    pub random: fastrand::Rng,
    /// The state after each commit; the first one is before all.
    pub states: Vec<Model>,
}

impl Work {
    pub fn new(seed: u64) -> Work {
        Work { random: fastrand::Rng::with_seed(seeded(seed)), states: vec![Model::default()] }
    }

    pub fn now(&self) -> &Model {
        self.states.last().unwrap()
    }

    pub fn thing(&mut self) -> Thing {
        let random = &mut self.random;
        let kind = match random.u8(..3) {
            0 => Kind::Plain,
            1 => Kind::Tagged("a \"tag\" \u{1F980}\n".repeat(random.usize(..3))),
            _ => Kind::Both {
                left: if random.bool() { Some(random.i8(..)) } else { None },
                right: (random.u16(..), random.char(..)),
            },
        };
        let parts = (0..random.usize(..6)).map(|_| random.u32(..)).collect();
        Thing { name: format!("thing {}", random.u32(..1000)), kind, parts }
    }

    /// Makes commits.
    pub fn commits(&mut self, store: &Store, count: usize) {
        let things: DurableMap<u32, Thing> = store.durable_map("things").unwrap();
        let pairs: DurableMap<(String, i64), f64> = store.durable_map("pairs").unwrap();
        let cell: DurableCell<u64> = store.durable_cell("cell").unwrap();
        // Several in flight at a time, so that some share a frame.
        let mut flying = Vec::new();
        for _ in 0..count {
            let mut next = self.now().clone();
            let mut tx = store.begin();
            tx.label(["add", "take away", "both"][self.random.usize(..3)]);
            for _ in 0..=self.random.usize(..3) {
                let (key, thing) = (self.random.u32(..80), self.thing());
                things.insert(&mut tx, key, thing.clone()).unwrap();
                next.things.insert(key, thing);
            }
            match self.random.u8(..12) {
                0..4 => {
                    let key = (
                        ["ann", "bob\0", ""][self.random.usize(..3)].to_owned(),
                        self.random.i64(-3..3),
                    );
                    let value = self.random.f64() * 1e9;
                    pairs.insert(&mut tx, key.clone(), value).unwrap();
                    next.pairs.insert(key, value);
                }
                4..8 => {
                    let key = self.random.u32(..80);
                    things.remove(&mut tx, &key).unwrap();
                    next.things.remove(&key);
                }
                8 => {
                    pairs.clear(&mut tx).unwrap();
                    next.pairs.clear();
                }
                9 => {
                    cell.take(&mut tx).unwrap();
                    next.cell = None;
                }
                _ => {}
            }
            let value = self.random.u64(..);
            if self.random.bool() || next.cell.is_none() && self.states.len() == 1 {
                cell.set(&mut tx, value).unwrap();
                next.cell = Some(value);
            }
            let submitted = tx.submit();
            assert_eq!(submitted.lsn().unwrap().get(), self.states.len() as u64);
            flying.push(submitted);
            self.states.push(next);
            if self.random.u8(..6) == 0 {
                flying.drain(..).for_each(|submitted| {
                    submitted.wait().unwrap();
                });
            }
        }
        flying.drain(..).for_each(|submitted| {
            submitted.wait().unwrap();
        });
    }

    /// A store with several segments, boots and checkpoints, whose whole log is kept as far as can be.
    pub fn store(&mut self, path: &Path) {
        for boot in 0..3 {
            let store = Store::options().segment_bytes(64 << 10).open(path).unwrap();
            self.commits(&store, 40);
            if boot > 0 {
                store.checkpoint().unwrap();
            }
            self.commits(&store, 30);
            idle();
        }
    }
}

/// Long enough for the log to say that its last commit was synced.
pub fn idle() {
    std::thread::sleep(std::time::Duration::from_millis(400));
}

/// What a store holds, as a program reads it.
pub fn read(path: &Path) -> Model {
    let store = Store::options().create(false).open(path).unwrap();
    let things: DurableMap<u32, Thing> = store.durable_map("things").unwrap();
    let pairs: DurableMap<(String, i64), f64> = store.durable_map("pairs").unwrap();
    let cell: DurableCell<u64> = store.durable_cell("cell").unwrap();
    let view = store.view();
    Model {
        things: things.iter(&view).map(|e| e.map(|(k, v)| (*k, v.clone())).unwrap()).collect(),
        pairs: pairs.iter(&view).map(|e| e.map(|(k, v)| (k.clone(), *v)).unwrap()).collect(),
        cell: cell.get(&view).unwrap().copied(),
    }
}

/// What `scan --json` shows of a region, or nothing if there is no such region yet.
pub fn scanned(store: &str, region: &str, at: &str) -> Vec<(Value, Value)> {
    let ran = rocdump(&["--json", "scan", store, region, "--at", at]);
    if ran.exit == Exit::No {
        return Vec::new();
    }
    let lines = ran.expect(Exit::Fine).lines();
    lines[1..].iter().map(|line| (line["key"].clone(), line["value"].clone())).collect()
}

/// The files of a store, but for those that are being made.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let kept = paths.filter(|path| path.extension().is_none_or(|extension| extension != "tmp"));
    kept.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A store and all that it ever held.
pub fn store(seed: u64) -> (tempfile::TempDir, Work) {
    let dir = tempfile::tempdir().unwrap();
    let mut work = Work::new(seed);
    work.store(dir.path());
    (dir, work)
}

/// The first point of the history that is still kept.
pub fn oldest(store: &str) -> usize {
    let info = rocdump(&["--json", "timeline", store]).expect(Exit::Fine).json();
    let log: usize = info["after_lsn"].as_str().unwrap().parse().unwrap();
    let checkpoint = info["checkpoints"][0]["lsn"].as_str().map_or(0, |lsn| lsn.parse().unwrap());
    if log == 0 { 0 } else { checkpoint }
}

pub fn check_at(store: &str, at: &str, model: &Model) {
    for (region, entries) in model.shown() {
        assert_eq!(scanned(store, &region, at), entries, "{region} at {at}");
    }
}
