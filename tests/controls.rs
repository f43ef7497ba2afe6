//! The tests can see: whatever step of the engine is left out, one of them fails. A step that nobody
//! misses fails this one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod damage;
    pub mod failing;
    pub mod promise;
    pub mod script;
}

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::damage::{busy, shapes};
use common::failing::every_call;
use common::promise::{crash, kill};
use common::script::{self, Model, Op, random_script};
use rocstate::control::{ALL, Step, without};
use rocstate::sim::{CrashTest, SimDisk};

type Suite = fn() -> Result<(), String>;

const SUITES: [(&str, Suite); 7] = [
    ("crashes", crashes),
    ("kills", kills),
    ("generations", generations),
    ("the newest segment", loss_of_the_newest_segment),
    ("failing calls", failing_calls),
    ("damage", damage),
    ("long crashes", long_crashes),
];

/// Scripts that reach what can be left out, the shortest first.
fn crashes() -> Result<(), String> {
    use Op::{
        Beside, Big, Both, Checkpoint, Clear, Create, Fallback, Fill, Put, PutProcess, Remove,
        RemoveRegion, Reopen, Rot, Scatter, Sync, Tend,
    };
    let scripts: &[&[Op]] = &[
        &[Put, Both, Put],
        &[PutProcess, Put, PutProcess, Sync],
        &[Put, Reopen, PutProcess, Reopen, Reopen, Put],
        &[Big, PutProcess, Big, PutProcess, Put, Tend],
        &[Big, Big, Big, Big],
        &[Put, Checkpoint, Both, Remove, Checkpoint, Put, Checkpoint, Reopen],
        &[Put, Checkpoint, Clear, Checkpoint, RemoveRegion, Checkpoint, Create, Reopen, Create],
        &[Create, RemoveRegion, Checkpoint, Reopen, Create, Put, Checkpoint, Reopen],
        &[Put, Checkpoint, Put, Checkpoint, Fallback, Put, Checkpoint, Reopen, Put],
        &[Put, Checkpoint, Reopen, Reopen, Reopen, Put],
        // The witness begins a segment, behind which the checkpoint continues.
        &[Fill, Fill, Clear, Clear, Clear, Put, Put, Tend, Checkpoint, Reopen],
        &[Put, Checkpoint, Put, Reopen, Put, Checkpoint, Fallback, Put],
        &[Fill, Checkpoint, Put, Remove, Checkpoint, Remove, Checkpoint, Fill, Checkpoint, Put],
        &[
            Fill, Checkpoint, Scatter, Checkpoint, Scatter, Checkpoint, Scatter, Checkpoint,
            Scatter, Checkpoint, Scatter, Checkpoint,
        ],
        &[
            Fill, Checkpoint, Scatter, Checkpoint, Rot, Beside, Checkpoint, Beside, Checkpoint,
            Reopen,
        ],
    ];
    for (seed, script) in (0u64..).zip(scripts) {
        crash(&mut CrashTest::new(seed), script, false)
            .map_err(|failure| format!("{script:?}: {failure}"))?;
    }
    Ok(())
}

fn long_crashes() -> Result<(), String> {
    (0..6).try_for_each(|seed| {
        let script = random_script(seed, 30);
        crash(&mut CrashTest::new(seed), &script, false)
            .map_err(|failure| format!("{script:?}: {failure}"))
    })
}

/// A commit that is not synced, in a segment that has no name yet.
fn kills() -> Result<(), String> {
    kill(&[Op::BigProcess, Op::BigProcess, Op::PutProcess], 1)
}

/// Two boots of the same disk are two generations.
fn generations() -> Result<(), String> {
    let disk = SimDisk::new(1);
    let model = RefCell::new(Model::new());
    script::run(&disk, &[Op::Put], &model, &|_| {}).map_err(|error| error.to_string())?;
    let boot = |disk: SimDisk| {
        let store = script::options(&disk).open(script::DIR).map_err(|error| error.to_string())?;
        Ok::<_, String>(store.generation())
    };
    // The twin draws other numbers from its machine.
    let (one, twin) = (boot(disk.power_loss(1))?, boot(disk.power_loss(2))?);
    if one == twin { Err(format!("{one} is the generation of two stores")) } else { Ok(()) }
}

