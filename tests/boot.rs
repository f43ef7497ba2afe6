//! P1, P5, P6, P12: the one way in, and what it refuses.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::settings::setting;
use common::{files, image, restore};
use rocstate::{Durability, DurableMap, ErrorKind, LastRun, Store};

type Map = DurableMap<u32, String>;

fn open(path: &Path) -> (Store, Map) {
    let store = Store::open(path).unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

fn kind(path: &Path) -> ErrorKind {
    let error = Store::open(path).unwrap_err();
    assert!(error.path().is_some(), "{error}");
    error.kind()
}

#[test]
fn what_is_not_a_store_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "text").unwrap();
    assert_eq!(kind(&file), ErrorKind::NotAStore);
    assert_eq!(kind(dir.path()), ErrorKind::NotAStore);
    assert_eq!(image(dir.path()).len(), 1);
    let absent = dir.path().join("absent");
    let error = Store::options().create(false).open(&absent).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, Some(absent.as_path())));
    let error = Store::options().read_only(true).open(&absent).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!absent.exists());
    // A place where nothing can be made.
    let nowhere = Path::new("/proc/rocstate/store");
    let error = Store::open(nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.path().unwrap().starts_with("/proc/rocstate"));
    assert_eq!(
        Store::options().keep_checkpoints(0).open(&absent).unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert_eq!(
        Store::options().segment_bytes(1).open(&absent).unwrap_err().kind(),
        ErrorKind::Invalid
    );
}

#[test]
fn any_duration_can_be_set() {
    for duration in [Duration::from_nanos(1), Duration::MAX] {
        let dir = tempfile::tempdir().unwrap();
        let options = Store::options().sync_interval(duration).boot_budget(duration);
        let store = options.open(dir.path()).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        for key in 0..100 {
            for durability in [Durability::Process, Durability::Machine] {
                let mut tx = store.begin();
                map.insert(&mut tx, key, "one".into()).unwrap();
                tx.commit_with(durability).unwrap();
            }
        }
        store.checkpoint().unwrap();
        assert!(store.stats().poisoned.is_none());
    }
}

#[test]
fn a_new_store_may_have_parents_that_do_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    let (store, map) = open(&path);
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    drop((store, map));
    let (store, map) = open(&path);
    assert_eq!(map.len(&store.view()), 1);
}

#[test]
fn a_second_open_is_locked_in_this_process_and_in_another() {
    if let Ok(path) = std::env::var("ROCSTATE_TEST_LOCKED") {
        let error = Store::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    assert_eq!(kind(dir.path()), ErrorKind::Locked);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["a_second_open_is_locked", "--nocapture"])
        .env("ROCSTATE_TEST_LOCKED", dir.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    // A clone and an open transaction keep the lock; maps and views do not.
    let (clone, view) = (store.clone(), store.view());
    let tx = clone.begin();
    drop(store);
    drop(clone);
    assert_eq!(kind(dir.path()), ErrorKind::Locked);
    drop(tx);
    let (store, _) = open(dir.path());
    drop((store, map, view));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    // The first sector of every file keeps its place for magic, version and checksum.
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    store.checkpoint().unwrap();
    drop((store, map));
    let before = image(dir.path());
    let newer = |bytes: &mut Vec<u8>, checked: usize| {
        bytes[8..12].copy_from_slice(&(rocstate::FORMAT_VERSION + 1).to_le_bytes());
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[0; 16]);
        hasher.update(&bytes[..checked - 4]);
        let sum = hasher.finalize().to_le_bytes();
        bytes[checked - 4..checked].copy_from_slice(&sum);
    };
    for (path, checked) in [
        (files(dir.path(), "log-").pop().unwrap(), 512),
        (dir.path().join("LOCK"), 512),
        (files(dir.path(), "checkpoint-").pop().unwrap(), 64),
    ] {
        restore(dir.path(), &before);
        let mut bytes = std::fs::read(&path).unwrap();
        newer(&mut bytes, checked);
        std::fs::write(&path, bytes).unwrap();
        let error = Store::open(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{}: {error}", path.display());
        assert_eq!(error.path(), Some(path.as_path()));
    }
}

#[test]
fn the_golden_store_of_every_version_opens() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut versions = 0;
    for fixture in std::fs::read_dir(fixtures).unwrap() {
        let dir = tempfile::tempdir().unwrap();
        restore(dir.path(), &image(&fixture.unwrap().path()));
        golden(dir.path());
        versions += 1;
    }
    assert!(versions >= 1);
}

