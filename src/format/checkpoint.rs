//! The two ends of a checkpoint file: header and footer. FORMAT.md section 8.

use super::bytes::{
    Reader, begin_first_bytes, checksum, end_first_bytes, first_bytes, put_u32, put_u64,
};
use super::index::BlockPointer;
use super::{CheckpointNo, Lineage, Malformed};
use crate::control::{Step, left_out};

const MAGIC: &[u8; 8] = b"ROCCKPT\n";
const END_MAGIC: &[u8; 8] = b"ROCCKEND";

/// The bytes of the header; sections begin after it.
pub const HEADER_BYTES: usize = 64;
/// The bytes of the footer, the last of the file.
pub const FOOTER_BYTES: usize = 64;

/// What a checkpoint file begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// The store it belongs to.
    pub lineage: Lineage,
    /// Its own number.
    pub number: CheckpointNo,
    /// The bytes of the file, both ends included.
    pub len: u64,
    /// Random for each file: seeds the checksums of its blocks.
    pub salt: u64,
}

impl CheckpointHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = begin_first_bytes(MAGIC);
        put_u64(&mut to, self.lineage.0);
        put_u64(&mut to, self.number.0);
        put_u64(&mut to, self.len);
        put_u64(&mut to, self.salt);
        end_first_bytes(to, HEADER_BYTES)
    }

    /// Reads the header out of the first bytes of the file.
    ///
    /// # Errors
    /// Why the bytes are no such header.
    pub fn decode(bytes: &[u8]) -> Result<CheckpointHeader, Malformed> {
        let mut from = first_bytes(bytes, HEADER_BYTES, MAGIC)?;
        Ok(CheckpointHeader {
            lineage: Lineage(from.u64()?),
            number: CheckpointNo(from.u64()?),
            len: from.u64()?,
            salt: from.u64()?,
        })
    }
}

/// What a checkpoint file ends with: where its catalog is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointFooter {
    /// The block that holds the catalog.
    pub catalog: BlockPointer,
}

impl CheckpointFooter {
    pub(crate) fn encode(&self, salt: u64, offset: u64) -> Vec<u8> {
        let mut to = Vec::with_capacity(FOOTER_BYTES);
        to.extend_from_slice(END_MAGIC);
        put_u64(&mut to, self.catalog.offset);
        put_u64(&mut to, self.catalog.len);
        to.resize(FOOTER_BYTES - 4, 0);
        let sum = checksum(salt, offset, &to);
        put_u32(&mut to, sum);
        to
    }

    /// Reads the footer, which stands at `offset`.
    ///
    /// # Errors
    /// Why the bytes are no such footer.
    pub fn decode(bytes: &[u8], salt: u64, offset: u64) -> Result<Self, Malformed> {
        let (checked, sum) = bytes.split_at_checked(FOOTER_BYTES - 4).ok_or(Malformed::Short)?;
        let mut from = Reader::new(checked);
        if from.take(END_MAGIC.len())? != END_MAGIC {
            return Err(Malformed::Magic);
        }
        let fits = Reader::new(sum).u32()? == checksum(salt, offset, checked);
        if !fits && !left_out(Step::EndsSum) {
            return Err(Malformed::Checksum);
        }
        Ok(CheckpointFooter { catalog: BlockPointer { offset: from.u64()?, len: from.u64()? } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_back_and_every_flipped_bit_is_seen() {
        let header =
            CheckpointHeader { lineage: Lineage(7), number: CheckpointNo(3), len: 4000, salt: 12 };
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(CheckpointHeader::decode(&bytes), Ok(header));
        let footer = CheckpointFooter { catalog: BlockPointer { offset: 64, len: 99 } };
        let end = footer.encode(12, 3936);
        assert_eq!(end.len(), FOOTER_BYTES);
        assert_eq!(CheckpointFooter::decode(&end, 12, 3936), Ok(footer));
        for bit in 0..HEADER_BYTES * 8 {
            let (mut bad, mut bad_end) = (bytes.clone(), end.clone());
            bad[bit / 8] ^= 1 << (bit % 8);
            bad_end[bit / 8] ^= 1 << (bit % 8);
            assert!(CheckpointHeader::decode(&bad).is_err(), "bit {bit}");
            assert!(CheckpointFooter::decode(&bad_end, 12, 3936).is_err(), "bit {bit}");
        }
    }
}
