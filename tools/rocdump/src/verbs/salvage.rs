//! `salvage`: everything that can be proven good, into a new store; the rest is listed with its reason.
//!
//! An entry is proven good if every newer layer could be read where it lies. Commits behind a place where
//! the log is damaged are not taken, however well they read: the state is always one that was.

use std::ops::ControlFlow;
use std::path::Path;

use rocstate::Compression;
use rocstate::inspect::{Builder, LogEvent, SnapshotRegion, Walked};

use super::import::tell;
use super::read::lost_text;
use super::restore::{refuse_inside, refuse_unless_empty};
use crate::exit::{Done, Exit};
use crate::json::Object;
use crate::out::{Ink, Out, begin_document, counted};
use crate::region::Region;
use crate::store::Opened;

/// How much is taken.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// Also what may be stale.
    pub(crate) unproven: bool,
    pub(crate) dry_run: bool,
}

pub(crate) fn run(store: &Opened<'_>, to: &Path, how: How, out: &mut Out<'_>) -> Done {
    refuse_inside(store, to)?;
    refuse_unless_empty(to)?;
    let snapshot = store.files.snapshot(None)?;
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "salvage");
        object.text("lsn", snapshot.lsn);
        object.bool("dry_run", how.dry_run);
        object.end();
        out.document(&line)?;
    } else {
        out.line(format!("taking the state as of commit {}", snapshot.lsn))?;
    }
    let mut exit = Exit::Fine;
    if let Some(why) = &snapshot.shortfall {
        exit = Exit::Lost;
        let readable = readable_behind(store, snapshot.lsn)?;
        let reason = format!(
            "commits after {} are not taken: {why}; {} behind that place can be read one by one with \
             `rocdump log --from {}`",
            snapshot.lsn,
            counted(readable, "commit"),
            snapshot.lsn.next()
        );
        list(None, &reason, out)?;
    }
    let mut builder = None;
    if !how.dry_run {
        let mut begun = Builder::create(to, snapshot.lsn, Compression::None)?;
        begun.keep_region_numbers(snapshot.next_region);
        builder = Some(begun);
    }
    let mut total = 0;
    for of in &snapshot.regions {
        let region = store.region_of(of);
        if let Some(builder) = &mut builder {
            builder.region(of.number, &of.name, &of.schema)?;
        }
        let (found, entries) = take(of, &region, &mut builder, how, out)?;
        exit = exit.max(found);
        total += entries;
        if !out.json {
            out.line(format!("  {}: {} of {}", of.name, counted(entries, "entry"), of.entries))?;
        }
    }
    match builder {
        Some(builder) => {
            tell("salvage", &builder.finish()?, to, out)?;
        }
        None if out.json => {}
        None => out.line(format!("would take {}", counted(total, "entry")))?,
    }
    Ok(exit)
}

/// Commits that are valid in themselves and come behind a damaged place.
fn readable_behind(store: &Opened<'_>, lsn: rocstate::Lsn) -> Done<u64> {
    let mut readable = 0;
    store.files.walk_log(lsn, |event| {
        if let LogEvent::Frame(frame) = event
            && frame.header.facts.first_lsn > lsn
        {
            readable += u64::from(frame.header.facts.commits);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(readable)
}

fn take(
    of: &SnapshotRegion,
    region: &Region,
    builder: &mut Option<Builder>,
    how: How,
    out: &mut Out<'_>,
) -> Done<(Exit, u64)> {
    let (mut exit, mut entries) = (Exit::Fine, 0);
    let mut failure = None;
    of.walk(&[], None, |walked| {
        let done: Done<()> = match walked {
            Walked::Entry { key, value } => {
                entries += 1;
                push(builder, key, value)
            }
            Walked::Healed(error) => {
                exit = exit.max(Exit::Repairable);
                list(
                    Some(region),
                    &format!("healed by an older checkpoint and the log: {error}"),
                    out,
                )
            }
            Walked::WithoutIndex(error) => {
                exit = exit.max(Exit::Repairable);
                list(Some(region), &format!("found without their index: {error}"), out)
            }
            Walked::Lost(lost) => {
                exit = Exit::Lost;
                list(Some(region), &lost_text(region, &lost), out)
            }
            Walked::Unproven { key, value } => {
                exit = Exit::Lost;
                let what = if how.unproven { "taken, and maybe stale" } else { "left out" };
                let text = format!(
                    "{what}: {} = {}, which what is damaged may have changed or removed",
                    region.key_text(key),
                    region.value_text(key, value)
                );
                let told = list(Some(region), &text, out);
                if how.unproven {
                    entries += 1;
                    told.and_then(|()| push(builder, key, value))
                } else {
                    told
                }
            }
        };
        Ok(match done {
            Ok(()) => ControlFlow::Continue(()),
            Err(why) => {
                failure = Some(why);
                ControlFlow::Break(())
            }
        })
    })?;
    failure.map_or(Ok((exit, entries)), Err)
}

fn push(builder: &mut Option<Builder>, key: &[u8], value: &[u8]) -> Done<()> {
    match builder {
        Some(builder) => Ok(builder.push(key, value)?),
        None => Ok(()),
    }
}

/// Names something that is not taken as it was, and why.
fn list(region: Option<&Region>, reason: &str, out: &mut Out<'_>) -> Done<()> {
    if out.json {
        let mut line = Vec::new();
        let mut object = Object::begin(&mut line);
        object.string("type", "note");
        if let Some(region) = region {
            object.string("region", &region.name);
        }
        object.string("reason", reason);
        object.end();
        return out.document(&line);
    }
    let text = out.ink(Ink::Warn, format!("  {reason}"));
    out.line(text)
}
