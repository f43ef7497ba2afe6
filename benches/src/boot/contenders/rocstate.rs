//! This engine.

use std::path::Path;
use std::time::{Duration, Instant};

use rocstate::{DurableMap, Store};

use super::{Contender, Outcome, batches, check, resident_kib};
use crate::Failure;
use rocstate_bench::data::Order;

pub(crate) struct Rocstate;

/// No checkpoint is taken on the way: the tail is to be long.
const NO_CHECKPOINT: Duration = Duration::from_secs(3600);

impl Contender for Rocstate {
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure> {
        let store = Store::options().boot_budget(NO_CHECKPOINT).open(dir)?;
        let map: DurableMap<u64, Order> = store.durable_map("orders")?;
        let mut keys = 0..entries;
        batches(&mut keys, 100_000, |batch| {
            store.transact(|tx| {
                batch.iter().try_for_each(|key| map.insert(tx, *key, Order::new(*key, 0)).map(drop))
            })?;
            // In steps, as a store that fills over time would have them.
            if batch.first().is_some_and(|first| (first / 100_000) % 10 == 9) {
                store.checkpoint()?;
            }
            Ok(())
        })?;
        store.checkpoint()?;
        Ok(())
    }

    fn update(
        &self,
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
    ) -> Result<(), Failure> {
        let store = Store::options().boot_budget(NO_CHECKPOINT).open(dir)?;
        let map: DurableMap<u64, Order> = store.durable_map("orders")?;
        batches(keys, per_commit, |batch| {
            store.transact(|tx| {
                batch.iter().try_for_each(|key| map.insert(tx, *key, Order::new(*key, 1)).map(drop))
            })?;
            Ok(())
        })?;
        std::mem::forget(store);
        Ok(())
    }

    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let store = Store::open(dir)?;
        let map: DurableMap<u64, Order> = store.durable_map("orders")?;
        let view = store.view();
        let order = map.get(&view, &key)?.cloned();
        let first_read = began.elapsed();
        let resident_kib = resident_kib();
        check(order, key)?;
        let mut entries = 0;
        for entry in map.iter(&view) {
            entry?;
            entries += 1;
        }
        let everything = began.elapsed();
        let report = store.boot_report();
        let phases = report
            .phases
            .iter()
            .map(|phase| format!("{} {:.1}", phase.name, phase.duration.as_secs_f64() * 1e3));
        let phases: Vec<String> = phases.collect();
        Ok(Outcome { first_read, resident_kib, everything, entries, remark: phases.join(", ") })
    }

    fn leaves(&self, file: &str) -> bool {
        file.starts_with("checkpoint-")
    }

    fn settings(&self) -> &'static str {
        "defaults; no checkpoint during the updates"
    }
}
