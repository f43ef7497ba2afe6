//! P1, P6: a store is dropped, and the next one boots, without waiting for what takes long.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use common::{eventually, files};
use rocstate::inspect::{Inspector, LogEvent};
use rocstate::{
    Disk, Durability, DurableMap, LockGuard, Lsn, OpenMode, Options, Storage, StorageFile, Store,
    Transaction,
};

/// A disk that takes its time to write checkpoints, and to give back the room of one: as a file system does,
/// for whoever removes the name, or the last one who has it open. Its clock stands, so that it teaches a store
/// nothing.
#[derive(Clone, Debug, Default)]
struct SlowDisk {
    write: Duration,
    removal: Duration,
    /// Checkpoints can not be made.
    fails: bool,
    open: Arc<Mutex<HashMap<PathBuf, Weak<SlowFile>>>>,
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn StorageFile>,
    write: Duration,
    /// Set once it has no name.
    removal: Mutex<Duration>,
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        std::thread::sleep(*self.removal.lock().unwrap());
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name().unwrap().to_string_lossy().starts_with("checkpoint-")
}

impl Storage for SlowDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if self.fails && is_checkpoint(path) {
            return Err(io::Error::other("no checkpoints"));
        }
        let write = if is_checkpoint(path) { self.write } else { Duration::ZERO };
        let (file, removal) = (Disk.open(path, mode)?, Mutex::default());
        let file = Arc::new(SlowFile { file, write, removal });
        self.open.lock().unwrap().insert(path.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)?;
        if is_checkpoint(path) {
            let open = self.open.lock().unwrap().get(path).and_then(Weak::upgrade);
            match open {
                Some(open) => *open.removal.lock().unwrap() = self.removal,
                None => std::thread::sleep(self.removal),
            }
        }
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        Disk.try_lock(&file.as_any().downcast_ref::<SlowFile>().unwrap().file)
    }
    fn ticks(&self) -> Duration {
        Duration::ZERO
    }
}

impl StorageFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(to, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::thread::sleep(self.write);
        self.file.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

const SECOND: Duration = Duration::from_secs(1);

/// The checkpoint that is being written.
fn temporary(dir: &Path) -> Option<PathBuf> {
    let mut paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| is_checkpoint(path) && path.extension().unwrap() == "tmp")
}

#[test]
fn many_short_lives_leave_little_for_a_boot() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..200 {
        let store = Store::open(dir.path()).unwrap();
        let replayed = store.boot_report().commits_replayed;
        assert!(replayed <= 22, "{replayed} commits were replayed after {life} lives");
        let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
        store.transact(|tx| map.insert(tx, life, life)).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    assert_eq!(map.len(&store.view()), 200);
    // The log of two checkpoints and of 22 lives, of 32 KiB each, and the first of which none knew how short they are.
    let log = files(dir.path(), "log-");
    let bytes: u64 = log.iter().map(|path| std::fs::metadata(path).unwrap().len()).sum();
    assert!(bytes <= (66 << 15) + (1 << 20), "{bytes} bytes in {} files", log.len());
}

