//! What a store holds in memory, to the byte: little after a boot, no more than a `BTreeMap` when all of it is
//! warm, and for a view that is held no more than a copy of what it sees. One test at a time, since they count
//! what is allocated: by the allocator, and by the trees for their nodes and values.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rocstate::{Durability, DurableMap, Store, Warming};
use serde::{Deserialize, Serialize};

/// The system's allocator, with a count of what is allocated, as an allocator rounds it.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// All that ever was.
static EVER_ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Whoever counts is alone.
static COUNTS: Mutex<()> = Mutex::new(());

fn rounded(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

#[allow(unsafe_code, reason = "an allocator is one")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(rounded(layout), Ordering::Relaxed);
        EVER_ALLOCATED.fetch_add(rounded(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(rounded(layout), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    customer: String,
    note: String,
    cents: i64,
}

fn order(key: u64) -> Order {
    Order {
        customer: format!("customer {key:012}"),
        note: format!("order {key:012}: leave it with the neighbour if nobody opens"),
        cents: 1_000,
    }
}

fn at_once() -> usize {
    ALLOCATED.load(Ordering::Relaxed) + rocstate::control::tree_bytes()
}

/// What is allocated, once threads in the background have freed what was dropped.
fn allocated() -> usize {
    let mut last = usize::MAX;
    loop {
        let now = at_once();
        if now == last {
            return now;
        }
        last = now;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn memory_is_for_the_tail_at_first_and_less_than_a_btree_map_when_all_is_warm() {
    const ENTRIES: u64 = 100_000;
    const TAIL: u32 = 2_000;
    let _alone = COUNTS.lock();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Process).open(dir.path()).unwrap();
    let map: DurableMap<u64, Order> = store.durable_map("orders").unwrap();
    let insert = |keys: std::ops::Range<u64>| {
        let fill = |tx: &mut rocstate::Transaction| {
            keys.clone().try_for_each(|key| map.insert(tx, key, order(key)).map(drop))
        };
        store.transact(fill).unwrap();
    };
    insert(0..ENTRIES);
    store.checkpoint().unwrap();
    insert(0..TAIL.into());
    drop(map);
    drop(store);

    // Random order, as entries come to a map over time: nodes are two thirds full.
    let before = allocated();
    let mut plain = BTreeMap::new();
    for n in 0..ENTRIES {
        let key = n * 7_919 % ENTRIES;
        plain.insert(key, order(key));
    }
    let of_btree_map = allocated() - before;
    drop(plain);
    // The same in ascending order, which leaves the nodes half full.
    let before = allocated();
    let plain: BTreeMap<u64, Order> = (0..ENTRIES).map(|key| (key, order(key))).collect();
    let of_collected = allocated() - before;
    drop(plain);

    let before = allocated();
    let options = Store::options().warming(Warming::OnDemand);
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, Order> = store.durable_map("orders").unwrap();
    assert_eq!(map.get(&store.view(), &50_000).unwrap(), Some(&order(50_000)));
    let after_first_read = allocated() - before;
    let tail = usize::try_from(TAIL).unwrap() * 150;
    assert!(after_first_read < tail + (1 << 20), "{after_first_read} bytes after one read");

    map.warm().unwrap();
    assert_eq!(map.iter(&store.view()).count(), 100_000);
    // What is left of the boot: the tail, until a checkpoint, and some blocks in the cache.
    let warm = allocated() - before;
    println!(
        "a first read {after_first_read}, warm {warm}, BTreeMap {of_btree_map} in random order, {of_collected} collected"
    );
    assert!(warm < of_btree_map, "{warm} bytes, and {of_btree_map} in a BTreeMap");
}

/// Leaves share with their neighbours before they are split.
#[test]
fn numbers_that_come_at_random_take_less_than_in_a_btree_map() {
    const ENTRIES: u64 = 200_000;
    let _alone = COUNTS.lock();
    let mut dice = fastrand::Rng::with_seed(7);
    let keys: Vec<u64> = (0..ENTRIES).map(|_| dice.u64(..)).collect();
    let before = allocated();
    let mut plain = BTreeMap::new();
    for key in &keys {
        plain.insert(*key, *key);
    }
    let of_btree_map = allocated() - before;
    drop(plain);

    let dir = tempfile::tempdir().unwrap();
    let options = Store::options().boot_budget(std::time::Duration::from_secs(3600));
    let store = options.durability(Durability::Process).open(dir.path()).unwrap();
    let before = allocated();
    let map: DurableMap<u64, u64> = store.durable_map("numbers").unwrap();
    for some in keys.chunks(100) {
        let put = |tx: &mut rocstate::Transaction| {
            some.iter().try_for_each(|key| map.put(tx, *key, *key).map(drop))
        };
        store.transact(put).unwrap();
    }
    let of_numbers = allocated() - before;
    println!("{ENTRIES} numbers {of_numbers}, BTreeMap {of_btree_map}");
    // The room at hand is in it. When leaves shared nothing it took as much.
    assert!(10 * of_numbers < 9 * of_btree_map, "{of_numbers}, {of_btree_map} in a BTreeMap");
}

#[test]
fn a_view_that_is_held_for_a_million_writes_costs_at_most_a_copy_of_what_it_sees() {
    const ENTRIES: u64 = 20_000;
    const WRITES: u64 = 1_000_000;
    let _alone = COUNTS.lock();
    let dir = tempfile::tempdir().unwrap();
    let options = Store::options().boot_budget(std::time::Duration::from_secs(3600));
    let store = options.durability(Durability::Process).open(dir.path()).unwrap();
    let before = allocated();
    let map: DurableMap<u64, Order> = store.durable_map("orders").unwrap();
    let put = |nth: u64| {
        let key = nth * 7_919 % ENTRIES;
        store.transact(|tx| map.put(tx, key, order(key)).map(drop)).unwrap();
    };
    (0..ENTRIES).for_each(put);
    let seen = allocated() - before;
    let view = store.view();
    let mut most = 0;
    for nth in 0..WRITES {
        put(nth);
        if nth % 1_000 == 0 && at_once() > most {
            // What a thread holds that frees, and that has lost its processor, is there for that long only.
            std::thread::sleep(std::time::Duration::from_millis(20));
            put(nth);
            most = most.max(at_once());
        }
    }
    let held = most - before - seen;
    assert_eq!(map.iter(&view).count(), 20_000);
    drop(view);
    put(0);
    let left = allocated() - before;
    println!("seen {seen}, held beside it at most {held}, {left} when the view is gone");
    // The copy, what it takes to know it, and room at hand.
    assert!(held < seen + seen / 10, "{held} bytes are held beside {seen}");
    assert!(left < seen + seen / 4, "{left} bytes are left of {seen}");
}

/// P6: of regions that nobody asked for a store that follows keeps what has changed of them, and not for each of them
/// all of the log since the newest checkpoint.
#[test]
fn what_changes_of_many_regions_keeps_no_log_for_each() {
    const REGIONS: u64 = 40;
    let _alone = COUNTS.lock();
    let dir = tempfile::tempdir().unwrap();
    let options = || Store::options().threads(false);
    let hour = std::time::Duration::from_secs(3600);
    let store = options().boot_budget(hour).open(dir.path()).unwrap();
    let map: DurableMap<u64, Order> = store.durable_map("orders").unwrap();
    let many = |tx: &mut rocstate::Transaction| {
        (0..20_000).try_for_each(|key| map.put(tx, key, order(key)).map(drop))
    };
    store.transact(many).unwrap();
    store.tend().unwrap();
    let reader = options().read_only(true).open(dir.path()).unwrap();
    let regions: Vec<DurableMap<u64, Order>> =
        (0..REGIONS).map(|at| store.durable_map(&format!("region {at}")).unwrap()).collect();
    let before = allocated();
    for key in 0..3 {
        for region in &regions {
            store.transact(|tx| region.put(tx, key, order(key)).map(drop)).unwrap();
            store.tend().unwrap();
            assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        }
    }
    let kept = allocated() - before;
    println!("{kept} bytes for {REGIONS} regions behind a log of two megabytes");
    assert!(kept < 2 << 20, "{kept} bytes for {REGIONS} regions of three entries");
}

/// P6: moving on looks at what has changed, not at every region.
#[test]
fn a_refresh_takes_no_more_memory_with_many_regions() {
    let _alone = COUNTS.lock();
    let options = || Store::options().threads(false);
    let [few, many] = [100, 5_000].map(|count| {
        let dir = tempfile::tempdir().unwrap();
        let store = options().open(dir.path()).unwrap();
        let declare = |store: &Store| -> Vec<DurableMap<u64, u64>> {
            (0..count).map(|at| store.durable_map(&format!("region {at}")).unwrap()).collect()
        };
        let maps = declare(&store);
        store.transact(|tx| maps.iter().try_for_each(|map| map.put(tx, 0, 0).map(drop))).unwrap();
        store.tend().unwrap();
        let reader = options().read_only(true).open(dir.path()).unwrap();
        let followed = declare(&reader);
        let taken = maps.iter().take(9).map(|map| {
            store.transact(|tx| map.put(tx, 1, 1).map(drop)).unwrap();
            store.tend().unwrap();
            let before = EVER_ALLOCATED.load(Ordering::Relaxed);
            assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
            EVER_ALLOCATED.load(Ordering::Relaxed) - before
        });
        let mut taken: Vec<usize> = taken.collect();
        taken.sort_unstable();
        assert_eq!(followed.iter().filter(|map| map.len(&reader.view()) == 2).count(), 9);
        taken[4]
    });
    println!("{few} bytes with few regions, {many} with many");
    assert!(many < few + few / 2, "{many} bytes with many regions, {few} with few");
}
