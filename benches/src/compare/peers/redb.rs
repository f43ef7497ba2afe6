use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;

use super::{Peer, cents_of};

const ORDERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("orders");

pub(super) fn open(dir: &Path) -> Result<Box<dyn Peer>, Failure> {
    Ok(Box::new(Database::builder().set_cache_size(1 << 30).create(dir.join("redb"))?))
}

impl Peer for Database {
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure> {
        let transaction = self.begin_write()?;
        let mut orders = transaction.open_table(ORDERS)?;
        for (key, order) in entries {
            orders.insert(key, order.to_bytes().as_slice())?;
        }
        drop(orders);
        transaction.commit()?;
        Ok(())
    }

    fn cents(&self, key: u64) -> Result<i64, Failure> {
        let orders = self.begin_read()?.open_table(ORDERS)?;
        cents_of(orders.get(key)?.ok_or("absent")?.value())
    }

    fn all_cents(&self) -> Result<i64, Failure> {
        let orders = self.begin_read()?.open_table(ORDERS)?;
        orders.iter()?.try_fold(0, |sum, entry| Ok(sum + cents_of(entry?.1.value())?))
    }
}
