//! A value's bytes to JSON, straight from one to the other.
//!
//! # Invariants
//! - postcard does the reading; a shape decides what it is asked for.
//! - Hostile shapes and bytes end in an error: depth is bounded, and what is written by the bytes read.

use std::cell::Cell;
use std::fmt;

use rocstate::format::shape::{Container, Scalar, Shape, ValueShape};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use super::{DEPTH_MAX, is_name, is_nullable};
use crate::json;

/// How many values of no bytes may be written for each byte of the input, and besides.
const VALUES_PER_BYTE: usize = 8;
const VALUES_BESIDES: usize = 4096;

/// Appends the JSON of a value; what was written is undefined after an error.
pub(crate) fn value_json(bytes: &[u8], of: &ValueShape, to: &mut Vec<u8>) -> Result<(), String> {
    let budget = Cell::new(bytes.len().saturating_mul(VALUES_PER_BYTE) + VALUES_BESIDES);
    let mut from = postcard::Deserializer::from_bytes(bytes);
    let value = Value { shape: &of.root, of, depth: 0, budget: &budget, to };
    value.deserialize(&mut from).map_err(|why| why.to_string())?;
    let rest = from.finalize().map_err(|why| why.to_string())?;
    if rest.is_empty() { Ok(()) } else { Err(format!("{} bytes are left over", rest.len())) }
}

/// A value of a shape, which is read to be written.
struct Value<'a, 'o> {
    shape: &'a Shape,
    of: &'a ValueShape,
    depth: usize,
    budget: &'a Cell<usize>,
    to: &'o mut Vec<u8>,
}

impl<'a, 'o> Value<'a, 'o> {
    fn inner<'i>(&'i mut self, shape: &'a Shape) -> Value<'a, 'i> {
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
            Scalar::Unit => to.extend_from_slice(b"null"),
            Scalar::Bool => json_of(to, &bool::deserialize(from)?),
            Scalar::I8 => json_of(to, &i8::deserialize(from)?),
            Scalar::I16 => json_of(to, &i16::deserialize(from)?),
            Scalar::I32 => json_of(to, &i32::deserialize(from)?),
            Scalar::I64 => json_of(to, &i64::deserialize(from)?),
            Scalar::I128 => json::display(to, i128::deserialize(from)?),
            Scalar::U8 => json_of(to, &u8::deserialize(from)?),
            Scalar::U16 => json_of(to, &u16::deserialize(from)?),
            Scalar::U32 => json_of(to, &u32::deserialize(from)?),
            Scalar::U64 => json_of(to, &u64::deserialize(from)?),
            Scalar::U128 => json::display(to, u128::deserialize(from)?),
            Scalar::F32 => match f32::deserialize(from)? {
                number if number.is_finite() => json_of(to, &number),
                other => json::display(to, other),
            },
            Scalar::F64 => match f64::deserialize(from)? {
                number if number.is_finite() => json_of(to, &number),
                other => json::display(to, other),
            },
            Scalar::Char => json_of(to, &char::deserialize(from)?),
            Scalar::String => from.deserialize_str(Text(to))?,
            Scalar::Bytes => from.deserialize_bytes(Text(to))?,
        }
        Ok(())
    }
}

fn json_of(to: &mut Vec<u8>, value: &impl serde::Serialize) {
    // Writing to memory does not fail.
    serde_json::to_writer(to, value).unwrap_or_default();
}

/// A string or bytes.
struct Text<'o>(&'o mut Vec<u8>);

