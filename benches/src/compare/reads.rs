//! Reads of hot state, against a plain map behind a lock.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rocstate::{DurableMap, Key, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{name, open, plain, shuffled, store};
use crate::peers::ENTRANTS;
use crate::report::{Report, let_background_end};

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = store(dir.path(), plan.entries)?;
    let btree = RwLock::new(plain(plan.entries));
    let (store, map, btree) = (&store, &map, &btree);
    for threads in [1, 2] {
        let question =
            Question::of_costs(format!("point read, {threads} threads, a view each time"), "ns")
                .ask("RwLock<BTreeMap>", || {
                    Ok(on_threads(threads, plan, &|key| read_plain(btree, key)))
                })
                .ask("rocstate", || {
                    Ok(on_threads(threads, plan, &|key| read_store(store, map, key)))
                });
        report.ask(question, plan.rounds)?;
    }
    let write_plain = |key| drop(btree.write().insert(key, Order::new(key, 2)));
    let write_store = |key| drop(store.transact(|tx| map.put(tx, key, Order::new(key, 2))));
    // What the tail was is measured with the mean, and told afterwards.
    let (plain_tails, our_tails) = (RefCell::default(), RefCell::default());
    let beside = |read: Read<'_>, write: Write<'_>, tails: &RefCell<Vec<f64>>| {
        let (mean, tail) = beside_a_writer(plan, read, write);
        tails.borrow_mut().push(tail);
        Ok(mean)
    };
    let question = Question::of_costs("point read beside a writer, mean", "ns")
        .ask("RwLock<BTreeMap>", || {
            beside(&|key| read_plain(btree, key), &write_plain, &plain_tails)
        })
        .ask("rocstate", || beside(&|key| read_store(store, map, key), &write_store, &our_tails));
    report.ask(question, plan.rounds)?;
    let mut plain_tails = plain_tails.into_inner().into_iter();
    let mut our_tails = our_tails.into_inner().into_iter();
    let question = Question::of_costs("point read beside a writer, p99.9", "ns")
        .ask("RwLock<BTreeMap>", || Ok(plain_tails.next().ok_or("no such round")?))
        .ask("rocstate", || Ok(our_tails.next().ok_or("no such round")?));
    report.ask(question, plan.rounds)?;
    let question = Question::of_rates("range scan of everything, filled at random", "entries/s")
        .ask("BTreeMap", || Ok(scan_plain(&btree.read())))
        .ask("rocstate", || scan_store(store, map));
    report.ask(question, plan.rounds)?;
    short_walks(plan, report, store, map, btree)?;
    kinds_of_keys(plan, report)?;
    scans_after_boot(plan, report)?;
    peers(plan, report)
}

/// Walks that end soon, from a key on or between two.
fn short_walks(
    plan: &Plan,
    report: &mut Report,
    store: &Store,
    map: &DurableMap<u64, Order>,
    btree: &RwLock<BTreeMap<u64, Order>>,
) -> Result<(), Failure> {
    let mut ask = |what, threads, in_map: Read<'_>, in_store: Read<'_>| {
        let question = Question::of_costs(format!("{what}, {threads} threads"), "ns")
            .ask("RwLock<BTreeMap>", || Ok(on_threads(threads, plan, in_map)))
            .ask("rocstate", || Ok(on_threads(threads, plan, in_store)));
        report.ask(question, plan.rounds)
    };
    for threads in [1, 2] {
        ask(
            "walk of one entry from a key",
            threads,
            &|key| btree.read().range(key..).next().map_or(0, |(_, order)| order.cents),
            &|key| {
                let view = store.view();
                let next = map.range(&view, key..).next();
                next.and_then(Result::ok).map_or(0, |(_, order)| order.cents)
            },
        )?;
        ask(
            "walk of ten entries from a key",
            threads,
            &|key| btree.read().range(key..).take(10).map(|(_, order)| order.cents).sum(),
            &|key| {
                let view = store.view();
                map.range(&view, key..).take(10).flatten().map(|(_, order)| order.cents).sum()
            },
        )?;
        ask(
            "walk of ten entries between two keys",
            threads,
            &|key| btree.read().range(key..key + 10).map(|(_, order)| order.cents).sum(),
            &|key| {
                let view = store.view();
                map.range(&view, key..key + 10).flatten().map(|(_, order)| order.cents).sum()
            },
        )?;
    }
    Ok(())
}

/// Keys of several lengths, and what some own lies elsewhere.
fn kinds_of_keys(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    keys(plan, report, "a number", |key| key)?;
    keys(plan, report, "one of a thousand tenants and a number", |key| (key % 1000, key))?;
    keys(plan, report, "a hash of 32 bytes", hash)?;
    keys(plan, report, "a string", name)
}

/// Bytes that are as good as a hash of a number.
fn hash(key: u64) -> [u8; 32] {
    let mut dice = Dice::new(2 * key);
    let mut bytes = [0; 32];
    for part in bytes.as_chunks_mut::<8>().0.iter_mut().rev() {
        *part = dice.below(u64::MAX).to_le_bytes();
    }
    bytes
}

