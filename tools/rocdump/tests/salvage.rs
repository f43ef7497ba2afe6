//! What `salvage` takes is good, and the rest is named.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{files, idle, rocdump, text};
use rocdump::Exit;
use rocstate::{DurableCell, DurableMap, Store};

type Map = DurableMap<u32, String>;

/// A store of one checkpoint whose base has many blocks, and nothing to heal it from.
fn many_blocks(path: &Path) -> BTreeMap<u32, String> {
    let options = Store::options().keep_checkpoints(1).segment_bytes(64 << 10);
    let mut entries = BTreeMap::new();
    for boot in 0..2 {
        let store = options.open(path).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        store
            .transact(|tx| {
                for key in 0..4000u32 {
                    let value = format!("value {key} {}", "x".repeat(key as usize % 50));
                    if boot == 0 {
                        map.insert(tx, key, value.clone())?;
                        entries.insert(key, value);
                    }
                }
                map.insert(tx, 9000 + boot, "end".to_owned())
            })
            .unwrap();
        entries.insert(9000 + boot, "end".to_owned());
        store.checkpoint().unwrap();
        drop(store);
    }
    let store = options.open(path).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    // Newer than the checkpoint, and so to be saved whatever becomes of it.
    store
        .transact(|tx| {
            for key in (0..4000u32).step_by(100) {
                map.insert(tx, key, "new".to_owned())?;
            }
            Ok(())
        })
        .unwrap();
    entries.extend((0..4000).step_by(100).map(|key| (key, "new".to_owned())));
    idle();
    entries
}

fn read_map(path: &Path) -> BTreeMap<u32, String> {
    let store = Store::open(path).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    let view = store.view();
    map.iter(&view).map(|entry| entry.map(|(k, v)| (*k, v.clone())).unwrap()).collect()
}

/// Every place of a file that holds the beginning of a block is damaged in turn.
#[test]
fn salvage_loses_the_entries_of_a_damaged_block_and_nothing_else_and_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let entries = many_blocks(dir.path());
    let path = text(dir.path());
    rocdump(&["verify", path]).expect(Exit::Fine);
    let image = files(dir.path());
    let checkpoints =
        image.iter().filter(|(path, _)| path.to_str().unwrap().contains("checkpoint-"));
    let (file, bytes) = checkpoints.max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let mut lost_something = 0;
    for at in (5000..bytes.len() - 3000).step_by(9001) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        fs::write(file, &damaged).unwrap();
        let to = out.path().join(format!("at {at}"));
        let dry = rocdump(&["salvage", path, text(&to), "--dry-run"]);
        assert!(!to.exists());
        let ran = rocdump(&["salvage", path, text(&to)]);
        assert_eq!(ran.exit, dry.exit, "{}", dry.out);
        let saved = read_map(&to);
        let gone: Vec<u32> = entries
            .iter()
            .filter(|(key, value)| saved.get(key) != Some(value))
            .map(|(key, _)| *key)
            .collect();
        assert!(saved.iter().all(|(key, value)| entries.get(key) == Some(value)), "byte {at}");
        if gone.is_empty() {
            // An index block: the entries are found without it.
            continue;
        }
        lost_something += 1;
        assert_eq!(ran.exit, Exit::Lost, "byte {at}: {}", ran.out);
        // About a block: sixteen KiB of entries of forty bytes.
        assert!(gone.len() < 500, "byte {at}: {} entries are gone", gone.len());
        let named = ran.out.lines().find(|line| line.contains("lost: up to")).unwrap();
        let numbers: Vec<u64> =
            named.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
        // "lost: up to N entries of map from A to before B: .."
        let (count, from, to) = (numbers[0], numbers[1], numbers[2]);
        assert!(gone.iter().all(|key| (from..to).contains(&u64::from(*key))), "{named}: {gone:?}");
        let kept_new = (from..to).filter(|key| key % 100 == 0).count() as u64;
        assert_eq!(gone.len() as u64 + kept_new, count, "{named}");
        // Reading it says the same.
        let scanned = rocdump(&["--json", "scan", path, "map"]);
        assert_eq!(scanned.exit, Exit::Lost);
        assert_eq!(scanned.lines().len() - 1, saved.len());
        assert!(scanned.errors.contains("lost: up to"));
        let got = rocdump(&["get", path, "map", &gone[0].to_string()]);
        assert_eq!(got.exit, Exit::Lost, "{}", got.errors);
    }
    assert!(lost_something > 3);
}

