//! Blocks of a checkpoint: a checked envelope, and the sorted entries in it. FORMAT.md section 6.

use super::bytes::{Reader, checksum, put_bytes, put_varint, varint_len};
use super::{Malformed, disk_len, memory_len, short_len};
use crate::control::{Step, left_out};

/// The bytes before the content of a block.
pub(crate) const ENVELOPE_BYTES: usize = 16;

/// How many raw bytes a section block aims at; one entry may be larger.
pub(crate) const BLOCK_TARGET_BYTES: usize = 16 << 10;

/// A block that would compress further is stored raw, so that no block unpacks to more.
const EXPANSION_MAX: u64 = 64;

/// What a block holds, which says whether it may be compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// Entries, which are read where they lie.
    Entries,
    /// An index or a catalog, which takes more room in memory than on disk: if it could be compressed as
    /// well, a small file would take a thousand times its size.
    Structure,
}

const RAW: u32 = 0;
const ZSTD: u32 = 1;

/// How the content of checkpoint blocks is kept.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use rocstate::{Compression, Store};
/// let store = Store::options().compression(Compression::Zstd(1)).open(dir.path())?;
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Compression {
    /// As it is: fastest to boot from.
    #[default]
    None,
    /// zstd at this level, 1 to 19; a block that does not shrink stays as it is.
    Zstd(i32),
}

/// Puts `content` into an envelope that is valid only in the file with this salt at this offset.
pub(crate) fn wrap(content: &[u8], compression: Compression, salt: u64, offset: u64) -> Vec<u8> {
    let packed = match compression {
        Compression::None => None,
        Compression::Zstd(level) => zstd::bulk::compress(content, level).ok().filter(|packed| {
            packed.len() < content.len()
                && disk_len(content.len()) <= disk_len(packed.len()) * EXPANSION_MAX
        }),
    };
    let (codec, stored) = match &packed {
        Some(packed) => (ZSTD, packed.as_slice()),
        None => (RAW, content),
    };
    let mut block = vec![0; 4];
    block.extend_from_slice(&short_len(stored.len()).to_le_bytes());
    block.extend_from_slice(&short_len(content.len()).to_le_bytes());
    block.extend_from_slice(&codec.to_le_bytes());
    block.extend_from_slice(stored);
    let sum = checksum(salt, offset, block.get(4..).unwrap_or_default());
    if let Some(to) = block.first_chunk_mut::<4>() {
        *to = sum.to_le_bytes();
    }
    block
}

/// The length of a block, its envelope included, as the envelope states it.
#[cfg(feature = "inspect")]
pub(crate) fn stated_len(envelope: &[u8]) -> Option<u64> {
    let mut from = Reader::new(envelope);
    from.u32().ok()?;
    Some(disk_len(ENVELOPE_BYTES) + u64::from(from.u32().ok()?))
}

/// Takes the content out of an envelope.
pub(crate) fn unwrap(
    block: Vec<u8>,
    holds: Holds,
    salt: u64,
    offset: u64,
) -> Result<Vec<u8>, Malformed> {
    let mut from = Reader::new(&block);
    let sum = from.u32()?;
    let stored = from.u32()?;
    let raw = from.u32()?;
    let codec = from.u32()?;
    let content = from.rest();
    if content.len() != memory_len(u64::from(stored)) {
        return Err(Malformed::Field("length"));
    }
    let fits = checksum(salt, offset, block.get(4..).unwrap_or_default()) == sum;
    if !fits && !left_out(Step::BlockSum) {
        return Err(Malformed::Checksum);
    }
    match codec {
        RAW if raw == stored => {
            let mut block = block;
            block.drain(..ENVELOPE_BYTES);
            Ok(block)
        }
        ZSTD if holds == Holds::Entries && u64::from(raw) <= u64::from(stored) * EXPANSION_MAX => {
            let raw = memory_len(u64::from(raw));
            let content = zstd::bulk::decompress(content, raw)
                .map_err(|_| Malformed::Field("compressed content"))?;
            if content.len() == raw { Ok(content) } else { Err(Malformed::Field("length")) }
        }
        _ => Err(Malformed::Field("codec")),
    }
}

/// One key of a section: its value, or the mark that it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) key: &'a [u8],
    /// `None` is a tombstone: it hides the key in the layers below.
    pub(crate) value: Option<&'a [u8]>,
}

impl<'a> Entry<'a> {
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put_bytes(to, self.key);
        match self.value {
            None => put_varint(to, 0),
            Some(value) => {
                put_varint(to, disk_len(value.len()) + 1);
                to.extend_from_slice(value);
            }
        }
    }

    pub(crate) fn encoded_len(&self) -> usize {
        let value =
            self.value.map_or(1, |value| varint_len(disk_len(value.len()) + 1) + value.len());
        varint_len(disk_len(self.key.len())) + self.key.len() + value
    }

    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<Entry<'a>, Malformed> {
        let key = from.bytes()?;
        let value = match from.varint()? {
            0 => None,
            more => Some(from.take(memory_len(more - 1))?),
        };
        Ok(Entry { key, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "zstd is C")]
    fn blocks_come_back_and_every_flipped_bit_is_seen() {
        let text = b"the same words, the same words, the same words, the same words";
        for compression in [Compression::None, Compression::Zstd(1)] {
            let block = wrap(text, compression, 7, 64);
            assert_eq!(unwrap(block.clone(), Holds::Entries, 7, 64).unwrap(), text);
            assert!(unwrap(block.clone(), Holds::Entries, 7, 65).is_err());
            assert!(unwrap(block.clone(), Holds::Entries, 8, 64).is_err());
            for bit in 0..block.len() * 8 {
                let mut bad = block.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(unwrap(bad, Holds::Entries, 7, 64).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "zstd is C")]
    fn what_would_unpack_to_too_much_is_stored_raw() {
        let zeros = vec![0; 1 << 20];
        let block = wrap(&zeros, Compression::Zstd(1), 0, 0);
        assert_eq!(block.len(), zeros.len() + ENVELOPE_BYTES);
    }

    #[test]
    fn entries_have_these_bytes_and_come_back() {
        for (entry, bytes) in [
            (Entry { key: b"k", value: Some(b"v") }, &[1, b'k', 2, b'v'][..]),
            (Entry { key: b"k", value: Some(b"") }, &[1, b'k', 1]),
            (Entry { key: b"", value: None }, &[0, 0]),
        ] {
            let mut written = Vec::new();
            entry.encode(&mut written);
            assert_eq!(written, bytes);
            assert_eq!(written.len(), entry.encoded_len());
            assert_eq!(Entry::decode(&mut Reader::new(&written)), Ok(entry));
        }
    }
}
