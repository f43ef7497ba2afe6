//! Reading one section: its index on demand, its blocks one after the other.

use std::sync::Arc;

use super::reader::{CheckpointFile, malformed};
use crate::error::Result;
use crate::format::block::Entry;
use crate::format::bytes::Reader;
use crate::format::catalog::SectionRef;
use crate::format::index::{self, IndexEntry};
use crate::format::{Malformed, disk_len};

/// A sorted run of one region's entries in a checkpoint file.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) at: SectionRef,
    pub(crate) file: Arc<CheckpointFile>,
}

impl Section {
    /// Reads the top of the index.
    pub(crate) fn top(&self) -> Result<Vec<IndexEntry>> {
        self.index(&self.at.top)
    }

    fn index(&self, at: &index::BlockPointer) -> Result<Vec<IndexEntry>> {
        let content = self.file.block(*at)?;
        index::decode(&content).map_err(|why| malformed(self.file.path(), at.offset, why))
    }

    /// The bytes of the blocks that may hold keys in a range.
    pub(crate) fn bytes_between(&self, lower: &[u8], upper: Option<&[u8]>) -> Result<u64> {
        let mut bytes = 0;
        for high in overlapping(&self.top()?, lower, upper) {
            for low in overlapping(&self.index(&high.block)?, lower, upper) {
                bytes += low.bytes;
            }
        }
        Ok(bytes)
    }
}

/// The entries of an index whose blocks may hold keys in a range.
fn overlapping<'a>(
    entries: &'a [IndexEntry],
    lower: &[u8],
    upper: Option<&[u8]>,
) -> &'a [IndexEntry] {
    let from = entries.partition_point(|entry| entry.first_key.as_slice() <= lower);
    let to = upper.map_or(entries.len(), |upper| {
        entries.partition_point(|entry| entry.first_key.as_slice() < upper)
    });
    entries.get(from.saturating_sub(1)..to).unwrap_or_default()
}

/// Walks the entries of a section in key order.
#[derive(Debug)]
pub(crate) struct SectionCursor {
    section: Section,
    top: std::vec::IntoIter<IndexEntry>,
    low: std::vec::IntoIter<IndexEntry>,
    block: Vec<u8>,
    block_at: u64,
    /// Where the next entry begins in the block.
    next: usize,
    key: Vec<u8>,
    value: Option<std::ops::Range<usize>>,
    started: bool,
    ended: bool,
}

impl SectionCursor {
    /// Stands at the first entry that is not below `lower`.
    pub(crate) fn at(section: Section, lower: &[u8]) -> Result<SectionCursor> {
        let top = section.top()?;
        let top = overlapping(&top, lower, None).to_vec();
        let mut cursor = SectionCursor {
            section,
            top: top.into_iter(),
            low: Vec::new().into_iter(),
            block: Vec::new(),
            block_at: 0,
            next: 0,
            key: Vec::new(),
            value: None,
            started: false,
            ended: false,
        };
        if let Some(high) = cursor.top.next() {
            let low = cursor.section.index(&high.block)?;
            cursor.low = overlapping(&low, lower, None).to_vec().into_iter();
        }
        cursor.advance()?;
        while !cursor.ended && cursor.key.as_slice() < lower {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The entry it stands at.
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        let value = self.value.clone().and_then(|range| self.block.get(range));
        (!self.ended).then_some(Entry { key: &self.key, value })
    }

    pub(crate) fn advance(&mut self) -> Result<()> {
        while self.next >= self.block.len() {
            if !self.next_block()? {
                self.ended = true;
                return Ok(());
            }
        }
        let rest = self.block.get(self.next..).unwrap_or_default();
        let mut from = Reader::new(rest);
        let entry = Entry::decode(&mut from);
        let entry = entry.map_err(|why| malformed(self.section.file.path(), self.block_at, why))?;
        let end = self.next + (rest.len() - from.rest().len());
        if self.started && entry.key <= self.key.as_slice() {
            let why = Malformed::Field("order of keys");
            return Err(malformed(self.section.file.path(), self.block_at, why));
        }
        self.value = entry.value.map(|value| end - value.len()..end);
        self.key.clear();
        self.key.extend_from_slice(entry.key);
        self.next = end;
        self.started = true;
        Ok(())
    }

    fn next_block(&mut self) -> Result<bool> {
        let low = loop {
            if let Some(low) = self.low.next() {
                break low;
            }
            let Some(high) = self.top.next() else { return Ok(false) };
            self.low = self.section.index(&high.block)?.into_iter();
        };
        self.block = self.section.file.block(low.block)?;
        self.block_at = low.block.offset;
        self.next = 0;
        if disk_len(self.block.len()) == 0 {
            return Err(malformed(self.section.file.path(), self.block_at, Malformed::Short));
        }
        Ok(true)
    }
}
