//! P2, P3: a store keeps to the directory that it was opened in, whatever its path comes to mean.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{FaultyDisk, within};
use rocstate::{DurableMap, ErrorKind, Result, Store};

const ENTRIES: u64 = 60;

fn open(path: &Path) -> (Store, DurableMap<u64, Vec<u8>>) {
    let store = Store::options().segment_bytes(64 << 10).open(path).unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

/// Needs a few segments for its commits, and checkpoints, reads and removes files.
fn work(store: &Store, map: &DurableMap<u64, Vec<u8>>) -> Result<()> {
    for round in 0..3 {
        for key in 0..ENTRIES {
            store.transact(|tx| map.insert(tx, key, vec![round; 10_000]))?;
        }
        store.checkpoint()?;
    }
    let view = store.view();
    map.iter(&view).try_for_each(|entry| entry.map(drop))
}

/// All of the work is there, and nothing is anywhere else.
fn check(at: &Path, other: &Path) {
    let others: Vec<_> = fs::read_dir(other).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(others.is_empty(), "{others:?}");
    let (store, map) = open(at);
    let view = store.view();
    for key in 0..ENTRIES {
        assert_eq!(map.get(&view, &key).unwrap(), Some(&vec![2; 10_000]), "{key}");
    }
}

#[test]
fn a_link_that_leads_elsewhere_takes_no_commit_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new, current] = ["old", "new", "current"].map(|name| dir.path().join(name));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    symlink(&old, &current).unwrap();
    let (store, map) = open(&current);
    fs::remove_file(&current).unwrap();
    symlink(&new, &current).unwrap();
    work(&store, &map).unwrap();
    drop(store);
    check(&old, &new);
}

#[test]
fn a_directory_that_is_moved_keeps_its_store() {
    let dir = tempfile::tempdir().unwrap();
    let [before, after] = ["before", "after"].map(|name| dir.path().join(name));
    let (store, map) = open(&before);
    fs::rename(&before, &after).unwrap();
    fs::create_dir(&before).unwrap();
    work(&store, &map).unwrap();
    drop(store);
    check(&after, &before);
}

#[test]
fn a_reader_follows_the_store_that_it_opened() {
    let dir = tempfile::tempdir().unwrap();
    let [before, after] = ["before", "after"].map(|name| dir.path().join(name));
    let (store, map) = open(&before);
    let reader = Store::options().read_only(true).open(&before).unwrap();
    fs::rename(&before, &after).unwrap();
    drop(open(&before));
    work(&store, &map).unwrap();
    assert_eq!(reader.refresh().unwrap(), store.durable_lsn());
}

#[test]
fn what_is_no_file_is_refused_and_nobody_waits_for_its_other_end() {
    let make: [fn(&Path); 2] = [
        |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        |path| fs::create_dir(path).unwrap(),
    ];
    for name in ["LOCK", "log-0000000001.roc", "log-0000000009.roc", "checkpoint-0000000009.roc"] {
        for make in make {
            let dir = tempfile::tempdir().unwrap();
            let (store, map) = open(dir.path());
            store.transact(|tx| map.insert(tx, 1, vec![1])).unwrap();
            drop((store, map));
            let path = dir.path().join(name);
            fs::remove_file(&path).ok();
            make(&path);
            for read_only in [false, true] {
                let (options, dir) = (Store::options().read_only(read_only), dir.path().to_owned());
                let outcome = within(Duration::from_secs(20), move || options.open(dir));
                let error = outcome.unwrap_err();
                assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(path.as_path())));
            }
        }
    }
    // What only has to be removed is.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint-0000000009.tmp");
    drop(open(dir.path()));
    make[0](&path);
    let at = dir.path().to_owned();
    within(Duration::from_secs(20), move || drop(open(&at)));
    assert!(!path.exists());
}

#[test]
fn a_directory_that_exists_has_a_stable_name_before_a_store_is_in_it() {
    for exists in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        if exists {
            fs::create_dir(&path).unwrap();
        }
        let disk = FaultyDisk::default();
        drop(Store::options().storage(disk.clone()).open(&path).unwrap());
        assert_eq!(disk.0.dirs_made.load(Ordering::SeqCst), 1);
        drop(Store::options().storage(disk.clone()).open(&path).unwrap());
        assert_eq!(disk.0.dirs_made.load(Ordering::SeqCst), 1, "it was there");
    }
}

#[test]
fn a_store_stays_locked_where_its_lock_was_taken_for_left_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    fs::remove_file(dir.path().join("LOCK")).unwrap();
    for _ in 0..2 {
        assert_eq!(Store::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    }
    work(&store, &map).unwrap();
    drop(store);
    check(dir.path(), tempfile::tempdir().unwrap().path());
}

#[test]
fn a_process_that_is_forked_takes_no_lock_away() {
    [true, false].into_iter().for_each(fork_with_a_store);
}

#[allow(unsafe_code, reason = "code between fork and exec")]
fn fork_with_a_store(threads: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut in_child = Some(Store::options().threads(threads).open(dir.path()).unwrap());
    let mut command = Command::new("true");
    // SAFETY: it ends handles and frees memory, for which the allocator is prepared by fork.
    unsafe {
        command.pre_exec(move || {
            drop(in_child.take());
            Ok(())
        });
    }
    let (command, status) = within(Duration::from_secs(20), move || {
        let status = command.status().unwrap();
        (command, status)
    });
    assert!(status.success());
    assert_eq!(Store::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    // It has the store.
    drop(command);
    drop(open(dir.path()));
}

#[test]
fn a_relative_path_means_what_it_meant_when_the_store_was_opened() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    // All other paths of these tests are absolute.
    std::env::set_current_dir(dir.path()).unwrap();
    let (store, map) = open(Path::new("store"));
    std::env::set_current_dir(other.path()).unwrap();
    work(&store, &map).unwrap();
    drop(store);
    check(&dir.path().join("store"), other.path());
    std::env::set_current_dir("/").unwrap();
}
