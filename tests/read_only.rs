//! P6: a read-only store beside one that writes: it waits for nobody, and writes nothing.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::devices::{Mounted, run, text};
use common::settings::setting;
use common::{eventually, image};
use rocstate::{Durability, DurableMap, ErrorKind, Lsn, Store};

#[test]
fn a_read_only_store_moves_on_beside_its_own_transactions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, u32> = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 1, 1)).unwrap();
    let reader = Store::options().read_only(true).open(dir.path()).unwrap();
    let (done, all_done) = std::sync::mpsc::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let (other, stopped) = (reader.clone(), Arc::clone(&stop));
    // A transaction asks which regions there are, and so does whoever moves on.
    std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            let mut tx = other.begin();
            (0..100).for_each(|_| assert!(!tx.remove_region("none").unwrap()));
        }
    });
    std::thread::spawn(move || {
        (0..200).for_each(|_| assert_eq!(reader.refresh().unwrap(), reader.visible_lsn()));
        done.send(()).unwrap();
    });
    all_done.recv_timeout(Duration::from_secs(30)).expect("they wait for each other");
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn a_read_only_store_does_not_wait_for_a_transaction_of_its_own_thread() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path()).unwrap());
    let reader = Store::options().read_only(true).open(dir.path()).unwrap();
    let error = common::within(Duration::from_secs(20), move || {
        let _tx = reader.begin();
        reader.refresh().unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// Where the test may mount one.
#[test]
fn a_store_on_a_read_only_file_system_says_how_it_opens() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mounted) = Mounted::small(dir.path()) else {
        println!("SKIPPED: no file system can be mounted here");
        return;
    };
    let store = Store::open(mounted.store()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 1, 1)).unwrap();
    store.checkpoint().unwrap();
    drop((store, map));
    // What the last owner of the store left to a thread may still be written.
    eventually("it can be written no more", || {
        run("mount", &["-o", "remount,ro", text(dir.path())])
    });
    let refused = Store::open(mounted.store()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    assert!(refused.to_string().contains("`Options::read_only`"), "{refused}");
    let store = Store::options().read_only(true).open(mounted.store()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    assert_eq!(map.get(&store.view(), &1).unwrap(), Some(&1));
}

#[test]
fn a_read_only_store_follows_a_writer_without_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let store = Store::options()
        .segment_bytes(64 << 10)
        .boot_budget(Duration::from_millis(2))
        .open(&path)
        .unwrap();
    let left: DurableMap<u32, u32> = store.durable_map("left").unwrap();
    let right: DurableMap<u32, u32> = store.durable_map("right").unwrap();
    store.transact(|tx| left.insert(tx, 0, 0)).unwrap();
    store.transact(|tx| right.insert(tx, 0, 0)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || {
            let reader = Store::options().read_only(true).open(&path).unwrap();
            let left: DurableMap<u32, u32> = reader.durable_map("left").unwrap();
            let right: DurableMap<u32, u32> = reader.durable_map("right").unwrap();
            let later: DurableMap<u32, u32> = reader.durable_map("later").unwrap();
            assert_eq!(later.len(&reader.view()), 0);
            let mut seen = reader.visible_lsn();
            let mut moves = 0;
            while !stop.load(Ordering::Relaxed) {
                let lsn = reader.refresh().unwrap();
                assert!(lsn >= seen, "it went back from {seen} to {lsn}");
                moves += u32::from(lsn > seen);
                seen = lsn;
                let view = reader.view();
                let (a, b) = (left.get(&view, &0).unwrap(), right.get(&view, &0).unwrap());
                // A consistent prefix: both are written by one commit, but for the first two.
                assert!(seen.get() < 3 || a == b, "{a:?} {b:?} at {seen}");
            }
            // One blocking commit after the other: the last but one is claimed at least.
            let reader = Store::options().read_only(true).open(&path).unwrap();
            let error = reader.transact(|tx| left.insert(tx, 1, 1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Stale);
            let mine: DurableMap<u32, u32> = reader.durable_map("left").unwrap();
            let error = reader.transact(|tx| mine.insert(tx, 1, 1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ReadOnly);
            assert_eq!(reader.checkpoint().unwrap_err().kind(), ErrorKind::ReadOnly);
            assert_eq!(reader.sync().unwrap_err().kind(), ErrorKind::ReadOnly);
            let volatile = reader.volatile_map::<u8, u8>("v").unwrap_err();
            assert_eq!(volatile.kind(), ErrorKind::ReadOnly);
            moves
        })
    };
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(3) {
        n += 1;
        store
            .transact(|tx| {
                left.insert(tx, 0, n)?;
                right.insert(tx, 0, n)
            })
            .unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let moves = reader.join().unwrap();
    assert!(moves > 3, "it moved {moves} times in {n} commits");
    let epoch = store.generation().epoch();
    // Once the log is idle, everything is claimed.
    let reader = Store::options().read_only(true).open(dir.path()).unwrap();
    assert_eq!(reader.generation().epoch(), epoch, "a read-only open bumps no epoch");
    eventually("the witness", || reader.refresh().unwrap() == store.visible_lsn());
    let later: DurableMap<u32, u32> = reader.durable_map("later").unwrap();
    let writes: DurableMap<u32, u32> = store.durable_map("later").unwrap();
    store.transact(|tx| writes.insert(tx, 1, 1)).unwrap();
    eventually("the new region", || {
        reader.refresh().unwrap();
        later.len(&reader.view()) == 1
    });
    drop((store, left, right, writes));
    let before = image(dir.path());
    drop(Store::options().read_only(true).open(dir.path()).unwrap());
    assert!(image(dir.path()) == before, "a read-only open wrote something");
}

/// It is declared before there is one of its name, and others come first.
#[test]
fn a_region_that_is_waited_for_is_not_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let reader = Store::options().read_only(true).open(dir.path()).unwrap();
    let [first, second]: [DurableMap<u32, u32>; 2] =
        ["first", "second"].map(|name| reader.durable_map(name).unwrap());
    for (name, seen) in [("other", (0, 0)), ("second", (0, 1)), ("first", (1, 1))] {
        let map: DurableMap<u32, u32> = store.durable_map(name).unwrap();
        let lsn = store.transact(|tx| map.put(tx, 1, 1)).map(|_| store.visible_lsn()).unwrap();
        eventually("it is followed", || reader.refresh().unwrap() == lsn);
        let view = reader.view();
        assert_eq!((first.len(&view), second.len(&view)), seen, "{name}");
        assert_eq!(first.get(&view, &1).unwrap().is_some(), seen.0 == 1);
    }
}

/// Of the writer's process: one commit after the other, of which every fifth waits for its sync.
fn count_upwards(path: &str) -> ! {
    let options = Store::options().segment_bytes(256 << 10).boot_budget(Duration::from_millis(5));
    let store = options.open(path).unwrap();
    let [all, few]: [DurableMap<u64, u64>; 2] =
        ["all", "few"].map(|name| store.durable_map(name).unwrap());
    for n in all.len(&store.view()) as u64.. {
        let mut tx = store.begin();
        all.put(&mut tx, n, n).unwrap();
        few.put(&mut tx, n % KEPT, n).unwrap();
        if n % 7 == 0 {
            few.remove(&mut tx, &(n * 31 % KEPT)).unwrap();
        }
        let durability = if n % 5 == 0 { Durability::Machine } else { Durability::Process };
        tx.commit_with(durability).unwrap();
    }
    unreachable!("there are numbers enough");
}

/// How many keys it goes round.
const KEPT: u64 = 300;

#[test]
fn a_writer_that_is_killed_again_and_again_is_followed() {
    const NAME: &str = "a_writer_that_is_killed_again_and_again_is_followed";
    const PATH: &str = "ROCSTATE_TEST_FOLLOWED";
    if let Ok(path) = std::env::var(PATH) {
        count_upwards(&path);
    }
    let dir = tempfile::tempdir().unwrap();
    let write = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(NAME).env(PATH, dir.path()).stdout(Stdio::null()).spawn().unwrap()
    };
    let kills = setting("ROCSTATE_KILLS", 10);
    let mut writer = write();
    let reader = {
        let options = Store::options().read_only(true);
        let mut opened = None;
        eventually("there is a store", || {
            opened = options
                .clone()
                .open(dir.path())
                .ok()
                .filter(|reader| reader.visible_lsn() > Lsn::ZERO);
            opened.is_some()
        });
        opened.unwrap()
    };
    let [all, few]: [DurableMap<u64, u64>; 2] =
        ["all", "few"].map(|name| reader.durable_map(name).unwrap());
    let (mut seen, mut moves) = (reader.visible_lsn(), 0);
    for kill in 0..kills {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(40 + kill * 37 % 150) {
            let lsn = reader.refresh().unwrap();
            assert!(lsn >= seen, "it went back from {seen} to {lsn}");
            moves += u32::from(lsn > seen);
            seen = lsn;
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        writer = write();
        let view = reader.view();
        let count = all.len(&view) as u64;
        assert!(all.iter(&view).map(|entry| *entry.unwrap().0).eq(0..count));
        let mut expected = BTreeMap::new();
        for n in count.saturating_sub(3 * KEPT)..count {
            expected.insert(n % KEPT, n);
            if n % 7 == 0 {
                expected.remove(&(n * 31 % KEPT));
            }
        }
        assert!(few.iter(&view).map(Result::unwrap).eq(expected.iter()), "after {count}");
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(moves > 10, "it moved {moves} times");
}