/// Reads of numbers by keys that are made of numbers.
fn keys<K: Key>(
    plan: &Plan,
    report: &mut Report,
    what: &str,
    made: fn(u64) -> K,
) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let store = open(dir.path())?.0;
    let map: DurableMap<K, u64> = store.durable_map("numbers")?;
    let mut btree = BTreeMap::new();
    for keys in shuffled(plan.entries).chunks(10_000) {
        store.transact(|tx| {
            keys.iter().try_for_each(|key| map.put(tx, made(*key), *key).map(drop))
        })?;
        btree.extend(keys.iter().map(|key| (made(*key), *key)));
    }
    let btree = RwLock::new(btree);
    let read_each = |dice: &mut Dice, read: &dyn Fn(&K) -> Option<u64>| {
        let count = plan.operations;
        let keys: Vec<_> = (0..count).map(|_| made(dice.below(plan.entries))).collect();
        let began = Instant::now();
        black_box(keys.iter().filter_map(read).sum::<u64>());
        Ok(began.elapsed().as_secs_f64() * 1e9 / count as f64)
    };
    let (mut ours, mut theirs) = (Dice::new(5), Dice::new(5));
    let question = Question::of_costs(format!("point read of a number by {what}"), "ns")
        .ask("RwLock<BTreeMap>", || read_each(&mut theirs, &|key| btree.read().get(key).copied()))
        .ask("rocstate", || {
            read_each(&mut ours, &|key| map.get(&store.view(), key).ok().flatten().copied())
        });
    report.ask(question, plan.rounds)
}

/// What a boot has put into memory stands there in the order of its keys, as what is collected does.
fn scans_after_boot(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    store(dir.path(), plan.entries)?.0.checkpoint()?;
    // A process that boots has freed nothing before, whose places would be used in any order.
    let_background_end();
    let (store, map) = open(dir.path())?;
    map.warm()?;
    let btree: BTreeMap<u64, Order> =
        (0..plan.entries).map(|key| (key, Order::new(key, 0))).collect();
    let question = Question::of_rates("range scan of everything, after a boot", "entries/s")
        .ask("BTreeMap, collected", || Ok(scan_plain(&btree)))
        .ask("rocstate", || scan_store(&store, &map));
    report.ask(question, plan.rounds)
}

fn scan_plain(btree: &BTreeMap<u64, Order>) -> f64 {
    let began = Instant::now();
    let sum: i64 = btree.values().map(|order| order.cents).sum();
    black_box(sum);
    btree.len() as f64 / began.elapsed().as_secs_f64()
}

fn scan_store(store: &Store, map: &DurableMap<u64, Order>) -> Result<f64, Failure> {
    let (view, began) = (store.view(), Instant::now());
    let mut sum = 0;
    for entry in map.iter(&view) {
        sum += entry?.1.cents;
    }
    black_box(sum);
    Ok(map.len(&view) as f64 / began.elapsed().as_secs_f64())
}

type Read<'a> = &'a (dyn Fn(u64) -> i64 + Sync);
type Write<'a> = &'a (dyn Fn(u64) + Sync);

/// Reads that decode, from stores whose files are in the page cache.
fn peers(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let mut stores = Vec::new();
    for entrant in &ENTRANTS {
        let dir = dir.path().join(entrant.name);
        std::fs::create_dir(&dir)?;
        let peer = (entrant.open)(&dir)?;
        for keys in shuffled(plan.entries).chunks(10_000) {
            peer.commit(keys.iter().map(|key| (*key, Order::new(*key, 0))).collect())?;
        }
        stores.push((entrant.name, peer));
    }
    let mut question = Question::of_costs("point read, one thread, decoded", "ns");
    for (name, peer) in &stores {
        let mut dice = Dice::new(11);
        question = question.ask(*name, move || {
            let (count, began) = (plan.operations / 4, Instant::now());
            for _ in 0..count {
                black_box(peer.cents(dice.below(plan.entries))?);
            }
            Ok(began.elapsed().as_secs_f64() * 1e9 / count as f64)
        });
    }
    report.ask(question, plan.rounds)?;
    let mut question = Question::of_rates("scan of everything, decoded", "entries/s");
    for (name, peer) in &stores {
        question = question.ask(*name, move || {
            let began = Instant::now();
            black_box(peer.all_cents()?);
            Ok(plan.entries as f64 / began.elapsed().as_secs_f64())
        });
    }
    report.ask(question, plan.rounds.min(5))
}

fn read_plain(plain: &RwLock<BTreeMap<u64, Order>>, key: u64) -> i64 {
    plain.read().get(&key).map_or(0, |order| order.cents)
}

pub(crate) fn read_store(store: &Store, map: &DurableMap<u64, Order>, key: u64) -> i64 {
    map.get(&store.view(), &key).ok().flatten().map_or(0, |order| order.cents)
}

/// Nanoseconds of a read on each of so many threads.
pub(crate) fn on_threads(threads: u64, plan: &Plan, read: Read<'_>) -> f64 {
    let count = plan.operations * 2;
    let one = |seed: u64| {
        let mut dice = Dice::new(seed * 0x9e37_79b9);
        let began = Instant::now();
        let sum: i64 = (0..count).map(|_| read(dice.below(plan.entries))).sum();
        black_box(sum);
        began.elapsed()
    };
    let times: Vec<Duration> = std::thread::scope(|scope| {
        let all: Vec<_> = (1..=threads).map(|seed| scope.spawn(move || one(seed))).collect();
        all.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    let total: Duration = times.iter().sum();
    total.as_secs_f64() * 1e9 / times.len() as f64 / count as f64
}

/// The mean and the 99.9th percentile of reads while another thread writes without a pause, in ns.
fn beside_a_writer(plan: &Plan, read: Read<'_>, write: Write<'_>) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    let mut times = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice::new(99);
            while !stop.load(Ordering::Relaxed) {
                write(dice.below(plan.entries));
            }
        });
        let mut dice = Dice::new(77);
        let times: Vec<f64> = (0..plan.operations / 10)
            .map(|_| {
                let began = Instant::now();
                black_box(read(dice.below(plan.entries)));
                began.elapsed().as_secs_f64() * 1e9
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        times
    });
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    (mean, times[times.len() * 999 / 1000])
}
