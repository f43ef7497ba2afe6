//! P6, P9: what a boot leaves on disk is read by the block when it is touched, once, and is the same
//! whenever that is: after checkpoints, merges and the removal of the files that it came from.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use common::cold::{Map, Model, expected, filled, insert, open, same, text};
use common::settings::setting;
use common::{FaultyDisk, files};
use proptest::prelude::*;
use rocstate::{DurableMap, ErrorKind, Store, View, Warming};

const ENTRIES: u32 = 20_000;

#[test]
fn opening_and_a_first_read_read_as_much_of_a_large_store_as_of_a_small_one() {
    let reads = |entries: u32| {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), entries);
        let disk = FaultyDisk::default();
        let options = Store::options().warming(Warming::OnDemand).storage(disk.clone());
        let store = options.open(dir.path()).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        let view = store.view();
        assert_eq!(map.len(&view), entries as usize);
        assert_eq!(map.get(&view, &(entries / 2)).unwrap(), expected(entries).get(&(entries / 2)));
        assert!(store.stats().cold_entries > entries as usize / 2);
        let first = disk.0.reads.load(Ordering::SeqCst);
        // A block in another piece: its index in two levels, its block, and at most the delta's.
        map.get(&view, &(entries / 2 + 200)).unwrap().unwrap();
        let second = disk.0.reads.load(Ordering::SeqCst) - first;
        assert!(second <= 5, "{second} reads for one block");
        first
    };
    let (small, large) = (reads(10_000), reads(100_000));
    // A tail that is ten times as long has a few windows more.
    assert!(large <= small + 6, "{large} reads against {small}");
}

#[test]
fn the_disk_is_told_of_what_will_all_be_read_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 100_000);
    let bytes: u64 =
        files(dir.path(), "checkpoint").iter().map(|file| file.metadata().unwrap().len()).sum();
    let told = |read: &dyn Fn(&Store, &Map)| {
        let disk = FaultyDisk::default();
        let options = Store::options().warming(Warming::OnDemand).storage(disk.clone());
        let store = options.open(dir.path()).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        let before = disk.0.expected_bytes.load(Ordering::SeqCst);
        read(&store, &map);
        disk.0.expected_bytes.load(Ordering::SeqCst) - before
    };
    let touched = told(&|store, map| {
        let view = store.view();
        assert!((0..100_000).step_by(1000).all(|key| map.get(&view, &key).unwrap().is_some()));
    });
    assert_eq!(touched, 0, "single reads say nothing of what else will be read");
    let warmed = told(&|_, map| map.warm().unwrap());
    let scanned = told(&|store, map| assert_eq!(map.iter(&store.view()).count(), 100_000));
    // Of all parts but the first.
    for told in [warmed, scanned] {
        assert!((bytes / 2..bytes).contains(&told), "{told} of {bytes} bytes");
    }
}

#[test]
fn readers_that_touch_the_same_range_at_once_read_it_once() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20_000);
    let count = |readers: usize| {
        let disk = FaultyDisk::default();
        let options = Store::options().warming(Warming::OnDemand).storage(disk.clone());
        let store = options.open(dir.path()).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        let before = disk.0.reads.load(Ordering::SeqCst);
        let barrier = std::sync::Barrier::new(readers);
        std::thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| {
                    let view = store.view();
                    barrier.wait();
                    for key in (0..20_000).step_by(1_000) {
                        assert!(map.get(&view, &key).unwrap().is_some());
                    }
                });
            }
        });
        disk.0.reads.load(Ordering::SeqCst) - before
    };
    assert_eq!(count(1), count(8));
}

/// A number that, where it is decoded, counts the region that it is of.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
struct Nosy(u32);

static ASKED: Mutex<Option<(Store, DurableMap<u32, Nosy>)>> = Mutex::new(None);

impl<'de> serde::Deserialize<'de> for Nosy {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Nosy, D::Error> {
        if let Some((store, map)) = &*ASKED.lock().unwrap() {
            let error = map.iter(&store.view()).find_map(Result::err).unwrap();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        }
        u32::deserialize(from).map(Nosy)
    }
}

