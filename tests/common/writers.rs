//! Writers whose power goes: a process of their own, and what it was told of its commits.
//!
//! Each thread writes its numbers in turn into so many slots of one map, so that what is there afterwards
//! says up to which one it is. They have a process since the system kills it (SIGBUS) where the file
//! system under a memory map goes away.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that fails says where"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rocstate::control::{ALL, Step, without};
use rocstate::{Durability, DurableMap, Error, Options, Store};

type Map = DurableMap<u32, (u32, String)>;

const SLOTS: u32 = 100;
const THREADS: u32 = 3;

pub const STORE: &str = "ROCSTATE_TEST_STORE";
const LEFT_OUT: &str = "ROCSTATE_TEST_LEFT_OUT";
const CLOCK: &str = "ROCSTATE_TEST_CLOCK";
const OPENED: &str = "opened";
const POISONED: &str = "poisoned";

pub fn options() -> Options {
    Store::options().segment_bytes(64 << 10).boot_budget(Duration::from_millis(4))
}

/// A commit that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ack {
    pub thread: u32,
    pub n: u32,
    /// It survives a power loss.
    pub is_durable: bool,
    /// By the clock of its writers, read after it.
    pub at: u64,
}

impl Ack {
    pub fn tell(self) {
        let Ack { thread, n, is_durable, at } = self;
        println!("ack {thread} {n} {is_durable} {at}");
    }

    /// The harness of the child's test may have begun the line.
    pub fn heard(line: &str) -> Option<Ack> {
        let mut words = line.split("ack ").nth(1)?.split(' ');
        Some(Ack {
            thread: words.next()?.parse().ok()?,
            n: words.next()?.parse().ok()?,
            is_durable: words.next()?.parse().ok()?,
            at: words.next()?.parse().ok()?,
        })
    }
}

/// The newest number of each thread among these.
pub fn newest_of<'a>(acks: impl Iterator<Item = &'a Ack>) -> BTreeMap<u32, u32> {
    acks.fold(BTreeMap::new(), |mut newest, ack| {
        let last: &mut u32 = newest.entry(ack.thread).or_default();
        *last = ack.n.max(*last);
        newest
    })
}

/// What orders acknowledgements and power cuts: the time, or how far a device's log has come.
#[derive(Clone, Debug)]
pub enum Clock {
    Time,
    LengthOf(PathBuf),
}

impl Clock {
    pub fn now(&self) -> u64 {
        match self {
            Clock::Time => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                u64::try_from(since.as_micros()).unwrap()
            }
            Clock::LengthOf(file) => std::fs::metadata(file).unwrap().len(),
        }
    }
}

/// The process of the writers, which runs the test `child_of_writers`.
pub struct Writers {
    child: Child,
    opened: mpsc::Receiver<()>,
    heard: JoinHandle<String>,
}

/// What it said before it ended.
pub struct Ended {
    pub acks: Vec<Ack>,
    /// A write or a sync failed, or the system killed it.
    pub failed: bool,
}

