//! Where in the program's allocator lies what trees hold, so that those who free millions of blocks let no one wait.
//!
//! glibc keeps freed blocks of up to 128 bytes on lists, and merges all of an arena's in one go when somebody frees
//! or asks for a large block: whoever that is takes what millions of strings take, seconds, and everybody who
//! shares the arena waits. So whoever frees that many has them merged every so often, by making a block of that arena
//! longer and short again: to lengthen it asks the arena that it came from for a large block, to shorten it frees one
//! (`_int_realloc` and `_int_free` in glibc's `malloc.c`). That takes any thread a microsecond, if there is nothing to
//! merge. For it everybody who puts something into a tree leaves a small block here.
//!
//! What threads free of their own arenas they use again. But what a boot has loaded is freed by those who replace it,
//! of arenas in which they make nothing; then a checkpoint merged it, and they waited. So they have it merged.
//!
//! Other allocators keep no such lists. Where a program wraps this one and does not hand `realloc` on, nothing is merged.
//! Nothing but time depends on it.

use std::cell::RefCell;
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

/// A way to have an arena merged.
struct Foothold {
    /// Where its first block lay.
    heap: usize,
    /// Threads that put something into trees and have not ended.
    users: usize,
    /// A block of it, unless somebody has that just now.
    block: Option<Vec<u8>>,
}

/// One of each arena that is known; whose turn it is comes first.
static FOOTHOLDS: Mutex<VecDeque<Foothold>> = Mutex::new(VecDeque::new());

thread_local! {
    /// The arena of this thread, if that is known.
    static OWN: RefCell<Option<Use>> = const { RefCell::new(None) };
}

/// That a thread uses the arena with this heap.
struct Use(usize);

impl Drop for Use {
    fn drop(&mut self) {
        let mut footholds = FOOTHOLDS.lock();
        if let Some(foothold) = footholds.iter_mut().find(|foothold| foothold.heap == self.0) {
            foothold.users = foothold.users.saturating_sub(1);
        }
    }
}

/// Notes the arena of this thread, for somebody who is about to put into a tree what lies there.
pub(super) fn know_this_thread() {
    if cfg!(target_env = "gnu") {
        let note = |own: &RefCell<Option<Use>>| {
            own.borrow_mut().get_or_insert_with(Foothold::gain);
        };
        // A thread that is ending is not noted.
        OWN.try_with(note).ok();
    }
}

/// This thread does not use its arena for now: others are to have merged what they free of it.
pub(super) fn abandon() {
    OWN.try_with(RefCell::take).ok();
}

/// Has merged what was freed in one of the arenas; they take turns.
pub(super) fn merge() {
    merge_one(|_| true);
}

/// The same for those who commit, whose own arenas need none of that: what is freed there is used again.
pub(super) fn merge_abandoned() {
    merge_one(|foothold| foothold.users == 0);
}

fn merge_one(which: impl Fn(&Foothold) -> bool) {
    let mut footholds = FOOTHOLDS.lock();
    let at = footholds.iter().position(|one| one.block.is_some() && which(one));
    let Some(mut foothold) = at.and_then(|at| footholds.remove(at)) else { return };
    let (heap, block) = (foothold.heap, foothold.block.take());
    footholds.push_back(foothold);
    drop(footholds);
    let block = block.map(merge_by);
    if let Some(foothold) = FOOTHOLDS.lock().iter_mut().find(|one| one.heap == heap) {
        foothold.block = block;
    }
}

/// Merges what was freed in the arena of a block.
fn merge_by(mut block: Vec<u8>) -> Vec<u8> {
    if block.try_reserve_exact(LONG_BYTES).is_ok() {
        // Nobody sees the two steps if they are taken for one.
        black_box(&mut block);
        block.shrink_to(SHORT_BYTES);
    }
    block
}

impl Foothold {
    /// Counts this thread as a user of its arena.
    #[cold]
    fn gain() -> Use {
        let block: Vec<u8> = Vec::with_capacity(SHORT_BYTES);
        let heap = block.as_ptr().addr() >> HEAP_BITS;
        let mut footholds = FOOTHOLDS.lock();
        if let Some(known) = footholds.iter_mut().find(|other| other.heap == heap) {
            known.users += 1;
        } else {
            if footholds.len() >= FOOTHOLDS_MAX {
                footholds.pop_front();
            }
            footholds.push_back(Foothold { heap, users: 1, block: Some(block) });
        }
        Use(heap)
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
        (0..2 * FOOTHOLDS_MAX).for_each(|_| merge_abandoned());
        assert_eq!(known() > 0, cfg!(target_env = "gnu"));
    }

    #[test]
    fn an_arena_is_abandoned_while_no_thread_uses_it() {
        let users = |heap: usize| {
            let footholds = FOOTHOLDS.lock();
            footholds.iter().find(|one| one.heap == heap).map(|one| one.users)
        };
        let heap = std::thread::spawn(move || {
            know_this_thread();
            let heap = OWN.with_borrow(|own| own.as_ref().map(|own| own.0));
            let used = heap.map(|heap| users(heap).is_some_and(|users| users > 0));
            assert_eq!(used, cfg!(target_env = "gnu").then_some(true));
            heap
        });
        let heap = heap.join().unwrap();
        // Other tests have threads as well, which may have got it.
        let abandoned = || heap.is_none_or(|heap| users(heap).is_none_or(|users| users == 0));
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !abandoned() {
            assert!(std::time::Instant::now() < until, "somebody still uses it");
            std::thread::yield_now();
        }
    }
}
