//! P9: deltas, merges, removals; what they cost, and that they lose nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::files;
use rocstate::inspect::Inspector;
use rocstate::{Compression, Durability, DurableMap, Store, View};

type Map = DurableMap<u64, Vec<u8>>;
type Model = BTreeMap<u64, Vec<u8>>;

/// Which key an entry of a queue has, and which entries nobody takes.
type KeyOf = fn(u64) -> u64;
type Stays = fn(u64) -> bool;

fn open(path: &Path, compression: Compression) -> (Store, Map) {
    let store = Store::options()
        .compression(compression)
        .durability(Durability::Process)
        .boot_budget(std::time::Duration::from_secs(600))
        .open(path)
        .unwrap();
    let map = store.durable_map("map").unwrap();
    (store, map)
}

fn same(view: &View, map: &Map, model: &Model, what: &str) {
    assert_eq!(map.len(view), model.len(), "{what}");
    let mut expected = model.iter();
    for entry in map.iter(view) {
        let (key, value) = entry.unwrap();
        assert_eq!(Some((key, value)), expected.next(), "{what}");
    }
    assert!(expected.next().is_none(), "{what}");
}

/// A value of some length that tells which write it is of.
fn value(seed: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seed.wrapping_mul(31) >> (at % 8)) as u8).collect()
}

/// A file may get another name or go while it is looked at.
fn bytes_of(path: &Path, prefix: &str) -> u64 {
    let bytes = |file: PathBuf| match file.metadata() {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => 0,
        data => data.unwrap().len(),
    };
    files(path, prefix).into_iter().map(bytes).sum()
}

/// Of how many pieces the base of the first region consists.
fn pieces_of(path: &Path) -> usize {
    let inspector = Inspector::open(path).unwrap();
    let newest = *inspector.checkpoints().last().unwrap();
    let catalog = inspector.checkpoint(newest).unwrap().catalog().unwrap();
    catalog.regions.values().next().unwrap().pieces.len()
}

/// `hot` says which part of the keys gets nine changes of ten: the last so-many-th.
fn churn(entries: u64, len: usize, rounds: u64, hot: u64, compression: Compression) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut map) = open(dir.path(), compression);
    let mut model = Model::new();
    let mut dice = 88_172_645_463_325_252u64;
    let mut roll = move || {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice
    };
    store
        .transact(|tx| {
            for key in 0..entries {
                map.insert(tx, key * 3, value(key, len))?;
                model.insert(key * 3, value(key, len));
            }
            Ok(())
        })
        .unwrap();
    store.checkpoint().unwrap();
    let base = bytes_of(dir.path(), "checkpoint-");
    let mut written = 0;
    for round in 0..rounds {
        let held = (store.view(), model.clone());
        store
            .transact(|tx| {
                for _ in 0..entries / 100 {
                    let cold = roll() % 10 == 0;
                    let part = if cold { entries * 3 } else { entries * 3 / hot };
                    let key = entries * 3 - 1 - roll() % part;
                    if roll() % 3 == 0 {
                        map.remove(tx, &key)?;
                        model.remove(&key);
                    } else {
                        let value = value(round * 1000 + key, len);
                        map.insert(tx, key, value.clone())?;
                        model.insert(key, value);
                    }
                }
                Ok(())
            })
            .unwrap();
        store.checkpoint().unwrap();
        written += files(dir.path(), "checkpoint-").pop().unwrap().metadata().unwrap().len();
        same(&store.view(), &map, &model, &format!("after checkpoint {round}"));
        same(&held.0, &map, &held.1, &format!("a view from before checkpoint {round}"));
        if round % 4 == 3 {
            drop((store, map, held));
            (store, map) = open(dir.path(), compression);
            same(&store.view(), &map, &model, &format!("reopened after {round}"));
        }
    }
    let changed = rounds * (entries / 100) * (len as u64 + 10);
    let amplification = written as f64 / changed as f64;
    let disk = bytes_of(dir.path(), "checkpoint-");
    println!("{entries} entries: amplification {amplification:.1}, disk {disk} of {base}");
    assert!(amplification < 6.0, "{amplification}");
    assert!(disk < base * 5 / 2, "{disk} of {base}");
}