/// The entries of a section whose index is damaged are all still there.
#[test]
fn salvage_finds_entries_without_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let entries = many_blocks(dir.path());
    let path = text(dir.path());
    let all = rocdump(&["--json", "checkpoint", path]).json();
    let newest = all["checkpoints"].as_array().unwrap().last().unwrap().clone();
    let detail =
        rocdump(&["--json", "checkpoint", path, newest["number"].as_str().unwrap()]).json();
    let out = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for piece in detail["regions"][0]["pieces"].as_array().unwrap() {
        let Some(top) = piece["index_offset"].as_u64() else { continue };
        let name = format!("checkpoint-{:0>10}.roc", piece["file"].as_str().unwrap());
        let file = dir.path().join(name);
        let image = fs::read(&file).unwrap();
        // The top, and the block of the lower index before it.
        for at in [top + 20, top - 5] {
            let mut bytes = image.clone();
            bytes[usize::try_from(at).unwrap()] ^= 2;
            fs::write(&file, &bytes).unwrap();
            let to = out.path().join(format!("{tried}"));
            let ran = rocdump(&["salvage", path, text(&to)]).expect(Exit::Repairable);
            assert!(ran.out.contains("found without their index"), "{}", ran.out);
            assert_eq!(read_map(&to), entries);
            // A program could not read them.
            rocdump(&["verify", path]).expect(Exit::Lost);
            tried += 1;
        }
        fs::write(&file, &image).unwrap();
    }
    assert!(tried >= 4, "{detail}");
}

/// Changes that lie over the base are damaged: what the base holds under them may be stale.
#[test]
fn salvage_never_takes_a_stale_value_for_a_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let options = Store::options().keep_checkpoints(1).segment_bytes(64 << 10);
    let mut entries = BTreeMap::new();
    for round in 0..2u32 {
        let store = options.open(dir.path()).unwrap();
        let map: Map = store.durable_map("map").unwrap();
        store
            .transact(|tx| {
                // Few and far between, so that they are not merged into the base.
                for key in (0..6000u32).step_by(if round == 0 { 1 } else { 601 }) {
                    let value = format!("{round}: value {key} {}", "x".repeat(40));
                    map.insert(tx, key, value.clone())?;
                    entries.insert(key, value);
                }
                Ok(())
            })
            .unwrap();
        store.checkpoint().unwrap();
        idle();
    }
    // Another checkpoint and boot, so that the log that could heal it is gone.
    for _ in 0..2 {
        let store = options.open(dir.path()).unwrap();
        let other: DurableCell<u8> = store.durable_cell("other").unwrap();
        store.transact(|tx| other.set(tx, 1)).unwrap();
        store.checkpoint().unwrap();
    }
    let path = text(dir.path());
    let all = rocdump(&["--json", "checkpoint", path]).json();
    let newest = all["checkpoints"].as_array().unwrap().last().unwrap().clone();
    let number = newest["number"].as_str().unwrap();
    let detail = rocdump(&["--json", "checkpoint", path, number]).expect(Exit::Fine).json();
    let delta = &detail["regions"][0]["deltas"][0];
    let name = format!("checkpoint-{:0>10}.roc", delta["file"].as_str().unwrap());
    let field = |name: &str| usize::try_from(delta[name].as_u64().unwrap()).unwrap();
    let file = dir.path().join(name);
    let mut bytes = fs::read(&file).unwrap();
    bytes[field("index_offset") + field("index_bytes") - field("bytes") + 40] ^= 1;
    fs::write(&file, &bytes).unwrap();
    let out = tempfile::tempdir().unwrap();
    let strict = out.path().join("strict");
    let ran = rocdump(&["salvage", path, text(&strict)]).expect(Exit::Lost);
    let saved = read_map(&strict);
    assert!(saved.iter().all(|(key, value)| entries.get(key) == Some(value)));
    let named = ran.out.lines().filter(|line| line.contains("left out: ")).count();
    assert_eq!(saved.len() + named, entries.len());
    let loose = out.path().join("loose");
    rocdump(&["salvage", path, text(&loose), "--unproven"]).expect(Exit::Lost);
    let stale: Vec<u32> = read_map(&loose)
        .iter()
        .filter(|(key, value)| entries.get(key) != Some(value))
        .map(|(key, _)| *key)
        .collect();
    assert_eq!(stale, (0..6000).step_by(601).collect::<Vec<u32>>());
}
