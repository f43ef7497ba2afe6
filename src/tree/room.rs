//! Room for nodes and values, for all trees of the process: chunks of equal slots.
//!
//! The allocator of the program gives each of them a header of its own and a place wherever one is free. Here
//! what is made one after the other lies side by side, with nothing between, in large pages where the
//! system has them: so a value costs fewer bytes, and reading it fewer cache misses.
//!
//! A slot can have a stamp. It lies behind what is in the slot, or beside all the slots of its chunk, if slots
//! that are shorter lie across fewer cache lines: a struct of 64 bytes with its stamp would be two of them for
//! whoever reads it, seven times of eight, and is one.
//!
//! Chunks are cut from *spans* that are mapped from the system ([`spans`]). A chunk that falls empty goes back to
//! its span, unless it is the last of its kind.
//!
//! # Invariants
//! - A slot is either handed out or free, and a chunk counts those that are handed out.
//! - Chunks are linked that have a free slot, and no others.
//! - Locks: a class, then the spans.

mod spans;

use std::alloc::Layout;
use std::ptr::{self, NonNull};

use parking_lot::{Mutex, MutexGuard};

use super::node::Stamp;
#[cfg(feature = "controls")]
pub(crate) use spans::bytes_in_use;
use spans::{give_chunk, take_chunk};

/// Where a chunk begins is found from a slot's address.
const CHUNK_BYTES: usize = 64 << 10;

/// The sizes of slots are multiples of it.
const SIZE_STEP: usize = 8;

/// What is larger is left to the program's allocator.
const SIZE_MAX: usize = 4096;

/// A cache line.
const LINE: usize = 64;

/// Room before the first slot, which is aligned to it.
const CHUNK_HEAD_BYTES: usize = LINE;

const STAMP_BYTES: usize = size_of::<Stamp>();

/// Where things of one size lie.
#[derive(Clone, Copy)]
pub(super) enum Room {
    Class(Shape),
    Allocator(Layout),
}

/// How a chunk is divided.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// A multiple of the step.
    size: usize,
    /// Where the first slot begins, and where the last one ends.
    slots: (usize, usize),
    /// Stamps lie between the head and the first slot.
    stamps_aside: bool,
}

/// What a chunk begins with.
struct Chunk {
    size: usize,
    /// Where the last slot has ended.
    end: usize,
    /// Slots that are handed out.
    used: usize,
    /// Where slots begin that were never handed out.
    fresh: usize,
    free: *mut Free,
    before: *mut Chunk,
    after: *mut Chunk,
}

const _: () = assert!(size_of::<Chunk>() <= CHUNK_HEAD_BYTES);

/// What is in a slot that came back.
struct Free {
    next: *mut Free,
}

/// The chunks of one size that have free slots.
struct Class {
    first: *mut Chunk,
}

// SAFETY: whoever holds its lock has all of its chunks, but for the slots that are handed out.
unsafe impl Send for Class {}

type Classes = [Mutex<Class>; SIZE_MAX / SIZE_STEP + 1];

static CLASSES: Classes =
    [const { Mutex::new(Class { first: ptr::null_mut() }) }; SIZE_MAX / SIZE_STEP + 1];

/// Those whose stamps lie aside.
static STAMPED: Classes =
    [const { Mutex::new(Class { first: ptr::null_mut() }) }; SIZE_MAX / SIZE_STEP + 1];

impl Room {
    /// Room for things that so many bytes follow.
    pub(super) const fn followed_by<T>(bytes: usize) -> Room {
        let alone = Layout::new::<T>();
        let size = alone.size().next_multiple_of(STAMP_BYTES);
        let align = if alone.align() < STAMP_BYTES { STAMP_BYTES } else { alone.align() };
        match Layout::from_size_align(size + bytes, align) {
            Ok(both) => Room::with(both.pad_to_align(), false),
            Err(_) => panic!("as long as any address"),
        }
    }

    /// Room for things that have stamps.
    pub(super) const fn stamped<T>() -> Room {
        let alone = Layout::new::<T>();
        let size = alone.size().next_multiple_of(STAMP_BYTES);
        // A little more, and each begins with a line of its own.
        if (size + STAMP_BYTES + SIZE_STEP).is_multiple_of(LINE) {
            return Room::followed_by::<T>(STAMP_BYTES + SIZE_STEP);
        }
        let aside = Room::with(alone, true);
        // The program's allocator keeps no stamps.
        if matches!(aside, Room::Class(_)) && lines(size, size) < lines(size, size + STAMP_BYTES) {
            return aside;
        }
        Room::followed_by::<T>(STAMP_BYTES)
    }

