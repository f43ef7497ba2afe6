//! P8: what a discard leaves to be freed, or a store that is dropped, lets nobody wait for long. What glibc's allocator
//! puts off with small blocks is done in steps by the thread that frees them, and not at once by whoever is the next to
//! need a large one.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

use std::path::Path;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rocstate::{Durability, DurableMap, Store, Transaction, VolatileMap};
use serde::{Deserialize, Serialize};

const ENTRIES: u64 = 100_000;

/// A seventh of what they hold in small blocks: arenas take turns, of which a large machine has more.
const PUT_OFF_MAX: usize = 2 << 20;

const LIMIT: Duration = Duration::from_secs(60);

/// There is one allocator for all tests.
static ALONE: Mutex<()> = Mutex::new(());

/// Two small blocks.
#[derive(Clone, Serialize, Deserialize)]
struct Order {
    customer: String,
    note: String,
}

fn order(key: u64) -> Order {
    Order {
        customer: format!("customer {key:012}"),
        note: format!("order {key:012}: leave it with the neighbour if nobody opens"),
    }
}

/// Bytes that were freed and are not merged yet, in all arenas.
#[allow(unsafe_code, reason = "nothing else tells")]
fn put_off() -> usize {
    // SAFETY: it reads what the allocator counts, under its locks.
    unsafe { libc::mallinfo2() }.fsmblks
}

/// Drops it, and looks how much is put off until trees hold no more than so many tenths of what they did.
fn look_while_it_is_freed(tenths: usize, drops: impl FnOnce()) {
    let (full, before) = (rocstate::control::tree_bytes(), put_off());
    drops();
    let begin = Instant::now();
    let (mut most, mut looks) = (0, 0);
    while rocstate::control::tree_bytes() > full / 10 * tenths {
        most = most.max(put_off());
        looks += 1;
        assert!(begin.elapsed() < LIMIT, "{} of {full}", rocstate::control::tree_bytes());
        std::thread::sleep(Duration::from_micros(50));
    }
    assert!(looks > 0, "it was freed before anybody looked");
    assert!(most < before + PUT_OFF_MAX, "{before} bytes before, {most} put off, in {looks} looks");
}

#[test]
fn a_discard_puts_little_off() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: VolatileMap<u64, Order> = store.volatile_map("orders").unwrap();
    // Each of two threads allocates from an arena of its own.
    std::thread::scope(|scope| {
        for first in 0..2 {
            let map = &map;
            scope.spawn(move || {
                for key in (first..ENTRIES).step_by(2) {
                    map.insert(key, order(key));
                }
            });
        }
    });
    look_while_it_is_freed(1, || {
        map.discard();
    });
}

fn open(path: &Path) -> (Store, DurableMap<u64, Order>) {
    let store = Store::options().durability(Durability::Process).open(path).unwrap();
    let map = store.durable_map("orders").unwrap();
    (store, map)
}

fn put_all(store: &Store, map: &DurableMap<u64, Order>) {
    for from in (0..ENTRIES).step_by(1_000) {
        let many = |tx: &mut Transaction| {
            (from..from + 1_000).try_for_each(|key| map.put(tx, key, order(key)).map(drop))
        };
        store.transact(many).unwrap();
    }
}

/// With all of it in a checkpoint.
fn filled(path: &Path) -> (Store, DurableMap<u64, Order>) {
    let (store, map) = open(path);
    put_all(&store, &map);
    store.checkpoint().unwrap();
    (store, map)
}

#[test]
fn a_store_that_is_dropped_puts_little_off() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path());
    look_while_it_is_freed(1, move || drop((map, store)));

    // What the threads of the store have read.
    let (store, map) = open(dir.path());
    map.warm().unwrap();
    look_while_it_is_freed(1, move || drop((map, store)));
}

#[test]
fn what_a_boot_has_loaded_puts_little_off_when_it_is_replaced() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let (store, map) = open(dir.path());
    // By a thread of the store, and not by this one.
    let begin = Instant::now();
    while store.regions().iter().any(|region| region.cold > 0) {
        assert!(begin.elapsed() < LIMIT, "it is not warmed");
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = put_off();
    let mut most = before;
    for key in 0..ENTRIES {
        store.transact(|tx| map.put(tx, key, order(key))).unwrap();
        if key % 1_000 == 0 {
            most = most.max(put_off());
        }
    }
    assert!(most < before + PUT_OFF_MAX, "{before} bytes before, {most} put off");
}

#[test]
fn what_a_view_alone_saw_puts_little_off() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path());
    let change = || store.transact(|tx| map.put(tx, 0, order(0))).unwrap();
    for held in [true, false] {
        store.transact(|tx| map.clear(tx)).unwrap();
        change();
        // Where an older one is held, each value has to be asked whether that sees it.
        let older = held.then(|| store.view());
        put_all(&store, &map);
        let view = store.view();
        put_all(&store, &map);
        look_while_it_is_freed(7, || {
            drop(view);
            change();
        });
        drop(older);
    }
}
