//! P6: the boot budget when writers outrun checkpoints, on a disk that takes its time for them.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::any::Any;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{FaultyDisk, eventually, within};
use rocstate::{
    Backpressure, Disk, Durability, DurableMap, LockGuard, OpenMode, Stats, Storage, StorageFile,
    Store,
};

/// A disk on which each sync of a checkpoint and of the log takes a while. Its clock goes by what is
/// read, at about the rate that a new store assumes: what a busy machine makes of a cut teaches it
/// nothing.
#[derive(Debug)]
struct SlowSyncs {
    checkpoint: Duration,
    log: Duration,
    ticks: Arc<AtomicU64>,
}

const NANOSECONDS_PER_BYTE: u64 = 10;

impl SlowSyncs {
    fn new(checkpoint: Duration, log: Duration) -> SlowSyncs {
        SlowSyncs { checkpoint, log, ticks: Arc::default() }
    }
}

#[derive(Debug)]
struct SlowFile {
    file: Arc<dyn StorageFile>,
    sync: Duration,
    ticks: Arc<AtomicU64>,
}

impl Storage for SlowSyncs {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Disk.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let slow = [("checkpoint-", self.checkpoint), ("log-", self.log)];
        let slow = slow.into_iter().find(|(prefix, _)| name.starts_with(prefix));
        let sync = slow.map_or(Duration::ZERO, |(_, sync)| sync);
        let ticks = Arc::clone(&self.ticks);
        Ok(Arc::new(SlowFile { file: Disk.open(path, mode)?, sync, ticks }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        Disk.sync_dir(dir)
    }
    fn try_lock(&self, file: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        Disk.try_lock(&file.as_any().downcast_ref::<SlowFile>().unwrap().file)
    }
    fn ticks(&self) -> Duration {
        Duration::from_nanos(self.ticks.load(Ordering::Relaxed))
    }
}

impl StorageFile for SlowFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.file.read_at(to, offset)?;
        self.ticks.fetch_add(read as u64 * NANOSECONDS_PER_BYTE, Ordering::Relaxed);
        Ok(read)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(self.sync);
        self.file.sync()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Also where a segment ends, and those who sync it take their time.
#[test]
fn a_commit_that_asks_for_no_sync_waits_for_none() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SlowSyncs::new(Duration::ZERO, Duration::from_secs(1));
    let options = Store::options().durability(Durability::Process).sync_interval(Duration::MAX);
    let store = options.storage(disk).open(dir.path()).unwrap();
    let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
    let took = (0..80).map(|n| {
        let began = Instant::now();
        store.transact(|tx| map.insert(tx, n, "x".repeat(5_000))).unwrap();
        began.elapsed()
    });
    let longest = took.max().unwrap();
    let begun = dir.path().join("log-begun.tmp");
    assert!(begun.exists(), "all of it fits one segment");
    assert!(longest < Duration::from_millis(500), "one took {longest:?}");
    // It has its name soon, whatever the interval.
    eventually("the segment gets its name", || !begun.exists());
    assert_eq!(common::files(dir.path(), "log-").len(), 2);
    eventually("what it holds is durable", || store.durable_lsn() == store.visible_lsn());
}

const BUDGET: Duration = Duration::from_millis(20);

/// What a sync of a slow checkpoint takes.
const CHECKPOINT: Duration = Duration::from_millis(900);

/// Writes as fast as it goes for a while; returns the highest estimate and the last statistics.
fn overload(disk: SlowSyncs, backpressure: Backpressure, time: Duration) -> (Duration, Stats) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options()
        .boot_budget(BUDGET)
        .backpressure(backpressure)
        .durability(Durability::Process)
        .storage(disk)
        .open(dir.path())
        .unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    let began = Instant::now();
    let mut highest = Duration::ZERO;
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let (store, map, ended) = (&store, &map, &ended);
            scope.spawn(move || {
                let mut next = writer << 32;
                while !ended.load(Ordering::Relaxed) {
                    let batch = next..next + 200;
                    next += 200;
                    let insert = |tx: &mut rocstate::Transaction| {
                        batch.clone().try_for_each(|key| map.insert(tx, key, key).map(drop))
                    };
                    store.transact(insert).unwrap();
                }
            });
        }
        while began.elapsed() < time {
            highest = highest.max(store.stats().next_boot_estimate);
            std::thread::sleep(Duration::from_millis(2));
        }
        ended.store(true, Ordering::Relaxed);
    });
    (highest, store.stats())
}

/// Writers are held for checkpoints that take so long, on a log that takes so long to sync.
fn writers_wait(checkpoint: Duration, log: Duration) {
    let (highest, stats) = within(Duration::from_secs(60), move || {
        let disk = SlowSyncs::new(checkpoint, log);
        overload(disk, Backpressure::SlowWriters, Duration::from_secs(6))
    });
    assert!(stats.checkpoints_taken >= 2, "{stats:?}");
    assert!(stats.writers_held > Duration::from_millis(300), "{stats:?}");
    // A group that was let go may be a few milliseconds of replay.
    assert!(highest < BUDGET * 3 / 2, "{highest:?}");
}

#[test]
fn writers_that_outrun_checkpoints_wait_for_them() {
    writers_wait(CHECKPOINT, Duration::ZERO);
}

#[test]
fn also_while_the_log_is_synced_for_one() {
    writers_wait(Duration::from_millis(50), Duration::from_millis(300));
}

