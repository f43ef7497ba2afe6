//! `import`: a new store of what `export` wrote.

use std::io::{BufRead, BufReader};
use std::path::Path;

use fs_err::File;
use rocstate::format::RegionNo;
use rocstate::format::shape::Schema;
use rocstate::inspect::{Builder, Made};
use rocstate::{Compression, Lsn};
use serde_json::{Map, Value};

use super::restore::refuse_unless_empty;
use crate::exit::{Done, Exit, Failure};
use crate::json::from_hex;
use crate::out::{JSON_VERSION, Out, begin_document, bytes, counted};
use crate::shape::{key_bytes, value_bytes};

pub(crate) fn run(to: &Path, file: Option<&Path>, out: &mut Out<'_>) -> Done {
    refuse_unless_empty(to)?;
    let input: Box<dyn BufRead> = match file {
        Some(path) => Box::new(BufReader::new(File::open(path)?)),
        None => Box::new(std::io::stdin().lock()),
    };
    let mut import = Import { builder: None, schema: None };
    let mut head: Option<Head> = None;
    for (at, line) in (1..).zip(input.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let refuse = |what: String| Failure::usage(format!("line {at}: {what}"));
        let line: Map<String, Value> =
            serde_json::from_str(&line).map_err(|why| refuse(format!("no JSON object: {why}")))?;
        match &head {
            None => head = Some(Head::read(&line).map_err(refuse)?),
            Some(head) => import.line(&line, head, to, at)?,
        }
    }
    let head = head.ok_or_else(|| Failure::usage("there is nothing to import"))?;
    let made = import.finish(&head, to)?;
    tell("import", &made, to, out)
}

/// Says what was made.
pub(super) fn tell(verb: &str, made: &Made, to: &Path, out: &mut Out<'_>) -> Done {
    if out.json {
        let mut line = Vec::new();
        let mut object = begin_document(&mut line, verb);
        object.string("store", to.to_string_lossy());
        object.text("lineage", format_args!("{:016x}", made.lineage.0));
        object.number("regions", made.regions);
        object.number("entries", made.entries);
        object.number("bytes", made.bytes);
        object.end();
        out.document(&line)?;
    } else {
        out.line(format!(
            "made {}: {} in {}, {}; lineage {:016x}, a new one",
            to.display(),
            counted(made.entries, "entry"),
            counted(made.regions, "region"),
            bytes(made.bytes),
            made.lineage.0
        ))?;
    }
    Ok(Exit::Fine)
}

/// What the first line says.
struct Head {
    lsn: Lsn,
    next_region: u64,
}

fn text<'a>(line: &'a Map<String, Value>, field: &str) -> Result<&'a str, String> {
    let value = line.get(field).and_then(Value::as_str);
    value.ok_or_else(|| format!("the field {field:?} is missing or no string"))
}

fn number(line: &Map<String, Value>, field: &str) -> Result<u64, String> {
    text(line, field)?.parse().map_err(|_| format!("the field {field:?} is no number"))
}

fn hex(line: &Map<String, Value>, field: &str) -> Result<Option<Vec<u8>>, String> {
    match line.get(field) {
        None => Ok(None),
        Some(_) => from_hex(text(line, field)?)
            .map(Some)
            .ok_or_else(|| format!("the field {field:?} is not hexadecimal")),
    }
}

impl Head {
    fn read(line: &Map<String, Value>) -> Result<Head, String> {
        if line.get("verb").and_then(Value::as_str) != Some("export") {
            return Err("this is not what `rocdump export` writes".to_owned());
        }
        match line.get("rocdump").and_then(Value::as_u64) {
            Some(JSON_VERSION) => {}
            version => {
                let version = version.unwrap_or_default();
                return Err(format!(
                    "version {version} of the export is not known; use a newer rocdump"
                ));
            }
        }
        Ok(Head { lsn: Lsn::new(number(line, "lsn")?), next_region: number(line, "next_region")? })
    }
}

struct Import {
    builder: Option<Builder>,
    /// Of the region that entries go to; `None` before the first.
    schema: Option<Schema>,
}

impl Import {
    fn builder(&mut self, head: &Head, to: &Path) -> Done<&mut Builder> {
        let builder = match self.builder.take() {
            Some(builder) => builder,
            None => Builder::create(to, head.lsn, Compression::None)?,
        };
        Ok(self.builder.insert(builder))
    }

    fn line(&mut self, line: &Map<String, Value>, head: &Head, to: &Path, at: u64) -> Done<()> {
        let refuse = |what: String| Failure::usage(format!("line {at}: {what}"));
        if line.contains_key("region") {
            let name = text(line, "region").map_err(refuse)?;
            let number = RegionNo(number(line, "number").map_err(refuse)?);
            let schema = hex(line, "schema").map_err(refuse)?.unwrap_or_default();
            let decoded =
                Schema::decode(&schema).map_err(|why| refuse(format!("the schema: {why}")))?;
            self.schema = Some(decoded);
            let begun = self.builder(head, to)?.region(number, name, &schema);
            return begun.map_err(|why| refuse(why.to_string()));
        }
        let schema = self.schema.as_ref();
        let schema = schema.ok_or_else(|| refuse("an entry comes before its region".to_owned()))?;
        let key = match (hex(line, "key_hex").map_err(refuse)?, line.get("key")) {
            (Some(key), _) => key,
            (None, Some(key)) => key_bytes(key, &schema.key).map_err(refuse)?,
            (None, None) => return Err(refuse("it has no key".to_owned())),
        };
        let value =
            match (hex(line, "value_hex").map_err(refuse)?, line.get("value"), &schema.value) {
                (Some(value), ..) => value,
                (None, Some(value), Some(shape)) => value_bytes(value, shape).map_err(refuse)?,
                (None, Some(_), None) => {
                    return Err(refuse("its type has no shape: it needs value_hex".to_owned()));
                }
                (None, None, _) => return Err(refuse("it has no value".to_owned())),
            };
        let pushed = self.builder(head, to)?.push(&key, &value);
        pushed.map_err(|why| refuse(why.to_string()))
    }

    fn finish(mut self, head: &Head, to: &Path) -> Done<Made> {
        self.builder(head, to)?.keep_region_numbers(RegionNo(head.next_region));
        match self.builder {
            Some(builder) => Ok(builder.finish()?),
            None => Err(Failure::usage("there is nothing to import")),
        }
    }
}
