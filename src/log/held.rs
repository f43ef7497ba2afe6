//! The memory that records of the log lie in while they are the tail of a state or become a delta.
//!
//! What was read in large frames stays in the window that it was read into; of others the records are
//! copied, so that a log of one small commit a block does not stay in memory with its padding.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::format::block::Entry;
use crate::format::bytes::Reader;
use crate::format::operation::Operation;
use crate::format::{Malformed, memory_len};
use crate::prefetch::prefetch;

/// What a part of the log was read into.
pub(crate) type Window = Arc<Vec<u8>>;

/// Records of a frame that are shorter are copied.
const WORTH_SHARING: usize = 2048;

/// The sizes that copies are gathered in: as much again as is held, so that little is if little is read.
const COPIES_BYTES: RangeInclusive<usize> = 4 << 10..=256 << 10;

/// Of an operation that is needed soon.
const PREFETCHED_BYTES: usize = 128;

#[cfg(test)]
thread_local! {
    /// How many keys this thread has looked at, which may be a cache miss each.
    pub(super) static LOOKED_AT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Where an operation lies; later ones of the log have greater positions.
pub(crate) type Position = u64;

#[derive(Debug, Default)]
pub(crate) struct Memory {
    chunks: Vec<Chunk>,
    /// Bytes of records, and of all chunks.
    records: usize,
    size: usize,
}

#[derive(Debug)]
enum Chunk {
    Window(Window),
    Copies(Vec<u8>),
}

/// Where the records of one frame lie.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    chunk: usize,
    range: Range<usize>,
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Window(window) => window,
            Chunk::Copies(copies) => copies,
        }
    }
}

impl Memory {
    /// For copies of so many bytes.
    pub(super) fn with_room(bytes: usize) -> Memory {
        let room = bytes.min(*COPIES_BYTES.end());
        let chunks = vec![Chunk::Copies(Vec::with_capacity(room))];
        Memory { chunks, records: 0, size: room }
    }

    /// The bytes of all records.
    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// Keeps records that were read into a window.
    pub(crate) fn hold(&mut self, records: &[u8], window: Option<&Window>) -> Held {
        self.records += records.len();
        let shared = window.filter(|_| records.len() >= WORTH_SHARING);
        match shared.and_then(|window| self.share(records, window)) {
            Some(held) => held,
            None => self.copy(records),
        }
    }

    /// Keeps the window, unless windows hold much besides records by now.
    fn share(&mut self, records: &[u8], window: &Window) -> Option<Held> {
        let begin = records.as_ptr().addr().checked_sub(window.as_ptr().addr())?;
        let range = begin..begin + records.len();
        let known =
            matches!(self.chunks.last(), Some(Chunk::Window(last)) if Arc::ptr_eq(last, window));
        if !known {
            if self.size + window.len() > self.records * 2 + (1 << 20) {
                return None;
            }
            self.size += window.len();
            self.chunks.push(Chunk::Window(Arc::clone(window)));
        }
        Some(Held { chunk: self.chunks.len() - 1, range })
    }

    fn copy(&mut self, records: &[u8]) -> Held {
        let fits = |chunk: &Chunk| matches!(chunk, Chunk::Copies(copies) if copies.capacity() - copies.len() >= records.len());
        if !self.chunks.last().is_some_and(fits) {
            let as_much = self.records.clamp(*COPIES_BYTES.start(), *COPIES_BYTES.end());
            let capacity = as_much.max(records.len());
            self.size += capacity;
            self.chunks.push(Chunk::Copies(Vec::with_capacity(capacity)));
        }
        let chunk = self.chunks.len() - 1;
        let Some(Chunk::Copies(copies)) = self.chunks.last_mut() else {
            return Held { chunk, range: 0..0 };
        };
        let begin = copies.len();
        copies.extend_from_slice(records);
        Held { chunk, range: begin..copies.len() }
    }

    pub(crate) fn get(&self, held: &Held) -> &[u8] {
        let chunk = self.chunks.get(held.chunk);
        chunk.and_then(|chunk| chunk.bytes().get(held.range.clone())).unwrap_or_default()
    }

    /// The operation at a position.
    pub(crate) fn operation(&self, at: Position) -> Result<Operation<'_>, Malformed> {
        Operation::decode(&mut Reader::new(self.from(at)))
    }

    /// What the operation at a position, which writes to a key, leaves there.
    pub(super) fn entry(&self, at: Position) -> Option<Entry<'_>> {
        match self.operation(at).ok()? {
            Operation::Insert { key, value, .. } | Operation::Replace { key, value, .. } => {
                Some(Entry { key, value: Some(value) })
            }
            Operation::Remove { key, .. } => Some(Entry { key, value: None }),
            _ => None,
        }
    }

    pub(super) fn key(&self, at: Position) -> &[u8] {
        #[cfg(test)]
        LOOKED_AT.set(LOOKED_AT.get() + 1);
        self.entry(at).map_or(&[], |entry| entry.key)
    }

    /// The bytes of the operation at a position.
    pub(super) fn encoded(&self, at: Position) -> Result<&[u8], Malformed> {
        let bytes = self.from(at);
        let mut from = Reader::new(bytes);
        Operation::decode(&mut from)?;
        Ok(bytes.get(..bytes.len() - from.rest().len()).unwrap_or_default())
    }

    /// Has the processor fetch the operation at a position.
    pub(crate) fn prefetch(&self, at: Position) {
        let bytes = self.from(at);
        prefetch(bytes.as_ptr(), bytes.len().min(PREFETCHED_BYTES));
    }

    /// What lies from a position on.
    fn from(&self, at: Position) -> &[u8] {
        let chunk = self.chunks.get(memory_len(at >> 32));
        let from = memory_len(at & u64::from(u32::MAX));
        chunk.and_then(|chunk| chunk.bytes().get(from..)).unwrap_or_default()
    }
}

impl Held {
    /// The bytes of the records.
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// The position of what lies `offset` bytes behind the beginning of the records.
    pub(crate) fn position(&self, offset: usize) -> Position {
        (self.chunk as u64) << 32 | (self.range.start + offset) as u64
    }
}
