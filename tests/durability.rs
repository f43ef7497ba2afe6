//! P2, P3, P4, P10: what an acknowledgement means, and what happens when it cannot be given.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{FaultyDisk, eventually, within};
use rocstate::{Durability, DurableMap, Error, ErrorKind, Readable, Store};

const LIMIT: Duration = Duration::from_secs(60);

type Map = DurableMap<u64, String>;

fn open(path: &std::path::Path) -> (Store, Map) {
    let store = Store::open(path).unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

#[test]
fn acknowledged_commits_of_sixteen_writers_are_there_after_reopen() {
    for durability in [Durability::Machine, Durability::Process] {
        let dir = tempfile::tempdir().unwrap();
        let (store, map) = open(dir.path());
        let threads: Vec<_> = (0..16u64)
            .map(|thread| {
                let (store, map) = (store.clone(), map.clone());
                std::thread::spawn(move || {
                    for n in 0..50 {
                        let mut tx = store.begin();
                        map.insert(&mut tx, thread * 1000 + n, format!("{thread} {n}")).unwrap();
                        let lsn = tx.commit_with(durability).unwrap();
                        assert!(store.view().lsn() >= lsn);
                        assert!(map.contains_key(&store.view(), &(thread * 1000 + n)).unwrap());
                        if durability == Durability::Machine {
                            assert!(store.durable_lsn() >= lsn);
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(store.visible_lsn().get(), 800);
        drop((store, map));
        let (store, map) = open(dir.path());
        let view = store.view();
        assert_eq!(map.len(&view), 800);
        for thread in 0..16 {
            for n in 0..50 {
                let value = map.get(&view, &(thread * 1000 + n)).unwrap();
                assert_eq!(value, Some(&format!("{thread} {n}")));
            }
        }
    }
}

#[test]
fn a_commit_is_atomic_over_regions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let left: DurableMap<u64, u64> = store.durable_map("left").unwrap();
    let right: DurableMap<u64, u64> = store.durable_map("right").unwrap();
    let look = || {
        let view = store.view();
        assert_eq!(left.get(&view, &0).unwrap(), right.get(&view, &0).unwrap());
        assert_eq!(left.len(&view), right.len(&view));
    };
    let commit = |n| {
        store
            .transact(|tx| {
                left.insert(tx, 0, n)?;
                left.insert(tx, n, n)?;
                right.insert(tx, n, n)?;
                right.insert(tx, 0, n)
            })
            .unwrap();
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (1..=200).for_each(commit));
        // Where syncs take no time, it may have ended before the first look.
        look();
        while !writer.is_finished() {
            look();
        }
    });
    look();
}

#[test]
fn a_transaction_is_rolled_back_by_drop_by_error_and_by_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    let before = store.visible_lsn();

    let mut tx = store.begin();
    map.insert(&mut tx, 2, "dropped".into()).unwrap();
    map.remove(&mut tx, &1).unwrap();
    assert_eq!(map.len(&tx), 1);
    drop(tx);

    let error = store
        .transact(|tx| {
            map.clear(tx)?;
            Err::<(), _>(Error::abort("no"))
        })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("no"));

    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transact(|tx| {
            map.clear(tx)?;
            assert!(!map.is_empty(tx), "on purpose");
            Ok(())
        })
    }));
    assert!(panicked.is_err());

    let view = store.view();
    assert_eq!(view.lsn(), before);
    assert_eq!(map.get(&view, &1).unwrap().map(String::as_str), Some("one"));
    assert_eq!(map.len(&view), 1);
    // The writer lock is free again.
    store.transact(|tx| map.insert(tx, 3, "three".into())).unwrap();
}

