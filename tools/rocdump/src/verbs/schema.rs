//! `schema`: the stored shapes as Rust types, and where they differ between two points.

use std::collections::BTreeMap;

use rocstate::format::shape::Schema;
use rocstate::inspect::Snapshot;

use crate::exit::{Done, Exit};
use crate::json::{self, Object};
use crate::out::{Out, begin_document};
use crate::point::Point;
use crate::shape::rust;
use crate::store::Opened;

pub(crate) fn run(
    store: &Opened<'_>,
    region: Option<&str>,
    at: Point,
    against: Option<Point>,
    out: &mut Out<'_>,
) -> Done {
    let snapshot = at.snapshot(&store.files)?;
    if let Some(name) = region {
        store.find(&snapshot, name)?;
    }
    match against {
        Some(other) => {
            let other = other.snapshot(&store.files)?;
            differences(&snapshot, &other, region, out)
        }
        None => sources(&snapshot, region, out),
    }
}

type Schemas<'a> = BTreeMap<&'a str, (Option<Schema>, &'a [u8])>;

fn schemas<'a>(snapshot: &'a Snapshot, region: Option<&str>) -> Schemas<'a> {
    let wanted = snapshot.regions.iter().filter(|of| region.is_none_or(|name| of.name == name));
    let schema = |encoded: &'a [u8]| (Schema::decode(encoded).ok(), encoded);
    wanted.map(|of| (of.name.as_str(), schema(&of.schema))).collect()
}

fn sources(snapshot: &Snapshot, region: Option<&str>, out: &mut Out<'_>) -> Done {
    let schemas = schemas(snapshot, region);
    let source = |name: &str, schema: &Option<Schema>| {
        let unreadable = || format!("// The schema of {name:?} cannot be read.\n");
        schema.as_ref().map_or_else(unreadable, |schema| rust::source(name, schema))
    };
    let exit =
        if schemas.values().all(|(schema, _)| schema.is_some()) { Exit::Fine } else { Exit::Lost };
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "schema");
        object.text("lsn", snapshot.lsn);
        json::list(object.field("regions"), &schemas, |to, (name, (schema, encoded))| {
            let mut object = Object::begin(to);
            object.string("name", name);
            object.string("rust", source(name, schema));
            object.hex("encoded", encoded);
            object.end();
        });
        object.end();
        out.document(&line)?;
        return Ok(exit);
    }
    for (at, (name, (schema, _))) in schemas.iter().enumerate() {
        if at > 0 {
            out.line("")?;
        }
        for line in source(name, schema).lines() {
            out.line(line)?;
        }
    }
    Ok(exit)
}

fn differences(from: &Snapshot, to: &Snapshot, region: Option<&str>, out: &mut Out<'_>) -> Done {
    let (old, new) = (schemas(from, region), schemas(to, region));
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for (name, (schema, encoded)) in &old {
        match new.get(name) {
            None => found.push(((*name).to_owned(), vec!["is gone".to_owned()])),
            Some((_, other)) if other == encoded => {}
            Some((other, _)) => {
                let lines = match (schema, other) {
                    (Some(schema), Some(other)) => schema.differences(other),
                    _ => vec!["cannot be read".to_owned()],
                };
                let renamed =
                    |line: String| line.replace("stored ", "was ").replace("declared ", "is ");
                found.push(((*name).to_owned(), lines.into_iter().map(renamed).collect()));
            }
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        found.push(((*name).to_owned(), vec!["is new".to_owned()]));
    }
    let same = found.is_empty();
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "schema");
        object.text("from", from.lsn);
        object.text("to", to.lsn);
        json::list(object.field("differences"), &found, |to, (name, lines)| {
            let mut object = Object::begin(to);
            object.string("region", name);
            json::list(object.field("what"), lines, |to, line| json::string(to, line));
            object.end();
        });
        object.end();
        out.document(&line)?;
    } else if same {
        out.line(format!("the same at commits {} and {}", from.lsn, to.lsn))?;
    } else {
        for (name, lines) in &found {
            for line in lines {
                out.line(format!("{name}: {line}"))?;
            }
        }
    }
    Ok(if same { Exit::Fine } else { Exit::No })
}
