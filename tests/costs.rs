//! What a commit and a read cost, counted exactly: writes, syncs, bytes, allocations. Instructions are counted by
//! `tests/instructions.rs`.
//! Times depend on the machine and the hour; these do not, so a change that makes one of them grow fails
//! here. Whoever has a reason changes the figure with it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::FaultyDisk;
use rocstate::{Durability, DurableMap, Store, VolatileMap};

/// The system's allocator, with counts for each thread of what it asked for and gave back.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static FREES: Cell<u64> = const { Cell::new(0) };
    static GROWN: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "an allocator is one")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may free and allocate after its count is gone.
        ALLOCATIONS.try_with(|count| count.set(count.get() + 1)).ok();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        FREES.try_with(|count| count.set(count.get() + 1)).ok();
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        for count in [&ALLOCATIONS, &FREES, &GROWN] {
            count.try_with(|count| count.set(count.get() + 1)).ok();
        }
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// A store that does nothing in the background, with a thousand entries in its map.
fn store(dir: &tempfile::TempDir, disk: &FaultyDisk) -> (Store, DurableMap<u64, u64>) {
    let options = Store::options().threads(false).storage(disk.clone());
    let store = options.durability(Durability::Process).open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    store.transact(|tx| (0..1000).try_for_each(|key| map.put(tx, key, key).map(drop))).unwrap();
    store.sync().unwrap();
    (store, map)
}

/// Writes, written bytes and syncs of some work.
fn io(disk: &FaultyDisk, work: impl FnOnce()) -> [u64; 3] {
    let counts = || [&disk.0.writes, &disk.0.written_bytes, &disk.0.syncs];
    let before = counts().map(|count| count.load(Ordering::SeqCst));
    work();
    let after = counts().map(|count| count.load(Ordering::SeqCst));
    [0, 1, 2].map(|at| after[at] - before[at])
}

#[test]
fn a_synced_commit_is_one_write_of_a_block_and_one_sync() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, map) = store(&dir, &disk);
    let [writes, bytes, syncs] = io(&disk, || {
        for key in 0..20 {
            let mut tx = store.begin();
            map.put(&mut tx, key, 1).unwrap();
            tx.commit_with(Durability::Machine).unwrap();
        }
    });
    assert_eq!([writes, bytes, syncs], [20, 20 * 4096, 20]);
}

#[test]
fn a_commit_that_is_not_synced_is_one_write_of_its_own_bytes() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, map) = store(&dir, &disk);
    store.transact(|tx| map.put(tx, 0, 1)).unwrap();
    let [writes, bytes, syncs] = io(&disk, || {
        for key in 100..200 {
            store.transact(|tx| map.put(tx, key, 1)).unwrap();
        }
    });
    assert_eq!([writes, syncs], [100, 0]);
    // A header of 48 bytes; a length each of the record, its label, its key and its value; tag and region;
    // eight bytes of key and one of value.
    assert_eq!(bytes, 100 * 63, "{} bytes a commit", bytes / 100);
}

/// A segment that ends costs a synced commit a sync of LOCK (and of the directory), and no other commit any.
#[test]
fn whoever_asks_for_no_sync_waits_for_none_where_a_segment_ends() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, map) = store(&dir, &disk);
    let is_begun = || dir.path().join("log-begun.tmp").exists();
    let fill = |durability| {
        io(&disk, || {
            let mut tx = store.begin();
            (0..200).try_for_each(|key| map.put(&mut tx, key, 1).map(drop)).unwrap();
            tx.commit_with(durability).unwrap();
        })
    };
    let mut syncs = 0;
    while !is_begun() {
        [_, _, syncs] = fill(Durability::Process);
    }
    assert_eq!(syncs, 0);
    // The old segment, the new one, LOCK.
    [_, _, syncs] = io(&disk, || store.sync().map(drop).unwrap());
    assert_eq!((syncs, is_begun()), (3, false));
    let segments = || common::files(dir.path(), "log-0").len();
    let before = segments();
    while segments() == before {
        [_, _, syncs] = fill(Durability::Machine);
    }
    // The old one was synced with each commit.
    assert_eq!(syncs, 2);
}

