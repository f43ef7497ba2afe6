//! Writing a checkpoint file: sections one after the other, then the catalog, then both ends.

use std::sync::Arc;

use super::cache::BlockCache;
use super::reader::CheckpointFile;
use crate::contain::contain;
use crate::error::{Error, Result};
use crate::format::block::{self, BLOCK_TARGET_BYTES, Compression, Entry, Holds};
use crate::format::catalog::{Catalog, SectionRef};
use crate::format::checkpoint::{CheckpointFooter, CheckpointHeader, HEADER_BYTES};
use crate::format::index::{BlockPointer, IndexEntry};
use crate::format::{CheckpointNo, Lineage, disk_len, name};
use crate::give_way::GiveWay;
use crate::storage::directory::{Directory, PublishSteps, StoreFile};

const WRITE_BYTES: usize = 1 << 20;

/// A checkpoint file that has no name yet.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    dir: Directory,
    file: StoreFile,
    header: CheckpointHeader,
    compression: Compression,
    recent: Arc<BlockCache>,
    give_way: Arc<GiveWay>,
    is_published: bool,
    /// Blocks that were not written yet, and where they go.
    buffer: Vec<u8>,
    written: u64,
    /// The write that failed; there is none after it.
    failed: Option<Error>,
}

impl CheckpointWriter {
    pub(crate) fn create(
        dir: &Directory,
        lineage: Lineage,
        number: CheckpointNo,
        compression: Compression,
        recent: &Arc<BlockCache>,
        give_way: &Arc<GiveWay>,
    ) -> Result<CheckpointWriter> {
        Ok(CheckpointWriter {
            dir: dir.clone(),
            file: dir.create_temporary(&temporary(number))?,
            give_way: Arc::clone(give_way),
            is_published: false,
            header: CheckpointHeader { lineage, number, len: 0, salt: dir.random()? },
            compression,
            recent: Arc::clone(recent),
            buffer: vec![0; HEADER_BYTES],
            written: 0,
            failed: None,
        })
    }

    pub(crate) fn number(&self) -> CheckpointNo {
        self.header.number
    }

    /// How long the file is so far.
    pub(crate) fn len(&self) -> u64 {
        self.written + disk_len(self.buffer.len())
    }

    /// What is asked for each block that is written.
    pub(crate) fn give_way(&self) -> &GiveWay {
        &self.give_way
    }

    fn block(&mut self, content: &[u8], holds: Holds) -> Result<BlockPointer> {
        let offset = self.len();
        let compression = match holds {
            Holds::Entries => self.compression,
            Holds::Structure => Compression::None,
        };
        let block = block::wrap(content, compression, self.header.salt, offset);
        self.put(&block)?;
        self.give_way.ask()?;
        Ok(BlockPointer { offset, len: disk_len(block.len()) })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(first) = &self.failed {
            return Err(first.clone());
        }
        let written = self.file.write(&self.buffer, self.written);
        written.inspect_err(|error| self.failed = Some(error.clone()))?;
        self.written += disk_len(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    /// Whether a write failed: not only what was read for it.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Writes catalog, footer and header; syncs; gives the file its name; syncs the directory.
    pub(crate) fn publish(mut self, catalog: &Catalog) -> Result<Arc<CheckpointFile>> {
        let catalog = self.block(&catalog.encode(), Holds::Structure)?;
        let footer = CheckpointFooter { catalog }.encode(self.header.salt, self.len());
        self.put(&footer)?;
        self.flush()?;
        self.header.len = self.written;
        self.file.write(&self.header.encode(), 0)?;
        let (name, steps) = (name::checkpoint(self.header.number), PublishSteps::OF_CHECKPOINT);
        let file = self.dir.publish(&name, self.file.clone(), steps)?;
        self.is_published = true;
        Ok(Arc::new(CheckpointFile::new(file, self.header, Arc::clone(&self.recent))))
    }
}

impl Drop for CheckpointWriter {
    /// Removes what came to nothing, since the next one has another name; but if the store ends, that is left
    /// to its next boot, which waits for it no more than this one should.
    fn drop(&mut self) {
        if !self.is_published && !self.give_way.has_ended() {
            // What cannot be removed is left to the next boot as well.
            contain(|| self.dir.remove(&temporary(self.header.number)).ok());
        }
    }
}

fn temporary(number: CheckpointNo) -> String {
    name::temporary(&name::checkpoint(number))
}

/// Gathers the entries of one section, in key order.
#[derive(Debug, Default)]
pub(crate) struct SectionWriter {
    content: Vec<u8>,
    first_key: Vec<u8>,
    content_entries: u64,
    low: IndexLevel,
    top: IndexLevel,
    entries: u64,
    begin: Option<u64>,
}

/// One level of the index under construction.
#[derive(Debug, Default)]
struct IndexLevel {
    content: Vec<u8>,
    first_key: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl IndexLevel {
    fn push(&mut self, entry: &IndexEntry) {
        if self.content.is_empty() {
            self.first_key.clone_from(&entry.first_key);
        }
        entry.encode(&mut self.content);
        self.entries += entry.entries;
        self.bytes += entry.bytes;
    }

    /// Writes what was gathered as one block and says what it holds.
    fn finish(&mut self, to: &mut CheckpointWriter) -> Result<IndexEntry> {
        let level = std::mem::take(self);
        let block = to.block(&level.content, Holds::Structure)?;
        let IndexLevel { first_key, entries, bytes, .. } = level;
        Ok(IndexEntry { first_key, block, entries, bytes })
    }
}

impl SectionWriter {
    pub(crate) fn push(&mut self, entry: Entry<'_>, to: &mut CheckpointWriter) -> Result<()> {
        self.begin.get_or_insert(to.len());
        let full = self.content.len() + entry.encoded_len() > BLOCK_TARGET_BYTES;
        if full && !self.content.is_empty() {
            self.finish_block(to)?;
        }
        if self.content.is_empty() {
            self.first_key = entry.key.to_vec();
        }
        entry.encode(&mut self.content);
        self.content_entries += 1;
        self.entries += 1;
        Ok(())
    }

    /// The bytes that its blocks will have, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.low.bytes + self.top.bytes + disk_len(self.content.len())
    }

    /// Writes what is left and the index; `None` when nothing was pushed.
    pub(crate) fn finish(mut self, to: &mut CheckpointWriter) -> Result<Option<SectionRef>> {
        let Some(begin) = self.begin else { return Ok(None) };
        self.finish_block(to)?;
        if !self.low.content.is_empty() {
            let entry = self.low.finish(to)?;
            self.top.push(&entry);
        }
        let top = self.top.finish(to)?;
        let number = to.number();
        let (entries, bytes) = (self.entries, to.len() - begin);
        Ok(Some(SectionRef { file: number, number, top: top.block, entries, bytes }))
    }

    fn finish_block(&mut self, to: &mut CheckpointWriter) -> Result<()> {
        let block = to.block(&self.content, Holds::Entries)?;
        let entry = IndexEntry {
            first_key: std::mem::take(&mut self.first_key),
            block,
            entries: std::mem::take(&mut self.content_entries),
            bytes: block.len,
        };
        self.content.clear();
        self.low.push(&entry);
        if self.low.content.len() >= BLOCK_TARGET_BYTES {
            let entry = self.low.finish(to)?;
            self.top.push(&entry);
        }
        Ok(())
    }
}
