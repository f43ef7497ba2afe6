//! Codecs of the engine, each alone, for whoever measures them; not for users.

use crate::format::block::{self, Compression, Entry, Holds};
use crate::format::bytes::Reader;
use crate::format::frame::{FRAME_HEADER_BYTES, FrameFacts, FrameHeader, seal};
use crate::format::operation::{Operation, Record, put_record};
use crate::format::segment::FRAMES_BEGIN;
use crate::format::{Lsn, Malformed, RegionNo};

const SALT: u64 = 0x5a17;

/// Encodes a commit that inserts one entry, and seals it as the only one of a frame; whatever is in the
/// buffers is replaced.
pub fn seal_frame(key: &[u8], value: &[u8], operations: &mut Vec<u8>, frame: &mut Vec<u8>) {
    operations.clear();
    Operation::Insert { region: RegionNo(1), key, value }.encode(operations);
    frame.clear();
    frame.resize(FRAME_HEADER_BYTES, 0);
    put_record(frame, "", operations);
    let facts = FrameFacts {
        chain: 0,
        commits: 1,
        claim: FRAMES_BEGIN,
        follows: FRAMES_BEGIN,
        first_lsn: Lsn::new(1),
        time_us: 1,
    };
    seal(frame, &facts, SALT, FRAMES_BEGIN);
}

/// Checks a frame that was [sealed](seal_frame), and counts the bytes of keys and values in it; `None` if
/// it is not whole.
pub fn read_frame(frame: &[u8]) -> Option<usize> {
    let header = FrameHeader::decode(frame, SALT, FRAMES_BEGIN)?;
    let mut records = Reader::new(header.verify(frame, SALT)?.frame(frame).records);
    let mut bytes = 0;
    while !records.is_empty() {
        let mut operations = Reader::new(Record::decode(&mut records).ok()?.operations);
        while !operations.is_empty() {
            if let Operation::Insert { key, value, .. } = Operation::decode(&mut operations).ok()? {
                bytes += key.len() + value.len();
            }
        }
    }
    Some(bytes)
}

/// Makes a block of a checkpoint of entries in ascending order of their keys.
pub fn wrap_block<'a>(
    entries: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    compression: Compression,
) -> Vec<u8> {
    let mut content = Vec::with_capacity(block::BLOCK_TARGET_BYTES);
    entries.for_each(|(key, value)| Entry { key, value: Some(value) }.encode(&mut content));
    block::wrap(&content, compression, SALT, 0)
}

/// Checks and unpacks a block, and counts the bytes of keys and values in it.
///
/// # Errors
/// If it is not as [`wrap_block`] made it.
pub fn read_block(block: Vec<u8>) -> Result<usize, Malformed> {
    let content = block::unwrap(block, Holds::Entries, SALT, 0)?;
    let (mut entries, mut bytes) = (Reader::new(&content), 0);
    while !entries.is_empty() {
        let entry = Entry::decode(&mut entries)?;
        bytes += entry.key.len() + entry.value.map_or(0, <[u8]>::len);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "zstd is C")]
    fn what_is_measured_does_its_work() {
        let (key, value) = (&b"key"[..], &[7; 100][..]);
        let mut frame = Vec::new();
        seal_frame(key, value, &mut Vec::new(), &mut frame);
        assert_eq!(read_frame(&frame), Some(103));
        frame[60] ^= 1;
        assert_eq!(read_frame(&frame), None);
        for compression in [Compression::None, Compression::Zstd(1)] {
            let block = wrap_block([(key, value), (&b"later"[..], value)].into_iter(), compression);
            assert_eq!(read_block(block), Ok(208));
        }
    }
}
