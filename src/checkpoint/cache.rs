//! Blocks that were read lately: a delta's block covers the ranges of many blocks of the base, and
//! whoever loads those ranges one after the other would read it as often.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::{CheckpointNo, memory_len};

/// With blocks of 16 KiB, 8 MiB at most.
const SLOTS: usize = 512;

/// A larger block is not kept.
const BLOCK_BYTES_MAX: usize = 64 << 10;

/// A bounded number of verified blocks, each in the one slot that its place in its file picks.
#[derive(Debug)]
pub(crate) struct BlockCache {
    slots: Vec<Mutex<Option<Kept>>>,
}

#[derive(Debug)]
struct Kept {
    file: CheckpointNo,
    offset: u64,
    content: Arc<Vec<u8>>,
}

impl Default for BlockCache {
    fn default() -> BlockCache {
        BlockCache { slots: (0..SLOTS).map(|_| Mutex::default()).collect() }
    }
}

impl BlockCache {
    pub(super) fn get(&self, file: CheckpointNo, offset: u64) -> Option<Arc<Vec<u8>>> {
        let slot = self.slot(file, offset)?.lock();
        let kept = slot.as_ref().filter(|kept| (kept.file, kept.offset) == (file, offset))?;
        Some(Arc::clone(&kept.content))
    }

    pub(super) fn keep(&self, file: CheckpointNo, offset: u64, content: &Arc<Vec<u8>>) {
        if let Some(slot) = self.slot(file, offset).filter(|_| content.len() <= BLOCK_BYTES_MAX) {
            *slot.lock() = Some(Kept { file, offset, content: Arc::clone(content) });
        }
    }

    fn slot(&self, file: CheckpointNo, offset: u64) -> Option<&Mutex<Option<Kept>>> {
        // Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4).
        let mixed = (file.0 << 40 ^ offset).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.slots.get(memory_len(mixed >> 32) % SLOTS)
    }
}
