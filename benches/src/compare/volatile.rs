//! Reads of a volatile region by several threads, against a plain map behind a lock.

use std::collections::BTreeMap;
use std::hint::black_box;

use parking_lot::RwLock;
use rocstate::VolatileMap;
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{open, shuffled};
use crate::reads::on_threads;
use crate::report::Report;

/// One of so many keys is changed whenever it is read.
const CHANGES: [Option<u64>; 3] = [None, Some(1_000), Some(100)];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, _orders) = open(dir.path())?;
    let tokens: VolatileMap<u64, u64> = store.volatile_map("tokens")?;
    let locked = RwLock::new(BTreeMap::new());
    // What is in the cache: else its misses are most of a read.
    let plan = &Plan { entries: plan.entries.min(10_000), ..plan.clone() };
    for key in shuffled(plan.entries) {
        tokens.insert(key, key);
        locked.write().insert(key, key);
    }
    let (locked, tokens) = (&locked, &tokens);
    for changes in CHANGES {
        for threads in [1, 2] {
            let what =
                changes.map_or("never changed".into(), |every| format!("1 in {every} a change"));
            let title = format!("volatile read, {threads} threads, {what}");
            let is_change = |key: u64| changes.is_some_and(|every| key.is_multiple_of(every));
            let question = Question::of_costs(title, "ns")
                .ask("RwLock<BTreeMap>", || {
                    Ok(on_threads(threads, plan, &|key| {
                        if is_change(key) {
                            locked.write().insert(key, key);
                        }
                        let found = locked.read().get(&key).copied();
                        black_box(found).map_or(0, u64::cast_signed)
                    }))
                })
                .ask("rocstate", || {
                    Ok(on_threads(threads, plan, &|key| {
                        if is_change(key) {
                            tokens.insert(key, key);
                        }
                        black_box(tokens.get(&key)).map_or(0, u64::cast_signed)
                    }))
                });
            report.ask(question, plan.rounds)?;
        }
    }
    Ok(())
}