/// From the moment at which a synced commit returns, nobody can lose the newest segment in silence,
/// whatever a power loss left of LOCK.
fn loss_of_the_newest_segment() -> Result<(), String> {
    for script in [&[Op::Put, Op::Put] as &[Op], &[Op::Big, Op::Big, Op::Put]] {
        let disk = SimDisk::new(3);
        let model = RefCell::new(Model::new());
        script::run(&disk, script, &model, &|_| {}).map_err(|error| error.to_string())?;
        for seed in 0..20 {
            let after = disk.power_loss(seed);
            let newest = script::segments(&after).pop().ok_or("there is no segment")?;
            after.take_away(&newest);
            if script::options(&after).open(script::DIR).is_ok() {
                return Err(format!("{} is gone, and nobody noticed", newest.display()));
            }
        }
    }
    Ok(())
}

fn failing_calls() -> Result<(), String> {
    use Op::{Big, Checkpoint, Fill, Put, PutProcess, Reopen, Sync};
    every_call(5, &[Put, PutProcess, Sync, Reopen, Put], 1)?;
    every_call(6, &[Fill, Checkpoint, Put, Reopen, Put, Checkpoint, Put, Reopen], 1)?;
    every_call(7, &[Put, Big, Big, PutProcess, Put], 3).map(drop)
}

fn damage() -> Result<(), String> {
    let disk = busy();
    disk.zero_sectors()?;
    for subject in shapes() {
        subject.zero_sectors()?;
        subject.move_files()?;
        subject.flip_bits(61, 40_009)?;
        subject.misdirect_blocks(97)?;
    }
    Ok(())
}

/// Which suite is asked first, since it is known to miss the step: the others take long to say nothing.
fn asked_first(step: Step) -> &'static str {
    match step {
        Step::BegunIsRead | Step::BegunStaysUntilSealed => "kills",
        Step::FreshNonce => "generations",
        Step::LockWrite | Step::NewestIsThere => "the newest segment",
        Step::UnclaimedAreCopied
        | Step::FailedReadRefuses
        | Step::FailedSyncPoisons
        | Step::FailedCheckpointPoisons
        | Step::FailedAppendPoisons
        | Step::FailedSyncIsFinal => "failing calls",
        Step::RequestedSync
        | Step::ClaimedIsDamaged
        | Step::FramesClaim
        | Step::CheckpointIdentity
        | Step::Witness
        | Step::EndsSum
        | Step::SegmentLineage
        | Step::SegmentNumber => "damage",
        Step::KeptLogStays => "long crashes",
        _ => "crashes",
    }
}

/// Who catches it, and what they say; a panic in a suite is one way to say it.
fn caught(asked_first: &str) -> Option<(&'static str, String)> {
    let others = SUITES.iter().filter(|(name, _)| *name != asked_first);
    let mut suites = SUITES.iter().filter(|(name, _)| *name == asked_first).chain(others);
    suites.find_map(|(name, suite)| {
        let outcome = catch_unwind(AssertUnwindSafe(suite));
        let said = match outcome {
            Ok(outcome) => outcome.err()?,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?").to_owned()
            }
        };
        Some((*name, said))
    })
}

#[test]
fn where_nothing_is_left_out_nothing_is_caught() {
    assert_eq!(caught("crashes"), None);
}

#[test]
fn every_step_that_is_left_out_is_missed() {
    // What is caught here panics by the hundred; the last word is said below.
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("ROCSTATE_CONTROL").ok();
    let steps: Vec<Step> = ALL
        .iter()
        .copied()
        .filter(|step| only.as_ref().is_none_or(|only| format!("{step:?}") == *only))
        .collect();
    let survivors = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for half in 0..2 {
            let (steps, survivors) = (&steps, &survivors);
            scope.spawn(move || {
                for step in steps.iter().skip(half).step_by(2) {
                    let began = std::time::Instant::now();
                    match without(&[*step], || caught(asked_first(*step))) {
                        Some((suite, said)) => {
                            let said = if steps.len() == 1 {
                                &said
                            } else {
                                said.lines().last().unwrap_or("")
                            };
                            println!("{step:?}: {suite}, {:.1?}: {said}", began.elapsed());
                        }
                        None => survivors.lock().unwrap().push(*step),
                    }
                }
            });
        }
    });
    drop(std::panic::take_hook());
    let survivors = survivors.into_inner().unwrap();
    println!("{} steps were left out, one at a time", steps.len());
    assert!(survivors.is_empty(), "nobody misses {survivors:?}");
}
