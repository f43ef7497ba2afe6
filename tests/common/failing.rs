//! Every call of a script fails once: what was acknowledged must be there afterwards, whatever the store
//! has said of the rest.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary uses a part of it"
)]

use std::cell::RefCell;

use rocstate::sim::{Fault, SimDisk};
use rocstate::{Error, ErrorKind};

use super::promise::check;
use super::script::{Model, Op, Promise, Runner};

/// What honest calls do when they fail.
pub const FAULTS: [Fault; 3] = [Fault::Error, Fault::NoSpace, Fault::ShortWrite];

/// Has each `stride`-th call fail in each way; how many runs that took.
pub fn every_call(seed: u64, script: &[Op], stride: usize) -> Result<u64, String> {
    let calls = {
        let disk = SimDisk::new(seed);
        run(&disk, script, &RefCell::new(Model::new()), &|_| {})
            .map_err(|error| error.to_string())?;
        disk.calls()
    };
    let mut runs = 0;
    for call in (1..=calls).step_by(stride) {
        for fault in FAULTS {
            one(seed, script, call, fault)
                .map_err(|why| format!("{script:?}: {fault:?} at call {call} of {calls}: {why}"))?;
            runs += 1;
        }
    }
    Ok(runs)
}

fn run(
    disk: &SimDisk,
    script: &[Op],
    model: &RefCell<Model>,
    promise: &dyn Fn(Promise),
) -> Result<(), Error> {
    super::script::run(disk, script, model, promise)
}

fn one(seed: u64, script: &[Op], call: u64, fault: Fault) -> Result<(), String> {
    let disk = SimDisk::new(seed);
    let model = RefCell::new(Model::new());
    let promises = RefCell::new(Vec::new());
    let promise = |promise| promises.borrow_mut().push(promise);
    disk.inject(call, fault);
    match Runner::open(&disk, &model, &promise) {
        Ok(mut runner) => {
            let failed = script.iter().find_map(|op| runner.step(*op).err());
            if let Some(error) = failed {
                typed(&error)?;
                go_on_or_refuse(&mut runner, &error, disk.struck())?;
            }
        }
        // The cure is to open again.
        Err(error) => typed(&error)?,
    }
    let promises = promises.into_inner();
    let check = |disk: &SimDisk, before, what: &str| {
        check(disk, &model, &promises, before).map_err(|why| format!("{what}: {why}"))
    };
    // The next process, and then a power loss under it: what it served must be there.
    let next = disk.kill();
    let served = check(&next, None, "in the next process")?;
    for loss in 0..3 {
        check(&disk.power_loss(loss), None, "after a power loss")?;
        check(&next.power_loss(loss), Some(&served), "after a power loss under the next process")?;
    }
    Ok(())
}

fn typed(error: &Error) -> Result<(), String> {
    let known = matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned);
    if known { Ok(()) } else { Err(format!("an I/O error became {error}")) }
}

/// After a failed read, and where nothing was written yet, a store goes on; after a failed write or sync that an operation has reported,
/// everything that writes is refused.
fn go_on_or_refuse(
    runner: &mut Runner<'_>,
    failed: &Error,
    struck: Option<&'static str>,
) -> Result<(), String> {
    if !runner.is_open() {
        // Nothing was changed, so the next try succeeds.
        return runner.step(Op::Reopen).map_err(|error| format!("{failed}, and then {error}"));
    }
    let refused: Vec<Error> = [Op::Put, Op::Sync, Op::Checkpoint, Op::Put]
        .into_iter()
        .filter_map(|op| runner.step(op).err())
        .collect();
    let poisoned =
        refused.len() == 4 && refused.iter().all(|error| error.kind() == ErrorKind::Poisoned);
    let wrote = !matches!(struck, Some("read" | "open" | "list" | "len" | "remove"));
    if poisoned || (refused.is_empty() && !wrote) {
        return Ok(());
    }
    Err(format!(
        "a failed {} left it neither poisoned nor whole: {failed}, and then {refused:?}",
        struck.unwrap_or("call")
    ))
}
