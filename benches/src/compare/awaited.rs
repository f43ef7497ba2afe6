//! Commits that nobody blocks for: tasks of one thread, each of which awaits its commit before it makes the next.

use std::time::{Duration, Instant};

use rocstate::{DurableMap, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::Failure;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, LocalSet};

use crate::Plan;
use crate::durable::{Latencies, P99, commit_from};
use crate::floor;
use crate::report::Report;

const KEYS: u64 = 100_000;

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let store = Store::open(dir.path().join("synced"))?;
    let map = store.durable_map("orders")?;
    let name = "synced commits that are awaited";
    ask(plan, report, name, (&store, &map), 64, &[1, 4, 16, 64, 1024, 16_384])?;
    let (store, map) = floor::open(&dir.path().join("process"))?;
    let name = "Process commits that are awaited";
    ask(plan, report, name, (&store, &map), 1, &[1, 4, 64, 1024])
}

/// Awaited by so many tasks each, beside threads that block.
fn ask(
    plan: &Plan,
    report: &mut Report,
    name: &str,
    (store, map): (&Store, &DurableMap<u64, Order>),
    threads: u64,
    tasks: &[u64],
) -> Result<(), Failure> {
    let mut latencies = Latencies::new(plan.time);
    let commit = |orders: Vec<(u64, Order)>| {
        store.transact(|tx| {
            let mut orders = orders.into_iter();
            orders.try_for_each(|(key, order)| map.put(tx, key, order).map(drop))
        })?;
        Ok(())
    };
    let plural = if threads == 1 { "thread that blocks" } else { "threads that block" };
    latencies.add(format!("{threads} {plural}"), || commit_from(threads, KEYS, plan.time, &commit));
    for count in tasks {
        latencies.add(format!("{count} awaited on one thread"), || {
            await_from(*count, plan.time, store, map)
        });
    }
    latencies.ask(plan, report, name, &[P99])
}

/// Commits by so many tasks, each of one order; how long each took, in seconds.
fn await_from(
    tasks: u64,
    time: Duration,
    store: &Store,
    map: &DurableMap<u64, Order>,
) -> Result<Vec<f64>, Failure> {
    let (thread, mut running) = (LocalSet::new(), JoinSet::new());
    let began = Instant::now();
    for seed in 1..=tasks {
        let (store, map) = (store.clone(), map.clone());
        let task = async move {
            let (mut dice, mut times) = (Dice::new(seed * 7919), Vec::new());
            while began.elapsed() < time {
                let key = dice.below(KEYS);
                let (order, began) = (Order::new(key, 1), Instant::now());
                store.submit(|tx| map.put(tx, key, order)).await?;
                times.push(began.elapsed().as_secs_f64());
                // Also where nothing had to be waited for, others have their turn.
                tokio::task::yield_now().await;
            }
            Ok::<_, rocstate::Error>(times)
        };
        running.spawn_local_on(task, &thread);
    }
    let runtime = Builder::new_current_thread().build()?;
    let all = thread.block_on(&runtime, running.join_all());
    let all: Vec<Vec<f64>> = all.into_iter().collect::<Result<_, _>>()?;
    Ok(all.concat())
}