#[test]
fn reads_and_walks_allocate_nothing() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, map) = store(&dir, &disk);
    black_box(map.get(&store.view(), &1).unwrap());
    let of_reads = allocations(|| {
        for key in 0..1000 {
            assert_eq!(map.get(&store.view(), &key).unwrap(), Some(&key));
        }
    });
    assert_eq!(of_reads, 0);
    let ends = || {
        [map.first(&store.view()).unwrap().is_some(), map.last(&store.view()).unwrap().is_some()]
    };
    assert_eq!(allocations(|| assert_eq!(ends(), [true; 2])), 0);
    let walks = || {
        let view = store.view();
        [map.iter(&view).count(), map.range(&view, 10..20).rev().count()]
    };
    assert_eq!(allocations(|| assert_eq!(walks(), [1000, 10])), 0);
}

/// An allocator may make a block longer with all locked that it came from, for others that load as well.
#[test]
fn what_is_loaded_is_put_where_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let store = Store::options().threads(false).open(dir.path()).unwrap();
        let map: DurableMap<u64, [u64; 8]> = store.durable_map("map").unwrap();
        (store, map)
    };
    let (store, map) = open();
    let keys = 0..100_000;
    store
        .transact(|tx| keys.clone().try_for_each(|key| map.put(tx, key, [key; 8]).map(drop)))
        .unwrap();
    store.checkpoint().unwrap();
    drop((store, map));
    let (_store, map) = open();
    let grown = GROWN.get();
    let allocations = allocations(|| map.warm().unwrap());
    let grown = GROWN.get() - grown;
    println!("{allocations} allocations to load 100 000 entries, {grown} blocks made longer");
    assert!(
        allocations <= ALLOCATIONS_TO_LOAD,
        "{allocations} allocations to load 100 000 entries"
    );
    assert!(grown <= GROWN_TO_LOAD, "{grown} blocks made longer to load 100 000 entries");
}

const ALLOCATIONS_TO_LOAD: u64 = 3600;
const GROWN_TO_LOAD: u64 = 60;

#[test]
fn a_commit_allocates_what_its_version_needs() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, map) = store(&dir, &disk);
    let commit = |keys: std::ops::Range<u64>| {
        for key in keys {
            store.transact(|tx| map.put(tx, key, 2)).unwrap();
        }
    };
    commit(0..200);
    let of_commits = allocations(|| commit(200..700));
    println!("{of_commits} allocations of 500 commits");
    let expected = 500 * ALLOCATIONS_PER_COMMIT + ALLOCATIONS_OF_LISTS;
    assert!(of_commits <= expected, "{of_commits} allocations of 500 commits");
    let of_a_batch = allocations(|| {
        store.transact(|tx| (0..1000).try_for_each(|key| map.put(tx, key, 3).map(drop))).unwrap();
    });
    println!("{of_a_batch} allocations of a batch of 1000");
    assert!(of_a_batch <= ALLOCATIONS_PER_BATCH, "{of_a_batch} allocations of a batch of 1000");
}

/// Of the keys beside the one that comes or goes none is cloned.
#[test]
fn a_key_that_owns_memory_comes_and_goes_alone() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, _) = store(&dir, &disk);
    let map: DurableMap<String, u64> = store.durable_map("texts").unwrap();
    let text = |number: u64| format!("a key that owns memory, {number:05}");
    store
        .transact(|tx| (0..1000).try_for_each(|key| map.put(tx, text(2 * key), 0).map(drop)))
        .unwrap();
    let commit = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            store.transact(|tx| map.put(tx, text(2 * number + 1), 0)).unwrap();
            store.transact(|tx| map.remove(tx, text(2 * number).as_str())).unwrap();
        }
    };
    commit(0..200);
    let of_commits = allocations(|| commit(200..700));
    println!("{of_commits} allocations of 1000 commits");
    // The texts themselves are one more each.
    let expected = 1000 * (ALLOCATIONS_PER_COMMIT + 1) + ALLOCATIONS_OF_LISTS;
    assert!(of_commits <= expected, "{of_commits} allocations of 1000 commits");
}

