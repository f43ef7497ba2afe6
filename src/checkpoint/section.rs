//! Reading one section: its index on demand, its blocks one after the other.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::reader::{CheckpointFile, malformed};
use crate::error::Result;
use crate::format::Malformed;
use crate::format::block::{Entry, Holds};
use crate::format::bytes::Reader;
use crate::format::catalog::SectionRef;
use crate::format::index::{self, IndexEntry, IndexRef};

/// A sorted run of one region's entries in a checkpoint file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) at: SectionRef,
    pub(crate) file: Arc<CheckpointFile>,
    top: OnceLock<Vec<IndexEntry>>,
}

impl Section {
    pub(crate) fn new(at: SectionRef, file: Arc<CheckpointFile>) -> Section {
        Section { at, file, top: OnceLock::new() }
    }

    /// Where it lies in its file: its top is written last.
    pub(crate) fn place(&self) -> Range<u64> {
        let end = self.at.top.offset.saturating_add(self.at.top.len);
        end.saturating_sub(self.at.bytes)..end
    }

    /// The top of the index, read once.
    fn top(&self) -> Result<&[IndexEntry]> {
        if let Some(top) = self.top.get() {
            return Ok(top);
        }
        let content = self.file.block(self.at.top, Holds::Structure)?;
        let top = index::decode(&content)
            .map_err(|why| malformed(self.file.path(), self.at.top.offset, why))?;
        Ok(self.top.get_or_init(|| top))
    }

