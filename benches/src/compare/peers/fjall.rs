use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;

use super::{Peer, cents_of};

struct Fjall {
    database: Database,
    orders: Keyspace,
}

pub(super) fn open(dir: &Path) -> Result<Box<dyn Peer>, Failure> {
    let database = Database::builder(dir.join("fjall")).open()?;
    let orders = database.keyspace("orders", KeyspaceCreateOptions::default)?;
    Ok(Box::new(Fjall { database, orders }))
}

impl Peer for Fjall {
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure> {
        let mut batch = self.database.batch();
        for (key, order) in entries {
            batch.insert(&self.orders, key.to_be_bytes(), order.to_bytes());
        }
        batch.commit()?;
        self.database.persist(PersistMode::SyncData)?;
        Ok(())
    }

    fn cents(&self, key: u64) -> Result<i64, Failure> {
        cents_of(&self.orders.get(key.to_be_bytes())?.ok_or("absent")?)
    }

    fn all_cents(&self) -> Result<i64, Failure> {
        self.orders.iter().try_fold(0, |sum, entry| Ok(sum + cents_of(&entry.into_inner()?.1)?))
    }
}
