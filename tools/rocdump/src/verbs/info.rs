//! `info`: what a store is and how it is; of a single file, what it says of itself.

use rocstate::format::SegmentNo;
use rocstate::format::name::{self, Name};
use rocstate::{Error, ErrorKind, Lsn};

use crate::exit::{Done, Exit};
use crate::files::{CheckpointLine, SegmentLine, checkpoints, segments};
use crate::health::{Health, health};
use crate::holder::{Holder, holder};
use crate::json::{self, Object};
use crate::out::{Ink, Out, begin_document, bytes, count, counted, duration, moment};
use crate::store::Opened;

/// Everything that is said of a store.
struct Info<'a> {
    store: &'a Opened<'a>,
    lock: Result<Option<rocstate::format::lock::LockSector>, Error>,
    holder: Option<Holder>,
    health: Health,
    checkpoints: Vec<CheckpointLine>,
    segments: Vec<SegmentLine>,
}

pub(crate) fn run(store: &Opened<'_>, out: &mut Out<'_>) -> Done {
    match store.files.only() {
        Some(Name::Lock) => return lock_file(store, out),
        Some(Name::Segment(number)) => return segment_file(store, number, out),
        Some(Name::Checkpoint(number)) => {
            return super::checkpoint::run(store, Some(number.0), out);
        }
        _ => {}
    }
    let lock = match store.files.lock() {
        Err(error) if error.kind() != ErrorKind::Damaged => return Err(error.into()),
        lock => lock,
    };
    let info = Info {
        store,
        lock,
        holder: holder(&store.files),
        health: health(&store.files)?,
        checkpoints: checkpoints(store),
        segments: segments(store)?,
    };
    if out.json {
        info.json(out)?;
    } else {
        info.text(out)?;
    }
    Ok(info.health.exit)
}

