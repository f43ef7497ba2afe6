use std::path::Path;

use heed::byteorder::BigEndian;
use heed::types::{Bytes, U64};
use heed::{Database, Env, EnvOpenOptions, WithoutTls};
use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;

use super::{Peer, cents_of};

struct Heed {
    env: Env<WithoutTls>,
    orders: Database<U64<BigEndian>, Bytes>,
}

#[expect(unsafe_code, reason = "LMDB trusts its file; nobody else touches it here")]
pub(super) fn open(dir: &Path) -> Result<Box<dyn Peer>, Failure> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(64 << 30);
    // SAFETY: the directory is this benchmark's own, and it is opened once.
    let env = unsafe { options.open(dir)? };
    let mut transaction = env.write_txn()?;
    let orders = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(Box::new(Heed { env, orders }))
}

impl Peer for Heed {
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure> {
        let mut transaction = self.env.write_txn()?;
        for (key, order) in entries {
            self.orders.put(&mut transaction, &key, &order.to_bytes())?;
        }
        transaction.commit()?;
        Ok(())
    }

    fn cents(&self, key: u64) -> Result<i64, Failure> {
        let transaction = self.env.read_txn()?;
        cents_of(self.orders.get(&transaction, &key)?.ok_or("absent")?)
    }

    fn all_cents(&self) -> Result<i64, Failure> {
        let transaction = self.env.read_txn()?;
        self.orders.iter(&transaction)?.try_fold(0, |sum, entry| Ok(sum + cents_of(entry?.1)?))
    }
}