#[test]
fn what_is_decoded_does_not_wait_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, Nosy> = store.durable_map("map").unwrap();
    store.transact(|tx| (0..9).try_for_each(|key| map.put(tx, key, Nosy(key)).map(drop))).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let store = Store::options().warming(Warming::OnDemand).open(dir.path()).unwrap();
    let map: DurableMap<u32, Nosy> = store.durable_map("map").unwrap();
    *ASKED.lock().unwrap() = Some((store.clone(), map.clone()));
    assert_eq!(map.get(&store.view(), &7).unwrap(), Some(&Nosy(7)));
    ASKED.lock().unwrap().take();
    assert_eq!(map.iter(&store.view()).filter_map(Result::ok).count(), 9);
}

#[test]
fn a_view_reads_the_same_after_checkpoints_merges_and_a_clear() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), ENTRIES);
    let first_files = files(dir.path(), "checkpoint-");
    let (store, map) = open(dir.path(), Warming::OnDemand);
    let at_boot = store.view();
    let mut model = expected(ENTRIES);
    // Half of it is touched now, the rest only when everything is over.
    assert_eq!(map.range(&at_boot, ..ENTRIES / 2).count(), ENTRIES as usize / 2);
    let mut later = Vec::new();
    for round in 3..43 {
        let keys = (round..ENTRIES).step_by(40);
        model.extend(keys.clone().map(|key| (key, text(key, round))));
        insert(&store, &map, keys, round);
        store.checkpoint().unwrap();
        if round % 10 == 0 {
            later.push((store.view(), model.clone()));
        }
    }
    assert!(first_files.iter().all(|file| !file.exists()), "the files of boot are superseded");
    assert_eq!(store.stats().pinned_bytes, 0, "a view needs no file that is superseded");
    let before_clear = (store.view(), model.clone());
    store.transact(|tx| map.clear(tx)).unwrap();
    insert(&store, &map, 0..10, 9);
    for _ in 0..3 {
        insert(&store, &map, 0..1, 9);
        store.checkpoint().unwrap();
    }
    for (view, model) in later.iter().chain([&before_clear]) {
        same(view, &map, model);
    }
    same(&at_boot, &map, &expected(ENTRIES));
    same(&store.view(), &map, &(0..10).map(|key| (key, text(key, 9))).collect());
}

#[test]
fn cold_ranges_follow_when_their_entries_are_copied_to_other_files() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Warming::OnDemand);
    let busy: Map = store.durable_map("busy").unwrap();
    insert(&store, &map, 0..2_000, 0);
    insert(&store, &busy, 0..ENTRIES, 0);
    store.checkpoint().unwrap();
    drop((store, map, busy));
    let base = files(dir.path(), "checkpoint-").remove(0);
    let (store, map) = open(dir.path(), Warming::OnDemand);
    let busy: Map = store.durable_map("busy").unwrap();
    let view = store.view();
    for round in 1..12 {
        insert(&store, &busy, 0..ENTRIES, round);
        store.checkpoint().unwrap();
    }
    assert!(!base.exists(), "what was live in it lies elsewhere");
    let stats = store.stats();
    assert_eq!(stats.cold_entries, 2_000, "nobody has read the idle region");
    assert_eq!(stats.pinned_bytes, 0, "and yet it needs no old file");
    same(&view, &map, &(0..2_000).map(|key| (key, text(key, 0))).collect());
    assert_eq!(busy.get(&view, &7).unwrap(), Some(&text(7, 0)));
}

#[test]
fn what_is_cleared_stays_on_disk_for_as_long_as_a_view_sees_it() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), 20_000);
    let (store, map) = open(dir.path(), Warming::OnDemand);
    let view = store.view();
    store.transact(|tx| map.clear(tx)).unwrap();
    for n in 0..3 {
        insert(&store, &map, 0..10, n);
        store.checkpoint().unwrap();
    }
    assert!(store.stats().pinned_bytes > 1_000_000, "{}", store.stats().pinned_bytes);
    same(&view, &map, &expected(20_000));
    drop(view);
    assert_eq!(store.stats().pinned_bytes, 0);
}

