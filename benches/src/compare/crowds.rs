//! How costs grow with the threads: those that commit, and those that have read.

use std::fs::File;
use std::sync::Barrier;

use rocstate::{Durability, DurableMap, Store};
use rocstate_bench::data::Order;
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::durable::{commit_from, prewritten, share_syncs};
use crate::floor::{commit_each, store};
use crate::report::Report;

const WRITERS: [u64; 4] = [1, 4, 16, 64];
/// Ascending: what a thread leaves behind stays.
const READERS: [usize; 4] = [1, 16, 64, 512];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    readers(plan, report)?;
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
    let mut question = Question::of_rates(question, "commits/s");
    let commit = |orders: Vec<(u64, Order)>| {
        let mut tx = store.begin();
        orders.into_iter().try_for_each(|(key, order)| map.put(&mut tx, key, order).map(drop))?;
        tx.commit_with(Durability::Machine)?;
        Ok(())
    };
    for writers in WRITERS {
        let commit = &commit;
        let rate = |times: Vec<f64>| times.len() as f64 / plan.time.as_secs_f64();
        question = question
            .ask(format!("{writers}, no store"), move || {
                Ok(rate(share_syncs(raw, writers, plan.time)?))
            })
            .ask(writers.to_string(), move || {
                Ok(rate(commit_from(writers, entries, plan.time, commit)?))
            });
    }
    report.ask(question, plan.rounds.min(3))
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