    const fn with(layout: Layout, stamps_aside: bool) -> Room {
        let size = layout.size().next_multiple_of(SIZE_STEP);
        if size <= SIZE_MAX && layout.align() <= CHUNK_HEAD_BYTES && size > 0 {
            Room::Class(Shape::of(size, stamps_aside))
        } else {
            Room::Allocator(layout)
        }
    }

    /// Where the stamp is of what lies in a slot.
    ///
    /// # Safety
    /// This is room for such things with stamps, and the slot was handed out by it.
    pub(super) unsafe fn stamp<T>(self, slot: NonNull<T>) -> NonNull<Stamp> {
        // SAFETY: behind the slot or in its chunk, the caller promises.
        unsafe {
            match self {
                Room::Class(shape) if shape.stamps_aside => {
                    let chunk = chunk_of(slot.cast());
                    let nth = (slot.addr().get() - chunk.addr() - shape.slots.0) / shape.size;
                    let stamps = chunk.byte_add(CHUNK_HEAD_BYTES).cast::<Stamp>();
                    NonNull::new_unchecked(stamps.add(nth))
                }
                _ => slot.byte_add(size_of::<T>().next_multiple_of(STAMP_BYTES)).cast(),
            }
        }
    }

    /// Hands out so many slots.
    pub(super) fn take(self, count: usize, mut to: impl FnMut(NonNull<u8>)) {
        match self {
            Room::Class(shape) => {
                let Some(lock) = shape.class() else { return };
                let mut chunks = lock.lock();
                for _ in 0..count {
                    let slot = loop {
                        if let Some(slot) = chunks.take() {
                            break slot;
                        }
                        // The system takes its time, and others may only want to give something back.
                        let fresh = || Chunk::fresh(shape);
                        let chunk = MutexGuard::unlocked(&mut chunks, fresh);
                        // SAFETY: the chunk is one of this class since just now.
                        unsafe { chunks.link(chunk) };
                    };
                    to(slot);
                }
            }
            Room::Allocator(layout) => {
                for _ in 0..count {
                    // SAFETY: it has a size.
                    let room = NonNull::new(unsafe { std::alloc::alloc(layout) });
                    to(room.unwrap_or_else(|| std::alloc::handle_alloc_error(layout)));
                }
            }
        }
    }

    /// Takes slots back.
    ///
    /// # Safety
    /// They were handed out by this room, and nobody uses them from now on.
    pub(super) unsafe fn give(self, rooms: impl Iterator<Item = NonNull<u8>>) {
        match self {
            Room::Class(shape) => {
                let Some(lock) = shape.class() else { return };
                let mut chunks = lock.lock();
                // SAFETY: the caller's promise.
                rooms.for_each(|room| unsafe { chunks.give(room) });
            }
            Room::Allocator(layout) => {
                // SAFETY: the caller's promise.
                rooms.for_each(|room| unsafe { std::alloc::dealloc(room.as_ptr(), layout) });
            }
        }
    }
}

/// How many cache lines things of one size lie in that follow each other so many bytes apart, eight of them
/// together. Both are multiples of the step.
const fn lines(size: usize, apart: usize) -> usize {
    let (mut lines, mut nth) = (0, 0);
    while nth < LINE / SIZE_STEP {
        lines += (nth * apart % LINE + size).div_ceil(LINE);
        nth += 1;
    }
    lines
}

impl Shape {
    const fn of(size: usize, stamps_aside: bool) -> Shape {
        let stamp = if stamps_aside { STAMP_BYTES } else { 0 };
        // Stamps end anywhere, and slots begin with a line.
        let rounding = if stamps_aside { CHUNK_HEAD_BYTES - STAMP_BYTES } else { 0 };
        let count = (CHUNK_BYTES - CHUNK_HEAD_BYTES - rounding) / (size + stamp);
        let first = (CHUNK_HEAD_BYTES + count * stamp).next_multiple_of(CHUNK_HEAD_BYTES);
        Shape { size, slots: (first, first + count * size), stamps_aside }
    }

    /// The chunks of this shape that have room.
    fn class(self) -> Option<&'static Mutex<Class>> {
        let classes = if self.stamps_aside { &STAMPED } else { &CLASSES };
        classes.get(self.size / SIZE_STEP)
    }
}

