//! P6: what a boot leaves on disk is read ahead of its first touch, in the background, on demand or at once.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::sync::atomic::Ordering;

use common::cold::{Map, expected, filled, open, same};
use common::{FaultyDisk, eventually};
use rocstate::{ErrorKind, Store, Warming};

const ENTRIES: u32 = 20_000;

#[test]
fn warming_reads_everything_in_the_background_on_demand_or_at_once() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), ENTRIES);
    let cold = |store: &Store| store.regions().iter().map(|region| region.cold).sum::<usize>();

    let (store, map) = open(dir.path(), Warming::OnDemand);
    assert_eq!(cold(&store), ENTRIES as usize);
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(cold(&store), ENTRIES as usize, "nobody asked");
    map.warm().unwrap();
    assert_eq!((cold(&store), store.stats().cold_entries), (0, 0));
    same(&store.view(), &map, &expected(ENTRIES));
    drop((store, map));

    let (store, map) = open(dir.path(), Warming::Eager);
    assert_eq!(cold(&store), 0);
    same(&store.view(), &map, &expected(ENTRIES));
    drop((store, map));

    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let to = std::sync::Arc::clone(&seen);
    let options = Store::options().on_warming(move |now| {
        assert_eq!((now.region, now.entries), ("map", ENTRIES as usize));
        to.lock().unwrap().push(now.warm);
    });
    let store = options.open(dir.path()).unwrap();
    assert_eq!(cold(&store), ENTRIES as usize, "nothing is read before the region is declared");
    let map: Map = store.durable_map("map").unwrap();
    eventually("all of it is warm", || cold(&store) == 0);
    eventually("that is told", || seen.lock().unwrap().last() == Some(&(ENTRIES as usize)));
    assert!(seen.lock().unwrap().len() > 1);
    same(&store.view(), &map, &expected(ENTRIES));
}

#[test]
fn warming_ends_with_its_region_and_with_its_store() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100_000);
    for end in ["remove", "clear", "close"] {
        let disk = FaultyDisk::default();
        let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        let reads = || disk.0.reads.load(Ordering::SeqCst);
        if end == "close" {
            drop(store);
            let before = reads();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert_eq!(reads(), before, "{end}");
            assert_eq!(map.warm().unwrap_err().kind(), ErrorKind::Closed);
            continue;
        }
        let mut tx = store.begin();
        match end {
            "remove" => assert!(tx.remove_region("map").unwrap()),
            _ => map.clear(&mut tx).unwrap(),
        }
        tx.commit().unwrap();
        // What was claimed is read to its end at most.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let before = reads();
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(reads(), before, "{end}");
        assert_eq!(map.warm().is_ok(), end == "clear");
        drop((store, map));
        std::fs::remove_dir_all(dir.path()).unwrap();
        filled(dir.path(), 100_000);
    }
}