/// Whoever gets the writer lock after a rollback finds everything undone, also where the commit was refused.
#[test]
fn a_rollback_has_ended_before_the_next_transaction_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    let fill = |tx: &mut _| (0..1000).try_for_each(|key| map.put(tx, key, "a".into()).map(drop));
    store.transact(fill).unwrap();
    let threads: Vec<_> = (0..4u64)
        .map(|thread| {
            let (store, map) = (store.clone(), map.clone());
            std::thread::spawn(move || {
                let session = store.volatile_map::<u64, u64>(&format!("session {thread}")).unwrap();
                for round in 0..2000 {
                    let mut tx = store.begin();
                    for nth in 0..20 {
                        let key = (thread * 500 + round + nth * 40) % 1000;
                        map.put(&mut tx, key, "b".into()).unwrap();
                    }
                    assert_eq!(map.len(&tx), 1000);
                    if round % 2 == 0 {
                        tx.fence(&session, session.generation()).unwrap();
                        session.discard();
                        assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Stale);
                    }
                }
            })
        })
        .collect();
    within(LIMIT, move || threads.into_iter().for_each(|thread| thread.join().unwrap()));
}

#[test]
fn an_attempt_that_fails_or_panics_undoes_itself_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    let other: DurableMap<u8, u8> = store.durable_map("other").unwrap();
    store
        .transact(|tx| {
            map.insert(tx, 1, "kept".into())?;
            let failed: Result<(), &str> = tx.attempt(|tx| {
                map.insert(tx, 1, "undone".into()).unwrap();
                other.insert(tx, 1, 1).unwrap();
                // A nested one that succeeds is undone with the outer one.
                tx.attempt(|tx| map.insert(tx, 2, "undone".into())).unwrap();
                Err("no")
            });
            assert_eq!(failed, Err("no"));
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                tx.attempt(|tx| -> Result<(), Error> {
                    map.clear(tx)?;
                    panic!("on purpose")
                })
            }));
            assert!(panicked.is_err());
            tx.attempt(|tx| map.insert(tx, 3, "kept".into()))?;
            Ok(())
        })
        .unwrap();
    drop((store, map, other));
    let (store, map) = open(dir.path());
    let view = store.view();
    let entries: BTreeMap<u64, String> =
        map.iter(&view).map(|e| e.map(|(k, v)| (*k, v.clone())).unwrap()).collect();
    assert_eq!(entries, BTreeMap::from([(1, "kept".into()), (3, "kept".into())]));
    assert!(store.regions().iter().all(|region| region.name != "other"));
}

#[test]
fn no_reader_sees_a_commit_before_its_sync_returned() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 0, "zero".into())).unwrap();
    disk.0.hold_syncs();
    let writer = {
        let (store, map) = (store.clone(), map.clone());
        std::thread::spawn(move || store.transact(|tx| map.insert(tx, 1, "one".into())))
    };
    // The commit is staged: a transaction sees it, a view does not.
    eventually("the commit is at the head", || map.contains_key(&store.begin(), &1).unwrap());
    for _ in 0..50 {
        assert!(!map.contains_key(&store.view(), &1).unwrap());
        std::thread::sleep(Duration::from_millis(1));
    }
    // Somebody who has read it without writing has to wait as well.
    let reader = {
        let (store, map) = (store.clone(), map.clone());
        std::thread::spawn(move || {
            let found = store.transact(|tx| map.contains_key(tx, &1)).unwrap();
            assert!(map.contains_key(&store.view(), &1).unwrap());
            found
        })
    };
    let refused = {
        let (store, map) = (store.clone(), map.clone());
        std::thread::spawn(move || {
            let error = store.transact(|tx| {
                assert!(map.contains_key(tx, &1)?);
                Err::<(), _>(Error::abort("seen"))
            });
            assert!(map.contains_key(&store.view(), &1).unwrap());
            error.unwrap_err().kind()
        })
    };
    std::thread::sleep(Duration::from_millis(30));
    assert!(!writer.is_finished() && !reader.is_finished() && !refused.is_finished());
    disk.0.release_syncs();
    within(LIMIT, move || {
        writer.join().unwrap().unwrap();
        assert!(reader.join().unwrap());
        assert_eq!(refused.join().unwrap(), ErrorKind::Aborted);
    });
}

