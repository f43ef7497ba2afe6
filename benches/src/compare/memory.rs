//! Views, discards, and what an entry takes in memory.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rocstate::Store;
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{plain, store};
use crate::report::Report;

/// The system's allocator, which counts what is asked of it while it is told to.
pub(crate) struct Counting;

static COUNTS: AtomicBool = AtomicBool::new(false);
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static FREED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: it hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) {
            FREED.fetch_add(layout.size(), Ordering::Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

/// Bytes that are more in use after `build` than before.
fn bytes_of<T>(build: impl FnOnce() -> Result<T, Failure>) -> Result<f64, Failure> {
    // What the round before left is freed in the background.
    std::thread::sleep(std::time::Duration::from_secs(1));
    COUNTS.store(true, Ordering::Relaxed);
    let in_use = || ALLOCATED.load(Ordering::Relaxed) as f64 - FREED.load(Ordering::Relaxed) as f64;
    let before = in_use();
    let kept = build()?;
    // What is freed in the background is freed by now.
    std::thread::sleep(std::time::Duration::from_millis(200));
    let after = in_use();
    COUNTS.store(false, Ordering::Relaxed);
    drop(kept);
    Ok(after - before)
}

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let question = Question::of_costs("memory of an entry, filled in random order", "bytes")
        .ask("BTreeMap", || Ok(bytes_of(|| Ok(plain(plan.entries)))? / plan.entries as f64))
        .ask("rocstate", || {
            let dir = tempfile::tempdir_in(".")?;
            let bytes = bytes_of(|| store(dir.path(), plan.entries))?;
            Ok(bytes / plan.entries as f64)
        });
    report.ask(question, plan.rounds.min(3))?;
    views(plan, report)?;
    discards(plan, report)
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