/// The versions of the store and of a tree.
const ALLOCATIONS_PER_COMMIT: u64 = 2;
/// Those of hundreds of commits, now and then.
const ALLOCATIONS_OF_LISTS: u64 = 100;
/// Values and nodes have room of their own; notes of what places held are left.
const ALLOCATIONS_PER_BATCH: u64 = 200;

#[test]
fn an_attempt_costs_what_it_changes() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let (store, map) = store(&dir, &disk);
    let declare = |nth: u64| store.durable_map::<u64, u64>(&format!("region {nth}")).unwrap();
    let regions: Vec<_> = (0..500).map(declare).collect();
    let within = |touched: &[DurableMap<u64, u64>]| {
        let mut tx = store.begin();
        map.put(&mut tx, 1, 0).unwrap();
        for region in touched {
            region.put(&mut tx, 1, 1).unwrap();
        }
        allocations(|| tx.attempt(|tx| map.put(tx, 1, 1)).map(drop).unwrap())
    };
    let (alone, beside_many) = (within(&[]), within(&regions));
    assert!((1..=alone).contains(&beside_many), "{beside_many} allocations, and {alone} alone");
}

/// Whoever discards a large map makes nothing and takes nothing apart, whatever the size: that is what its
/// time depends on, since none of it is in the cache.
#[test]
fn a_discard_makes_and_frees_nothing_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: VolatileMap<u64, u64> = store.volatile_map("map").unwrap();
    for entries in [5_000, 50_000] {
        for key in 0..entries {
            map.insert(key, key);
        }
        let frees = FREES.get();
        let allocations = allocations(|| {
            map.discard();
        });
        let frees = FREES.get() - frees;
        println!("{entries} entries: {allocations} allocations, {frees} frees");
        // The channel to the thread that frees takes memory once in a while.
        assert!(allocations <= 1, "{allocations} allocations to discard {entries} entries");
        assert_eq!(frees, 0, "to discard {entries} entries");
    }
}

/// What the process has of the machine's memory, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
#[cfg(target_os = "linux")]
fn memory_of_what_is_discarded_goes_back_to_the_system() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: VolatileMap<u64, [u8; 64]> = store.volatile_map("sessions").unwrap();
    let before = resident();
    for key in 0..1_000_000 {
        map.insert(key, [1; 64]);
    }
    let full = resident();
    assert!(full - before > 80 << 20, "{} bytes", full - before);
    map.discard();
    // A thread frees it in steps. Tests beside this one let go of memory as well.
    let began = Instant::now();
    let left = || resident().saturating_sub(before);
    while left() > (full - before) / 10 {
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes are left", left());
        std::thread::sleep(Duration::from_millis(10));
    }
}

const TRACED: u64 = 25;
const MEMORY_CALLS: [&str; 5] = ["brk", "mmap", "munmap", "madvise", "mprotect"];

/// Whether commits that are not synced go through a memory map on the file system of a directory.
#[cfg(target_os = "linux")]
fn is_mapped_on(dir: &std::path::Path) -> bool {
    let output = Command::new("stat").args(["-f", "-c", "%T"]).arg(dir).output().unwrap();
    let kind = String::from_utf8(output.stdout).unwrap();
    ["ext2/ext3", "xfs", "tmpfs"].contains(&kind.trim())
}

