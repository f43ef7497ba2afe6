use std::path::Path;

use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;

use super::{Peer, cents_of};

pub(super) fn open(dir: &Path) -> Result<Box<dyn Peer>, Failure> {
    Ok(Box::new(sled::Config::new().path(dir.join("sled")).cache_capacity(1 << 30).open()?))
}

impl Peer for sled::Db {
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure> {
        let mut batch = sled::Batch::default();
        for (key, order) in entries {
            batch.insert(&key.to_be_bytes(), order.to_bytes());
        }
        self.apply_batch(batch)?;
        self.flush()?;
        Ok(())
    }

    fn cents(&self, key: u64) -> Result<i64, Failure> {
        cents_of(&self.get(key.to_be_bytes())?.ok_or("absent")?)
    }

    fn all_cents(&self) -> Result<i64, Failure> {
        self.iter().try_fold(0, |sum, entry| Ok(sum + cents_of(&entry?.1)?))
    }
}
