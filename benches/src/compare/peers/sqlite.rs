use std::path::Path;

use parking_lot::Mutex;
use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;
use rusqlite::Connection;

use super::{Peer, cents_of};

pub(super) fn open(dir: &Path) -> Result<Box<dyn Peer>, Failure> {
    let connection = Connection::open(dir.join("sqlite"))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection
        .execute("CREATE TABLE IF NOT EXISTS orders (key INTEGER PRIMARY KEY, value BLOB)", ())?;
    Ok(Box::new(Mutex::new(connection)))
}

impl Peer for Mutex<Connection> {
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let mut put =
            transaction.prepare_cached("INSERT OR REPLACE INTO orders VALUES (?1, ?2)")?;
        for (key, order) in entries {
            put.execute((i64::try_from(key)?, order.to_bytes()))?;
        }
        drop(put);
        transaction.commit()?;
        Ok(())
    }

    fn cents(&self, key: u64) -> Result<i64, Failure> {
        let connection = self.lock();
        let mut get = connection.prepare_cached("SELECT value FROM orders WHERE key = ?1")?;
        cents_of(&get.query_one([i64::try_from(key)?], |row| row.get::<_, Vec<u8>>(0))?)
    }

    fn all_cents(&self) -> Result<i64, Failure> {
        let connection = self.lock();
        let mut all = connection.prepare_cached("SELECT value FROM orders ORDER BY key")?;
        let values = all.query_map((), |row| row.get::<_, Vec<u8>>(0))?;
        values.into_iter().try_fold(0, |sum, bytes| Ok(sum + cents_of(&bytes?)?))
    }
}
