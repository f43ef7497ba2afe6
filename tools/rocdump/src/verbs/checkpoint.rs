//! `checkpoint`: the checkpoints of a store, or one of them section by section.

use rocstate::format::catalog::{Catalog, SectionRef};
use rocstate::format::{CheckpointNo, name};

use crate::exit::{Done, Exit, Failure};
use crate::files::{CheckpointLine, checkpoints};
use crate::json::{self, Object};
use crate::out::{Out, begin_document, bytes, count, counted};
use crate::region::Region;
use crate::store::Opened;

pub(crate) fn run(store: &Opened<'_>, number: Option<u64>, out: &mut Out<'_>) -> Done {
    match number {
        Some(number) => detail(store, CheckpointNo(number), out),
        None => list(store, out),
    }
}

fn list(store: &Opened<'_>, out: &mut Out<'_>) -> Done {
    let lines = checkpoints(store);
    let damaged = lines.iter().any(|line| line.catalog.is_err());
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, "checkpoint");
        json::list(object.field("checkpoints"), &lines, |to, line| line_json(line, to));
        object.end();
        out.document(&line)?;
    } else if lines.is_empty() {
        out.line("there is no checkpoint yet: the log alone holds the state")?;
    } else {
        let rows = lines.iter().map(|line| {
            let (own, shared) = line.own_and_shared();
            match &line.catalog {
                Ok(catalog) => vec![
                    line.number.0.to_string(),
                    count(catalog.lsn().get()),
                    catalog.epoch.0.to_string(),
                    catalog.regions.len().to_string(),
                    count(rocstate::format::total(
                        catalog.regions.values().map(|region| region.entries),
                    )),
                    bytes(line.len),
                    bytes(own),
                    bytes(shared),
                ],
                Err(error) => vec![line.number.0.to_string(), error.to_string()],
            }
        });
        let heads = [
            "number",
            "commit",
            "boot",
            "regions",
            "entries",
            "file",
            "own sections",
            "of older files",
        ];
        out.table(&heads, &[0, 1, 2, 3, 4, 5, 6, 7], rows.collect())?;
    }
    // A boot passes over one that is damaged; `verify` tells whether anything is lost.
    Ok(if damaged { Exit::Repairable } else { Exit::Fine })
}

/// A checkpoint as a JSON object.
pub(super) fn line_json(line: &CheckpointLine, to: &mut Vec<u8>) {
    let mut object = Object::begin(to);
    object.text("number", line.number.0);
    object.number("file_bytes", line.len);
    match &line.catalog {
        Ok(catalog) => {
            let (own, shared) = line.own_and_shared();
            object.text("lsn", catalog.lsn());
            object.text("epoch", catalog.epoch.0);
            object.number("regions", catalog.regions.len() as u64);
            object.number(
                "entries",
                rocstate::format::total(catalog.regions.values().map(|region| region.entries)),
            );
            object.number("own_bytes", own);
            object.number("shared_bytes", shared);
        }
        Err(error) => object.string("error", error.to_string()),
    }
    object.end();
}

