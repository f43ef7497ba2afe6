//! P2, P3: a store keeps to the directory that it was opened in, whatever its path comes to mean.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rocstate::{DurableMap, Result, Store};

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
