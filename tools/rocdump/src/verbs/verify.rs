//! `verify`: every checksum, the chain, the catalogs against the files, the counts, every value.

mod log;
mod sections;

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use rocstate::format::name;
use rocstate::inspect::{Snapshot, Walked};
use rocstate::{Error, ErrorKind};

use crate::exit::{Done, Exit, Failure};
use crate::health::{Health, health};
use crate::holder::holder;
use crate::join::join;
use crate::json::{self, Object};
use crate::out::{self, Ink, Out, begin_document, bytes};
use crate::store::Opened;

/// How often a store that a process is changing is looked at, before what is wrong is believed.
const ATTEMPTS: u32 = 3;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(300);

/// Something that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) exit: Exit,
    pub(super) what: String,
    pub(super) file: Option<String>,
    pub(super) offset: Option<u64>,
}

impl Finding {
    pub(super) fn of(exit: Exit, error: &Error) -> Finding {
        let file = error.path().and_then(|path| path.file_name());
        Finding {
            exit,
            what: error.to_string(),
            file: file.map(|name| name.to_string_lossy().into_owned()),
            offset: error.offset(),
        }
    }

    pub(super) fn said(exit: Exit, what: String) -> Finding {
        Finding { exit, what, file: None, offset: None }
    }
}

/// What was looked at, and what is wrong with it.
#[derive(Default)]
pub(super) struct Verified {
    pub(super) findings: Vec<Finding>,
    pub(super) bytes: u64,
    pub(super) commits: u64,
    pub(super) values: u64,
    /// Values of types without a shape, which nothing can be said of.
    pub(super) opaque: u64,
    pub(super) segments: u64,
    pub(super) checkpoints: u64,
    pub(super) torn_bytes: u64,
    replays: u64,
}

pub(crate) fn run(store: &Opened<'_>, deep: bool, out: &mut Out<'_>) -> Done {
    let began = Instant::now();
    let mut files = store.files.clone();
    let mut attempt = 1;
    let (verified, held) = loop {
        let opened = Opened { files: files.clone(), decoders: store.decoders.clone() };
        let verified = verify(&opened, deep, out);
        let held = holder(&files).is_some_and(|holder| holder.held);
        let sure = match &verified {
            Ok(verified) => verified.findings.is_empty(),
            Err(Failure::Said { exit: Exit::Io | Exit::Lost, .. }) => false,
            Err(_) => true,
        };
        if sure || !held || attempt == ATTEMPTS {
            break (verified?, held);
        }
        // A process at work removes files and writes others while they are read.
        attempt += 1;
        std::thread::sleep(BETWEEN_ATTEMPTS);
        files.look_again()?;
    };
    let exit = verified.findings.iter().map(|finding| finding.exit).max().unwrap_or(Exit::Fine);
    if out.json {
        verified.json(exit, held, out)?;
    } else {
        verified.text(exit, held, began.elapsed(), out)?;
    }
    Ok(exit)
}

