//! Maps filled alike, and the keys that are asked of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rocstate::{Durability, DurableMap, Store, Value};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::Failure;

const SEED: u64 = 0x5eed;

/// The numbers below `entries`, each once, in an order that is the same for everyone.
pub(crate) fn shuffled(entries: u64) -> Vec<u64> {
    let mut keys: Vec<u64> = (0..entries).collect();
    let mut dice = Dice::new(SEED);
    for at in (1..keys.len()).rev() {
        let other = dice.below(at as u64 + 1);
        keys.swap(at, usize::try_from(other).unwrap_or_default());
    }
    keys
}

/// A key that owns memory.
pub(crate) fn name(key: u64) -> String {
    format!("customer-{key:010}")
}

/// Entries with keys drawn below `limit`, made before anything is timed.
pub(crate) fn drawn(dice: &mut Dice, limit: u64, count: usize) -> Vec<(u64, Order)> {
    (0..count).map(|_| dice.below(limit)).map(|key| (key, Order::new(key, 1))).collect()
}

/// A plain map with an order for each key, filled in random order.
pub(crate) fn plain(entries: u64) -> BTreeMap<u64, Order> {
    plain_of(entries, |key| Order::new(key, 0))
}

/// The same with other values. What is collected would be sorted first.
pub(crate) fn plain_of<V>(entries: u64, value: impl Fn(u64) -> V) -> BTreeMap<u64, V> {
    let mut map = BTreeMap::new();
    for key in shuffled(entries) {
        map.insert(key, value(key));
    }
    map
}

/// A commit for each of these; how long all of them took, in seconds.
pub(crate) fn commit_each(
    store: &Store,
    map: &DurableMap<u64, Order>,
    orders: Vec<(u64, Order)>,
) -> Result<f64, Failure> {
    let began = Instant::now();
    for (key, order) in orders {
        store.transact(|tx| map.put(tx, key, order))?;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// A store of `Process` commits, and its map.
pub(crate) fn open(dir: &Path) -> Result<(Store, DurableMap<u64, Order>), Failure> {
    // With the default budget, checkpoints are taken all the time at these rates.
    open_with(dir, Duration::from_secs(1))
}

fn open_with(
    dir: &Path,
    boot_budget: Duration,
) -> Result<(Store, DurableMap<u64, Order>), Failure> {
    let options = Store::options().durability(Durability::Process);
    let store = options.boot_budget(boot_budget).open(dir)?;
    let map = store.durable_map("orders")?;
    Ok((store, map))
}

/// A store of `Process` commits whose map was filled in the same order.
pub(crate) fn store(dir: &Path, entries: u64) -> Result<(Store, DurableMap<u64, Order>), Failure> {
    fill(open(dir)?, entries)
}

/// The same without checkpoints: what they are made in stays with the allocator.
pub(crate) fn store_without_checkpoints(
    dir: &Path,
    entries: u64,
) -> Result<(Store, DurableMap<u64, Order>), Failure> {
    fill(open_with(dir, Duration::from_secs(3600))?, entries)
}

fn fill(
    (store, map): (Store, DurableMap<u64, Order>),
    entries: u64,
) -> Result<(Store, DurableMap<u64, Order>), Failure> {
    put_all(&store, &map, entries, 10_000)?;
    Ok((store, map))
}

/// Puts an order for each key, so many in a commit.
pub(crate) fn put_all(
    store: &Store,
    map: &DurableMap<u64, Order>,
    entries: u64,
    batch: usize,
) -> Result<(), Failure> {
    put_all_of(store, map, entries, batch, |key| Order::new(key, 0))
}

/// The same with other values.
pub(crate) fn put_all_of<V: Value>(
    store: &Store,
    map: &DurableMap<u64, V>,
    entries: u64,
    batch: usize,
    value: impl Fn(u64) -> V,
) -> Result<(), Failure> {
    for keys in shuffled(entries).chunks(batch) {
        store.transact(|tx| {
            keys.iter().try_for_each(|key| map.put(tx, *key, value(*key)).map(drop))
        })?;
    }
    Ok(())
}
