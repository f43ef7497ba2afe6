//! How costs grow with the threads: those that commit, and those that have read.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Barrier, Mutex, PoisonError};

use rocstate::{Durability, DurableMap, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::durable::{commit_from, commit_what, prewritten, share_syncs};
use crate::floor::{commit_each, open, plain, store};
use crate::report::Report;

const WRITERS: [u64; 6] = [1, 4, 16, 64, 256, 1024];
/// Ascending: what a thread leaves behind stays.
const READERS: [usize; 4] = [1, 16, 64, 512];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    readers(plan, report)?;
    // Before a large store is freed, which takes seconds.
    unsynced(plan, report)?;
    numbers(plan, report)?;
    for entries in &plan.sizes {
        let dir = tempfile::tempdir_in(".")?;
        let (store, map) = store(dir.path(), *entries)?;
        let raw = prewritten(&dir.path().join("raw"))?;
        writers(plan, report, *entries, &raw, &store, &map)?;
    }
    Ok(())
}

/// Beside threads that share syncs and have no store: how fast a machine wakes threads changes by the minute.
fn writers(
    plan: &Plan,
    report: &mut Report,
    entries: u64,
    raw: &File,
    store: &Store,
    map: &DurableMap<u64, Order>,
) -> Result<(), Failure> {
    let question = format!("synced commits at {entries} entries, by so many writers");
    let commit = |orders| commit(store, map, orders, Durability::Machine);
    by_writers(
        plan,
        report,
        &question,
        "no store",
        |writers| share_syncs(raw, writers, plan.time),
        |writers| commit_from(writers, entries, plan.time, &commit),
    )
}

/// Beside threads that insert into a map behind one lock. What each makes an order of counts as well.
fn unsynced(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = store(dir.path(), plan.entries)?;
    let btree = Mutex::new(plain(plan.entries));
    let commit = |orders| commit(&store, &map, orders, Durability::Process);
    let insert = |orders: Vec<(u64, Order)>| {
        btree.lock().unwrap_or_else(PoisonError::into_inner).extend(orders);
        Ok(())
    };
    by_writers(
        plan,
        report,
        "Process commits by so many writers",
        "BTreeMap",
        |writers| commit_from(writers, plan.entries, plan.time, &insert),
        |writers| commit_from(writers, plan.entries, plan.time, &commit),
    )
}

/// The same for numbers by ten thousand keys, of which nothing has to be made: commits follow each other as closely as
/// they can.
fn numbers(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, _) = open(dir.path())?;
    let (map, btree) = (store.durable_map("numbers")?, Mutex::new(BTreeMap::new()));
    let draw = |dice: &mut Dice| dice.below(10_000);
    let commit = |key: u64| {
        let mut tx = store.begin();
        map.put(&mut tx, key, key)?;
        tx.commit_with(Durability::Process)?;
        Ok(())
    };
    let insert = |key: u64| {
        btree.lock().unwrap_or_else(PoisonError::into_inner).insert(key, key);
        Ok(())
    };
    by_writers(
        plan,
        report,
        "Process commits of numbers by so many writers",
        "BTreeMap",
        |writers| commit_what(writers, plan.time, draw, insert),
        |writers| commit_what(writers, plan.time, draw, commit),
    )
}

/// How many commits so many writers make, beside another contender.
fn by_writers(
    plan: &Plan,
    report: &mut Report,
    question: &str,
    other: &str,
    theirs: impl Fn(u64) -> Result<Vec<f64>, Failure>,
    ours: impl Fn(u64) -> Result<Vec<f64>, Failure>,
) -> Result<(), Failure> {
    let mut question = Question::of_rates(question, "commits/s");
    for writers in WRITERS {
        let (theirs, ours) = (&theirs, &ours);
        question = question
            .ask(format!("{writers}, {other}"), move || Ok(rate(plan, &theirs(writers)?)))
            .ask(writers.to_string(), move || Ok(rate(plan, &ours(writers)?)));
    }
    report.ask(question, plan.rounds.min(3))
}

fn commit(
    store: &Store,
    map: &DurableMap<u64, Order>,
    orders: Vec<(u64, Order)>,
    durability: Durability,
) -> Result<(), Failure> {
    let mut tx = store.begin();
    orders.into_iter().try_for_each(|(key, order)| map.put(&mut tx, key, order).map(drop))?;
    tx.commit_with(durability)?;
    Ok(())
}

fn rate(plan: &Plan, times: &[f64]) -> f64 {
    times.len() as f64 / plan.time.as_secs_f64()
}

/// Commits of one thread, after so many took a view at the same time, once.
fn readers(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = store(dir.path(), 10_000)?;
    for count in READERS {
        let together = Barrier::new(count);
        std::thread::scope(|scope| {
            for _ in 0..count {
                scope.spawn(|| {
                    drop(store.view());
                    together.wait();
                });
            }
        });
        let question = Question::of_costs(format!("Process commit after {count} readers"), "ns")
            .ask("rocstate", || {
                let orders = (0..plan.operations as u64).map(|n| (n % 10_000, Order::new(n, 1)));
                let took = commit_each(&store, &map, orders.collect())?;
                Ok(took * 1e9 / plan.operations as f64)
            });
        report.ask(question, plan.rounds.min(3))?;
    }
    Ok(())
}
