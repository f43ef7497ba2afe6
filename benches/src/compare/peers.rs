//! The stores that are compared, doing the same work at the same durability.

mod fjall;
mod heed;
mod redb;
mod rocstate;
mod sled;
mod sqlite;

use std::path::Path;

use rocstate_bench::data::Order;
use rocstate_bench::run::Failure;

/// A store of orders under test; every commit is synced when it returns.
pub(crate) trait Peer: Send + Sync {
    /// Makes these entries what their keys hold, in one commit.
    fn commit(&self, entries: Vec<(u64, Order)>) -> Result<(), Failure>;
    /// Reads one order, decoded, in a snapshot or transaction of its own.
    fn cents(&self, key: u64) -> Result<i64, Failure>;
    /// Reads all orders in key order, decoded; the sum of their cents.
    fn all_cents(&self) -> Result<i64, Failure>;
}

/// By name: how it is set up, and how to open it in a directory that exists.
pub(crate) struct Entrant {
    pub(crate) name: &'static str,
    pub(crate) settings: &'static str,
    pub(crate) open: fn(&Path) -> Result<Box<dyn Peer>, Failure>,
}

pub(crate) const ENTRANTS: [Entrant; 6] = [
    Entrant {
        name: "rocstate",
        settings: "defaults: Durability::Machine; boot budget 1 s where commits are not synced",
        open: rocstate::open,
    },
    Entrant { name: "redb", settings: "Durability::Immediate, cache of 1 GiB", open: redb::open },
    Entrant {
        name: "fjall",
        settings: "a batch for each commit, then PersistMode::SyncData",
        open: fjall::open,
    },
    Entrant {
        name: "LMDB",
        settings: "by way of heed; each commit is synced, read transactions are not kept",
        open: heed::open,
    },
    Entrant {
        name: "SQLite",
        settings: "by way of rusqlite; journal_mode=WAL, synchronous=FULL, prepared statements, \
                   one connection",
        open: sqlite::open,
    },
    Entrant {
        name: "sled",
        settings: "apply_batch, then flush, which gathers the writers; cache of 1 GiB",
        open: sled::open,
    },
];

pub(crate) fn cents_of(bytes: &[u8]) -> Result<i64, Failure> {
    Ok(Order::from_bytes(bytes)?.cents)
}
