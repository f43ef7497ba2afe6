//! redb: a copy-on-write B-tree in one file.

use std::path::Path;
use std::time::Instant;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Contender, Outcome, batches, check, resident_kib};
use crate::Failure;
use rocstate_bench::data::Order;

pub(crate) struct Redb;

const ORDERS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("orders");

impl Redb {
    fn put(
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
        version: u32,
    ) -> Result<Database, Failure> {
        let database = Database::create(dir.join("redb"))?;
        batches(keys, per_commit, |batch| {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(true);
            let mut table = transaction.open_table(ORDERS)?;
            for key in batch {
                table.insert(key, Order::new(*key, version).to_bytes().as_slice())?;
            }
            drop(table);
            transaction.commit()?;
            Ok(())
        })?;
        Ok(database)
    }
}

impl Contender for Redb {
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure> {
        Redb::put(dir, &mut (0..entries), 100_000, 0).map(drop)
    }

    fn update(
        &self,
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
    ) -> Result<(), Failure> {
        Redb::put(dir, keys, per_commit, 1).map(std::mem::forget)
    }

    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let database = Database::create(dir.join("redb"))?;
        let transaction = database.begin_read()?;
        let table = transaction.open_table(ORDERS)?;
        let order = table.get(key)?.map(|value| Order::from_bytes(value.value())).transpose()?;
        let first_read = began.elapsed();
        let resident_kib = resident_kib();
        check(order, key)?;
        let mut everything: Vec<(u64, Order)> = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            everything.push((key.value(), Order::from_bytes(value.value())?));
        }
        Ok(Outcome::kept(began, first_read, resident_kib, everything))
    }

    fn settings(&self) -> &'static str {
        "Durability::Immediate, quick repair"
    }
}