#[test]
fn a_bad_block_costs_its_own_keys_and_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Warming::OnDemand);
    insert(&store, &map, 0..ENTRIES, 0);
    store.checkpoint().unwrap();
    insert(&store, &map, [0], 0);
    store.checkpoint().unwrap();
    drop((store, map));
    // The first checkpoint holds the base; without the log from the beginning nothing heals it.
    let base = files(dir.path(), "checkpoint-").remove(0);
    let mut bytes = std::fs::read(&base).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&base, bytes).unwrap();
    for log in files(dir.path(), "log-") {
        if std::fs::read(&log).unwrap().len() > 1 << 20 {
            std::fs::remove_file(log).unwrap();
        }
    }
    let (store, map) = open(dir.path(), Warming::OnDemand);
    let view = store.view();
    let bad: Vec<u32> = (0..ENTRIES).filter(|key| map.get(&view, key).is_err()).collect();
    assert!((50..600).contains(&bad.len()), "{} keys are lost", bad.len());
    let error = map.get(&view, &bad[0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!((error.path(), error.region()), (Some(base.as_path()), Some("map")));
    assert!(
        error.offset().is_some_and(|offset| offset <= at as u64 && offset + 20_000 > at as u64)
    );
    let (from, to) = error.keys().unwrap();
    assert_eq!(from, bad[0].to_be_bytes());
    assert_eq!(to, Some(&(bad[bad.len() - 1] + 1).to_be_bytes()[..]));
    // Warming finds the same, and reads all the rest.
    assert_eq!(map.warm().unwrap_err().keys(), error.keys());
    assert_eq!(store.stats().unreadable.len(), 1);
    assert_eq!(store.stats().cold_entries, bad.len());
    // A transaction that needs one of these keys fails and stays as it was; others go on.
    let mut tx = store.begin();
    assert!(map.insert(&mut tx, bad[0], String::new()).is_err());
    map.insert(&mut tx, bad[0] - 1, "good".into()).unwrap();
    tx.commit().unwrap();
    store.checkpoint().unwrap();
    assert_eq!(map.get(&store.view(), &(bad[0] - 1)).unwrap().unwrap(), "good");
}

#[test]
fn readers_writers_checkpoints_and_warming_at_once_agree_with_the_model() {
    const WRITERS: u32 = 3;
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), ENTRIES);
    let mut models: Vec<Model> = (0..WRITERS)
        .map(|own| expected(ENTRIES).into_iter().filter(|(key, _)| key % WRITERS == own).collect())
        .collect();
    for boot in 0..4u32 {
        let (store, map) = open(dir.path(), Warming::OnDemand);
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (store, map, ended) = (&store, &map, &ended);
            scope.spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    store.checkpoint().unwrap();
                }
            });
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(u64::from(boot) * 60));
                map.warm().unwrap();
            });
            let writers: Vec<_> = models
                .iter_mut()
                .zip(0..)
                .map(|(model, own): (&mut Model, u32)| {
                    scope.spawn(move || {
                        let mut dice = u64::from(own + boot * WRITERS + 1) * 0x9e37_79b9;
                        let mut roll = move |limit: u32| {
                            dice ^= dice << 13;
                            dice ^= dice >> 7;
                            dice ^= dice << 17;
                            (dice % u64::from(limit)) as u32
                        };
                        let mut held: Option<(View, Model)> = None;
                        for round in 0..400 {
                            let key = roll(ENTRIES / WRITERS) * WRITERS + own;
                            let view = store.view();
                            assert_eq!(map.get(&view, &key).unwrap(), model.get(&key));
                            let text = text(key, round);
                            store
                                .transact(|tx| match roll(3) {
                                    0 => map.remove(tx, &key).map(|old| {
                                        assert_eq!(old, model.remove(&key));
                                    }),
                                    _ => map.insert(tx, key, text.clone()).map(|old| {
                                        assert_eq!(old, model.insert(key, text));
                                    }),
                                })
                                .unwrap();
                            // A view from a while ago, of which only this writer's keys are known.
                            if round % 100 == 50 {
                                held = Some((store.view(), model.clone()));
                            }
                            if let Some((view, model)) = &held {
                                let key = roll(ENTRIES / WRITERS) * WRITERS + own;
                                assert_eq!(map.get(view, &key).unwrap(), model.get(&key));
                            }
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.join().unwrap();
            }
            ended.store(true, Ordering::Relaxed);
        });
        let all: Model = models.iter().flatten().map(|(key, text)| (*key, text.clone())).collect();
        same(&store.view(), &map, &all);
        drop((store, map));
        let (store, map) = open(dir.path(), Warming::Background);
        same(&store.view(), &map, &all);
        assert!(store.boot_report().healed.is_empty());
        drop((store, map));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert { from: u32, step: u32, count: u32, version: u32 },
    Remove { from: u32, count: u32 },
    Get(u32),
    Scan { from: u32, to: u32, backward: bool },
    View,
    Clear,
    Checkpoint,
    Warm,
    Reopen(u8),
}

const KEYS: u32 = 6_000;

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..KEYS, 1u32..40, 1u32..300, 0u32..1000)
            .prop_map(|(from, step, count, version)| Step::Insert { from, step, count, version }),
        2 => (0..KEYS, 1u32..700).prop_map(|(from, count)| Step::Remove { from, count }),
        4 => (0..KEYS).prop_map(Step::Get),
        2 => (0..KEYS, 0..KEYS, any::<bool>())
            .prop_map(|(from, to, backward)| Step::Scan { from, to, backward }),
        2 => Just(Step::View),
        1 => prop::bool::weighted(0.3).prop_map(|clear| if clear { Step::Clear } else { Step::View }),
        4 => Just(Step::Checkpoint),
        1 => Just(Step::Warm),
        3 => (0u8..6).prop_map(Step::Reopen),
    ]
}

