//! P3, P7: the power goes at every call of a workload, and again at every call of the recovery.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

#[path = "common/sim.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a model in memory, for tests"
)]
mod sim;

use std::collections::BTreeMap;

use rocstate::{Durability, DurableMap, Error, Generation, Store};
use sim::{Dice, SimDisk};

const DIR: &str = "/store";

type Content = (BTreeMap<u32, String>, BTreeMap<String, u64>);

/// What a workload has done so far: the state after each commit, and what was promised.
#[derive(Clone, Default)]
struct Done {
    states: Vec<Content>,
    /// The last commit that must survive the loss of power.
    promised: u64,
    generation: Option<Generation>,
}

/// Process commits are synced soon, or not before the segment ends.
fn open(disk: &SimDisk, patient: bool) -> Result<Store, Error> {
    Store::options()
        .storage(disk.clone())
        .segment_bytes(64 << 10)
        .keep_checkpoints(2)
        .sync_interval(std::time::Duration::from_millis(if patient { 10_000 } else { 1 }))
        .open(DIR)
}

fn content(store: &Store) -> Result<Content, Error> {
    let a: DurableMap<u32, String> = store.durable_map("a")?;
    let b: DurableMap<String, u64> = store.durable_map("b")?;
    let view = store.view();
    let a = a.iter(&view).map(|e| e.map(|(k, v)| (*k, v.clone()))).collect::<Result<_, _>>()?;
    let b = b.iter(&view).map(|e| e.map(|(k, v)| (k.clone(), *v))).collect::<Result<_, _>>()?;
    Ok((a, b))
}

/// Commits, checkpoints and reopens until something fails; `done` knows what was promised.
fn work(
    disk: &SimDisk,
    dice: &mut Dice,
    steps: usize,
    patient: bool,
    done: &mut Done,
) -> Result<(), Error> {
    if done.states.is_empty() {
        done.states.push(Content::default());
    }
    let mut store = open(disk, patient)?;
    for _ in 0..steps {
        let a: DurableMap<u32, String> = store.durable_map("a")?;
        let b: DurableMap<String, u64> = store.durable_map("b")?;
        match dice.below(if patient { 60 } else { 14 }) {
            0 => {
                store.checkpoint()?;
            }
            1 => {
                drop((a, b));
                drop(store);
                store = open(disk, patient)?;
            }
            2 => {
                let lsn = store.sync()?;
                done.promised = done.promised.max(lsn.get());
            }
            step => {
                let mut next = done.states.last().unwrap().clone();
                let mut tx = store.begin();
                for _ in 0..=dice.below(4) {
                    let key = dice.below(40) as u32;
                    match dice.below(6) {
                        0 => {
                            a.remove(&mut tx, &key)?;
                            next.0.remove(&key);
                        }
                        1 => {
                            let name = format!("k{}", key % 7);
                            b.upsert(&mut tx, name.clone(), || 0, |n| *n += u64::from(key))?;
                            *next.1.entry(name).or_default() += u64::from(key);
                        }
                        _ => {
                            // Now and then a value that spans blocks.
                            let len = if dice.below(9) == 0 { 9_000 } else { dice.below(300) };
                            let text = "x".repeat(len);
                            a.insert(&mut tx, key, text.clone())?;
                            next.0.insert(key, text);
                        }
                    }
                }
                if step == 3 {
                    a.clear(&mut tx)?;
                    next.0.clear();
                }
                if next == *done.states.last().unwrap() {
                    // It may still have written the same values, or nothing at all.
                    b.insert(&mut tx, "touched".into(), done.states.len() as u64)?;
                    next.1.insert("touched".into(), done.states.len() as u64);
                }
                let durability = if step < 8 { Durability::Machine } else { Durability::Process };
                done.states.push(next);
                let lsn = tx.commit_with(durability)?;
                assert_eq!(lsn.get() as usize, done.states.len() - 1);
                if durability == Durability::Machine {
                    done.promised = done.promised.max(lsn.get());
                }
            }
        }
    }
    Ok(())
}

