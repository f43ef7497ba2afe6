use std::path::Path;

use rocstate::{DurableMap, Store};
use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;

use super::Peer;

struct Rocstate {
    store: Store,
    orders: DurableMap<u64, Order>,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Peer>, Failure> {
    let store = Store::open(dir)?;
    let orders = store.durable_map("orders")?;
    Ok(Box::new(Rocstate { store, orders }))
}

impl Peer for Rocstate {
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure> {
        let mut entries = entries.into_iter();
        self.store.transact(|tx| {
            entries.try_for_each(|(key, order)| self.orders.put(tx, key, order).map(drop))
        })?;
        Ok(())
    }

    fn cents(&self, key: u64) -> Result<i64, Failure> {
        Ok(self.orders.get(&self.store.view(), &key)?.ok_or("absent")?.cents)
    }

    fn all_cents(&self) -> Result<i64, Failure> {
        let view = self.store.view();
        self.orders.iter(&view).try_fold(0, |sum, entry| Ok(sum + entry?.1.cents))
    }
}
