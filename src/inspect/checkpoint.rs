//! One checkpoint file: both ends, the catalog, and every block of the sections in it.

use std::sync::Arc;

use super::Inspector;
use crate::checkpoint::reader::{CheckpointFile, malformed};
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{Entry, Holds};
use crate::format::bytes::Reader;
use crate::format::catalog::{Catalog, SectionRef};
use crate::format::checkpoint::{CheckpointHeader, HEADER_BYTES};
use crate::format::index::{self, BlockPointer, IndexEntry};
use crate::format::{CheckpointNo, Lineage, Malformed, disk_len, name, total};
use crate::storage::OpenMode;
use crate::storage::directory::Directory;

/// A checkpoint file whose header and length are right.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    file: Arc<CheckpointFile>,
}

/// A block of a section that is not what it should be.
#[derive(Clone, Debug)]
pub struct BlockFinding {
    /// `top`, `index` or `entries`.
    pub holds: &'static str,
    /// The first key below it, encoded.
    pub from: Vec<u8>,
    /// The entries below it, removals included, as the index above says.
    pub entries: u64,
    /// What is wrong, with the file and the byte.
    pub error: Error,
}

/// The lineage that a checkpoint file's header names.
pub(super) fn lineage_of(dir: &Directory, number: CheckpointNo) -> Option<Lineage> {
    let file = dir.open(&name::checkpoint(number), OpenMode::Read).ok()?;
    let head = file.read(0, disk_len(HEADER_BYTES)).ok()?;
    CheckpointHeader::decode(&head).ok().map(|header| header.lineage)
}

impl Inspector {
    /// Opens a checkpoint file.
    ///
    /// # Errors
    /// `Damaged`: its header or length is wrong, or it is absent. `NewerFormat`, `Io`.
    pub fn checkpoint(&self, number: CheckpointNo) -> Result<Checkpoint> {
        Ok(Checkpoint { file: self.files().get(number)? })
    }
}

impl Checkpoint {
    /// What it begins with.
    pub fn header(&self) -> &CheckpointHeader {
        self.file.header()
    }

    /// The catalog that it ends with.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn catalog(&self) -> Result<Catalog> {
        self.file.catalog()
    }

    /// Reads every block of a section that lies in this file, and calls `each` with its entries in order:
    /// key, value or `None` for a removal, and the bytes of file read so far.
    ///
    /// # Errors
    /// `Io`, and what `each` returns. Damage is returned block by block.
    pub fn check_section(
        &self,
        at: &SectionRef,
        mut each: impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
    ) -> Result<Vec<BlockFinding>> {
        let mut check = Check { file: &self.file, findings: Vec::new(), before: None };
        let Some(top) = check.index(at.top, "top", &[], at.entries)? else {
            return Ok(check.findings);
        };
        for high in &top {
            let low = check.index(high.block, "index", &high.first_key, high.entries)?;
            for block in low.into_iter().flatten() {
                check.entries(&block, &mut each)?;
            }
        }
        Ok(check.findings)
    }
}

struct Check<'a> {
    file: &'a CheckpointFile,
    findings: Vec<BlockFinding>,
    /// The last key.
    before: Option<Vec<u8>>,
}

impl Check<'_> {
    /// Notes what is damaged, passes on what failed.
    fn noted<T>(
        &mut self,
        read: Result<T>,
        holds: &'static str,
        from: &[u8],
        entries: u64,
    ) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == ErrorKind::Damaged => {
                self.findings.push(BlockFinding { holds, from: from.to_vec(), entries, error });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn index(
        &mut self,
        at: BlockPointer,
        holds: &'static str,
        from: &[u8],
        entries: u64,
    ) -> Result<Option<Vec<IndexEntry>>> {
        let read = self.file.block(at, Holds::Structure).and_then(|content| {
            let wrong = |why| malformed(self.file.path(), at.offset, why);
            let list = index::decode(&content).map_err(wrong)?;
            let counted = total(list.iter().map(|entry| entry.entries));
            let first = list.first().map_or(&[][..], |entry| &entry.first_key);
            if counted != entries || (holds == "index" && first != from) {
                return Err(wrong(Malformed::Field("count or first key")));
            }
            Ok(list)
        });
        self.noted(read, holds, from, entries)
    }

    fn entries(
        &mut self,
        block: &IndexEntry,
        each: &mut impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let read = self.file.block(block.block, Holds::Entries);
        let (from, entries) = (&block.first_key, block.entries);
        let Some(content) = self.noted(read, "entries", from, entries)? else { return Ok(()) };
        let told = tell(&content, block, self.before.as_deref(), each)?;
        let sound = told.map_err(|why| malformed(self.file.path(), block.block.offset, why));
        if let Some(last) = self.noted(sound, "entries", from, entries)? {
            let before = self.before.get_or_insert_default();
            before.clear();
            before.extend_from_slice(last);
        }
        Ok(())
    }
}

/// Calls `each` with the entries of a block, and returns the last key if the block holds what its index
/// says.
fn tell<'a>(
    content: &'a [u8],
    block: &IndexEntry,
    before: Option<&[u8]>,
    each: &mut impl FnMut(&[u8], Option<&[u8]>) -> Result<()>,
) -> Result<Result<&'a [u8], Malformed>> {
    let mut from = Reader::new(content);
    let mut last: Option<&[u8]> = None;
    let mut count = 0;
    while !from.is_empty() {
        let Entry { key, value } = match Entry::decode(&mut from) {
            Ok(entry) => entry,
            Err(why) => return Ok(Err(why)),
        };
        let first = last.is_none() && key != block.first_key.as_slice();
        if first || last.or(before).is_some_and(|before| before >= key) {
            return Ok(Err(Malformed::Field("order of keys")));
        }
        each(key, value)?;
        last = Some(key);
        count += 1;
    }
    let whole = count == block.entries;
    Ok(last.filter(|_| whole).ok_or(Malformed::Field("count of entries")))
}