impl Info<'_> {
    fn epoch(&self) -> u64 {
        let named = self.lock.as_ref().ok().and_then(|sector| sector.map(|sector| sector.epoch.0));
        let seen = self.segments.iter().filter_map(|line| line.epoch).max();
        named.max(seen).unwrap_or(0)
    }

    fn end(&self) -> Lsn {
        let outlook = self.health.outlook.as_ref().map(|outlook| outlook.end);
        outlook.or(self.health.state.as_ref().map(|snapshot| snapshot.lsn)).unwrap_or_default()
    }

    fn entries(&self) -> u64 {
        let regions = self.health.state.iter().flat_map(|snapshot| &snapshot.regions);
        rocstate::format::total(regions.map(|of| of.entries))
    }

    /// The bytes that a region has in checkpoint files.
    fn bytes_of(&self, number: rocstate::format::RegionNo) -> u64 {
        let newest = self.checkpoints.iter().rev().find_map(|line| line.catalog.as_ref().ok());
        let region = newest.and_then(|catalog| catalog.regions.get(&number));
        region.map_or(0, |region| {
            rocstate::format::total(region.sections().map(|section| section.bytes))
        })
    }

    fn text(&self, out: &mut Out<'_>) -> Done<()> {
        let label = |out: &Out<'_>, text: &str| out.ink(Ink::Faint, format!("{text:<11}"));
        let path = self.store.files.path().display();
        let line = out.ink(Ink::Head, format!("{path}"));
        out.line(line)?;
        let lineage = self.store.files.lineage();
        let Some(lineage) = lineage else {
            return out.line("  a store that was never begun: the next open begins it");
        };
        let text = label(out, "store");
        out.line(format!(
            "  {text}lineage {:016x}, booted {}, format {}",
            lineage.0,
            times(self.epoch()),
            rocstate::FORMAT_VERSION
        ))?;
        let text = label(out, "state");
        out.line(format!(
            "  {text}commit {}: {} in {}",
            count(self.end().get()),
            counted(self.entries(), "entry"),
            counted(self.health.state.as_ref().map_or(0, |s| s.regions.len() as u64), "region"),
        ))?;
        let text = label(out, "in use");
        out.line(format!("  {text}{}", self.holder_text()))?;
        self.health_text(out)?;
        self.boot_text(out)?;
        out.line("")?;
        self.regions_text(out)?;
        self.checkpoints_text(out)?;
        self.segments_text(out)
    }

    fn holder_text(&self) -> String {
        match &self.holder {
            None => "it cannot be told whether a process has it open".to_owned(),
            Some(holder) if !holder.held => "no".to_owned(),
            Some(Holder { pid: Some(pid), program: Some(program), .. }) => {
                format!("yes, by {program} (process {pid})")
            }
            Some(Holder { pid: Some(pid), .. }) => format!("yes, by process {pid}"),
            Some(_) => "yes, by a process that is not visible from here".to_owned(),
        }
    }

    fn health_text(&self, out: &mut Out<'_>) -> Done<()> {
        let ink = match self.health.exit {
            Exit::Fine => Ink::Good,
            Exit::Repairable => Ink::Warn,
            _ => Ink::Bad,
        };
        let label = out.ink(Ink::Faint, format!("{:<11}", "health"));
        let word = out.ink(ink, self.health.word());
        out.line(format!("  {label}{word}"))?;
        for note in &self.health.notes {
            out.line(format!("             {note}"))?;
        }
        if let Err(error) = &self.lock
            && self.health.notes.is_empty()
        {
            out.line(format!("             {error}"))?;
        }
        Ok(())
    }

    fn boot_text(&self, out: &mut Out<'_>) -> Done<()> {
        let label = out.ink(Ink::Faint, format!("{:<11}", "next boot"));
        let Some(outlook) = &self.health.outlook else {
            return out
                .line(format!("  {label}would refuse; `rocdump salvage` takes what is good"));
        };
        let from = match outlook.checkpoint {
            Some((number, lsn)) => {
                format!("after checkpoint {} (commit {})", number.0, count(lsn.get()))
            }
            None => "from the beginning of the log".to_owned(),
        };
        let replay = match outlook.commits {
            0 => format!("nothing to replay {from}"),
            commits => format!(
                "{} to replay {} ({}, {} of log) {from}, and {} whatever the log holds",
                duration(outlook.replay),
                counted(commits, "commit"),
                counted(outlook.operations, "operation"),
                bytes(outlook.log_bytes),
                duration(outlook.estimate.saturating_sub(outlook.replay)),
            ),
        };
        out.line(format!("  {label}about {}: {replay}", duration(outlook.estimate)))?;
        let held = self.holder.as_ref().is_some_and(|holder| holder.held);
        if outlook.torn_bytes > 0 {
            let what = if held {
                "are in flight: a process is writing them"
            } else {
                "at the log's end are torn: they were never acknowledged, and are dropped"
            };
            out.line(format!("             {} {what}", bytes(outlook.torn_bytes)))?;
        }
        if outlook.end > outlook.claimed {
            let which = match outlook.end.get().saturating_sub(outlook.claimed.get()) {
                1 => "the last commit".to_owned(),
                commits => format!("the last {}", counted(commits, "commit")),
            };
            let what = if held {
                "may not be synced yet"
            } else {
                "is not known to be synced, and is kept"
            };
            out.line(format!("             {which} {what}"))?;
        }
        Ok(())
    }

    fn regions_text(&self, out: &mut Out<'_>) -> Done<()> {
        let Some(snapshot) = self.health.state.as_ref().filter(|s| !s.regions.is_empty()) else {
            return Ok(());
        };
        out.head("regions")?;
        let rows = snapshot.regions.iter().map(|of| {
            let region = self.store.region_of(of);
            vec![
                of.name.clone(),
                region.class().to_owned(),
                region.types(),
                count(of.entries),
                bytes(self.bytes_of(of.number)),
            ]
        });
        out.table(
            &["name", "class", "types", "entries", "in checkpoints"],
            &[3, 4],
            rows.collect(),
        )?;
        out.line("")
    }

    fn checkpoints_text(&self, out: &mut Out<'_>) -> Done<()> {
        if self.checkpoints.is_empty() {
            return Ok(());
        }
        out.head("checkpoints")?;
        let whole = self.health.outlook.as_ref().map(|outlook| outlook.whole.as_slice());
        let rows = self.checkpoints.iter().map(|line| {
            let (own, shared) = line.own_and_shared();
            let state = match (&line.catalog, whole) {
                (Err(error), _) => error.to_string(),
                (Ok(_), Some(whole)) if whole.first() == Some(&line.number) => {
                    "the next boot begins here".to_owned()
                }
                (Ok(_), Some(whole)) if whole.contains(&line.number) => {
                    "kept to heal from".to_owned()
                }
                (Ok(_), Some(_)) => "holds sections of newer ones".to_owned(),
                (Ok(_), None) => "whole".to_owned(),
            };
            let lsn = line.catalog.as_ref().map_or("-".to_owned(), |c| count(c.lsn().get()));
            vec![line.number.0.to_string(), lsn, bytes(line.len), bytes(own), bytes(shared), state]
        });
        let heads = ["number", "commit", "file", "own sections", "of older files", ""];
        out.table(&heads, &[0, 1, 2, 3, 4], rows.collect())?;
        out.line("")
    }

    fn segments_text(&self, out: &mut Out<'_>) -> Done<()> {
        if self.segments.is_empty() {
            return Ok(());
        }
        out.head("log")?;
        let lsn = |lsn: Option<Lsn>| lsn.map_or("-".to_owned(), |lsn| count(lsn.get()));
        let rows = self.segments.iter().map(|line| {
            vec![
                line.number.0.to_string(),
                line.epoch.map_or("-".to_owned(), |epoch| epoch.to_string()),
                lsn(line.first),
                lsn(line.last),
                line.began_us.map_or("-".to_owned(), moment),
                format!("{} of {}", bytes(line.used), bytes(line.len)),
                line.broken.clone().unwrap_or_default(),
            ]
        });
        let heads = ["segment", "boot", "first commit", "last", "begun", "used", ""];
        out.table(&heads, &[0, 1, 2, 3, 5], rows.collect())
    }

    fn json(&self, out: &mut Out<'_>) -> Done<()> {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "info");
        object.string("store", self.store.files.path().to_string_lossy());
        let lineage = self.store.files.lineage();
        object.text_or_null("lineage", lineage.map(|lineage| format!("{:016x}", lineage.0)));
        object.number("format", u64::from(rocstate::FORMAT_VERSION));
        object.text("epoch", self.epoch());
        object.text("lsn", self.end());
        object.number("exit", self.health.exit as u64);
        json::list(object.field("damage"), &self.health.notes, |to, note| json::string(to, note));
        self.holder_json(object.field("lock"));
        self.boot_json(object.field("next_boot"));
        let regions = self.health.state.iter().flat_map(|snapshot| &snapshot.regions);
        json::list(object.field("regions"), regions, |to, of| {
            let region = self.store.region_of(of);
            let mut object = Object::begin(to);
            region.fields(of.entries, &mut object);
            object.number("checkpoint_bytes", self.bytes_of(of.number));
            object.end();
        });
        json::list(object.field("checkpoints"), &self.checkpoints, |to, line| {
            super::checkpoint::line_json(line, to);
        });
        json::list(object.field("segments"), &self.segments, segment_json);
        json::list(object.field("temporary"), self.store.files.temporary(), |to, name| {
            json::string(to, name);
        });
        object.end();
        out.document(&line)
    }

    fn holder_json(&self, to: &mut Vec<u8>) {
        let Some(holder) = &self.holder else {
            to.extend_from_slice(b"null");
            return;
        };
        let mut object = Object::begin(to);
        object.bool("held", holder.held);
        if let Some(pid) = holder.pid {
            object.number("pid", u64::from(pid));
        }
        if let Some(program) = &holder.program {
            object.string("program", program);
        }
        object.end();
    }

    fn boot_json(&self, to: &mut Vec<u8>) {
        let Some(outlook) = &self.health.outlook else {
            to.extend_from_slice(b"null");
            return;
        };
        let mut object = Object::begin(to);
        object.text_or_null("checkpoint", outlook.checkpoint.map(|(number, _)| number.0));
        object.number("commits", outlook.commits);
        object.number("operations", outlook.operations);
        object.number("log_bytes", outlook.log_bytes);
        object.number("torn_bytes", outlook.torn_bytes);
        object.text("claimed_lsn", outlook.claimed);
        let us =
            |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        object.number("estimate_us", us(outlook.estimate));
        object.number("replay_us", us(outlook.replay));
        object.end();
    }
}

