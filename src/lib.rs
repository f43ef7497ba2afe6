//! State that survives, and reboots that cost nothing.
//!
//! `rocstate` keeps a program's business state in memory and on disk at once, and lets everything
//! else die: problems will always happen, so return to a known good state, by one path, quickly,
//! and lose nothing that matters.
//!
//! - A [`Store`] is a directory. [`Store::open`] is the only way in: first start, clean exit,
//!   `kill -9` and power loss run the same recovery. There is no `close`.
//! - *Durable* regions ([`DurableMap`], [`DurableCell`]) are the state that matters: changed in a
//!   [`Transaction`], written to a redo log, gathered in checkpoints, read from memory.
//! - *Volatile* regions ([`VolatileMap`]) are the state that only accumulates: never on disk, empty
//!   after every boot, thrown away in constant time by [`VolatileMap::discard`].
//! - A [`Generation`] tells one life of a store or region from the next: whoever holds an old one
//!   gets a typed `Stale`, never the wrong object.
//!
//! ```
//! use rocstate::{DurableMap, ErrorKind, Store, VolatileMap};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Account { owner: String, cents: i64 }
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("shop");
//! let store = Store::open(&path)?;                                          // boot
//! let accounts: DurableMap<u64, Account> = store.durable_map("accounts")?;
//! let sessions: VolatileMap<String, u64> = store.volatile_map("sessions")?;
//!
//! let account = Account { owner: "ann".into(), cents: 100 };
//! store.transact(|tx| accounts.insert(tx, 7, account))?;      // on stable storage when this returns
//!
//! let view = store.view();                                    // O(1), never waits, never changes
//! assert_eq!(accounts.get(&view, &7)?.map(|account| account.cents), Some(100));
//!
//! let born = sessions.generation();
//! sessions.insert("token".into(), 7);
//! sessions.discard();                                         // O(1), whatever its size
//! assert_eq!(sessions.check(born).unwrap_err().kind(), ErrorKind::Stale);
//!
//! println!("{}", store.boot_report());                        // what recovery did
//! # Ok::<(), rocstate::Error>(())
//! ```
//!
//! The bytes on disk are described in FORMAT.md, the code in ARCHITECTURE.md.

mod boot;
mod checkpoint;
mod commit;
mod contain;
#[cfg(feature = "controls")]
#[doc(hidden)]
pub mod control;
#[cfg(not(feature = "controls"))]
mod control;
#[cfg(feature = "sim")]
mod crash_test;
mod engine;
mod error;
#[cfg(feature = "inspect")]
pub mod format;
#[cfg(not(feature = "inspect"))]
#[allow(unreachable_pub, reason = "public with the feature `inspect`")]
mod format;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod give_way;
#[cfg(feature = "inspect")]
pub mod inspect;
mod log;
mod options;
#[cfg(feature = "inspect")]
#[doc(hidden)]
pub mod parts;
mod prefetch;
mod region;
mod report;
mod state;
mod storage;
mod store;
mod submitted;
mod sync;
mod transaction;
mod tree;
mod view;
mod visible;

/// A simulated disk, and tests that lose power at every call. Feature `sim`.
#[cfg(feature = "sim")]
pub mod sim {
    pub use crate::crash_test::{Crash, CrashTest, Failure, Notes, Outcome, Summary};
    pub use crate::storage::sim::{Fault, SECTOR_BYTES, SimDisk};
}

pub use error::{Error, ErrorKind, Result};
pub use format::block::Compression;
pub use format::shape::KeyShape;
pub use format::{
    FORMAT_VERSION, KEY_BYTES_MAX, Lsn, REGION_NAME_BYTES_MAX, TRANSACTION_BYTES_MAX,
    VALUE_BYTES_MAX,
};
pub use options::{Backpressure, Durability, Options, Warming};
pub use region::{
    AsKey, DurableCell, DurableMap, Fenced, Frozen, Generation, Iter, Key, KeyPrefix, KeyRange,
    KeyReader, KeyWriter, Region, Value, VolatileIter, VolatileMap, VolatileView, check_key_order,
};
pub use report::{BootReport, LastRun, Phase, Progress, RegionInfo, Stats, Warmth};
pub use storage::{Disk, LockGuard, OpenMode, Storage, StorageFile};
pub use store::Store;
pub use submitted::Submitted;
pub use transaction::Transaction;
pub use view::{Readable, View};
