//! Making segments: under a temporary name, whole, then published.

use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::format::segment::{FRAMES_BEGIN, SEGMENT_BYTES_MAX, SegmentHeader};
use crate::format::{BLOCK_BYTES, ZERO_BLOCK, block_after, disk_len, memory_len, name};
use crate::give_way::GiveWay;
use crate::storage::directory::{Directory, PublishSteps, StoreFile};
use crate::sync::EXPLORED;

/// The length of the segment that a boot begins with, at most: short, so that boot is; a frame where schedules are
/// explored.
pub(crate) const FIRST_SEGMENT_BYTES: u64 = if EXPLORED { 2 * BLOCK_BYTES } else { 256 << 10 };

/// And at least, where the run before wrote next to nothing: a few synced commits.
const SHORTEST_SEGMENT_BYTES: u64 = if EXPLORED { FIRST_SEGMENT_BYTES } else { 32 << 10 };

/// What a boot on a full disk gets by: a header, and copies of the frames that nobody claimed.
const RESERVE_BYTES: u64 = 64 << 10;

/// How much longer a segment is than the one before it, until it has the configured length.
const GROWTH: u64 = 4;

/// So many blocks are written at a time: a writer that is woken for the same processor meanwhile waits until the
/// next rest. Whoever yielded in its place would wait for as long as another one is busy.
const BLOCKS_BEFORE_REST: u64 = 128;

const REST: Duration = Duration::from_micros(50);

/// How long a writer waits for others to close files.
const FILES_PATIENCE: Duration = Duration::from_secs(10);

const FILES_PAUSE: Duration = Duration::from_millis(5);

/// A segment that has its length and zeros, but no number, header or name yet.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) len: u64,
    /// All of it was written, ahead of use.
    pub(crate) is_written: bool,
    file: StoreFile,
}

impl Spare {
    /// Makes a spare segment with zeros written in block-sized writes, ahead of use.
    ///
    /// A synced commit into space that was written before costs the device half of what one into
    /// merely allocated space does; block-sized writes keep the page cache from gathering large
    /// folios, of which every sync would write the whole.
    pub(crate) fn prewritten(dir: &Directory, len: u64) -> Result<Spare> {
        Spare::filled(dir, name::SPARE, len, &ZERO_BLOCK, |_| Ok(()))
    }

    /// The same beside writers, who go first, until the store ends.
    pub(crate) fn written_ahead(dir: &Directory, len: u64, give_way: &GiveWay) -> Result<Spare> {
        Spare::filled(dir, name::SPARE, len, &ZERO_BLOCK, |block| {
            if block % BLOCKS_BEFORE_REST == BLOCKS_BEFORE_REST - 1 {
                dir.pause(REST);
                give_way.ask()?;
            }
            Ok(())
        })
    }

    /// Takes room on the disk that the next boot gives back to itself; whether there was some. It need
    /// not be stable: it is room, whatever is in it.
    pub(crate) fn reserve(dir: &Directory) -> bool {
        // Nobody syncs a part of it, so it is written at once.
        let zeros = vec![0; memory_len(RESERVE_BYTES)];
        Spare::filled(dir, name::RESERVE, RESERVE_BYTES, &zeros, |_| Ok(())).is_ok()
    }

    /// With so many zeros in each write, not on the heap where somebody else may wait: a request of a block has an
    /// allocator tidy up what the program freed. `before` is told of each write.
    fn filled(
        dir: &Directory,
        name: &str,
        len: u64,
        zeros: &[u8],
        before: impl Fn(u64) -> Result<()>,
    ) -> Result<Spare> {
        let spare = Spare::made(dir, name, len)?;
        let step = disk_len(zeros.len());
        let mut writes = 0..len / step;
        let written = writes.try_for_each(|nth| {
            before(nth)?;
            spare.write(zeros, nth * step)
        });
        // What did not fit must not keep others from fitting; what nobody waits for is left to the next boot.
        written.map(|()| Spare { is_written: true, ..spare }).inspect_err(|error| {
            if error.kind() != ErrorKind::Closed {
                dir.remove(name).ok();
            }
        })
    }

