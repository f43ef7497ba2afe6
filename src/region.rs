//! Regions: named parts of the state, each durable or volatile, each with its own generation.
//!
//! # Invariants
//! - A durable transaction holds no volatile state and the other way round: no type here lets one
//!   reach the other; a fence carries a generation, not state.
//! - A handle of an earlier open, or of a removed region, is `Stale`; it never reads the wrong object.

mod cell;
mod checked;
mod cold;
mod durable;
mod entries;
mod fenced;
mod follow;
mod generation;
pub(crate) mod handle;
mod key;
mod key_types;
mod range;
mod schema;
mod stored;
mod trace;
mod volatile;
mod warm;

pub use cell::DurableCell;
pub use durable::DurableMap;
pub use entries::Iter;
pub use fenced::Fenced;
pub use generation::Generation;
pub use key::{AsKey, Frozen, Key, KeyReader, KeyWriter, check_key_order};
pub use range::{KeyPrefix, KeyRange};
pub use volatile::{VolatileIter, VolatileMap, VolatileView};

pub(crate) use generation::Births;
pub(crate) use schema::{declare_cell, declare_map};
pub(crate) use volatile::VolatileCore;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

/// What a durable region can hold: anything with plain serde derives.
///
/// Values are kept with [postcard](https://docs.rs/postcard), which writes no names. A type that it
/// could write but not read back (untagged or internally tagged enums, fields that are skipped) is
/// refused as `Unsupported` before anything is acknowledged.
///
/// What boot leaves on disk is decoded when it is first touched, some entries at a time. So a `Deserialize` must not
/// read the region that it is for: if it asks for what lies beside it gets `Invalid`, and two threads may wait for
/// each other.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// struct Account { owner: String, cents: i64 }
/// store.durable_map::<u64, Account>("accounts")?;
/// # Ok::<(), rocstate::Error>(())
/// ```
pub trait Value: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Value for T {}

/// What every region has: a name and a generation.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// fn guard(region: &impl rocstate::Region) -> (String, rocstate::Generation) {
///     (region.name().to_owned(), region.generation())
/// }
/// let cache = store.volatile_map::<u8, u8>("cache")?;
/// let (name, born) = guard(&cache);
/// assert_eq!(name, "cache");
/// cache.check(born)?;
/// # Ok::<(), rocstate::Error>(())
/// ```
pub trait Region: sealed::Fence {
    /// Its name in the store.
    fn name(&self) -> &str;
    /// Its generation: another one after every boot, discard and removal.
    fn generation(&self) -> Generation;
    /// Whether `born` is still its generation.
    ///
    /// # Errors
    /// `Stale` if not: what was made under `born` belongs to a state that is gone.
    fn check(&self, born: Generation) -> Result<()>;
}

pub(crate) mod sealed {
    use std::sync::Arc;

    use super::Generation;
    use crate::error::Result;

    /// Something that can say whether a generation is still the current one.
    pub trait Fence {
        #[doc(hidden)]
        fn token(&self) -> Arc<dyn Token>;
    }

    /// A region's generation, without its state.
    pub trait Token: Send + Sync {
        #[doc(hidden)]
        fn check(&self, born: Generation) -> Result<()>;
    }
}
