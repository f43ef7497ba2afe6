//! P5: what is healed from what, and what is said of what is not. The sweeps over every kind of damage
//! are in `sweep.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{FaultyDisk, files, image, restore};
use rocstate::{DurableCell, DurableMap, Error, ErrorKind, Store, Transaction, Warming};

type Content = (BTreeMap<u32, String>, BTreeMap<String, u64>, Option<u64>);

/// Opens a store and reads everything.
fn read(path: &Path) -> Result<(Content, Vec<String>), Error> {
    let store = Store::options().create(false).open(path)?;
    let a: DurableMap<u32, String> = store.durable_map("a")?;
    let b: DurableMap<String, u64> = store.durable_map("b")?;
    let c: DurableCell<u64> = store.durable_cell("c")?;
    let view = store.view();
    let a = a.iter(&view).map(|e| e.map(|(k, v)| (*k, v.clone()))).collect::<Result<_, _>>()?;
    let b = b.iter(&view).map(|e| e.map(|(k, v)| (k.clone(), *v))).collect::<Result<_, _>>()?;
    let c = c.get(&view)?.copied();
    Ok(((a, b, c), store.boot_report().healed.clone()))
}

fn write(store: &Store, from: u32, to: u32) {
    let a: DurableMap<u32, String> = store.durable_map("a").unwrap();
    let b: DurableMap<String, u64> = store.durable_map("b").unwrap();
    let c: DurableCell<u64> = store.durable_cell("c").unwrap();
    for n in from..to {
        store
            .transact(|tx| {
                a.insert(tx, n % 60, format!("value {n} {}", "x".repeat(n as usize % 90)))?;
                b.upsert(tx, format!("key {}", n % 17), || 0, |count| *count += u64::from(n))?;
                if n % 13 == 0 {
                    a.remove(tx, &(n % 31))?;
                }
                c.set(tx, u64::from(n))
            })
            .unwrap();
    }
}

/// A store of some shape, idle long enough that its last commit has a witness.
struct Subject {
    dir: tempfile::TempDir,
    image: Vec<(PathBuf, Vec<u8>)>,
    content: Content,
}

impl Subject {
    fn new(make: impl FnOnce(&Path)) -> Subject {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path());
        let image = image(dir.path());
        let (content, healed) = read(dir.path()).unwrap();
        assert!(healed.is_empty());
        assert!(!content.0.is_empty());
        restore(dir.path(), &image);
        Subject { dir, image, content }
    }

    fn with(&self, change: impl FnOnce(&Path)) {
        restore(self.dir.path(), &self.image);
        change(self.dir.path());
    }
}

fn idle() {
    std::thread::sleep(Duration::from_millis(700));
}

fn one_segment(path: &Path) {
    let store = Store::open(path).unwrap();
    write(&store, 0, 20);
    idle();
}

fn many_segments(path: &Path) {
    for n in 0..3 {
        let store = Store::options().segment_bytes(64 << 10).open(path).unwrap();
        write(&store, n * 40, n * 40 + 40);
        idle();
    }
}

fn checkpoint_and_reopened(path: &Path) {
    let store = Store::open(path).unwrap();
    write(&store, 0, 100);
    store.checkpoint().unwrap();
    write(&store, 100, 130);
    drop(store);
    let store = Store::open(path).unwrap();
    write(&store, 130, 150);
    store.checkpoint().unwrap();
    idle();
}

#[test]
fn a_damaged_newest_checkpoint_is_healed_from_the_older_one_and_reported() {
    let subject = Subject::new(checkpoint_and_reopened);
    let newest = files(subject.dir.path(), "checkpoint-").pop().unwrap();
    subject.with(|_| {
        let mut bytes = std::fs::read(&newest).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        std::fs::write(&newest, bytes).unwrap();
    });
    let store = Store::open(subject.dir.path()).unwrap();
    let healed = &store.boot_report().healed;
    assert_eq!(healed.len(), 1, "{healed:?}");
    assert!(healed[0].contains(newest.file_name().unwrap().to_str().unwrap()), "{healed:?}");
    // A new checkpoint replaces it soon, and then nothing is left to heal.
    common::eventually("the new checkpoint", || store.stats().checkpoints_taken > 0);
    drop(store);
    let (content, healed) = read(subject.dir.path()).unwrap();
    assert_eq!(content, subject.content);
    assert!(healed.is_empty(), "{healed:?}");
}