fn verify(store: &Opened<'_>, deep: bool, out: &mut Out<'_>) -> Done<Verified> {
    let mut verified = Verified::default();
    let whole = store.files.only().is_none();
    if whole {
        match store.files.lock() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Damaged => {
                verified.findings.push(Finding::of(Exit::Repairable, &error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What a boot would do is worked out meanwhile.
    let (logged, health) = std::thread::scope(|scope| {
        let files = &store.files;
        let health = whole.then(|| scope.spawn(move || health(files)));
        let logged = log::check(store, &mut verified);
        let health =
            health.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        (logged, health.transpose())
    });
    let (damage, health) = (logged?, health?);
    // What a boot does not need is damage to what it would heal from.
    let boots = health.as_ref().is_some_and(|health| health.outlook.is_some());
    let exit = if boots { Exit::Repairable } else { Exit::Lost };
    verified.findings.extend(damage.iter().map(|error| Finding::of(exit, error)));
    let counted = sections::check(store, health.as_ref(), &mut verified, out)?;
    if let Some(health) = &health {
        from_health(health, &mut verified);
        if let (Some(_), Some(state)) = (&health.outlook, &health.state) {
            check_state(store, state, &counted, &mut verified)?;
            if deep {
                replay(store, health, &mut verified, out)?;
            }
        }
    }
    Ok(verified)
}

/// What a boot would say besides.
fn from_health(health: &Health, verified: &mut Verified) {
    for note in &health.notes {
        // What has been found with its place is not told twice.
        let known = verified.findings.iter().any(|finding| {
            let told = finding.file.as_ref().is_some_and(|file| note.contains(file.as_str()));
            told && finding.exit >= health.exit
        });
        if !known {
            verified.findings.push(Finding::said(health.exit, note.clone()));
        }
    }
}

/// Counts the entries of each region, and says what becomes of damaged ones.
fn check_state(
    store: &Opened<'_>,
    snapshot: &Snapshot,
    counted: &sections::Counted,
    verified: &mut Verified,
) -> Done<()> {
    for of in &snapshot.regions {
        let region = store.region_of(of);
        if region.schema.is_none() {
            let what = format!("the schema of {} cannot be read", of.name);
            verified.findings.push(Finding::said(Exit::Lost, what));
        }
        if let Some(entries) = counted.alone(of) {
            if entries != of.entries {
                verified.findings.push(miscounted(&of.name, entries, of.entries));
            }
            continue;
        }
        let mut entries = 0;
        let mut whole = true;
        let mut found = Vec::new();
        of.walk_as_a_program(|walked| {
            match walked {
                Walked::Entry { .. } => entries += 1,
                Walked::Healed(error) => found.push(Finding::of(Exit::Repairable, &error)),
                Walked::Unproven { .. } | Walked::WithoutIndex(_) => {}
                Walked::Lost(lost) => {
                    whole = false;
                    let text = super::read::lost_text(&region, &lost);
                    found.push(Finding { what: text, ..Finding::of(Exit::Lost, &lost.error) });
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        if whole && entries != of.entries {
            found.push(miscounted(&of.name, entries, of.entries));
        }
        for finding in found {
            // Where the section was read, the same was told with less known of it.
            verified.findings.retain(|known| {
                let same = known.offset.is_some()
                    && (&known.file, known.offset) == (&finding.file, finding.offset);
                !same
            });
            verified.findings.push(finding);
        }
    }
    Ok(())
}

fn miscounted(name: &str, found: u64, stated: u64) -> Finding {
    let what = format!("{name} holds {found} entries and is said to hold {stated}");
    Finding::said(Exit::Lost, what)
}

/// Replays the log over each older checkpoint, and compares with what the newer one holds.
fn replay(
    store: &Opened<'_>,
    health: &Health,
    verified: &mut Verified,
    out: &mut Out<'_>,
) -> Done<()> {
    let whole = health.outlook.iter().flat_map(|outlook| &outlook.whole).copied();
    let whole: Vec<_> = whole.collect();
    for (at, number) in whole.iter().enumerate() {
        let newer = store.files.snapshot_of(*number)?;
        // The oldest can be made of the log alone, if that is all there.
        let older = whole.get(at + 1).copied();
        let replayed = match store.files.snapshot_by(older, newer.lsn) {
            Ok(replayed) => replayed,
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        verified.replays += 1;
        let mut differing = 0u64;
        let mut first = None;
        let names = newer.regions.iter().chain(&replayed.regions).map(|of| of.name.as_str());
        let names: std::collections::BTreeSet<&str> = names.collect();
        for name in names {
            let side = |snapshot: &Snapshot| {
                let of = snapshot.regions.iter().find(|of| of.name == name)?;
                Some((store.region_of(of), of.clone()))
            };
            let (old, new) = (side(&replayed), side(&newer));
            join(old.as_ref(), new.as_ref(), out, |_, key, _, _| {
                differing += 1;
                let region = new.as_ref().or(old.as_ref()).map(|(region, _)| region);
                first.get_or_insert_with(|| {
                    region
                        .map_or(String::new(), |region| format!("{name} {}", region.key_text(key)))
                });
                Ok(())
            })?;
        }
        if differing > 0 {
            let what = format!(
                "checkpoint {} differs from what the log makes of the one before in {}, of which the \
                 first is {}",
                number.0,
                out::counted(differing, "key"),
                first.unwrap_or_default()
            );
            let file = Some(name::checkpoint(*number));
            verified.findings.push(Finding { exit: Exit::Lost, what, file, offset: None });
        }
    }
    Ok(())
}

impl Verified {
    fn text(&self, exit: Exit, held: bool, took: Duration, out: &mut Out<'_>) -> Done<()> {
        for finding in &self.findings {
            let ink = if finding.exit == Exit::Repairable { Ink::Warn } else { Ink::Bad };
            let text = out.ink(ink, &finding.what);
            out.line(text)?;
        }
        let replays = match self.replays {
            0 => String::new(),
            n => format!(", {} by replay", out::counted(n, "checkpoint")),
        };
        out.line(format!(
            "looked at {} of {} and {}: {}, {}{replays}, in {}",
            bytes(self.bytes),
            out::counted(self.checkpoints, "checkpoint file"),
            out::counted(self.segments, "segment"),
            out::counted(self.commits, "commit"),
            out::counted(self.values, "value"),
            out::duration(took)
        ))?;
        if self.opaque > 0 {
            out.line(format!(
                "{} have no shape, and were not decoded",
                out::counted(self.opaque, "value")
            ))?;
        }
        if self.torn_bytes > 0 {
            let what = if held { "in flight" } else { "a torn tail, which was never acknowledged" };
            out.line(format!("{} at the log's end are {what}", bytes(self.torn_bytes)))?;
        }
        let (ink, word) = match exit {
            Exit::Fine => (Ink::Good, "nothing is wrong"),
            Exit::Repairable => (
                Ink::Warn,
                "there is damage that the next boot repairs; nothing acknowledged is lost",
            ),
            _ => (Ink::Bad, "something acknowledged is lost; `rocdump salvage` takes what is good"),
        };
        let text = out.ink(ink, word);
        out.line(text)
    }

    fn json(&self, exit: Exit, held: bool, out: &mut Out<'_>) -> Done<()> {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "verify");
        object.number("exit", exit as u64);
        object.number("bytes", self.bytes);
        object.number("checkpoints", self.checkpoints);
        object.number("segments", self.segments);
        object.number("commits", self.commits);
        object.number("values", self.values);
        object.number("opaque_values", self.opaque);
        object.number("torn_bytes", self.torn_bytes);
        object.number("replays", self.replays);
        object.bool("running", held);
        json::list(object.field("findings"), &self.findings, |to, finding| {
            let mut object = Object::begin(to);
            object.number("exit", finding.exit as u64);
            object.string("what", &finding.what);
            if let Some(file) = &finding.file {
                object.string("file", file);
            }
            if let Some(offset) = finding.offset {
                object.number("offset", offset);
            }
            object.end();
        });
        object.end();
        out.document(&line)
    }
}
