//! What fuzzers run: each body takes any bytes, and nothing that they say may make the engine panic,
//! loop, or allocate without bound; what decodes must encode to the same.
//!
//! For the fuzz targets and the test that runs these over their corpora, not for users.

use std::cmp::Reverse;
use std::path::Path;
use std::time::Duration;

use crate::checkpoint::layers::{Files, LayerWalk, Layers};
use crate::checkpoint::parts::KeyRange;
use crate::control::{CHECKSUMS, without};
use crate::format::block::{self, Entry, Holds};
use crate::format::bytes::Reader;
use crate::format::catalog::Catalog;
use crate::format::index;
use crate::format::lock::LockSector;
use crate::format::operation::{Operation, Record};
use crate::format::segment::SegmentHeader;
use crate::format::shape::Schema;
use crate::format::{CheckpointNo, SegmentNo, name};
use crate::log::chain::read_frames;
use crate::log::run::Run;
use crate::log::scan::SegmentReader;
use crate::log::tail::TailBuilder;
use crate::options::{Durability, Options};
use crate::region::{Key, KeyReader, KeyWriter};
use crate::storage::directory::Directory;
use crate::storage::sim::SimDisk;
use crate::storage::{OpenMode, Storage};
use crate::{DurableMap, Store};

/// A body by its name, which is that of its corpus.
pub type Body = (&'static str, fn(&[u8]));

/// All of them.
pub const BODIES: [Body; 8] = [
    ("segment", segment),
    ("checkpoint", checkpoint),
    ("catalog", catalog),
    ("block", block),
    ("key", key),
    ("schema", schema),
    ("directory", directory),
    ("following", following),
];

const DIR: &str = "/fuzz";

/// Runs something as it is, and then with every checksum taken for right.
fn with_and_without_checksums(run: impl Fn()) {
    run();
    without(&CHECKSUMS, run);
}

fn one_file(name: &str, bytes: &[u8]) -> Directory {
    let disk = SimDisk::new(0);
    disk.put(Path::new(DIR).join(name), bytes);
    Directory::new(std::sync::Arc::new(disk), DIR.into())
}

/// A segment: its frames, their commits, and the claims behind their end.
pub fn segment(bytes: &[u8]) {
    with_and_without_checksums(|| {
        // What is read as a header counts as the whole length that it names.
        let dir = one_file(&name::segment(SegmentNo(1)), bytes);
        let Ok(mut segment) = SegmentReader::open(&dir, SegmentNo(1)) else { return };
        let mut place = segment.header.begin();
        let mut tail = TailBuilder::default();
        let ended = read_frames(&mut segment, &mut place, None, |frame, window| {
            // Records that are none end the reading as damage does.
            tail.add(frame.records, Some(window), frame.header.facts.commits)
                .map_err(|why| crate::Error::damaged(Path::new(DIR), frame.header.begin, why))
        });
        drop(ended);
        drop(tail.finish());
        drop(segment.look_behind(place.offset));
    });
}

/// A checkpoint file: its catalog, and every entry of every region.
pub fn checkpoint(bytes: &[u8]) {
    with_and_without_checksums(|| {
        let number = CheckpointNo(1);
        let Ok(header) = crate::format::checkpoint::CheckpointHeader::decode(
            bytes.get(..crate::format::checkpoint::HEADER_BYTES).unwrap_or_default(),
        ) else {
            return;
        };
        let dir = one_file(&name::checkpoint(number), bytes);
        let files = Files::new(dir, header.lineage);
        let Ok(catalog) = files.get(number).and_then(|file| file.catalog()) else { return };
        for region in catalog.regions.values() {
            let Ok(layers) = Layers::new(&files, Some(region), std::sync::Arc::new(Run::default()))
            else {
                continue;
            };
            drop(layers.divide(KeyRange::EVERYTHING));
            let layers = std::sync::Arc::new(layers);
            let Ok(mut walk) = LayerWalk::from(&layers, &[]) else { continue };
            let mut last: Option<Vec<u8>> = None;
            // It ends where it meets damage.
            let outcome = walk.walk_to(None, |key, _| {
                let ascends = last.as_deref().is_none_or(|last| last < key);
                assert!(ascends || layers.pieces.len() > 1, "keys ascend");
                last = Some(key.to_vec());
                Ok(())
            });
            drop(outcome);
        }
    });
}

/// A catalog, and the other small structures of the format.
pub fn catalog(bytes: &[u8]) {
    with_and_without_checksums(|| {
        if let Ok(catalog) = Catalog::decode(bytes) {
            let again = Catalog::decode(&catalog.encode());
            assert_eq!(again.as_ref(), Ok(&catalog));
        }
        LockSector::decode(bytes).ok();
        SegmentHeader::decode(bytes).ok();
    });
    let mut from = Reader::new(bytes);
    while let Ok(record) = Record::decode(&mut from) {
        let mut operations = Reader::new(record.operations);
        while let Ok(operation) = Operation::decode(&mut operations) {
            let mut encoded = Vec::new();
            operation.encode(&mut encoded);
            assert_eq!(Operation::decode(&mut Reader::new(&encoded)), Ok(operation));
            if operations.is_empty() {
                break;
            }
        }
        if from.is_empty() {
            break;
        }
    }
}

/// A block's envelope and what is in it, as entries and as an index.
pub fn block(bytes: &[u8]) {
    with_and_without_checksums(|| {
        let content = block::unwrap(bytes.to_vec(), Holds::Entries, 0, 0);
        for content in [content.as_deref().unwrap_or_default(), bytes] {
            let mut from = Reader::new(content);
            while let Ok(entry) = Entry::decode(&mut from) {
                let mut encoded = Vec::new();
                entry.encode(&mut encoded);
                assert_eq!(encoded.len(), entry.encoded_len());
                assert_eq!(Entry::decode(&mut Reader::new(&encoded)), Ok(entry));
                if from.is_empty() {
                    break;
                }
            }
            drop(index::decode(content));
        }
    });
}

/// Keys of every kind: what decodes encodes to the same bytes, and two of them are in the order of
/// their bytes.
pub fn key(bytes: &[u8]) {
    let (one, other) = bytes.split_at(bytes.len() / 2);
    keys_of::<u8>(one, other);
    keys_of::<u64>(one, other);
    keys_of::<i16>(one, other);
    keys_of::<i128>(one, other);
    keys_of::<bool>(one, other);
    keys_of::<char>(one, other);
    keys_of::<String>(one, other);
    keys_of::<Vec<u8>>(one, other);
    keys_of::<[u8; 3]>(one, other);
    keys_of::<[u8; 11]>(one, other);
    keys_of::<Option<String>>(one, other);
    keys_of::<Reverse<Vec<u8>>>(one, other);
    keys_of::<(String, Reverse<(u8, Option<Vec<u8>>)>, i32)>(one, other);
    keys_of::<((), Option<Option<()>>, Reverse<Reverse<String>>)>(one, other);
}

fn keys_of<K: Key>(one: &[u8], other: &[u8]) {
    let read = |bytes: &[u8]| {
        let mut from = KeyReader::new(bytes);
        let key = K::decode(&mut from).ok()?;
        let mut to = KeyWriter::new();
        key.encode(&mut to);
        assert!(bytes.starts_with(to.as_bytes()), "a key has one form");
        let behind = std::iter::from_fn(|| from.take_fixed::<1>().ok()).count();
        assert_eq!(to.as_bytes().len() + behind, bytes.len(), "and is read to its end");
        Some((key, to.as_bytes().to_vec()))
    };
    if let (Some((one, one_bytes)), Some((other, other_bytes))) = (read(one), read(other)) {
        assert_eq!(one.cmp(&other), one_bytes.cmp(&other_bytes), "bytes sort as keys do");
        assert_eq!(one.compare(&other), one.cmp(&other));
    }
}

/// A schema: what decodes encodes to the same bytes and can be shown.
pub fn schema(bytes: &[u8]) {
    if let Ok(schema) = Schema::decode(bytes) {
        assert_eq!(schema.encode(), bytes, "a schema has one form");
        drop(schema.to_string());
    }
}

/// A directory of whatever files: it boots, is read, gets a checkpoint, and boots again; or it is
/// refused.
///
/// The first byte says what the rest is: files by number and length, or places in the files of a real
/// store and what to put there.
pub fn directory(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let disk = if mode & 1 == 0 { arbitrary_files(rest) } else { patched(real_store(), rest) };
    let boot = |disk: &SimDisk| {
        let options = options(disk);
        drop(options.clone().read_only(true).open(DIR).map(|store| read(&store)));
        let Ok(store) = options.open(DIR) else { return };
        read(&store);
        // What cannot be merged is an error.
        drop(store.checkpoint());
        read(&store);
        drop(store);
        drop(options.open(DIR).map(|store| read(&store)));
    };
    boot(&disk.snapshot());
    without(&CHECKSUMS, || boot(&disk));
}

/// A store that is followed, and whose files are not as its writer left them the next time that they are read, and
/// are after that.
///
/// The first two bytes say between which of the writer's steps the store is followed; what comes after them are
/// places in the files and what to put there.
pub fn following(bytes: &[u8]) {
    let [from, to, patches @ ..] = bytes else { return };
    let steps = real_steps(|steps| {
        let nth = |at: &u8| usize::from(*at) % steps.len();
        let step = |at: usize| steps.get(at).map(SimDisk::snapshot);
        step(nth(from).min(nth(to))).zip(step(nth(from).max(nth(to))))
    });
    let Some((before, after)) = steps else { return };
    let follow = || {
        let disk = before.snapshot();
        let follower = options(&disk).read_only(true).open(DIR);
        let follower = follower.expect("what a writer leaves can be read");
        read(&follower);
        replace_files(&disk, &patched(after.snapshot(), patches));
        drop(follower.refresh());
        read(&follower);
        replace_files(&disk, &after);
        (follower.refresh(), read(&follower))
    };
    let booted = options(&after).read_only(true).open(DIR);
    let booted = booted.expect("what a writer leaves can be read");
    let (lsn, entries) = follow();
    let lsn = lsn.expect("damage that is gone is not told");
    // A boot goes on to what nobody has said yet to be synced: what came last.
    let later = booted.visible_lsn().get() - lsn.get();
    assert!(later <= u64::from(UNSYNCED), "{lsn} is long ago");
    assert!(lsn < booted.visible_lsn() || entries == read(&booted), "{entries} entries");
    drop(without(&CHECKSUMS, follow));
}

fn options(disk: &SimDisk) -> Options {
    Store::options().storage(disk.clone()).threads(false).boot_budget(Duration::from_secs(3600))
}

/// Reads whatever can be read; how many entries.
fn read(store: &Store) -> usize {
    let view = store.view();
    let mut entries = 0;
    for region in store.regions() {
        let map: Result<DurableMap<u32, String>, _> = store.durable_map(&region.name);
        if let Ok(map) = map {
            let read = map.iter(&view).take_while(Result::is_ok).count();
            drop(map.get(&view, &7));
            drop(map.last(&view));
            assert!(read <= map.len(&view).max(1 << 24), "an iteration ends");
            entries += read;
        }
    }
    entries
}

/// The commits of [`real_store`] that nobody has synced.
const UNSYNCED: u32 = 3;

const NAMES: [&str; 7] = [
    "LOCK",
    "log-0000000001.roc",
    "log-0000000002.roc",
    "checkpoint-0000000001.roc",
    "checkpoint-0000000002.roc",
    "log-spare.tmp",
    name::BEGUN,
];

/// Files, each behind its number and three bytes of length.
fn arbitrary_files(mut rest: &[u8]) -> SimDisk {
    let disk = SimDisk::new(0);
    while let Some((head, more)) = rest.split_first_chunk::<4>() {
        let [number, len @ ..] = *head;
        let len = u32::from_le_bytes([len[0], len[1], len[2], 0]);
        let (file, more) = more.split_at(more.len().min(crate::format::memory_len(u64::from(len))));
        let name = NAMES.get(usize::from(number) % NAMES.len()).unwrap_or(&"LOCK");
        disk.put(Path::new(DIR).join(name), file);
        rest = more;
    }
    disk
}

/// A real store with bytes replaced: the file's number, three bytes of place, how many, and they.
fn patched(disk: SimDisk, mut rest: &[u8]) -> SimDisk {
    let files = disk.files();
    while let Some((head, more)) = rest.split_first_chunk::<5>() {
        let [number, place @ .., count] = *head;
        let (written, more) = more.split_at(more.len().min(usize::from(count)));
        let path = files.get(usize::from(number) % files.len());
        if let Some((path, mut bytes)) = path.and_then(|path| Some((path, disk.contents(path)?))) {
            let at = u32::from_le_bytes([place[0], place[1], place[2], 0]);
            let at = crate::format::memory_len(u64::from(at)) % bytes.len().max(1);
            for (to, from) in bytes.iter_mut().skip(at).zip(written) {
                *to = *from;
            }
            if written.is_empty() {
                bytes.truncate(at);
            }
            disk.put(path, &bytes);
        }
        rest = more;
    }
    disk
}

/// Makes the files of a disk those of another, also for whoever has them open.
fn replace_files(disk: &SimDisk, others: &SimDisk) {
    let files = others.files();
    disk.files().iter().filter(|path| !files.contains(path)).for_each(|path| disk.take_away(path));
    for path in files {
        let bytes = others.contents(&path).unwrap_or_default();
        match disk.contents(&path) {
            None => disk.put(&path, &bytes),
            Some(now) if now == bytes => {}
            Some(_) => {
                let file = disk.open(&path, OpenMode::Write).expect("it is there");
                file.set_len(0).and_then(|()| file.write_at(&bytes, 0)).expect("it can be written");
            }
        }
    }
}

/// A store with two checkpoints, and two segments and one that has no name yet.
pub fn real_store() -> SimDisk {
    real_steps(|steps| steps.last().map(SimDisk::snapshot)).expect("a writer takes steps")
}

/// What a writer leaves on its way to [`real_store`].
fn real_steps<T>(see: impl FnOnce(&[SimDisk]) -> T) -> T {
    thread_local! {
        static REAL: Vec<SimDisk> = write_real_steps().expect("a simulated disk does not fail");
    }
    REAL.with(|steps| see(steps))
}

fn write_real_steps() -> Result<Vec<SimDisk>, crate::Error> {
    let disk = SimDisk::new(5);
    let mut steps = Vec::new();
    for from in [0, 30] {
        let store = options(&disk).open(DIR)?;
        let map: DurableMap<u32, String> = store.durable_map("a")?;
        let other: DurableMap<String, Option<u64>> = store.durable_map("b")?;
        for n in from..from + 40 {
            store.transact(|tx| {
                map.insert(tx, n, format!("value {n}"))?;
                other.insert(tx, format!("{}", n % 7), Some(u64::from(n)))
            })?;
            if n % 16 == 9 {
                store.checkpoint()?;
            }
            if n % 8 == 1 {
                steps.push(disk.snapshot());
            }
        }
        store.transact(|tx| map.remove(tx, &from))?;
        store.tend()?;
        steps.push(disk.snapshot());
    }
    let store = options(&disk).durability(Durability::Process).open(DIR)?;
    let map: DurableMap<u32, String> = store.durable_map("a")?;
    for n in 0..UNSYNCED {
        store.transact(|tx| map.put(tx, n, "x".repeat(100_000)))?;
    }
    drop(store);
    steps.push(disk);
    Ok(steps)
}

/// Encoded schemas of a map and of a cell of types with everything in them.
pub fn real_schemas() -> [Vec<u8>; 2] {
    use serde::{Deserialize, Serialize};
    #[derive(Clone, Serialize, Deserialize)]
    enum Node {
        Leaf,
        Pair(Box<Node>, Box<Node>),
        Named { name: Option<String>, bytes: Vec<u8>, at: (f32, i128, char) },
    }
    let map = crate::region::declare_map::<(String, Reverse<u64>), Node>();
    let cell = crate::region::declare_cell::<std::collections::BTreeMap<String, [Node; 2]>>();
    [map, cell]
        .map(|declared| declared.map(|declared| declared.encoded.clone()).unwrap_or_default())
}
