//! Stores that are followed by others.

use std::path::Path;

use rocstate::{DurableMap, Options, Store, Warming};

pub type Map = DurableMap<u32, String>;

/// Opens the store of a writer, which does nothing by itself and removes its log soon.
pub fn open(path: &Path) -> Store {
    let options = Store::options().threads(false).segment_bytes(64 << 10);
    options.keep_checkpoints(1).open(path).unwrap()
}

/// Opens it as one that follows, which does nothing by itself either.
pub fn follow(path: &Path, warming: Warming) -> Store {
    following().warming(warming).open(path).unwrap()
}

/// The options of one that follows.
pub fn following() -> Options {
    Store::options().read_only(true).threads(false)
}

/// A store of so many entries in a checkpoint, of so many bytes each.
pub fn filled(path: &Path, entries: u32, bytes: usize) -> (Store, Map) {
    let store = open(path);
    let map: Map = store.durable_map("map").unwrap();
    let value = |key| format!("{key:0bytes$}");
    store
        .transact(|tx| (0..entries).try_for_each(|key| map.put(tx, key, value(key)).map(drop)))
        .unwrap();
    store.checkpoint().unwrap();
    store.tend().unwrap();
    (store, map)
}
