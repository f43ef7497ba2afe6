//! What any boot of a script's disk must find, and the crashes after which it must.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "each test binary uses a part of it, and a test that fails says where"
)]

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::fmt;

use rocstate::sim::{Crash, CrashTest, Failure, Fault, Notes, Outcome, SimDisk};
use rocstate::{DurableMap, Generation, VolatileMap};

use super::script::{DIR, Model, OPS, Op, Promise, Runner, content, digest, options};

/// What a boot came to; the generation is told apart on purpose by nobody but the check.
#[derive(Clone, Copy, Debug)]
pub struct Booted {
    pub lsn: u64,
    digest: u64,
    generation: Generation,
}

impl PartialEq for Booted {
    fn eq(&self, other: &Booted) -> bool {
        (self.lsn, self.digest) == (other.lsn, other.digest)
    }
}

/// What any boot must find: the state after some prefix of the commits, with all that was promised.
pub fn check(
    disk: &SimDisk,
    model: &RefCell<Model>,
    promises: &[Promise],
    before: Option<&Booted>,
) -> Outcome<Booted> {
    let store = options(disk).open(DIR)?;
    let found = Booted {
        lsn: store.visible_lsn().get(),
        digest: digest(&content(&store)?),
        generation: store.generation(),
    };
    let model = model.borrow();
    let kept = before.map(|before| before.lsn).into_iter();
    let kept = kept.chain(promises.iter().filter_map(|promise| match promise {
        Promise::Kept(lsn) => Some(*lsn),
        Promise::Born(_) => None,
    }));
    let kept = kept.max().unwrap_or(0);
    if found.lsn < kept {
        return Err(format!("commit {kept} was acknowledged, and {} is the last", found.lsn).into());
    }
    if !model.is_state(found.lsn, found.digest) {
        return Err(format!("this is not the state after commit {}", found.lsn).into());
    }
    let born = before.map(|before| before.generation).into_iter();
    let mut born = born.chain(promises.iter().filter_map(|promise| match promise {
        Promise::Born(generation) => Some(*generation),
        Promise::Kept(_) => None,
    }));
    if let Some(seen) =
        born.find(|born| born.partial_cmp(&found.generation) != Some(Ordering::Less))
    {
        return Err(format!("{seen} was seen before {}", found.generation).into());
    }
    let volatile: VolatileMap<u32, u32> = store.volatile_map("sessions")?;
    if !volatile.is_empty() {
        return Err("volatile state has survived".into());
    }
    // LOCK is written in place, so its sector may be torn; nothing else may need healing.
    let report = store.boot_report();
    let healed = report.healed.iter().filter(|what| !what.starts_with("LOCK was"));
    if let (false, Some(what)) = (model.damaged, healed.into_iter().next()) {
        return Err(format!("a crash left damage: {what}").into());
    }
    drop(store);
    // Now and then: what was recovered can be built on.
    if disk.fingerprint().is_multiple_of(8) {
        go_on(&disk.snapshot(), &found)?;
    }
    Ok(found)
}

/// Commits, takes a checkpoint that merges, and boots again: all is as it was, and more.
fn go_on(disk: &SimDisk, found: &Booted) -> Outcome<()> {
    let store = options(disk).open(DIR)?;
    let before = content(&store)?;
    let map: DurableMap<u32, String> = store.durable_map("more")?;
    let lsn = store.transact(|tx| map.insert(tx, 1, "more".into()));
    lsn?;
    store.checkpoint()?;
    drop((map, store));
    let store = options(disk).open(DIR)?;
    let mut after = content(&store)?;
    let more = after.remove("more");
    if digest(&before) != found.digest || after != before || more.is_none_or(|more| more.len() != 1)
    {
        return Err("what was recovered is not what is there after a checkpoint".into());
    }
    Ok(())
}

/// What a script was run with, and the shortest part of it that still fails.
pub struct Broken {
    pub script: Vec<Op>,
    pub failure: Failure,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the shortest script that was found to fail is {:?}\n{}",
            self.script, self.failure
        )
    }
}

/// Loses power at every change of a script; with `last_only`, at those of its last step.
pub fn crash(test: &mut CrashTest, script: &[Op], last_only: bool) -> Result<(), Failure> {
    let model = RefCell::new(Model::new());
    let workload = |disk: &SimDisk, notes: &Notes<Promise>| -> Outcome<()> {
        let promise = |promise| notes.note(promise);
        let mut runner = Runner::open(disk, &model, &promise)?;
        for (at, op) in script.iter().enumerate() {
            if last_only && at + 1 == script.len() {
                notes.begin();
            }
            runner.step(*op)?;
        }
        Ok(())
    };
    let check = |disk: &SimDisk, crash: &Crash<'_, Promise, Booted>| {
        check(disk, &model, crash.noted(), crash.before())
    };
    test.run(workload, check).map(drop)
}