#[test]
fn or_the_budget_slips_and_that_is_told() {
    let (highest, stats) = within(Duration::from_secs(60), || {
        let disk = SlowSyncs::new(CHECKPOINT, Duration::ZERO);
        overload(disk, Backpressure::LetBootSlip, Duration::from_secs(3))
    });
    assert_eq!(stats.writers_held, Duration::ZERO);
    assert!(highest > BUDGET, "{highest:?}");
    assert!(stats.boot_budget_slips > 0, "{stats:?}");
}

#[test]
fn what_is_due_is_synced_while_who_leads_what_is_awaited_is_held() {
    let longest = within(Duration::from_secs(60), || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options()
            .boot_budget(BUDGET)
            .durability(Durability::Process)
            .sync_interval(Duration::from_millis(5))
            .storage(SlowSyncs::new(CHECKPOINT, Duration::ZERO))
            .open(dir.path())
            .unwrap();
        let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let insert = |tx: &mut rocstate::Transaction| {
                        (0..200).try_for_each(|key| map.put(tx, key, 1).map(drop))
                    };
                    // Nobody blocks for it; and only so many are in the queue.
                    let submitted = store.submit(insert);
                    let behind = || submitted.lsn().unwrap().get() > store.visible_lsn().get() + 50;
                    while behind() && !ended.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            });
            let (began, mut longest) = (Instant::now(), Duration::ZERO);
            let mut stable = began;
            while began.elapsed() < Duration::from_secs(4) {
                let visible = store.visible_lsn();
                std::thread::sleep(Duration::from_millis(1));
                if store.durable_lsn() >= visible {
                    stable = Instant::now();
                }
                longest = longest.max(stable.elapsed());
            }
            ended.store(true, Ordering::Relaxed);
            longest
        })
    });
    assert!(longest < CHECKPOINT / 2, "{longest:?}");
}

#[test]
fn writers_that_wait_do_not_keep_a_store_from_closing() {
    let time = within(Duration::from_secs(60), || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options()
            .boot_budget(Duration::from_millis(4))
            .durability(Durability::Process)
            .storage(SlowSyncs::new(Duration::from_millis(1_500), Duration::ZERO))
            .open(dir.path())
            .unwrap();
        let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
        let mut left = Vec::new();
        for n in 0..2_000u64 {
            let insert = |tx: &mut rocstate::Transaction| {
                (0..20).try_for_each(|key| map.insert(tx, n * 20 + key, n).map(drop))
            };
            left.push(store.submit(insert));
        }
        let began = Instant::now();
        drop(store);
        for submitted in left {
            let lsn = submitted.lsn();
            assert!(lsn.is_some());
            // The truth, or that it was closed.
            submitted
                .wait()
                .map_or_else(|error| assert_eq!(error.kind(), rocstate::ErrorKind::Closed), drop);
        }
        began.elapsed()
    });
    // Closing waits for the checkpoint that is being written, not for any other.
    assert!(time < Duration::from_secs(8), "{time:?}");
}

#[test]
fn who_submits_faster_than_the_log_takes_it_waits() {
    let dir = tempfile::tempdir().unwrap();
    let disk = SlowSyncs::new(Duration::ZERO, Duration::from_millis(50));
    let options = Store::options().boot_budget(Duration::MAX).storage(disk);
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("map").unwrap();
    let (mut last, mut most) = (None, 0);
    for round in 0..400 {
        let mut tx = store.begin();
        map.put(&mut tx, round % 4, vec![0; 1_000_000]).unwrap();
        last = Some(tx.submit());
        let staged = round + 1;
        most = most.max(staged - store.durable_lsn().get());
    }
    // What may be staged, a group that is being written, and what is written and not yet synced.
    assert!(most <= 64 + 2 * 9, "{most} megabytes were staged");
    assert_eq!(last.unwrap().wait().unwrap().get(), 400);
}

#[test]
fn a_checkpoint_that_panics_keeps_none_from_being_taken() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let store = Store::options()
        .boot_budget(BUDGET)
        .durability(Durability::Process)
        .storage(disk.clone())
        .open(dir.path())
        .unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    store.transact(|tx| map.insert(tx, 0, 0)).unwrap();
    disk.0.panic.store(true, Ordering::SeqCst);
    disk.0.rename.store(1, Ordering::SeqCst);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.checkpoint())).is_err());
    assert_eq!(store.stats().checkpoints_taken, 0);
    eventually("a checkpoint that is due", || {
        store
            .transact(|tx| (0..1_000).try_for_each(|key| map.put(tx, key, key).map(drop)))
            .unwrap();
        store.stats().checkpoints_taken > 0
    });
    assert!(store.stats().writers_held < Duration::from_secs(5), "{:?}", store.stats());
}

#[test]
fn the_report_sets_the_estimate_beside_what_boot_took() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::options().durability(Durability::Process).open(dir.path()).unwrap();
    let store = open();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    let fill = |store: &Store| {
        for n in 0..200u64 {
            let insert = |tx: &mut rocstate::Transaction| {
                (0..100).try_for_each(|key| map.insert(tx, key, n).map(drop))
            };
            store.transact(insert).unwrap();
        }
    };
    fill(&store);
    store.checkpoint().unwrap();
    let after_checkpoint = store.stats().next_boot_estimate;
    fill(&store);
    let with_tail = store.stats().next_boot_estimate;
    assert!(with_tail > after_checkpoint);
    drop(store);
    let store = open();
    let report = store.boot_report();
    assert_eq!(report.operations_replayed, 20_000);
    // The rates that the checkpoint kept, for the same tail.
    assert!(report.estimate.abs_diff(with_tail) < with_tail / 2, "{report}, and {with_tail:?}");
    assert!(report.to_string().contains("estimated"));
    assert!(report.duration > Duration::ZERO);
}
