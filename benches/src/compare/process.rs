//! Commits that survive the process, against inserting into a plain map with no log.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Instant;

use rocstate::{DurableMap, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{commit_each, drawn, name, plain, shuffled, store};
use crate::report::Report;

const HOT_KEYS: u64 = 10_000;
const PER_BATCH: usize = 1000;
const QUEUED: usize = 100_000;

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = store(dir.path(), plan.entries)?;
    let btree = RefCell::new(plain(plan.entries));
    let commit_each = |orders: Vec<(u64, Order)>| {
        let count = orders.len();
        Ok(count as f64 / commit_each(&store, &map, orders)?)
    };
    let insert_each =
        |entries: Vec<(u64, Order)>| Ok(insert_each(&mut btree.borrow_mut(), entries));
    for (name, limit) in [("uniform", plan.entries), ("hot", HOT_KEYS)] {
        let (mut ours, mut theirs) = (Dice::new(7), Dice::new(7));
        let question = Question::of_rates(format!("Process commits, {name}"), "commits/s")
            .ask("BTreeMap, no log", || insert_each(drawn(&mut theirs, limit, plan.operations)))
            .ask("rocstate", || commit_each(drawn(&mut ours, limit, plan.operations)));
        report.ask(question, plan.rounds)?;
    }
    let (mut ours, mut theirs) = (plan.entries, plan.entries);
    let question = Question::of_rates("Process commits, appending", "commits/s")
        .ask("BTreeMap, no log", || insert_each(ascending(&mut theirs, plan.operations)))
        .ask("rocstate", || commit_each(ascending(&mut ours, plan.operations)));
    report.ask(question, plan.rounds)?;

    let commit_batches = |entries: Vec<(u64, Order)>| {
        let count = entries.len();
        let mut entries = entries.into_iter();
        let began = Instant::now();
        while entries.len() > 0 {
            store.transact(|tx| {
                entries
                    .by_ref()
                    .take(PER_BATCH)
                    .try_for_each(|(key, order)| map.put(tx, key, order).map(drop))
            })?;
        }
        Ok::<f64, Failure>(count as f64 / began.elapsed().as_secs_f64())
    };
    let question = Question::of_rates("batches of 1000, appending", "operations/s")
        .ask("BTreeMap, no log", || insert_each(ascending(&mut theirs, plan.operations)))
        .ask("rocstate", || commit_batches(ascending(&mut ours, plan.operations)));
    report.ask(question, plan.rounds)?;
    for (name, limit) in [("uniform", plan.entries), ("hot", HOT_KEYS)] {
        let (mut ours, mut theirs) = (Dice::new(8), Dice::new(8));
        let question = Question::of_rates(format!("batches of 1000, {name}"), "operations/s")
            .ask("BTreeMap, no log", || insert_each(drawn(&mut theirs, limit, plan.operations)))
            .ask("rocstate", || commit_batches(drawn(&mut ours, limit, plan.operations)));
        report.ask(question, plan.rounds)?;
    }
    strings(&store, plan, report)?;
    queue(&store, plan, report)
}

/// Each commit puts an order behind all others and takes the oldest one away.
fn queue(store: &Store, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let map: DurableMap<u64, Order> = store.durable_map("queue")?;
    let (mut ours, mut theirs) = (0, 0);
    let mut btree = BTreeMap::from_iter(ascending(&mut theirs, QUEUED));
    store.transact(|tx| {
        let mut orders = ascending(&mut ours, QUEUED).into_iter();
        orders.try_for_each(|(key, order)| map.put(tx, key, order).map(drop))
    })?;
    let rate = |began: Instant| plan.operations as f64 / began.elapsed().as_secs_f64();
    let question = Question::of_rates("Process commits, a queue", "commits/s")
        .ask("BTreeMap, no log", || {
            let orders = ascending(&mut theirs, plan.operations);
            let began = Instant::now();
            for (key, order) in orders {
                btree.insert(key, order);
                btree.pop_first();
            }
            Ok(rate(began))
        })
        .ask("rocstate", || {
            let orders = ascending(&mut ours, plan.operations);
            let began = Instant::now();
            for (key, order) in orders {
                store.transact(|tx| {
                    map.put(tx, key, order)?;
                    map.pop_first(tx)
                })?;
            }
            Ok(rate(began))
        });
    report.ask(question, plan.rounds)
}

/// Keys that own memory.
fn strings(store: &Store, plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let entries = plan.operations as u64;
    let names: Vec<_> = shuffled(entries).into_iter().map(name).collect();
    let rate = |began: Instant| names.len() as f64 / began.elapsed().as_secs_f64();
    let mut rounds = 0..;
    let question = Question::of_rates("batches of 1000, new strings at random", "operations/s")
        .ask("BTreeMap, no log", || {
            let (mut map, began) = (BTreeMap::new(), Instant::now());
            map.extend(names.iter().map(|name| (name.clone(), 1u64)));
            Ok(rate(began))
        })
        .ask("rocstate", || {
            let region = format!("names {}", rounds.next().unwrap_or(0));
            let (map, began) = (store.durable_map::<String, u64>(&region)?, Instant::now());
            for batch in names.chunks(PER_BATCH) {
                store.transact(|tx| {
                    batch.iter().try_for_each(|name| map.put(tx, name.clone(), 1).map(drop))
                })?;
            }
            let rate = rate(began);
            store.remove_region(&region)?;
            Ok(rate)
        });
    report.ask(question, plan.rounds)
}

fn insert_each(plain: &mut BTreeMap<u64, Order>, entries: Vec<(u64, Order)>) -> f64 {
    let count = entries.len();
    let began = Instant::now();
    for (key, order) in entries {
        // What was there is dropped, as it is for who commits.
        plain.insert(key, order);
    }
    count as f64 / began.elapsed().as_secs_f64()
}

fn ascending(next: &mut u64, count: usize) -> Vec<(u64, Order)> {
    let first = *next;
    *next += count as u64;
    (first..*next).map(|key| (key, Order::new(key, 0))).collect()
}
