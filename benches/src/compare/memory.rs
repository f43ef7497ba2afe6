//! Views, discards, and what an entry takes in memory.

use std::any::Any;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rocstate::{DurableMap, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{plain, plain_of, put_all_of, shuffled, store, store_without_checkpoints};
use crate::report::{Report, let_background_end};

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let question = Question::of_costs("memory of an entry, filled in random order", "bytes")
        .ask("BTreeMap", || resident(plan, "BTreeMap"))
        .ask("rocstate", || resident(plan, "rocstate"));
    report.ask(question, plan.rounds.min(3))?;
    let question = Question::of_costs("memory of a number by its number, in random order", "bytes")
        .ask("BTreeMap", || resident(plan, PLAIN_NUMBERS))
        .ask("rocstate", || resident(plan, NUMBERS));
    report.ask(question, plan.rounds.min(3))?;
    views(plan, report)?;
    discards(plan, report)
}

const PLAIN_NUMBERS: &str = "BTreeMap of numbers";
const NUMBERS: &str = "rocstate of numbers";

/// Bytes for each entry that a process of its own has of the machine's memory.
fn resident(plan: &Plan, of: &str) -> Result<f64, Failure> {
    let entries = plan.entries.to_string();
    let mut command = Command::new(std::env::current_exe()?);
    // glibc would learn from the first large block that is given back to keep others of its size.
    command.env("MALLOC_MMAP_THRESHOLD_", (1 << 20).to_string());
    let output = command.args(["--resident-of", of, "--entries", &entries]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// What [`resident`] runs.
pub(crate) fn bytes_of_an_entry(of: &str, entries: u64) -> Result<f64, Failure> {
    // What both have at hand while they are filled is not theirs.
    drop(shuffled(entries));
    let before = resident_bytes()?;
    let dir = tempfile::tempdir_in(".")?;
    let kept: Box<dyn Any> = match of {
        "BTreeMap" => Box::new(plain(entries)),
        PLAIN_NUMBERS => Box::new(plain_of(entries, |key| key)),
        NUMBERS => Box::new(numbers(dir.path(), entries)?),
        _ => Box::new(store_without_checkpoints(dir.path(), entries)?),
    };
    // What died meanwhile is freed in the background.
    let_background_end();
    let bytes = resident_bytes()? - before;
    drop(kept);
    Ok(bytes / entries as f64)
}

fn numbers(dir: &Path, entries: u64) -> Result<(Store, DurableMap<u64, u64>), Failure> {
    let (store, _) = store_without_checkpoints(dir, 0)?;
    let map = store.durable_map("numbers")?;
    put_all_of(&store, &map, entries, 10_000, |key| key)?;
    Ok((store, map))
}

/// Memory of this process that is no file's.
fn resident_bytes() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("RssAnon is not told")?;
    Ok(kib.parse::<f64>()? * 1024.0)
}

fn views(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = store(dir.path(), plan.entries.min(100_000))?;
    let question = Question::of_costs("a view, idle", "ns").ask("rocstate", || {
        let began = Instant::now();
        for _ in 0..plan.operations {
            black_box(store.view());
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / plan.operations as f64)
    });
    report.ask(question, plan.rounds)?;
    let question =
        Question::of_costs("a view under full write load, p99", "ns").ask("rocstate", || {
            let stop = AtomicBool::new(false);
            let mut times = std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut dice = Dice::new(5);
                    while !stop.load(Ordering::Relaxed) {
                        let key = dice.below(10_000);
                        store.transact(|tx| map.put(tx, key, Order::new(key, 1))).ok();
                    }
                });
                let mut times: Vec<f64> = Vec::with_capacity(plan.operations);
                for _ in 0..plan.operations {
                    let began = Instant::now();
                    black_box(store.view());
                    times.push(began.elapsed().as_secs_f64() * 1e9);
                }
                stop.store(true, Ordering::Relaxed);
                times
            });
            times.sort_by(f64::total_cmp);
            Ok(times[times.len() * 99 / 100])
        });
    report.ask(question, plan.rounds)?;
    // A view that is held throughout the second half of each round.
    let mut dice = Dice::new(6);
    let mut rate = |count: usize| {
        let keys: Vec<u64> = (0..count).map(|_| dice.below(100_000.min(plan.entries))).collect();
        let began = Instant::now();
        for key in keys {
            store.transact(|tx| map.put(tx, key, Order::new(key, 1)))?;
        }
        Ok::<f64, Failure>(count as f64 / began.elapsed().as_secs_f64())
    };
    let rate = std::cell::RefCell::new(&mut rate);
    let question = Question::of_rates("Process commits while a view is held", "commits/s")
        .ask("no view", || (rate.borrow_mut())(plan.operations))
        .ask("one view", || {
            let view = store.view();
            let outcome = (rate.borrow_mut())(plan.operations);
            drop(view);
            outcome
        });
    report.ask(question, plan.rounds)
}

fn discards(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let store = Store::open(dir.path())?;
    let map = store.volatile_map::<u64, u64>("cache")?;
    for entries in [10_000, plan.entries * 10] {
        let question = Question::of_costs(format!("discard of {entries} entries"), "us").ask(
            "rocstate",
            || {
                for key in 0..entries {
                    map.insert(key, key);
                }
                let began = Instant::now();
                map.discard();
                Ok(began.elapsed().as_secs_f64() * 1e6)
            },
        );
        report.ask(question, plan.rounds.min(5))?;
    }
    Ok(())
}
