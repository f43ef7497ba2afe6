//! P3, P5, P7, P8: the power goes at every call of everything that the engine does, and again at every
//! call of the recovery.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod promise;
    pub mod script;
    pub mod settings;
}

use std::time::Instant;

use common::promise::{crash_or_shorten, kill};
use common::script::{OPS, Op, random_script};
use common::settings::{seeded, setting};
use rocstate::sim::{CrashTest, Summary};

/// Runs scripts on all cores; each has a test of its own, so that a failure is repeated by its number.
fn explore(scripts: &[Vec<Op>], last_only: bool, new: impl Fn(u64) -> CrashTest + Sync) -> Summary {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let total = parking_lot::Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for core in 0..cores {
            let (new, total) = (&new, &total);
            scope.spawn(move || {
                for (seed, script) in (0u64..).zip(scripts).skip(core).step_by(cores) {
                    let mut test = new(seed);
                    if let Err(broken) =
                        crash_or_shorten(&mut test, script, last_only, || new(seed))
                    {
                        panic!("script {seed}, {script:?}: {broken}");
                    }
                    *total.lock() += test.summary();
                }
            });
        }
    });
    let total = *total.lock();
    println!("{} scripts, {total}, {:.0?}", scripts.len(), began.elapsed());
    total
}

/// All scripts of exactly so many steps.
fn all_scripts(len: usize) -> Vec<Vec<Op>> {
    let mut scripts = vec![Vec::new()];
    for _ in 0..len {
        let longer = |script: &Vec<Op>| {
            let script = script.clone();
            OPS.iter().map(move |op| [script.as_slice(), &[*op]].concat())
        };
        scripts = scripts.iter().flat_map(longer).collect();
    }
    scripts
}

/// `ROCSTATE_STEPS=4` makes the whole campaign of it, with a disk's every way while at most twelve
/// things are unstable.
#[test]
fn every_short_script_survives_every_crash() {
    let steps = setting("ROCSTATE_STEPS", 2);
    let ways = if steps > 2 { 4096 } else { 256 };
    let mut images = 0;
    for len in 0..=steps {
        let test = |seed| CrashTest::new(seed).ways(ways);
        images += explore(&all_scripts(len), len > 0, test).images;
    }
    assert!(images > 15_000 || steps < 2, "only {images} images");
}

/// The power goes a second time after every change that each recovery makes.
#[test]
fn every_recovery_survives_a_crash_at_every_call() {
    let count = setting("ROCSTATE_WORKLOADS", 40);
    let mut scripts: Vec<Vec<Op>> =
        (0..count).map(|seed| random_script(seeded(1 << 32 | seed), 12)).collect();
    scripts.extend(all_scripts(1));
    let test = |seed| CrashTest::new(seed).ways(8).recoveries(usize::MAX);
    let images = explore(&scripts, false, test).images;
    assert!(images > 10_000 || count < 40, "only {images} images");
}

/// `ROCSTATE_WORKLOADS` and `ROCSTATE_LENGTH` make a campaign of it: 3 000 of 60 steps are ten million
/// images.
#[test]
fn long_random_scripts_survive_every_crash() {
    let count = setting("ROCSTATE_WORKLOADS", 60);
    let length = setting("ROCSTATE_LENGTH", 24);
    let scripts: Vec<Vec<Op>> =
        (0..count).map(|seed| random_script(seeded(seed), length)).collect();
    let images = explore(&scripts, false, CrashTest::new).images;
    assert!(images > 25_000 || count < 60, "only {images} images");
}

/// P2: what is acknowledged survives any death of the process, synced or not; `ROCSTATE_WORKLOADS` as above.
#[test]
fn a_process_that_is_killed_loses_nothing() {
    let count = setting("ROCSTATE_WORKLOADS", 60);
    let process =
        [Op::BigProcess, Op::BigProcess, Op::PutProcess, Op::BigProcess, Op::Put, Op::BigProcess];
    kill(&process, 1).unwrap();
    for seed in 0..count / 4 {
        kill(&random_script(seeded(seed), 12), 9).unwrap();
    }
}
