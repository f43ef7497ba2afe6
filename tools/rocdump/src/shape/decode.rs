//! A value's bytes to JSON, straight from one to the other.
//!
//! # Invariants
//! - postcard does the reading; a shape decides what it is asked for.
//! - Hostile shapes and bytes end in an error: depth is bounded, and what is written by the bytes read.

use std::cell::Cell;
use std::fmt;

use rocstate::format::shape::{Container, Scalar, Shape, ValueShape};
use serde::Serialize;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{DEPTH_MAX, is_name, is_nullable};
use crate::json;

/// How many values of no bytes may be written for each byte of the input, and besides.
const VALUES_PER_BYTE: usize = 8;
const VALUES_BESIDES: usize = 4096;

/// Where the JSON goes.
pub(crate) trait Sink {
    fn raw(&mut self, text: &[u8]);
    fn string(&mut self, text: &str);
    fn hex(&mut self, bytes: &[u8]);
    fn json(&mut self, value: &impl Serialize);
    fn display(&mut self, value: impl fmt::Display);
    /// Where it stands, for [`cut`](Self::cut) and [`quote`](Self::quote).
    fn mark(&self) -> usize;
    /// Takes back what was written since.
    fn cut(&mut self, mark: usize);
    /// Puts what was written since in quotes, unless it is.
    fn quote(&mut self, mark: usize);
}

impl Sink for Vec<u8> {
    fn raw(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }

    fn string(&mut self, text: &str) {
        json::string(self, text);
    }

    fn hex(&mut self, bytes: &[u8]) {
        json::hex(self, bytes);
    }

    fn json(&mut self, value: &impl Serialize) {
        // Writing to memory does not fail.
        serde_json::to_writer(self, value).unwrap_or_default();
    }

    fn display(&mut self, value: impl fmt::Display) {
        json::display(self, value);
    }

    fn mark(&self) -> usize {
        self.len()
    }

    fn cut(&mut self, mark: usize) {
        self.truncate(mark);
    }

    fn quote(&mut self, mark: usize) {
        if self.get(mark) != Some(&b'"') {
            self.insert(mark, b'"');
            self.push(b'"');
        }
    }
}

/// For whoever only wants to know whether a value decodes.
struct Nowhere;

impl Sink for Nowhere {
    fn raw(&mut self, _: &[u8]) {}
    fn string(&mut self, _: &str) {}
    fn hex(&mut self, _: &[u8]) {}
    fn json(&mut self, _: &impl Serialize) {}
    fn display(&mut self, _: impl fmt::Display) {}
    fn mark(&self) -> usize {
        0
    }
    fn cut(&mut self, _: usize) {}
    fn quote(&mut self, _: usize) {}
}

/// Appends the JSON of a value; what was written is undefined after an error.
pub(crate) fn value_json(bytes: &[u8], of: &ValueShape, to: &mut Vec<u8>) -> Result<(), String> {
    decode(bytes, of, to)
}

/// Whether a value has its shape.
pub(crate) fn check_value(bytes: &[u8], of: &ValueShape) -> Result<(), String> {
    decode(bytes, of, &mut Nowhere)
}

fn decode<S: Sink>(bytes: &[u8], of: &ValueShape, to: &mut S) -> Result<(), String> {
    let budget = Cell::new(bytes.len().saturating_mul(VALUES_PER_BYTE) + VALUES_BESIDES);
    let mut from = postcard::Deserializer::from_bytes(bytes);
    let value = Value { shape: &of.root, of, depth: 0, budget: &budget, to };
    value.deserialize(&mut from).map_err(|why| why.to_string())?;
    let rest = from.finalize().map_err(|why| why.to_string())?;
    if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", rest.len())) }
}

/// A value of a shape, which is read to be written.
struct Value<'a, 'o, S> {
    shape: &'a Shape,
    of: &'a ValueShape,
    depth: usize,
    budget: &'a Cell<usize>,
    to: &'o mut S,
}