/// The process that strace watches; the marks are calls that name themselves.
#[test]
#[ignore = "run by calls_of_the_system_are_counted"]
fn traced_commits() {
    let dir = tempfile::tempdir().unwrap();
    // No checkpoint is due, however slow the boot was.
    let options = Store::options().threads(false).boot_budget(Duration::from_secs(60));
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    for durability in [Durability::Process, Durability::Machine] {
        let commit = |key| {
            let mut tx = store.begin();
            map.put(&mut tx, key, 1).unwrap();
            tx.commit_with(durability).unwrap();
        };
        commit(0);
        let mark = |when| std::fs::metadata(dir.path().join(format!("{durability:?}-{when}")));
        assert!(mark("begins").is_err());
        (0..TRACED).for_each(commit);
        assert!(mark("ended").is_err());
    }
}

/// How often the thread that made the marks called the system between them, by the name of the call, but for
/// what an allocator calls when it likes.
fn calls(trace: &str, durability: Durability) -> BTreeMap<&str, u64> {
    let mark = |when| format!("{durability:?}-{when}");
    let mut lines = trace.lines().skip_while(|line| !line.contains(&mark("begins")));
    let thread = lines.next().unwrap().split(' ').next().unwrap();
    let mut calls = BTreeMap::new();
    for line in lines.take_while(|line| !line.contains(&mark("ended"))) {
        let rest = line.strip_prefix(thread).map(str::trim_start);
        // The second half of a call that was told in two lines.
        let rest = rest.filter(|rest| !rest.starts_with('<'));
        let call = rest.and_then(|rest| rest.split_once('('));
        if let Some((call, _)) = call.filter(|(call, _)| !MEMORY_CALLS.contains(call)) {
            *calls.entry(call).or_default() += 1;
        }
    }
    calls
}

#[test]
#[cfg(target_os = "linux")]
fn calls_of_the_system_are_counted() {
    let strace = || Command::new("strace");
    let tried = strace().args(["-f", "-o", "/dev/null", "true"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        println!("SKIPPED: calls of the system are counted by strace");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("trace");
    let traced = strace()
        .args(["-f", "-o"])
        .arg(&to)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced_commits", "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stdout));
    let trace = std::fs::read_to_string(&to).unwrap();
    let written = (!is_mapped_on(dir.path())).then_some(("pwrite64", TRACED));
    assert_eq!(calls(&trace, Durability::Process), BTreeMap::from_iter(written));
    let synced = BTreeMap::from([("pwrite64", TRACED), ("fdatasync", TRACED)]);
    assert_eq!(calls(&trace, Durability::Machine), synced);
}

/// Bytes of the log's files that this process has mapped.
#[cfg(target_os = "linux")]
fn mapped(dir: &std::path::Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let log = dir.join("log-").display().to_string();
    let mut is_log = false;
    let kibibytes = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        match words.next()? {
            "Rss:" if is_log => words.next()?.parse::<u64>().ok(),
            word if word.ends_with(':') => None,
            _ => {
                is_log = line.contains(&log);
                None
            }
        }
    });
    kibibytes.sum::<u64>() << 10
}

/// A page that is mapped while it is synced costs an interrupt of every processor.
#[test]
#[cfg(target_os = "linux")]
fn what_is_synced_is_not_mapped_any_more() {
    let dir = tempfile::tempdir().unwrap();
    if !is_mapped_on(dir.path()) {
        println!("SKIPPED: this file system is not known to write in place");
        return;
    }
    let options = Store::options().threads(false).sync_interval(Duration::from_secs(60));
    let store = options.durability(Durability::Process).open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    for key in 0..3000 {
        store.transact(|tx| map.put(tx, key, 1).map(drop)).unwrap();
    }
    let before = mapped(dir.path());
    assert!(before > 3000 * 60, "{before} bytes are mapped");
    store.sync().unwrap();
    // The last page is not full; some systems have large ones.
    let after = mapped(dir.path());
    assert!(after <= before / 2, "{after} of {before} bytes still are");
}