#[test]
fn deltas_and_merges_lose_nothing_and_cost_what_changed() {
    churn(20_000, 60, 45, 1, Compression::None);
}

#[test]
fn compressed_sections_come_back() {
    churn(5_000, 60, 20, 1, Compression::Zstd(1));
}

#[test]
fn a_base_of_several_pieces_is_merged_piece_by_piece() {
    churn(45_000, 1_000, 30, 8, Compression::None);
}

/// A region that comes to be in one checkpoint is divided by what it holds then, not by the nothing that it
/// held before.
#[test]
fn a_first_base_has_as_many_pieces_as_a_later_one() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Compression::None);
    let fill = |tx: &mut rocstate::Transaction| {
        (0..30_000).try_for_each(|key| map.put(tx, key, value(key, 1_000)).map(drop))
    };
    store.transact(fill).unwrap();
    store.checkpoint().unwrap();
    let pieces = pieces_of(dir.path());
    assert!((200..=320).contains(&pieces), "{pieces} pieces of thirty megabytes");
}

/// What a hundred checkpoints write for each byte that changed, and what they leave on disk, each
/// time after `change` named the keys that change: one in a hundred.
fn steady_cost(change: impl Fn(u64, &mut dyn FnMut(u64) -> u64) -> Vec<u64>) -> (f64, f64) {
    const ENTRIES: u64 = 20_000;
    const LEN: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Compression::None);
    let fill = |keys: &mut dyn Iterator<Item = u64>, seed: u64| {
        store
            .transact(|tx| {
                for key in keys {
                    map.insert(tx, key, value(seed, LEN))?;
                }
                Ok(())
            })
            .unwrap();
        store.checkpoint().unwrap();
    };
    fill(&mut (0..ENTRIES), 0);
    let fresh = bytes_of(dir.path(), "checkpoint-");
    let mut dice = 88_172_645_463_325_252u64;
    let mut roll = |limit: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % limit
    };
    let (mut written, mut changed) = (0, 0);
    for round in 1..=100 {
        let keys = change(ENTRIES, &mut roll);
        changed += keys.len() as u64 * (8 + LEN as u64);
        fill(&mut keys.into_iter(), round);
        written += files(dir.path(), "checkpoint-").pop().unwrap().metadata().unwrap().len();
    }
    (written as f64 / changed as f64, bytes_of(dir.path(), "checkpoint-") as f64 / fresh as f64)
}

#[test]
fn random_updates_cost_six_times_what_changed_at_most() {
    let (written, disk) = steady_cost(|entries, roll| {
        let mut keys = std::collections::BTreeSet::new();
        while keys.len() < entries as usize / 100 {
            keys.insert(roll(entries));
        }
        keys.into_iter().collect()
    });
    println!("written {written:.2} for each byte changed, {disk:.2} of a fresh copy on disk");
    assert!(written < 6.0, "{written}");
    assert!(disk < 1.7, "{disk}");
}

#[test]
fn clustered_updates_cost_little_more_than_what_changed() {
    let (written, disk) = steady_cost(|entries, roll| {
        let first = roll(entries - entries / 100);
        (first..first + entries / 100).collect()
    });
    println!("written {written:.2} for each byte changed, {disk:.2} of a fresh copy on disk");
    // In a store this small a hundredth is a block and a half, which is the least that is written.
    assert!(written < 4.0, "{written}");
    assert!(disk < 1.6, "{disk}");
}

