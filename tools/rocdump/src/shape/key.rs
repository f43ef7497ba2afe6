//! Keys as JSON and back, by the shape that the store keeps with the region.

use rocstate::{KeyReader, KeyShape, KeyWriter};
use serde_json::Value;

use super::DEPTH_MAX;
use crate::json;

/// Appends the JSON of a key; what was written is undefined after an error.
pub(crate) fn key_json(bytes: &[u8], shape: &KeyShape, to: &mut Vec<u8>) -> Result<(), String> {
    let mut from = KeyReader::new(bytes);
    decode(&mut from, shape, to).map_err(|why| why.to_string())?;
    if from.is_empty() { Ok(()) } else { Err("bytes are left over".to_owned()) }
}

fn decode(from: &mut KeyReader<'_>, shape: &KeyShape, to: &mut Vec<u8>) -> rocstate::Result<()> {
    match shape {
        KeyShape::Unit => to.extend_from_slice(b"null"),
        KeyShape::Bool => match from.take_fixed()? {
            [0] => to.extend_from_slice(b"false"),
            [1] => to.extend_from_slice(b"true"),
            _ => return Err(KeyReader::malformed()),
        },
        KeyShape::Char => {
            let letter = char::from_u32(u32::from_be_bytes(from.take_fixed()?));
            let letter = letter.ok_or_else(KeyReader::malformed)?;
            json::string(to, letter.encode_utf8(&mut [0; 4]));
        }
        KeyShape::Unsigned(width) => {
            let number = unsigned(from, *width)?;
            match u64::try_from(number) {
                Ok(number) if *width <= 8 => json::number(to, &number),
                _ => json::display(to, number),
            }
        }
        KeyShape::Signed(width) => {
            let flipped = unsigned(from, *width)?;
            let bits = u32::from(*width) * 8;
            let number = flipped.wrapping_sub(1 << (bits - 1)).cast_signed();
            match i64::try_from(number) {
                Ok(number) if *width <= 8 => json::number(to, &number),
                _ => json::display(to, number),
            }
        }
        KeyShape::String => {
            let text = String::from_utf8(from.take_escaped()?);
            json::string(to, &text.map_err(|_| KeyReader::malformed())?);
        }
        KeyShape::Bytes => json::hex(to, &from.take_escaped()?),
        KeyShape::ByteArray(count) => {
            let mut bytes = Vec::new();
            for _ in 0..*count {
                bytes.extend(from.take_fixed::<1>()?);
            }
            json::hex(to, &bytes);
        }
        KeyShape::Option(inner) => match (from.take_fixed()?, is_nullable(inner)) {
            ([0], _) => to.extend_from_slice(b"null"),
            ([1], false) => decode(from, inner, to)?,
            ([1], true) => {
                to.extend_from_slice(b"{\"Some\":");
                decode(from, inner, to)?;
                to.push(b'}');
            }
            _ => return Err(KeyReader::malformed()),
        },
        KeyShape::Reverse(inner) => from.take_reversed(|from| decode(from, inner, to))?,
        KeyShape::Tuple(parts) => {
            to.push(b'[');
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    to.push(b',');
                }
                decode(from, part, to)?;
            }
            to.push(b']');
        }
        KeyShape::Newtype(_, inner) => decode(from, inner, to)?,
        // A shape that this version does not know.
        _ => return Err(KeyReader::malformed()),
    }
    Ok(())
}

fn is_nullable(shape: &KeyShape) -> bool {
    match shape {
        KeyShape::Unit | KeyShape::Option(_) => true,
        KeyShape::Newtype(_, inner) | KeyShape::Reverse(inner) => is_nullable(inner),
        _ => false,
    }
}

fn unsigned(from: &mut KeyReader<'_>, width: u8) -> rocstate::Result<u128> {
    if !matches!(width, 1 | 2 | 4 | 8 | 16) {
        return Err(KeyReader::malformed());
    }
    let mut number = 0;
    for _ in 0..width {
        let [byte] = from.take_fixed()?;
        number = number << 8 | u128::from(byte);
    }
    Ok(number)
}

/// The bytes of a key, or why the JSON is none of its shape.
pub(crate) fn key_bytes(from: &Value, shape: &KeyShape) -> Result<Vec<u8>, String> {
    let mut to = KeyWriter::new();
    encode(from, shape, &mut to, 0)?;
    Ok(to.as_bytes().to_vec())
}