impl<'a, S: Sink> Value<'a, '_, S> {
    fn inner<'i>(&'i mut self, shape: &'a Shape) -> Value<'a, 'i, S> {
        Value { shape, of: self.of, depth: self.depth + 1, budget: self.budget, to: self.to }
    }

    fn spend<E: Error>(&self) -> Result<(), E> {
        if self.depth > DEPTH_MAX {
            return Err(E::custom("it nests too deep"));
        }
        let left = self.budget.get().checked_sub(1);
        self.budget.set(left.ok_or_else(|| E::custom("it has more values than bytes"))?);
        Ok(())
    }

    fn scalar<'de, D: Deserializer<'de>>(self, scalar: Scalar, from: D) -> Result<(), D::Error> {
        let to = self.to;
        match scalar {
            Scalar::Unit => to.raw(b"null"),
            Scalar::Bool => to.json(&bool::deserialize(from)?),
            Scalar::I8 => to.json(&i8::deserialize(from)?),
            Scalar::I16 => to.json(&i16::deserialize(from)?),
            Scalar::I32 => to.json(&i32::deserialize(from)?),
            Scalar::I64 => to.json(&i64::deserialize(from)?),
            Scalar::I128 => to.display(i128::deserialize(from)?),
            Scalar::U8 => to.json(&u8::deserialize(from)?),
            Scalar::U16 => to.json(&u16::deserialize(from)?),
            Scalar::U32 => to.json(&u32::deserialize(from)?),
            Scalar::U64 => to.json(&u64::deserialize(from)?),
            Scalar::U128 => to.display(u128::deserialize(from)?),
            Scalar::F32 => match f32::deserialize(from)? {
                number if number.is_finite() => to.json(&number),
                other => to.display(other),
            },
            Scalar::F64 => match f64::deserialize(from)? {
                number if number.is_finite() => to.json(&number),
                other => to.display(other),
            },
            Scalar::Char => to.json(&char::deserialize(from)?),
            Scalar::String => from.deserialize_str(Text(to))?,
            Scalar::Bytes => from.deserialize_bytes(Text(to))?,
        }
        Ok(())
    }
}

/// A string or bytes.
struct Text<'o, S>(&'o mut S);

impl<S: Sink> Visitor<'_> for Text<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.string(text);
        Ok(())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        self.0.hex(bytes);
        Ok(())
    }
}

impl<'de, S: Sink> DeserializeSeed<'de> for Value<'_, '_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.spend()?;
        match self.shape {
            Shape::Scalar(scalar) => {
                let scalar = *scalar;
                self.scalar(scalar, from)
            }
            Shape::Option(_) => from.deserialize_option(self),
            Shape::Seq(_) => from.deserialize_seq(self),
            Shape::Map(..) => from.deserialize_map(self),
            Shape::Tuple(parts) => from.deserialize_tuple(parts.len(), self),
            Shape::Array(_, count) => {
                from.deserialize_tuple(usize::try_from(*count).unwrap_or(usize::MAX), self)
            }
            Shape::Named(name) => match self.of.types.get(name) {
                None => Err(D::Error::custom("its shape names a type that is not there")),
                Some(container) => {
                    let of = self.of;
                    let (depth, budget, to) = (self.depth, self.budget, self.to);
                    Contained { container, of, depth, budget, to }.deserialize(from)
                }
            },
        }
    }
}

impl<'de, S: Sink> Visitor<'de> for Value<'_, '_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shape)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.to.raw(b"null");
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(mut self, from: D) -> Result<(), D::Error> {
        let Shape::Option(inner) = self.shape else { return Err(D::Error::custom("no option")) };
        if !is_nullable(inner, self.of, 0) {
            return self.inner(inner).deserialize(from);
        }
        self.to.raw(b"{\"Some\":");
        self.inner(inner).deserialize(from)?;
        self.to.raw(b"}");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        self.to.raw(b"[");
        let mut at = 0u64;
        loop {
            let shape = match self.shape {
                Shape::Seq(inner) => inner,
                Shape::Array(inner, count) if at < *count => inner,
                Shape::Tuple(parts) => {
                    match usize::try_from(at).ok().and_then(|at| parts.get(at)) {
                        Some(part) => part,
                        None => break,
                    }
                }
                _ => break,
            };
            let begin = self.to.mark();
            if at > 0 {
                self.to.raw(b",");
            }
            if from.next_element_seed(self.inner(shape))?.is_none() {
                self.to.cut(begin);
                break;
            }
            at += 1;
        }
        self.to.raw(b"]");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let Shape::Map(key, value) = self.shape else { return Err(A::Error::custom("no map")) };
        let named = is_name(key);
        self.to.raw(if named { b"{" } else { b"[" });
        let mut first = true;
        loop {
            let begin = self.to.mark();
            if !first {
                self.to.raw(b",");
            }
            if !named {
                self.to.raw(b"[");
            }
            let key_begin = self.to.mark();
            if from.next_key_seed(self.inner(key))?.is_none() {
                self.to.cut(begin);
                break;
            }
            if named {
                self.to.quote(key_begin);
            }
            self.to.raw(if named { b":" } else { b"," });
            from.next_value_seed(self.inner(value))?;
            if !named {
                self.to.raw(b"]");
            }
            first = false;
        }
        self.to.raw(if named { b"}" } else { b"]" });
        Ok(())
    }
}

