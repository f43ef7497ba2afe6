//! `backup`: a consistent copy of a store that may be in use, with its history.
//!
//! # Invariants
//! - Files that are complete are copied whole; of the segment that is being written, what is known to be
//!   synced. LOCK comes first and names the newest segment of the copy, which comes last: until then the copy
//!   is refused, so that half of one is never taken for an older store.
//! - Files are opened before any is copied: whatever is removed meanwhile can still be read.
//! - What was copied is looked at as a boot would before it is called a backup.

use std::io::{Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use fs_err::{self as fs, File, OpenOptions};
use rocstate::format::segment::SegmentHeader;
use rocstate::format::{CheckpointNo, name};
use rocstate::inspect::{Inspector, LogEvent, Outlook, write_lock};

use super::restore::{refuse_inside, refuse_unless_empty};
use crate::exit::{Done, Exit, Failure};
use crate::holder::holder;
use crate::out::{Out, begin_document, bytes, counted};
use crate::store::Opened;

/// The newest segment of the copy until it is whole; a boot would remove it.
const UNNAMED: &str = "log-backup.tmp";

/// How often a store is looked at again whose files went while they were copied.
const ATTEMPTS: u32 = 50;

/// What is copied.
struct Plan {
    outlook: Outlook,
    checkpoints: Vec<(CheckpointNo, File, u64)>,
    segments: Vec<(SegmentHeader, File)>,
    /// How much of the last segment.
    end: u64,
    running: bool,
}

impl Plan {
    fn bytes(&self) -> u64 {
        let checkpoints = self.checkpoints.iter().map(|(_, _, len)| *len);
        checkpoints.chain(self.segments.iter().map(|(header, _)| header.len)).sum()
    }
}

pub(crate) fn run(store: &Opened<'_>, to: &Path, dry_run: bool, out: &mut Out<'_>) -> Done {
    if store.files.only().is_some() {
        return Err(Failure::usage("a backup is of a whole store: give its directory"));
    }
    refuse_inside(store, to)?;
    refuse_unless_empty(to)?;
    let mut files = store.files.clone();
    for attempt in 1.. {
        files.look_again()?;
        let done = plan(&mut files).and_then(|plan| {
            if !dry_run {
                copy(&plan, to, out)?;
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

fn plan(files: &mut Inspector) -> Done<Plan> {
    let running = holder(files).is_some_and(|holder| holder.held);
    let outlook = files.outlook()?;
    // The log may have got further segments while the next boot was worked out.
    files.look_again()?;
    let mut numbers = std::collections::BTreeSet::new();
    let mut places = Vec::new();
    for number in &outlook.whole {
        let catalog = files.checkpoint(*number)?.catalog()?;
        places.push(catalog.place);
        numbers.extend(catalog.files.keys().copied());
        numbers.insert(*number);
    }
    let open = |name: &str| File::open(files.path_of(name));
    let mut checkpoints = Vec::new();
    for number in numbers {
        let file = open(&name::checkpoint(number))?;
        let len = file.metadata()?.len();
        checkpoints.push((number, file, len));
    }
    let mut segments = Vec::new();
    let mut end = 0;
    let mut failure = None;
    files.walk_log(rocstate::Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(header) => {
                let file = files.name_of_segment(header.number);
                // Before it has its name, nothing in it is claimed.
                if running && file == name::BEGUN {
                    return Ok(ControlFlow::Break(()));
                }
                match open(&file) {
                    Ok(file) => segments.push((*header, file)),
                    Err(why) => failure = Some(why),
                }
                end = header.claim;
            }
            // Of a store that nobody writes, all that a boot would keep.
            LogEvent::Frame(frame) if frame.claimed || !running => {
                end = end.max(frame.header.end());
            }
            // It was removed since it was listed.
            LogEvent::Gap(gap) if running => {
                failure = Some(std::io::Error::other(gap.error.to_string()));
            }
            _ => {}
        }
        let flow =
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        Ok(flow)
    })?;
    failure.map_or(Ok(()), Err)?;
    // What a checkpoint holds was synced, also if the log does not say so yet.
    let last = segments.last().map(|(header, _): &(SegmentHeader, File)| header.number);
    let held = places.iter().filter(|place| Some(place.segment) == last);
    end = held.map(|place| place.offset).fold(end, u64::max);
    Ok(Plan { outlook, checkpoints, segments, end, running })
}

fn copy(plan: &Plan, to: &Path, out: &Out<'_>) -> Done<()> {
    fs::create_dir_all(to)?;
    let bar = out.progress("bytes", plan.bytes());
    let Some(((newest, newest_file), older)) = plan.segments.split_last() else {
        // A store that was never begun has an empty one.
        return Ok(File::create(to.join(name::LOCK))?.sync_all()?);
    };
    write_lock(to, newest)?;
    for (number, file, _) in &plan.checkpoints {
        bar.inc(copy_file(file, &to.join(name::checkpoint(*number)), u64::MAX)?);
    }
    for (header, file) in older {
        bar.inc(copy_file(file, &to.join(name::segment(header.number)), u64::MAX)?);
    }
    File::open(to)?.sync_all()?;
    // Under another name until it is whole, and all the rest is stable.
    let unnamed = to.join(UNNAMED);
    bar.inc(copy_file(newest_file, &unnamed, plan.end)?);
    let file = OpenOptions::new().write(true).open(&unnamed)?;
    // What was not copied is as if it had not been written.
    file.set_len(newest.len)?;
    file.sync_all()?;
    fs::rename(&unnamed, to.join(name::segment(newest.number)))?;
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

/// Copies a file, and makes the copy stable.
fn copy_file(from: &File, to: &Path, upto: u64) -> Done<u64> {
    let mut source = from;
    source.seek(SeekFrom::Start(0))?;
    let mut target = File::create(to)?;
    let copied = std::io::copy(&mut source.take(upto), &mut target)?;
    target.sync_all()?;
    Ok(copied)
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