/// What the golden stores hold.
fn golden(path: &Path) {
    let store = Store::options().create(false).open(path).unwrap();
    assert!(store.boot_report().healed.is_empty());
    let map: Map = store.durable_map("map").unwrap();
    let pairs: DurableMap<(String, i64), Option<u64>> = store.durable_map("pairs").unwrap();
    let cell = store.durable_cell::<f64>("cell").unwrap();
    let view = store.view();
    assert_eq!(map.len(&view), 150);
    for n in 50..200 {
        let text = map.get(&view, &n).unwrap().unwrap();
        assert_eq!(*text, format!("text {n}"));
    }
    assert_eq!(pairs.get(&view, &("a\0b", -5)).unwrap(), Some(&Some(7)));
    assert_eq!(pairs.get(&view, &("", 5)).unwrap(), Some(&None));
    assert_eq!(cell.get(&view).unwrap(), Some(&1.5));
}

/// Writes the golden store of this version: `cargo test --test boot -- --ignored golden`.
#[test]
#[ignore = "run once for each released version of the format"]
fn write_the_golden_store() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join(format!("tests/fixtures/v{}", rocstate::FORMAT_VERSION));
    assert!(!path.exists(), "a released fixture never changes");
    let (store, map) = open(&path);
    let pairs: DurableMap<(String, i64), Option<u64>> = store.durable_map("pairs").unwrap();
    let cell = store.durable_cell::<f64>("cell").unwrap();
    for n in 0..100 {
        store.transact(|tx| map.insert(tx, n, format!("text {n}"))).unwrap();
    }
    store.transact(|tx| pairs.insert(tx, ("a\0b".into(), -5), Some(7))).unwrap();
    store.checkpoint().unwrap();
    store.transact(|tx| map.retain(tx, ..50, |_, _| false)).unwrap();
    store.transact(|tx| pairs.insert(tx, (String::new(), 5), None)).unwrap();
    store.checkpoint().unwrap();
    for n in 100..200 {
        store.transact(|tx| map.insert(tx, n, format!("text {n}"))).unwrap();
    }
    store.transact(|tx| cell.set(tx, 1.5)).unwrap();
    std::thread::sleep(Duration::from_millis(600));
    drop(store);
    golden_copy_is_unchanged(&path);
}

fn golden_copy_is_unchanged(path: &Path) {
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &image(path));
    golden(dir.path());
}

#[test]
fn the_report_tells_what_boot_did() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    let report = store.boot_report();
    assert_eq!((report.last_run, report.lsn.get()), (LastRun::None, 0));
    for n in 0..50 {
        store.transact(|tx| map.insert(tx, n, "text".into())).unwrap();
    }
    store.checkpoint().unwrap();
    for n in 50..80 {
        store.transact(|tx| map.insert(tx, n, "text".into())).unwrap();
    }
    drop((store, map));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let phases = Arc::clone(&seen);
    let store = Store::options()
        .on_progress(move |progress| phases.lock().unwrap().push(progress.phase))
        .open(dir.path())
        .unwrap();
    let report = store.boot_report();
    assert_eq!(report.generation, store.generation());
    assert_eq!(report.generation.epoch(), 2);
    assert_eq!(report.checkpoint_lsn.map(rocstate::Lsn::get), Some(50));
    assert_eq!((report.lsn.get(), report.commits_replayed, report.regions), (80, 30, 1));
    let covered: Duration = report.phases.iter().map(|phase| phase.duration).sum();
    assert!(covered.as_secs_f64() >= report.duration.as_secs_f64() * 0.99, "{report}");
    assert!(report.next_boot_estimate > Duration::ZERO);
    let seen = seen.lock().unwrap();
    for phase in ["lock", "locate", "scan", "sort", "load", "seal"] {
        assert!(seen.contains(&phase), "{seen:?}");
    }
    let text = report.to_string();
    assert!(text.contains("30 commits") && text.contains("generation"), "{text}");
    assert!(serde_json::to_string(report).unwrap().contains("\"commits_replayed\":30"));
}

#[test]
fn boots_that_write_nothing_do_not_lengthen_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    store.transact(|tx| map.insert(tx, 1, "one".into())).unwrap();
    drop((store, map));
    for _ in 0..10 {
        let (store, map) = open(dir.path());
        assert_eq!(map.len(&store.view()), 1);
    }
    assert!(files(dir.path(), "log-").len() <= 3, "{:?}", files(dir.path(), "log-"));
    assert_eq!(open(dir.path()).0.generation().epoch(), 12);
}