#[test]
fn damage_names_the_commits_at_stake() {
    let subject = Subject::new(one_segment);
    let segment = files(subject.dir.path(), "log-").pop().unwrap();
    subject.with(|_| {
        let mut bytes = std::fs::read(&segment).unwrap();
        // The frame of the first commit.
        bytes[4096 + 60] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
    });
    let error = read(subject.dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.path(), Some(segment.as_path()));
    assert_eq!(error.offset(), Some(4096));
    assert_eq!(error.lsn().map(rocstate::Lsn::get), Some(1));
    assert_eq!(error.commits_at_stake(), Some(20));
}

#[test]
fn a_torn_tail_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    write(&store, 0, 10);
    idle();
    let expected = store.visible_lsn();
    drop(store);
    // What a crash leaves of a write: part of a frame behind the last one.
    let segment = files(dir.path(), "log-").pop().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() / 4096 * 4096 + 4096;
    let torn = 700 + end as u64 - last_frame_end(&bytes, end);
    bytes[end..end + 700].fill(0xab);
    std::fs::write(&segment, bytes).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.boot_report().torn_bytes, torn);
    assert_eq!(store.boot_report().last_run, rocstate::LastRun::Torn);
    assert_eq!(store.visible_lsn(), expected);
    assert!(store.boot_report().healed.is_empty());
}

/// Torn bytes are counted from where the last frame ends.
fn last_frame_end(bytes: &[u8], end: usize) -> u64 {
    let mut at = 4096;
    let mut last = 4096;
    while at < end {
        let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap()) as usize;
        if len == 0 {
            at = at / 4096 * 4096 + 4096;
            continue;
        }
        last = at + len;
        at = last;
    }
    last as u64
}

#[test]
fn a_lost_lock_file_is_written_again_and_reported() {
    let subject = Subject::new(many_segments);
    subject.with(|dir| std::fs::remove_file(dir.join("LOCK")).unwrap());
    let (content, healed) = read(subject.dir.path()).unwrap();
    assert_eq!(content, subject.content);
    assert_eq!(healed.len(), 1);
    let (_, healed) = read(subject.dir.path()).unwrap();
    assert!(healed.is_empty());
}

#[test]
fn the_loss_of_the_newest_segment_is_seen() {
    let subject = Subject::new(many_segments);
    let newest = files(subject.dir.path(), "log-").pop().unwrap();
    subject.with(|_| std::fs::remove_file(&newest).unwrap());
    let error = read(subject.dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.path(), Some(newest.as_path()));
}

#[test]
fn refusing_changes_nothing() {
    let subject = Subject::new(many_segments);
    let segment = files(subject.dir.path(), "log-").remove(0);
    subject.with(|_| {
        let mut bytes = std::fs::read(&segment).unwrap();
        bytes[4096 + 60] ^= 1;
        std::fs::write(&segment, bytes).unwrap();
    });
    let before = image(subject.dir.path());
    assert!(read(subject.dir.path()).is_err());
    assert!(image(subject.dir.path()) == before, "a refused boot has changed a file");
}

/// Flips a bit in the first section block of a checkpoint, which is one of region `a`.
fn damage_first_block(checkpoint: &Path) {
    let mut bytes = std::fs::read(checkpoint).unwrap();
    bytes[64 + 40] ^= 1;
    std::fs::write(checkpoint, bytes).unwrap();
}

#[test]
fn a_damaged_section_is_healed_on_first_touch_and_written_anew() {
    let subject = Subject::new(checkpoint_and_reopened);
    let newest = files(subject.dir.path(), "checkpoint-").pop().unwrap();
    for touch_first in [true, false] {
        subject.with(|_| damage_first_block(&newest));
        let store = Store::open(subject.dir.path()).unwrap();
        let a: DurableMap<u32, String> = store.durable_map("a").unwrap();
        if touch_first {
            assert_eq!(a.iter(&store.view()).flatten().count(), subject.content.0.len());
            let healed = store.stats().healed;
            assert_eq!(healed.len(), 1);
            assert!(
                healed[0].contains(newest.file_name().unwrap().to_str().unwrap()),
                "{healed:?}"
            );
        }
        // The next checkpoint that merges it depends on nothing that was damaged.
        let value = subject.content.0.get(&1).unwrap().clone();
        store.transact(|tx| a.insert(tx, 1, value)).unwrap();
        store.checkpoint().unwrap();
        let other: DurableMap<u32, u32> = store.durable_map("other").unwrap();
        store.transact(|tx| other.insert(tx, 1, 1)).unwrap();
        store.checkpoint().unwrap();
        assert!(!newest.exists());
        drop((store, a));
        let store = Store::open(subject.dir.path()).unwrap();
        assert!(store.boot_report().healed.is_empty());
        drop(store);
        let (content, _) = read(subject.dir.path()).unwrap();
        assert_eq!(content, subject.content);
    }
}

