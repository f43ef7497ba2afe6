//! Tracing a type's shape: its `Deserialize` is run on invented input until every struct, enum and
//! variant that it can ask for has been seen.
//!
//! The idea is that of the crate `serde-reflection`; this one also finds every variant of an enum
//! inside `Option`, `Vec` or another enum, tells types of one name apart, and gives up instead of
//! exhausting the stack on recursive types. postcard reads structs and tuples by position and
//! variants by number, and so does this.

mod types;

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use crate::format::shape::ValueShape;
use types::{Body, Kind, Partial, Type, Types, Variant, unify, unify_body};

/// How deep invented values nest before the type is given up.
const DEPTH_MAX: usize = 96;
/// How many values are invented before the type is given up.
const VALUES_MAX: usize = 4_000;

/// Why a type could not be traced.
#[derive(Debug)]
pub(super) enum Untraceable {
    /// It asks for what a format without names cannot answer.
    Unsupported(&'static str),
    /// It refuses invented values, or is too large or too deep: it may work all the same.
    Opaque,
}

impl fmt::Display for Untraceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => f.write_str(what),
            Self::Opaque => f.write_str("the type refuses invented values"),
        }
    }
}

impl std::error::Error for Untraceable {}

impl de::Error for Untraceable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Opaque
    }
}

type Traced<T> = Result<T, Untraceable>;

/// The shape of `V`, and the values that were invented on the way.
pub(super) fn trace<V: DeserializeOwned>() -> Traced<(ValueShape, Vec<V>)> {
    let mut types = Types::default();
    let mut root = Partial::Unknown;
    let mut samples = Vec::new();
    for _ in 0..VALUES_MAX {
        let mut seen = Partial::Unknown;
        samples.push(V::deserialize(Tracer { types: &mut types, shape: &mut seen })?);
        root = unify(root, seen)?;
        if !types.has_unfinished() && !root.is_partial() {
            return Ok((types.finish(&root)?, samples));
        }
    }
    Err(Untraceable::Opaque)
}

/// Invents the value that is asked for, and notes its shape.
struct Tracer<'a> {
    types: &'a mut Types,
    shape: &'a mut Partial,
}

impl Tracer<'_> {
    fn scalar(&mut self, name: &'static str) {
        *self.shape = Partial::Scalar(name);
    }

    /// Invents the body of a struct or variant one level deeper.
    fn inside<T>(
        types: &mut Types,
        number: usize,
        invent: impl FnOnce(&mut Types) -> Traced<T>,
    ) -> Traced<T> {
        if types.stack.len() >= DEPTH_MAX {
            return Err(Untraceable::Opaque);
        }
        types.stack.push(number);
        let outcome = invent(types);
        types.stack.pop();
        outcome
    }

    fn structure<'de, V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
        invent: impl FnOnce(&mut Types, V) -> Traced<(V::Value, Body)>,
    ) -> Traced<V::Value> {
        let number = self.types.number::<V::Value>(name, || Kind::Struct(Body::Unknown));
        *self.shape = Partial::Named(number);
        let (value, seen) = Tracer::inside(self.types, number, |types| invent(types, visitor))?;
        if let Some(Type { kind: Kind::Struct(body), .. }) = self.types.known.get_mut(number) {
            *body = unify_body(std::mem::replace(body, Body::Unknown), seen)?;
            Ok(value)
        } else {
            Err(Untraceable::Opaque)
        }
    }
}