#[test]
fn checkpoints_come_by_themselves_and_the_log_before_them_goes() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options()
        .segment_bytes(64 << 10)
        .boot_budget(Duration::from_millis(2))
        .open(dir.path())
        .unwrap();
    let map: Map = store.durable_map("map").unwrap();
    let began = Instant::now();
    let mut n = 0;
    while store.stats().checkpoints_taken < 3 && began.elapsed() < Duration::from_secs(60) {
        n += 1;
        store.transact(|tx| map.insert(tx, n % 500, format!("value {n}"))).unwrap();
    }
    assert!(store.stats().checkpoints_taken >= 3);
    store.checkpoint().unwrap();
    let stats = store.stats();
    assert_eq!(stats.tail_operations, 0);
    assert!(stats.checkpoint_error.is_none());
    assert_eq!(files(dir.path(), "checkpoint-").len().min(2), 2);
    assert!(files(dir.path(), "checkpoint-").len() <= 3);
    assert!(files(dir.path(), "log-").len() < 12, "{:?}", files(dir.path(), "log-"));
    drop((store, map));
    let (store, map) = open(dir.path());
    assert_eq!(map.len(&store.view()), 500.min(n as usize));
}

#[test]
fn views_outlive_the_checkpoints_and_files_that_they_need() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    for n in 0..500 {
        store.transact(|tx| map.insert(tx, n, "old".into())).unwrap();
    }
    store.checkpoint().unwrap();
    drop((store, map));
    let (store, map) = open(dir.path());
    let other: Map = store.durable_map("other").unwrap();
    // Nobody has touched the map yet: this view would read it from files that go.
    let view = store.view();
    for n in 0..6 {
        store.transact(|tx| other.insert(tx, n, "new".into())).unwrap();
        store.checkpoint().unwrap();
    }
    store.transact(|tx| map.clear(tx)).unwrap();
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    assert_eq!(map.len(&view), 500);
    assert!(map.iter(&view).all(|entry| entry.unwrap().1 == "old"));
    assert!(map.is_empty(&store.view()));
}

#[test]
fn a_store_killed_while_it_writes_keeps_what_it_acknowledged() {
    if let Ok(path) = std::env::var("ROCSTATE_TEST_KILLED") {
        use std::io::Write;
        let process = std::env::var("ROCSTATE_TEST_PROCESS").is_ok();
        let durability = if process { Durability::Process } else { Durability::Machine };
        let store = Store::options()
            .durability(durability)
            .segment_bytes(64 << 10)
            .boot_budget(Duration::from_millis(5))
            .open(path)
            .unwrap();
        let map: Map = store.durable_map("map").unwrap();
        let out = Arc::new(Mutex::new(std::io::stdout()));
        let threads: Vec<_> = (0..4u32)
            .map(|thread| {
                let (store, map, out) = (store.clone(), map.clone(), Arc::clone(&out));
                std::thread::spawn(move || {
                    for n in 0.. {
                        let key = thread * 10_000_000 + n;
                        let value = "x".repeat(n as usize % 300);
                        // Half of them await.
                        if thread % 2 == 0 {
                            store.transact(|tx| map.insert(tx, key, value)).unwrap();
                        } else {
                            let submitted = store.submit(|tx| map.insert(tx, key, value));
                            pollster::block_on(submitted).unwrap();
                        }
                        writeln!(out.lock().unwrap(), "ack {key}").unwrap();
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        return;
    }
    let kills = setting("ROCSTATE_KILLS", 10);
    for process in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut acknowledged: Vec<u32> = Vec::new();
        for kill in 0..kills {
            // Its keys begin anew each time: what is there is overwritten, nothing is removed.
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["a_store_killed_while_it_writes", "--nocapture"])
                .env("ROCSTATE_TEST_KILLED", dir.path())
                .stdout(std::process::Stdio::piped());
            if process {
                command.env("ROCSTATE_TEST_PROCESS", "1");
            }
            let mut child = command.spawn().unwrap();
            let output = child.stdout.take().unwrap();
            let reader = std::thread::spawn(move || std::io::read_to_string(output).unwrap());
            std::thread::sleep(Duration::from_millis(60 + kill * 37 % 150));
            child.kill().unwrap();
            child.wait().unwrap();
            let text = reader.join().unwrap();
            // The last line may be cut short by the kill.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            acknowledged.extend(
                whole.lines().filter_map(|line| line.strip_prefix("ack ")?.parse::<u32>().ok()),
            );
            let (store, map) = open(dir.path());
            let view = store.view();
            for key in &acknowledged {
                assert!(map.contains_key(&view, key).unwrap(), "{key} was acknowledged");
            }
            // A prefix has no gaps: of each thread, everything before its last commit.
            for thread in 0..4u32 {
                let keys = map.range(&view, thread * 10_000_000..(thread + 1) * 10_000_000);
                let keys: Vec<u32> = keys.map(|entry| *entry.unwrap().0).collect();
                let all = (0..keys.len() as u32).map(|n| thread * 10_000_000 + n);
                assert!(keys.iter().copied().eq(all), "thread {thread} has a gap");
            }
        }
        println!("{kills} kills, {} commits acknowledged", acknowledged.len());
        assert!(acknowledged.len() as u64 > kills, "too few commits to mean anything");
    }
}
