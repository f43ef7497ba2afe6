//! `regions`, `get`, `scan`: what the store holds at a point.

use std::ops::ControlFlow;

use rocstate::format::shape::Schema;
use rocstate::inspect::{SnapshotRegion, Walked};

use crate::cli::Scan;
use crate::exit::{Done, Exit, Failure};
use crate::json::{self, Object};
use crate::out::{Ink, Out, begin_document, count};
use crate::point::Point;
use crate::region::Region;
use crate::shape::key_of_text;
use crate::store::Opened;

/// Says that a state is not the one that was asked for.
pub(super) fn note_shortfall(snapshot: &rocstate::inspect::Snapshot, out: &mut Out<'_>) -> Exit {
    match &snapshot.shortfall {
        None => Exit::Fine,
        Some(why) => {
            out.note(format!(
                "shown as of commit {}, since what follows is damaged: {why}",
                snapshot.lsn
            ));
            Exit::Lost
        }
    }
}

pub(crate) fn regions(store: &Opened<'_>, at: Point, out: &mut Out<'_>) -> Done {
    let snapshot = at.snapshot(&store.files)?;
    let exit = note_shortfall(&snapshot, out);
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "regions");
        object.text("lsn", snapshot.lsn);
        let to = object.field("regions");
        json::list(to, &snapshot.regions, |to, of| {
            let region = store.region_of(of);
            let mut object = Object::begin(to);
            region.fields(of.entries, &mut object);
            object.end();
        });
        object.end();
        out.document(&line)?;
        return Ok(exit);
    }
    let rows = snapshot.regions.iter().map(|of| {
        let region = store.region_of(of);
        vec![of.name.clone(), region.class().to_owned(), region.types(), count(of.entries)]
    });
    let rows = rows.collect();
    let text = out.ink(Ink::Faint, format!("at commit {}", snapshot.lsn));
    out.line(text)?;
    out.table(&["region", "class", "types", "entries"], &[3], rows)?;
    Ok(exit)
}

pub(crate) fn get(
    store: &Opened<'_>,
    name: &str,
    key: Option<&str>,
    at: Point,
    out: &mut Out<'_>,
) -> Done {
    let snapshot = at.snapshot(&store.files)?;
    let exit = note_shortfall(&snapshot, out);
    let (of, region) = store.find(&snapshot, name)?;
    let key = match (key, &region.schema) {
        (Some(_), _) if region.is_cell() => {
            return Err(Failure::usage(format!("{name} is a cell: it has one value, and no key")));
        }
        (Some(text), Some(schema)) => {
            key_of_text(text, &schema.key, false).map_err(Failure::usage)?
        }
        (Some(text), None) => text
            .strip_prefix("hex:")
            .and_then(json::from_hex)
            .ok_or_else(|| Failure::usage("the schema is unreadable: give the key as hex:00ff"))?,
        (None, _) if region.is_cell() => Vec::new(),
        (None, _) => return Err(Failure::usage(format!("{name} is a map: say which key"))),
    };
    let Some(value) = of.get(&key)? else {
        let what = if region.is_cell() {
            format!("{name} is empty at commit {}", snapshot.lsn)
        } else {
            format!("{name} has no key {} at commit {}", region.key_text(&key), snapshot.lsn)
        };
        return Err(Failure::no(what));
    };
    let mut text = Vec::new();
    let decoded = region.value(&key, &value, &mut text);
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "get");
        object.text("lsn", snapshot.lsn);
        object.string("region", name);
        region.key_field(&key, &mut object);
        region.value_field("value", &key, &value, &mut object);
        object.end();
        out.document(&line)?;
    } else if decoded.is_ok() {
        let pretty = serde_json::from_slice::<serde_json::Value>(&text)
            .and_then(|value| serde_json::to_string_pretty(&value));
        let pretty = pretty.unwrap_or_else(|_| String::from_utf8_lossy(&text).into_owned());
        for line in pretty.lines() {
            out.line(line)?;
        }
    } else {
        out.line(region.value_text(&key, &value))?;
    }
    Ok(exit.max(undecodable(&region, &decoded, out)))
}

/// A value whose region has a shape, and that has another one, is as good as lost.
fn undecodable(region: &Region, decoded: &Result<(), String>, out: &mut Out<'_>) -> Exit {
    match decoded {
        Err(why) if !region.is_opaque() => {
            out.note(format!("it cannot be decoded as {}: {why}", region.types()));
            Exit::Lost
        }
        _ => Exit::Fine,
    }
}

