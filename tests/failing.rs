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
    pub mod script;
}

use common::failing::every_call;
use common::script::{Op, random_script};

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

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
    for seed in 0..setting("ROCSTATE_WORKLOADS", 4) as u64 {
        let script = random_script(seed + 100, 14);
        println!("{} runs of {script:?}", every_call(seed, &script, 5).unwrap());
    }
}
