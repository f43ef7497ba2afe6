//! LMDB, by way of heed: a copy-on-write B-tree in a memory map.

use std::path::Path;
use std::time::Instant;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvOpenOptions, WithoutTls};

use super::{Contender, Outcome, batches, check, resident_kib};
use crate::Failure;
use rocstate_bench::data::Order;

pub(crate) struct Heed;

type Orders = Database<U64<BigEndian>, Bytes>;

impl Heed {
    #[expect(unsafe_code, reason = "LMDB trusts its file; nobody else touches it here")]
    fn open(dir: &Path) -> Result<Env<WithoutTls>, Failure> {
        let dir = dir.join("lmdb");
        std::fs::create_dir_all(&dir)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(64 << 30);
        // SAFETY: the directory is this benchmark's own, and each process opens it once.
        Ok(unsafe { options.open(dir)? })
    }

    fn put(
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
        version: u32,
    ) -> Result<Env<WithoutTls>, Failure> {
        let env = Heed::open(dir)?;
        let mut transaction = env.write_txn()?;
        let orders: Orders = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        batches(keys, per_commit, |batch| {
            let mut transaction = env.write_txn()?;
            for key in batch {
                orders.put(&mut transaction, key, &Order::new(*key, version).to_bytes())?;
            }
            transaction.commit()?;
            Ok(())
        })?;
        Ok(env)
    }
}

impl Contender for Heed {
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure> {
        Heed::put(dir, &mut (0..entries), 100_000, 0).map(drop)
    }

    fn update(
        &self,
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
    ) -> Result<(), Failure> {
        Heed::put(dir, keys, per_commit, 1).map(std::mem::forget)
    }

    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let env = Heed::open(dir)?;
        let transaction = env.read_txn()?;
        let orders: Orders = env.open_database(&transaction, None)?.ok_or("no database")?;
        let order = orders.get(&transaction, &key)?.map(Order::from_bytes).transpose()?;
        let first_read = began.elapsed();
        let resident_kib = resident_kib();
        check(order, key)?;
        let mut everything: Vec<(u64, Order)> = Vec::new();
        for entry in orders.iter(&transaction)? {
            let (key, value) = entry?;
            everything.push((key, Order::from_bytes(value)?));
        }
        Ok(Outcome::kept(began, first_read, resident_kib, everything))
    }

    fn settings(&self) -> &'static str {
        "defaults: each commit is synced"
    }
}
