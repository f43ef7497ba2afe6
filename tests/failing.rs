//! P10: any call may fail. The store is poisoned or the operation refused, nobody waits for ever, and
//! opening again finds everything that was acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod failing;
    pub mod promise;
    pub mod script;
    pub mod settings;
    pub mod waiting;
}

use std::time::Duration;

use common::failing::{FAULTS, every_call};
use common::script::{DIR, Op, options, random_script};
use common::settings::{seeded, setting};
use common::waiting::within;
use rocstate::sim::{Fault, SimDisk};
use rocstate::{Durability, DurableMap};

const EVERYTHING: [Op; 20] = [
    Op::Put,
    Op::PutProcess,
    Op::Both,
    Op::Checkpoint,
    Op::Create,
    Op::Remove,
    Op::Tend,
    Op::Fill,
    Op::Checkpoint,
    Op::PutProcess,
    Op::Sync,
    Op::Reopen,
    Op::Clear,
    Op::Big,
    Op::Big,
    Op::RemoveRegion,
    Op::Checkpoint,
    Op::PutProcess,
    Op::Reopen,
    Op::Put,
];

#[test]
fn every_call_of_everything_may_fail() {
    let runs = every_call(5, &EVERYTHING, setting("ROCSTATE_CALLS", 3)).unwrap();
    println!("{runs} runs");
}

/// `ROCSTATE_WORKLOADS` makes a campaign of it.
#[test]
fn every_call_of_random_scripts_may_fail() {
    for seed in 0..setting("ROCSTATE_WORKLOADS", 4) {
        let script = random_script(seeded(seed + 100), 14);
        println!("{} runs of {script:?}", every_call(seed, &script, 5).unwrap());
    }
}

/// Four threads and a task commit while a call fails: all of them end, and what was acknowledged to any
/// is there for the next process, and after a power loss.
#[test]
fn nobody_waits_for_ever_for_a_call_that_failed() {
    let step = setting("ROCSTATE_CALLS", 3);
    for fault in FAULTS {
        for after in (1..160).step_by(step) {
            let acknowledged = within(Duration::from_secs(60), move || many_writers(fault, after));
            let (disk, kept) = acknowledged;
            let next = disk.kill();
            for (disk, all) in [(next.power_loss(after), false), (next, true)] {
                let store = options(&disk).open(DIR).unwrap();
                let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
                let view = store.view();
                for (key, durability) in &kept {
                    let promised = all || *durability == Durability::Machine;
                    let there = map.contains_key(&view, key).unwrap();
                    assert!(there || !promised, "{fault:?} after {after} calls: {key} is lost");
                }
            }
        }
    }
}

type Acknowledged = Vec<(u32, Durability)>;

fn many_writers(fault: Fault, after: u64) -> (SimDisk, Acknowledged) {
    let disk = SimDisk::new(after);
    let store = options(&disk).threads(true).open(DIR).unwrap();
    disk.inject(disk.calls() + after, fault);
    let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
    let write = &|thread: u32| {
        let mut acknowledged = Acknowledged::new();
        for n in 0..40 {
            let key = thread * 1000 + n;
            let process = n % 3 == 1;
            let durability = if process { Durability::Process } else { Durability::Machine };
            let mut tx = store.begin();
            if map.insert(&mut tx, key, "x".repeat(3_000)).is_err() {
                break;
            }
            let done = if n % 4 == 2 {
                pollster::block_on(tx.submit_with(durability)).map(drop)
            } else {
                tx.commit_with(durability).map(drop)
            };
            match done {
                Ok(()) => acknowledged.push((key, durability)),
                Err(_) => break,
            }
            if n % 13 == 12 && store.checkpoint().is_err() {
                break;
            }
        }
        acknowledged
    };
    let kept = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || write(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    (disk, kept)
}