impl Chunk {
    /// One that holds nothing.
    fn fresh(shape: Shape) -> *mut Chunk {
        let chunk = take_chunk().cast::<Chunk>();
        let Shape { size, slots: (fresh, end), .. } = shape;
        let (free, before, after) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the chunk is nobody else's, and aligned to its length.
        unsafe { chunk.write(Chunk { size, end, used: 0, fresh, free, before, after }) };
        chunk.as_ptr()
    }
}

impl Class {
    /// A slot, if there is a chunk that has one.
    fn take(&mut self) -> Option<NonNull<u8>> {
        let chunk = NonNull::new(self.first)?.as_ptr();
        // SAFETY: chunks that are linked live, and their heads are reached under this lock alone. A free
        // slot is nobody's; the one after the last that was handed out lies within the chunk, since it
        // would not be linked otherwise.
        unsafe {
            let slot = (*chunk).free;
            let slot = if slot.is_null() {
                let slot = chunk.cast::<u8>().add((*chunk).fresh);
                (*chunk).fresh += (*chunk).size;
                slot
            } else {
                (*chunk).free = (*slot).next;
                slot.cast()
            };
            (*chunk).used += 1;
            if is_full(chunk) {
                self.unlink(chunk);
            }
            Some(NonNull::new_unchecked(slot))
        }
    }

    /// # Safety
    /// The slot was handed out by this class, and nobody uses it from now on.
    unsafe fn give(&mut self, slot: NonNull<u8>) {
        let chunk = chunk_of(slot);
        // SAFETY: the chunk lives since the slot is in it; as above.
        unsafe {
            if is_full(chunk) {
                self.link(chunk);
            }
            let slot = slot.cast::<Free>();
            slot.write(Free { next: (*chunk).free });
            (*chunk).free = slot.as_ptr();
            (*chunk).used -= 1;
            let alone = (*chunk).before.is_null() && (*chunk).after.is_null();
            if (*chunk).used == 0 && !alone {
                self.unlink(chunk);
                give_chunk(chunk.cast());
            }
        }
    }

    /// # Safety
    /// The chunk is one of this class and linked.
    unsafe fn unlink(&mut self, chunk: *mut Chunk) {
        // SAFETY: the caller's promise; neighbours are linked as well.
        unsafe {
            let (before, after) = ((*chunk).before, (*chunk).after);
            if let Some(before) = before.as_mut() {
                before.after = after;
            } else {
                self.first = after;
            }
            if let Some(after) = after.as_mut() {
                after.before = before;
            }
            (*chunk).before = ptr::null_mut();
            (*chunk).after = ptr::null_mut();
        }
    }

    /// # Safety
    /// The chunk is one of this class and not linked.
    unsafe fn link(&mut self, chunk: *mut Chunk) {
        // SAFETY: the caller's promise; the first one is linked.
        unsafe {
            (*chunk).after = self.first;
            if let Some(first) = self.first.as_mut() {
                first.before = chunk;
            }
        }
        self.first = chunk;
    }
}

/// # Safety
/// The chunk lives, and its class is locked.
unsafe fn is_full(chunk: *mut Chunk) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*chunk).free.is_null() && (*chunk).fresh == (*chunk).end }
}

