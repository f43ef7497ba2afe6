//! `show`: one commit, its frame, its operations, its bytes with what they mean.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use rocstate::format::frame::{FRAME_FIELDS, FRAME_HEADER_BYTES, FrameHeader};
use rocstate::inspect::LogEvent;

use super::log::{key_of, name_of, value_of, write_operation};
use crate::exit::{Done, Exit, Failure};
use crate::json;
use crate::out::{Out, begin_document, bytes, counted, moment};
use crate::point::Point;
use crate::store::Opened;

/// Longer records are shown by their beginning.
const HEX_BYTES_MAX: usize = 4096;

/// A commit, copied out of the log.
struct Found {
    segment: String,
    header: FrameHeader,
    claimed: bool,
    label: String,
    /// Where its record lies in the frame's records.
    record: (usize, usize),
    records: Vec<u8>,
    head: Vec<u8>,
}

impl Found {
    fn record(&self) -> &[u8] {
        self.records.get(self.record.0..self.record.1).unwrap_or_default()
    }
}

pub(crate) fn run(store: &Opened<'_>, point: Point, out: &mut Out<'_>) -> Done {
    let lsn = point.commit(&store.files)?;
    let mut regions = store.regions()?;
    let mut found = None;
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut operations = Vec::new();
    let mut gap = None;
    store.files.walk_log(lsn, |event| {
        match event {
            LogEvent::Gap(broken)
                if broken.first <= lsn && broken.last.is_none_or(|last| last >= lsn) =>
            {
                gap = Some(broken.error);
            }
            LogEvent::Frame(frame) if frame.header.last_lsn() >= lsn => {
                for commit in frame.commits() {
                    let commit = commit?;
                    regions.learn(commit.operations().flatten());
                    if commit.lsn != lsn {
                        continue;
                    }
                    json::list(&mut operations, commit.operations().flatten(), |to, operation| {
                        write_operation(&regions.get(operation.region()), &operation, to);
                    });
                    for operation in commit.operations().flatten() {
                        let region = regions.get(operation.region());
                        let key = key_of(&operation).unwrap_or_default();
                        let what = match (key_of(&operation), value_of(&operation)) {
                            (Some(_), Some(value)) if region.is_cell() => {
                                format!("{} = {}", region.name, region.value_text(key, value))
                            }
                            (Some(_), Some(value)) => format!(
                                "{} {} = {}",
                                region.name,
                                region.key_text(key),
                                region.value_text(key, value)
                            ),
                            (Some(_), None) => format!("{} {}", region.name, region.key_text(key)),
                            _ => format!("{}: {}", region.name, region.types()),
                        };
                        lines.push((name_of(&operation).to_owned(), what));
                    }
                    let segment = store.files.name_of_segment(frame.segment);
                    let head_len = FRAME_HEADER_BYTES as u64;
                    let head = store.files.read(&segment, frame.header.begin, head_len)?;
                    found = Some(Found {
                        segment,
                        header: frame.header,
                        claimed: frame.claimed,
                        label: commit.label.to_owned(),
                        record: commit.record,
                        records: frame.records().to_vec(),
                        head,
                    });
                }
                return Ok(ControlFlow::Break(()));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match (found, gap) {
        (Some(found), _) if out.json => {
            json_of(lsn.get(), &found, &operations, out)?;
            Ok(Exit::Fine)
        }
        (Some(found), _) => {
            text_of(lsn.get(), &found, &lines, out)?;
            Ok(Exit::Fine)
        }
        (None, Some(error)) => Err(error.into()),
        (None, None) => {
            Err(Failure::no(format!("the log that is kept does not hold commit {lsn}")))
        }
    }
}

fn json_of(lsn: u64, found: &Found, operations: &[u8], out: &mut Out<'_>) -> Done<()> {
    let facts = &found.header.facts;
    let mut line = Vec::new();
    let mut object = begin_document(&mut line, "show");
    object.text("lsn", lsn);
    object.text("time", moment(facts.time_us));
    object.string("label", &found.label);
    object.string("file", &found.segment);
    object.number("offset", found.header.begin);
    object.number("frame_bytes", found.header.len);
    object.number("commits_in_frame", u64::from(facts.commits));
    object.text("first_lsn", facts.first_lsn);
    object.text("checksum", format_args!("{:08x}", found.header.sum));
    object.text("chain", format_args!("{:08x}", facts.chain));
    object.number("claim", facts.claim);
    object.number("follows", facts.follows);
    object.bool("claimed", found.claimed);
    object.field("operations").extend_from_slice(operations);
    object.hex("record", found.record());
    object.end();
    out.document(&line)
}

fn text_of(lsn: u64, found: &Found, lines: &[(String, String)], out: &mut Out<'_>) -> Done<()> {
    let facts = &found.header.facts;
    let label = if found.label.is_empty() {
        "no label".to_owned()
    } else {
        format!("label {:?}", found.label)
    };
    out.head(&format!("commit {lsn}"))?;
    out.line(format!("  written    {}, {label}", moment(facts.time_us)))?;
    let alone = match facts.commits {
        1 => "alone in its frame".to_owned(),
        n => format!("one of {n} in its frame, {} to {}", facts.first_lsn, found.header.last_lsn()),
    };
    out.line(format!(
        "  frame      {} at byte {}, {}; {alone}",
        found.segment,
        found.header.begin,
        bytes(found.header.len)
    ))?;
    out.line(format!(
        "  checksum   {:08x}, right; continues {:08x}, which ends at byte {}",
        found.header.sum, facts.chain, facts.follows
    ))?;
    let synced = if found.claimed {
        "yes: something written later says so"
    } else {
        "nothing on disk says so yet"
    };
    out.line(format!("  synced     {synced}"))?;
    out.line("")?;
    out.head(&counted(lines.len() as u64, "operation"))?;
    for (name, what) in lines {
        out.line(format!("  {name:<14} {what}"))?;
    }
    out.line("")?;
    out.head("bytes")?;
    for (from, to, what) in FRAME_FIELDS {
        let part = found.head.get(from..to).unwrap_or_default();
        let at = found.header.begin + from as u64;
        out.line(hex_line(at, part, what))?;
    }
    let record = found.record();
    let begin = found.header.begin + (FRAME_HEADER_BYTES + found.record.0) as u64;
    let shown = record.get(..HEX_BYTES_MAX).unwrap_or(record);
    for (at, part) in (begin..).step_by(16).zip(shown.chunks(16)) {
        let text: String = part
            .iter()
            .map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' })
            .collect();
        out.line(hex_line(at, part, &text))?;
    }
    if shown.len() < record.len() {
        out.line(format!("  ... and {} more", bytes((record.len() - shown.len()) as u64)))?;
    }
    Ok(())
}

fn hex_line(at: u64, bytes: &[u8], what: &str) -> String {
    let mut line = format!("  {at:08x}  ");
    for byte in bytes {
        // Writing to a string does not fail.
        write!(line, "{byte:02x} ").unwrap_or_default();
    }
    format!("{line:<60} {what}")
}
