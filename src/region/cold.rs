//! The typed entries of a region that lies on disk, range by range.

use std::sync::Arc;

use super::Value;
use super::key::{Key, decode_whole};
use super::stored::Stored;
use crate::checkpoint::cold::ColdRegion;
use crate::checkpoint::layers::{LayerWalk, Layers};
use crate::checkpoint::parts::{KeyRange, Parts};
use crate::error::Result;
use crate::tree::{Loaded, Ranges, Source, Standing};

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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    /// All of it: the catalog tells its pieces.
    Region,
    /// A piece of the base: the indexes tell its blocks.
    Piece,
    /// About a block: it is read.
    Block,
}

impl ColdRange {
    /// All of a region.
    pub(crate) fn region(cold: Arc<ColdRegion>) -> ColdRange {
        let parts = Arc::new(Parts::whole(KeyRange::EVERYTHING));
        ColdRange { cold, parts, at: 0, width: Width::Region }
    }

    fn range(&self) -> KeyRange<'_> {
        self.parts.get(self.at)
    }

    /// The narrower ranges that it consists of; only itself if it is one block.
    fn divide(&self, layers: &Layers) -> Result<(Width, Parts)> {
        if self.width == Width::Region && layers.pieces.len() > 1 {
            let lowers = layers.pieces.iter().skip(1).map(|piece| piece.lower.as_slice());
            return Ok((Width::Piece, Parts::new(self.range(), lowers)));
        }
        Ok((Width::Block, layers.divide(self.range())?))
    }

    /// The first of the ranges begins before every key.
    fn divided<K: Key, V: Value>(
        &self,
        width: Width,
        parts: Parts,
    ) -> Result<Ranges<K, Stored<V>>> {
        let parts = Arc::new(parts);
        let ranges = (0..parts.len()).map(|at| {
            let first = if at == 0 { None } else { Some(decode_whole(parts.get(at).lower)?) };
            let (cold, parts) = (Arc::clone(&self.cold), Arc::clone(&parts));
            Ok((first, Box::new(ColdRange { cold, parts, at, width }) as Box<_>))
        });
        ranges.collect()
    }

    fn entries<K: Key, V: Value>(
        &self,
        layers: &Arc<Layers>,
        place: &mut Standing,
        to: &mut Vec<(K, Stored<V>)>,
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
            to.push((key, Stored::decode(value)));
            Ok(())
        })?;
        *place = Some(walk);
        Ok(())
    }
}

impl<K: Key, V: Value> Source<K, Stored<V>> for ColdRange {
    fn load(
        &self,
        place: &mut Standing,
        to: &mut Vec<(K, Stored<V>)>,
    ) -> Result<Loaded<K, Stored<V>>> {
        self.cold.read(self.range(), |layers| {
            if self.width != Width::Block {
                let (width, parts) = self.divide(layers)?;
                if parts.len() > 1 {
                    return Ok(Loaded::Ranges(self.divided(width, parts)?));
                }
            }
            self.entries(layers, place, to)?;
            self.cold.warmth().add(to.len());
            Ok(Loaded::Entries)
        })
    }

    fn divides(&self) -> bool {
        self.width != Width::Block
    }
}
