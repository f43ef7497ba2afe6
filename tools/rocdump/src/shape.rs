//! Keys and values as JSON and back, by the shapes that the store keeps with each region.
//!
//! The JSON is what `serde_json` would write for the type, with these differences, so that it can be
//! read back to the same bytes: a `Some` whose content may itself be `null` is `{"Some": ..}`; integers
//! of 128 bits and floats that are no numbers are strings; maps whose keys are neither strings, integers,
//! `bool` nor `char` are lists of pairs; bytes are strings of hexadecimal digits.

mod decode;
mod encode;
mod key;
pub(crate) mod rust;

pub(crate) use decode::{check_value, value_json};
pub(crate) use encode::value_bytes;
pub(crate) use key::{key_bytes, key_json, key_of_text};

use rocstate::format::shape::{Container, Scalar, Shape, ValueShape};

/// How deep values may nest that are shown as JSON: as deep as JSON readers go.
const DEPTH_MAX: usize = 100;

/// Whether a value of this shape may be `null` in JSON.
fn is_nullable(shape: &Shape, of: &ValueShape, depth: usize) -> bool {
    match shape {
        Shape::Option(_) => true,
        Shape::Scalar(scalar) => *scalar == Scalar::Unit,
        // One that wraps itself for ever can have no value.
        Shape::Named(name) if depth < DEPTH_MAX => match of.types.get(name) {
            Some(Container::Unit) => true,
            Some(Container::Newtype(inner)) => is_nullable(inner, of, depth + 1),
            _ => false,
        },
        _ => false,
    }
}

/// Whether a map with keys of this shape is an object in JSON.
fn is_name(shape: &Shape) -> bool {
    matches!(shape, Shape::Scalar(scalar) if !matches!(
        scalar,
        Scalar::Unit | Scalar::F32 | Scalar::F64 | Scalar::Bytes
    ))
}
