//! Stores of which a boot leaves most on disk, and what they hold.

use std::collections::BTreeMap;
use std::path::Path;

use rocstate::{Durability, DurableMap, Store, View, Warming};

pub type Map = DurableMap<u32, String>;
pub type Model = BTreeMap<u32, String>;

pub fn text(key: u32, version: u32) -> String {
    format!("{version} of {key} {}", "x".repeat((key % 90) as usize))
}

pub fn open(path: &Path, warming: Warming) -> (Store, Map) {
    let options = Store::options().warming(warming).durability(Durability::Process);
    let store = options.segment_bytes(256 << 10).open(path).unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

pub fn insert(store: &Store, map: &Map, keys: impl IntoIterator<Item = u32>, version: u32) {
    store
        .transact(|tx| {
            for key in keys {
                map.insert(tx, key, text(key, version))?;
            }
            Ok(())
        })
        .unwrap();
}

/// A store of so many entries in a checkpoint, with a delta over them and a tail.
pub fn filled(path: &Path, entries: u32) {
    let (store, map) = open(path, Warming::OnDemand);
    insert(&store, &map, 0..entries, 0);
    store.checkpoint().unwrap();
    insert(&store, &map, (0..entries).step_by(97), 1);
    store.checkpoint().unwrap();
    insert(&store, &map, (0..entries).step_by(entries as usize / 50), 2);
    store.sync().unwrap();
}

pub fn expected(entries: u32) -> Model {
    let version = |key: u32| match (key % (entries / 50), key % 97) {
        (0, _) => 2,
        (_, 0) => 1,
        _ => 0,
    };
    (0..entries).map(|key| (key, text(key, version(key)))).collect()
}

pub fn same(view: &View, map: &Map, model: &Model) {
    assert_eq!(map.len(view), model.len());
    let mut expected = model.iter();
    for entry in map.iter(view) {
        assert_eq!(Some(entry.unwrap()), expected.next());
    }
    assert_eq!(expected.next(), None);
}
