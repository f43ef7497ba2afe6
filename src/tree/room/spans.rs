//! Spans: memory of the system, divided into chunks. One that falls empty goes back to the system, but the last.

use std::ptr::NonNull;

use parking_lot::{Mutex, MutexGuard};

use super::CHUNK_BYTES;

const CHUNKS_PER_SPAN: u32 = 32;

/// A large page.
const SPAN_BYTES: usize = CHUNK_BYTES * CHUNKS_PER_SPAN as usize;

static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());

/// Memory of the system that chunks are cut from, on a large page if there are several.
struct Span {
    /// Aligned to its length.
    first: NonNull<u8>,
    /// A bit for each chunk that nobody has.
    free: u32,
    memory: memory::Memory,
}

// SAFETY: whoever holds the lock of the spans has all of them, but for the chunks that were taken.
unsafe impl Send for Span {}

const ALL_FREE: u32 = u32::MAX >> (u32::BITS - CHUNKS_PER_SPAN);

impl Span {
    fn fresh(large_pages: bool) -> Span {
        let memory = memory::Memory::new(large_pages);
        let first = memory.first();
        if large_pages {
            // SAFETY: nobody else has it.
            unsafe { first.write(0) };
        }
        Span { first, free: ALL_FREE, memory }
    }

    /// A chunk that nobody has.
    fn take(&mut self) -> Option<NonNull<u8>> {
        let nth = self.free.trailing_zeros();
        self.free &= self.free.checked_sub(1)?;
        // SAFETY: the chunk lies within the span.
        Some(unsafe { self.first.add(nth as usize * CHUNK_BYTES) })
    }
}

/// A chunk of which nothing is written yet.
pub(super) fn take_chunk() -> NonNull<u8> {
    let mut spans = SPANS.lock();
    loop {
        if let Some(chunk) = spans.iter_mut().find_map(Span::take) {
            return chunk;
        }
        // A program with a small store is not to have a large page for it.
        let large_pages = !spans.is_empty();
        // To clear a large page takes longer than to fill it: two threads are to do that at the same time.
        let span = MutexGuard::unlocked(&mut spans, || Span::fresh(large_pages));
        spans.push(span);
    }
}

/// # Safety
/// The chunk was taken, and nobody uses it from now on.
pub(super) unsafe fn give_chunk(chunk: *mut u8) {
    let first = chunk.addr() & !(SPAN_BYTES - 1);
    let mut spans = SPANS.lock();
    let Some(at) = spans.iter().position(|span| span.first.as_ptr().addr() == first) else {
        return;
    };
    let Some(span) = spans.get_mut(at) else { return };
    span.free |= 1 << ((chunk.addr() - first) / CHUNK_BYTES);
    let unused = span.free == ALL_FREE && spans.len() > 1;
    let unused = unused.then(|| spans.swap_remove(at));
    drop(spans);
    // Unmapping takes its time.
    drop(unused.map(|span| span.memory));
}

/// Bytes of the chunks that are in use, by all trees of the process.
#[cfg(feature = "controls")]
pub(crate) fn bytes_in_use() -> usize {
    let chunks = |span: &Span| (CHUNKS_PER_SPAN - span.free.count_ones()) as usize;
    SPANS.lock().iter().map(chunks).sum::<usize>() * CHUNK_BYTES
}

#[cfg(all(unix, not(miri)))]
mod memory {
    use std::ptr::NonNull;

    use memmap2::{MmapMut, MmapRaw};

    use super::SPAN_BYTES;

    /// A mapping that holds a span, wherever it is aligned.
    pub(super) struct Memory(MmapRaw);

    impl Memory {
        pub(super) fn new(large_pages: bool) -> Memory {
            // Only what is touched of it takes memory.
            let map = MmapMut::map_anon(2 * SPAN_BYTES).unwrap_or_else(|_| out_of_memory());
            let memory = Memory(MmapRaw::from(map));
            if large_pages {
                // Where there are none, small ones do as well.
                #[cfg(target_os = "linux")]
                memory.0.advise_range(memmap2::Advice::HugePage, memory.offset(), SPAN_BYTES).ok();
            }
            memory
        }

        fn offset(&self) -> usize {
            let begin = self.0.as_mut_ptr().addr();
            begin.next_multiple_of(SPAN_BYTES) - begin
        }

        pub(super) fn first(&self) -> NonNull<u8> {
            // SAFETY: a multiple of the length lies within twice the length.
            unsafe { NonNull::new_unchecked(self.0.as_mut_ptr().add(self.offset())) }
        }
    }

    fn out_of_memory() -> ! {
        std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; SPAN_BYTES]>())
    }
}

#[cfg(not(all(unix, not(miri))))]
mod memory {
    use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
    use std::ptr::NonNull;

    use super::SPAN_BYTES;

    /// An aligned piece of the program's allocator.
    pub(super) struct Memory(NonNull<u8>);

    const LAYOUT: Layout = match Layout::from_size_align(SPAN_BYTES, SPAN_BYTES) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };

    impl Memory {
        pub(super) fn new(_large_pages: bool) -> Memory {
            // SAFETY: it has a size.
            let memory = NonNull::new(unsafe { alloc(LAYOUT) });
            Memory(memory.unwrap_or_else(|| handle_alloc_error(LAYOUT)))
        }

        pub(super) fn first(&self) -> NonNull<u8> {
            self.0
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: it was allocated with this layout.
            unsafe { dealloc(self.0.as_ptr(), LAYOUT) };
        }
    }
}
