//! What checkpoints cost: bytes written for each byte that changed, the disk in use afterwards, and
//! what commits notice of them.
//!
//! `cargo run --release -p rocstate-bench --bin checkpoints -- [ENTRIES] [CHECKPOINTS] [ROUNDS] [SECONDS] [SYNC_US]`
//!
//! With the last, every sync beside the commits that are timed waits so many microseconds and syncs nothing: what
//! commits then notice of checkpoints is not the disk's doing.

#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::cast_precision_loss, reason = "ratios are told in three digits")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocstate::{Durability, DurableMap, Options, Store};
use rocstate_bench::fixed_sync;

type Failure = Box<dyn Error>;
type Map = DurableMap<u64, Vec<u8>>;

const VALUE_BYTES: u64 = 100;
const WRITERS: u64 = 4;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (entries, checkpoints) = (next(1_000_000)?, next(100)?);
    let (rounds, seconds, sync_us) = (next(5)?, next(4)?, next(0)?);
    println!(
        "{entries} entries of {VALUE_BYTES} bytes, 1 % changed before each of {checkpoints} checkpoints"
    );
    println!(
        "{:<10} {:>28} {:>22} {:>14}",
        "", "written per byte changed", "disk, of a fresh copy", "ms each"
    );
    for (name, kind) in Changes::ALL {
        let cost = cost(entries, checkpoints, kind)?;
        println!("{name:<10} {:>28.2} {:>22.2} {:>14.1}", cost.written, cost.disk, cost.ms);
    }
    println!("\ncommit latency of {WRITERS} writers on {entries} entries, us; rounds alternate");
    if sync_us > 0 {
        println!("every sync waits {sync_us} us and syncs nothing");
        fixed_sync::fix(Duration::from_micros(sync_us));
    }
    println!("     {}", Checkpoints::ALL.map(|(_, name)| format!(" {name:>32}")).concat());
    latency(entries, rounds, Duration::from_secs(seconds))
}

/// What changes before each checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    Random,
    /// One stretch.
    Clustered,
    Appended,
    /// As many go at the other end as are appended.
    Queued,
}

impl Changes {
    const ALL: [(&str, Changes); 4] = [
        ("random", Changes::Random),
        ("clustered", Changes::Clustered),
        ("appended", Changes::Appended),
        ("queued", Changes::Queued),
    ];

    /// Which keys out of those there are, up to `end`.
    fn draw(self, dice: &mut Dice, end: u64, count: u64) -> Vec<u64> {
        match self {
            Changes::Appended | Changes::Queued => (end..end + count).collect(),
            Changes::Clustered => {
                let first = dice.below(end - count);
                (first..first + count).collect()
            }
            Changes::Random => {
                let mut keys = BTreeSet::new();
                while (keys.len() as u64) < count {
                    keys.insert(dice.below(end));
                }
                keys.into_iter().collect()
            }
        }
    }
}

struct Cost {
    written: f64,
    disk: f64,
    ms: f64,
}

struct Dice(u64);

