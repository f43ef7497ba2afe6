//! What is known of the types that were seen so far.

use std::any::type_name;
use std::collections::{BTreeMap, BTreeSet};

use super::{Traced, Untraceable};
use crate::format::shape::{Container, Shape, ValueShape};

/// Tuples that are longer hold one type many times, or are given up.
const TUPLE_MAX: usize = 16;

/// A shape that is not known in all its parts yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Partial {
    Unknown,
    Scalar(&'static str),
    Option(Box<Partial>),
    Seq(Box<Partial>),
    Map(Box<Partial>, Box<Partial>),
    Tuple(Vec<Partial>),
    /// A type by its number.
    Named(usize),
}

/// What is known of a struct, an enum or a variant.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Body {
    Unknown,
    Unit,
    Newtype(Partial),
    Tuple(Vec<Partial>),
    Struct(Vec<(&'static str, Partial)>),
}

impl Partial {
    pub(super) fn is_partial(&self) -> bool {
        match self {
            Partial::Unknown => true,
            Partial::Scalar(_) | Partial::Named(_) => false,
            Partial::Option(inner) | Partial::Seq(inner) => inner.is_partial(),
            Partial::Map(key, value) => key.is_partial() || value.is_partial(),
            Partial::Tuple(parts) => parts.iter().any(Partial::is_partial),
        }
    }
}

impl Body {
    pub(super) fn is_partial(&self) -> bool {
        match self {
            Body::Unknown => true,
            Body::Unit => false,
            Body::Newtype(inner) => inner.is_partial(),
            Body::Tuple(parts) => parts.iter().any(Partial::is_partial),
            Body::Struct(fields) => fields.iter().any(|(_, shape)| shape.is_partial()),
        }
    }
}

pub(super) fn unify(a: Partial, b: Partial) -> Traced<Partial> {
    let boxed = |a: Box<Partial>, b: Box<Partial>| unify(*a, *b).map(Box::new);
    Ok(match (a, b) {
        (Partial::Unknown, known) | (known, Partial::Unknown) => known,
        (Partial::Option(a), Partial::Option(b)) => Partial::Option(boxed(a, b)?),
        (Partial::Seq(a), Partial::Seq(b)) => Partial::Seq(boxed(a, b)?),
        (Partial::Map(ka, va), Partial::Map(kb, vb)) => {
            Partial::Map(boxed(ka, kb)?, boxed(va, vb)?)
        }
        (Partial::Tuple(a), Partial::Tuple(b)) if a.len() == b.len() => {
            Partial::Tuple(a.into_iter().zip(b).map(|(a, b)| unify(a, b)).collect::<Traced<_>>()?)
        }
        (a, b) if a == b => a,
        _ => return Err(Untraceable::Opaque),
    })
}

pub(super) fn unify_body(a: Body, b: Body) -> Traced<Body> {
    Ok(match (a, b) {
        (Body::Unknown, known) | (known, Body::Unknown) => known,
        (Body::Unit, Body::Unit) => Body::Unit,
        (Body::Newtype(a), Body::Newtype(b)) => Body::Newtype(unify(a, b)?),
        (Body::Tuple(a), Body::Tuple(b)) if a.len() == b.len() => {
            Body::Tuple(a.into_iter().zip(b).map(|(a, b)| unify(a, b)).collect::<Traced<_>>()?)
        }
        (Body::Struct(a), Body::Struct(b)) if a.len() == b.len() => Body::Struct(
            a.into_iter()
                .zip(b)
                .map(|((name, a), (_, b))| Ok((name, unify(a, b)?)))
                .collect::<Traced<_>>()?,
        ),
        _ => return Err(Untraceable::Opaque),
    })
}

/// Everything that was seen so far.
#[derive(Debug, Default)]
pub(super) struct Types {
    pub(super) known: Vec<Type>,
    /// The types that are being invented right now, outermost first.
    pub(super) stack: Vec<usize>,
    pub(super) depth: usize,
}

#[derive(Debug)]
pub(super) struct Type {
    /// Tells types of one name apart; not stored.
    pub(super) rust_name: &'static str,
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Struct(Body),
    Enum(Vec<Variant>),
}

#[derive(Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) body: Body,
    /// How deep the shallowest value of this variant is; `None` until one was invented.
    pub(super) height: Option<usize>,
    pub(super) in_progress: bool,
}