#[test]
fn process_commits_do_not_wait_for_a_sync_and_are_synced_soon() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = Store::options()
        .storage(disk.clone())
        .durability(Durability::Process)
        .sync_interval(Duration::from_millis(5))
        .open(dir.path())
        .unwrap();
    let map: Map = store.durable_map("map").unwrap();
    disk.0.hold_syncs();
    for n in 0..100 {
        store.transact(|tx| map.insert(tx, n, "p".into())).unwrap();
    }
    assert_eq!(store.visible_lsn().get(), 100);
    assert_eq!(store.durable_lsn().get(), 0);
    disk.0.release_syncs();
    eventually("the background sync", || store.durable_lsn().get() == 100);
    store.transact(|tx| map.insert(tx, 100, "p".into())).unwrap();
    assert_eq!(store.sync().unwrap().get(), 101);
}

/// Everyone who waits learns of a failed sync or write, or of a leader's panic.
#[test]
fn a_failing_leader_poisons_the_store_and_leaves_nobody_asleep() {
    for (panics, in_write) in [(false, false), (false, true), (true, false), (true, true)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let acknowledged = within(LIMIT, move || {
            let disk = FaultyDisk::default();
            let store = Store::options().storage(disk.clone()).open(&path).unwrap();
            let map: Map = store.durable_map("map").unwrap();
            let acknowledged = Arc::new(AtomicU64::new(0));
            let threads: Vec<_> = (0..8u64)
                .map(|thread| {
                    let (store, map) = (store.clone(), map.clone());
                    let acknowledged = Arc::clone(&acknowledged);
                    std::thread::spawn(move || {
                        for n in 0..10_000 {
                            let key = thread * 100_000 + n;
                            let done = store.transact(|tx| map.insert(tx, key, "x".into()));
                            match done {
                                Ok(_) => acknowledged.fetch_add(1, Ordering::SeqCst),
                                Err(error) => {
                                    assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
                                    return;
                                }
                            };
                        }
                        panic!("never poisoned");
                    })
                })
                .collect();
            eventually("some commits", || acknowledged.load(Ordering::SeqCst) > 20);
            disk.0.panic.store(panics, Ordering::SeqCst);
            let counter = if in_write { &disk.0.write } else { &disk.0.sync };
            // What fails may be a segment that is written ahead, which costs nobody anything.
            eventually("a failure of the log", || {
                let has_failed = store.stats().poisoned.is_some();
                if !has_failed && counter.load(Ordering::SeqCst) <= 0 {
                    counter.store(3, Ordering::SeqCst);
                }
                has_failed
            });
            let panicked =
                threads.into_iter().map(std::thread::JoinHandle::join).filter(Result::is_err);
            // The panic itself reaches the thread that led; it may be one of the store's own.
            assert!(panicked.count() <= usize::from(panics));

            let error = store.transact(|tx| map.insert(tx, 1, "x".into())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned);
            assert!(std::error::Error::source(&error).is_some() || panics, "{error}");
            assert_eq!(store.sync().unwrap_err().kind(), ErrorKind::Poisoned);
            assert_eq!(store.checkpoint().unwrap_err().kind(), ErrorKind::Poisoned);
            let submitted = store.submit(|tx| map.insert(tx, 1, "x".into()));
            assert_eq!(submitted.wait().unwrap_err().kind(), ErrorKind::Poisoned);
            assert!(store.stats().poisoned.is_some());
            // What was visible still reads.
            let acknowledged = acknowledged.load(Ordering::SeqCst);
            assert!(map.len(&store.view()) as u64 >= acknowledged);
            acknowledged
        });
        let (store, map) = open(dir.path());
        assert!(map.len(&store.view()) as u64 >= acknowledged, "an acknowledged commit is gone");
        store.transact(|tx| map.insert(tx, 1, "again".into())).unwrap();
    }
}

#[test]
fn a_failed_read_fails_its_operation_and_poisons_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    store.checkpoint().unwrap();
    drop((store, map));
    let disk = FaultyDisk::default();
    // Nobody else reads meanwhile.
    let options = Store::options().warming(rocstate::Warming::OnDemand);
    let store = options.storage(disk.clone()).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    disk.0.read.store(1, Ordering::SeqCst);
    let error = map.get(&store.view(), &1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.path().is_some());
    // In a transaction too, which stays as it was.
    let mut tx = store.begin();
    disk.0.read.store(1, Ordering::SeqCst);
    assert_eq!(map.insert(&mut tx, 2, "two".into()).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(map.len(&tx), 1);
    map.insert(&mut tx, 2, "two".into()).unwrap();
    tx.commit().unwrap();
    assert_eq!(map.len(&store.view()), 2);
}