fn times(epoch: u64) -> String {
    match epoch {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        n => format!("{} times", count(n)),
    }
}

fn segment_json(to: &mut Vec<u8>, line: &SegmentLine) {
    let mut object = Object::begin(to);
    object.text("number", line.number.0);
    object.text_or_null("epoch", line.epoch);
    object.text_or_null("first_lsn", line.first);
    object.text_or_null("last_lsn", line.last);
    object.text_or_null("begun", line.began_us.map(moment));
    object.number("used_bytes", line.used);
    object.number("file_bytes", line.len);
    if let Some(broken) = &line.broken {
        object.string("error", broken);
    }
    object.end();
}

fn lock_file(store: &Opened<'_>, out: &mut Out<'_>) -> Done {
    let sector = store.files.lock()?;
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "info");
        if let Some(sector) = sector {
            object.text("lineage", format_args!("{:016x}", sector.lineage.0));
            object.text("epoch", sector.epoch.0);
            object.text("newest_segment", sector.newest_segment.0);
        }
        object.end();
        out.document(&line)?;
    } else {
        match sector {
            Some(sector) => out.line(format!(
                "LOCK of the store with lineage {:016x}: booted {}; the newest segment is {}",
                sector.lineage.0,
                times(sector.epoch.0),
                sector.newest_segment.0
            ))?,
            None => out.line("LOCK of a store that was never begun")?,
        }
    }
    Ok(Exit::Fine)
}