#[test]
fn a_log_has_more_segments_than_a_process_may_open_files() {
    const TEST: &str = "a_log_has_more_segments_than_a_process_may_open_files";
    let read = |store: &Store| {
        let map: DurableMap<u64, Vec<u8>> = store.durable_map("map").unwrap();
        assert_eq!(map.len(&store.view()), 300);
        assert_eq!(map.get(&store.view(), &299).unwrap().unwrap().len(), 40_000);
        store.checkpoint().unwrap();
    };
    if let Some(dir) = std::env::var_os("ROCSTATE_TEST_FEW_FILES") {
        let mut segments = 0;
        let mut count = |event: LogEvent<'_>| {
            segments += u64::from(matches!(event, LogEvent::Segment(_)));
            Ok(ControlFlow::Continue(()))
        };
        Inspector::open(&dir).unwrap().walk_log(Lsn::ZERO, &mut count).unwrap();
        assert!(segments > 200, "{segments}");
        return read(&Store::open(&dir).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = SlowDisk { fails: true, ..SlowDisk::default() };
    let options = Store::options().storage(disk).segment_bytes(64 << 10);
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("map").unwrap();
    for key in 0..300 {
        let mut tx = store.begin();
        map.insert(&mut tx, key, vec![1; 40_000]).unwrap();
        tx.commit_with(Durability::Process).unwrap();
    }
    drop(store);
    assert!(files(dir.path(), "log-").len() > 200);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 120 && exec \"$0\" --nocapture \"$1\""]);
    command.arg(std::env::current_exe().unwrap()).arg(TEST);
    let output = command.env("ROCSTATE_TEST_FEW_FILES", dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the next boot takes after [`filled`], as the store estimates it.
const BOOT: Duration = Duration::from_millis(15);

/// A store with 32 megabytes in its log.
fn filled(options: &Options, path: &Path) -> Store {
    let store = options.open(path).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("map").unwrap();
    let put = |tx: &mut Transaction, key| map.put(tx, key, vec![7; 32 << 10]).map(drop);
    store.transact(|tx| (0..1024).try_for_each(|key| put(tx, key))).unwrap();
    let estimate = store.stats().next_boot_estimate;
    assert!(estimate.abs_diff(BOOT) < Duration::from_millis(1), "{estimate:?}");
    store
}

#[test]
fn a_checkpoint_that_the_next_boot_needs_is_taken_however_short_a_process_lives() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SlowDisk { write: SECOND / 50, ..SlowDisk::default() };
    let options = Store::options().storage(disk).boot_budget(BOOT / 2);
    let store = filled(&options, dir.path());
    let lsn = store.durable_lsn();
    drop(store);
    assert_eq!(options.open(dir.path()).unwrap().boot_report().checkpoint_lsn, Some(lsn));
}

#[test]
fn neither_a_drop_nor_a_boot_waits_for_a_checkpoint_that_is_being_taken() {
    let dir = tempfile::tempdir().unwrap();
    // 32 writes of a megabyte, half a second each.
    let disk = SlowDisk { write: SECOND / 2, removal: 3 * SECOND, ..SlowDisk::default() };
    let options = Store::options().storage(disk).boot_budget(BOOT * 7 / 4);
    let store = filled(&options, dir.path());
    eventually("a checkpoint is being written", || {
        temporary(dir.path()).is_some_and(|path| path.metadata().unwrap().len() > 0)
    });
    let began = Instant::now();
    drop(store);
    let dropped = began.elapsed();
    assert!(dropped < 2 * SECOND, "a drop took {dropped:?}");
    assert!(temporary(dir.path()).is_some(), "it was not finished");
    let began = Instant::now();
    let store = options.open(dir.path()).unwrap();
    let booted = began.elapsed();
    assert!(booted < 2 * SECOND, "a boot took {booted:?}");
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("map").unwrap();
    assert_eq!(map.len(&store.view()), 1024);
}

/// The threads of this process that a store has, by name.
#[cfg(target_os = "linux")]
fn threads_of_stores() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap);
    // One may end meanwhile.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let names = names.map(|name| name.trim_end().to_owned());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("rocstate-")).collect();
    names.sort();
    names
}

#[cfg(target_os = "linux")]
#[test]
fn a_store_has_the_threads_that_it_has_work_for() {
    const TEST: &str = "a_store_has_the_threads_that_it_has_work_for";
    let Some(dir) = std::env::var_os("ROCSTATE_TEST_THREADS") else {
        // Of a process of its own, beside other tests.
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--nocapture", "--exact", TEST]).env("ROCSTATE_TEST_THREADS", dir.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    };
    let store = Store::open(dir).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 1, 1)).unwrap();
    // A thread has its name a moment after it was begun.
    let has = |names: &[&str]| eventually("it has these threads", || threads_of_stores() == names);
    has(&["rocstate-reaper", "rocstate-sync"]);
    store.submit(|tx| map.insert(tx, 2, 2)).wait().unwrap();
    has(&["rocstate-log", "rocstate-reaper", "rocstate-sync"]);
    // Half of the first segment.
    let value = vec![0_u64; 20_000];
    let large: DurableMap<u64, Vec<u64>> = store.durable_map("large").unwrap();
    for key in 0..10 {
        store.transact(|tx| large.insert(tx, key, value.clone())).unwrap();
    }
    has(&["rocstate-ahead", "rocstate-log", "rocstate-reaper", "rocstate-sync"]);
    drop((store, map, large));
    has(&[]);
}
