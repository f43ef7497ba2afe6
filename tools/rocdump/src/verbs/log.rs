//! `log`: the commits of the log, a line each.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use rocstate::Lsn;
use rocstate::format::RegionNo;
use rocstate::format::operation::Operation;
use rocstate::inspect::{Commit, LogEvent, LogFrame, LogGap};

use super::follow;
use crate::cli::Log;
use crate::exit::{Done, Exit, Failure};
use crate::json::{self, Object};
use crate::out::{Out, begin_document, counted, harmless, moment};
use crate::shape::key_of_text;
use crate::store::{Opened, Regions};

pub(crate) fn run(store: &Opened<'_>, args: &Log, out: &mut Out<'_>) -> Done {
    let from = args.from.map_or(Ok(Lsn::ZERO), |point| point.commit(&store.files))?;
    let to = args.to.map(|point| point.lsn(&store.files)).transpose()?.flatten();
    let mut printer = Printer::new(store, args, out)?;
    if out.json {
        let mut line = Vec::new();
        begin_document(&mut line, "log").end();
        out.document(&line)?;
    }
    if args.follow {
        return follow::run(store, from, to, args.idle, printer, out);
    }
    if args.reverse {
        return reversed(store, from, to, printer, out);
    }
    let mut failure = None;
    store.files.walk_log(from, |event| {
        let done = printer.event(&event, from, to, out);
        Ok(done.unwrap_or_else(|why| {
            failure = Some(why);
            ControlFlow::Break(())
        }))
    })?;
    failure.map_or(Ok(()), Err)?;
    Ok(printer.end(from, out))
}

