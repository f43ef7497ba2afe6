//! The schema of a region: the shapes of its keys and values, in a form of the format's own.
//! FORMAT.md section 9.

mod differences;

use std::collections::BTreeMap;
use std::fmt;

use super::Malformed;
use super::bytes::{Reader, put_bytes, put_varint};

/// How deep shapes may nest; deeper ones are refused, so that no bytes exhaust the stack.
const DEPTH_MAX: usize = 64;

/// The order-preserving encoding of a key, as its type names it.
///
/// ```
/// use rocstate::{Key, KeyShape};
/// assert_eq!(<(u64, String)>::shape().to_string(), "(u64, String)");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyShape {
    /// `()`: no bytes.
    Unit,
    /// One byte, 0 or 1.
    Bool,
    /// Four bytes, big endian.
    Char,
    /// Big endian, this many bytes.
    Unsigned(u8),
    /// Big endian with the sign bit flipped, this many bytes.
    Signed(u8),
    /// UTF-8, escaped and terminated.
    String,
    /// Bytes, escaped and terminated.
    Bytes,
    /// Exactly this many bytes.
    ByteArray(u64),
    /// One byte, 0 or 1, then the key if 1.
    Option(Box<KeyShape>),
    /// The complement of the key's bytes.
    Reverse(Box<KeyShape>),
    /// One after the other.
    Tuple(Vec<KeyShape>),
    /// A type of the user's by this name, encoded as what it wraps.
    Newtype(String, Box<KeyShape>),
}

impl KeyShape {
    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Unit => to.push(0),
            Self::Bool => to.push(1),
            Self::Char => to.push(2),
            Self::Unsigned(bytes) => to.extend([3, *bytes]),
            Self::Signed(bytes) => to.extend([4, *bytes]),
            Self::String => to.push(5),
            Self::Bytes => to.push(6),
            Self::ByteArray(bytes) => {
                to.push(7);
                put_varint(to, *bytes);
            }
            Self::Option(inner) => {
                to.push(8);
                inner.encode(to);
            }
            Self::Reverse(inner) => {
                to.push(9);
                inner.encode(to);
            }
            Self::Tuple(parts) => {
                to.push(10);
                put_varint(to, parts.len() as u64);
                for part in parts {
                    part.encode(to);
                }
            }
            Self::Newtype(name, inner) => {
                to.push(11);
                put_bytes(to, name.as_bytes());
                inner.encode(to);
            }
        }
    }

    fn decode(from: &mut Reader<'_>, depth: usize) -> Result<KeyShape, Malformed> {
        let below = depth.checked_sub(1).ok_or(Malformed::Field("depth of a shape"))?;
        Ok(match from.u8()? {
            0 => Self::Unit,
            1 => Self::Bool,
            2 => Self::Char,
            3 => Self::Unsigned(from.u8()?),
            4 => Self::Signed(from.u8()?),
            5 => Self::String,
            6 => Self::Bytes,
            7 => Self::ByteArray(from.varint()?),
            8 => Self::Option(Box::new(Self::decode(from, below)?)),
            9 => Self::Reverse(Box::new(Self::decode(from, below)?)),
            10 => {
                let mut parts = Vec::new();
                for _ in 0..from.varint()? {
                    parts.push(Self::decode(from, below)?);
                }
                Self::Tuple(parts)
            }
            11 => Self::Newtype(from.str()?.to_owned(), Box::new(Self::decode(from, below)?)),
            _ => return Err(Malformed::Field("key shape")),
        })
    }
}

impl fmt::Display for KeyShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("()"),
            Self::Bool => f.write_str("bool"),
            Self::Char => f.write_str("char"),
            Self::Unsigned(bytes) => write!(f, "u{}", u32::from(*bytes) * 8),
            Self::Signed(bytes) => write!(f, "i{}", u32::from(*bytes) * 8),
            Self::String => f.write_str("String"),
            Self::Bytes => f.write_str("Vec<u8>"),
            Self::ByteArray(bytes) => write!(f, "[u8; {bytes}]"),
            Self::Option(inner) => write!(f, "Option<{inner}>"),
            Self::Reverse(inner) => write!(f, "Reverse<{inner}>"),
            Self::Tuple(parts) => write_tuple(f, parts),
            Self::Newtype(name, inner) => write!(f, "{name}({inner})"),
        }
    }
}

