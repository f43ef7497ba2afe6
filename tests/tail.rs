//! P1, P5: a log that is long enough for several threads to read is the same log to one.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{FaultyDisk, files, image, restore, within};
use rocstate::{DurableMap, Error, ErrorKind, Store};

/// No checkpoint is taken on the way.
const NO_CHECKPOINT: Duration = Duration::from_secs(3600);

const LIMIT: Duration = Duration::from_secs(120);

/// Bytes of values in the commits of one round: blocks of their own, several to a block and across windows, as
/// large as many windows, and larger than all that is read ahead.
const SIZES: [usize; 9] = [1, 100, 100, 4_000, 12_000, 100_000, 65_536, 300_000, 2_500_000];

type Map = DurableMap<u32, Vec<u8>>;
type Content = (u64, u64, Vec<(u32, Vec<u8>)>);

/// Leaves a log of several segments and some megabytes, which end at the same commits each time.
fn write(path: &Path) {
    let options = Store::options().boot_budget(NO_CHECKPOINT).segment_bytes(4 << 20);
    let store = options.threads(false).open(path).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    for key in 0..300 {
        let bytes = SIZES[if key < 27 { key % 9 } else { key % 5 }];
        let value = (0..bytes).map(|at| (at * 31 + key * 7) as u8).collect();
        store.transact(|tx| map.insert(tx, key as u32 % 200, value)).unwrap();
    }
}

fn read(path: &Path, threads: bool, read_only: bool) -> Result<Content, Error> {
    let options = Store::options().boot_budget(NO_CHECKPOINT).threads(threads);
    let store = options.read_only(read_only).open(path)?;
    let map: Map = store.durable_map("map")?;
    let view = store.view();
    let entries = map.iter(&view).map(|entry| entry.map(|(k, v)| (*k, v.clone())));
    let report = store.boot_report();
    Ok((report.commits_replayed, report.torn_bytes, entries.collect::<Result<_, _>>()?))
}

/// What a boot makes of these files, which is the same with threads and without, and for who only reads.
fn outcome(path: &Path, files: &[(std::path::PathBuf, Vec<u8>)]) -> Result<Content, String> {
    let each =
        [(true, false), (false, false), (true, true), (false, true)].map(|(threads, only)| {
            restore(path, files);
            read(path, threads, only)
        });
    let each = each.map(|one| one.map_err(|error| format!("{:?} {error}", error.kind())));
    assert!(each[0] == each[1] && each[2] == each[3], "it depends on the threads");
    let [writer, _, reader, _] = each;
    let claimed = writer.as_ref().is_ok_and(|writer| writer.0 == 300);
    assert!(!claimed || reader.is_ok(), "only the writer reads it");
    writer
}

#[test]
fn a_long_log_is_the_same_to_one_thread_and_to_several() {
    within(LIMIT, || {
        let dir = tempfile::tempdir().unwrap();
        let path = &dir.path().join("store");
        write(path);
        let whole = image(path);
        let (commits, torn, entries) = outcome(path, &whole).unwrap();
        assert_eq!((commits, torn, entries.len()), (300, 0, 200));
        restore(path, &whole);
        let segments = files(path, "log-0");
        let lens = segments.iter().map(|path| path.metadata().unwrap().len());
        assert!(segments.len() >= 4 && lens.sum::<u64>() > 8 << 20);
        // A bit in the middle of each segment, and behind its end.
        for segment in &segments {
            let (_, bytes) = whole.iter().find(|(path, _)| path == segment).unwrap();
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            // What fills up a block is zeros, and nobody looks at it.
            let middle = (used / 2..=used).find(|at| bytes[*at] != 0).unwrap();
            for (at, harmless) in [(middle, false), (used + 1, true)] {
                let mut damaged = whole.clone();
                let (_, bytes) = damaged.iter_mut().find(|(path, _)| path == segment).unwrap();
                let Some(byte) = bytes.get_mut(at) else { continue };
                *byte ^= 4;
                let boot = outcome(path, &damaged);
                assert!(harmless || boot.is_err(), "{}: {at}", segment.display());
            }
        }
    });
}

#[test]
fn a_read_ahead_that_fails_loses_nothing() {
    within(LIMIT, || {
        let dir = tempfile::tempdir().unwrap();
        let path = &dir.path().join("store");
        write(path);
        let whole = image(path);
        let mut opened = 0;
        for nth in (1..200).step_by(13) {
            for panics in [false, true] {
                restore(path, &whole);
                let disk = FaultyDisk::default();
                disk.0.read.store(nth, Ordering::SeqCst);
                disk.0.panic.store(panics, Ordering::SeqCst);
                let open = || Store::options().storage(disk.clone()).open(path);
                let open = std::panic::AssertUnwindSafe(open);
                match std::panic::catch_unwind(open) {
                    Ok(Ok(store)) => {
                        opened += 1;
                        let map: Map = store.durable_map("map").unwrap();
                        assert_eq!(map.len(&store.view()), 200);
                    }
                    Ok(Err(error)) => assert_eq!(error.kind(), ErrorKind::Io, "{error}"),
                    Err(_) => assert!(panics),
                }
                drop(disk);
                assert_eq!(read(path, true, false).unwrap().2.len(), 200);
            }
        }
        assert!(opened > 0, "nobody reads ahead");
    });
}