/// What comes and goes in turn: of a window of entries so many are replaced before each checkpoint, those that came
/// first by new ones. Returns what is written for each byte that changed, what is left on disk of a fresh copy, and
/// the pieces of the base.
fn cost_of_a_queue(len: usize, turnover: u64, key: KeyOf, stays: Stays) -> (f64, f64, usize) {
    const WINDOW: u64 = 10_000;
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Compression::None);
    let mut model = Model::new();
    let mut step = |came: std::ops::Range<u64>| {
        store
            .transact(|tx| {
                for at in came.clone() {
                    map.insert(tx, key(at), value(at, len))?;
                    model.insert(key(at), value(at, len));
                    if let Some(oldest) = at.checked_sub(WINDOW).filter(|oldest| !stays(*oldest)) {
                        map.remove(tx, &key(oldest))?;
                        model.remove(&key(oldest));
                    }
                }
                Ok(())
            })
            .unwrap();
        store.checkpoint().unwrap();
    };
    step(0..WINDOW);
    let (mut written, mut end) = (0, WINDOW);
    for _ in 0..200 {
        let count = WINDOW / turnover;
        step(end..end + count);
        end += count;
        written += files(dir.path(), "checkpoint-").pop().unwrap().metadata().unwrap().len();
    }
    let changed = (end - WINDOW) * (len as u64 + 8 + 8);
    let bytes = bytes_of(dir.path(), "checkpoint-");
    drop((store, map));
    let (store, map) = open(dir.path(), Compression::None);
    same(&store.view(), &map, &model, "a queue");
    let pieces = pieces_of(dir.path());
    let fresh = model.len() as u64 * (len as u64 + 11);
    let (written, disk) = (written as f64 / changed as f64, bytes as f64 / fresh as f64);
    println!(
        "written {written:.2} for each byte changed, {disk:.2} of a fresh copy on disk, {pieces} pieces"
    );
    (written, disk, pieces)
}

/// Where new entries come behind all others nothing is written over what dies but tombstones.
#[test]
fn a_queue_leaves_no_garbage() {
    // Keys that ascend; some of which stay for good; and that are as good as random.
    let spread = |at: u64| at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let kinds: [(KeyOf, Stays); 3] =
        [(|at| at, |_| false), (|at| at, |at| at % 500 == 0), (spread, |_| false)];
    // Where all is replaced each time two checkpoints have nothing in common, and what stays holds the file that it
    // came with for one checkpoint more.
    for (len, turnover, on_disk) in [(100, 100, 1.9), (400, 10, 2.2), (100, 1, 3.0)] {
        std::thread::scope(|scope| {
            for (key, stays) in kinds {
                scope.spawn(move || {
                    let (written, disk, pieces) = cost_of_a_queue(len, turnover, key, stays);
                    assert!(written < 6.0, "{written}");
                    assert!(disk < on_disk, "{disk}");
                    assert!(pieces < 320, "{pieces}");
                });
            }
        });
    }
}

#[test]
fn overwriting_one_key_and_clearing_leave_no_garbage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Compression::None);
    let idle: Map = store.durable_map("idle").unwrap();
    store.transact(|tx| idle.insert(tx, 1, vec![1])).unwrap();
    for round in 0..20u64 {
        for n in 0..500u64 {
            store.transact(|tx| map.insert(tx, 7, value(n, 100))).unwrap();
        }
        store
            .transact(|tx| {
                map.clear(tx)?;
                for n in 0..200 {
                    map.insert(tx, n, value(round, 100))?;
                }
                Ok(())
            })
            .unwrap();
        store.checkpoint().unwrap();
    }
    assert!(bytes_of(dir.path(), "checkpoint-") < 300_000);
    assert!(files(dir.path(), "log-").len() <= 3, "{:?}", files(dir.path(), "log-"));
    // A region that is removed holds nothing back either.
    assert!(store.remove_region("map").unwrap());
    for n in 0..4 {
        store.transact(|tx| idle.insert(tx, n, vec![2])).unwrap();
        store.checkpoint().unwrap();
    }
    assert!(bytes_of(dir.path(), "checkpoint-") < 10_000);
}