fn write_tuple<T: fmt::Display>(f: &mut fmt::Formatter<'_>, parts: &[T]) -> fmt::Result {
    f.write_str("(")?;
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        part.fmt(f)?;
    }
    f.write_str(if parts.len() == 1 { ",)" } else { ")" })
}

/// The scalars, each with its number on disk and its name in Rust.
const SCALARS: [(u8, &str); 17] = [
    (0, "()"),
    (1, "bool"),
    (2, "i8"),
    (3, "i16"),
    (4, "i32"),
    (5, "i64"),
    (6, "i128"),
    (7, "u8"),
    (8, "u16"),
    (9, "u32"),
    (10, "u64"),
    (11, "u128"),
    (12, "f32"),
    (13, "f64"),
    (14, "char"),
    (15, "String"),
    (16, "Bytes"),
];
const OPTION: u8 = 32;
const SEQ: u8 = 33;
const MAP: u8 = 34;
const TUPLE: u8 = 35;
const ARRAY: u8 = 36;
const NAMED: u8 = 37;

/// The shape of a value that has no name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A row of [`SCALARS`].
    Scalar(u8),
    Option(Box<Shape>),
    Seq(Box<Shape>),
    Map(Box<Shape>, Box<Shape>),
    Tuple(Vec<Shape>),
    Array(Box<Shape>, u64),
    /// A struct or enum by its name.
    Named(String),
}

/// What a struct, an enum or a variant is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Unit,
    Newtype(Shape),
    Tuple(Vec<Shape>),
    Struct(Vec<(String, Shape)>),
    Enum(BTreeMap<u32, (String, Container)>),
}

/// The shape of a value with all the types that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueShape {
    pub(crate) root: Shape,
    pub(crate) types: BTreeMap<String, Container>,
}

impl Shape {
    pub(crate) fn scalar(name: &str) -> Option<Shape> {
        SCALARS.iter().find(|(_, known)| *known == name).map(|(number, _)| Shape::Scalar(*number))
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Scalar(number) => to.push(*number),
            Self::Option(inner) => {
                to.push(OPTION);
                inner.encode(to);
            }
            Self::Seq(inner) => {
                to.push(SEQ);
                inner.encode(to);
            }
            Self::Map(key, value) => {
                to.push(MAP);
                key.encode(to);
                value.encode(to);
            }
            Self::Tuple(parts) => {
                to.push(TUPLE);
                put_varint(to, parts.len() as u64);
                for part in parts {
                    part.encode(to);
                }
            }
            Self::Array(inner, count) => {
                to.push(ARRAY);
                put_varint(to, *count);
                inner.encode(to);
            }
            Self::Named(name) => {
                to.push(NAMED);
                put_bytes(to, name.as_bytes());
            }
        }
    }

    fn decode(from: &mut Reader<'_>, depth: usize) -> Result<Shape, Malformed> {
        let below = depth.checked_sub(1).ok_or(Malformed::Field("depth of a shape"))?;
        Ok(match from.u8()? {
            number if usize::from(number) < SCALARS.len() => Self::Scalar(number),
            OPTION => Self::Option(Box::new(Self::decode(from, below)?)),
            SEQ => Self::Seq(Box::new(Self::decode(from, below)?)),
            MAP => {
                let key = Box::new(Self::decode(from, below)?);
                Self::Map(key, Box::new(Self::decode(from, below)?))
            }
            TUPLE => Self::Tuple(decode_parts(from, below)?),
            ARRAY => {
                let count = from.varint()?;
                Self::Array(Box::new(Self::decode(from, below)?), count)
            }
            NAMED => Self::Named(from.str()?.to_owned()),
            _ => return Err(Malformed::Field("shape")),
        })
    }
}

/// What is kept in order is written in order, each once: a schema has one form.
fn ascends<K: Ord, V>(before: &BTreeMap<K, V>, next: &K) -> Result<(), Malformed> {
    let in_order = before.last_key_value().is_none_or(|(last, _)| last < next);
    if in_order { Ok(()) } else { Err(Malformed::Field("order of types")) }
}

