//! The simulated disk does what a disk may do, all of it, and nothing else.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rocstate::sim::{CrashTest, Fault, SECTOR_BYTES, SimDisk};
use rocstate::{DurableMap, ErrorKind, OpenMode, Storage, StorageFile, Store};

const FILE: &str = "/d/file";

fn create(disk: &SimDisk, path: &str) -> Arc<dyn StorageFile> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

/// A file with a stable sector of ones.
fn stable_file(disk: &SimDisk) -> Arc<dyn StorageFile> {
    let file = create(disk, FILE);
    file.write_at(&[1; SECTOR_BYTES], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file
}

/// What different crashes leave of a file.
fn outcomes(disk: &SimDisk, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..400).map(|seed| disk.power_loss(seed).contents(path)).collect()
}

#[test]
fn what_is_synced_stays_and_what_is_not_may_go() {
    let disk = SimDisk::new(1);
    let file = stable_file(&disk);
    assert_eq!(outcomes(&disk, FILE), [Some(vec![1; 512])].into());
    file.write_at(&[2; 512], 0).unwrap();
    file.write_at(&[3; 512], 512).unwrap();
    let seen = outcomes(&disk, FILE);
    let whole = |parts: [u8; 2]| Some(parts.map(|byte| vec![byte; 512]).concat());
    for possible in
        [Some(vec![1; 512]), Some(vec![2; 512]), whole([2, 3]), whole([1, 3]), whole([1, 0])]
    {
        assert!(seen.contains(&possible), "never seen: {possible:?}");
    }
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, FILE), [whole([2, 3])].into());
}

#[test]
fn a_torn_sector_harms_no_other_one() {
    let disk = SimDisk::new(1);
    let file = stable_file(&disk);
    file.write_at(&[7; 512], 512).unwrap();
    file.sync().unwrap();
    file.write_at(&[2; 512], 0).unwrap();
    let seen = outcomes(&disk, FILE);
    assert!(seen.iter().flatten().all(|content| content[512..] == [7; 512]));
    let torn = |content: &[u8]| content[..512] != [1; 512] && content[..512] != [2; 512];
    assert!(seen.iter().flatten().any(|content| torn(content)), "no sector was ever torn");
}

#[test]
fn a_sector_that_was_written_twice_may_hold_either() {
    let disk = SimDisk::new(1);
    let file = stable_file(&disk);
    file.write_at(&[2; 512], 0).unwrap();
    file.write_at(&[3; 512], 0).unwrap();
    let seen = outcomes(&disk, FILE);
    for byte in 1..=3 {
        assert!(seen.contains(&Some(vec![byte; 512])), "{byte} was never seen");
    }
}

#[test]
fn names_come_and_go_each_on_its_own_and_a_renaming_is_atomic() {
    let disk = SimDisk::new(1);
    stable_file(&disk);
    let new = create(&disk, "/d/new");
    new.write_at(&[9; 512], 0).unwrap();
    new.sync().unwrap();
    disk.rename(Path::new("/d/new"), Path::new(FILE)).unwrap();
    create(&disk, "/d/other");
    let mut seen = BTreeSet::new();
    for seed in 0..400 {
        let after = disk.power_loss(seed);
        let content = after.contents(FILE).expect("the name has the old file or the new one");
        assert!(content == [1; 512] || content == [9; 512], "{content:?}");
        seen.insert((content[0], after.contents("/d/other").is_some()));
    }
    assert_eq!(seen.len(), 4, "each change is on its own: {seen:?}");
    disk.sync_dir(Path::new("/d")).unwrap();
    assert_eq!(outcomes(&disk, FILE), [Some(vec![9; 512])].into());
}

#[test]
fn what_a_failed_sync_lost_no_later_one_brings_back() {
    let disk = SimDisk::new(1);
    let file = stable_file(&disk);
    file.write_at(&[2; 512], 0).unwrap();
    disk.inject(disk.calls() + 1, Fault::Error);
    assert!(file.sync().is_err());
    assert_eq!(disk.struck(), Some("sync"));
    assert_eq!(disk.contents(FILE), Some(vec![2; 512]), "the cache shows it");
    file.sync().unwrap();
    assert!(outcomes(&disk, FILE).contains(&Some(vec![1; 512])), "the disk may not have it");
    // Written again and synced, it is there.
    file.write_at(&[2; 512], 0).unwrap();
    file.sync().unwrap();
    assert_eq!(outcomes(&disk, FILE), [Some(vec![2; 512])].into());
}

#[test]
fn a_process_that_is_killed_leaves_the_cache_and_no_lock() {
    let disk = SimDisk::new(1);
    let file = stable_file(&disk);
    let lock = disk.try_lock(&file).unwrap();
    assert!(lock.is_some() && disk.try_lock(&file).unwrap().is_none());
    file.write_at(&[2; 512], 0).unwrap();
    let next = disk.kill();
    assert_eq!(next.contents(FILE), Some(vec![2; 512]));
    assert!(outcomes(&next, FILE).contains(&Some(vec![1; 512])), "it is still not stable");
    let file = next.open(Path::new(FILE), OpenMode::Write).unwrap();
    assert!(next.try_lock(&file).unwrap().is_some());
}

