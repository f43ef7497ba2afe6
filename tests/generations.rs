//! P7, P8: generations are never shared, and who holds an older one is refused.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::collections::BTreeSet;

use common::kind;
use rocstate::sim::SimDisk;
use rocstate::{DurableMap, ErrorKind, Generation, Store, VolatileMap};

type Map = DurableMap<u32, String>;

#[test]
fn generations_grow_over_boots_and_discards_and_are_never_shared() {
    let dir = tempfile::tempdir().unwrap();
    let mut seen = BTreeSet::new();
    let mut last: Option<Generation> = None;
    for _ in 0..4 {
        let store = Store::open(dir.path()).unwrap();
        let durable: Map = store.durable_map("d").unwrap();
        let a: VolatileMap<u8, u8> = store.volatile_map("a").unwrap();
        let b: VolatileMap<u8, u8> = store.volatile_map("b").unwrap();
        let mut born =
            vec![store.generation(), durable.generation(), a.generation(), b.generation()];
        for _ in 0..3 {
            born.push(a.discard());
            born.push(b.discard());
            assert_eq!(b.generation(), *born.last().unwrap());
        }
        for generation in born {
            assert!(last.is_none_or(|last| last < generation));
            last = Some(generation);
            assert!(seen.insert(generation.to_string()), "{generation} was used before");
            assert_eq!(generation.to_string().parse::<Generation>().unwrap(), generation);
            let json = serde_json::to_string(&generation).unwrap();
            assert_eq!(serde_json::from_str::<Generation>(&json).unwrap(), generation);
        }
    }
}

#[test]
fn a_power_loss_right_after_a_boot_takes_no_generation_back() {
    let options = |disk: &SimDisk| Store::options().storage(disk.clone()).threads(false);
    let mut disk = SimDisk::new(1);
    let mut last = None;
    for seed in 0..40 {
        let booted = options(&disk).open("/store").unwrap().generation();
        assert!(last.is_none_or(|last| last < booted), "{booted} after {last:?}");
        last = Some(booted);
        disk = disk.power_loss(seed);
    }
}

#[test]
fn a_copy_of_a_store_has_other_generations() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(Store::open(dir.path()).unwrap());
    for (path, bytes) in common::image(dir.path()) {
        std::fs::write(copy.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let one = Store::open(dir.path()).unwrap().generation();
    let two = Store::open(copy.path()).unwrap().generation();
    assert_eq!((one.lineage(), one.epoch()), (two.lineage(), two.epoch()));
    assert_ne!(one, two);
    assert_eq!(one.partial_cmp(&two), None);
}

#[test]
fn stale_holders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let sessions: VolatileMap<String, u32> = store.volatile_map("sessions").unwrap();
    let map: Map = store.durable_map("map").unwrap();
    let born = sessions.generation();
    let mine = sessions.fenced(born);
    mine.insert("a".into(), 1).unwrap();
    assert_eq!(mine.get("a").unwrap(), Some(1));
    let view = sessions.view();

    // A fence holds at the end of the transaction, not only when it is set.
    let mut tx = store.begin();
    map.insert(&mut tx, 1, "one".into()).unwrap();
    tx.fence(&sessions, born).unwrap();
    sessions.discard();
    assert_eq!(kind(tx.commit()), ErrorKind::Stale);
    assert!(map.is_empty(&store.view()));

    assert_eq!(kind(sessions.check(born)), ErrorKind::Stale);
    assert_eq!(kind(mine.insert("b".into(), 2)), ErrorKind::Stale);
    assert_eq!(kind(mine.len()), ErrorKind::Stale);
    assert_eq!(kind(mine.discard()), ErrorKind::Stale);
    assert!(sessions.is_empty());
    assert_eq!((view.get("a"), view.generation()), (Some(&1), born));
    let refused = store.transact(|tx| tx.fence(&sessions, born)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Stale);
    assert_eq!(refused.region(), Some("sessions"));
    // The current one passes.
    store
        .transact(|tx| {
            tx.fence(&sessions, sessions.generation())?;
            tx.fence(&map, map.generation())?;
            map.insert(tx, 1, "one".into())
        })
        .unwrap();
}

#[test]
fn handles_of_an_earlier_open_are_stale_and_hold_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let old: Map = store.durable_map("map").unwrap();
    store.transact(|tx| old.insert(tx, 1, "one".into())).unwrap();
    let view = store.view();
    let volatile: VolatileMap<u8, u8> = store.volatile_map("v").unwrap();
    drop(store);

    let store = Store::open(dir.path()).unwrap();
    // A view of the earlier open still reads; its map is no good here.
    assert_eq!(old.get(&view, &1).unwrap().map(String::as_str), Some("one"));
    assert_eq!(kind(old.get(&store.view(), &1)), ErrorKind::Stale);
    assert_eq!(old.len(&store.view()), 0);
    assert_eq!(old.iter(&store.view()).count(), 1, "one error, then the end");
    let mut tx = store.begin();
    assert_eq!(kind(old.insert(&mut tx, 2, "two".into())), ErrorKind::Stale);
    assert_eq!(kind(old.remove(&mut tx, &1)), ErrorKind::Stale);
    assert_eq!(kind(old.clear(&mut tx)), ErrorKind::Stale);
    drop(tx);
    let new: Map = store.durable_map("map").unwrap();
    assert_eq!(kind(new.get(&view, &1)), ErrorKind::Stale);
    assert_eq!(kind(new.check(old.generation())), ErrorKind::Stale);
    volatile.insert(1, 1);
    assert_eq!(store.volatile_map::<u8, u8>("v").unwrap().len(), 0);
}