fn decode_parts(from: &mut Reader<'_>, depth: usize) -> Result<Vec<Shape>, Malformed> {
    let mut parts = Vec::new();
    for _ in 0..from.varint()? {
        parts.push(Shape::decode(from, depth)?);
    }
    Ok(parts)
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(number) => {
                let known = SCALARS.get(usize::from(*number)).map_or("?", |(_, name)| name);
                f.write_str(known)
            }
            Self::Option(inner) => write!(f, "Option<{inner}>"),
            Self::Seq(inner) => write!(f, "Vec<{inner}>"),
            Self::Map(key, value) => write!(f, "Map<{key}, {value}>"),
            Self::Tuple(parts) => write_tuple(f, parts),
            Self::Array(inner, count) => write!(f, "[{inner}; {count}]"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

impl Container {
    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Unit => to.push(0),
            Self::Newtype(shape) => {
                to.push(1);
                shape.encode(to);
            }
            Self::Tuple(parts) => {
                to.push(2);
                put_varint(to, parts.len() as u64);
                for part in parts {
                    part.encode(to);
                }
            }
            Self::Struct(fields) => {
                to.push(3);
                put_varint(to, fields.len() as u64);
                for (name, shape) in fields {
                    put_bytes(to, name.as_bytes());
                    shape.encode(to);
                }
            }
            Self::Enum(variants) => {
                to.push(4);
                put_varint(to, variants.len() as u64);
                for (number, (name, variant)) in variants {
                    put_varint(to, u64::from(*number));
                    put_bytes(to, name.as_bytes());
                    variant.encode(to);
                }
            }
        }
    }

    fn decode(from: &mut Reader<'_>, depth: usize) -> Result<Container, Malformed> {
        let below = depth.checked_sub(1).ok_or(Malformed::Field("depth of a shape"))?;
        Ok(match from.u8()? {
            0 => Self::Unit,
            1 => Self::Newtype(Shape::decode(from, below)?),
            2 => Self::Tuple(decode_parts(from, below)?),
            3 => {
                let mut fields = Vec::new();
                for _ in 0..from.varint()? {
                    fields.push((from.str()?.to_owned(), Shape::decode(from, below)?));
                }
                Self::Struct(fields)
            }
            4 => {
                let mut variants = BTreeMap::new();
                for _ in 0..from.varint()? {
                    let number = u32::try_from(from.varint()?)
                        .map_err(|_| Malformed::Field("variant number"))?;
                    let name = from.str()?.to_owned();
                    ascends(&variants, &number)?;
                    variants.insert(number, (name, Self::decode(from, below)?));
                }
                Self::Enum(variants)
            }
            _ => return Err(Malformed::Field("type shape")),
        })
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit => f.write_str("unit"),
            Self::Newtype(shape) => write!(f, "({shape})"),
            Self::Tuple(parts) => write_tuple(f, parts),
            Self::Struct(fields) => {
                f.write_str("{ ")?;
                for (at, (name, shape)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {shape}", if at > 0 { ", " } else { "" })?;
                }
                f.write_str(" }")
            }
            Self::Enum(variants) => {
                f.write_str("enum { ")?;
                for (at, (name, variant)) in variants.values().enumerate() {
                    write!(f, "{}{name}", if at > 0 { ", " } else { "" })?;
                    if *variant != Container::Unit {
                        write!(f, " {variant}")?;
                    }
                }
                f.write_str(" }")
            }
        }
    }
}

/// What a region holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegionClass {
    Map,
    Cell,
}

/// The stored schema of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) class: RegionClass,
    pub(crate) key: KeyShape,
    /// `None`: opaque, a type whose shape cannot be traced.
    pub(crate) value: Option<ValueShape>,
}

