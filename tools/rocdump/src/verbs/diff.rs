//! `diff`: what changed between two points or two stores, field by field.

use std::collections::BTreeSet;

use rocstate::inspect::{Snapshot, SnapshotRegion};
use serde_json::Value;

use super::read::note_shortfall;
use crate::exit::{Done, Exit, Failure};
use crate::join::join;
use crate::json::{self, Object};
use crate::out::{Ink, Out, begin_document, count};
use crate::point::Point;
use crate::region::Region;
use crate::store::Opened;

/// Longer values are not compared field by field.
const FIELDS_BYTES_MAX: usize = 1 << 20;

pub(crate) type Side<'a> = (&'a Opened<'a>, Point);

#[derive(Default)]
struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
}

pub(crate) fn run(sides: (Side<'_>, Side<'_>), region: Option<&str>, out: &mut Out<'_>) -> Done {
    let (first, second) = sides;
    let (old, new) = (first.1.snapshot(&first.0.files)?, second.1.snapshot(&second.0.files)?);
    let mut exit = note_shortfall(&old, out).max(note_shortfall(&new, out));
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "diff");
        object.text("from", old.lsn);
        object.text("to", new.lsn);
        object.end();
        out.document(&line)?;
    }
    let mut counts = Counts::default();
    let all = old.regions.iter().chain(&new.regions).map(|of| of.name.as_str());
    let names: BTreeSet<&str> =
        all.filter(|name| region.is_none_or(|only| only == *name)).collect();
    if let (true, Some(name)) = (names.is_empty(), region) {
        return Err(Failure::no(format!("neither side has a region {name:?}")));
    }
    for name in names {
        let of = |snapshot: &Snapshot| snapshot.regions.iter().find(|of| of.name == name).cloned();
        let mut diff = RegionDiff {
            name,
            old: of(&old).map(|of| (first.0.region_of(&of), of)),
            new: of(&new).map(|of| (second.0.region_of(&of), of)),
            counts: &mut counts,
            told: false,
        };
        exit = exit.max(diff.run(out)?);
    }
    let same = counts.added + counts.removed + counts.changed == 0;
    if out.json {
        let mut line = Vec::new();
        let mut object = Object::begin(&mut line);
        object.string("type", "summary");
        object.number("added", counts.added);
        object.number("removed", counts.removed);
        object.number("changed", counts.changed);
        object.end();
        out.document(&line)?;
    } else if same {
        out.line(format!("the same at commits {} and {}", old.lsn, new.lsn))?;
    } else {
        let Counts { added, removed, changed } = counts;
        let text = format!(
            "commits {} to {}: {} added, {} removed, {} changed",
            old.lsn,
            new.lsn,
            count(added),
            count(removed),
            count(changed)
        );
        let text = out.ink(Ink::Faint, text);
        out.line(text)?;
    }
    Ok(if exit > Exit::Fine || same { exit } else { Exit::No })
}

struct RegionDiff<'a> {
    name: &'a str,
    old: Option<(Region, SnapshotRegion)>,
    new: Option<(Region, SnapshotRegion)>,
    counts: &'a mut Counts,
    told: bool,
}