fn segment_file(store: &Opened<'_>, number: SegmentNo, out: &mut Out<'_>) -> Done {
    let header = store.files.segment(number)?;
    let lines = segments(store)?;
    let broken = lines.iter().any(|line| line.broken.is_some());
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "info");
        object.text("lineage", format_args!("{:016x}", header.lineage.0));
        object.text("claim", header.claim);
        object.text("continues_segment", header.before.segment.0);
        object.text("continues_offset", header.before.offset);
        object.text("after_lsn", header.before.lsn);
        json::list(object.field("segments"), &lines, segment_json);
        object.end();
        out.document(&line)?;
    } else {
        out.head(&name::segment(number))?;
        out.line(format!(
            "  a segment of the log of the store with lineage {:016x}",
            header.lineage.0
        ))?;
        out.line(format!(
            "  begun by boot {}, continues segment {} at byte {}, after commit {}",
            header.epoch.0, header.before.segment.0, header.before.offset, header.before.lsn
        ))?;
        for line in &lines {
            let range = match (line.first, line.last) {
                (Some(first), Some(last)) => format!("commits {first} to {last}"),
                _ => "no commits".to_owned(),
            };
            out.line(format!("  {range}; {} of {} used", bytes(line.used), bytes(line.len)))?;
            if let Some(broken) = &line.broken {
                let text = out.ink(Ink::Bad, format!("  {broken}"));
                out.line(text)?;
            }
        }
    }
    Ok(if broken { Exit::Lost } else { Exit::Fine })
}
