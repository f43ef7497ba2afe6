//! Values between memory and bytes.

use std::any::Any;
use std::sync::Arc;

use super::Value;
use super::checked::Checked;
use crate::error::{Error, ErrorKind, Result};
use crate::format::VALUE_BYTES_MAX;
use crate::tree::Stored;

/// What bytes say by the type; if they cannot be read by it, that.
pub(super) fn decode<V: Value>(bytes: &[u8]) -> Stored<V> {
    match all_bytes(bytes).unwrap_or_else(|| postcard::from_bytes(bytes)) {
        Ok(value) => Stored::Value(value),
        Err(why) => Stored::Undecodable(why.into()),
    }
}

/// A value that is nothing but bytes, copied in one piece: serde reads a sequence item by item.
fn all_bytes<V: Value>(bytes: &[u8]) -> Option<postcard::Result<V>> {
    let mut to = None::<V>;
    let copied = (&mut to as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>()?;
    let read = postcard::from_bytes::<&[u8]>(bytes).map(|bytes| *copied = Some(bytes.to_vec()));
    read.map(|()| to).transpose()
}

/// Appends the bytes of a value; after an error `to` is as it was.
///
/// With `read_back` the bytes are decoded again, for a type whose shape could not be traced.
pub(super) fn encode<V: Value>(
    value: &V,
    to: &mut Vec<u8>,
    read_back: bool,
    region: &str,
) -> Result<()> {
    let begin = to.len();
    let done = write(value, to).and_then(|()| {
        let bytes = to.get(begin..).unwrap_or_default();
        if bytes.len() > VALUE_BYTES_MAX {
            let what = format!("a value has {} bytes; the limit is {VALUE_BYTES_MAX}", bytes.len());
            return Err(Error::new(ErrorKind::TooLarge, what));
        }
        if read_back { comes_back::<V>(bytes) } else { Ok(()) }
    });
    done.map_err(|error| {
        to.truncate(begin);
        error.in_region(region)
    })
}

fn write<V: Value>(value: &V, to: &mut Vec<u8>) -> Result<()> {
    let flavor = VecFlavor(to);
    postcard::serialize_with_flavor(&Checked(value), flavor).map_err(|cause| {
        let what = "the value cannot be written so that it can be read back; use plain serde \
                    derives, without skipped, flattened or untagged parts";
        Error::new(ErrorKind::Unsupported, what).caused_by(Arc::new(cause))
    })
}

/// Whether bytes decode, and to something that has the same bytes.
pub(super) fn comes_back<V: Value>(bytes: &[u8]) -> Result<()> {
    let refuse =
        || Error::new(ErrorKind::Unsupported, "the value was written but does not read back");
    let (value, rest) = postcard::take_from_bytes::<V>(bytes)
        .map_err(|cause| refuse().caused_by(Arc::new(cause)))?;
    let mut again = Vec::with_capacity(bytes.len());
    write(&value, &mut again)?;
    if rest.is_empty() && again == bytes { Ok(()) } else { Err(refuse()) }
}

/// What a traced sample of a type writes, checked to come back.
pub(super) fn check_sample<V: Value>(sample: &V) -> Result<()> {
    let mut bytes = Vec::new();
    write(sample, &mut bytes)?;
    comes_back::<V>(&bytes)
}

struct VecFlavor<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for VecFlavor<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        // Most lengths and many numbers are one byte, for which a call would be much.
        match bytes {
            [byte] => self.0.push(*byte),
            _ => self.0.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a value's bytes are read as, and whether in one piece.
    fn read<V: Value>(bytes: &[u8]) -> (Option<V>, bool) {
        let value = match decode(bytes) {
            Stored::Value(value) => Some(value),
            Stored::Undecodable(_) => None,
        };
        (value, all_bytes::<V>(bytes).is_some())
    }

    #[test]
    fn bytes_are_read_in_one_piece_and_as_serde_reads_them() {
        for len in [0, 1, 127, 128, 70_000] {
            let value: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let mut bytes = Vec::new();
            encode(&value, &mut bytes, false, "of bytes").unwrap();
            assert_eq!(read(&bytes), (Some(value.clone()), true));
            for damaged in
                [&bytes[..bytes.len() - 1], &[0xff; 11], &[bytes.as_slice(), b"x"].concat()]
            {
                let by_serde = postcard::from_bytes::<Vec<u8>>(damaged).ok();
                assert_eq!(read(damaged), (by_serde, true));
            }
            assert!(!read::<Vec<i8>>(&bytes).1);
        }
    }
}