impl RegionDiff<'_> {
    fn run(&mut self, out: &mut Out<'_>) -> Done {
        self.shapes(out)?;
        let (old, new) = (self.old.clone(), self.new.clone());
        join(old.as_ref(), new.as_ref(), out, |out, key, old, new| self.tell(out, key, old, new))
    }

    /// A region that is new or gone counts as a change, and one whose types changed.
    fn shapes(&mut self, out: &mut Out<'_>) -> Done<()> {
        let (change, what) = match (&self.old, &self.new) {
            (Some((_, old)), Some((_, new))) if old.schema == new.schema => return Ok(()),
            (Some((old, _)), Some((new, _))) => {
                ("changed", format!("types were {}, are {}", old.types(), new.types()))
            }
            (None, Some((new, _))) => ("added", new.types()),
            (Some((old, _)), None) => ("removed", old.types()),
            (None, None) => return Ok(()),
        };
        match change {
            "added" => self.counts.added += 1,
            "removed" => self.counts.removed += 1,
            _ => self.counts.changed += 1,
        }
        if out.json {
            let mut line = Vec::new();
            let mut object = Object::begin(&mut line);
            object.string("type", "region");
            object.string("change", change);
            object.string("region", self.name);
            object.string("types", what);
            object.end();
            return out.document(&line);
        }
        self.head(out)?;
        let ink = if change == "removed" { Ink::Bad } else { Ink::Good };
        let text = out.ink(ink, format!("  the region is {change}: {what}"));
        out.line(text)
    }

    fn head(&mut self, out: &mut Out<'_>) -> Done<()> {
        if std::mem::replace(&mut self.told, true) { Ok(()) } else { out.head(self.name) }
    }

    fn tell(
        &mut self,
        out: &mut Out<'_>,
        key: &[u8],
        old: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Done<()> {
        let side = if new.is_some() { &self.new } else { &self.old };
        let Some((region, _)) = side.clone() else { return Ok(()) };
        let was = self.old.as_ref().map_or(region.clone(), |(region, _)| region.clone());
        match (old, new) {
            (None, _) => self.counts.added += 1,
            (_, None) => self.counts.removed += 1,
            _ => self.counts.changed += 1,
        }
        if out.json {
            return json_line(&was, &region, key, old, new, out);
        }
        self.head(out)?;
        let name = if region.is_cell() { "the value".to_owned() } else { region.key_text(key) };
        match (old, new) {
            (None, Some(new)) => {
                let text = format!("  + {name} = {}", region.value_text(key, new));
                let text = out.ink(Ink::Good, text);
                out.line(text)
            }
            (Some(old), None) => {
                let text = format!("  - {name} = {}", was.value_text(key, old));
                let text = out.ink(Ink::Bad, text);
                out.line(text)
            }
            (Some(old), Some(new)) => {
                let text = out.ink(Ink::Warn, format!("  ~ {name}"));
                out.line(text)?;
                for (path, from, to) in fields_of(&was, &region, key, old, new) {
                    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
                    out.line(format!(
                        "      {path}{} -> {}",
                        or_absent(from.as_ref()),
                        or_absent(to.as_ref())
                    ))?;
                }
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }
}

fn or_absent(value: Option<&Value>) -> String {
    value.map_or("(absent)".to_owned(), ToString::to_string)
}

fn json_line(
    was: &Region,
    region: &Region,
    key: &[u8],
    old: Option<&[u8]>,
    new: Option<&[u8]>,
    out: &mut Out<'_>,
) -> Done<()> {
    let mut line = Vec::new();
    let mut object = Object::begin(&mut line);
    object.string("type", "entry");
    let change = match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    object.string("change", change);
    object.string("region", &region.name);
    region.key_field(key, &mut object);
    for (name, region, value) in [("old", was, old), ("new", region, new)] {
        if let Some(value) = value {
            region.value_field(name, key, value, &mut object);
        }
    }
    if let (Some(old), Some(new)) = (old, new) {
        let fields = fields_of(was, region, key, old, new);
        json::list(object.field("fields"), fields, |to, (path, from, to_value)| {
            let mut object = Object::begin(to);
            object.string("path", path);
            for (name, value) in [("old", from), ("new", to_value)] {
                if let Some(value) = value {
                    object.field(name).extend_from_slice(value.to_string().as_bytes());
                }
            }
            object.end();
        });
    }
    object.end();
    out.document(&line)
}

type Field = (String, Option<Value>, Option<Value>);

/// Where two values differ, outermost first.
fn fields_of(was: &Region, region: &Region, key: &[u8], old: &[u8], new: &[u8]) -> Vec<Field> {
    let parsed = |region: &Region, bytes: &[u8]| -> Value {
        if bytes.len() > FIELDS_BYTES_MAX {
            return Value::String(format!("{} bytes", bytes.len()));
        }
        let mut text = Vec::new();
        let json = region.value(key, bytes, &mut text).ok();
        json.and_then(|()| serde_json::from_slice(&text).ok())
            .unwrap_or_else(|| Value::String(region.value_text(key, bytes)))
    };
    let mut found = Vec::new();
    compare(String::new(), Some(&parsed(was, old)), Some(&parsed(region, new)), &mut found);
    found
}

fn compare(path: String, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Field>) {
    let join =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (name, value) in old {
                compare(join(name), Some(value), new.get(name), found);
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                compare(join(name), None, Some(value), found);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                compare(format!("{path}[{at}]"), old.get(at), new.get(at), found);
            }
        }
        (old, new) => found.push((path, old.cloned(), new.cloned())),
    }
}
