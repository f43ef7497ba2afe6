//! LOCK's one sector: which store this is and which segment is the newest. FORMAT.md section 2.

use super::bytes::{Reader, checksum, put_u32, put_u64};
use super::{Epoch, FORMAT_VERSION, Lineage, Malformed, SECTOR_BYTES, SegmentNo};

const MAGIC: &[u8; 8] = b"ROCLOCK\n";
const CHECKED_BYTES: usize = SECTOR_BYTES - 4;

/// Written after each new segment is durable, so that losing the newest one is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockSector {
    pub(crate) lineage: Lineage,
    pub(crate) epoch: Epoch,
    pub(crate) newest_segment: SegmentNo,
}

impl LockSector {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(SECTOR_BYTES);
        to.extend_from_slice(MAGIC);
        put_u32(&mut to, FORMAT_VERSION);
        put_u32(&mut to, 0);
        put_u64(&mut to, self.lineage.0);
        put_u64(&mut to, self.epoch.0);
        put_u64(&mut to, self.newest_segment.0);
        to.resize(CHECKED_BYTES, 0);
        let sum = checksum(0, 0, &to);
        put_u32(&mut to, sum);
        to
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<LockSector, Malformed> {
        let (checked, sum) = bytes.split_at_checked(CHECKED_BYTES).ok_or(Malformed::Short)?;
        let mut from = Reader::new(checked);
        if from.take(MAGIC.len())? != MAGIC {
            return Err(Malformed::Magic);
        }
        let version = from.u32()?;
        if Reader::new(sum).u32()? != checksum(0, 0, checked) {
            return Err(Malformed::Checksum);
        }
        if version > FORMAT_VERSION {
            return Err(Malformed::Newer(version));
        }
        from.u32()?;
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