pub(crate) fn scan(store: &Opened<'_>, args: &Scan, out: &mut Out<'_>) -> Done {
    let snapshot = args.at.at.snapshot(&store.files)?;
    let mut exit = note_shortfall(&snapshot, out);
    let (of, region) = store.find(&snapshot, &args.region)?;
    let (lower, upper) = bounds(args, region.schema.as_ref())?;
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "scan");
        object.text("lsn", snapshot.lsn);
        object.string("region", &region.name);
        object.end();
        out.document(&line)?;
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let walked = walk(of, &region, &lower, upper.as_deref(), out, |out, key, value| {
        let Some(more) = left.checked_sub(1) else { return Ok(ControlFlow::Break(())) };
        left = more;
        let value = (!args.keys).then_some(value);
        print_entry(&region, key, value, out)?;
        Ok(ControlFlow::Continue(()))
    })?;
    exit = exit.max(walked);
    Ok(exit)
}

fn print_entry(region: &Region, key: &[u8], value: Option<&[u8]>, out: &mut Out<'_>) -> Done<()> {
    let mut line = Vec::new();
    if out.json {
        let mut object = Object::begin(&mut line);
        region.key_field(key, &mut object);
        if let Some(value) = value {
            region.value_field("value", key, value, &mut object);
        }
        object.end();
        return out.document(&line);
    }
    match value {
        Some(value) if region.is_cell() => out.line(region.value_text(key, value)),
        Some(value) => {
            let text = format!("{}  {}", region.key_text(key), region.value_text(key, value));
            out.line(text)
        }
        None => out.line(region.key_text(key)),
    }
}

/// Walks what is good, and tells people of what is not.
pub(crate) fn walk(
    of: &SnapshotRegion,
    region: &Region,
    lower: &[u8],
    upper: Option<&[u8]>,
    out: &mut Out<'_>,
    mut each: impl FnMut(&mut Out<'_>, &[u8], &[u8]) -> Done<ControlFlow<()>>,
) -> Done {
    let mut exit = Exit::Fine;
    let mut unproven = 0;
    let mut failure = None;
    of.walk(lower, upper, |walked| {
        let done = match walked {
            Walked::Entry { key, value } => each(out, key, value),
            Walked::Healed(error) => {
                out.note(format!("healed by an older checkpoint and the log: {error}"));
                exit = exit.max(Exit::Repairable);
                Ok(ControlFlow::Continue(()))
            }
            Walked::WithoutIndex(error) => {
                out.note(format!("the entries were found without their index: {error}"));
                exit = exit.max(Exit::Repairable);
                Ok(ControlFlow::Continue(()))
            }
            Walked::Lost(lost) => {
                out.note(lost_text(region, &lost));
                exit = Exit::Lost;
                Ok(ControlFlow::Continue(()))
            }
            Walked::Unproven { .. } => {
                unproven += 1;
                Ok(ControlFlow::Continue(()))
            }
        };
        Ok(done.unwrap_or_else(|why| {
            failure = Some(why);
            ControlFlow::Break(())
        }))
    })?;
    failure.map_or(Ok(()), Err)?;
    if unproven > 0 {
        out.note(format!(
            "{unproven} entries are left out: what is damaged may say something newer of them"
        ));
    }
    Ok(exit)
}

/// What is lost, for people.
pub(super) fn lost_text(region: &Region, lost: &rocstate::inspect::Lost) -> String {
    let to = lost.to.as_ref().map_or("the end".to_owned(), |to| region.key_text(to));
    let entries = lost.entries.map_or("entries".to_owned(), |n| format!("up to {n} entries"));
    format!(
        "lost: {entries} of {} from {} to before {to}: {}",
        region.name,
        region.key_text(&lost.from),
        lost.error
    )
}

/// The first key, and the first one beyond.
fn bounds(args: &Scan, schema: Option<&Schema>) -> Done<(Vec<u8>, Option<Vec<u8>>)> {
    let key = |text: &str, leading| match schema {
        Some(schema) => key_of_text(text, &schema.key, leading).map_err(Failure::usage),
        None => text
            .strip_prefix("hex:")
            .and_then(json::from_hex)
            .ok_or_else(|| Failure::usage("the schema is unreadable: give keys as hex:00ff")),
    };
    if let Some(prefix) = &args.prefix {
        let mut lower = key(prefix, true)?;
        // A string's end is marked by two zeros, which what continues it does not have there.
        let is_text = schema.is_some_and(|schema| is_text(&schema.key));
        if is_text && !prefix.starts_with("hex:") {
            lower.truncate(lower.len().saturating_sub(2));
        }
        let upper = successor(&lower);
        return Ok((lower, upper));
    }
    let lower = args.from.as_deref().map(|text| key(text, true)).transpose()?;
    let upper = args.to.as_deref().map(|text| key(text, true)).transpose()?;
    Ok((lower.unwrap_or_default(), upper))
}

fn is_text(shape: &rocstate::KeyShape) -> bool {
    match shape {
        rocstate::KeyShape::String | rocstate::KeyShape::Bytes => true,
        rocstate::KeyShape::Newtype(_, inner) => is_text(inner),
        _ => false,
    }
}

/// The first bytes behind all that begin like these.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix.get(..=last)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}
