//! P10: a disk that has no room left.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rocstate::{Durability, DurableMap, ErrorKind, Store};

type Map = DurableMap<u32, String>;

fn open(path: &Path) -> (Store, Map) {
    let store = Store::open(path).unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

/// Does something in a file system of three megabytes, where the test may mount one.
fn on_a_small_disk(test: impl FnOnce(&Path) + std::panic::UnwindSafe) {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(dir.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        println!("SKIPPED: no small file system can be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| test(&dir.path().join("store")));
    Command::new("umount").arg(dir.path()).status().unwrap();
    outcome.unwrap();
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
        assert!(error.to_string().contains("os error 28"), "{error}");
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
/// needs room.
#[test]
fn a_full_disk_ends_no_process_where_nothing_is_written_in_place() {
    if let Some(path) = std::env::var_os("ROCSTATE_TEST_FULL") {
        fill_beside_a_store(Path::new(&path));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [image, mount] = ["image", "mount"].map(|name| dir.path().join(name));
    std::fs::File::create(&image).unwrap().set_len(160 << 20).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let succeeds = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
    if !succeeds(Command::new("mkfs.btrfs").args(["-q", "-M"]).arg(&image))
        || !succeeds(Command::new("mount").args(["-o", "loop"]).args([&image, &mount]))
    {
        println!("SKIPPED: no btrfs can be made and mounted here");
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["a_full_disk_ends_no_process", "--nocapture"]).env("ROCSTATE_TEST_FULL", &mount);
    let output = command.output().unwrap();
    assert!(succeeds(Command::new("umount").arg(&mount)));
    assert!(output.status.success(), "{:?}", output.status);
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
