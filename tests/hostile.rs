//! P11: whatever a file says, no decoder takes more memory than a small multiple of the file. Alone in
//! its process, since it counts what is allocated.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a test that fails says where"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rocstate::fuzzing::BODIES;

/// The system's allocator, with the most that was allocated at once.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[allow(unsafe_code, reason = "an allocator is one")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What RELIABILITY.md promises: so many times the file, and this much besides.
const TIMES_MAX: usize = 128;
const BESIDES: usize = 1 << 20;

/// The most that a body holds at once for some input.
fn peak(body: fn(&[u8]), input: &[u8]) -> usize {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    body(input);
    PEAK.load(Ordering::Relaxed) - before
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// One more than what a vector that doubles has room for.
const MANY: u64 = (1 << 17) + 1;

/// A catalog's first fields: number, place, epoch, next region.
fn catalog_head() -> Vec<u8> {
    let mut bytes = vec![0; 8 + 28 + 8];
    bytes.extend_from_slice(&u64::MAX.to_le_bytes());
    bytes
}

/// Inputs made to be large in memory: counts without what they count, and what is smallest on disk and
/// largest in memory.
fn bombs(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let huge_count = |mut bytes: Vec<u8>| {
        varint(&mut bytes, u64::MAX >> 1);
        bytes.extend([1; 64]);
        bytes
    };
    let mut bombs = Vec::new();
    match name {
        "catalog" => {
            bombs.push(("a count of kept checkpoints", huge_count(catalog_head())));
            let with = |part: &dyn Fn(u64, &mut Vec<u8>), before: &[u8]| {
                let mut bytes = catalog_head();
                bytes.extend_from_slice(before);
                varint(&mut bytes, MANY);
                (0..MANY).for_each(|number| part(number, &mut bytes));
                bytes
            };
            bombs.push(("kept checkpoints", with(&|_, to| to.push(1), &[])));
            let file = |number, to: &mut Vec<u8>| {
                varint(to, number);
                to.push(1);
            };
            bombs.push(("files", with(&file, &[0])));
            let region = |number, to: &mut Vec<u8>| {
                varint(to, number);
                to.extend([0, 0, 0, 0, 0]);
            };
            bombs.push(("regions", with(&region, &[0, 0])));
            // One region, of which every piece is three bytes.
            let piece = |_, to: &mut Vec<u8>| to.extend([0, 1, 0]);
            bombs.push(("pieces", with(&piece, &[0, 0, 1, 1, 0, 0, 0, 0])));
        }
        "schema" => {
            bombs.push(("a count of elements", huge_count(vec![0, 0, 1, 35])));
            let mut bytes = vec![0, 0, 1, 35];
            varint(&mut bytes, MANY);
            bytes.extend(std::iter::repeat_n(0, usize::try_from(MANY).unwrap()));
            bytes.push(0);
            bombs.push(("elements of one byte", bytes));
            let mut deep = vec![0, 0, 1];
            deep.extend(std::iter::repeat_n(32, 1_000_000));
            bombs.push(("options in options", deep));
            let mut deep = vec![0];
            deep.extend([10, 1].repeat(500_000));
            bombs.push(("tuples in tuples", deep));
        }
        "block" => {
            // What zstd makes of 16 MiB of zeros, with a true envelope and with a lying one.
            let packed = zstd::bulk::compress(&vec![0; 16 << 20], 19).unwrap();
            for raw in [16u32 << 20, u32::MAX, u32::try_from(packed.len() * 64).unwrap()] {
                let mut bytes = vec![0; 4];
                bytes.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
                bytes.extend(raw.to_le_bytes());
                bytes.extend(1u32.to_le_bytes());
                bytes.extend_from_slice(&packed);
                bombs.push(("sixteen MiB of zeros", bytes));
            }
            let mut entries = Vec::new();
            (0..MANY).for_each(|n| {
                entries.push(4);
                entries.extend(u32::try_from(n).unwrap().to_be_bytes());
                entries.extend([0, 0, 0, 0]);
            });
            bombs.push(("index entries of one block", entries));
        }
        "segment" => {
            // A header that names a segment of 2 GiB, and a frame that says it is as long.
            let mut bytes = vec![0; 8192];
            bytes[..8].copy_from_slice(b"ROCLOG\n\0");
            bytes[8] = 1;
            bytes[24] = 1;
            bytes[32..40].copy_from_slice(&(1u64 << 31).to_le_bytes());
            bytes[64..72].copy_from_slice(&4096u64.to_le_bytes());
            bytes[4100..4104].copy_from_slice(&(1u32 << 30).to_le_bytes());
            bombs.push(("a segment shorter than it says", bytes.clone()));
            bytes[32..40].copy_from_slice(&8192u64.to_le_bytes());
            bombs.push(("a frame longer than its segment", bytes));
        }
        _ => {}
    }
    bombs
}

#[test]
fn no_file_makes_a_decoder_take_more_than_a_small_multiple_of_it() {
    for (name, body) in BODIES {
        // A boot holds a store besides; its decoders are these.
        if ["directory", "following"].contains(&name) {
            continue;
        }
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = std::fs::read_dir(corpus).unwrap();
        let seeds = files.map(|file| ("a seed", std::fs::read(file.unwrap().path()).unwrap()));
        let mut worst = (0.0, "");
        for (what, input) in seeds.chain(bombs(name)) {
            let peak = peak(body, &input);
            let times = peak.saturating_sub(BESIDES) as f64 / input.len().max(1) as f64;
            if times >= worst.0 {
                worst = (times, what);
            }
            assert!(
                peak <= TIMES_MAX * input.len() + BESIDES,
                "{name}, {what}: {} bytes take {peak} in memory",
                input.len()
            );
        }
        println!("{name}: at most {:.1} times the input and 1 MiB ({})", worst.0, worst.1);
    }
}
