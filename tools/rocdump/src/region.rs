//! Regions as the tool knows them: how their keys and values become JSON.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::rc::Rc;

use rocstate::format::RegionNo;
use rocstate::format::shape::{RegionClass, Schema};

use crate::json::{self, Object};
use crate::shape::{check_value, key_json, value_json};

/// How a program's own types show themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Typed {
    pub(crate) key: ToJson,
    pub(crate) value: ToJson,
}

type ToJson = fn(&[u8], &mut Vec<u8>) -> Result<(), String>;

/// What shows keys and values: shapes, a program's own types, another program.
#[derive(Clone, Debug)]
pub(crate) struct Decoders<'a> {
    pub(crate) types: &'a HashMap<String, Typed>,
    pub(crate) other: Option<Rc<RefCell<OtherProgram>>>,
}

/// One region.
#[derive(Clone, Debug)]
pub(crate) struct Region {
    pub(crate) number: RegionNo,
    pub(crate) name: String,
    /// `None` where the stored one cannot be read.
    pub(crate) schema: Option<Schema>,
    typed: Option<Typed>,
    other: Option<Rc<RefCell<OtherProgram>>>,
}

impl Region {
    pub(crate) fn new(
        number: RegionNo,
        name: &str,
        schema: &[u8],
        decoders: &Decoders<'_>,
    ) -> Region {
        Region {
            number,
            name: name.to_owned(),
            schema: Schema::decode(schema).ok(),
            typed: decoders.types.get(name).copied(),
            other: decoders.other.clone(),
        }
    }

    /// One of which nothing is known but its number.
    pub(crate) fn unknown(number: RegionNo) -> Region {
        let name = format!("region {}", number.0);
        Region { number, name, schema: None, typed: None, other: None }
    }

    pub(crate) fn class(&self) -> &'static str {
        match self.schema.as_ref().map(|schema| schema.class) {
            Some(RegionClass::Map) => "map",
            Some(RegionClass::Cell) => "cell",
            None => "unknown",
        }
    }

    /// Its types in one line.
    pub(crate) fn types(&self) -> String {
        let Some(schema) = &self.schema else { return "unreadable".to_owned() };
        let value =
            schema.value.as_ref().map_or("opaque".to_owned(), |value| value.root.to_string());
        match schema.class {
            RegionClass::Map => format!("{} -> {value}", schema.key),
            RegionClass::Cell => value,
        }
    }

    pub(crate) fn is_cell(&self) -> bool {
        self.schema.as_ref().is_some_and(|schema| schema.class == RegionClass::Cell)
    }

    /// Whether its values have a shape, or something else that shows them.
    pub(crate) fn is_opaque(&self) -> bool {
        let shaped = self.schema.as_ref().is_some_and(|schema| schema.value.is_some());
        !shaped && self.typed.is_none()
    }

    /// Appends a key as JSON, or says why it is none.
    pub(crate) fn key(&self, bytes: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
        let begin = to.len();
        let written = match (self.typed, &self.schema) {
            (Some(typed), _) => (typed.key)(bytes, to),
            (None, Some(schema)) => key_json(bytes, &schema.key, to),
            (None, None) => Err("its schema is not known".to_owned()),
        };
        written.inspect_err(|_| to.truncate(begin))
    }

    /// Appends a value as JSON, or says why it is none.
    pub(crate) fn value(&self, key: &[u8], bytes: &[u8], to: &mut Vec<u8>) -> Result<(), String> {
        let begin = to.len();
        let shape = self.schema.as_ref().and_then(|schema| schema.value.as_ref());
        let written = match (self.typed, shape, &self.other) {
            (Some(typed), ..) => (typed.value)(bytes, to),
            (None, Some(shape), _) => value_json(bytes, shape, to),
            (None, None, Some(other)) => other.borrow_mut().ask(&self.name, key, bytes, to),
            (None, None, None) => Err("its type has no shape".to_owned()),
        };
        written.inspect_err(|_| to.truncate(begin))
    }

    /// Whether a value is one; `scratch` is written to.
    pub(crate) fn check_value(
        &self,
        key: &[u8],
        bytes: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<(), String> {
        let shape = self.schema.as_ref().and_then(|schema| schema.value.as_ref());
        match (self.typed, shape) {
            (None, Some(shape)) => check_value(bytes, shape),
            _ => self.value(key, bytes, scratch),
        }
    }

    /// Writes a key as the field `key`, or as `key_hex` if it is not what its shape says.
    pub(crate) fn key_field(&self, bytes: &[u8], object: &mut Object<'_>) {
        let mut text = Vec::new();
        let decoded = self.key(bytes, &mut text).is_ok();
        object.decoded("key", decoded.then_some(&text), bytes);
    }

    /// Writes a value as the field `name`, or as `name_hex` if it has no shape or another one.
    pub(crate) fn value_field(
        &self,
        name: &str,
        key: &[u8],
        bytes: &[u8],
        object: &mut Object<'_>,
    ) {
        let mut text = Vec::new();
        let decoded = self.value(key, bytes, &mut text).is_ok();
        object.decoded(name, decoded.then_some(&text), bytes);
    }

    /// Writes what it is, and how many entries it has.
    pub(crate) fn fields(&self, entries: u64, object: &mut Object<'_>) {
        object.text("number", self.number.0);
        object.string("name", &self.name);
        object.string("class", self.class());
        object.string("types", self.types());
        object.number("entries", entries);
    }

    /// A key for people.
    pub(crate) fn key_text(&self, bytes: &[u8]) -> String {
        let mut text = Vec::new();
        if self.key(bytes, &mut text).is_err() {
            text = hex_text(bytes);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    /// A value for people.
    pub(crate) fn value_text(&self, key: &[u8], bytes: &[u8]) -> String {
        let mut text = Vec::new();
        if self.value(key, bytes, &mut text).is_err() {
            text = hex_text(bytes);
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Bytes for people: never taken for JSON.
fn hex_text(bytes: &[u8]) -> Vec<u8> {
    let mut text = b"hex:".to_vec();
    json::hex(&mut text, bytes);
    text.retain(|byte| *byte != b'"');
    text
}

/// A program that decodes values, a line each.
#[derive(Debug)]
pub(crate) struct OtherProgram {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl OtherProgram {
    pub(crate) fn start(command: &str) -> std::io::Result<OtherProgram> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let missing = || std::io::Error::other("the decoder has no standard input or output");
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(OtherProgram { child, to: Some(to), from })
    }

    fn ask(
        &mut self,
        region: &str,
        key: &[u8],
        value: &[u8],
        to: &mut Vec<u8>,
    ) -> Result<(), String> {
        let mut line = Vec::new();
        let mut object = Object::begin(&mut line);
        object.string("region", region);
        object.hex("key", key);
        object.hex("value", value);
        object.end();
        line.push(b'\n');
        let failed = |why: std::io::Error| format!("the decoder failed: {why}");
        let input = self.to.as_mut().ok_or("the decoder ended")?;
        input.write_all(&line).and_then(|()| input.flush()).map_err(failed)?;
        let mut answer = String::new();
        self.from.read_line(&mut answer).map_err(failed)?;
        // It is shown as it is, so it must be what it should be.
        let parsed: serde_json::Value = serde_json::from_str(&answer)
            .map_err(|why| format!("the decoder wrote no JSON: {why}"))?;
        serde_json::to_writer(to, &parsed).map_err(|why| why.to_string())
    }
}

impl Drop for OtherProgram {
    fn drop(&mut self) {
        // Its input ends, and so should it.
        drop(self.to.take());
        self.child.wait().map(drop).unwrap_or_default();
    }
}