#[test]
fn a_bad_sector_holds_back_neither_checkpoints_nor_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let fill = |store: &Store, map: &DurableMap<u64, Vec<u8>>, mut keys: Range<u64>, with: u8| {
        let put = |key, tx: &mut Transaction| map.put(tx, key, vec![with; 5000]).map(drop);
        store.transact(|tx| keys.try_for_each(|key| put(key, tx))).unwrap();
        store.checkpoint().unwrap()
    };
    let store = Store::open(dir.path()).unwrap();
    fill(&store, &store.durable_map("map").unwrap(), 0..400, 0);
    drop(store);
    let disk = FaultyDisk::default();
    let options = Store::options().warming(Warming::OnDemand).segment_bytes(64 << 10);
    let options = options.storage(disk.clone());
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("map").unwrap();
    let base = files(dir.path(), "checkpoint-").pop().unwrap();
    *disk.0.unreadable.lock().unwrap() = Some((base.clone(), 1_000_000..1_000_512));
    let failing = (0..400).find(|key| map.get(&store.view(), key).is_err()).unwrap();
    // All but what shares a block with it is replaced, again and again.
    let around = failing.saturating_sub(8)..failing + 8;
    for round in 1..=20 {
        fill(&store, &map, 0..around.start, round);
        let lsn = fill(&store, &map, around.end..400, round);
        let stats = store.stats();
        assert_eq!((stats.checkpoint_lsn, stats.tail_operations), (lsn, 0));
        let error = map.get(&store.view(), &failing).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
    let told = store.stats().checkpoint_error.unwrap();
    assert_eq!((told.kind(), told.path()), (ErrorKind::Io, Some(base.as_path())));
    // What can be read is merged, so that little more is kept than the state, of two megabytes.
    let kept = image(dir.path()).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    assert!(kept < 16 << 20, "{kept} bytes are kept");
    // It can be read after all: by this process, by its next checkpoint, by the next process.
    *disk.0.unreadable.lock().unwrap() = None;
    let check = |store: &Store, map: &DurableMap<u64, Vec<u8>>| {
        for key in 0..400 {
            let with = if around.contains(&key) { 0 } else { 20 };
            assert_eq!(map.get(&store.view(), &key).unwrap(), Some(&vec![with; 5000]), "{key}");
        }
    };
    check(&store, &map);
    fill(&store, &map, 0..1, 20);
    assert!(store.stats().checkpoint_error.is_none());
    drop((store, map));
    let store = options.open(dir.path()).unwrap();
    check(&store, &store.durable_map("map").unwrap());
}

#[test]
fn damage_without_redundancy_refuses_its_region_and_holds_nothing_else_back() {
    let subject = Subject::new(checkpoint_and_reopened);
    subject.with(|dir| files(dir, "checkpoint-").iter().for_each(|file| damage_first_block(file)));
    let store = Store::open(subject.dir.path()).unwrap();
    let a: DurableMap<u32, String> = store.durable_map("a").unwrap();
    let b: DurableMap<String, u64> = store.durable_map("b").unwrap();
    let error = a.get(&store.view(), &1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!((error.region(), error.offset()), (Some("a"), Some(64)));
    assert_eq!(b.len(&store.view()), subject.content.1.len());
    for n in 0..4u64 {
        store.transact(|tx| b.insert(tx, "more".into(), n)).unwrap();
        assert!(store.transact(|tx| a.insert(tx, 1, "no".into())).is_err());
        let lsn = store.checkpoint().unwrap();
        assert_eq!(store.stats().checkpoint_lsn, lsn);
    }
    drop((store, a, b));
    let store = Store::open(subject.dir.path()).unwrap();
    let b: DurableMap<String, u64> = store.durable_map("b").unwrap();
    assert_eq!(b.get(&store.view(), "more").unwrap(), Some(&3));
}
