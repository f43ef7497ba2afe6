//! The typed entries of a region that lies on disk, range by range.

use std::sync::Arc;

use super::Value;
use super::key::{Key, decode_whole};
use super::stored;
use crate::checkpoint::cold::ColdRegion;
use crate::checkpoint::layers::{LayerWalk, Layers};
use crate::checkpoint::parts::{KeyRange, Parts};
use crate::error::Result;
use crate::tree::{BULK_FILL, Entries, Loaded, Ranges, Source, Standing};

/// A range of a region, as wide as what it is found by.
pub(crate) struct ColdRange {
    cold: Arc<ColdRegion>,
    /// It is one of these.
    parts: Arc<Parts>,
    at: usize,
    width: Width,
}

/// A range has at least about so many entries. Small pieces of memory come from wherever others freed
/// them, and to make one longer the allocator locks what it came from.
const ENTRIES_MIN: usize = 64;

/// A larger piece is shared by several threads.
const NARROW_BYTES_MAX: u64 = 64 << 10;

/// Whoever reads first divides a large region into no more parts than one node leads to, and one of those again.
const PARTS_MAX: usize = BULK_FILL;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// Pieces of the base, as the catalog tells.
    Pieces,
    /// A piece of the base: the indexes tell its blocks.
    Piece,
    /// A piece of a block or a few, left to one thread whole: so it need not be divided to be shared.
    NarrowPiece,
    /// About a block: it is read.
    Block,
}

impl Width {
    /// The narrower ranges that one of this width consists of; only itself if it is one block.
    fn divide(self, range: KeyRange<'_>, layers: &Layers) -> Result<(Width, Parts)> {
        let pieces = if self == Width::Pieces { layers.beginning_in(range) } else { &[] };
        let (width, step) = match pieces.len() + 1 {
            1 => return Ok((Width::Block, layers.divide(range)?)),
            2..=PARTS_MAX => (Width::Piece, 1),
            more => (Width::Pieces, more.div_ceil(PARTS_MAX).max(PARTS_MAX)),
        };
        let lowers = pieces.iter().skip(step - 1).step_by(step);
        let lowers: Vec<&[u8]> = lowers.map(|piece| piece.lower.as_slice()).collect();
        Ok((width, Parts::new(range, &lowers)))
    }
}

impl ColdRange {
    /// All of a region.
    pub(crate) fn region(cold: Arc<ColdRegion>) -> ColdRange {
        let parts = Arc::new(Parts::whole(KeyRange::EVERYTHING));
        ColdRange { cold, parts, at: 0, width: Width::Pieces }
    }

    fn range(&self) -> KeyRange<'_> {
        self.parts.get(self.at)
    }

    /// The first of the ranges begins before every key.
    fn divided<K: Key, V: Value>(
        &self,
        layers: &Layers,
        width: Width,
        parts: Parts,
    ) -> Result<Ranges<K, V>> {
        let parts = Arc::new(parts);
        let ranges = (0..parts.len()).map(|at| {
            let part = parts.get(at);
            let first = if at == 0 { None } else { Some(decode_whole(part.lower)?) };
            let is_narrow = width == Width::Piece && layers.bytes_about(part) <= NARROW_BYTES_MAX;
            let width = if is_narrow { Width::NarrowPiece } else { width };
            let (cold, parts) = (Arc::clone(&self.cold), Arc::clone(&parts));
            Ok((first, Box::new(ColdRange { cold, parts, at, width }) as Box<_>))
        });
        ranges.collect()
    }

    fn entries<K: Key, V: Value>(
        &self,
        layers: &Arc<Layers>,
        place: &mut Standing,
        to: &mut Entries<K, V>,
    ) -> Result<()> {
        let KeyRange { lower, upper } = self.range();
        let walk = place.take().and_then(|walk| walk.downcast::<LayerWalk>().ok());
        let mut walk = match walk.filter(|walk| walk.stands_at(layers, lower)) {
            Some(walk) => walk,
            None => Box::new(LayerWalk::from(layers, lower)?),
        };
        // Another attempt may have left some.
        to.clear();
        to.reserve(ENTRIES_MIN);
        walk.walk_to(upper, |key, value| {
            let key = decode_whole(key)?;
            to.push((key, stored::decode(value)));
            Ok(())
        })?;
        *place = Some(walk);
        Ok(())
    }
}

impl<K: Key, V: Value> Source<K, V> for ColdRange {
    fn load(&self, place: &mut Standing, to: &mut Entries<K, V>) -> Result<Loaded<K, V>> {
        self.cold.read(self.range(), |layers| {
            if self.width != Width::Block {
                let (width, parts) = self.width.divide(self.range(), layers)?;
                if parts.len() > 1 {
                    return Ok(Loaded::Ranges(self.divided(layers, width, parts)?));
                }
            }
            self.entries(layers, place, to)?;
            self.cold.warmth().add(to.len());
            Ok(Loaded::Entries)
        })
    }

    fn announce(&self) {
        self.cold.expect_reads(self.range());
    }

    fn divides(&self) -> bool {
        matches!(self.width, Width::Pieces | Width::Piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::layers::LayerPiece;
    use crate::format::CheckpointNo;

    /// Where pieces begin that are found by dividing again and again.
    fn pieces(range: KeyRange<'_>, layers: &Layers, found: &mut Vec<Vec<u8>>) {
        let (width, parts) = Width::Pieces.divide(range, layers).unwrap();
        assert!((1..=PARTS_MAX).contains(&parts.len()), "{} parts", parts.len());
        for part in (0..parts.len()).map(|at| parts.get(at)) {
            if width == Width::Pieces {
                pieces(part, layers, found);
            } else {
                found.push(part.lower.to_vec());
            }
        }
    }

    #[test]
    fn every_piece_is_found_by_dividing() {
        let most = if cfg!(miri) { 200 } else { 160_000 };
        for count in [1, 2, 54, 55, 108, 109, 2916, 2917, 3000, 160_000] {
            let count = count.min(most);
            let lowers = (0..count)
                .map(|at: u32| if at == 0 { Vec::new() } else { at.to_be_bytes().to_vec() });
            let lowers: Vec<Vec<u8>> = lowers.collect();
            let piece = |lower: &Vec<u8>| LayerPiece {
                lower: lower.clone(),
                merged: CheckpointNo(1),
                section: None,
            };
            let pieces_of = lowers.iter().map(piece).collect();
            let layers = Layers { runs: Vec::new(), deltas: Arc::default(), pieces: pieces_of };
            let mut found = Vec::new();
            pieces(KeyRange::EVERYTHING, &layers, &mut found);
            assert_eq!(found, lowers);
        }
    }
}
