//! The schema of a region: the shapes of its keys and values, in a form of the format's own.
//! FORMAT.md section 9.

mod differences;
mod key;

use std::collections::BTreeMap;
use std::fmt;

use super::Malformed;
use super::bytes::{Reader, put_bytes, put_varint};

pub use key::KeyShape;

/// How deep shapes may nest; deeper ones are refused, so that no bytes exhaust the stack.
const DEPTH_MAX: usize = 64;

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

/// A shape without parts; its number on disk is its place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// `()`.
    Unit,
    /// `bool`.
    Bool,
    /// `i8`.
    I8,
    /// `i16`.
    I16,
    /// `i32`.
    I32,
    /// `i64`.
    I64,
    /// `i128`.
    I128,
    /// `u8`.
    U8,
    /// `u16`.
    U16,
    /// `u32`.
    U32,
    /// `u64`.
    U64,
    /// `u128`.
    U128,
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// `char`.
    Char,
    /// `String`.
    String,
    /// `Bytes`.
    Bytes,
}

/// The scalars by their numbers, each with its name in Rust.
const SCALARS: [(Scalar, &str); 17] = [
    (Scalar::Unit, "()"),
    (Scalar::Bool, "bool"),
    (Scalar::I8, "i8"),
    (Scalar::I16, "i16"),
    (Scalar::I32, "i32"),
    (Scalar::I64, "i64"),
    (Scalar::I128, "i128"),
    (Scalar::U8, "u8"),
    (Scalar::U16, "u16"),
    (Scalar::U32, "u32"),
    (Scalar::U64, "u64"),
    (Scalar::U128, "u128"),
    (Scalar::F32, "f32"),
    (Scalar::F64, "f64"),
    (Scalar::Char, "char"),
    (Scalar::String, "String"),
    (Scalar::Bytes, "Bytes"),
];
const OPTION: u8 = 32;
const SEQ: u8 = 33;
const MAP: u8 = 34;
const TUPLE: u8 = 35;
const ARRAY: u8 = 36;
const NAMED: u8 = 37;

/// The shape of a value that has no name of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One without parts.
    Scalar(Scalar),
    /// A value or none.
    Option(Box<Shape>),
    /// Any number of values.
    Seq(Box<Shape>),
    /// Pairs of key and value.
    Map(Box<Shape>, Box<Shape>),
    /// One value of each.
    Tuple(Vec<Shape>),
    /// So many values.
    Array(Box<Shape>, u64),
    /// A struct or enum by its name.
    Named(String),
}

/// What a struct, an enum or a variant is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    /// Nothing.
    Unit,
    /// One value.
    Newtype(Shape),
    /// Values by position.
    Tuple(Vec<Shape>),
    /// Values by name.
    Struct(Vec<(String, Shape)>),
    /// One of several variants, by number.
    Enum(BTreeMap<u32, (String, Container)>),
}

/// The shape of a value with all the types that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueShape {
    /// The value itself.
    pub root: Shape,
    /// Every type that is named, by name.
    pub types: BTreeMap<String, Container>,
}

impl Scalar {
    /// Its name in Rust.
    pub fn name(self) -> &'static str {
        SCALARS.get(self as usize).map_or("?", |(_, name)| name)
    }
}

impl Shape {
    pub(crate) fn scalar(name: &str) -> Option<Shape> {
        SCALARS.iter().find(|(_, known)| *known == name).map(|(scalar, _)| Shape::Scalar(*scalar))
    }

    fn encode(&self, to: &mut Vec<u8>) {
        match self {
            Self::Scalar(scalar) => to.push(*scalar as u8),
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
            number => {
                let known = SCALARS.get(usize::from(number)).ok_or(Malformed::Field("shape"))?;
                Self::Scalar(known.0)
            }
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
            Self::Scalar(scalar) => f.write_str(scalar.name()),
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
pub enum RegionClass {
    /// Keys and values.
    Map,
    /// One value, or none, under the key `()`.
    Cell,
}

/// The stored schema of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// Map or cell.
    pub class: RegionClass,
    /// The encoding of its keys.
    pub key: KeyShape,
    /// `None`: opaque, a type whose shape cannot be traced.
    pub value: Option<ValueShape>,
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

    /// Reads a schema as catalogs and the log keep it.
    ///
    /// # Errors
    /// Why the bytes are no schema.
    pub fn decode(bytes: &[u8]) -> Result<Schema, Malformed> {
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

    fn schema(fields: &[(&str, Scalar)]) -> Schema {
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
        let bytes = schema(&[("owner", Scalar::String), ("cents", Scalar::I64)]).encode();
        assert_eq!(
            Schema::decode(&bytes),
            Ok(schema(&[("owner", Scalar::String), ("cents", Scalar::I64)]))
        );
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
        let stored = schema(&[("owner", Scalar::String), ("cents", Scalar::I64)]);
        let declared =
            schema(&[("owner", Scalar::String), ("cents", Scalar::U64), ("open", Scalar::Bool)]);
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
        for (at, (scalar, _)) in SCALARS.iter().enumerate() {
            assert_eq!(at, *scalar as usize);
        }
    }
}