    /// Calls `each` with the index entries of the blocks that may hold keys in a range, in order.
    pub(crate) fn blocks_between(
        &self,
        lower: &[u8],
        upper: Option<&[u8]>,
        mut each: impl FnMut(&IndexRef<'_>),
    ) -> Result<()> {
        let mut before = None;
        for high in overlapping(self.top()?, lower, upper) {
            let mut low = LowCursor::read(self, high)?;
            // Keys ascend from one block of the index to the next, so that none is read twice.
            low.before = before;
            low.seek(self, lower)?;
            while let Some(entry) = low.peek(self)? {
                if upper.is_some_and(|upper| entry.first_key >= upper) {
                    break;
                }
                each(&entry);
                low.pass(self)?;
            }
            before = low.before;
        }
        Ok(())
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

/// Walks one block of the lower index level without unpacking it.
#[derive(Debug, Default)]
struct LowCursor {
    content: Arc<Vec<u8>>,
    offset: u64,
    /// Where the next entry begins.
    next: usize,
    /// The first key of the entry before it.
    before: Option<Vec<u8>>,
}

impl LowCursor {
    fn read(section: &Section, high: &IndexEntry) -> Result<LowCursor> {
        let content = section.file.recent_block(high.block, Holds::Structure)?;
        Ok(LowCursor { content, offset: high.block.offset, next: 0, before: None })
    }

    fn decode(&self, section: &Section, at: usize) -> Result<Option<(IndexRef<'_>, usize)>> {
        let rest = self.content.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let mut from = Reader::new(rest);
        let entry = IndexRef::decode(&mut from)
            .map_err(|why| malformed(section.file.path(), self.offset, why))?;
        Ok(Some((entry, at + (rest.len() - from.rest().len()))))
    }

    /// The entry it stands at.
    fn peek(&self, section: &Section) -> Result<Option<IndexRef<'_>>> {
        let Some((entry, _)) = self.decode(section, self.next)? else { return Ok(None) };
        if self.before.as_deref().is_some_and(|before| before >= entry.first_key) {
            let why = Malformed::Field("order of keys");
            return Err(malformed(section.file.path(), self.offset, why));
        }
        Ok(Some(entry))
    }

    /// Goes past the entry it stands at.
    fn pass(&mut self, section: &Section) -> Result<()> {
        let mut before = self.before.take().unwrap_or_default();
        if let Some((entry, next)) = self.decode(section, self.next)? {
            before.clear();
            before.extend_from_slice(entry.first_key);
            self.next = next;
        }
        self.before = Some(before);
        Ok(())
    }

    /// Goes to the last entry that does not begin above `key`, or stays at the first.
    fn seek(&mut self, section: &Section, key: &[u8]) -> Result<()> {
        let (mut at, mut found) = (self.next, self.next);
        while let Some((entry, next)) = self.decode(section, at)? {
            if entry.first_key > key {
                break;
            }
            (found, at) = (at, next);
        }
        self.next = found;
        Ok(())
    }
}

/// Walks the entries of a section in key order.
#[derive(Debug)]
pub(crate) struct SectionCursor {
    section: Arc<Section>,
    /// Others will read the same blocks soon.
    shared: bool,
    /// The next entry of the top.
    top_next: usize,
    low: LowCursor,
    block: Arc<Vec<u8>>,
    block_at: u64,
    /// Entries that the block should still have.
    left: u64,
    /// Where the next entry begins in the block.
    next: usize,
    /// Where the entry that it stands at lies in the block.
    key: Range<usize>,
    value: Option<Range<usize>>,
    /// The last key of the block before.
    before: Option<Vec<u8>>,
    ended: bool,
}

impl SectionCursor {
    /// Stands at the first entry that is not below `lower`. With `shared`, its blocks are kept for
    /// others for a while.
    pub(crate) fn at(section: &Arc<Section>, lower: &[u8], shared: bool) -> Result<SectionCursor> {
        let top = section.top()?;
        let above = top.partition_point(|entry| entry.first_key.as_slice() <= lower);
        let mut cursor = SectionCursor {
            section: Arc::clone(section),
            shared,
            top_next: above.saturating_sub(1),
            low: LowCursor::default(),
            block: Arc::default(),
            block_at: 0,
            left: 0,
            next: 0,
            key: 0..0,
            value: None,
            before: None,
            ended: false,
        };
        if let Some(high) = top.get(cursor.top_next) {
            cursor.low = LowCursor::read(section, high)?;
            cursor.low.seek(section, lower)?;
            cursor.top_next += 1;
        }
        cursor.advance()?;
        while cursor.entry().is_some_and(|entry| entry.key < lower) {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The entry it stands at.
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        let value = self.value.clone().and_then(|range| self.block.get(range));
        let key = self.block.get(self.key.clone()).unwrap_or_default();
        (!self.ended).then_some(Entry { key, value })
    }

    pub(crate) fn advance(&mut self) -> Result<()> {
        while self.next >= self.block.len() {
            if self.left > 0 {
                return Err(self.malformed(Malformed::Field("count of entries")));
            }
            if !self.next_block()? {
                self.ended = true;
                return Ok(());
            }
        }
        let rest = self.block.get(self.next..).unwrap_or_default();
        let mut from = Reader::new(rest);
        let entry = Entry::decode(&mut from).map_err(|why| self.malformed(why))?;
        let end = self.next + (rest.len() - from.rest().len());
        let before = self.before.as_deref().or_else(|| self.block.get(self.key.clone()));
        let first = self.before.is_none() && self.key.is_empty() && self.next == 0;
        if !first && before.is_some_and(|before| entry.key <= before) {
            return Err(self.malformed(Malformed::Field("order of keys")));
        }
        let left = self.left.checked_sub(1);
        self.left = left.ok_or_else(|| self.malformed(Malformed::Field("count of entries")))?;
        let begin = |part: &[u8]| part.as_ptr().addr() - self.block.as_ptr().addr();
        self.key = begin(entry.key)..begin(entry.key) + entry.key.len();
        self.value = entry.value.map(|value| begin(value)..begin(value) + value.len());
        self.before = None;
        self.next = end;
        Ok(())
    }

    fn malformed(&self, why: Malformed) -> crate::error::Error {
        malformed(self.section.file.path(), self.block_at, why)
    }

    fn next_block(&mut self) -> Result<bool> {
        let section = Arc::clone(&self.section);
        let (pointer, entries) = loop {
            if let Some(low) = self.low.peek(&section)? {
                break (low.block, low.entries);
            }
            let Some(high) = section.top()?.get(self.top_next) else { return Ok(false) };
            self.low = LowCursor::read(&section, high)?;
            self.top_next += 1;
        };
        self.low.pass(&section)?;
        if !self.block.is_empty() {
            self.before = self.block.get(self.key.clone()).map(<[u8]>::to_vec);
        }
        self.block = if self.shared {
            section.file.recent_block(pointer, Holds::Entries)?
        } else {
            Arc::new(section.file.block(pointer, Holds::Entries)?)
        };
        self.block_at = pointer.offset;
        self.left = entries;
        self.next = 0;
        if self.block.is_empty() { Err(self.malformed(Malformed::Short)) } else { Ok(true) }
    }
}
