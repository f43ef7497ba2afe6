//! The log read ahead, while whoever needs it checks and sorts what was read before.
//!
//! Copying a long tail out of the page cache takes longer than all else that a boot does with it, and so does
//! the first touch of the memory that it is copied to. So threads of their own read windows of it in turn, and so
//! does whoever needs one that another is still reading.
//!
//! # Invariants
//! - A window that could not be read as a whole is not here: whoever needs it reads it, and learns why.
//! - At most [`AHEAD_MAX`] windows are here, from the one that was needed last on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::held::Window;
use crate::contain::contain;
use crate::format::{BLOCK_BYTES, SegmentNo, disk_len, memory_len};
use crate::storage::directory::StoreFile;

/// How much is read at a time: little enough to come from the allocator's heap.
pub(super) const WINDOW_BYTES: u64 = 64 << 10;

/// How many windows are read before they are needed.
const AHEAD_MAX: usize = 16;

/// A shorter log is read before a thread has begun.
const WORTH_A_THREAD: u64 = 1 << 20;

/// More would wait for the memory.
const THREADS_MAX: usize = 3;

const PAGE_BYTES: usize = 4096;

/// Windows of a log that will be needed in turn.
#[derive(Debug)]
pub(crate) struct Ahead {
    log: Arc<Log>,
    threads: Vec<JoinHandle<()>>,
}

/// A part of a segment that will be needed.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) number: SegmentNo,
    pub(crate) file: StoreFile,
    pub(crate) begin: u64,
    pub(crate) end: u64,
}

#[derive(Debug)]
struct Log {
    /// Each with the number of its first window.
    stretches: Vec<(u64, Stretch)>,
    windows: u64,
    front: Mutex<Front>,
    /// There is room for more.
    room: Condvar,
    /// A window was read.
    read: Condvar,
}

#[derive(Debug, Default)]
struct Front {
    /// The window that is needed.
    needed: u64,
    /// From that one on, those that somebody reads or has read.
    claimed: VecDeque<Claimed>,
    /// Memory of windows that nobody keeps.
    spare: Vec<Vec<u8>>,
    ended: bool,
}

#[derive(Debug)]
enum Claimed {
    BeingRead,
    Read(Window),
    Failed,
}

impl Ahead {
    /// Begins to read, if that is worth it; it ends when this is dropped.
    pub(crate) fn begin(stretches: impl Iterator<Item = Stretch>) -> Option<Ahead> {
        let log = Log::new(stretches);
        if log.windows * WINDOW_BYTES < WORTH_A_THREAD {
            return None;
        }
        let log = Arc::new(log);
        let others = thread::available_parallelism().map_or(1, |cores| cores.get() - 1);
        let threads = (0..others.clamp(1, THREADS_MAX)).map(|_| {
            let log = Arc::clone(&log);
            thread::Builder::new().name("rocstate-boot".to_owned()).spawn(move || log.read_on())
        });
        // Without them whoever needs a window reads it.
        let threads = threads.filter_map(Result::ok).collect();
        Some(Ahead { log, threads })
    }

    /// So many bytes of a segment, in memory that begins with the returned offset; none where they could not be
    /// read, or were passed. What is before them will not be needed.
    pub(super) fn bytes(&self, segment: SegmentNo, offset: u64, len: u64) -> Option<(Window, u64)> {
        let (first, at) = self.log.window_of(segment, offset)?;
        let (last, _) = self.log.window_of(segment, offset + len.max(1) - 1)?;
        if first == last {
            return Some((self.log.window(first)?, at));
        }
        let (len, mut from) = (memory_len(len), memory_len(offset - at));
        let mut joined = Vec::with_capacity(len);
        for nth in first..=last {
            let window = self.log.window(nth)?;
            let part = window.get(from..)?;
            joined.extend_from_slice(part.get(..len - joined.len()).unwrap_or(part));
            from = 0;
        }
        Some((Arc::new(joined), offset))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.log.front.lock().ended = true;
        self.log.room.notify_all();
        for thread in self.threads.drain(..) {
            // It does not panic.
            thread.join().ok();
        }
    }
}