/// Boots and compares: exactly the state after a prefix that holds all that was promised.
fn check(disk: &SimDisk, done: &mut Done, what: &str) {
    let store = open(disk, false).unwrap_or_else(|error| panic!("{what}: {error}"));
    let lsn = store.visible_lsn().get();
    assert!(lsn >= done.promised, "{what}: {lsn} of {} promised", done.promised);
    let expected = done.states.get(lsn as usize).unwrap_or_else(|| panic!("{what}: {lsn}"));
    let found = content(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(found == *expected, "{what}: not the state after commit {lsn}");
    // LOCK is written in place, so its sector may be torn; nothing else may need healing.
    let mut healed = store.boot_report().healed.iter();
    assert!(healed.all(|what| what.starts_with("LOCK was")), "{what}: {:?}", store.boot_report());
    let generation = store.generation();
    assert!(done.generation.is_none_or(|last| last < generation), "{what}: {generation}");
    done.generation = Some(generation);
    // What this boot serves is durable: nothing of it may go any more.
    done.promised = lsn;
    done.states.truncate(lsn as usize + 1);
}

/// Every fourth workload is long enough to fill segments.
fn steps(workload: u64) -> usize {
    if workload.is_multiple_of(4) { 260 } else { 24 }
}

/// One workload with a crash at `call`, an image by `seed`, a second crash in the recovery, and a
/// third boot.
fn crash(workload: u64, call: u64, seed: u64) -> bool {
    let what = format!("workload {workload}, crash at call {call}, image {seed}");
    let disk = SimDisk::default();
    let mut done = Done::default();
    disk.crash_at(call);
    let outcome = work(&disk, &mut Dice(workload), steps(workload), workload % 8 >= 4, &mut done);
    let mut dice = Dice(seed ^ call << 20);
    if outcome.is_ok() && call < u64::MAX {
        return false;
    }
    let after = disk.image(&mut dice);
    // The recovery dies as well.
    let second = after.image(&mut dice);
    second.crash_at(dice.below(110) as u64);
    let died = open(&second, false).err();
    if let Some(error) = died {
        let honest = error.to_string().contains("the power is gone");
        assert!(honest, "{what}, second crash: {error}");
        let third = second.image(&mut dice);
        check(&third, &mut done.clone(), &format!("{what}, after a second crash"));
    }
    check(&after, &mut done, &what);
    check(&after.image(&mut dice), &mut done, &format!("{what}, third boot"));
    true
}

#[test]
fn the_power_goes_at_every_call_and_again_in_the_recovery() {
    let workloads: u64 =
        std::env::var("ROCSTATE_WORKLOADS").ok().and_then(|n| n.parse().ok()).unwrap_or(6);
    let mut images = 0;
    for workload in 1..=workloads {
        let mut call = 1;
        loop {
            let mut any = false;
            for seed in 0..3 {
                any |= crash(workload, call, seed);
                images += 1;
            }
            if !any {
                break;
            }
            call += 1 + call / if steps(workload) > 24 { 25 } else { 60 };
        }
    }
    println!("{images} images");
}

/// The harness can see: without syncs, promises are broken somewhere.
#[test]
fn a_disk_that_lies_about_syncs_is_caught() {
    for (sync, sync_dir) in [(true, false), (false, true)] {
        let caught = (0..400u64).any(|seed| {
            let outcome = std::panic::catch_unwind(|| {
                let disk = SimDisk::default();
                disk.lie(sync, sync_dir);
                let mut done = Done::default();
                work(&disk, &mut Dice(seed), 24, false, &mut done).unwrap();
                check(&disk.image(&mut Dice(seed)), &mut done, "a lying disk");
            });
            outcome.is_err()
        });
        assert!(caught, "nobody noticed: sync {sync}, directory {sync_dir}");
    }
}