    /// Makes a spare segment that has its length only: for a frame that cannot wait. It has a name
    /// of its own, since one may be written ahead at the same time.
    pub(crate) fn allocated(dir: &Directory, len: u64) -> Result<Spare> {
        Spare::made(dir, name::URGENT, len)
    }

    /// The same; but where too many files are open it waits a while for others to close some. To a server
    /// that happens, and nothing is lost yet: to give up would end the store.
    pub(crate) fn allocated_in_time(dir: &Directory, len: u64) -> Result<Spare> {
        let mut waited = Duration::ZERO;
        loop {
            match Spare::allocated(dir, len) {
                Err(error) if error.is_out_of_files() && waited < FILES_PATIENCE => {
                    dir.pause(FILES_PAUSE);
                    waited += FILES_PAUSE;
                }
                outcome => return outcome,
            }
        }
    }

    fn made(dir: &Directory, name: &str, len: u64) -> Result<Spare> {
        let file = dir.create_temporary(name)?;
        file.set_len(len)?;
        Ok(Spare { len, is_written: false, file })
    }

    /// Makes what was written ahead stable, so that the sync that gives it its name is short.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    /// All of it is written and stable: frames can be appended without system calls.
    pub(crate) fn expect_frames(&self) {
        self.file.expect_small_writes();
    }

    /// Whether it may be synced twice at a time.
    pub(crate) fn expect_syncs_beside(&self) -> bool {
        self.file.expect_syncs_beside()
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write(bytes, offset)
    }

    /// Gives it its header, and the name of a segment that has its own only later.
    pub(crate) fn begin(self, dir: &Directory, header: &SegmentHeader) -> Result<StoreFile> {
        self.file.write(&header.encode(), 0)?;
        dir.rename(self.file, name::BEGUN)
    }

    /// Gives it its header and its name; it exists whole from here on, also after a power loss.
    pub(crate) fn publish(
        self,
        dir: &Directory,
        header: &SegmentHeader,
        steps: PublishSteps,
    ) -> Result<StoreFile> {
        self.file.write(&header.encode(), 0)?;
        dir.publish(&name::segment(header.number), self.file, steps)
    }
}

/// The length of the segment that a boot begins with, where the log before it ends at `used` in `newest`. Each boot
/// writes all of its own and leaves it behind, so those of short runs are short; one long run is enough to have the
/// usual length again.
pub(crate) fn first_len(newest: Option<&SegmentHeader>, used: u64) -> u64 {
    newest.map_or(FIRST_SEGMENT_BYTES, |newest| {
        let len = used.saturating_mul(GROWTH).max(newest.len / 2);
        block_after(len.clamp(SHORTEST_SEGMENT_BYTES, FIRST_SEGMENT_BYTES))
    })
}

/// The length of the segment after one of `len` bytes, with room for a frame of `frame` bytes.
pub(crate) fn next_len(len: u64, frame: u64, configured: u64) -> u64 {
    let grown = len.saturating_mul(GROWTH).min(configured);
    block_after(grown.max(FRAMES_BEGIN + frame).min(SEGMENT_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Epoch, Lineage, Place, SegmentNo};

    #[test]
    fn runs_are_given_as_much_as_the_one_before_may_have_wanted() {
        let newest = |len| SegmentHeader {
            lineage: Lineage(1),
            number: SegmentNo(1),
            len,
            epoch: Epoch(1),
            nonce: 0,
            salt: 0,
            claim: FRAMES_BEGIN,
            before: Place::START,
        };
        assert_eq!(first_len(None, 0), FIRST_SEGMENT_BYTES);
        for (len_kib, used_kib, then_kib) in [
            (256, 8, 128),
            (128, 8, 64),
            (64, 8, 32),
            (32, 4, 32),
            (32, 13, 52),
            (32, 30, 120),
            (256, 100, 256),
            (65_536, 8, 256),
        ] {
            let len = first_len(Some(&newest(len_kib << 10)), used_kib << 10);
            assert_eq!(len, then_kib << 10, "{used_kib} of {len_kib} KiB");
        }
    }
}
