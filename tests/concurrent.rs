//! Threads that write, roll back, read and take checkpoints beside each other, against a plain model.
//!
//! Writers compare whatever a transaction reads with a model of their own; readers compare what a view shows
//! with what the model was at its LSN, at once and again when it has been held for a while. Regions come and
//! go, and generations of a volatile one, while others change them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::settings::setting;
use common::within;
use fastrand::Rng;
use rocstate::{
    Durability, DurableMap, ErrorKind, Readable, Store, Transaction, View, VolatileMap,
};

const WRITERS: u64 = 4;
const READERS: u64 = 2;
const LIVES: u64 = 4;
const KEYS: u64 = 3000;

/// A reader holds so many views.
const VIEWS: usize = 20;

const LIMIT: Duration = Duration::from_secs(600);

type Map = DurableMap<u64, String>;
type Model = BTreeMap<u64, String>;

/// What is true after each commit, in the order of LSNs.
#[derive(Default)]
struct Truth {
    /// Changed under the writer lock alone.
    now: Mutex<Model>,
    hashes: Mutex<BTreeMap<u64, u64>>,
}

struct Subject {
    store: Store,
    map: Map,
    cache: VolatileMap<u64, u64>,
}

fn hash<'a>(entries: impl Iterator<Item = (&'a u64, &'a String)>) -> u64 {
    let mut hasher = DefaultHasher::new();
    entries.for_each(|entry| entry.hash(&mut hasher));
    hasher.finish()
}

fn open(path: &std::path::Path) -> Subject {
    // Many segments and checkpoints.
    let options = Store::options().segment_bytes(1 << 20).boot_budget(Duration::from_millis(5));
    let store = options.open(path).unwrap();
    let (map, cache) = (store.durable_map("map").unwrap(), store.volatile_map("cache").unwrap());
    Subject { store, map, cache }
}

/// One change at random, of the store and of the model.
fn change(map: &Map, tx: &mut Transaction, model: &mut Model, rng: &mut Rng) {
    let key = rng.u64(..KEYS);
    let value = "v".repeat(rng.usize(..60)) + &rng.u32(..).to_string();
    match rng.u8(..100) {
        0..30 => {
            assert_eq!(map.insert(tx, key, value.clone()).unwrap(), model.insert(key, value));
        }
        30..45 => {
            let was_there = map.put(tx, key, value.clone()).unwrap();
            assert_eq!(was_there, model.insert(key, value).is_some());
        }
        45..60 => assert_eq!(map.remove(tx, &key).unwrap(), model.remove(&key)),
        60..75 => {
            let told = map.update(tx, &key, |there| there.push('u')).unwrap();
            assert_eq!(told, model.get_mut(&key).map(|there| there.push('u')));
        }
        75..80 => assert_eq!(map.pop_first(tx).unwrap(), model.pop_first()),
        80..85 => {
            let range = key..key + 30;
            let keep = |at: &u64| !at.is_multiple_of(3);
            let removed = map.retain(tx, range.clone(), |at, _| keep(at)).unwrap();
            let before = model.len();
            model.retain(|at, _| !range.contains(at) || keep(at));
            assert_eq!(removed, before - model.len());
        }
        85..95 => {
            let fails = |tx: &mut Transaction| {
                for at in key..key + 5 {
                    map.put(tx, at, "undone".into())?;
                    map.remove(tx, &(at + 1))?;
                }
                map.get(tx, &key)?.map_or(Ok(()), |_| Err(rocstate::Error::abort("undo")))
            };
            assert!(tx.attempt(fails).is_err());
        }
        95..99 => assert_eq!(map.get(tx, &key).unwrap(), model.get(&key)),
        _ => assert_eq!(hash(map.iter(&*tx).map(Result::unwrap)), hash(model.iter())),
    }
    assert_eq!(map.len(tx), model.len());
}

/// How a transaction ends.
fn end(subject: &Subject, truth: &Truth, mut tx: Transaction, model: &Model, rng: &mut Rng) {
    let commit = |tx: &Transaction| {
        let lsn = tx.lsn().next().get();
        truth.hashes.lock().unwrap().insert(lsn, hash(model.iter()));
        truth.now.lock().unwrap().clone_from(model);
    };
    match rng.u8(..100) {
        0..40 => {
            commit(&tx);
            tx.commit_with(Durability::Process).unwrap();
        }
        40..55 => {
            commit(&tx);
            let lsn = tx.commit().unwrap();
            assert!(subject.store.durable_lsn() >= lsn && subject.store.visible_lsn() >= lsn);
        }
        55..65 => {
            commit(&tx);
            let durability = if rng.bool() { Durability::Machine } else { Durability::Process };
            let submitted = tx.submit_with(durability);
            if rng.bool() {
                submitted.wait().unwrap();
            }
        }
        65..85 => drop(tx),
        85..95 => {
            tx.fence(&subject.cache, subject.cache.generation()).ok();
            subject.cache.discard();
            assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Stale);
        }
        _ => {
            let outcome = catch_unwind(AssertUnwindSafe(move || {
                let _ends_here = tx;
                std::panic::resume_unwind(Box::new("on purpose"));
            }));
            assert!(outcome.is_err());
        }
    }
}

