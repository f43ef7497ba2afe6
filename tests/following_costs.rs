//! P6: what a read-only store reads when it moves on with its writer, what it keeps, and what it lets go.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::path::Path;
use std::sync::atomic::Ordering;

use common::FaultyDisk;
use common::followed::{Map, filled, follow, following};
use rocstate::{Store, Transaction, Warming};

/// Opens a store that follows on a disk that counts.
fn follow_counted(path: &Path) -> (Store, FaultyDisk) {
    let disk = FaultyDisk::default();
    let options = following().warming(Warming::OnDemand).storage(disk.clone());
    (options.open(path).unwrap(), disk)
}

#[test]
fn what_was_read_stays_read() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 20_000, 1);
    let (reader, disk) = follow_counted(dir.path());
    let followed: Map = reader.durable_map("map").unwrap();
    followed.warm().unwrap();
    let reads = || disk.0.reads.load(Ordering::SeqCst);
    let follow = |keys: &mut dyn Iterator<Item = u32>, text: &str| {
        store
            .transact(|tx| {
                let mut keys = keys;
                (&mut keys).try_for_each(|key| map.put(tx, key, text.to_owned()).map(drop))
            })
            .unwrap();
        store.tend().unwrap();
        let before = reads();
        assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        assert_eq!(reader.stats().cold_entries, 0);
        reads() - before
    };
    // Many segments at once, none of which is read again.
    let long = "x".repeat(500);
    for part in 0..4 {
        let mut parts = (0..1_000).map(|key| 20_000 + part * 1_000 + key);
        assert!(follow(&mut parts, &long) > 5);
    }
    for round in 0..20 {
        let text = format!("round {round}");
        let keys = (round..20_000).step_by(997);
        // LOCK, the newest segment, and at times the next one.
        let count = follow(&mut keys.clone(), &text);
        assert!(count <= 8, "{count} reads");
        let before = reads();
        let view = reader.view();
        assert!(keys.clone().all(|key| followed.get(&view, &key).unwrap() == Some(&text)));
        assert_eq!(followed.iter(&view).count(), 24_000);
        assert_eq!(reads(), before);
    }
    store.checkpoint().unwrap();
    let count = follow(&mut (0..10), "after a checkpoint");
    assert!(count <= 40, "{count} reads");
}

#[test]
fn what_is_mostly_on_disk_stays_there_if_nobody_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 30_000, 300);
    let (reader, disk) = follow_counted(dir.path());
    let followed: Map = reader.durable_map("map").unwrap();
    let reads = || disk.0.reads.load(Ordering::SeqCst);
    // A few changes are worth reading what they change; many are not.
    for (count, step) in [(20, 1_500), (1_000, 30)] {
        let keys = (0..30_000).step_by(step);
        store
            .transact(|tx| {
                keys.clone().try_for_each(|key| map.put(tx, key, "new".into()).map(drop))
            })
            .unwrap();
        store.tend().unwrap();
        let before = reads();
        assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        assert!(reads() - before < 150, "{} reads for {count} changes", reads() - before);
        let view = reader.view();
        assert!(keys.clone().all(|key| followed.get(&view, &key).unwrap().unwrap() == "new"));
        assert_eq!(followed.get(&view, &22_222).unwrap().unwrap().parse(), Ok(22_222));
    }
}

#[test]
fn many_changes_lie_over_what_few_changes_made() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 30_000, 300);
    let (reader, disk) = follow_counted(dir.path());
    let followed: Map = reader.durable_map("map").unwrap();
    let reads = || disk.0.reads.load(Ordering::SeqCst);
    let rounds = [(0, 1_500), (1, 30), (2, 1_500), (3, 30), (4, 30)];
    let keys = |first: u32, step: usize| (first..30_000).step_by(step);
    for (first, step) in rounds {
        let put = |tx: &mut Transaction| {
            let text = first.to_string();
            keys(first, step).try_for_each(|key| map.put(tx, key, text.clone()).map(drop))
        };
        store.transact(put).unwrap();
        store.tend().unwrap();
        let before = reads();
        assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        let limit = if step == 30 { 8 } else { 150 };
        assert!(reads() - before < limit, "{} reads", reads() - before);
    }
    let view = reader.view();
    for (first, step) in rounds {
        let text = first.to_string();
        let is_new = |key| followed.get(&view, &key).unwrap() == Some(&text);
        assert!(keys(first, step).all(is_new), "{first}");
    }
    assert_eq!(followed.get(&view, &22_229).unwrap().unwrap().parse(), Ok(22_229));
}

/// However long the log since the newest checkpoint is: it is not read again, nor kept for each region.
#[test]
fn what_nobody_asked_for_costs_what_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 20_000, 1);
    let others: Vec<Map> =
        (0..40).map(|at| store.durable_map(&format!("other {at}")).unwrap()).collect();
    let put = |other: &Map, key: u32| {
        store.transact(|tx| other.put(tx, key, key.to_string()).map(drop)).unwrap();
        store.tend().unwrap();
    };
    for other in &others {
        put(other, 0);
    }
    let long = "x".repeat(500);
    let many = |tx: &mut Transaction| {
        (0..10_000).try_for_each(|key| map.put(tx, key, long.clone()).map(drop))
    };
    store.transact(many).unwrap();
    store.tend().unwrap();
    let (reader, disk) = follow_counted(dir.path());
    let refresh = |limit| {
        let (reads, before) = (&disk.0.reads, disk.0.reads.load(Ordering::SeqCst));
        assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        let count = reads.load(Ordering::SeqCst) - before;
        assert!(count <= limit, "{count} reads");
    };
    for round in 1..6 {
        for other in &others {
            put(other, round);
            refresh(8);
        }
        if round == 3 {
            store.checkpoint().unwrap();
            // What a region has got since the checkpoint moves on with it.
            put(&others[0], 100);
            refresh(60);
            assert_eq!(reader.stats().pinned_bytes, 0);
        }
    }
    for (at, other) in others.iter().enumerate() {
        let followed: Map = reader.durable_map(&format!("other {at}")).unwrap();
        let (view, current) = (reader.view(), store.view());
        let entries = |map: &Map, view| map.iter(view).map(|e| *e.unwrap().0).collect::<Vec<_>>();
        assert_eq!(entries(&followed, &view), entries(other, &current));
    }
}

#[test]
fn what_is_superseded_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 20_000, 1);
    let reader = follow(dir.path(), Warming::OnDemand);
    let followed: Map = reader.durable_map("map").unwrap();
    assert_eq!(followed.get(&reader.view(), &7).unwrap().unwrap(), "7");
    for round in 0..6 {
        let keys = (round..20_000).step_by(2);
        let put = |tx: &mut Transaction| {
            keys.clone().try_for_each(|key| map.put(tx, key, round.to_string()).map(drop))
        };
        store.transact(put).unwrap();
        store.tend().unwrap();
        reader.refresh().unwrap();
        let lsn = store.checkpoint().unwrap();
        store.tend().unwrap();
        reader.refresh().unwrap();
        let stats = reader.stats();
        assert_eq!((stats.checkpoint_lsn, stats.pinned_bytes), (lsn, 0), "round {round}");
        assert_eq!(
            followed.get(&reader.view(), &(19_000 + round)).unwrap(),
            Some(&round.to_string())
        );
    }
}
