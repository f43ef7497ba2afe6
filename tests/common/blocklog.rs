//! The log of writes that a block device took: which came before which flush.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "a test that fails says where")]

use std::fs::File;
use std::os::unix::fs::FileExt;

/// A write that the file system made, in the order in which the device took them (the format of
/// dm-log-writes).
pub struct Entry {
    pub sector: u64,
    pub sectors: u64,
    pub flush: bool,
    pub discard: bool,
    /// Where its data is in the log, and where the log goes on.
    pub data: u64,
    pub end: u64,
}

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

pub fn read_block_log(log: &File) -> Vec<Entry> {
    let word = |at: u64| {
        let mut bytes = [0; 8];
        log.read_exact_at(&mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    assert_eq!(word(0), 0x006a_7366_7773_6872, "it is a log of writes");
    let entries = word(16);
    let mut at = 512;
    (0..entries)
        .map(|_| {
            let (sector, sectors, flags) = (word(at), word(at + 8), word(at + 16));
            let discard = flags & DISCARD != 0;
            let data = at + 512;
            at = data + if discard { 0 } else { sectors * 512 };
            Entry { sector, sectors, flush: flags & (FLUSH | FUA) != 0, discard, data, end: at }
        })
        .collect()
}

/// Writes an entry, or some of its sectors, onto an image.
pub fn apply(entry: &Entry, log: &File, image: &File, sectors: impl Fn(u64) -> bool) {
    for number in 0..entry.sectors {
        if sectors(number) {
            let mut bytes = [0; 512];
            if !entry.discard {
                log.read_exact_at(&mut bytes, entry.data + number * 512).unwrap();
            }
            image.write_all_at(&bytes, (entry.sector + number) * 512).unwrap();
        }
    }
}
