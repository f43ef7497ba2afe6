//! fjall: a log-structured merge tree.

use std::path::Path;
use std::time::Instant;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Contender, Outcome, batches, check, resident_kib};
use crate::Failure;
use rocstate_bench::data::Order;

pub(crate) struct Fjall;

impl Fjall {
    fn open(dir: &Path) -> Result<(Database, Keyspace), Failure> {
        let database = Database::builder(dir.join("fjall")).open()?;
        let orders = database.keyspace("orders", KeyspaceCreateOptions::default)?;
        Ok((database, orders))
    }

    fn put(
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
        version: u32,
    ) -> Result<Database, Failure> {
        let (database, orders) = Fjall::open(dir)?;
        batches(keys, per_commit, |batch| {
            let mut writes = database.batch();
            for key in batch {
                writes.insert(&orders, key.to_be_bytes(), Order::new(*key, version).to_bytes());
            }
            writes.commit()?;
            database.persist(PersistMode::SyncData)?;
            Ok(())
        })?;
        Ok(database)
    }
}

impl Contender for Fjall {
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure> {
        Fjall::put(dir, &mut (0..entries), 10_000, 0).map(drop)
    }

    fn update(
        &self,
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
    ) -> Result<(), Failure> {
        Fjall::put(dir, keys, per_commit, 1).map(std::mem::forget)
    }

    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let (_database, orders) = Fjall::open(dir)?;
        let order =
            orders.get(key.to_be_bytes())?.map(|value| Order::from_bytes(&value)).transpose()?;
        let first_read = began.elapsed();
        let resident_kib = resident_kib();
        check(order, key)?;
        let mut everything: Vec<(u64, Order)> = Vec::new();
        for entry in orders.iter() {
            let (key, value) = entry.into_inner()?;
            everything.push((u64::from_be_bytes((*key).try_into()?), Order::from_bytes(&value)?));
        }
        Ok(Outcome::kept(began, first_read, resident_kib, everything))
    }

    fn settings(&self) -> &'static str {
        "defaults; PersistMode::SyncData after each batch"
    }
}