fn write(subject: &Subject, truth: &Truth, until: Instant, seed: u64) -> u64 {
    let (mut rng, mut count) = (Rng::with_seed(seed), 0);
    while Instant::now() < until {
        let mut tx = subject.store.begin();
        let mut model = truth.now.lock().unwrap().clone();
        // A commit without an operation has no LSN.
        let (key, value) = (KEYS * 2 + seed, count.to_string());
        assert_eq!(
            subject.map.insert(&mut tx, key, value.clone()).unwrap(),
            model.insert(key, value)
        );
        for _ in 0..rng.usize(..20) {
            change(&subject.map, &mut tx, &mut model, &mut rng);
        }
        end(subject, truth, tx, &model, &mut rng);
        subject.cache.insert(rng.u64(..1000), count);
        count += 1;
    }
    count
}

fn read(subject: &Subject, truth: &Truth, stop: &AtomicBool, seed: u64) -> u64 {
    let (mut rng, mut held, mut count) = (Rng::with_seed(seed), VecDeque::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        let view = subject.store.view();
        held.push_back(view);
        let view = if rng.bool() { held.back() } else { held.front() }.unwrap();
        let expected = truth.hashes.lock().unwrap()[&view.lsn().get()];
        assert_eq!(hash(subject.map.iter(view).map(Result::unwrap)), expected, "{}", view.lsn());
        if held.len() > VIEWS {
            held.remove(rng.usize(..held.len()));
        }
        count += 1;
    }
    count
}

fn live(subject: &Subject, truth: &Truth, time: Duration, seed: u64) -> (u64, u64) {
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let until = Instant::now() + time;
    let transactions = std::thread::scope(|scope| {
        let seeds = |from: u64, count: u64| (from..from + count).map(|nth| seed * 100 + nth);
        for seed in seeds(0, READERS) {
            let (stop, reads) = (&stop, &reads);
            scope.spawn(move || {
                reads.fetch_add(read(subject, truth, stop, seed), Ordering::Relaxed)
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                subject.store.checkpoint().unwrap();
                subject.store.sync().unwrap();
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let writers: Vec<_> = seeds(READERS, WRITERS)
            .map(|seed| scope.spawn(move || write(subject, truth, until, seed)))
            .collect();
        let ended: Vec<_> = writers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().map(Result::unwrap).sum()
    });
    (transactions, reads.load(Ordering::Relaxed))
}

#[test]
fn threads_beside_each_other_see_what_the_model_was() {
    let seconds = setting("ROCSTATE_CONCURRENT", 8);
    let time = Duration::from_secs(seconds) / LIVES as u32;
    within(LIMIT + time * LIVES as u32, move || {
        let dir = tempfile::tempdir().unwrap();
        let truth = Truth::default();
        let seed = u64::from(std::process::id());
        for nth in 0..LIVES {
            let subject = open(dir.path());
            let view = subject.store.view();
            let now = truth.now.lock().unwrap().clone();
            truth.hashes.lock().unwrap().insert(view.lsn().get(), hash(now.iter()));
            // Every other life begins with regions that are read while they are changed.
            if nth % 2 == 0 {
                assert_eq!(hash(subject.map.iter(&view).map(Result::unwrap)), hash(now.iter()));
            }
            let (transactions, views) = live(&subject, &truth, time, seed + nth);
            println!("seed {}: {transactions} transactions, {views} views", seed + nth);
            assert!(transactions > 0 && views > 0);
            subject.store.sync().unwrap();
        }
    });
}

/// Regions by name, with what is in them; one that was only declared is not there.
type Regions = BTreeMap<String, BTreeMap<u64, u64>>;

fn collected(map: &DurableMap<u64, u64>, at: &impl Readable) -> BTreeMap<u64, u64> {
    map.iter(at).map(|entry| entry.map(|(key, value)| (*key, *value)).unwrap()).collect()
}

/// Declares regions, writes to them and removes them, as everybody else does.
fn come_and_go(store: &Store, truth: &Mutex<Regions>, until: Instant, seed: u64) -> u64 {
    let (mut rng, mut removed) = (Rng::with_seed(seed), 0);
    while Instant::now() < until {
        let name = format!("region {}", rng.u8(..3));
        let map: DurableMap<u64, u64> = store.durable_map(&name).unwrap();
        for _ in 0..rng.u8(..5) {
            let mut tx = store.begin();
            let mut model = truth.lock().unwrap().clone();
            let (key, other) = (rng.u64(..100), rng.u64(..100));
            match map.insert(&mut tx, key, seed) {
                // Somebody removed it, and the handle was of that one.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Stale);
                    break;
                }
                Ok(old) => {
                    let entries = model.entry(name.clone()).or_default();
                    assert_eq!(old, entries.insert(key, seed), "{name}");
                    assert_eq!(map.remove(&mut tx, &other).unwrap(), entries.remove(&other));
                    assert_eq!(collected(&map, &tx), *entries, "{name}");
                }
            }
            let goes = rng.u8(..4) == 0;
            if goes {
                assert!(tx.remove_region(&name).unwrap());
                assert_eq!(map.put(&mut tx, 1, 1).unwrap_err().kind(), ErrorKind::Stale);
                model.remove(&name);
            }
            if rng.u8(..4) > 0 {
                truth.lock().unwrap().clone_from(&model);
                tx.commit_with(Durability::Process).unwrap();
                removed += u64::from(goes);
            }
        }
    }
    removed
}

#[test]
fn regions_come_and_go_beside_each_other() {
    within(LIMIT, || {
        let dir = tempfile::tempdir().unwrap();
        let truth = Mutex::default();
        for life in 0..3 {
            let store = Store::options().segment_bytes(1 << 20).open(dir.path()).unwrap();
            let until = Instant::now() + Duration::from_secs(1);
            let removed: u64 = std::thread::scope(|scope| {
                let (store, truth) = (&store, &truth);
                scope.spawn(move || {
                    while Instant::now() < until {
                        store.checkpoint().unwrap();
                    }
                });
                let seeds = (0..WRITERS).map(|nth| life * WRITERS + nth);
                let writers: Vec<_> = seeds
                    .map(|seed| scope.spawn(move || come_and_go(store, truth, until, seed)))
                    .collect();
                writers.into_iter().map(|writer| writer.join().unwrap()).sum()
            });
            println!("{removed} regions were removed");
            assert!(removed > 0);
            drop(store);
            let store = Store::open(dir.path()).unwrap();
            let view = store.view();
            for name in (0..3).map(|nth| format!("region {nth}")) {
                let map: DurableMap<u64, u64> = store.durable_map(&name).unwrap();
                let expected = truth.lock().unwrap().get(&name).cloned().unwrap_or_default();
                assert_eq!(collected(&map, &view), expected, "{name}");
            }
        }
    });
}

/// Changes keys of its own for as long as a generation lasts; returns how many it has seen end.
fn within_generations(cache: &VolatileMap<u64, u64>, until: Instant, nth: u64) -> u64 {
    let (mut rng, mut ended) = (Rng::with_seed(nth), 0);
    while Instant::now() < until {
        let fenced = cache.fenced(cache.generation());
        // Whoever had these keys before had another generation.
        let mut model = BTreeMap::new();
        let outcome: Result<(), rocstate::Error> = (|| {
            while Instant::now() < until {
                let key = rng.u64(..200) * WRITERS + nth;
                match rng.u8(..10) {
                    0..5 => assert_eq!(fenced.insert(key, key)?, model.insert(key, key)),
                    5..8 => assert_eq!(fenced.remove(&key)?, model.remove(&key)),
                    8 => assert_eq!(fenced.get(&key)?, model.get(&key).copied()),
                    _ => {
                        let view = fenced.view()?;
                        let mine = view.iter().filter(|(key, _)| **key % WRITERS == nth);
                        assert!(mine.map(|(key, value)| (*key, *value)).eq(model.clone()));
                    }
                }
            }
            Ok(())
        })();
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Stale);
            ended += 1;
        }
    }
    ended
}

