//! The shapes of keys.

use std::fmt;

use super::write_tuple;
use crate::format::Malformed;
use crate::format::bytes::{Reader, put_bytes, put_varint};

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
    pub(super) fn encode(&self, to: &mut Vec<u8>) {
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

    pub(super) fn decode(from: &mut Reader<'_>, depth: usize) -> Result<KeyShape, Malformed> {
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