fn detail(store: &Opened<'_>, number: CheckpointNo, out: &mut Out<'_>) -> Done {
    if !store.files.checkpoints().contains(&number) {
        let known: Vec<String> =
            store.files.checkpoints().iter().map(|number| number.0.to_string()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::no(format!(
            "there is no checkpoint {}; there are: {known}",
            number.0
        )));
    }
    let file = store.files.checkpoint(number)?;
    let catalog = file.catalog()?;
    if out.json {
        return detail_json(store, &catalog, out);
    }
    out.head(&name::checkpoint(number))?;
    out.line(format!(
        "  everything up to commit {}, written by boot {} of the store with lineage {:016x}",
        count(catalog.lsn().get()),
        catalog.epoch.0,
        file.header().lineage.0
    ))?;
    out.line(format!(
        "  the log goes on in segment {} at byte {}",
        catalog.place.segment.0, catalog.place.offset
    ))?;
    out.line(format!("  {}", bytes(file.header().len)))?;
    let kept: Vec<String> = catalog.kept.iter().map(|number| number.0.to_string()).collect();
    if !kept.is_empty() {
        out.line(format!("  kept beside it: checkpoint {}", kept.join(", ")))?;
    }
    for (number, len) in &catalog.files {
        let sections =
            catalog.regions.values().flat_map(rocstate::format::catalog::CatalogRegion::sections);
        let shared: Vec<&SectionRef> = sections.filter(|section| section.file == *number).collect();
        let live = rocstate::format::total(shared.iter().map(|section| section.bytes));
        out.line(format!(
            "  shares {} with {}: {} of {}",
            counted(shared.len() as u64, "section"),
            name::checkpoint(*number),
            bytes(live),
            bytes(*len)
        ))?;
    }
    for (number, of) in &catalog.regions {
        let region = Region::new(*number, &of.name, &of.schema, &store.decoders);
        out.line("")?;
        out.head(&format!("{}: {}, {}", of.name, region.types(), counted(of.entries, "entry")))?;
        let row = |what: String, from: String, section: Option<&SectionRef>| {
            let of = |f: &dyn Fn(&SectionRef) -> String| section.map_or("-".to_owned(), f);
            vec![
                what,
                from,
                of(&|section| section.file.0.to_string()),
                of(&|section| count(section.entries)),
                of(&|section| bytes(section.bytes)),
                of(&|section| section.top.offset.to_string()),
            ]
        };
        let deltas = of.deltas.iter().map(|delta| {
            row(
                format!("changes up to checkpoint {}", delta.number.0),
                "all keys".to_owned(),
                Some(delta),
            )
        });
        let pieces = of.pieces.iter().map(|piece| {
            let from = if piece.lower.is_empty() {
                "the first key".to_owned()
            } else {
                region.key_text(&piece.lower)
            };
            let what = format!("base, merged up to {}", piece.merged.0);
            row(what, format!("from {from}"), piece.section.as_ref())
        });
        let heads = ["section", "keys", "file", "entries", "bytes", "index at"];
        out.table(&heads, &[2, 3, 4, 5], deltas.chain(pieces).collect())?;
    }
    Ok(Exit::Fine)
}

fn detail_json(store: &Opened<'_>, catalog: &Catalog, out: &mut Out<'_>) -> Done {
    let mut line = Vec::new();
    let mut object = begin_document(&mut line, "checkpoint");
    object.text("number", catalog.number.0);
    object.text("lsn", catalog.lsn());
    object.text("epoch", catalog.epoch.0);
    object.text("segment", catalog.place.segment.0);
    object.number("offset", catalog.place.offset);
    object.text("next_region", catalog.next_region.0);
    json::list(object.field("kept"), &catalog.kept, |to, number| json::display(to, number.0));
    json::list(object.field("files"), &catalog.files, |to, (number, len)| {
        let mut object = Object::begin(to);
        object.text("number", number.0);
        object.number("bytes", *len);
        object.end();
    });
    json::list(object.field("regions"), &catalog.regions, |to, (number, of)| {
        let region = Region::new(*number, &of.name, &of.schema, &store.decoders);
        let mut object = Object::begin(to);
        object.text("number", number.0);
        object.string("name", &of.name);
        object.string("types", region.types());
        object.number("entries", of.entries);
        json::list(object.field("deltas"), &of.deltas, |to, delta| {
            let mut object = Object::begin(to);
            section_json(delta, &mut object);
            object.end();
        });
        json::list(object.field("pieces"), &of.pieces, |to, piece| {
            let mut object = Object::begin(to);
            object.hex("lower", &piece.lower);
            object.text("merged", piece.merged.0);
            if let Some(section) = &piece.section {
                section_json(section, &mut object);
            }
            object.end();
        });
        object.end();
    });
    object.end();
    out.document(&line)?;
    Ok(Exit::Fine)
}

fn section_json(section: &SectionRef, object: &mut Object<'_>) {
    object.text("file", section.file.0);
    object.text("number", section.number.0);
    object.number("entries", section.entries);
    object.number("bytes", section.bytes);
    object.number("index_offset", section.top.offset);
    object.number("index_bytes", section.top.len);
}