#[test]
fn every_fault_strikes_the_call_that_it_was_meant_for() {
    let run = |fault, call: &dyn Fn(&SimDisk, &dyn StorageFile) -> std::io::Result<()>| {
        let disk = SimDisk::new(1);
        let file = stable_file(&disk);
        disk.inject(disk.calls() + 1, fault);
        let outcome = call(&disk, &*file).map_err(|error| error.kind());
        (outcome, disk.contents(FILE).unwrap(), disk)
    };
    let write = |_: &SimDisk, file: &dyn StorageFile| file.write_at(&[2; 512], 512);
    let (outcome, content, _) = run(Fault::NoSpace, &write);
    assert_eq!((outcome, content.len()), (Err(std::io::ErrorKind::StorageFull), 512));
    let (outcome, content, _) = run(Fault::ShortWrite, &write);
    assert!(outcome.is_err() && content.len() <= 1024);
    let (outcome, content, _) = run(Fault::Misdirected(-512), &write);
    assert_eq!((outcome, content), (Ok(()), vec![2; 512]));
    let (outcome, _, disk) = run(Fault::PowerLoss, &write);
    assert!(outcome.is_err() && disk.list(Path::new("/d")).is_err(), "the power stays away");
    let sync = |_: &SimDisk, file: &dyn StorageFile| {
        file.write_at(&[3; 512], 0)?;
        file.sync()
    };
    let disk = SimDisk::new(1);
    let file = stable_file(&disk);
    disk.inject(disk.calls() + 2, Fault::LyingSync);
    sync(&disk, &*file).unwrap();
    assert!(outcomes(&disk, FILE).contains(&Some(vec![1; 512])), "it lied");
    disk.fill_up(true);
    assert!(file.write_at(&[1; 4], 512).is_err() && file.write_at(&[1; 4], 0).is_ok());
}

#[test]
fn the_same_seed_makes_the_same_run() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let store = Store::options().storage(disk.clone()).threads(false).open("/s").unwrap();
        let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
        for n in 0..50 {
            store.transact(|tx| map.insert(tx, n, "x".repeat(n as usize))).unwrap();
            if n % 20 == 19 {
                store.checkpoint().unwrap();
            }
        }
        drop(store);
        (disk.calls(), disk.fingerprint(), disk.power_loss(5).fingerprint())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1, run(2).1);
}

/// The failure that a user sees: what was lost, and the least that had to be.
#[test]
fn a_broken_promise_is_found_made_simple_and_said() {
    let unsynced = |disk: &SimDisk| {
        disk.lie(true);
        Store::options().storage(disk.clone()).threads(false).open("/s")
    };
    let run = || {
        CrashTest::new(3).run(
            |disk, notes| {
                let store = unsynced(disk)?;
                let map: DurableMap<u8, u8> = store.durable_map("map")?;
                store.transact(|tx| map.insert(tx, 1, 1))?;
                notes.note(());
                Ok(())
            },
            |disk, crash| {
                let store = Store::options().storage(disk.clone()).threads(false).open("/s")?;
                let map: DurableMap<u8, u8> = store.durable_map("map")?;
                let there = map.contains_key(&store.view(), &1)?;
                assert!(there || crash.noted().is_empty(), "it is forgotten");
                Ok(there)
            },
        )
    };
    let failure = run().unwrap_err().to_string();
    assert!(failure.contains("seed 3"), "{failure}");
    assert!(failure.contains("the power went after change"), "{failure}");
    assert!(failure.contains("the changes before it"), "{failure}");
    assert_eq!(failure, run().unwrap_err().to_string(), "it is the same each time");
}

#[test]
fn a_lying_disk_takes_what_it_was_trusted_with() {
    let disk = SimDisk::new(1);
    disk.lie(true);
    let store = Store::options().storage(disk.clone()).threads(false).open("/s").unwrap();
    drop(store);
    let lost = (0..50).any(|seed| {
        let after = Store::options().storage(disk.power_loss(seed)).threads(false).open("/s");
        after.is_err_and(|error| error.kind() == ErrorKind::Damaged)
            || disk.power_loss(seed).files().is_empty()
    });
    assert!(lost, "nobody noticed");
}

#[test]
fn a_store_without_threads_does_everything_by_its_callers() {
    let disk = SimDisk::new(1);
    let options = Store::options()
        .storage(disk.clone())
        .threads(false)
        .segment_bytes(64 << 10)
        .boot_budget(std::time::Duration::from_micros(400));
    let store = options.open("/s").unwrap();
    let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
    // What is submitted is there at once, for whoever awaits it and for whoever does not.
    drop(store.submit(|tx| map.insert(tx, 0, "detached".into())));
    assert_eq!(map.len(&store.view()), 1);
    pollster::block_on(store.submit(|tx| map.insert(tx, 1, "awaited".into()))).unwrap();
    // What only time brings about, `tend` does.
    let mut tx = store.begin();
    map.insert(&mut tx, 2, "unsynced".into()).unwrap();
    let lsn = tx.commit_with(rocstate::Durability::Process).unwrap();
    assert!(store.durable_lsn() < lsn);
    store.tend().unwrap();
    assert_eq!(store.durable_lsn(), lsn);
    // Segments change and checkpoints are taken as they fall due.
    for n in 3..300 {
        store.transact(|tx| map.insert(tx, n, "x".repeat(2_000))).unwrap();
    }
    assert!(store.stats().checkpoints_taken > 0, "{:?}", store.stats());
    let first = Path::new("/s/log-0000000001.roc").to_owned();
    assert!(!disk.files().contains(&first), "{:?}", disk.files());
    map.warm().unwrap();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let threads: Vec<String> = names.filter(|name| name.starts_with("rocstate-")).collect();
    assert!(threads.is_empty(), "{threads:?}");
}