impl Schema {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = vec![match self.class {
            RegionClass::Map => 0,
            RegionClass::Cell => 1,
        }];
        self.key.encode(&mut to);
        match &self.value {
            None => to.push(0),
            Some(value) => {
                to.push(1);
                value.root.encode(&mut to);
                put_varint(&mut to, value.types.len() as u64);
                for (name, container) in &value.types {
                    put_bytes(&mut to, name.as_bytes());
                    container.encode(&mut to);
                }
            }
        }
        to
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Schema, Malformed> {
        let mut from = Reader::new(bytes);
        let class = match from.u8()? {
            0 => RegionClass::Map,
            1 => RegionClass::Cell,
            _ => return Err(Malformed::Field("region class")),
        };
        let key = KeyShape::decode(&mut from, DEPTH_MAX)?;
        let value = match from.u8()? {
            0 => None,
            1 => {
                let root = Shape::decode(&mut from, DEPTH_MAX)?;
                let mut types = BTreeMap::new();
                for _ in 0..from.varint()? {
                    let name = from.str()?.to_owned();
                    ascends(&types, &name)?;
                    types.insert(name, Container::decode(&mut from, DEPTH_MAX)?);
                }
                Some(ValueShape { root, types })
            }
            _ => return Err(Malformed::Field("value shape")),
        };
        if from.is_empty() {
            Ok(Schema { class, key, value })
        } else {
            Err(Malformed::Field("end of a schema"))
        }
    }

    /// A short number for people to compare; equality is decided on the whole.
    pub(crate) fn fingerprint(encoded: &[u8]) -> u32 {
        crc32fast::hash(encoded)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_ref().map_or("opaque".to_owned(), |shape| shape.root.to_string());
        match self.class {
            RegionClass::Map => write!(f, "{} -> {value}", self.key)?,
            RegionClass::Cell => write!(f, "cell of {value}")?,
        }
        for (name, container) in self.value.iter().flat_map(|shape| &shape.types) {
            write!(f, "; {name} {container}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, u8)]) -> Schema {
        let fields = fields.iter().map(|(name, s)| ((*name).to_owned(), Shape::Scalar(*s)));
        let types = BTreeMap::from([("Account".to_owned(), Container::Struct(fields.collect()))]);
        Schema {
            class: RegionClass::Map,
            key: KeyShape::Tuple(vec![KeyShape::Unsigned(8), KeyShape::String]),
            value: Some(ValueShape { root: Shape::Named("Account".to_owned()), types }),
        }
    }

    #[test]
    fn a_schema_comes_back_and_never_from_less() {
        let bytes = schema(&[("owner", 15), ("cents", 5)]).encode();
        assert_eq!(Schema::decode(&bytes), Ok(schema(&[("owner", 15), ("cents", 5)])));
        for cut in 0..bytes.len() {
            assert!(Schema::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_shape_that_nests_forever_is_refused() {
        let mut bytes = vec![0, 0, 1];
        bytes.resize(100_000, OPTION);
        assert_eq!(Schema::decode(&bytes), Err(Malformed::Field("depth of a shape")));
    }

    #[test]
    fn types_and_variants_that_are_out_of_order_or_there_twice_are_refused() {
        let named = |name: &str| [&[1], name.as_bytes(), &[0]].concat();
        let schema = |types: [Vec<u8>; 2]| [&[0, 0, 1, 0, 2][..], &types.concat()].concat();
        assert!(Schema::decode(&schema([named("a"), named("b")])).is_ok());
        for types in [[named("b"), named("a")], [named("a"), named("a")]] {
            assert_eq!(Schema::decode(&schema(types)), Err(Malformed::Field("order of types")));
        }
        let variants =
            |first, second| vec![0, 0, 1, 0, 1, 1, b'E', 4, 2, first, 0, 0, second, 0, 0];
        assert!(Schema::decode(&variants(1, 2)).is_ok());
        for (first, second) in [(2, 1), (1, 1)] {
            let refused = Schema::decode(&variants(first, second));
            assert_eq!(refused, Err(Malformed::Field("order of types")));
        }
    }

    #[test]
    fn differences_are_told_field_by_field() {
        let stored = schema(&[("owner", 15), ("cents", 5)]);
        let declared = schema(&[("owner", 15), ("cents", 10), ("open", 1)]);
        assert_eq!(
            stored.differences(&declared),
            [
                "value.cents: stored i64, declared u64",
                "value.open: stored no such field, declared bool"
            ]
        );
        assert!(stored.differences(&stored).is_empty());
    }

    #[test]
    fn every_scalar_has_its_own_number() {
        for (at, (number, _)) in SCALARS.iter().enumerate() {
            assert_eq!(at, usize::from(*number));
        }
    }
}