impl Writers {
    pub fn begin(store: &Path, clock: &Clock, leaving_out: Option<Step>) -> Writers {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_of_writers", "--ignored", "--nocapture"]).env(STORE, store);
        if let Clock::LengthOf(file) = clock {
            command.env(CLOCK, file);
        }
        if let Some(step) = leaving_out {
            command.env(LEFT_OUT, format!("{step:?}"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let (tells, opened) = mpsc::channel();
        let heard = std::thread::spawn(move || {
            let mut first = String::new();
            while !first.contains(OPENED) && said.read_line(&mut first).unwrap() > 0 {}
            tells.send(()).ok();
            let mut rest = String::new();
            said.read_to_string(&mut rest).unwrap();
            rest
        });
        Writers { child, opened, heard }
    }

    /// Waits until they have opened the store, or have ended.
    pub fn wait_until_opened(&self) {
        self.opened.recv().unwrap();
    }

    /// Has them stop, if nothing else has.
    pub fn end(mut self) -> Ended {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        let heard = self.heard.join().unwrap();
        let acks = heard.lines().filter_map(Ack::heard).collect();
        Ended { acks, failed: !status.success() || heard.contains(POISONED) }
    }
}

/// What the child does.
pub fn write_until_told() {
    let Ok(path) = std::env::var(STORE) else { return };
    let left_out = std::env::var(LEFT_OUT).unwrap_or_default();
    let steps: Vec<Step> =
        ALL.iter().copied().filter(|step| format!("{step:?}") == left_out).collect();
    let clock = std::env::var(CLOCK).map_or(Clock::Time, |file| Clock::LengthOf(file.into()));
    let store = without(&steps, || options().open(path)).unwrap();
    println!("{OPENED}");
    // The power may go before anything is written.
    std::thread::sleep(Duration::from_millis(2));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, stop, clock, steps) = (&store, &stop, &clock, &steps);
            scope.spawn(move || {
                without(steps, || {
                    write(store, thread, stop, &|n, is_durable| {
                        Ack { thread, n, is_durable, at: clock.now() }.tell();
                    });
                });
            });
        }
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        stop.store(true, Ordering::Relaxed);
    });
    if store.stats().poisoned.is_some() {
        println!("{POISONED}");
    }
}

/// Writes until something fails or it is told to stop; tells of what was acknowledged, and whether that
/// survives a power loss.
pub fn write(store: &Store, thread: u32, stop: &AtomicBool, told: &dyn Fn(u32, bool)) {
    let Ok(map) = store.durable_map::<u32, (u32, String)>("map") else { return };
    let last = newest(&map, store, thread).unwrap_or(0);
    for n in last + 1.. {
        let is_durable = n % 4 != 1;
        let durability = if is_durable { Durability::Machine } else { Durability::Process };
        let mut tx = store.begin();
        if map.insert(&mut tx, slot(thread, n), value(n)).is_err() {
            return;
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let ended = match n % 8 {
            1 | 2 => tx.submit_with(durability).wait(),
            _ => tx.commit_with(durability),
        };
        if ended.is_err() {
            return;
        }
        told(n, is_durable);
        if thread == 0 && n % 50 == 0 && store.checkpoint().is_err() {
            return;
        }
    }
}

fn slot(thread: u32, n: u32) -> u32 {
    thread * 1_000 + n % SLOTS
}

fn value(n: u32) -> (u32, String) {
    (n, "x".repeat(n as usize * 37 % 700))
}

fn newest(map: &Map, store: &Store, thread: u32) -> Result<u32, Error> {
    let view = store.view();
    let slots = map.range(&view, thread * 1_000..thread * 1_000 + SLOTS);
    slots.map(|entry| entry.map(|(_, (n, _))| *n)).try_fold(0, |last, n| Ok(last.max(n?)))
}

/// A prefix of each thread's numbers is there, with all that were promised; the newest of each.
pub fn check(
    path: &Path,
    promised: &BTreeMap<u32, u32>,
    what: &str,
) -> Result<BTreeMap<u32, u32>, String> {
    let read = |error: Error| format!("{what}: {error}");
    let store = options().open(path).map_err(read)?;
    let map: Map = store.durable_map("map").map_err(read)?;
    let view = store.view();
    let mut served = BTreeMap::new();
    for thread in 0..THREADS {
        let last = newest(&map, &store, thread).map_err(read)?;
        let promised = promised.get(&thread).copied().unwrap_or(0);
        if last < promised {
            return Err(format!("{what}: {promised} of thread {thread} is lost, {last} is there"));
        }
        for n in last.saturating_sub(SLOTS - 1).max(1)..=last {
            if map.get(&view, &slot(thread, n)).map_err(read)? != Some(&value(n)) {
                return Err(format!("{what}: {n} of thread {thread} is not what was written"));
            }
        }
        served.insert(thread, last);
    }
    Ok(served)
}
