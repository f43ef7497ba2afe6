//! P1, P2, P12: a commit waits for no sync but its own, and still for all that comes before it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{FaultyDisk, eventually, within};
use rocstate::{DurableMap, ErrorKind, Result, Store};

const LIMIT: Duration = Duration::from_secs(60);

/// For what must not happen.
const MOMENT: Duration = Duration::from_millis(50);

/// A store with one commit, and its disk.
struct Subject {
    dir: tempfile::TempDir,
    disk: FaultyDisk,
    store: Store,
    map: DurableMap<u64, u64>,
}

impl Subject {
    fn new(in_turns: bool) -> Subject {
        let (dir, disk) = (tempfile::tempdir().unwrap(), FaultyDisk::default());
        disk.0.in_turns.store(in_turns, Ordering::SeqCst);
        let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
        let map = store.durable_map("map").unwrap();
        store.transact(|tx| map.insert(tx, 0, 0)).unwrap();
        Subject { dir, disk, store, map }
    }

    fn syncs(&self) -> u64 {
        self.disk.0.syncs.load(Ordering::SeqCst)
    }

    /// A thread that commits a key.
    fn commit(&self, key: u64) -> JoinHandle<Result<()>> {
        let (store, map) = (self.store.clone(), self.map.clone());
        std::thread::spawn(move || store.transact(|tx| map.insert(tx, key, key)).map(drop))
    }

    /// The same, once its sync has begun.
    fn syncing(&self, key: u64) -> JoinHandle<Result<()>> {
        let before = self.syncs();
        let thread = self.commit(key);
        eventually("a sync begins", || self.syncs() == before + 1);
        thread
    }

    /// The keys that a reader sees.
    fn visible(&self) -> Vec<u64> {
        let view = self.store.view();
        self.map.iter(&view).map(|entry| *entry.unwrap().0).collect()
    }
}

/// Waits until these have succeeded.
fn join(threads: impl IntoIterator<Item = JoinHandle<Result<()>>> + Send + 'static) {
    within(LIMIT, move || {
        for thread in threads {
            thread.join().unwrap().unwrap();
        }
    });
}

fn kind(outcome: JoinHandle<Result<()>>) -> ErrorKind {
    within(LIMIT, move || outcome.join().unwrap().unwrap_err().kind())
}

#[test]
fn a_commit_is_synced_beside_another_one_and_acknowledged_after_it() {
    let subject = Subject::new(false);
    subject.disk.0.hold_next_sync();
    let first = subject.syncing(1);
    let second = subject.syncing(2);
    eventually("the second one is durable", || subject.store.durable_lsn().get() == 3);
    std::thread::sleep(MOMENT);
    assert!(!first.is_finished() && !second.is_finished(), "the first one has no sync yet");
    assert_eq!(subject.visible(), [0]);
    // A third one waits for the room of one of them.
    let (third, before) = (subject.commit(3), subject.syncs());
    std::thread::sleep(MOMENT);
    assert_eq!(subject.syncs(), before, "two at a time");
    subject.disk.0.release_syncs();
    join([first, second, third]);
    assert_eq!(subject.visible(), [0, 1, 2, 3]);
    assert_eq!(subject.store.durable_lsn(), subject.store.visible_lsn());
}

#[test]
fn what_nobody_syncs_waits_for_the_room_of_a_group() {
    let subject = Subject::new(false);
    subject.disk.0.hold_next_sync();
    let first = subject.syncing(1);
    let submitted: Vec<_> = (2..10)
        .map(|key| {
            let mut tx = subject.store.begin();
            subject.map.insert(&mut tx, key, key).unwrap();
            tx.submit_with(rocstate::Durability::Process)
        })
        .collect();
    let writes = subject.disk.0.writes.load(Ordering::SeqCst);
    std::thread::sleep(MOMENT);
    assert_eq!(subject.disk.0.writes.load(Ordering::SeqCst), writes, "they gather");
    // But not beside one who does.
    let last = subject.syncing(10);
    subject.disk.0.release_syncs();
    join([first, last]);
    within(LIMIT, move || {
        for commit in submitted {
            commit.wait().unwrap();
        }
    });
    assert_eq!(subject.visible(), (0..=10).collect::<Vec<_>>());
}

#[test]
fn a_storage_that_has_one_sync_at_a_time_gets_no_more() {
    let subject = Subject::new(true);
    subject.disk.0.hold_next_sync();
    let first = subject.syncing(1);
    let (second, before) = (subject.commit(2), subject.syncs());
    let background = {
        let store = subject.store.clone();
        std::thread::spawn(move || store.sync().map(drop))
    };
    std::thread::sleep(MOMENT);
    assert_eq!(subject.syncs(), before);
    subject.disk.0.release_syncs();
    join([first, second, background]);
    assert_eq!(subject.visible(), [0, 1, 2]);
}

/// Of two that are synced at a time, either may fail first.
#[test]
fn a_sync_that_fails_takes_the_one_beside_it_along() {
    for panics in [false, true] {
        for first_fails in [false, true] {
            let subject = Subject::new(false);
            let faults = &subject.disk.0;
            faults.hold_next_sync();
            let first = subject.syncing(1);
            let fail = || {
                faults.panic.store(panics, Ordering::SeqCst);
                faults.sync.store(1, Ordering::SeqCst);
            };
            if first_fails {
                let second = subject.syncing(2);
                eventually("it is durable", || subject.store.durable_lsn().get() == 3);
                fail();
                faults.release_syncs();
                let failed = within(LIMIT, move || first.join());
                assert_eq!(failed.is_err(), panics);
                assert!(failed.is_err() || failed.unwrap().is_err());
                assert_eq!(kind(second), ErrorKind::Poisoned);
            } else {
                fail();
                let second = subject.commit(2);
                let failed = within(LIMIT, move || second.join());
                assert_eq!(failed.is_err(), panics);
                assert!(failed.is_err() || failed.unwrap().is_err());
                faults.release_syncs();
                assert_eq!(kind(first), ErrorKind::Poisoned);
            }
            assert_eq!(subject.visible(), [0], "nothing more is acknowledged");
            assert_eq!(kind(subject.commit(3)), ErrorKind::Poisoned);
            // What was acknowledged is there again.
            let Subject { dir, store, map, .. } = subject;
            drop((store, map));
            let store = Store::open(dir.path()).unwrap();
            let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
            assert_eq!(map.get(&store.view(), &0).unwrap(), Some(&0));
        }
    }
}
