//! The checkpoint files: both ends, catalogs, and every block of every section, on all cores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rocstate::format::catalog::{Catalog, SectionRef};
use rocstate::format::shape::Schema;
use rocstate::format::{CheckpointNo, name};
use rocstate::inspect::{BlockFinding, Checkpoint, SnapshotRegion};
use rocstate::{Error, ErrorKind};

use super::{Finding, Verified};
use crate::exit::{Done, Exit};
use crate::health::Health;
use crate::out::Out;
use crate::region::Typed;
use crate::shape::{check_value, key_json};
use crate::store::Opened;

/// Values that do not decode are named one by one up to here, for each section.
const NAMED_MAX: usize = 5;

/// How many values each section holds that is whole, by where it lies.
#[derive(Default)]
pub(super) struct Counted(BTreeMap<(CheckpointNo, u64), u64>);

impl Counted {
    /// How many entries a region holds, if its sections tell that without being merged, or healed.
    pub(super) fn alone(&self, of: &SnapshotRegion) -> Option<u64> {
        of.base_alone()?.map(|section| self.0.get(&place(section)).copied()).sum()
    }
}

/// Where a section lies: no other one does.
fn place(section: &SectionRef) -> (CheckpointNo, u64) {
    (section.file, section.top.offset)
}

/// A section that is to be read, and what its entries are.
struct Task<'a> {
    file: Checkpoint,
    section: &'a SectionRef,
    region: &'a str,
    schema: Option<Schema>,
    typed: Option<Typed>,
}

/// What came of a task.
#[derive(Default)]
struct Seen {
    blocks: Vec<BlockFinding>,
    undecodable: Vec<String>,
    undecodable_count: usize,
    values: u64,
    opaque: u64,
    error: Option<Error>,
}

pub(super) fn check(
    store: &Opened<'_>,
    health: Option<&Health>,
    verified: &mut Verified,
    out: &mut Out<'_>,
) -> Done<Counted> {
    let outlook = health.and_then(|health| health.outlook.as_ref());
    let mut catalogs: Vec<Catalog> = Vec::new();
    for number in store.files.checkpoints().iter().rev() {
        match store.files.checkpoint(*number).and_then(|file| file.catalog()) {
            Ok(catalog) => catalogs.push(catalog),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                // One that no newer one keeps is only waiting for its removal.
                let waits = catalogs.first().is_some_and(|newest| {
                    !newest.kept.contains(number) && !newest.files.contains_key(number)
                });
                if !waits {
                    let exit = if outlook.is_some() { Exit::Repairable } else { Exit::Lost };
                    verified.findings.push(Finding::of(exit, &error));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    let newest = catalogs.first().cloned();
    catalogs.retain(|catalog| {
        newest.as_ref().is_none_or(|newest| {
            newest.number == catalog.number || newest.kept.contains(&catalog.number)
        })
    });
    // Of a file that is looked at alone the others need not be there.
    if store.files.only().is_none() {
        check_files(store, &catalogs, outlook.is_some(), verified);
    }
    let tasks = tasks(store, &catalogs, verified)?;
    let seen = read_all(&tasks, out);
    verified.checkpoints = store.files.checkpoints().len() as u64;
    let mut counted = Counted::default();
    for (task, seen) in tasks.iter().zip(seen) {
        note(task, seen, outlook.is_some(), verified, &mut counted)?;
    }
    Ok(counted)
}

/// Files that a catalog lists and that are not there, or not as long.
fn check_files(store: &Opened<'_>, catalogs: &[Catalog], boots: bool, verified: &mut Verified) {
    let exit = if boots { Exit::Repairable } else { Exit::Lost };
    let mut told = BTreeSet::new();
    for catalog in catalogs {
        for (number, len) in &catalog.files {
            let file = store.files.checkpoint(*number);
            let wrong = match &file {
                Ok(file) if file.header().len == *len => None,
                Ok(file) => Some(format!(
                    "{} has {} bytes, and checkpoint {} says {len}",
                    name::checkpoint(*number),
                    file.header().len,
                    catalog.number.0
                )),
                Err(error) => Some(error.to_string()),
            };
            if let Some(what) = wrong.filter(|_| told.insert(*number)) {
                let file = Some(name::checkpoint(*number));
                verified.findings.push(Finding { exit, what, file, offset: None });
            }
        }
    }
}

fn tasks<'a>(
    store: &Opened<'_>,
    catalogs: &'a [Catalog],
    verified: &mut Verified,
) -> Done<Vec<Task<'a>>> {
    let mut known = BTreeSet::new();
    let mut tasks = Vec::new();
    let mut files: BTreeMap<CheckpointNo, Checkpoint> = BTreeMap::new();
    for catalog in catalogs {
        for region in catalog.regions.values() {
            let schema = Schema::decode(&region.schema).ok();
            for section in region.sections() {
                if !known.insert(place(section)) {
                    continue;
                }
                let file = match files.get(&section.file) {
                    Some(file) => file.clone(),
                    None => match store.files.checkpoint(section.file) {
                        Ok(file) => file,
                        // Its absence is told where files are looked at.
                        Err(error) if error.kind() == ErrorKind::Damaged => continue,
                        Err(error) => return Err(error.into()),
                    },
                };
                files.insert(section.file, file.clone());
                verified.bytes = verified.bytes.saturating_add(section.bytes);
                tasks.push(Task {
                    file,
                    section,
                    region: &region.name,
                    schema: schema.clone(),
                    typed: store.decoders.types.get(&region.name).copied(),
                });
            }
        }
    }
    Ok(tasks)
}

fn read_all(tasks: &[Task<'_>], out: &mut Out<'_>) -> Vec<Seen> {
    let bar =
        out.progress("bytes", rocstate::format::total(tasks.iter().map(|task| task.section.bytes)));
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Seen>> = tasks.iter().map(|_| Mutex::default()).collect();
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(tasks.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut text = Vec::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(task), Some(result)) = (tasks.get(at), results.get(at)) else {
                        break;
                    };
                    let seen = read(task, &mut text);
                    bar.inc(task.section.bytes);
                    // Nobody panics while holding it.
                    *result.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = seen;
                }
            });
        }
    });
    bar.finish_and_clear();
    let unlocked = |result: Mutex<Seen>| result.into_inner().unwrap_or_default();
    results.into_iter().map(unlocked).collect()
}