impl Variant {
    pub(super) fn new(name: &'static str) -> Variant {
        Variant { name, body: Body::Unknown, height: None, in_progress: false }
    }
}

impl Types {
    pub(super) fn number<T>(&mut self, name: &'static str, new: impl FnOnce() -> Kind) -> usize {
        let rust_name = type_name::<T>();
        let known =
            self.known.iter().position(|known| known.rust_name == rust_name && known.name == name);
        known.unwrap_or_else(|| {
            self.known.push(Type { rust_name, name, kind: new() });
            self.known.len() - 1
        })
    }

    pub(super) fn variants(&mut self, number: usize) -> &mut [Variant] {
        match self.known.get_mut(number).map(|known| &mut known.kind) {
            Some(Kind::Enum(variants)) => variants,
            _ => &mut [],
        }
    }

    pub(super) fn is_unfinished(&self, number: usize) -> bool {
        match self.known.get(number).map(|known| &known.kind) {
            Some(Kind::Enum(variants)) => {
                variants.iter().any(|v| v.height.is_none() || v.body.is_partial())
            }
            Some(Kind::Struct(body)) => body.is_partial(),
            None => false,
        }
    }

    pub(super) fn has_unfinished(&self) -> bool {
        (0..self.known.len()).any(|number| self.is_unfinished(number))
    }

    /// The variant to invent next: one that was never invented, one of which not all is known, one
    /// that holds such a type, else the shallowest, so that it ends.
    pub(super) fn choose(&self, number: usize) -> Traced<usize> {
        let repeated = self.stack.contains(&number);
        let unfinished: BTreeSet<usize> = (0..self.known.len())
            .filter(|other| *other != number && self.is_unfinished(*other))
            .collect();
        let Some(Type { kind: Kind::Enum(variants), .. }) = self.known.get(number) else {
            return Err(Untraceable::Opaque);
        };
        let first = |wanted: &dyn Fn(&Variant) -> bool| {
            variants.iter().position(|variant| !variant.in_progress && wanted(variant))
        };
        let never = first(&|variant| variant.height.is_none());
        let partial = first(&|variant| !repeated && variant.body.is_partial());
        let holds = first(&|variant| {
            !repeated && !self.reachable(&variant.body, number).is_disjoint(&unfinished)
        });
        let heights = variants.iter().enumerate();
        let heights = heights.filter_map(|(at, variant)| Some((variant.height?, at)));
        let shallowest = heights.min().map(|(_, at)| at);
        never.or(partial).or(holds).or(shallowest).ok_or(Untraceable::Opaque)
    }

    /// Whether going on inside a container would only repeat what is being invented already.
    pub(super) fn repeats(&self) -> bool {
        let Some((last, before)) = self.stack.split_last() else { return false };
        before.contains(last)
    }

    pub(super) fn finish(&self, root: &Partial) -> Traced<ValueShape> {
        let mut types = BTreeMap::new();
        for (number, known) in self.known.iter().enumerate() {
            let container = match &known.kind {
                Kind::Struct(body) => self.container(body)?,
                Kind::Enum(variants) => {
                    let variants = (0u32..).zip(variants).map(|(number, variant)| {
                        Ok((number, (variant.name.to_owned(), self.container(&variant.body)?)))
                    });
                    Container::Enum(variants.collect::<Traced<_>>()?)
                }
            };
            types.insert(self.display_name(number), container);
        }
        Ok(ValueShape { root: self.shape(root)?, types })
    }

