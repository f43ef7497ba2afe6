//! `SQLite` in WAL mode, by way of rusqlite.

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension};

use super::{Contender, Outcome, batches, check, resident_kib};
use crate::Failure;
use rocstate_bench::data::Order;

pub(crate) struct Sqlite;

impl Sqlite {
    fn open(dir: &Path) -> Result<Connection, Failure> {
        let connection = Connection::open(dir.join("sqlite"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.execute(
            "CREATE TABLE IF NOT EXISTS orders (key INTEGER PRIMARY KEY, value BLOB)",
            (),
        )?;
        Ok(connection)
    }

    fn put(
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
        version: u32,
    ) -> Result<Connection, Failure> {
        let mut connection = Sqlite::open(dir)?;
        batches(keys, per_commit, |batch| {
            let transaction = connection.transaction()?;
            let mut insert =
                transaction.prepare_cached("INSERT OR REPLACE INTO orders VALUES (?1, ?2)")?;
            for key in batch {
                insert.execute((i64::try_from(*key)?, Order::new(*key, version).to_bytes()))?;
            }
            drop(insert);
            transaction.commit()?;
            Ok(())
        })?;
        Ok(connection)
    }
}

impl Contender for Sqlite {
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure> {
        Sqlite::put(dir, &mut (0..entries), 100_000, 0).map(drop)
    }

    fn update(
        &self,
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
    ) -> Result<(), Failure> {
        Sqlite::put(dir, keys, per_commit, 1).map(std::mem::forget)
    }

    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure> {
        let began = Instant::now();
        let connection = Sqlite::open(dir)?;
        let bytes: Option<Vec<u8>> = connection
            .query_row("SELECT value FROM orders WHERE key = ?1", [i64::try_from(key)?], |row| {
                row.get(0)
            })
            .optional()?;
        let order = bytes.map(|bytes| Order::from_bytes(&bytes)).transpose()?;
        let first_read = began.elapsed();
        let resident_kib = resident_kib();
        check(order, key)?;
        let mut everything: Vec<(u64, Order)> = Vec::new();
        let mut select = connection.prepare("SELECT key, value FROM orders ORDER BY key")?;
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            let key = u64::try_from(row.get::<_, i64>(0)?)?;
            everything.push((key, Order::from_bytes(row.get_ref(1)?.as_blob()?)?));
        }
        Ok(Outcome::kept(began, first_read, resident_kib, everything))
    }

    fn settings(&self) -> &'static str {
        "journal_mode=WAL, synchronous=FULL"
    }
}
