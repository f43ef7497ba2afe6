//! P10: a disk that has no room left.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::io::Write as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::devices::{Mounted, run, text};
use common::{FaultyDisk, files};
use rocstate::{Durability, DurableMap, ErrorKind, Store};

type Map = DurableMap<u32, String>;

fn open(path: &Path) -> (Store, Map) {
    let store = Store::open(path).unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

/// A process that is just being begun has what was open, and a file keeps its room for as long.
static BEGINS_NONE: Mutex<()> = Mutex::new(());

/// Does something in a file system of three megabytes, where the test may mount one.
fn on_a_small_disk(test: impl FnOnce(&Path)) {
    let _alone = BEGINS_NONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    match Mounted::small(dir.path()) {
        Some(mounted) => test(&mounted.store()),
        None => println!("SKIPPED: no small file system can be mounted here"),
    }
}

#[test]
fn a_log_that_finds_no_room_ahead_goes_on_and_moves_to_what_is_written_ahead_later() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    *disk.0.no_room_for.lock().unwrap() = Some("log-spare.tmp");
    let options = Store::options().threads(false).durability(Durability::Process);
    let store = options.storage(disk.clone()).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    let mut keys = 0..;
    let mut commit = |count: usize| {
        for key in keys.by_ref().take(count) {
            store.transact(|tx| map.insert(tx, key, "x".repeat(900))).unwrap();
        }
    };
    commit(1_000);
    // A megabyte, in two segments: it is tried a few times, and not after each commit.
    let refused = disk.0.refused.load(Ordering::SeqCst);
    assert!((2..8).contains(&refused), "{refused} attempts");
    *disk.0.no_room_for.lock().unwrap() = None;
    // One at a time is left without its name.
    store.sync().unwrap();
    commit(1_000);
    store.sync().unwrap();
    assert_eq!(disk.0.refused.load(Ordering::SeqCst), refused);
    // What remains of a segment that was made in a hurry was never written.
    let len = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    let room = |path: &PathBuf| std::fs::metadata(path).unwrap().blocks() * 512;
    let log = files(dir.path(), "log-0");
    let [.., left, _] = log.as_slice() else { panic!("it has {log:?}") };
    assert!(room(left) < len(left), "{left:?} takes {} bytes", room(left));
    drop((store, map));
    let (store, map) = open(dir.path());
    assert_eq!(map.len(&store.view()), 2_000);
}

#[test]
fn a_segment_that_was_made_in_a_hurry_is_left_at_once_where_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let store =
        Store::options().threads(false).durability(Durability::Process).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    // Longer than boot's own, of which nothing was used: nobody has written one ahead yet.
    for (key, bytes) in [(1, 300 << 10), (2, 10)] {
        store.transact(|tx| map.insert(tx, key, "x".repeat(bytes))).unwrap();
        store.sync().unwrap();
    }
    assert_eq!(files(dir.path(), "log-0").len(), 3);
    drop((store, map));
    let (store, map) = open(dir.path());
    assert_eq!(map.len(&store.view()), 2);
}

#[test]
fn a_full_disk_poisons_the_store_and_the_next_open_has_everything() {
    on_a_small_disk(|path| {
        let (store, map) = open(path);
        let mut acknowledged = 0;
        let error = loop {
            let text = "x".repeat(5_000);
            match store.transact(|tx| map.insert(tx, acknowledged, text)) {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        let text = error.to_string();
        assert!(text.contains("make room for it") && text.contains("os error 28"), "{text}");
        assert!(acknowledged > 50, "{acknowledged}");
        drop((store, map));
        // Nothing was freed: it opens all the same, and has what was acknowledged.
        let (store, map) = open(path);
        let view = store.view();
        for key in 0..acknowledged {
            assert!(map.contains_key(&view, &key).unwrap(), "{key} of {acknowledged}");
        }
    });
}

/// A file system that writes nothing in place, where the test may make one: what is written over something
/// needs room. One that lies over it does not say so.
#[test]
fn a_full_disk_ends_no_process_where_nothing_is_written_in_place() {
    if let Some(path) = std::env::var_os("ROCSTATE_TEST_FULL") {
        fill_beside_a_store(Path::new(&path));
        return;
    }
    let _alone = BEGINS_NONE.lock().unwrap_or_else(PoisonError::into_inner);
    for is_layered in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let [image, below, above] = ["image", "below", "above"].map(|name| dir.path().join(name));
        std::fs::File::create(&image).unwrap().set_len(160 << 20).unwrap();
        std::fs::create_dir(&below).unwrap();
        std::fs::create_dir(&above).unwrap();
        let made = run("mkfs.btrfs", &["-q", "-M", text(&image)]);
        let Some(btrfs) = made.then(|| Mounted::new(&image, &below)).flatten() else {
            println!("SKIPPED: no btrfs can be made and mounted here");
            return;
        };
        let layer = if is_layered { lay_over(&btrfs.0, &above) } else { None };
        if is_layered && layer.is_none() {
            println!("SKIPPED: nothing can be mounted over a directory here");
            return;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["a_full_disk_ends_no_process", "--nocapture"]);
        let output = command
            .env("ROCSTATE_TEST_FULL", &layer.as_ref().unwrap_or(&btrfs).0)
            .output()
            .unwrap();
        assert!(output.status.success(), "{:?}, layered: {is_layered}", output.status);
    }
}

/// A file system that keeps in one directory what is changed at another.
fn lay_over(kept: &Path, at: &Path) -> Option<Mounted> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| {
        let dir = kept.join(name);
        std::fs::create_dir(&dir).unwrap();
        dir.display().to_string()
    });
    let layers = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    Mounted::with(&["-t", "overlay", "-o", &layers, "overlay"], at)
}

fn fill_beside_a_store(path: &Path) {
    let store = Store::options().boot_budget(Duration::MAX).open(path.join("store")).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 0, "x".into())).unwrap();
    let mut file = std::fs::File::create(path.join("fill")).unwrap();
    for bytes in [1 << 20, 64 << 10, 4 << 10] {
        while file.write_all(&vec![1; bytes]).and_then(|()| file.sync_data()).is_ok() {}
    }
    let commit = |key| {
        let mut tx = store.begin();
        map.insert(&mut tx, key, "x".repeat(500)).unwrap();
        tx.commit_with(Durability::Process)
    };
    let error = (0..100_000).find_map(|key| commit(key).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
}

#[test]
fn a_boot_has_the_room_that_a_half_written_file_takes() {
    on_a_small_disk(|path| {
        drop(open(path));
        std::fs::remove_file(path.join("log-reserve.tmp")).unwrap();
        let full = std::fs::write(path.join("checkpoint-0000000007.tmp"), vec![7; 4 << 20]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        let (store, map) = open(path);
        store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    });
}
