//! Memory to read the log into, made ready while the boot reads.
//!
//! The first touch of fresh memory takes longer than copying a page of log into it: without this, half
//! of the time that a long tail takes to be read goes there.

use std::sync::mpsc::{Receiver, sync_channel};

use parking_lot::Mutex;

use crate::format::memory_len;

/// How much of a segment is read at a time: little enough to come from the allocator's heap. Four times
/// as much is mapped anew each time, which made boots a tenth slower.
pub(super) const WINDOW_BYTES: u64 = 64 << 10;

/// How many windows wait to be used, at most.
const READY_MAX: usize = 64;

/// A shorter log is read before a thread has begun.
const WORTH_A_THREAD: u64 = 1 << 20;

const PAGE_BYTES: usize = 4096;

/// Windows that are ready; without one, whoever reads makes one.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    ready: Option<Mutex<Receiver<Vec<u8>>>>,
}

impl Windows {
    /// Begins to make enough windows for a log of so many bytes; it ends when this is dropped.
    pub(crate) fn prepare(bytes: u64) -> Windows {
        if bytes < WORTH_A_THREAD {
            return Windows::default();
        }
        let (to, ready) = sync_channel(READY_MAX);
        let make = move || {
            for _ in 0..bytes.div_ceil(WINDOW_BYTES) {
                if to.send(touched(memory_len(WINDOW_BYTES))).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("rocstate-boot".to_owned()).spawn(make);
        Windows { ready: thread.is_ok().then(|| Mutex::new(ready)) }
    }

    /// Memory for a window, which may be empty.
    pub(super) fn next(&self) -> Vec<u8> {
        let ready = self.ready.as_ref().map(|ready| ready.lock().try_recv());
        ready.and_then(Result::ok).unwrap_or_default()
    }
}

/// Memory of which every page is there.
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
