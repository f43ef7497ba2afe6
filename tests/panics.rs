//! Code of the program that panics inside the store: destructors of values, wakers, callbacks. It costs what it was
//! about, no commit, and no thread of the store. And misuse that panics.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use common::followed::{follow, open};
use common::fuse::{FUSE, burn};
use common::{FaultyDisk, eventually, within};
use rocstate::{Durability, DurableMap, ErrorKind, Stats, Store, Warming};

/// A value whose destructor may panic.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Fused(u64);

impl Drop for Fused {
    fn drop(&mut self) {
        burn();
    }
}

/// Destructors run while changes are made, committed, rolled back and undone. Wherever one panics, what is seen
/// is what is in the log, and the store goes on.
#[test]
fn a_destructor_that_panics_loses_no_commit() {
    for fuse in 1..400 {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::options().threads(false).open(dir.path()).unwrap();
        let (map, other) = (store.durable_map("map").unwrap(), store.durable_map("other").unwrap());
        let maps: [&DurableMap<u64, Fused>; 2] = [&map, &other];
        let contents = |map: &DurableMap<u64, Fused>, store: &Store| {
            let view = store.view();
            let entries = map.iter(&view).map(|entry| entry.map(|(key, value)| (*key, value.0)));
            entries.collect::<Result<Vec<_>, _>>().unwrap()
        };
        let step = |nth: u64| {
            let mut tx = store.begin();
            for map in maps {
                for key in (nth..nth + 9).map(|key| key % 20).chain([100]) {
                    map.put(&mut tx, key, Fused(nth)).unwrap();
                }
                map.remove(&mut tx, &(nth % 20)).unwrap();
            }
            let undone = catch_unwind(AssertUnwindSafe(|| {
                tx.attempt(|tx| -> Result<(), ()> {
                    for map in maps {
                        map.put(tx, nth % 7, Fused(0)).unwrap();
                    }
                    Err(())
                })
            }));
            if nth.is_multiple_of(3) {
                return false;
            }
            let committed = tx.commit_with(Durability::Process);
            assert!(committed.is_ok() || undone.is_err());
            committed.is_ok()
        };
        let (mut held, mut last) = (Vec::new(), None);
        FUSE.set(fuse);
        for nth in 0..40 {
            let may_panic = FUSE.get() > 0;
            match catch_unwind(AssertUnwindSafe(|| step(nth))) {
                Ok(committed) => last = if committed { Some((100, nth)) } else { last },
                Err(_) => assert!(may_panic, "step {nth}, after {fuse} drops"),
            }
            if nth % 10 == 0 {
                held.push(store.view());
            }
            // The next step might write over what this one broke.
            if may_panic && FUSE.get() == 0 && fuse % 2 == 0 {
                break;
            }
        }
        FUSE.set(0);
        drop(held);
        let seen = maps.map(|map| contents(map, &store));
        assert!(seen.iter().all(|entries| entries.last().copied() == last), "after {fuse} drops");
        drop((map, other, store));
        let store = Store::open(dir.path()).unwrap();
        let again =
            ["map", "other"].map(|name| contents(&store.durable_map(name).unwrap(), &store));
        assert_eq!(again, seen, "after {fuse} drops");
    }
}

/// How many destructors of [`Heavy`] are to panic, on whatever thread.
static HEAVY: AtomicU64 = AtomicU64::new(0);

/// A value whose destructor may panic on threads of the store.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Heavy(u64);

impl Drop for Heavy {
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let armed = name.starts_with("rocstate-") && !std::thread::panicking();
        let left = |left: u64| left.checked_sub(1).filter(|_| armed);
        let fires = HEAVY.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok();
        assert!(!fires, "on purpose");
    }
}

/// Polls once, and leaves a waker.
fn poll<T>(submitted: &mut rocstate::Submitted<T, rocstate::Error>, waker: &Waker) -> bool {
    let mut context = Context::from_waker(waker);
    matches!(std::pin::Pin::new(submitted).poll(&mut context), Poll::Ready(_))
}

