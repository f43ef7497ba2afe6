//! `export`: every entry as JSON Lines, so that `import` makes the same bytes of them.
//!
//! Each key and value is read back before it is written: what would not come back exactly is written as
//! bytes. So nothing has to be believed of floats, maps or types with serde attributes.

use std::ops::ControlFlow;

use rocstate::format::shape::Schema;

use super::read::{note_shortfall, walk};
use crate::exit::Done;
use crate::json::Object;
use crate::out::{Out, begin_document};
use crate::point::Point;
use crate::shape::{key_bytes, key_json, rust, value_bytes, value_json};
use crate::store::Opened;

pub(crate) fn run(store: &Opened<'_>, wanted: &[String], at: Point, out: &mut Out<'_>) -> Done {
    let snapshot = at.snapshot(&store.files)?;
    let mut exit = note_shortfall(&snapshot, out);
    for name in wanted {
        store.find(&snapshot, name)?;
    }
    let mut line = Vec::new();
    let mut object = begin_document(&mut line, "export");
    let lineage = store.files.lineage().map_or(0, |lineage| lineage.0);
    object.text("lineage", format_args!("{lineage:016x}"));
    object.text("lsn", snapshot.lsn);
    object.text("next_region", snapshot.next_region.0);
    object.end();
    out.document(&line)?;
    let regions = snapshot.regions.iter();
    for of in regions.filter(|of| wanted.is_empty() || wanted.contains(&of.name)) {
        let region = store.region_of(of);
        line.clear();
        let mut object = Object::begin(&mut line);
        object.string("region", &of.name);
        object.text("number", of.number.0);
        object.hex("schema", &of.schema);
        if let Some(schema) = &region.schema {
            object.string("rust", rust::source(&of.name, schema));
        }
        object.end();
        out.document(&line)?;
        let schema = region.schema.as_ref();
        let walked = walk(of, &region, &[], None, out, |out, key, value| {
            let mut line = Vec::with_capacity(256);
            let mut object = Object::begin(&mut line);
            write_key(schema, key, &mut object);
            write_value(schema, value, &mut object);
            object.end();
            out.document(&line)?;
            Ok(ControlFlow::Continue(()))
        })?;
        exit = exit.max(walked);
    }
    Ok(exit)
}

/// The field `key`, if that reads back to the same bytes, or `key_hex`.
fn write_key(schema: Option<&Schema>, key: &[u8], object: &mut Object<'_>) {
    let mut text = Vec::new();
    let written = schema.is_some_and(|schema| {
        key_json(key, &schema.key, &mut text).is_ok()
            && serde_json::from_slice(&text)
                .is_ok_and(|json| key_bytes(&json, &schema.key).is_ok_and(|back| back == key))
    });
    object.decoded("key", written.then_some(&text), key);
}

/// The field `value`, if that reads back to the same bytes, or `value_hex`.
fn write_value(schema: Option<&Schema>, value: &[u8], object: &mut Object<'_>) {
    let mut text = Vec::new();
    let written = schema.and_then(|schema| schema.value.as_ref()).is_some_and(|shape| {
        value_json(value, shape, &mut text).is_ok()
            && serde_json::from_slice(&text)
                .is_ok_and(|json| value_bytes(&json, shape).is_ok_and(|back| back == value))
    });
    object.decoded("value", written.then_some(&text), value);
}