fn read(task: &Task<'_>, text: &mut Vec<u8>) -> Seen {
    let mut seen = Seen::default();
    let shape = task.schema.as_ref().and_then(|schema| schema.value.as_ref());
    let read = task.file.check_section(task.section, |key, value| {
        let Some(value) = value else { return Ok(()) };
        text.clear();
        let decoded_key = match (task.typed, &task.schema) {
            (Some(typed), _) => (typed.key)(key, text),
            (None, Some(schema)) => key_json(key, &schema.key, text),
            (None, None) => Ok(()),
        };
        let decoded = decoded_key.and_then(|()| match (task.typed, shape) {
            (Some(typed), _) => (typed.value)(value, text),
            (None, Some(shape)) => check_value(value, shape),
            (None, None) => {
                seen.opaque += 1;
                Ok(())
            }
        });
        seen.values += 1;
        if let Err(why) = decoded {
            seen.undecodable_count += 1;
            if seen.undecodable.len() < NAMED_MAX {
                let mut named = Vec::new();
                crate::json::hex(&mut named, key);
                let named = String::from_utf8_lossy(&named);
                seen.undecodable.push(format!(
                    "the value of {} under the encoded key {named} cannot be decoded: {why}",
                    task.region
                ));
            }
        }
        Ok(())
    });
    match read {
        Ok(blocks) => seen.blocks = blocks,
        Err(error) => seen.error = Some(error),
    }
    seen
}

/// Adds what came of a task to the whole.
fn note(
    task: &Task<'_>,
    seen: Seen,
    boots: bool,
    verified: &mut Verified,
    counted: &mut Counted,
) -> Done<()> {
    if let Some(error) = seen.error {
        return Err(error.into());
    }
    verified.values += seen.values - seen.opaque;
    verified.opaque += seen.opaque;
    for what in &seen.undecodable {
        let file = Some(name::checkpoint(task.section.file));
        verified.findings.push(Finding {
            exit: Exit::Lost,
            what: what.clone(),
            file,
            offset: None,
        });
    }
    if seen.undecodable_count > seen.undecodable.len() {
        let more = seen.undecodable_count - seen.undecodable.len();
        let what = format!("{more} more values of {} cannot be decoded", task.region);
        verified.findings.push(Finding::said(Exit::Lost, what));
    }
    if seen.blocks.is_empty() {
        counted.0.insert(place(task.section), seen.values);
    }
    for block in seen.blocks {
        // What is needed now is judged where the state is put together: it may be worse than this.
        let exit = if boots { Exit::Repairable } else { Exit::Lost };
        verified.findings.push(Finding::of(exit, &block.error));
    }
    Ok(())
}
