//! Bringing the tree of a region, as it is in memory, to what a piece of the log makes of it.

use super::Value;
use super::handle::WorkingTree;
use super::key::{Key, decode_whole};
use super::stored;
use crate::error::Result;
use crate::format::block::Entry;
use crate::log::run::Run;
use crate::state::RegionRoot;
use crate::tree::Draft;

/// The region's tree with the last write of each key; ranges that were cold are read where one lies.
pub(super) fn follow<K: Key, V: Value>(
    root: &RegionRoot,
    run: &Run,
) -> Result<Box<dyn WorkingTree>> {
    let mut draft: Draft<K, V> = root.to_tree()?.draft();
    for Entry { key, value } in (0..run.len()).filter_map(|at| run.get(at)) {
        let key: K = decode_whole(key)?;
        match value {
            Some(value) => drop(draft.insert_stored_by(key, stored::decode(value), K::compare)?),
            None => drop(draft.remove(|other| key.compare(other))?),
        }
    }
    Ok(Box::new(draft))
}