/// The same from the newest to the oldest: frame by frame, whose numbers are gathered first.
fn reversed(
    store: &Opened<'_>,
    from: Lsn,
    to: Option<Lsn>,
    mut printer: Printer<'_>,
    out: &mut Out<'_>,
) -> Done {
    let mut firsts = Vec::new();
    store.files.walk_log(from, |event| {
        match event {
            LogEvent::Frame(frame) if frame.header.facts.commits > 0 => {
                firsts.push((frame.header.facts.first_lsn, frame.header.len));
            }
            LogEvent::Gap(gap) => printer.gaps.push(gap),
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    firsts.retain(|(first, _)| to.is_none_or(|to| *first <= to));
    // Many frames are read at once, so that the log is not searched anew for each.
    while let Some((last, _)) = firsts.last().copied() {
        let begin = batch(&firsts);
        let first = firsts.get(begin).map_or(last, |(first, _)| *first);
        let mut lines: Vec<Vec<u8>> = Vec::new();
        store.files.walk_log(first, |event| {
            if let LogEvent::Frame(frame) = event {
                if frame.header.facts.first_lsn > last {
                    return Ok(ControlFlow::Break(()));
                }
                printer.frame(&frame, from, to, &mut |line| {
                    lines.push(line.to_vec());
                    ControlFlow::Continue(())
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for line in lines.iter().rev() {
            if !printer.wants_more() {
                return Ok(printer.end(from, out));
            }
            printer.shown += 1;
            out.write(line)?;
        }
        firsts.truncate(begin);
    }
    Ok(printer.end(from, out))
}

/// Where the last frames begin that are read at once: many if they are small, at least one.
fn batch(frames: &[(Lsn, u64)]) -> usize {
    let mut bytes = 0;
    let fits = frames.iter().rev().take_while(|(_, len)| {
        bytes += len;
        bytes <= BYTES_AT_ONCE
    });
    let count = fits.count().clamp(1, FRAMES_AT_ONCE);
    frames.len().saturating_sub(count)
}

const FRAMES_AT_ONCE: usize = 4096;
const BYTES_AT_ONCE: u64 = 4 << 20;

/// Prints what of the log is asked for.
pub(super) struct Printer<'a> {
    args: &'a Log,
    regions: Regions<'a>,
    /// The regions that count; all if there are none.
    wanted: HashSet<RegionNo>,
    key: Option<Vec<u8>>,
    json: bool,
    pub(super) shown: u64,
    /// The commit behind the last one that was weighed.
    pub(super) next: Lsn,
    pub(super) gaps: Vec<LogGap>,
    oldest: Option<Lsn>,
    /// What repeats from one commit of a frame to the next.
    time: (u64, String),
    line: Vec<u8>,
}

impl<'a> Printer<'a> {
    fn new(store: &Opened<'a>, args: &'a Log, out: &Out<'_>) -> Done<Printer<'a>> {
        let regions = store.regions()?;
        let mut wanted = HashSet::new();
        let mut key = None;
        {
            let names = regions.by_name();
            for name in &args.region {
                let region = names.get(name.as_str()).ok_or_else(|| {
                    let others: Vec<&str> = names.keys().copied().collect();
                    Failure::no(format!(
                        "there is no region {name:?}; there are: {}",
                        others.join(", ")
                    ))
                })?;
                wanted.insert(region.number);
                if let (Some(text), Some(schema)) = (&args.key, &region.schema) {
                    key = Some(key_of_text(text, &schema.key, false).map_err(Failure::usage)?);
                }
            }
        }
        Ok(Printer {
            args,
            regions,
            wanted,
            key,
            json: out.json,
            shown: 0,
            next: Lsn::ZERO,
            gaps: Vec::new(),
            oldest: None,
            time: (0, String::new()),
            line: Vec::new(),
        })
    }

    /// Whether less was shown than is asked for.
    pub(super) fn wants_more(&self) -> bool {
        self.args.limit.is_none_or(|limit| self.shown < limit)
    }

    pub(super) fn event(
        &mut self,
        event: &LogEvent<'_>,
        from: Lsn,
        to: Option<Lsn>,
        out: &mut Out<'_>,
    ) -> Done<ControlFlow<()>> {
        match event {
            LogEvent::Frame(frame) => {
                let mut done = Ok(());
                let limit = self.args.limit.unwrap_or(u64::MAX);
                let mut shown = self.shown;
                if shown == limit {
                    return Ok(ControlFlow::Break(()));
                }
                self.frame(frame, from, to, &mut |line| {
                    shown += 1;
                    done = out.write(line);
                    let enough = done.is_err() || shown == limit;
                    if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                });
                self.shown = shown;
                done?;
                let over = to.is_some_and(|to| frame.header.last_lsn() >= to);
                if over || !self.wants_more() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            LogEvent::Gap(gap) => {
                self.gap(gap, out)?;
                self.gaps.push(gap.clone());
            }
            LogEvent::Segment(header) => {
                self.oldest.get_or_insert(header.before.lsn);
            }
            LogEvent::End(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Calls `each` with the line of each commit of a frame that is asked for, until it breaks off.
    pub(super) fn frame(
        &mut self,
        frame: &LogFrame<'_>,
        from: Lsn,
        to: Option<Lsn>,
        each: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) {
        if self.time.0 != frame.header.facts.time_us || self.time.1.is_empty() {
            self.time = (frame.header.facts.time_us, moment(frame.header.facts.time_us));
        }
        for commit in frame.commits() {
            // What a checksum vouches for and is malformed nevertheless ends the frame.
            let Ok(commit) = commit else { break };
            self.regions.learn(commit.operations().flatten());
            let asked = commit.lsn >= from && to.is_none_or(|to| commit.lsn <= to);
            if !asked || !self.touches(&commit) {
                continue;
            }
            let mut line = std::mem::take(&mut self.line);
            line.clear();
            if self.json {
                self.json_line(frame, &commit, &mut line);
            } else {
                self.text_line(frame, &commit, &mut line);
            }
            let flow =
                if self.greps(&commit, &line) { each(&line) } else { ControlFlow::Continue(()) };
            self.line = line;
            if flow.is_break() {
                self.next = commit.lsn.next();
                return;
            }
        }
        self.next = frame.header.last_lsn().next();
    }

    fn touches(&self, commit: &Commit<'_>) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        commit.operations().flatten().any(|operation| {
            let region = self.wanted.contains(&operation.region());
            region && self.key.as_deref().is_none_or(|key| key_of(&operation) == Some(key))
        })
    }

    /// Whether the text that is looked for is in the label, or in a key or value.
    fn greps(&mut self, commit: &Commit<'_>, line: &[u8]) -> bool {
        let Some(text) = &self.args.grep else { return true };
        let contains =
            |bytes: &[u8]| bytes.windows(text.len().max(1)).any(|part| part == text.as_bytes());
        if text.is_empty()
            || commit.label.contains(text.as_str())
            || (self.args.ops && contains(line))
        {
            return true;
        }
        let mut shown = Vec::new();
        for operation in commit.operations().flatten() {
            let region = self.regions.get(operation.region());
            let (key, value) = (key_of(&operation).unwrap_or_default(), value_of(&operation));
            if region.key(key, &mut shown).is_err() {
                json::hex(&mut shown, key);
            }
            if region.value(key, value.unwrap_or_default(), &mut shown).is_err() {
                json::hex(&mut shown, value.unwrap_or_default());
            }
        }
        contains(&shown)
    }

    fn text_line(&mut self, frame: &LogFrame<'_>, commit: &Commit<'_>, to: &mut Vec<u8>) {
        let mut text = String::new();
        let time = self.time.1.as_str();
        let label = if commit.label.is_empty() { "-" } else { commit.label };
        // Writing to a string does not fail.
        write!(text, "{:>10}  {time}  {label:<16}", commit.lsn.get()).unwrap_or_default();
        self.summary(commit, &mut text);
        if !frame.claimed {
            text.push_str("  (not yet known to be synced)");
        }
        to.extend_from_slice(harmless(&text).as_bytes());
        to.push(b'\n');
        if self.args.ops {
            for operation in commit.operations().flatten() {
                to.extend_from_slice(harmless(&self.operation_text(&operation)).as_bytes());
                to.push(b'\n');
            }
        }
    }

    /// What a commit does to each region, in a few signs.
    fn summary(&mut self, commit: &Commit<'_>, to: &mut String) {
        let mut current: Option<(RegionNo, [u64; 3])> = None;
        for operation in commit.operations().flatten() {
            let region = operation.region();
            let sign = match operation {
                Operation::Insert { .. } => 0,
                Operation::Replace { .. } => 1,
                Operation::Remove { .. } => 2,
                Operation::Create { name, .. } => {
                    self.counts(current.take(), to);
                    write!(to, "  created {name}").unwrap_or_default();
                    continue;
                }
                Operation::RemoveRegion { .. } | Operation::Clear { .. } => {
                    self.counts(current.take(), to);
                    let name = &self.regions.get(region).name;
                    let what = if matches!(operation, Operation::Clear { .. }) {
                        "cleared"
                    } else {
                        "removed"
                    };
                    write!(to, "  {what} {name}").unwrap_or_default();
                    continue;
                }
            };
            match &mut current {
                Some((last, counts)) if *last == region => counts[sign] += 1,
                _ => {
                    self.counts(current.take(), to);
                    let mut counts = [0; 3];
                    counts[sign] = 1;
                    current = Some((region, counts));
                }
            }
        }
        self.counts(current, to);
    }

    fn counts(&mut self, counts: Option<(RegionNo, [u64; 3])>, to: &mut String) {
        let Some((region, counts)) = counts else { return };
        to.push_str("  ");
        to.push_str(&self.regions.get(region).name);
        for (count, sign) in counts.into_iter().zip(["+", "~", "-"]) {
            if count > 0 {
                write!(to, " {sign}{count}").unwrap_or_default();
            }
        }
    }

    fn operation_text(&mut self, operation: &Operation<'_>) -> String {
        let region = self.regions.get(operation.region());
        let name = &region.name;
        match *operation {
            Operation::Create { .. } => {
                format!("              + region {name}: {}", region.types())
            }
            Operation::RemoveRegion { .. } => format!("              - region {name}"),
            Operation::Clear { .. } => format!("              - every entry of {name}"),
            Operation::Insert { key, value, .. } | Operation::Replace { key, value, .. } => {
                let sign = if matches!(operation, Operation::Insert { .. }) { '+' } else { '~' };
                let value = region.value_text(key, value);
                if region.is_cell() {
                    format!("              {sign} {name} = {value}")
                } else {
                    format!("              {sign} {name} {} = {value}", region.key_text(key))
                }
            }
            Operation::Remove { key, .. } => {
                format!("              - {name} {}", region.key_text(key))
            }
        }
    }

    fn json_line(&mut self, frame: &LogFrame<'_>, commit: &Commit<'_>, to: &mut Vec<u8>) {
        let mut object = Object::begin(to);
        object.string("type", "commit");
        object.text("lsn", commit.lsn);
        object.text("time", &self.time.1);
        object.string("label", commit.label);
        object.text("segment", frame.segment.0);
        object.number("offset", frame.header.begin);
        object.bool("claimed", frame.claimed);
        json::list(object.field("operations"), commit.operations().flatten(), |to, operation| {
            write_operation(&self.regions.get(operation.region()), &operation, to);
        });
        object.end();
        to.push(b'\n');
    }

    fn gap(&self, gap: &LogGap, out: &mut Out<'_>) -> Done<()> {
        if !self.json {
            let lost = match gap.last {
                Some(last) if last < gap.first => "no commit".to_owned(),
                Some(last) if last == gap.first => format!("commit {last}"),
                Some(last) => format!("commits {} to {last}", gap.first),
                None => format!("commits from {} on", gap.first),
            };
            let text = format!("            unreadable: {lost}: {}", gap.error);
            let text = out.ink(crate::out::Ink::Bad, text);
            return out.line(text);
        }
        let mut line = Vec::new();
        write_gap(gap, &mut line);
        out.document(&line)
    }

    /// What the process returns after all of it.
    pub(super) fn end(&self, from: Lsn, out: &mut Out<'_>) -> Exit {
        if let Some(oldest) = self.oldest.filter(|oldest| from > Lsn::ZERO && *oldest >= from) {
            out.note(format!("the log that is kept begins after commit {oldest}"));
            return Exit::No;
        }
        if !self.gaps.is_empty() {
            let gaps = counted(self.gaps.len() as u64, "place");
            out.note(format!(
                "{gaps} of the log could not be read; `verify` tells what that means"
            ));
            return Exit::Lost;
        }
        Exit::Fine
    }
}

pub(super) fn write_gap(gap: &LogGap, to: &mut Vec<u8>) {
    let mut object = Object::begin(to);
    object.string("type", "gap");
    object.text("segment", gap.segment.0);
    object.text("first", gap.first);
    object.text_or_null("last", gap.last);
    object.string("error", gap.error.to_string());
    object.end();
}

/// The key that an operation is on.
pub(super) fn key_of<'a>(operation: &Operation<'a>) -> Option<&'a [u8]> {
    match *operation {
        Operation::Insert { key, .. }
        | Operation::Replace { key, .. }
        | Operation::Remove { key, .. } => Some(key),
        _ => None,
    }
}

pub(super) fn value_of<'a>(operation: &Operation<'a>) -> Option<&'a [u8]> {
    match *operation {
        Operation::Insert { value, .. } | Operation::Replace { value, .. } => Some(value),
        _ => None,
    }
}

pub(super) fn name_of(operation: &Operation<'_>) -> &'static str {
    match operation {
        Operation::Create { .. } => "create",
        Operation::RemoveRegion { .. } => "remove-region",
        Operation::Insert { .. } => "insert",
        Operation::Replace { .. } => "replace",
        Operation::Remove { .. } => "remove",
        Operation::Clear { .. } => "clear",
    }
}

/// An operation as a JSON object.
pub(super) fn write_operation(
    region: &crate::region::Region,
    operation: &Operation<'_>,
    to: &mut Vec<u8>,
) {
    let mut object = Object::begin(to);
    object.string("op", name_of(operation));
    object.string("region", &region.name);
    if let Some(key) = key_of(operation) {
        region.key_field(key, &mut object);
        if let Some(value) = value_of(operation) {
            region.value_field("value", key, value, &mut object);
        }
    }
    if let Operation::Create { .. } = operation {
        object.string("types", region.types());
    }
    object.end();
}