#[test]
fn a_million_overwrites_of_one_key_leave_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(Durability::Process).open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    let mut most = 0;
    for batch in 0..1_000u64 {
        store
            .transact(|tx| {
                for n in 0..1_000 {
                    map.insert(tx, 7, (batch * 1_000 + n).to_le_bytes().to_vec())?;
                }
                Ok(())
            })
            .unwrap();
        if batch % 50 == 0 {
            most = most.max(bytes_of(dir.path(), ""));
        }
    }
    // Checkpoints came by themselves, and the log went with them: 40 MB were written.
    assert!(store.stats().checkpoints_taken > 0);
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    assert!(bytes_of(dir.path(), "checkpoint-") < 5_000);
    let slack = 5 * (16 << 20);
    assert!(most < slack, "{most} bytes on disk at one time");
    drop((store, map));
    let (store, map) = open(dir.path(), Compression::None);
    assert_eq!(map.get(&store.view(), &7).unwrap(), Some(&999_999u64.to_le_bytes().to_vec()));
}

#[test]
fn what_is_removed_goes_from_the_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Compression::None);
    store
        .transact(|tx| {
            (0..20_000).try_for_each(|key| map.insert(tx, key, value(key, 100)).map(drop))
        })
        .unwrap();
    store.checkpoint().unwrap();
    let full = bytes_of(dir.path(), "checkpoint-");
    // Nineteen of twenty, here and there: a tombstone is a tenth of what it hides.
    for part in 0..4 {
        store
            .transact(|tx| map.retain(tx, part * 5_000..(part + 1) * 5_000, |key, _| key % 20 == 0))
            .unwrap();
        store.checkpoint().unwrap();
    }
    for key in 0..4 {
        store.transact(|tx| map.insert(tx, key, value(key, 100))).unwrap();
        store.checkpoint().unwrap();
    }
    let left = bytes_of(dir.path(), "checkpoint-");
    println!("{left} of {full} bytes are left");
    assert!(left < full / 6, "{left} of {full}");
    assert_eq!(map.len(&store.view()), 1_003);
}

#[test]
fn idle_regions_hold_back_neither_the_log_nor_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = open(dir.path(), Compression::None);
    let idle: Vec<Map> =
        (0..300).map(|n| store.durable_map(&format!("idle {n}")).unwrap()).collect();
    store
        .transact(|tx| idle.iter().try_for_each(|map| map.insert(tx, 1, value(1, 50)).map(drop)))
        .unwrap();
    store.checkpoint().unwrap();
    let catalog = bytes_of(dir.path(), "checkpoint-");
    // Regions that come and go, one that is filled and cleared, one that is overwritten.
    for round in 0..40u64 {
        let name = format!("passing {round}");
        let passing: Map = store.durable_map(&name).unwrap();
        store
            .transact(|tx| {
                (0..200)
                    .try_for_each(|key| passing.insert(tx, key, value(round, 100)).map(drop))?;
                map.clear(tx)?;
                (0..200).try_for_each(|key| map.insert(tx, key, value(round, 100)).map(drop))
            })
            .unwrap();
        if round % 2 == 0 {
            store.checkpoint().unwrap();
        }
        assert!(store.remove_region(&name).unwrap());
        store.checkpoint().unwrap();
    }
    assert!(files(dir.path(), "log-").len() <= 3, "{:?}", files(dir.path(), "log-"));
    let checkpoints = files(dir.path(), "checkpoint-");
    assert!(checkpoints.len() <= 4, "{checkpoints:?}");
    // Each of the kept ones has its catalog; the entries of the idle regions are there once.
    let bytes = bytes_of(dir.path(), "checkpoint-");
    assert!(bytes < catalog * 4 + 200_000, "{bytes} bytes, and {catalog} at first");
    drop((store, map, idle));
    let (store, map) = open(dir.path(), Compression::None);
    assert_eq!(map.len(&store.view()), 200);
    assert_eq!(store.regions().iter().map(|region| region.len).sum::<usize>(), 500);
}