/// The same of what somebody typed: JSON, or a bare word where a string is meant. A leading part of a
/// tuple's elements is enough where `leading`.
pub(crate) fn key_of_text(text: &str, shape: &KeyShape, leading: bool) -> Result<Vec<u8>, String> {
    if let Some(digits) = text.strip_prefix("hex:") {
        return json::from_hex(digits).ok_or_else(|| format!("{digits:?} is not hexadecimal"));
    }
    let bare = Value::String(text.to_owned());
    let parsed: Value = serde_json::from_str(text).unwrap_or_else(|_| bare.clone());
    if let (true, KeyShape::Tuple(parts)) = (leading, core(shape)) {
        let list = parsed.as_array().cloned().unwrap_or_else(|| vec![parsed.clone()]);
        let mut to = KeyWriter::new();
        for (item, part) in list.iter().zip(parts) {
            let own = Value::String(text.to_owned());
            encode(item, part, &mut to, 0).or_else(|why| {
                if list.len() == 1 { encode(&own, part, &mut to, 0) } else { Err(why) }
            })?;
        }
        return Ok(to.as_bytes().to_vec());
    }
    key_bytes(&parsed, shape).or_else(|why| key_bytes(&bare, shape).map_err(|_| why))
}

/// What newtypes wrap.
fn core(shape: &KeyShape) -> &KeyShape {
    match shape {
        KeyShape::Newtype(_, inner) => core(inner),
        shape => shape,
    }
}

fn encode(from: &Value, shape: &KeyShape, to: &mut KeyWriter, depth: usize) -> Result<(), String> {
    let refuse = || format!("a key of type {shape} cannot be {from}");
    if depth > DEPTH_MAX {
        return Err("it nests too deep".to_owned());
    }
    match shape {
        KeyShape::Unit if from.is_null() => {}
        KeyShape::Bool => to.put_fixed(&[u8::from(from.as_bool().ok_or_else(refuse)?)]),
        KeyShape::Char => {
            let mut chars = from.as_str().unwrap_or_default().chars();
            let first = chars.next().filter(|_| chars.next().is_none()).ok_or_else(refuse)?;
            to.put_fixed(&u32::from(first).to_be_bytes());
        }
        KeyShape::Unsigned(width) => {
            let text = from.as_str().and_then(|text| text.parse().ok());
            let number: u128 = text.or(from.as_u64().map(u128::from)).ok_or_else(refuse)?;
            put_number(to, number, *width).ok_or_else(refuse)?;
        }
        KeyShape::Signed(width) => {
            let text = from.as_str().and_then(|text| text.parse().ok());
            let number: i128 = text.or(from.as_i64().map(i128::from)).ok_or_else(refuse)?;
            let bits = u32::from(*width) * 8;
            let fits =
                (1..=128).contains(&bits) && number << (128 - bits) >> (128 - bits) == number;
            if !fits {
                return Err(refuse());
            }
            let mask = u128::MAX >> (128 - bits);
            let flipped = number.cast_unsigned().wrapping_add(1 << (bits - 1)) & mask;
            put_number(to, flipped, *width).ok_or_else(refuse)?;
        }
        KeyShape::String => to.put_escaped(from.as_str().ok_or_else(refuse)?.as_bytes()),
        KeyShape::Bytes => {
            to.put_escaped(&from.as_str().and_then(json::from_hex).ok_or_else(refuse)?);
        }
        KeyShape::ByteArray(count) => {
            let bytes = from.as_str().and_then(json::from_hex);
            let bytes = bytes.filter(|bytes| bytes.len() as u64 == *count).ok_or_else(refuse)?;
            to.put_fixed(&bytes);
        }
        KeyShape::Option(_) if from.is_null() => to.put_fixed(&[0]),
        KeyShape::Option(inner) => {
            to.put_fixed(&[1]);
            let some = if is_nullable(inner) { from.get("Some").ok_or_else(refuse)? } else { from };
            encode(some, inner, to, depth + 1)?;
        }
        KeyShape::Reverse(inner) => {
            let mut done = Ok(());
            to.put_reversed(|to| done = encode(from, inner, to, depth + 1));
            done?;
        }
        KeyShape::Tuple(parts) => {
            let list =
                from.as_array().filter(|list| list.len() == parts.len()).ok_or_else(refuse)?;
            for (item, part) in list.iter().zip(parts) {
                encode(item, part, to, depth + 1)?;
            }
        }
        KeyShape::Newtype(_, inner) => encode(from, inner, to, depth + 1)?,
        _ => return Err(refuse()),
    }
    Ok(())
}

/// Puts the last `width` bytes of a number; `None` if it has more.
fn put_number(to: &mut KeyWriter, number: u128, width: u8) -> Option<()> {
    let bytes = number.to_be_bytes();
    let (zeros, kept) = bytes.split_at_checked(16usize.checked_sub(usize::from(width))?)?;
    to.put_fixed(kept);
    zeros.iter().all(|byte| *byte == 0).then_some(())
}
