//! `Submitted`: waited for, awaited by any executor, dropped, left behind.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{FaultyDisk, eventually, within};
use rocstate::{Durability, DurableMap, Error, ErrorKind, Store};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn submitted_commits_resolve_under_tokio() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let path = dir.path().to_owned();
    within(LIMIT, move || {
        runtime.block_on(async move {
            let store =
                tokio::task::spawn_blocking(move || Store::open(path)).await.unwrap().unwrap();
            let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
            let tasks: Vec<_> = (0..64u32)
                .map(|n| {
                    let (store, map) = (store.clone(), map.clone());
                    tokio::spawn(async move {
                        let submitted = store.submit(|tx| map.insert(tx, n, n));
                        let lsn = submitted.lsn().unwrap();
                        assert_eq!(submitted.await.unwrap(), None);
                        assert!(store.visible_lsn() >= lsn && store.durable_lsn() >= lsn);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(map.len(&store.view()), 64);
        });
    });
}

#[test]
fn submitted_commits_resolve_under_a_bare_block_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    within(LIMIT, move || {
        let store = Store::open(path).unwrap();
        let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
        pollster::block_on(async {
            for n in 0..50 {
                store.submit(|tx| map.insert(tx, n, n)).await.unwrap();
                let mut tx = store.begin();
                map.insert(&mut tx, n, n + 1).unwrap();
                let lsn = tx.submit().await.unwrap();
                assert_eq!(lsn, store.visible_lsn());
            }
        });
    });
}

#[test]
fn who_asks_for_no_sync_waits_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let options = Store::options().storage(disk.clone()).durability(Durability::Process);
    let store = options.sync_interval(Duration::from_millis(1)).open(dir.path()).unwrap();
    let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
    disk.0.hold_syncs();
    let syncs = disk.0.syncs.load(Ordering::SeqCst);
    store.transact(|tx| map.insert(tx, 0, 0)).unwrap();
    eventually("a sync that does not end", || disk.0.syncs.load(Ordering::SeqCst) > syncs);
    let store = within(Duration::from_secs(10), move || {
        for n in 1..100 {
            pollster::block_on(store.submit(|tx| map.insert(tx, n, n))).unwrap();
        }
        store
    });
    assert!(store.durable_lsn() < store.visible_lsn());
    disk.0.release_syncs();
    eventually("what is unsynced is synced", || store.durable_lsn() == store.visible_lsn());
}

#[test]
fn who_awaits_makes_small_writes_and_a_thread_of_the_store_all_that_may_wait() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    for waits in [false, true] {
        disk.0.waits.store(waits, Ordering::SeqCst);
        let options = Store::options().storage(disk.clone()).sync_interval(Duration::from_secs(60));
        let store = options.open(dir.path()).unwrap();
        let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
        // Whether this thread has made the write.
        let commit = |durability: Durability, bytes: usize| {
            let mut tx = store.begin();
            map.put(&mut tx, 0, "a".repeat(bytes)).unwrap();
            pollster::block_on(tx.submit_with(durability)).unwrap();
            *disk.0.writer.lock().unwrap() == Some(std::thread::current().id())
        };
        for _ in 0..100 {
            assert_eq!(commit(Durability::Process, 1), !waits);
        }
        assert!(!commit(Durability::Process, 4096));
        // The thread that made it may still lead for a moment.
        eventually("small ones are as before", || commit(Durability::Process, 1) != waits);
        assert!(!commit(Durability::Machine, 1));
    }
}

#[test]
fn a_dropped_one_is_detached_and_waits_keep_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
    for n in 0..20 {
        drop(store.submit(|tx| map.insert(tx, n, n)));
    }
    let last = store.submit(|tx| map.insert(tx, 20, 20));
    last.wait().unwrap();
    assert_eq!(map.len(&store.view()), 21);
    // Without anybody who waits, too.
    drop(store.submit(|tx| map.insert(tx, 21, 21)));
    common::eventually("a detached commit is written", || map.len(&store.view()) == 22);
}

#[test]
fn errors_of_the_closure_come_out_and_roll_back() {
    #[derive(Debug, PartialEq)]
    enum Mine {
        No,
        Store(ErrorKind),
    }
    impl From<Error> for Mine {
        fn from(error: Error) -> Mine {
            Mine::Store(error.kind())
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
    let refused = store.try_submit(|tx| {
        map.insert(tx, 1, 1)?;
        Err::<(), Mine>(Mine::No)
    });
    assert_eq!(refused.lsn(), None);
    assert_eq!(pollster::block_on(refused), Err(Mine::No));
    assert_eq!(store.try_transact(|_| Err::<(), Mine>(Mine::No)), Err(Mine::No));
    let large = store.try_transact(|tx| {
        map.insert(tx, 1, 1)?;
        Ok::<_, Mine>(())
    });
    assert_eq!(large, Ok(()));
    assert_eq!(map.len(&store.view()), 1);
}

#[test]
fn one_that_is_left_behind_resolves_with_the_truth_or_closed_and_holds_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    within(LIMIT, move || {
        let disk = FaultyDisk::default();
        let store = Store::options().storage(disk.clone()).open(&path).unwrap();
        let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
        store.transact(|tx| map.insert(tx, 0, 0)).unwrap();
        disk.0.hold_syncs();
        let mut left: Vec<_> =
            (1..=3u32).map(|n| (n, store.submit(|tx| map.insert(tx, n, n)))).collect();
        // The background has begun to write the first one, or begins nothing any more.
        std::thread::sleep(Duration::from_millis(50));
        let closing = std::thread::spawn(move || drop(store));
        std::thread::sleep(Duration::from_millis(20));
        disk.0.release_syncs();
        closing.join().unwrap();
        let (store, survivors) = {
            let store = Store::open(&path).unwrap();
            let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
            let view = store.view();
            let survivors: Vec<u32> = map.iter(&view).map(|e| *e.unwrap().0).collect();
            (store, survivors)
        };
        for (n, submitted) in left.drain(..) {
            match submitted.wait() {
                Ok(_) => assert!(survivors.contains(&n), "{n} was acknowledged"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
            }
        }
        drop(store);
    });
}

#[test]
fn a_poisoned_store_wakes_those_who_await() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    within(LIMIT, move || {
        let disk = FaultyDisk::default();
        let store = Store::options().storage(disk.clone()).open(&path).unwrap();
        let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
        disk.0.hold_syncs();
        let submitted: Vec<_> = (0..5).map(|n| store.submit(|tx| map.insert(tx, n, n))).collect();
        disk.0.sync.store(1, std::sync::atomic::Ordering::SeqCst);
        let release = {
            let disk = disk.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                disk.0.release_syncs();
            })
        };
        for one in submitted {
            assert_eq!(pollster::block_on(one).unwrap_err().kind(), ErrorKind::Poisoned);
        }
        release.join().unwrap();
    });
}

#[test]
fn closing_never_waits_for_a_leader_that_has_nothing_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    within(LIMIT, move || {
        for round in 0..150u32 {
            let store = Store::open(&path).unwrap();
            let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
            // Groups of several commits make the next leader look for more.
            for burst in 0..4 {
                for n in 0..4 {
                    drop(store.submit(|tx| map.insert(tx, n, round)));
                }
                if burst == 2 && round % 2 == 0 {
                    store.sync().unwrap();
                }
            }
        }
    });
}
