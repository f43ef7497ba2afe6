//! The typed entries of a region that lies on disk, range by range.

use std::sync::Arc;

use super::Value;
use super::key::{Key, decode_whole};
use super::stored::Stored;
use crate::checkpoint::cold::ColdRegion;
use crate::checkpoint::layers::{KeyRange, LayerWalk, Layers};
use crate::error::Result;
use crate::tree::{Ahead, Loaded, Ranges, Source};

/// A range of a region, as wide as what it is found by.
pub(crate) struct ColdRange {
    cold: Arc<ColdRegion>,
    range: KeyRange,
    width: Width,
}

/// What is kept for the load of the range that follows.
struct Way {
    walk: LayerWalk,
    /// How many entries the last range had: the next one has about as many.
    entries: usize,
}

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
        ColdRange { cold, range: KeyRange::everything(), width: Width::Region }
    }

    /// The narrower ranges that it consists of, in key order; itself if it is one block.
    fn parts(&self, layers: &Layers) -> Result<(Width, Vec<Vec<u8>>)> {
        if self.width == Width::Region && layers.pieces.len() > 1 {
            let lowers = layers.pieces.iter().map(|piece| piece.lower.clone());
            return Ok((Width::Piece, lowers.collect()));
        }
        Ok((Width::Block, layers.divide(&self.range)?))
    }

    /// Ranges with these first keys; the first of them begins before every key.
    fn divided<K: Key, V: Value>(
        &self,
        width: Width,
        lowers: Vec<Vec<u8>>,
    ) -> Result<Ranges<K, Stored<V>>> {
        let mut uppers = lowers.iter().skip(1).cloned().collect::<Vec<_>>().into_iter();
        let mut parts: Ranges<K, Stored<V>> = Vec::with_capacity(lowers.len());
        for lower in lowers {
            let bound = if parts.is_empty() { None } else { Some(decode_whole(&lower)?) };
            let upper = uppers.next().or_else(|| self.range.upper.clone());
            let range = KeyRange { lower, upper };
            let cold = Arc::clone(&self.cold);
            parts.push((bound, Box::new(ColdRange { cold, range, width })));
        }
        Ok(parts)
    }

    fn entries<K: Key, V: Value>(
        &self,
        layers: &Arc<Layers>,
        ahead: &mut Ahead,
    ) -> Result<Vec<(K, Stored<V>)>> {
        let upper = self.range.upper.as_deref();
        let way = ahead.0.take().and_then(|way| way.downcast::<Way>().ok());
        let mut way = match way.filter(|way| way.walk.stands_at(layers, &self.range.lower)) {
            Some(way) => way,
            None => Box::new(Way { walk: LayerWalk::from(layers, &self.range.lower)?, entries: 0 }),
        };
        let mut entries = Vec::with_capacity(way.entries);
        way.walk.walk_to(upper, |key, value| {
            let key = decode_whole(key)?;
            entries.push((key, Stored::decode(value)));
            Ok(())
        })?;
        way.entries = entries.len();
        ahead.0 = Some(way);
        Ok(entries)
    }
}

impl<K: Key, V: Value> Source<K, Stored<V>> for ColdRange {
    fn load(&self, ahead: &mut Ahead) -> Result<Loaded<K, Stored<V>>> {
        self.cold.read(&self.range, |layers| {
            if self.width != Width::Block {
                let (width, lowers) = self.parts(layers)?;
                if lowers.len() > 1 {
                    return Ok(Loaded::Ranges(self.divided(width, lowers)?));
                }
            }
            let entries = self.entries(layers, ahead)?;
            self.cold.warmth().add(entries.len());
            Ok(Loaded::Entries(entries))
        })
    }

    fn divides(&self) -> bool {
        self.width != Width::Block
    }
}
