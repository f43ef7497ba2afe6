//! LOCK's one sector: which store this is and which segment is the newest. FORMAT.md section 2.

use super::bytes::{begin_first_bytes, end_first_bytes, first_bytes, put_u64};
use super::{Epoch, Lineage, Malformed, SECTOR_BYTES, SegmentNo};

const MAGIC: &[u8; 8] = b"ROCLOCK\n";

/// Written after each new segment is durable, so that losing the newest one is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockSector {
    /// The store it belongs to.
    pub lineage: Lineage,
    /// Boots up to the newest segment.
    pub epoch: Epoch,
    /// The segment that must be there.
    pub newest_segment: SegmentNo,
}

impl LockSector {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = begin_first_bytes(MAGIC);
        put_u64(&mut to, self.lineage.0);
        put_u64(&mut to, self.epoch.0);
        put_u64(&mut to, self.newest_segment.0);
        end_first_bytes(to, SECTOR_BYTES)
    }

    /// Reads the sector: all of the file.
    ///
    /// # Errors
    /// Why the bytes are no such sector.
    pub fn decode(bytes: &[u8]) -> Result<LockSector, Malformed> {
        let mut from = first_bytes(bytes, SECTOR_BYTES, MAGIC)?;
        Ok(LockSector {
            lineage: Lineage(from.u64()?),
            epoch: Epoch(from.u64()?),
            newest_segment: SegmentNo(from.u64()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sector_comes_back_and_every_flipped_bit_is_seen() {
        let sector =
            LockSector { lineage: Lineage(77), epoch: Epoch(3), newest_segment: SegmentNo(9) };
        let bytes = sector.encode();
        assert_eq!(bytes.len(), SECTOR_BYTES);
        assert_eq!(LockSector::decode(&bytes), Ok(sector));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(LockSector::decode(&bad).is_err(), "bit {bit}");
        }
    }
}