/// What a named type or a variant is made of, which is read to be written.
struct Contained<'a, 'o, S> {
    container: &'a Container,
    of: &'a ValueShape,
    depth: usize,
    budget: &'a Cell<usize>,
    to: &'o mut S,
}

impl<'a, S: Sink> Contained<'a, '_, S> {
    fn inner<'i>(&'i mut self, shape: &'a Shape) -> Value<'a, 'i, S> {
        Value { shape, of: self.of, depth: self.depth + 1, budget: self.budget, to: self.to }
    }
}

impl<'de, S: Sink> DeserializeSeed<'de> for Contained<'_, '_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, from: D) -> Result<(), D::Error> {
        match self.container {
            Container::Unit => {
                self.to.raw(b"null");
                Ok(())
            }
            Container::Newtype(inner) => self.inner(inner).deserialize(from),
            Container::Tuple(parts) => from.deserialize_tuple(parts.len(), self),
            Container::Struct(fields) => from.deserialize_tuple(fields.len(), self),
            Container::Enum(_) => from.deserialize_enum("", &[], self),
        }
    }
}

impl<'de, S: Sink> Visitor<'de> for Contained<'_, '_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.container)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let container = self.container;
        match container {
            Container::Tuple(parts) => {
                self.to.raw(b"[");
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        self.to.raw(b",");
                    }
                    let read = from.next_element_seed(self.inner(part))?;
                    read.ok_or_else(|| A::Error::custom("it is cut short"))?;
                }
                self.to.raw(b"]");
            }
            Container::Struct(fields) => {
                self.to.raw(b"{");
                for (at, (name, shape)) in fields.iter().enumerate() {
                    if at > 0 {
                        self.to.raw(b",");
                    }
                    self.to.string(name);
                    self.to.raw(b":");
                    let read = from.next_element_seed(self.inner(shape))?;
                    read.ok_or_else(|| A::Error::custom("it is cut short"))?;
                }
                self.to.raw(b"}");
            }
            _ => return Err(A::Error::custom("it is no list of values")),
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(mut self, from: A) -> Result<(), A::Error> {
        let Container::Enum(variants) = self.container else {
            return Err(A::Error::custom("it is no enum"));
        };
        let (number, content) = from.variant_seed(std::marker::PhantomData::<u32>)?;
        let (name, variant) = variants
            .get(&number)
            .ok_or_else(|| A::Error::custom(format_args!("there is no variant {number}")))?;
        if *variant == Container::Unit {
            self.to.string(name);
            return content.unit_variant();
        }
        self.to.raw(b"{");
        self.to.string(name);
        self.to.raw(b":");
        match variant {
            Container::Newtype(inner) => content.newtype_variant_seed(self.inner(inner))?,
            Container::Tuple(parts) => {
                content.tuple_variant(parts.len(), self.of_variant(variant))?;
            }
            Container::Struct(fields) => {
                content.tuple_variant(fields.len(), self.of_variant(variant))?;
            }
            Container::Unit | Container::Enum(_) => {
                return Err(A::Error::custom("a variant is itself an enum"));
            }
        }
        self.to.raw(b"}");
        Ok(())
    }
}

impl<'a, S: Sink> Contained<'a, '_, S> {
    fn of_variant<'i>(&'i mut self, container: &'a Container) -> Contained<'a, 'i, S> {
        Contained {
            container,
            of: self.of,
            depth: self.depth + 1,
            budget: self.budget,
            to: self.to,
        }
    }
}