macro_rules! scalars {
    ($($method:ident $visit:ident $value:expr, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Traced<V::Value> {
            self.scalar($name);
            visitor.$visit($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Untraceable;

    scalars! {
        deserialize_bool visit_bool false, "bool";
        deserialize_i8 visit_i8 0, "i8";
        deserialize_i16 visit_i16 0, "i16";
        deserialize_i32 visit_i32 0, "i32";
        deserialize_i64 visit_i64 0, "i64";
        deserialize_i128 visit_i128 0, "i128";
        deserialize_u8 visit_u8 0, "u8";
        deserialize_u16 visit_u16 0, "u16";
        deserialize_u32 visit_u32 0, "u32";
        deserialize_u64 visit_u64 0, "u64";
        deserialize_u128 visit_u128 0, "u128";
        deserialize_f32 visit_f32 0.0, "f32";
        deserialize_f64 visit_f64 0.0, "f64";
        deserialize_char visit_char 'a', "char";
        deserialize_str visit_str "", "String";
        deserialize_string visit_string String::new(), "String";
        deserialize_bytes visit_bytes b"", "Bytes";
        deserialize_byte_buf visit_byte_buf Vec::new(), "Bytes";
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Traced<V::Value> {
        Err(Untraceable::Unsupported("whatever stands there (deserialize_any)"))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Traced<V::Value> {
        Err(Untraceable::Unsupported("to skip whatever stands there (deserialize_ignored_any)"))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Traced<V::Value> {
        Err(Untraceable::Unsupported("the names of fields (deserialize_identifier)"))
    }

    fn deserialize_unit<V: Visitor<'de>>(mut self, visitor: V) -> Traced<V::Value> {
        self.scalar("()");
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Traced<V::Value> {
        let mut inner = Partial::Unknown;
        let value = if self.types.repeats() {
            visitor.visit_none()
        } else {
            visitor.visit_some(Tracer { types: self.types, shape: &mut inner })
        };
        *self.shape = Partial::Option(Box::new(inner));
        value
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Traced<V::Value> {
        let mut inner = [Partial::Unknown];
        let count = usize::from(!self.types.repeats());
        let elements = Elements { types: self.types, shapes: inner.iter_mut().take(count) };
        let value = visitor.visit_seq(elements);
        let [inner] = inner;
        *self.shape = Partial::Seq(Box::new(inner));
        value
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Traced<V::Value> {
        let mut inner = [Partial::Unknown, Partial::Unknown];
        let count = if self.types.repeats() { 0 } else { 2 };
        let elements = Elements { types: self.types, shapes: inner.iter_mut().take(count) };
        let value = visitor.visit_map(elements);
        let [key, value_shape] = inner;
        *self.shape = Partial::Map(Box::new(key), Box::new(value_shape));
        value
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Traced<V::Value> {
        let (value, parts) = elements(self.types, len, visitor)?;
        *self.shape = Partial::Tuple(parts);
        Ok(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Traced<V::Value> {
        self.structure(name, visitor, |_, visitor| Ok((visitor.visit_unit()?, Body::Unit)))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Traced<V::Value> {
        self.structure(name, visitor, |types, visitor| {
            let mut shape = Partial::Unknown;
            let value = visitor.visit_newtype_struct(Tracer { types, shape: &mut shape })?;
            Ok((value, Body::Newtype(shape)))
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Traced<V::Value> {
        self.structure(name, visitor, |types, visitor| {
            elements(types, len, visitor).map(|(value, parts)| (value, Body::Tuple(parts)))
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Traced<V::Value> {
        self.structure(name, visitor, |types, visitor| {
            let (value, parts) = elements(types, fields.len(), visitor)?;
            Ok((value, Body::Struct(fields.iter().copied().zip(parts).collect())))
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Traced<V::Value> {
        let new = || Kind::Enum(variants.iter().map(|name| Variant::new(name)).collect());
        let number = self.types.number::<V::Value>(name, new);
        *self.shape = Partial::Named(number);
        let at = self.types.choose(number)?;
        let met_before = self.types.depth;
        self.types.depth = 0;
        let was_in_progress = self
            .types
            .variants(number)
            .get_mut(at)
            .is_some_and(|variant| std::mem::replace(&mut variant.in_progress, true));
        let mut body = Body::Unknown;
        let index = u32::try_from(at).map_err(|_| Untraceable::Opaque)?;
        let value = Tracer::inside(self.types, number, |types| {
            visitor.visit_enum(OneVariant { types, index, body: &mut body })
        })?;
        let height = self.types.depth + 1;
        if let Some(variant) = self.types.variants(number).get_mut(at) {
            variant.in_progress = was_in_progress;
            variant.height = Some(variant.height.map_or(height, |known| known.min(height)));
            variant.body = unify_body(std::mem::replace(&mut variant.body, Body::Unknown), body)?;
        }
        self.types.depth = met_before.max(height);
        Ok(value)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// Invents `len` elements in a row.
fn elements<'de, V: Visitor<'de>>(
    types: &mut Types,
    len: usize,
    visitor: V,
) -> Traced<(V::Value, Vec<Partial>)> {
    let mut parts = vec![Partial::Unknown; len];
    let value = visitor.visit_seq(Elements { types, shapes: parts.iter_mut() })?;
    Ok((value, parts))
}

/// Elements of a sequence, a tuple or a map, and where their shapes go.
struct Elements<'a, I> {
    types: &'a mut Types,
    shapes: I,
}

impl<'de, 's, I: Iterator<Item = &'s mut Partial>> SeqAccess<'de> for Elements<'_, I> {
    type Error = Untraceable;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Traced<Option<T::Value>> {
        let Some(shape) = self.shapes.next() else { return Ok(None) };
        seed.deserialize(Tracer { types: self.types, shape }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.shapes.size_hint().1
    }
}

impl<'de, 's, I: Iterator<Item = &'s mut Partial>> MapAccess<'de> for Elements<'_, I> {
    type Error = Untraceable;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Traced<Option<T::Value>> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Traced<T::Value> {
        self.next_element_seed(seed)?.ok_or(Untraceable::Opaque)
    }
}

/// The variant that was chosen.
struct OneVariant<'a> {
    types: &'a mut Types,
    index: u32,
    body: &'a mut Body,
}

impl<'de> EnumAccess<'de> for OneVariant<'_> {
    type Error = Untraceable;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Traced<(T::Value, Self)> {
        let index: U32Deserializer<Untraceable> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for OneVariant<'_> {
    type Error = Untraceable;

    fn unit_variant(self) -> Traced<()> {
        *self.body = Body::Unit;
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Traced<T::Value> {
        let mut shape = Partial::Unknown;
        let value = seed.deserialize(Tracer { types: self.types, shape: &mut shape })?;
        *self.body = Body::Newtype(shape);
        Ok(value)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Traced<V::Value> {
        let (value, parts) = elements(self.types, len, visitor)?;
        *self.body = Body::Tuple(parts);
        Ok(value)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Traced<V::Value> {
        let (value, parts) = elements(self.types, fields.len(), visitor)?;
        *self.body = Body::Struct(fields.iter().copied().zip(parts).collect());
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::format::shape::{KeyShape, RegionClass, Schema};

    fn text<V: DeserializeOwned>() -> String {
        let (value, _) = trace::<V>().unwrap();
        Schema { class: RegionClass::Cell, key: KeyShape::Unit, value: Some(value) }.to_string()
    }

    #[derive(Serialize, Deserialize)]
    enum Expression {
        Add(Box<Expression>, Box<Expression>),
        All(Vec<Expression>),
        Number(i64),
        Of { kind: Option<Kind> },
    }

    #[derive(Serialize, Deserialize)]
    enum Kind {
        A,
        B(Deep),
    }

    #[derive(Serialize, Deserialize)]
    enum Deep {
        X,
        Y(HashMap<u8, Deeper>),
    }

    #[derive(Serialize, Deserialize)]
    enum Deeper {
        P,
        Q([u8; 20]),
    }

    #[test]
    fn every_variant_of_nested_and_recursive_enums_is_found() {
        assert_eq!(
            text::<Expression>(),
            "cell of Expression; Deep enum { X, Y (Map<u8, Deeper>) }; \
             Deeper enum { P, Q ([u8; 20]) }; \
             Expression enum { Add (Expression, Expression), All (Vec<Expression>), Number (i64), \
             Of { kind: Option<Kind> } }; Kind enum { A, B (Deep) }"
        );
    }

    #[derive(Serialize, Deserialize)]
    struct Tree {
        name: String,
        children: Vec<Tree>,
        parent: Option<Box<Tree>>,
        by_name: BTreeMap<String, (u8, Tree)>,
    }

    #[test]
    fn a_recursive_struct_ends() {
        assert_eq!(
            text::<Tree>(),
            "cell of Tree; Tree { name: String, children: Vec<Tree>, parent: Option<Tree>, \
             by_name: Map<String, (u8, Tree)> }"
        );
    }

    #[derive(Serialize, Deserialize)]
    struct Wrapper<T>(T, u8);

    #[test]
    fn types_of_one_name_are_told_apart() {
        assert_eq!(
            text::<(Wrapper<u8>, Wrapper<String>)>(),
            "cell of (Wrapper, Wrapper#2); Wrapper (u8, u8); Wrapper#2 (String, u8)"
        );
    }

    #[derive(Serialize, Deserialize)]
    struct Endless {
        again: Box<Endless>,
    }

    #[test]
    fn a_type_without_an_end_is_given_up() {
        assert!(matches!(trace::<Endless>(), Err(Untraceable::Opaque)));
        assert!(matches!(trace::<std::num::NonZeroU8>(), Err(Untraceable::Opaque)));
    }
}