#[test]
fn a_generation_ends_for_all_at_once() {
    within(LIMIT, || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache: VolatileMap<u64, u64> = store.volatile_map("cache").unwrap();
        let until = Instant::now() + Duration::from_secs(2);
        std::thread::scope(|scope| {
            let cache = &cache;
            scope.spawn(move || {
                while Instant::now() < until {
                    let before = cache.generation();
                    assert!(cache.discard() > before);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let writers: Vec<_> = (0..WRITERS)
                .map(|nth| scope.spawn(move || within_generations(cache, until, nth)))
                .collect();
            for writer in writers {
                let ended = writer.join().unwrap();
                println!("{ended} generations");
                assert!(ended > 0);
            }
        });
    });
}

/// Takes a view when its thread ends.
struct Last(Store, mpsc::Sender<View>);

impl Drop for Last {
    fn drop(&mut self) {
        self.1.send(self.0.view()).unwrap();
    }
}

#[test]
fn views_outlive_their_threads_also_those_that_are_taken_as_they_end() {
    const THREADS: u64 = 600;
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Process).open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("numbers").unwrap();
    let (to, views) = mpsc::channel();
    for number in 0..THREADS {
        store.transact(|tx| map.insert(tx, 0, number)).unwrap();
        let (store, to) = (store.clone(), to.clone());
        let thread = std::thread::spawn(move || {
            let last = Some(Last(store.clone(), to.clone()));
            // Whichever of the two the thread ends first.
            let view = if number % 2 == 0 {
                LAST.set(last);
                store.view()
            } else {
                let view = store.view();
                LAST.set(last);
                view
            };
            to.send(view.clone()).unwrap();
            to.send(view).unwrap();
        });
        thread.join().unwrap();
    }
    drop(to);
    let mut seen = vec![0; THREADS as usize];
    for view in views {
        let number = map.get(&view, &0).unwrap().unwrap();
        seen[*number as usize] += 1;
    }
    assert!(seen.iter().all(|times| *times == 3));
}
