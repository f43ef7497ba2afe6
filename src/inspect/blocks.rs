//! The blocks of a section one after the other, with holes in place of those that are damaged.

use std::ops::Range;
use std::sync::Arc;

use super::walk::{At, Lost, Means};
use crate::checkpoint::section::Section;
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{Entry, Holds};
use crate::format::bytes::Reader;
use crate::format::disk_len;
use crate::format::index::{self, BlockPointer};

/// The entries of a section in a range, block by block, with holes for what is damaged.
pub(super) struct Blocks {
    section: Arc<Section>,
    /// What is wrong with its index, if its blocks were found without it.
    pub(super) without_index: Option<Error>,
    list: Vec<Block>,
    next: usize,
    content: Vec<u8>,
    /// Where the entries of the block lie: key and value.
    entries: std::vec::IntoIter<Found>,
    current: Option<Found>,
    hole: Option<Lost>,
}

/// Where the key and the value of an entry lie in its block.
type Found = (Range<usize>, Option<Range<usize>>);

/// A block of entries, or a place where there should be some.
struct Block {
    first_key: Vec<u8>,
    entries: Option<u64>,
    at: std::result::Result<BlockPointer, Error>,
}

impl Blocks {
    pub(super) fn over(
        section: &Arc<Section>,
        from: &[u8],
        to: Option<&[u8]>,
        means: Means,
    ) -> Result<Blocks> {
        let mut list = Vec::new();
        let mut damage = None;
        let listed = section.blocks_between(from, to, |entry| {
            let first_key = entry.first_key.to_vec();
            list.push(Block { first_key, entries: Some(entry.entries), at: Ok(entry.block) });
        });
        match listed {
            Err(error) if error.kind() == ErrorKind::Damaged && means == Means::OfAProgram => {
                list = vec![Block { first_key: from.to_vec(), entries: None, at: Err(error) }];
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                list = without_index(section, &error);
                damage = Some(error);
                let before = list.partition_point(|block| block.first_key.as_slice() <= from);
                list.drain(..before.saturating_sub(1));
            }
            listed => listed?,
        }
        let mut blocks = Blocks {
            section: Arc::clone(section),
            without_index: damage,
            list,
            next: 0,
            content: Vec::new(),
            entries: Vec::new().into_iter(),
            current: None,
            hole: None,
        };
        blocks.advance()?;
        blocks.seek(Some(from))?;
        Ok(blocks)
    }

    pub(super) fn is_at_hole(&self) -> bool {
        self.hole.is_some()
    }

    pub(super) fn at(&self) -> Option<At<'_>> {
        if let Some(hole) = &self.hole {
            return Some(At::Hole(&hole.from));
        }
        let (key, value) = self.current.clone()?;
        let value = value.map(|value| self.content.get(value).unwrap_or_default());
        Some(At::Entry(Entry { key: self.content.get(key).unwrap_or_default(), value }))
    }

    pub(super) fn advance(&mut self) -> Result<()> {
        self.hole = None;
        self.current = self.entries.next();
        while self.current.is_none() && self.hole.is_none() && self.next < self.list.len() {
            self.load()?;
        }
        Ok(())
    }

    fn load(&mut self) -> Result<()> {
        let Some(block) = self.list.get(self.next) else { return Ok(()) };
        self.next += 1;
        let read = match &block.at {
            Ok(at) => self.section.file.block(*at, Holds::Entries).and_then(|content| {
                let entries = entries(&content, block.entries).ok_or_else(|| {
                    let what = "the block does not hold what its index says";
                    Error::damaged(self.section.file.path(), at.offset, what)
                })?;
                Ok((content, entries))
            }),
            Err(error) => Err(error.clone()),
        };
        match read {
            Ok((content, entries)) => {
                self.content = content;
                self.entries = entries.into_iter();
                self.current = self.entries.next();
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let to = self.list.get(self.next).map(|next| next.first_key.clone());
                let (from, entries) = (block.first_key.clone(), block.entries);
                self.hole = Some(Lost { from, to, entries, error });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The hole that it stands at; then it stands behind it.
    pub(super) fn take_hole(&mut self) -> Result<Option<Lost>> {
        let hole = self.hole.take();
        self.advance()?;
        Ok(hole)
    }

    pub(super) fn seek(&mut self, to: Option<&[u8]>) -> Result<()> {
        loop {
            let below = match self.at() {
                None => return Ok(()),
                Some(At::Entry(entry)) => to.is_none_or(|to| entry.key < to),
                Some(At::Hole(_)) => {
                    let Some(hole) = &mut self.hole else { return Ok(()) };
                    let reaches_on =
                        to.is_some_and(|to| hole.to.as_deref().is_none_or(|end| end > to));
                    if let Some(to) = to.filter(|to| reaches_on && hole.from.as_slice() < *to) {
                        hole.from = to.to_vec();
                    }
                    !reaches_on
                }
            };
            if !below {
                return Ok(());
            }
            self.advance()?;
        }
    }
}

/// Where the entries of a block lie, if it is what a block is: ascending, and as many as there should be.
fn entries(content: &[u8], count: Option<u64>) -> Option<Vec<Found>> {
    let mut from = Reader::new(content);
    let mut found = Vec::new();
    let mut before: Option<&[u8]> = None;
    let begin = |part: &[u8]| part.as_ptr().addr() - content.as_ptr().addr();
    while !from.is_empty() {
        let Entry { key, value } = Entry::decode(&mut from).ok()?;
        if before.is_some_and(|before| before >= key) {
            return None;
        }
        before = Some(key);
        let range = |part: &[u8]| begin(part)..begin(part) + part.len();
        found.push((range(key), value.map(range)));
    }
    let as_many = count.is_none_or(|count| count == disk_len(found.len()));
    (as_many && !found.is_empty()).then_some(found)
}

/// The blocks of a section whose index cannot be read, found one behind the other where they lie.
fn without_index(section: &Section, damage: &Error) -> Vec<Block> {
    let mut list: Vec<Block> = Vec::new();
    // Blocks that no block of the index has spoken of yet.
    let mut unlisted: Vec<BlockPointer> = Vec::new();
    let top = section.at.top;
    let begin = top.offset.saturating_add(top.len).saturating_sub(section.at.bytes);
    let mut at = begin;
    let mut last_key: Option<Vec<u8>> = None;
    while at < top.offset {
        let Some(len) = section.file.block_len(at).filter(|len| *len <= top.offset - at) else {
            break;
        };
        let pointer = BlockPointer { offset: at, len };
        at += len;
        let Ok(content) = section.file.block(pointer, Holds::Entries) else { break };
        let listed = index::decode(&content).ok();
        if listed.is_some_and(|listed| {
            listed.iter().map(|entry| entry.block).eq(unlisted.iter().copied())
        }) {
            unlisted.clear();
            continue;
        }
        let Some(found) = entries(&content, None) else { break };
        let key = |at: Option<&Found>| {
            at.and_then(|(key, _)| content.get(key.clone())).unwrap_or_default().to_vec()
        };
        let first_key = key(found.first());
        if last_key.as_ref().is_some_and(|last| *last >= first_key) {
            break;
        }
        last_key = Some(key(found.last()));
        unlisted.push(pointer);
        list.push(Block { first_key, entries: None, at: Ok(pointer) });
    }
    if at < top.offset || begin >= top.offset {
        // What comes behind the last block that was found.
        let mut first_key = last_key.unwrap_or_default();
        if !list.is_empty() {
            first_key.push(0);
        }
        list.push(Block { first_key, entries: None, at: Err(damage.clone()) });
    }
    list
}
