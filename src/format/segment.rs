//! The header block of a segment, which seals the log before it. FORMAT.md section 3.

use super::bytes::{Reader, begin_first_bytes, end_first_bytes, first_bytes, put_u32, put_u64};
use super::{BLOCK_BYTES, Epoch, Lineage, Lsn, Malformed, Place, SECTOR_BYTES, SegmentNo};

const MAGIC: &[u8; 8] = b"ROCLOG\n\0";

/// Where the frames of a segment begin: after the header's block.
pub const FRAMES_BEGIN: u64 = BLOCK_BYTES;

/// The longest segment, so that an offset in one fits four bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 31;

/// One sector at the beginning of the header block; the rest of the block is padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The store it belongs to.
    pub lineage: Lineage,
    /// Its own number.
    pub number: SegmentNo,
    /// The bytes of the file, header included.
    pub len: u64,
    /// The boot that wrote it.
    pub epoch: Epoch,
    /// Random at each boot: tells a generation of this boot from one of a copy of the store.
    pub nonce: u64,
    /// Random for each segment: seeds the checksums of its frames.
    pub salt: u64,
    /// Frames up to here were stable before this segment had its name.
    pub claim: u64,
    /// The exact end of the log before this segment: its seal.
    pub before: Place,
}

impl SegmentHeader {
    /// The place before the first frame of this segment.
    pub fn begin(&self) -> Place {
        Place {
            segment: self.number,
            offset: FRAMES_BEGIN,
            lsn: self.before.lsn,
            chain: self.before.chain,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = begin_first_bytes(MAGIC);
        put_u64(&mut to, self.lineage.0);
        put_u64(&mut to, self.number.0);
        put_u64(&mut to, self.len);
        put_u64(&mut to, self.epoch.0);
        put_u64(&mut to, self.nonce);
        put_u64(&mut to, self.salt);
        put_u64(&mut to, self.claim);
        put_place(&mut to, &self.before);
        end_first_bytes(to, SECTOR_BYTES)
    }

    /// Reads the header out of the first sector.
    ///
    /// # Errors
    /// Why the bytes are no such header.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, Malformed> {
        let mut from = first_bytes(bytes, SECTOR_BYTES, MAGIC)?;
        let header = SegmentHeader {
            lineage: Lineage(from.u64()?),
            number: SegmentNo(from.u64()?),
            len: from.u64()?,
            epoch: Epoch(from.u64()?),
            nonce: from.u64()?,
            salt: from.u64()?,
            claim: from.u64()?,
            before: read_place(&mut from)?,
        };
        let whole_blocks = header.len.is_multiple_of(BLOCK_BYTES);
        if !whole_blocks || !(FRAMES_BEGIN..=SEGMENT_BYTES_MAX).contains(&header.len) {
            return Err(Malformed::Field("length"));
        }
        if !(FRAMES_BEGIN..=header.len).contains(&header.claim) {
            return Err(Malformed::Field("claim"));
        }
        if header.before.segment >= header.number {
            return Err(Malformed::Field("seal"));
        }
        Ok(header)
    }
}

/// Writes a place in the log, as segment headers and catalogs keep it.
pub(crate) fn put_place(to: &mut Vec<u8>, place: &Place) {
    put_u64(to, place.segment.0);
    put_u64(to, place.offset);
    put_u64(to, place.lsn.get());
    put_u32(to, place.chain);
}

/// Reads what [`put_place`] wrote.
pub(crate) fn read_place(from: &mut Reader<'_>) -> Result<Place, Malformed> {
    let place = Place {
        segment: SegmentNo(from.u64()?),
        offset: from.u64()?,
        lsn: Lsn::new(from.u64()?),
        chain: from.u32()?,
    };
    if place.offset <= SEGMENT_BYTES_MAX { Ok(place) } else { Err(Malformed::Field("place")) }
}

#[cfg(test)]
mod tests {
    use super::super::FORMAT_VERSION;
    use super::super::bytes::checksum;
    use super::*;

    const CHECKED_BYTES: usize = SECTOR_BYTES - 4;

    fn header() -> SegmentHeader {
        SegmentHeader {
            lineage: Lineage(77),
            number: SegmentNo(3),
            len: 1 << 20,
            epoch: Epoch(2),
            nonce: 5,
            salt: 6,
            claim: FRAMES_BEGIN,
            before: Place { segment: SegmentNo(2), offset: 8000, lsn: Lsn::new(41), chain: 9 },
        }
    }

    #[test]
    fn the_header_comes_back_and_every_flipped_bit_is_seen() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), SECTOR_BYTES);
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = header().encode();
        bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let sum = checksum(0, 0, &bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(Malformed::Newer(FORMAT_VERSION + 1)));
    }

    #[test]
    fn a_seal_of_a_later_segment_is_refused() {
        let mut bad = header();
        bad.before.segment = SegmentNo(3);
        assert_eq!(SegmentHeader::decode(&bad.encode()), Err(Malformed::Field("seal")));
    }
}