/// What the threads of a store do, they still do.
fn threads_are_well(store: &Store) {
    let map: DurableMap<u64, u64> = store.durable_map("health").unwrap();
    let mut tx = store.begin();
    map.put(&mut tx, 1, 1).unwrap();
    let lsn = tx.commit_with(Durability::Process).unwrap();
    eventually("a commit is synced in the background", || store.durable_lsn() >= lsn);
    let lsn = store.submit(|tx| map.put(tx, 2, 2)).lsn().unwrap();
    eventually("a commit is led in the background", || store.visible_lsn() >= lsn);
    let taken = store.stats().checkpoints_taken;
    store.checkpoint().unwrap();
    assert!(store.stats().checkpoints_taken > taken);
}

#[test]
fn destructors_that_panic_on_threads_of_the_store_end_none() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for round in 0..20u64 {
        let name = format!("heavy {round}");
        let map: DurableMap<u64, Heavy> = store.durable_map(&name).unwrap();
        store
            .transact(|tx| (0..50).try_for_each(|key| map.put(tx, key, Heavy(key)).map(drop)))
            .unwrap();
        HEAVY.store(1, Ordering::SeqCst);
        // Nobody waits for it: the log's thread leads it, and lets go of the state before.
        let lsn = store.submit(|tx| tx.remove_region(&name)).lsn().unwrap();
        eventually("the region is gone", || store.visible_lsn() >= lsn);
    }
    HEAVY.store(0, Ordering::SeqCst);
    threads_are_well(&store);
}

/// A waker that panics, or notes that it was called.
struct Alarm(Option<AtomicBool>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.as_ref().expect("on purpose").store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    store.transact(|tx| map.put(tx, 0, 0)).unwrap();
    disk.0.hold_syncs();
    let bad: Waker = Arc::new(Alarm(None)).into();
    let alarm = Arc::new(Alarm(Some(AtomicBool::new(false))));
    let good: Waker = Arc::clone(&alarm).into();
    let mut submitted: Vec<_> =
        (1..20).map(|key| store.submit(|tx| map.put(tx, key, key))).collect();
    for submitted in &mut submitted {
        assert!(!poll(submitted, &bad) && !poll(submitted, &good));
    }
    disk.0.release_syncs();
    eventually("who waits with another waker is woken", || {
        alarm.0.as_ref().unwrap().load(Ordering::SeqCst)
    });
    assert!(submitted.into_iter().all(|submitted| submitted.wait().is_ok()));
    threads_are_well(&store);
}

#[test]
fn a_callback_that_panics_ends_no_thread() {
    let dir = tempfile::tempdir().unwrap();
    let maps = |store: &Store| -> [DurableMap<u64, String>; 4] {
        ["a", "b", "c", "d"].map(|name| store.durable_map(name).unwrap())
    };
    {
        let store = Store::open(dir.path()).unwrap();
        for map in maps(&store) {
            let fill = |tx: &mut _| {
                (0..5_000).try_for_each(|key| map.put(tx, key, "x".repeat(100)).map(drop))
            };
            store.transact(fill).unwrap();
        }
        store.checkpoint().unwrap();
    }
    let store = Store::options().on_warming(|_| panic!("on purpose")).open(dir.path()).unwrap();
    let maps = maps(&store);
    eventually("all regions are warm", || store.regions().iter().all(|region| region.cold == 0));
    assert!(maps.iter().all(|map| map.len(&store.view()) == 5_000));
    threads_are_well(&store);
}

/// Writers wait for checkpoints, so that they would for ever if the thread that takes them was gone.
#[test]
fn a_disk_that_panics_under_a_checkpoint_ends_no_thread() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
    let options = Store::options().boot_budget(Duration::from_millis(20)).storage(disk.clone());
    let fill = move |store: &Store, from: u64, until: &dyn Fn(&Stats) -> bool| {
        let map: DurableMap<u64, String> = store.durable_map("map").unwrap();
        for key in from.. {
            let mut tx = store.begin();
            map.put(&mut tx, key, "x".repeat(1_000)).unwrap();
            tx.commit_with(Durability::Process).unwrap();
            if key % 64 == 0 && until(&store.stats()) {
                return key + 1;
            }
        }
        unreachable!("there are keys enough");
    };
    let path = dir.path().to_owned();
    let keys = within(Duration::from_secs(60), move || {
        let store = options.open(&path).unwrap();
        // A checkpoint reads the log; after a boot nobody else does.
        disk.0.panic.store(true, Ordering::SeqCst);
        disk.0.read.store(1, Ordering::SeqCst);
        let keys = fill(&store, 0, &|stats| stats.checkpoint_error.is_some());
        let taken = store.stats().checkpoints_taken;
        let keys = fill(&store, keys, &|stats| stats.checkpoints_taken > taken + 1);
        assert!(store.stats().checkpoint_error.is_none());
        threads_are_well(&store);
        keys
    });
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, String> = store.durable_map("map").unwrap();
    assert_eq!(map.len(&store.view()) as u64, keys);
}