impl Log {
    fn new(stretches: impl Iterator<Item = Stretch>) -> Log {
        let mut windows = 0;
        let stretches = stretches.map(|stretch| {
            let begin = stretch.begin - stretch.begin % BLOCK_BYTES;
            let first = windows;
            windows += stretch.end.saturating_sub(begin).div_ceil(WINDOW_BYTES);
            (first, Stretch { begin, ..stretch })
        });
        let stretches = stretches.collect();
        Log {
            stretches,
            windows,
            front: Mutex::default(),
            room: Condvar::new(),
            read: Condvar::new(),
        }
    }

    /// Which window a place of a segment lies in, and where that begins.
    fn window_of(&self, segment: SegmentNo, offset: u64) -> Option<(u64, u64)> {
        let at = self.stretches.binary_search_by_key(&segment, |(_, of)| of.number).ok()?;
        let (first, stretch) = self.stretches.get(at)?;
        if !(stretch.begin..stretch.end).contains(&offset) {
            return None;
        }
        let nth = (offset - stretch.begin) / WINDOW_BYTES;
        Some((first + nth, stretch.begin + nth * WINDOW_BYTES))
    }

    /// Reads windows until all are read.
    fn read_on(&self) {
        let mut front = self.front.lock();
        while !front.ended && front.needed < self.windows {
            if !self.read_one(&mut front) {
                self.room.wait(&mut front);
            }
        }
    }

    /// A window, when it is read; meanwhile others are. Those before it are not needed any more.
    fn window(&self, nth: u64) -> Option<Window> {
        let mut front = self.front.lock();
        // Those who wait for room are woken for a good part of it.
        if front.pass(nth) && front.claimed.len() <= AHEAD_MAX / 2 {
            self.room.notify_all();
        }
        loop {
            match front.claimed.get(memory_len(nth.checked_sub(front.needed)?)) {
                Some(Claimed::Read(window)) => return Some(Arc::clone(window)),
                Some(Claimed::Failed) => return None,
                Some(Claimed::BeingRead) | None => {}
            }
            if !self.read_one(&mut front) {
                self.read.wait(&mut front);
            }
        }
    }

    /// Reads the next window that nobody reads, if there is room for it.
    fn read_one(&self, front: &mut MutexGuard<'_, Front>) -> bool {
        let nth = front.needed + disk_len(front.claimed.len());
        if nth >= self.windows || front.claimed.len() >= AHEAD_MAX {
            return false;
        }
        front.claimed.push_back(Claimed::BeingRead);
        let memory = front.spare.pop().unwrap_or_default();
        let read = MutexGuard::unlocked(front, || contain(|| self.read(nth, memory)));
        // Unless it was passed meanwhile.
        if let Some(at) = nth.checked_sub(front.needed)
            && let Some(claimed) = front.claimed.get_mut(memory_len(at))
        {
            *claimed = read.unwrap_or(Claimed::Failed);
        }
        self.read.notify_one();
        true
    }

    fn read(&self, nth: u64, mut memory: Vec<u8>) -> Claimed {
        let of = self.stretches.partition_point(|(first, _)| *first <= nth);
        let Some((first, stretch)) = of.checked_sub(1).and_then(|of| self.stretches.get(of)) else {
            return Claimed::Failed;
        };
        let offset = stretch.begin + (nth - first) * WINDOW_BYTES;
        let len = WINDOW_BYTES.min(stretch.end - offset);
        if memory.capacity() < memory_len(len) {
            memory = touched(memory_len(len));
        }
        match stretch.file.read_into(&mut memory, offset, len) {
            Ok(()) if disk_len(memory.len()) == len => Claimed::Read(Arc::new(memory)),
            Ok(()) | Err(_) => Claimed::Failed,
        }
    }
}

impl Front {
    /// Lets go of the windows before this one; whether there were any.
    fn pass(&mut self, needed: u64) -> bool {
        let passed = self.needed < needed;
        while self.needed < needed {
            if let Some(Claimed::Read(window)) = self.claimed.pop_front() {
                self.spare.extend(Arc::into_inner(window));
            }
            self.needed += 1;
        }
        passed
    }
}

/// Memory of which every page is there: the system copies into such memory faster than it makes pages meanwhile.
fn touched(len: usize) -> Vec<u8> {
    let mut memory = vec![0; len];
    for page in memory.chunks_mut(PAGE_BYTES) {
        // A zero would be taken for what is there already.
        if let Some(first) = page.first_mut() {
            *first = 1;
        }
    }
    memory
}