#[test]
fn a_checkpoint_that_cannot_read_poisons_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let options = Store::options().warming(rocstate::Warming::OnDemand);
    let store = options.storage(disk.clone()).open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("blobs").unwrap();
    let mut failed = 0;
    for round in 0..100 {
        let value = vec![0; 20_000];
        store.transact(|tx| map.insert(tx, round * 7 % 100, value)).unwrap();
        disk.0.read.store(1 + i64::try_from(round).unwrap() % 20, Ordering::SeqCst);
        let outcome = store.checkpoint();
        disk.0.read.store(0, Ordering::SeqCst);
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Io, "{error}");
            failed += 1;
        }
        let files = std::fs::read_dir(dir.path()).unwrap();
        let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> =
            names.filter(|name| name.starts_with("checkpoint-") && name.ends_with("tmp")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    assert!((10..90).contains(&failed), "{failed}");
    store.checkpoint().unwrap();
}

#[test]
fn a_writer_waits_where_too_many_files_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("blobs").unwrap();
    disk.0.out_of_files.store(true, Ordering::SeqCst);
    let closing = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        disk.0.out_of_files.store(false, Ordering::SeqCst);
    });
    // More than the first segment has room for.
    let began = Instant::now();
    for key in 0..40 {
        store.transact(|tx| map.insert(tx, key, vec![0; 20_000])).unwrap();
    }
    assert!(began.elapsed() > Duration::from_millis(250), "no segment was needed");
    assert!(store.checkpoint().is_ok());
    closing.join().unwrap();
}

#[test]
fn an_empty_commit_writes_nothing_and_takes_no_lsn() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    // The witness of the idle log comes once.
    std::thread::sleep(Duration::from_millis(600));
    let before = disk.0.writes.load(Ordering::SeqCst);
    let lsn = store.begin().commit().unwrap();
    assert_eq!(lsn, store.visible_lsn());
    let not_yet_there: Map = store.durable_map("other").unwrap();
    for map in [&map, &not_yet_there] {
        store.transact(|tx| map.remove(tx, &77)).unwrap();
    }
    assert_eq!(store.visible_lsn().get(), 1);
    assert_eq!(disk.0.writes.load(Ordering::SeqCst), before);
}

#[test]
fn a_blocking_commit_of_an_idle_store_is_one_write_and_one_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    let count = || {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (load(&disk.0.writes), load(&disk.0.syncs), load(&disk.0.reads))
    };
    let before = count();
    store.transact(|tx| map.insert(tx, 2, "two".into())).unwrap();
    let after = count();
    assert_eq!((after.0 - before.0, after.1 - before.1, after.2 - before.2), (1, 1, 0));
}

#[test]
fn a_checkpoint_inside_an_open_transaction_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    drop((store, map));
    let path = dir.path().to_owned();
    within(LIMIT, move || {
        let (store, map) = open(&path);
        let mut tx = store.begin();
        map.insert(&mut tx, 2, "two".into()).unwrap();
        store.checkpoint().unwrap();
        store.sync().unwrap();
        tx.commit().unwrap();
        store.checkpoint().unwrap();
        assert_eq!(map.len(&store.view()), 2);
    });
}

#[test]
fn large_commits_and_groups_beyond_a_segment_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().segment_bytes(64 << 10).open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("big").unwrap();
    for n in 0..6u64 {
        let len = 700_000 * (n as usize + 1);
        store.transact(|tx| map.insert(tx, n, vec![n as u8; len])).unwrap();
    }
    drop((store, map));
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("big").unwrap();
    let view = store.view();
    for n in 0..6u64 {
        let len = 700_000 * (n as usize + 1);
        assert_eq!(map.get(&view, &n).unwrap(), Some(&vec![n as u8; len]));
    }
    assert_eq!(view.lsn(), Readable::lsn(&view));
}
