//! The smallest pieces: integers, variable-length integers, length-prefixed bytes.

use std::sync::LazyLock;

use crc32fast::Hasher;

use super::{FORMAT_VERSION, Malformed, memory_len};
use crate::control::{Step, left_out};

/// Reads from the front of a slice and never past its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Reads a variable-length integer: seven bits a byte, lowest first, no byte more than needed,
    /// so that a number has one form only.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        if let Some((byte @ 0..0x80, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    /// The same for one of any length.
    fn long_varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            let longer_than_needed = byte == 0 && shift > 0;
            if longer_than_needed || (shift == 63 && bits > 1) {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Field("variable-length integer"))
    }

    /// Reads bytes behind their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.varint()?;
        self.take(memory_len(count))
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Field("text"))
    }
}

pub(crate) fn put_u32(to: &mut Vec<u8>, value: u32) {
    to.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(to: &mut Vec<u8>, value: u64) {
    to.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push((value & 0x7f) as u8);
}

/// The bytes that [`put_varint`] will use.
pub(crate) fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

pub(crate) fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(to, bytes.len() as u64);
    to.extend_from_slice(bytes);
}

/// Which instructions the processor has is asked once.
static FRESH: LazyLock<Hasher> = LazyLock::new(Hasher::new);

/// The checksum of every structure: CRC-32 over a salt, the place, and the bytes.
///
/// The salt is random for each file and never stored where a user could choose it to match; the
/// place makes a piece that was written elsewhere invalid here.
pub(crate) fn checksum(salt: u64, offset: u64, bytes: &[u8]) -> u32 {
    let mut hasher = FRESH.clone();
    hasher.update(&seed(salt, offset));
    hasher.update(bytes);
    hasher.finalize()
}

/// What stands before the bytes of a checksum.
pub(crate) fn seed(salt: u64, offset: u64) -> [u8; SEED_BYTES] {
    let mut seed = [0; SEED_BYTES];
    let (first, second) = seed.split_at_mut(size_of_val(&salt));
    first.copy_from_slice(&salt.to_le_bytes());
    second.copy_from_slice(&offset.to_le_bytes());
    seed
}

pub(crate) const SEED_BYTES: usize = 16;

/// The [`checksum`] of bytes that stand behind their [`seed`], which takes one step less.
pub(crate) fn checksum_behind_seed(bytes: &[u8]) -> u32 {
    let mut hasher = FRESH.clone();
    hasher.update(bytes);
    hasher.finalize()
}

/// Begins to read the first bytes of a file: magic, a known version, four zeros, and a checksum at
/// the end of `whole` bytes, which every version keeps there.
pub(crate) fn first_bytes<'a>(
    bytes: &'a [u8],
    whole: usize,
    magic: &[u8],
) -> Result<Reader<'a>, Malformed> {
    let (checked, sum) = bytes.split_at_checked(whole - 4).ok_or(Malformed::Short)?;
    let mut from = Reader::new(checked);
    if from.take(magic.len())? != magic {
        return Err(Malformed::Magic);
    }
    let version = from.u32()?;
    let fits = Reader::new(sum).u32()? == checksum(0, 0, checked);
    if !fits && !left_out(Step::EndsSum) {
        return Err(Malformed::Checksum);
    }
    if version > FORMAT_VERSION {
        return Err(Malformed::Newer(version));
    }
    from.u32()?;
    Ok(from)
}

/// Begins to write what [`first_bytes`] reads.
pub(crate) fn begin_first_bytes(magic: &[u8]) -> Vec<u8> {
    let mut to = magic.to_vec();
    put_u32(&mut to, FORMAT_VERSION);
    put_u32(&mut to, 0);
    to
}

/// Fills up to `whole` bytes and ends with the checksum.
pub(crate) fn end_first_bytes(mut to: Vec<u8>, whole: usize) -> Vec<u8> {
    to.reserve_exact(whole.saturating_sub(to.len()));
    to.resize(whole - 4, 0);
    let sum = checksum(0, 0, &to);
    put_u32(&mut to, sum);
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_have_these_bytes_and_come_back() {
        for (value, bytes) in [
            (0u64, vec![0u8]),
            (127, vec![0x7f]),
            (128, vec![0x80, 1]),
            (300, vec![0xac, 2]),
            (u64::MAX, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            let mut written = Vec::new();
            put_varint(&mut written, value);
            assert_eq!(written, bytes);
            assert_eq!(written.len(), varint_len(value));
            assert_eq!(Reader::new(&written).varint(), Ok(value));
        }
    }

    #[test]
    fn a_varint_that_overflows_is_refused() {
        let bytes = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2];
        assert!(Reader::new(&bytes).varint().is_err());
        assert!(Reader::new(&[0x80; 11]).varint().is_err());
    }

    #[test]
    fn a_length_beyond_the_end_is_short() {
        assert_eq!(Reader::new(&[5, 1, 2]).bytes(), Err(Malformed::Short));
    }
}