impl<'de> Visitor<'de> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        json::string(self.0, text);
        Ok(())
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        json::hex(self.0, bytes);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_, '_> {
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

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.shape)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.to.extend_from_slice(b"null");
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(mut self, from: D) -> Result<(), D::Error> {
        let Shape::Option(inner) = self.shape else { return Err(D::Error::custom("no option")) };
        if !is_nullable(inner, self.of, 0) {
            return self.inner(inner).deserialize(from);
        }
        self.to.extend_from_slice(b"{\"Some\":");
        self.inner(inner).deserialize(from)?;
        self.to.push(b'}');
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        self.to.push(b'[');
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
            let begin = self.to.len();
            if at > 0 {
                self.to.push(b',');
            }
            if from.next_element_seed(self.inner(shape))?.is_none() {
                self.to.truncate(begin);
                break;
            }
            at += 1;
        }
        self.to.push(b']');
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let Shape::Map(key, value) = self.shape else { return Err(A::Error::custom("no map")) };
        let named = is_name(key);
        self.to.push(if named { b'{' } else { b'[' });
        let mut first = true;
        loop {
            let begin = self.to.len();
            if !first {
                self.to.push(b',');
            }
            if !named {
                self.to.push(b'[');
            }
            let key_begin = self.to.len();
            if from.next_key_seed(self.inner(key))?.is_none() {
                self.to.truncate(begin);
                break;
            }
            let quoted = self.to.get(key_begin) == Some(&b'"');
            if named && !quoted {
                self.to.insert(key_begin, b'"');
                self.to.push(b'"');
            }
            self.to.push(if named { b':' } else { b',' });
            from.next_value_seed(self.inner(value))?;
            if !named {
                self.to.push(b']');
            }
            first = false;
        }
        self.to.push(if named { b'}' } else { b']' });
        Ok(())
    }
}

/// What a named type or a variant is made of, which is read to be written.
struct Contained<'a, 'o> {
    container: &'a Container,
    of: &'a ValueShape,
    depth: usize,
    budget: &'a Cell<usize>,
    to: &'o mut Vec<u8>,
}

impl<'a> Contained<'a, '_> {
    fn inner<'i>(&'i mut self, shape: &'a Shape) -> Value<'a, 'i> {
        Value { shape, of: self.of, depth: self.depth + 1, budget: self.budget, to: self.to }
    }
}

impl<'de> DeserializeSeed<'de> for Contained<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, from: D) -> Result<(), D::Error> {
        match self.container {
            Container::Unit => {
                self.to.extend_from_slice(b"null");
                Ok(())
            }
            Container::Newtype(inner) => self.inner(inner).deserialize(from),
            Container::Tuple(parts) => from.deserialize_tuple(parts.len(), self),
            Container::Struct(fields) => from.deserialize_tuple(fields.len(), self),
            Container::Enum(_) => from.deserialize_enum("", &[], self),
        }
    }
}

impl<'de> Visitor<'de> for Contained<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.container)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        let container = self.container;
        match container {
            Container::Tuple(parts) => {
                self.to.push(b'[');
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        self.to.push(b',');
                    }
                    let read = from.next_element_seed(self.inner(part))?;
                    read.ok_or_else(|| A::Error::custom("it is cut short"))?;
                }
                self.to.push(b']');
            }
            Container::Struct(fields) => {
                self.to.push(b'{');
                for (at, (name, shape)) in fields.iter().enumerate() {
                    if at > 0 {
                        self.to.push(b',');
                    }
                    json::string(self.to, name);
                    self.to.push(b':');
                    let read = from.next_element_seed(self.inner(shape))?;
                    read.ok_or_else(|| A::Error::custom("it is cut short"))?;
                }
                self.to.push(b'}');
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
            json::string(self.to, name);
            return content.unit_variant();
        }
        self.to.push(b'{');
        json::string(self.to, name);
        self.to.push(b':');
        match variant {
            Container::Newtype(inner) => content.newtype_variant_seed(self.inner(inner))?,
            Container::Tuple(parts) => {
                content.tuple_variant(parts.len(), self.of_variant(variant))?
            }
            Container::Struct(fields) => {
                content.tuple_variant(fields.len(), self.of_variant(variant))?;
            }
            Container::Unit | Container::Enum(_) => {
                return Err(A::Error::custom("a variant is itself an enum"));
            }
        }
        self.to.push(b'}');
        Ok(())
    }
}

impl<'a> Contained<'a, '_> {
    fn of_variant<'i>(&'i mut self, container: &'a Container) -> Contained<'a, 'i> {
        Contained {
            container,
            of: self.of,
            depth: self.depth + 1,
            budget: self.budget,
            to: self.to,
        }
    }
}
