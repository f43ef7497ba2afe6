//! Where in the program's allocator lies what trees hold, so that those who free millions of blocks let no one wait.
//!
//! glibc keeps freed blocks of up to 128 bytes on lists, and merges all of an arena's in one go when somebody frees
//! or asks for a large block: whoever that is takes what millions of strings take, seconds, and everybody who
//! shares the arena waits. So whoever frees that many has them merged every so often, by making a block of that arena
//! longer and short again: to lengthen it asks the arena that it came from for a large block, to shorten it frees one
//! (`_int_realloc` and `_int_free` in glibc's `malloc.c`). That takes any thread a microsecond, if there is nothing to
//! merge. For it everybody who puts something into a tree leaves a small block here.
//!
//! Other allocators keep no such lists. Where a program wraps this one and does not hand `realloc` on, nothing is merged.
//! Nothing but time depends on it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::hint::black_box;

use parking_lot::Mutex;

/// Blocks of this size are kept on the lists at first, and are asked for by many.
const SHORT_BYTES: usize = 32;

/// More than `FASTBIN_CONSOLIDATION_THRESHOLD`, and less than what is mapped by itself.
const LONG_BYTES: usize = 96 << 10;

/// Addresses that agree in all but so many bits are of one arena, but for the main one, which has more of them
/// (`HEAP_MAX_SIZE`).
const HEAP_BITS: u32 = 26;

/// Of more arenas than a large machine has threads those are forgotten that were known first.
const FOOTHOLDS_MAX: usize = 256;

/// A block of the arena that it was made from.
struct Foothold(Vec<u8>);

/// One of each arena that is known; whose turn it is comes first.
static FOOTHOLDS: Mutex<VecDeque<Foothold>> = Mutex::new(VecDeque::new());

thread_local! {
    /// The arena of this thread is known.
    static KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// Notes the arena of this thread, for somebody who is about to put into a tree what lies there.
pub(super) fn know_this_thread() {
    if cfg!(target_env = "gnu") && !KNOWN.replace(true) {
        Foothold::new().keep();
    }
}

/// Has merged what was freed in one of the arenas; they take turns.
pub(super) fn merge() {
    let next = FOOTHOLDS.lock().pop_front();
    if let Some(mut foothold) = next {
        foothold.merge();
        FOOTHOLDS.lock().push_back(foothold);
    }
}

impl Foothold {
    fn new() -> Foothold {
        Foothold(Vec::with_capacity(SHORT_BYTES))
    }

    /// Keeps it if it is the first of its arena.
    #[cold]
    fn keep(self) {
        let mut footholds = FOOTHOLDS.lock();
        if footholds.iter().all(|other| other.heap() != self.heap()) {
            if footholds.len() >= FOOTHOLDS_MAX {
                footholds.pop_front();
            }
            footholds.push_back(self);
        }
    }

    fn heap(&self) -> usize {
        self.0.as_ptr().addr() >> HEAP_BITS
    }

    fn merge(&mut self) {
        if self.0.try_reserve_exact(LONG_BYTES).is_ok() {
            // Nobody sees the two steps if they are taken for one.
            black_box(&mut self.0);
            self.0.shrink_to(SHORT_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_come_and_go_leave_little() {
        let known = || FOOTHOLDS.lock().len();
        for _ in 0..2 * FOOTHOLDS_MAX {
            std::thread::spawn(know_this_thread).join().unwrap();
        }
        // They got each other's arena.
        assert!(known() < FOOTHOLDS_MAX / 2, "{} footholds", known());
        (0..2 * FOOTHOLDS_MAX).for_each(|_| merge());
        assert_eq!(known() > 0, cfg!(target_env = "gnu"));
    }
}