/// The same, and a failure as short as dropping steps makes it.
pub fn crash_or_shorten(
    test: &mut CrashTest,
    script: &[Op],
    last_only: bool,
    again: impl Fn() -> CrashTest,
) -> Result<(), Broken> {
    let Err(mut failure) = crash(test, script, last_only) else { return Ok(()) };
    let mut script = script.to_vec();
    'shorter: loop {
        for at in (0..script.len()).rev() {
            let mut shorter = script.clone();
            shorter.remove(at);
            if let Err(still) = crash(&mut again(), &shorter, false) {
                (script, failure) = (shorter, still);
                continue 'shorter;
            }
        }
        return Err(Broken { script, failure });
    }
}

/// Kills the process after every step of a script, and the next one while it boots: whoever boots in the end finds all
/// that was acknowledged, and loses nothing of it with the power. Every `stride`-th call of a boot is tried.
pub fn kill(script: &[Op], stride: usize) -> Result<(), String> {
    let (disk, model) = (SimDisk::new(7), RefCell::new(Model::new()));
    let (acknowledged, durable) = (Cell::new(0), Cell::new(0));
    let promise = |promise| {
        if let Promise::Kept(lsn) = promise {
            durable.set(lsn);
        }
    };
    let mut runner = Runner::open(&disk, &model, &promise).map_err(|error| error.to_string())?;
    let check = |disk: &SimDisk, kept: &Cell<u64>, before: Option<&Booted>, when: &str| {
        check(disk, &model, &[Promise::Kept(kept.get())], before)
            .map_err(|why| format!("{when}: {why}"))
    };
    for (at, op) in script.iter().enumerate() {
        let after = |why| format!("killed after step {at} of {script:?}: {why}");
        runner.step(*op).map_err(|error| error.to_string())?;
        acknowledged.set(runner.store().visible_lsn().get());
        let next = disk.kill();
        let served = check(&next, &acknowledged, None, "at once").map_err(after)?;
        let loss = check(&next.power_loss(at as u64), &durable, Some(&served), "and without power");
        loss.map_err(after)?;
        let calls = {
            let next = disk.kill();
            options(&next).open(DIR).map_err(|error| error.to_string())?;
            usize::try_from(next.calls()).unwrap()
        };
        for call in (at % stride..calls).step_by(stride) {
            let next = disk.kill();
            let call = call as u64 + 1;
            next.inject(call, Fault::PowerLoss);
            drop(options(&next).open(DIR));
            let when = format!("and at call {call} of the next boot");
            check(&next.kill(), &acknowledged, None, &when).map_err(after)?;
            check(&next.power_loss(call), &durable, None, &when).map_err(after)?;
        }
    }
    Ok(())
}

/// A script out of bytes, with power losses between its steps: what the fuzzer runs.
///
/// # Panics
/// If a promise is broken.
pub fn run_bytes(bytes: &[u8]) {
    const LOSS: usize = OPS.len() + 3;
    let disk = RefCell::new(SimDisk::new(1));
    let model = RefCell::new(Model::new());
    let promises = RefCell::new(Vec::new());
    let promise = |promise| promises.borrow_mut().push(promise);
    let mut bytes = bytes.iter().take(48);
    'boot: loop {
        let machine = disk.borrow().clone();
        let mut runner = Runner::open(&machine, &model, &promise).unwrap();
        for byte in bytes.by_ref() {
            match usize::from(*byte) % (LOSS + 4) {
                choice if choice < OPS.len() => runner.step(OPS[choice]).unwrap(),
                choice if choice == OPS.len() => runner.step(Op::Scatter).unwrap(),
                choice if choice == OPS.len() + 1 => runner.step(Op::Beside).unwrap(),
                choice if choice == OPS.len() + 2 => runner.step(Op::Rot).unwrap(),
                _ => {
                    drop(runner);
                    let after = machine.power_loss(u64::from(*byte));
                    let found = check(&after, &model, &promises.borrow(), None);
                    let found = found.unwrap_or_else(|why| panic!("{why}"));
                    // The program goes on from what it finds.
                    let held = content(&options(&after).open(DIR).unwrap()).unwrap();
                    model.borrow_mut().fall_back_to(found.lsn, held);
                    disk.replace(after);
                    continue 'boot;
                }
            }
        }
        drop(runner);
        let found = check(&machine.power_loss(7), &model, &promises.borrow(), None);
        found.unwrap_or_else(|why| panic!("{why}"));
        return;
    }
}
