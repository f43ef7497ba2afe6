//! The two-level index of a section: which block begins with which key. FORMAT.md section 7.
//!
//! Both levels are lists of `IndexEntry`: the lower one points at blocks of entries, the upper
//! one, the *top*, at blocks of the lower one.

use super::Malformed;
use super::bytes::{Reader, put_bytes, put_varint};

/// One block below: where it is, what it begins with, how much it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) first_key: Vec<u8>,
    pub(crate) block: BlockPointer,
    /// Entries below, tombstones included.
    pub(crate) entries: u64,
    /// Bytes of entry blocks below, envelopes included.
    pub(crate) bytes: u64,
}

/// The same, as it lies in an index block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IndexRef<'a> {
    pub(crate) first_key: &'a [u8],
    pub(crate) block: BlockPointer,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Where a block lies in its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPointer {
    /// Its first byte.
    pub offset: u64,
    /// Its bytes, envelope included.
    pub len: u64,
}

impl BlockPointer {
    pub(crate) fn encode(self, to: &mut Vec<u8>) {
        put_varint(to, self.offset);
        put_varint(to, self.len);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<BlockPointer, Malformed> {
        Ok(BlockPointer { offset: from.varint()?, len: from.varint()? })
    }
}

impl IndexEntry {
    pub(crate) fn encode(&self, to: &mut Vec<u8>) {
        put_bytes(to, &self.first_key);
        self.block.encode(to);
        put_varint(to, self.entries);
        put_varint(to, self.bytes);
    }
}

impl<'a> IndexRef<'a> {
    pub(crate) fn decode(from: &mut Reader<'a>) -> Result<IndexRef<'a>, Malformed> {
        Ok(IndexRef {
            first_key: from.bytes()?,
            block: BlockPointer::decode(from)?,
            entries: from.varint()?,
            bytes: from.varint()?,
        })
    }

    fn to_entry(self) -> IndexEntry {
        let IndexRef { first_key, block, entries, bytes } = self;
        IndexEntry { first_key: first_key.to_vec(), block, entries, bytes }
    }
}

/// Reads one index block; keys must ascend.
pub(crate) fn decode(content: &[u8]) -> Result<Vec<IndexEntry>, Malformed> {
    let mut from = Reader::new(content);
    let mut entries: Vec<IndexEntry> = Vec::new();
    while !from.is_empty() {
        let entry = IndexRef::decode(&mut from)?.to_entry();
        if entries.last().is_some_and(|last| last.first_key >= entry.first_key) {
            return Err(Malformed::Field("order of keys"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &[u8]) -> IndexEntry {
        let block = BlockPointer { offset: 300, len: 16 };
        IndexEntry { first_key: key.to_vec(), block, entries: 2, bytes: 16 }
    }

    #[test]
    fn an_index_block_has_these_bytes_and_comes_back() {
        let mut written = Vec::new();
        entry(b"a").encode(&mut written);
        assert_eq!(written, [1, b'a', 0xac, 2, 16, 2, 16]);
        entry(b"b").encode(&mut written);
        assert_eq!(decode(&written), Ok(vec![entry(b"a"), entry(b"b")]));
    }

    #[test]
    fn keys_out_of_order_are_refused() {
        let mut written = Vec::new();
        entry(b"b").encode(&mut written);
        entry(b"b").encode(&mut written);
        assert!(decode(&written).is_err());
    }
}