fn chunk_of(slot: NonNull<u8>) -> *mut Chunk {
    slot.as_ptr().map_addr(|address| address & !(CHUNK_BYTES - 1)).cast()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A room, how long what lies in it is, what that is aligned to, and where its stamp is, if it has one.
    type Case = (Room, usize, usize, Option<fn(Room, NonNull<u8>) -> NonNull<Stamp>>);

    fn plain<T>() -> Case {
        (Room::followed_by::<T>(0), size_of::<T>(), align_of::<T>(), None)
    }

    fn stamped<T>() -> Case {
        // SAFETY: the tests ask for what is in this room.
        let stamp = |room: Room, slot: NonNull<u8>| unsafe { room.stamp(slot.cast::<T>()) };
        (Room::stamped::<T>(), size_of::<T>(), align_of::<T>(), Some(stamp))
    }

    #[repr(align(128))]
    struct Aligned(#[expect(dead_code, reason = "it only has a size")] [u8; 128]);

    const CASES: usize = 16;

    fn cases() -> [Case; CASES] {
        [
            plain::<u64>(),
            plain::<[u64; 9]>(),
            plain::<[u128; 3]>(),
            plain::<[u8; 977]>(),
            plain::<[u8; 2048]>(),
            plain::<[u64; 500]>(),
            stamped::<()>(),
            stamped::<u8>(),
            stamped::<[u128; 1]>(),
            stamped::<[u64; 5]>(),
            stamped::<[u64; 8]>(),
            stamped::<[u8; 100]>(),
            stamped::<[u64; 256]>(),
            stamped::<[u8; 2045]>(),
            stamped::<[u64; 512]>(),
            stamped::<Aligned>(),
        ]
    }

    /// Whether a stamp lies in what was handed out with the slot.
    fn belongs(stamp: NonNull<Stamp>, slot: NonNull<u8>, room: Room) -> bool {
        let (chunk, slot) = (chunk_of(slot).addr(), slot.addr().get());
        let within = match room {
            Room::Allocator(layout) => slot..slot + layout.size(),
            Room::Class(shape) if !shape.stamps_aside => slot..slot + shape.size,
            Room::Class(shape) => chunk + CHUNK_HEAD_BYTES..chunk + shape.slots.0,
        };
        within.contains(&stamp.addr().get()) && stamp.addr().get() + STAMP_BYTES <= within.end
    }

    #[test]
    fn what_fits_into_one_cache_line_lies_in_one() {
        let fitting = [
            stamped::<u64>(),
            stamped::<[u64; 2]>(),
            stamped::<[u64; 3]>(),
            stamped::<[u64; 4]>(),
            stamped::<[u64; 6]>(),
            stamped::<[u64; 7]>(),
            stamped::<[u64; 8]>(),
        ];
        for (room, bytes, ..) in fitting {
            let mut taken = Vec::new();
            room.take(3000, |slot| taken.push(slot));
            for slot in &taken {
                assert!(slot.addr().get() % 64 + bytes <= 64, "{bytes} bytes at {slot:?}");
            }
            // SAFETY: they were just taken.
            unsafe { room.give(taken.into_iter()) };
        }
    }

    proptest! {
        /// Whatever is taken and given back, nothing is handed out twice, stamps are nowhere else, and everything
        /// is aligned.
        #[test]
        fn slots_are_disjoint(steps in prop::collection::vec((0usize..CASES, 1usize..400, any::<u64>()), 1..40)) {
            let cases = cases();
            let mut taken: [BTreeMap<usize, (NonNull<u8>, u8)>; CASES] = Default::default();
            for (what, count, seed) in steps {
                // Miri runs a thousand times slower.
                let count = if cfg!(miri) { count.div_ceil(40) } else { count };
                let (room, bytes, align, stamp) = cases[what];
                if seed % 3 == 0 {
                    let given: Vec<usize> = taken[what].keys().copied().take(count).collect();
                    let given = given.into_iter().filter_map(|at| taken[what].remove(&at));
                    let given: Vec<_> = given.collect();
                    for (slot, mark) in &given {
                        let stamp = stamp.map(|stamp| unsafe { stamp(room, *slot).read() });
                        prop_assert!(stamp.is_none_or(|stamp| stamp == u64::from(*mark)), "its stamp");
                        let slot = unsafe { std::slice::from_raw_parts(slot.as_ptr(), bytes) };
                        prop_assert!(slot.iter().all(|byte| byte == mark), "somebody wrote into it");
                    }
                    unsafe { room.give(given.into_iter().map(|(slot, _)| slot)) };
                } else {
                    let mark = seed.to_le_bytes()[0];
                    room.take(count, |slot| {
                        let stamps = stamp.map(|stamp| stamp(room, slot));
                        assert!(stamps.is_none_or(|stamp| belongs(stamp, slot, room)), "{bytes} bytes");
                        unsafe { slot.write_bytes(mark, bytes) };
                        stamps.into_iter().for_each(|stamp| unsafe { stamp.write(mark.into()) });
                        let address = slot.addr().get();
                        assert!(address.is_multiple_of(align));
                        let before = taken[what].range(..address).next_back();
                        assert!(before.is_none_or(|(before, _)| before + bytes <= address));
                        assert!(taken[what].insert(address, (slot, mark)).is_none());
                    });
                }
            }
            for ((room, ..), taken) in cases.into_iter().zip(taken) {
                unsafe { room.give(taken.into_values().map(|(slot, _)| slot)) };
            }
        }
    }
}
