//! Opening checkpoint files and reading their blocks.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::cache::BlockCache;
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{self, ENVELOPE_BYTES, Holds};
use crate::format::catalog::Catalog;
use crate::format::checkpoint::{CheckpointFooter, CheckpointHeader, FOOTER_BYTES, HEADER_BYTES};
use crate::format::index::BlockPointer;
use crate::format::{CheckpointNo, Lineage, Malformed, disk_len, name};
use crate::storage::OpenMode;
use crate::storage::directory::{Directory, StoreFile};

/// An open checkpoint file whose header and length are right.
#[derive(Debug)]
pub(crate) struct CheckpointFile {
    file: StoreFile,
    header: CheckpointHeader,
    recent: Arc<BlockCache>,
}

impl CheckpointFile {
    pub(crate) fn new(
        file: StoreFile,
        header: CheckpointHeader,
        recent: Arc<BlockCache>,
    ) -> CheckpointFile {
        CheckpointFile { file, header, recent }
    }

    /// Opens a file by its number; a wrong header or length is `Damaged`, an absent file too.
    pub(crate) fn open(
        dir: &Directory,
        number: CheckpointNo,
        lineage: Lineage,
        recent: Arc<BlockCache>,
    ) -> Result<CheckpointFile> {
        let name = name::checkpoint(number);
        let file = dir.open(&name, OpenMode::Read).map_err(|error| {
            if error.is_absent() {
                Error::damaged(&dir.path_of(&name), 0, "a checkpoint file that is needed is absent")
            } else {
                error
            }
        })?;
        let head = file.read(0, disk_len(HEADER_BYTES))?;
        let header =
            CheckpointHeader::decode(&head).map_err(|why| malformed(file.path(), 0, why))?;
        let itself = header.number == number && header.lineage == lineage;
        if !itself && !left_out(Step::CheckpointIdentity) {
            return Err(Error::damaged(file.path(), 0, "this is another file under this name"));
        }
        let len = file.len()?;
        if len != header.len || len < disk_len(HEADER_BYTES + FOOTER_BYTES) {
            let what = format!("the file has {len} bytes and should have {}", header.len);
            return Err(Error::damaged(file.path(), len.min(header.len), what));
        }
        Ok(CheckpointFile { file, header, recent })
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    pub(crate) fn number(&self) -> CheckpointNo {
        self.header.number
    }

    #[cfg(feature = "inspect")]
    pub(crate) fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    pub(crate) fn len(&self) -> u64 {
        self.header.len
    }

    /// Reads a block. Bytes that do not fit are read once more before they are judged: a page may
    /// have been torn between a reader and the disk.
    pub(crate) fn block(&self, at: BlockPointer, holds: Holds) -> Result<Vec<u8>> {
        let end = at.offset.checked_add(at.len);
        let inside =
            end.is_some_and(|end| end <= self.header.len) && at.len >= disk_len(ENVELOPE_BYTES);
        if !inside {
            return Err(malformed(self.path(), at.offset, Malformed::Field("block pointer")));
        }
        let read = || -> Result<Result<Vec<u8>, Malformed>> {
            let bytes = self.file.read(at.offset, at.len)?;
            Ok(block::unwrap(bytes, holds, self.header.salt, at.offset))
        };
        if let Ok(content) = read()? {
            return Ok(content);
        }
        read()?.map_err(|why| malformed(self.path(), at.offset, why))
    }

    /// See [`StorageFile::expect_reads`](crate::storage::StorageFile::expect_reads).
    pub(crate) fn expect_reads(&self, range: Range<u64>) {
        let end = range.end.min(self.header.len);
        self.file.expect_reads(range.start, end.saturating_sub(range.start));
    }

    /// The length that the envelope at an offset states; it is not verified.
    #[cfg(feature = "inspect")]
    pub(crate) fn block_len(&self, offset: u64) -> Option<u64> {
        let envelope = self.file.read(offset, disk_len(ENVELOPE_BYTES)).ok()?;
        block::stated_len(&envelope)
    }

    /// The same through the cache, for a block that others will read soon.
    pub(crate) fn recent_block(&self, at: BlockPointer, holds: Holds) -> Result<Arc<Vec<u8>>> {
        if let Some(content) = self.recent.get(self.number(), at.offset) {
            return Ok(content);
        }
        let content = Arc::new(self.block(at, holds)?);
        self.recent.keep(self.number(), at.offset, &content);
        Ok(content)
    }

    /// Reads the catalog that this file ends with.
    pub(crate) fn catalog(&self) -> Result<Catalog> {
        let offset = self.header.len - disk_len(FOOTER_BYTES);
        let end = self.file.read(offset, disk_len(FOOTER_BYTES))?;
        let footer = CheckpointFooter::decode(&end, self.header.salt, offset)
            .map_err(|why| malformed(self.path(), offset, why))?;
        let content = self.block(footer.catalog, Holds::Structure)?;
        let catalog = Catalog::decode(&content)
            .map_err(|why| malformed(self.path(), footer.catalog.offset, why))?;
        if catalog.number == self.number() || left_out(Step::CheckpointIdentity) {
            Ok(catalog)
        } else {
            Err(malformed(self.path(), footer.catalog.offset, Malformed::Field("number")))
        }
    }
}

/// The error for bytes that are not what they should be.
pub(crate) fn malformed(path: &Path, offset: u64, why: Malformed) -> Error {
    match why {
        Malformed::Newer(_) => {
            Error::new(ErrorKind::NewerFormat, format!("{why}; use a newer version of rocstate"))
                .at_path(path)
                .at_offset(offset)
        }
        _ => Error::damaged(path, offset, why),
    }
}