fn scan(at: &View, map: &Map, model: &Model, from: u32, to: u32, backward: bool) {
    let expected: Vec<_> = if from <= to { model.range(from..to).collect() } else { Vec::new() };
    let mut found: Vec<_> = if backward {
        map.range(at, from..to).rev().map(Result::unwrap).collect()
    } else {
        map.range(at, from..to).map(Result::unwrap).collect()
    };
    if backward {
        found.reverse();
    }
    assert_eq!(found, expected);
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut map) = open(dir.path(), Warming::OnDemand);
    let mut model = Model::new();
    let fill = (0..KEYS).step_by(3);
    model.extend(fill.clone().map(|key| (key, text(key, 0))));
    insert(&store, &map, fill, 0);
    store.checkpoint().unwrap();
    let mut views: Vec<(View, Model)> = Vec::new();
    for step in steps {
        match step.clone() {
            Step::Insert { from, step, count, version } => {
                let keys = (from..KEYS).step_by(step as usize).take(count as usize);
                model.extend(keys.clone().map(|key| (key, text(key, version))));
                insert(&store, &map, keys, version);
            }
            Step::Remove { from, count } => {
                let removed =
                    store.transact(|tx| map.retain(tx, from..from + count, |_, _| false)).unwrap();
                let before = model.len();
                model.retain(|key, _| !(from..from + count).contains(key));
                assert_eq!(removed, before - model.len());
            }
            Step::Get(key) => {
                assert_eq!(map.get(&store.view(), &key).unwrap(), model.get(&key));
                if let Some((view, model)) = views.last() {
                    assert_eq!(map.get(view, &key).unwrap(), model.get(&key));
                }
            }
            Step::Scan { from, to, backward } => {
                scan(&store.view(), &map, &model, from, to, backward);
                if let Some((view, model)) = views.first() {
                    scan(view, &map, model, to, from, backward);
                }
            }
            Step::View => views.push((store.view(), model.clone())),
            Step::Clear => {
                store.transact(|tx| map.clear(tx)).unwrap();
                model.clear();
            }
            Step::Checkpoint => {
                store.checkpoint().unwrap();
            }
            Step::Warm => map.warm().unwrap(),
            Step::Reopen(kind) => {
                for (view, model) in views.drain(..).step_by(2) {
                    same(&view, &map, &model);
                }
                drop((store, map));
                let warming = match kind {
                    0 => Warming::Background,
                    1 => Warming::Eager,
                    _ => Warming::OnDemand,
                };
                (store, map) = open(dir.path(), warming);
                assert_eq!(map.len(&store.view()), model.len());
            }
        }
    }
    for (view, model) in &views {
        same(view, &map, model);
    }
    same(&store.view(), &map, &model);
    assert!(store.stats().healed.is_empty());
    drop((store, map));
    let (store, map) = open(dir.path(), Warming::OnDemand);
    same(&store.view(), &map, &model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: setting("ROCSTATE_CASES", 48), ..ProptestConfig::default() })]

    #[test]
    fn cold_is_hot_is_the_model(steps in prop::collection::vec(step(), 1..40)) {
        run(&steps);
    }
}