#[test]
#[should_panic(expected = "already has a transaction open")]
fn a_nested_begin_on_one_thread_panics_and_does_not_hang() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let _tx = store.begin();
    let _nested = store.begin();
}

/// Does something in which panics are expected, and not printed.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = work();
    std::panic::set_hook(hook);
    outcome
}

/// A value of which one cannot be read.
#[derive(Clone, serde::Serialize)]
struct Explosive(u32);
impl<'de> serde::Deserialize<'de> for Explosive {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(from)?;
        assert_ne!(number, 777_777, "it explodes");
        Ok(Explosive(number))
    }
}

#[test]
fn a_value_whose_code_panics_does_not_stop_warming() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, Explosive> = store.durable_map("map").unwrap();
    store
        .transact(|tx| {
            for key in 0..20_000 {
                let number = if key == 10_000 { 777_777 } else { key };
                map.insert(tx, key, Explosive(number))?;
            }
            Ok(())
        })
        .unwrap();
    store.checkpoint().unwrap();
    drop((store, map));
    let store = Store::options().warming(Warming::OnDemand).open(dir.path()).unwrap();
    let map: DurableMap<u32, Explosive> = store.durable_map("map").unwrap();
    let outcome = quietly(|| map.warm());
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(map.get(&store.view(), &1).unwrap().unwrap().0, 1);
    assert_eq!(map.get(&store.view(), &19_999).unwrap().unwrap().0, 19_999);
}

/// A boot reads no value, so it is in nobody's way.
#[test]
fn a_value_whose_code_panics_stops_no_refresh() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let [map, other]: [DurableMap<u32, Explosive>; 2] =
        ["map", "other"].map(|name| store.durable_map(name).unwrap());
    let put = |key, number| {
        store
            .transact(|tx| {
                other.put(tx, key, Explosive(key))?;
                map.put(tx, key, Explosive(number))
            })
            .unwrap();
        store.tend().unwrap();
    };
    put(1, 1);
    let reader = follow(dir.path(), Warming::default());
    let [followed, beside]: [DurableMap<u32, Explosive>; 2] =
        ["map", "other"].map(|name| reader.durable_map(name).unwrap());
    for (key, number) in [(2, 777_777), (3, 3), (4, 4)] {
        put(key, number);
        let lsn = quietly(|| reader.refresh());
        let view = reader.view();
        assert_eq!(lsn.unwrap(), store.visible_lsn());
        assert_eq!(followed.len(&view), key as usize);
        assert_eq!(beside.get(&view, &key).unwrap().unwrap().0, key);
    }
}

thread_local! {
    /// Who is asked for more while a value is read.
    static ASKED: RefCell<Option<Store>> = const { RefCell::new(None) };
}

#[test]
fn a_value_whose_code_asks_the_store_waits_for_nobody() {
    #[derive(Clone, serde::Serialize)]
    struct Curious(u32);
    impl<'de> serde::Deserialize<'de> for Curious {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let number = u32::deserialize(from)?;
            if let Some(store) = ASKED.with_borrow(Clone::clone) {
                let refused = store.refresh().unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Invalid);
                drop(store.begin());
            }
            Ok(Curious(number))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let map: DurableMap<u32, Curious> = store.durable_map("map").unwrap();
    let put = |key| {
        store.transact(|tx| map.put(tx, key, Curious(key))).unwrap();
        store.tend().unwrap();
    };
    put(1);
    let reader = follow(dir.path(), Warming::OnDemand);
    let followed: DurableMap<u32, Curious> = reader.durable_map("map").unwrap();
    put(2);
    within(Duration::from_secs(20), move || {
        ASKED.set(Some(reader.clone()));
        let lsn = quietly(|| reader.refresh()).unwrap();
        ASKED.set(None);
        let view = reader.view();
        assert_eq!((view.lsn(), followed.len(&view)), (lsn, 2));
        assert_eq!(followed.get(&view, &2).unwrap().unwrap().0, 2);
        // The next transaction finds the lock free.
        drop(reader.begin());
    });
}
