//! Threads that write, roll back, read and take checkpoints beside each other, against a plain model.
//!
//! Writers compare whatever a transaction reads with a model of their own; readers compare what a view shows
//! with what the model was at its LSN, at once and again when it has been held for a while.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::settings::setting;
use common::within;
use fastrand::Rng;
use rocstate::{
    Durability, DurableMap, ErrorKind, Key, Readable, Store, Transaction, Value, VolatileMap,
};

const WRITERS: u64 = 4;
const READERS: u64 = 2;
const LIVES: u64 = 4;
const KEYS: u64 = 3000;

/// A reader holds so many views.
const VIEWS: usize = 20;

const LIMIT: Duration = Duration::from_secs(600);

/// What a map has for keys; they ascend with their numbers.
trait Name: Key + Debug + Hash {
    fn of(number: u64) -> Self;
}

impl Name for u64 {
    fn of(number: u64) -> Self {
        number
    }
}

impl Name for String {
    fn of(number: u64) -> Self {
        format!("a key that owns memory, {number:05}")
    }
}

/// What it has for values.
trait Sample: Value + Debug + Hash + PartialEq {
    fn some(rng: &mut Rng) -> Self;
    fn change(&mut self);
}

impl Sample for u64 {
    fn some(rng: &mut Rng) -> Self {
        rng.u64(..)
    }

    fn change(&mut self) {
        *self = !*self;
    }
}

impl Sample for String {
    fn some(rng: &mut Rng) -> Self {
        "v".repeat(rng.usize(..60)) + &rng.u32(..).to_string()
    }

    fn change(&mut self) {
        self.push('u');
    }
}

type Model<K, V> = BTreeMap<K, V>;

/// What is true after each commit, in the order of LSNs.
struct Truth<K, V> {
    /// Changed under the writer lock alone.
    now: Mutex<Model<K, V>>,
    hashes: Mutex<BTreeMap<u64, u64>>,
}

struct Subject<K, V> {
    store: Store,
    map: DurableMap<K, V>,
    cache: VolatileMap<u64, u64>,
}

fn hash<T: Hash>(things: impl Iterator<Item = T>) -> u64 {
    let mut hasher = DefaultHasher::new();
    things.for_each(|thing| thing.hash(&mut hasher));
    hasher.finish()
}

fn open<K: Name, V: Sample>(path: &std::path::Path) -> Subject<K, V> {
    // Many segments and checkpoints.
    let options = Store::options().segment_bytes(1 << 20).boot_budget(Duration::from_millis(5));
    let store = options.open(path).unwrap();
    let (map, cache) = (store.durable_map("map").unwrap(), store.volatile_map("cache").unwrap());
    Subject { store, map, cache }
}

/// One change at random, of the store and of the model.
fn change<K: Name, V: Sample>(
    map: &DurableMap<K, V>,
    tx: &mut Transaction,
    model: &mut Model<K, V>,
    rng: &mut Rng,
) {
    let (number, value) = (rng.u64(..KEYS), V::some(rng));
    let key = K::of(number);
    match rng.u8(..100) {
        0..30 => {
            let old = map.insert(tx, key.clone(), value.clone()).unwrap();
            assert_eq!(old, model.insert(key, value));
        }
        30..45 => {
            let was_there = map.put(tx, key.clone(), value.clone()).unwrap();
            assert_eq!(was_there, model.insert(key, value).is_some());
        }
        45..60 => assert_eq!(map.remove(tx, &key).unwrap(), model.remove(&key)),
        60..75 => {
            let told = map.update(tx, &key, V::change).unwrap();
            assert_eq!(told, model.get_mut(&key).map(V::change));
        }
        75..80 => assert_eq!(map.pop_first(tx).unwrap(), model.pop_first()),
        80..85 => {
            let range = key..K::of(number + 30);
            let keep = |at: &K| !hash([at].iter()).is_multiple_of(3);
            let removed = map.retain(tx, range.clone(), |at, _| keep(at)).unwrap();
            let before = model.len();
            model.retain(|at, _| !range.contains(at) || keep(at));
            assert_eq!(removed, before - model.len());
        }
        85..95 => {
            let fails = |tx: &mut Transaction| {
                for at in number..number + 5 {
                    map.put(tx, K::of(at), value.clone())?;
                    map.remove(tx, &K::of(at + 1))?;
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
fn end<K: Name, V: Sample>(
    subject: &Subject<K, V>,
    truth: &Truth<K, V>,
    mut tx: Transaction,
    model: &Model<K, V>,
    rng: &mut Rng,
) {
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

fn write<K: Name, V: Sample>(
    subject: &Subject<K, V>,
    truth: &Truth<K, V>,
    until: Instant,
    seed: u64,
) -> u64 {
    let (mut rng, mut count) = (Rng::with_seed(seed), 0);
    while Instant::now() < until {
        let mut tx = subject.store.begin();
        let mut model = truth.now.lock().unwrap().clone();
        // A commit without an operation has no LSN.
        let (key, value) = (K::of(KEYS * 2 + seed), V::some(&mut rng));
        let old = subject.map.insert(&mut tx, key.clone(), value.clone()).unwrap();
        assert_eq!(old, model.insert(key, value));
        for _ in 0..rng.usize(..20) {
            change(&subject.map, &mut tx, &mut model, &mut rng);
        }
        end(subject, truth, tx, &model, &mut rng);
        subject.cache.insert(rng.u64(..1000), count);
        count += 1;
    }
    count
}

fn read<K: Name, V: Sample>(
    subject: &Subject<K, V>,
    truth: &Truth<K, V>,
    stop: &AtomicBool,
    seed: u64,
) -> u64 {
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

fn live<K: Name, V: Sample>(
    subject: &Subject<K, V>,
    truth: &Truth<K, V>,
    time: Duration,
    seed: u64,
) -> (u64, u64) {
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

/// What a view shows is what the model was, whatever lies where: some values lie in their leaves, some keys own memory
/// that copies of their leaves share.
fn see_what_the_model_was<K: Name, V: Sample>() {
    let seconds = setting("ROCSTATE_CONCURRENT", 6);
    let time = Duration::from_secs(seconds) / LIVES as u32;
    within(LIMIT + time * LIVES as u32, move || {
        let dir = tempfile::tempdir().unwrap();
        let truth = Truth { now: Mutex::new(Model::<K, V>::new()), hashes: Mutex::default() };
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

#[test]
fn threads_beside_each_other_see_what_the_model_of_texts_was() {
    see_what_the_model_was::<u64, String>();
}

#[test]
fn threads_beside_each_other_see_what_the_model_of_numbers_was() {
    see_what_the_model_was::<u64, u64>();
}

#[test]
fn threads_beside_each_other_see_what_the_model_of_numbers_by_texts_was() {
    see_what_the_model_was::<String, u64>();
}