impl Dice {
    /// xorshift64 (Marsaglia 2003).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

fn value(key: u64, version: u64) -> Vec<u8> {
    (0..VALUE_BYTES)
        .map(|at| (key.wrapping_mul(31) ^ version.wrapping_mul(7) ^ at).to_le_bytes()[0])
        .collect()
}

/// A store whose checkpoints come when they are asked for.
fn open(dir: &Path) -> Result<(Store, Map), Failure> {
    open_with(Store::options().boot_budget(Duration::from_secs(3600)), dir)
}

fn open_with(options: Options, dir: &Path) -> Result<(Store, Map), Failure> {
    let store = options.durability(Durability::Process).open(dir)?;
    let map = store.durable_map("map")?;
    Ok((store, map))
}

fn put(store: &Store, map: &Map, keys: &[u64], version: u64) -> Result<(), Failure> {
    for keys in keys.chunks(10_000) {
        store.transact(|tx| {
            keys.iter().try_for_each(|key| map.insert(tx, *key, value(*key, version)).map(drop))
        })?;
    }
    Ok(())
}

/// Bytes of the checkpoint files, and of the newest one.
fn checkpoint_bytes(dir: &Path) -> Result<(u64, u64), Failure> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("checkpoint-") {
            files.push((entry.file_name(), entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok((files.iter().map(|file| file.1).sum(), files.last().map_or(0, |file| file.1)))
}

fn cost(entries: u64, checkpoints: u64, kind: Changes) -> Result<Cost, Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = open(dir.path())?;
    let all: Vec<u64> = (0..entries).collect();
    put(&store, &map, &all, 0)?;
    store.checkpoint()?;
    let mut dice = Dice(88_172_645_463_325_252);
    let (mut written, mut changed, mut took) = (0, 0, Duration::ZERO);
    let (mut end, count) = (entries, entries / 100);
    for round in 1..=checkpoints {
        let keys = kind.draw(&mut dice, end, count);
        end = keys.last().map_or(end, |last| end.max(last + 1));
        if kind == Changes::Queued {
            changed += 8 * count;
            store.transact(|tx| (0..count).try_for_each(|_| map.pop_first(tx).map(drop)))?;
        }
        changed += keys.len() as u64 * (8 + VALUE_BYTES);
        put(&store, &map, &keys, round)?;
        let began = Instant::now();
        store.checkpoint()?;
        took += began.elapsed();
        written += checkpoint_bytes(dir.path())?.1;
    }
    let in_use = checkpoint_bytes(dir.path())?.0;
    // A fresh copy is one checkpoint of the same entries.
    let copy = tempfile::tempdir_in(".")?;
    let (other, other_map) = open(copy.path())?;
    let view = store.view();
    let mut entries = map.iter(&view).peekable();
    while entries.peek().is_some() {
        other.transact(|tx| {
            entries.by_ref().take(10_000).try_for_each(|entry| {
                let (key, value) = entry?;
                other_map.insert(tx, *key, value.clone()).map(drop)
            })
        })?;
    }
    other.checkpoint()?;
    let fresh = checkpoint_bytes(copy.path())?.0;
    Ok(Cost {
        written: written as f64 / changed as f64,
        disk: in_use as f64 / fresh as f64,
        ms: took.as_secs_f64() * 1e3 / checkpoints as f64,
    })
}

/// Median, 99.9th percentile and maximum, in microseconds.
fn quantiles(mut times: Vec<u64>) -> [u64; 3] {
    times.sort_unstable();
    let at = |part: f64| {
        let index = format!("{:.0}", (times.len().saturating_sub(1)) as f64 * part);
        index.parse().ok().and_then(|at: usize| times.get(at)).copied().unwrap_or_default() / 1_000
    };
    [at(0.5), at(0.999), at(1.0)]
}

/// What checkpoints are taken beside the commits that are timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checkpoints {
    None,
    /// By the default budget.
    AsDue,
    WithoutPause,
}

impl Checkpoints {
    const ALL: [(Checkpoints, &str); 3] = [
        (Checkpoints::None, "without checkpoints"),
        (Checkpoints::AsDue, "as they are due"),
        (Checkpoints::WithoutPause, "without a pause"),
    ];
}

fn latency(entries: u64, rounds: u64, time: Duration) -> Result<(), Failure> {
    let (dir, usual_dir) = (tempfile::tempdir_in(".")?, tempfile::tempdir_in(".")?);
    let (quiet, usual) = (open(dir.path())?, open_with(Store::options(), usual_dir.path())?);
    let all: Vec<u64> = (0..entries).collect();
    for (store, map) in [&quiet, &usual] {
        put(store, map, &all, 0)?;
        store.checkpoint()?;
    }
    let mut sums: [Vec<[u64; 3]>; 3] = Default::default();
    let mut taken = [0; 3];
    for round in 0..rounds {
        let mut row = String::new();
        for (((kind, _), sums), taken) in
            Checkpoints::ALL.into_iter().zip(&mut sums).zip(&mut taken)
        {
            let (store, map) = if kind == Checkpoints::AsDue { &usual } else { &quiet };
            let (times, count) = load(store, map, entries, round, time, kind)?;
            *taken += count;
            let found = quantiles(times);
            let text = format!("{} p99.9 {} max {}", found[0], found[1], found[2]);
            write!(row, " {text:>32}")?;
            sums.push(found);
        }
        println!("{round:>5}{row}");
    }
    let median = |of: &[[u64; 3]], which: usize| {
        let mut values: Vec<u64> = of.iter().map(|found| found[which]).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default().max(1)
    };
    for (((_, name), with), taken) in Checkpoints::ALL.into_iter().zip(&sums).zip(taken).skip(1) {
        let ratio = |which| median(with, which) as f64 / median(&sums[0], which) as f64;
        println!(
            "{name} : without, by medians over the rounds: median {:.2}, p99.9 {:.2}, maximum {:.2}; {taken} checkpoints",
            ratio(0),
            ratio(1),
            ratio(2)
        );
    }
    let held = usual.0.stats().writers_held;
    println!(
        "as they are due, writers were held for {held:.1?} of {:?}",
        time * u32::try_from(rounds)?
    );
    Ok(())
}

/// Synced commits of one replaced entry; what each took, in nanoseconds, and the checkpoints taken meanwhile.
fn load(
    store: &Store,
    map: &Map,
    entries: u64,
    round: u64,
    time: Duration,
    checkpoints: Checkpoints,
) -> Result<(Vec<u64>, u64), Failure> {
    let ended = AtomicBool::new(false);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let ended = &ended;
        let before = store.stats().checkpoints_taken;
        let asking = scope.spawn(move || -> rocstate::Result<()> {
            while checkpoints == Checkpoints::WithoutPause && !ended.load(Ordering::Relaxed) {
                store.checkpoint()?;
            }
            Ok(())
        });
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || -> rocstate::Result<Vec<u64>> {
                    let mut dice = Dice((round * WRITERS + writer + 1) * 0x9e37_79b9);
                    let mut times = Vec::new();
                    while began.elapsed() < time {
                        let key = dice.below(entries);
                        let mut tx = store.begin();
                        map.insert(&mut tx, key, value(key, round))?;
                        let submitted = Instant::now();
                        tx.commit_with(Durability::Machine)?;
                        times.push(
                            u64::try_from(submitted.elapsed().as_nanos()).unwrap_or(u64::MAX),
                        );
                    }
                    Ok(times)
                })
            })
            .collect();
        let mut times = Vec::new();
        for writer in writers {
            times.extend(writer.join().map_err(|_| "a writer panicked")??);
        }
        ended.store(true, Ordering::Relaxed);
        asking.join().map_err(|_| "the checkpoints panicked")??;
        // One that finds nothing new is none.
        Ok((times, store.stats().checkpoints_taken - before))
    })
}
