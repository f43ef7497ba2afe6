//! `backup`: a consistent copy of a store that may be in use, with its history.
//!
//! # Invariants
//! - Files that are complete are copied whole; of the segment that is being written, what is known to be
//!   synced. LOCK comes last, so that half a copy is refused.
//! - What was copied is looked at as a boot would before it is called a backup.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use rocstate::format::{CheckpointNo, SegmentNo, name};
use rocstate::inspect::{Inspector, LogEvent, Outlook};

use super::restore::refuse_unless_empty;
use crate::exit::{Done, Exit, Failure};
use crate::holder::holder;
use crate::out::{Out, begin_document, bytes, counted};
use crate::store::Opened;

/// How often a store is looked at again whose files went while they were copied.
const ATTEMPTS: u32 = 10;

/// What is copied.
struct Plan {
    outlook: Outlook,
    checkpoints: Vec<(CheckpointNo, u64)>,
    segments: Vec<(SegmentNo, u64)>,
    /// How much of the last segment.
    end: u64,
    running: bool,
}

impl Plan {
    fn bytes(&self) -> u64 {
        let checkpoints = self.checkpoints.iter().map(|(_, len)| len);
        checkpoints.chain(self.segments.iter().map(|(_, len)| len)).sum()
    }
}

pub(crate) fn run(store: &Opened<'_>, to: &Path, dry_run: bool, out: &mut Out<'_>) -> Done {
    if store.files.only().is_some() {
        return Err(Failure::usage("a backup is of a whole store: give its directory"));
    }
    refuse_unless_empty(to)?;
    let mut files = store.files.clone();
    for attempt in 1.. {
        files.look_again()?;
        let done = plan(&files).and_then(|plan| {
            if !dry_run {
                copy(&files, &plan, to, out)?;
            }
            Ok(plan)
        });
        match done {
            Ok(plan) => return tell(&plan, to, dry_run, out),
            // The process that works with the store may have removed what was to be copied.
            Err(Failure::Said { exit: Exit::Lost | Exit::Io, .. }) if attempt < ATTEMPTS => {
                clear(to)?;
            }
            Err(why) => return Err(why),
        }
    }
    Err(Failure::no("the store changes faster than it can be copied"))
}

/// Removes what an attempt has copied.
fn clear(to: &Path) -> Done<()> {
    match fs::read_dir(to) {
        Ok(entries) => {
            for entry in entries {
                fs::remove_file(entry?.path())?;
            }
            Ok(())
        }
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(why) => Err(why.into()),
    }
}

fn plan(files: &Inspector) -> Done<Plan> {
    let running = holder(files).is_some_and(|holder| holder.held);
    let outlook = files.outlook()?;
    let mut numbers = std::collections::BTreeSet::new();
    for number in &outlook.whole {
        let catalog = files.checkpoint(*number)?.catalog()?;
        numbers.extend(catalog.files.keys().copied());
        numbers.insert(*number);
    }
    let len = |name: &str| files.len_of(name);
    let mut checkpoints = Vec::new();
    for number in numbers {
        checkpoints.push((number, len(&name::checkpoint(number))?));
    }
    let mut segments = Vec::new();
    let mut end = 0;
    files.walk_log(rocstate::Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(header) => {
                segments.push((header.number, header.len));
                end = header.claim;
            }
            // Of a store that nobody writes, all that a boot would keep.
            LogEvent::Frame(frame) if frame.claimed || !running => {
                end = end.max(frame.header.end());
            }
            _ => {}
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    Ok(Plan { outlook, checkpoints, segments, end, running })
}

fn copy(files: &Inspector, plan: &Plan, to: &Path, out: &Out<'_>) -> Done<()> {
    fs::create_dir_all(to)?;
    let bar = out.progress("bytes", plan.bytes());
    for (number, _) in &plan.checkpoints {
        let name = name::checkpoint(*number);
        bar.inc(copy_file(&files.path_of(&name), &to.join(&name), u64::MAX)?);
    }
    let last = plan.segments.last().map(|(number, _)| *number);
    for (number, len) in &plan.segments {
        let name = name::segment(*number);
        let upto = if Some(*number) == last { plan.end } else { u64::MAX };
        bar.inc(copy_file(&files.path_of(&name), &to.join(&name), upto)?);
        // What was not copied is as if it had not been written.
        File::options().write(true).open(to.join(&name))?.set_len(*len)?;
    }
    sync_all(to)?;
    // LOCK as it is: it names the newest segment, or the one before while that is being made.
    let lock = files.read(name::LOCK, 0, rocstate::format::SECTOR_BYTES as u64)?;
    let mut file = File::create(to.join(name::LOCK))?;
    file.write_all(&lock)?;
    file.sync_all()?;
    File::open(to)?.sync_all()?;
    bar.finish_and_clear();
    let copied = Inspector::open(to)?.outlook()?;
    let enough = if plan.running { plan.outlook.claimed } else { plan.outlook.end };
    let worse = copied.healed.len() > plan.outlook.healed.len();
    if copied.end < enough || worse {
        return Err(Failure::Said {
            exit: Exit::Lost,
            what: format!(
                "the copy holds commits up to {} and should hold {enough}; {}",
                copied.end,
                copied.healed.join("; ")
            ),
        });
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path, upto: u64) -> Done<u64> {
    let mut source = File::open(from)?;
    let mut target = File::create(to)?;
    source.seek(SeekFrom::Start(0))?;
    Ok(std::io::copy(&mut source.take(upto), &mut target)?)
}

fn sync_all(to: &Path) -> Done<()> {
    for entry in fs::read_dir(to)? {
        File::open(entry?.path())?.sync_all()?;
    }
    Ok(())
}

fn tell(plan: &Plan, to: &Path, dry_run: bool, out: &mut Out<'_>) -> Done {
    let lsn = if plan.running { plan.outlook.claimed } else { plan.outlook.end };
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "backup");
        object.bool("dry_run", dry_run);
        object.string("store", to.to_string_lossy());
        object.text("lsn", lsn);
        object.number("checkpoints", plan.checkpoints.len() as u64);
        object.number("segments", plan.segments.len() as u64);
        object.number("bytes", plan.bytes());
        object.bool("running", plan.running);
        object.end();
        out.document(&line)?;
        return Ok(Exit::Fine);
    }
    let would = if dry_run { "would copy" } else { "copied" };
    let which = if plan.running {
        "the last one that is known to be synced; a process is at work"
    } else {
        "the last one"
    };
    out.line(format!(
        "{would} {} and {} ({}) to {}: everything up to commit {lsn}, {which}",
        counted(plan.checkpoints.len() as u64, "checkpoint file"),
        counted(plan.segments.len() as u64, "segment"),
        bytes(plan.bytes()),
        to.display()
    ))?;
    Ok(Exit::Fine)
}