    /// The name of a type; others of the same name are numbered as they were met.
    pub(super) fn display_name(&self, number: usize) -> String {
        let name = self.known.get(number).map_or("", |known| known.name);
        let before = self.known.iter().take(number).filter(|known| known.name == name).count();
        if before == 0 { name.to_owned() } else { format!("{name}#{}", before + 1) }
    }

    pub(super) fn container(&self, body: &Body) -> Traced<Container> {
        Ok(match body {
            Body::Unknown => return Err(Untraceable::Opaque),
            Body::Unit => Container::Unit,
            Body::Newtype(inner) => Container::Newtype(self.shape(inner)?),
            Body::Tuple(parts) => Container::Tuple(self.shapes(parts)?),
            Body::Struct(fields) => Container::Struct(
                fields
                    .iter()
                    .map(|(name, shape)| Ok(((*name).to_owned(), self.shape(shape)?)))
                    .collect::<Traced<_>>()?,
            ),
        })
    }

    pub(super) fn shapes(&self, parts: &[Partial]) -> Traced<Vec<Shape>> {
        parts.iter().map(|part| self.shape(part)).collect()
    }

    pub(super) fn shape(&self, partial: &Partial) -> Traced<Shape> {
        Ok(match partial {
            Partial::Unknown => return Err(Untraceable::Opaque),
            Partial::Scalar(name) => Shape::scalar(name).ok_or(Untraceable::Opaque)?,
            Partial::Option(inner) => Shape::Option(Box::new(self.shape(inner)?)),
            Partial::Seq(inner) => Shape::Seq(Box::new(self.shape(inner)?)),
            Partial::Map(key, value) => {
                Shape::Map(Box::new(self.shape(key)?), Box::new(self.shape(value)?))
            }
            Partial::Tuple(parts) if parts.len() > TUPLE_MAX => {
                let mut shapes = self.shapes(parts)?;
                shapes.dedup();
                match <[Shape; 1]>::try_from(shapes) {
                    Ok([one]) => Shape::Array(Box::new(one), parts.len() as u64),
                    Err(_) => return Err(Untraceable::Opaque),
                }
            }
            Partial::Tuple(parts) => Shape::Tuple(self.shapes(parts)?),
            Partial::Named(number) => Shape::Named(self.display_name(*number)),
        })
    }
}

impl Types {
    /// The types that a body names, and those that they name; not by way of the type itself, which
    /// would lead everywhere.
    pub(super) fn reachable(&self, body: &Body, itself: usize) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut open = Vec::new();
        named_in_body(body, &mut open);
        while let Some(number) = open.pop() {
            if number != itself && found.insert(number) {
                match self.known.get(number).map(|known| &known.kind) {
                    Some(Kind::Struct(body)) => named_in_body(body, &mut open),
                    Some(Kind::Enum(variants)) => {
                        for variant in variants {
                            named_in_body(&variant.body, &mut open);
                        }
                    }
                    None => {}
                }
            }
        }
        found
    }
}

pub(super) fn named_in_body(body: &Body, to: &mut Vec<usize>) {
    match body {
        Body::Unknown | Body::Unit => {}
        Body::Newtype(inner) => named(inner, to),
        Body::Tuple(parts) => parts.iter().for_each(|part| named(part, to)),
        Body::Struct(fields) => fields.iter().for_each(|(_, part)| named(part, to)),
    }
}

pub(super) fn named(shape: &Partial, to: &mut Vec<usize>) {
    match shape {
        Partial::Unknown | Partial::Scalar(_) => {}
        Partial::Option(inner) | Partial::Seq(inner) => named(inner, to),
        Partial::Map(key, value) => {
            named(key, to);
            named(value, to);
        }
        Partial::Tuple(parts) => parts.iter().for_each(|part| named(part, to)),
        Partial::Named(number) => to.push(*number),
    }
}
