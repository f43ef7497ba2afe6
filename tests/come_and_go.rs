//! Regions, generations and threads that come and go while others use them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::within;
use fastrand::Rng;
use rocstate::{Durability, DurableMap, ErrorKind, Readable, Store, View, VolatileMap};

const WRITERS: u64 = 4;

const LIMIT: Duration = Duration::from_secs(600);

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

/// So many regions have a balance, under this key.
const ACCOUNTS: u64 = 30;
const BALANCE: u64 = 0;
const OPENED_WITH: u64 = 1_000;

fn balances(accounts: &[DurableMap<u64, u64>], at: &View) -> Vec<u64> {
    accounts.iter().map(|account| *account.get(at, &BALANCE).unwrap().unwrap()).collect()
}

/// Moves something between some regions at a time, and has another region come and go.
fn move_about(store: &Store, accounts: &[DurableMap<u64, u64>], until: Instant, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let guest = format!("guest {seed}");
    while Instant::now() < until {
        let mut tx = store.begin();
        for _ in 0..rng.usize(1..7) {
            let (from, to) = (rng.choice(accounts).unwrap(), rng.choice(accounts).unwrap());
            let amount = rng.u64(..9);
            let taken = from.update(&mut tx, &BALANCE, |sum| {
                let taken = amount.min(*sum);
                *sum -= taken;
                taken
            });
            let taken = taken.unwrap().unwrap();
            to.update(&mut tx, &BALANCE, |sum| *sum += taken).unwrap().unwrap();
        }
        match rng.u8(..20) {
            0 => drop(tx.remove_region(&guest).unwrap()),
            1 => {
                drop(tx);
                let guest: DurableMap<u64, u64> = store.durable_map(&guest).unwrap();
                store.transact(|tx| guest.put(tx, seed, seed)).unwrap();
            }
            2 => drop(tx),
            3 => drop(tx.commit().unwrap()),
            4..8 => drop(tx.submit_with(Durability::Process)),
            _ => drop(tx.commit_with(Durability::Process).unwrap()),
        }
    }
}

/// Whoever holds a view, or none: what is moved is in one place, and stays where a view has seen it.
#[test]
fn what_moves_between_many_regions_is_in_one_place() {
    within(LIMIT, || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let declare = |store: &Store| -> Vec<DurableMap<u64, u64>> {
            let name = |nth| format!("account {nth}");
            (0..ACCOUNTS).map(|nth| store.durable_map(&name(nth)).unwrap()).collect()
        };
        let accounts = declare(&store);
        for account in &accounts {
            store.transact(|tx| account.put(tx, BALANCE, OPENED_WITH)).unwrap();
        }
        let until = Instant::now() + Duration::from_secs(2);
        std::thread::scope(|scope| {
            let (store, accounts) = (&store, accounts.as_slice());
            (0..WRITERS).for_each(|seed| {
                scope.spawn(move || move_about(store, accounts, until, seed));
            });
            scope.spawn(move || {
                let (mut rng, mut held) = (Rng::with_seed(WRITERS), Vec::new());
                while Instant::now() < until {
                    // Now and then nobody looks, and each state goes when the next one comes.
                    std::thread::sleep(Duration::from_micros(rng.u64(..3_000)));
                    let view = store.view();
                    let seen = balances(accounts, &view);
                    assert_eq!(seen.iter().sum::<u64>(), ACCOUNTS * OPENED_WITH);
                    held.push((view, seen));
                    held.retain(|(view, seen)| {
                        assert_eq!(&balances(accounts, view), seen);
                        rng.bool()
                    });
                }
            });
        });
        let last = balances(&accounts, &store.view());
        drop((accounts, store));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(balances(&declare(&store), &store.view()), last);
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
