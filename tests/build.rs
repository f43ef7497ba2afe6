//! A store that a tool makes of entries is there whole, or is refused, whenever the power goes.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rocstate::format::RegionNo;
use rocstate::inspect::{Builder, Inspector, Walked};
use rocstate::sim::{CrashTest, SimDisk};
use rocstate::{Compression, DurableMap, ErrorKind, Lsn, Store};

const DIR: &str = "/made";

type Entries = BTreeMap<u32, String>;
type Encoded = Vec<(Vec<u8>, Vec<u8>)>;

fn entries() -> Entries {
    (0..900)
        .map(|key| (key * 3, format!("value {key} {}", "x".repeat(key as usize % 70))))
        .collect()
}

/// The schema of the map, and its entries, as a store keeps them.
fn encoded() -> (Vec<u8>, Encoded) {
    let disk = SimDisk::new(3);
    let store = Store::options().storage(disk.clone()).threads(false).open("/model").unwrap();
    let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
    store
        .transact(|tx| {
            for (key, value) in entries() {
                map.insert(tx, key, value)?;
            }
            Ok(())
        })
        .unwrap();
    let inspector = Inspector::over(Arc::new(disk), Path::new("/model")).unwrap();
    let snapshot = inspector.snapshot(None).unwrap();
    let mut found = Vec::new();
    snapshot.regions[0]
        .walk(&[], None, |walked| {
            let Walked::Entry { key, value } = walked else { panic!("{walked:?}") };
            found.push((key.to_vec(), value.to_vec()));
            Ok(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
    (snapshot.regions[0].schema.clone(), found)
}

fn build(disk: &SimDisk, compression: Compression) -> rocstate::Result<()> {
    let (schema, entries) = encoded();
    let mut builder =
        Builder::over(Arc::new(disk.clone()), Path::new(DIR), Lsn::new(41), compression)?;
    builder.keep_region_numbers(RegionNo(9));
    builder.region(RegionNo(5), "map", &schema)?;
    for (key, value) in entries {
        builder.push(&key, &value)?;
    }
    builder.finish().map(drop)
}

#[test]
fn what_a_tool_makes_is_there_whole_or_refused_whenever_the_power_goes() {
    for (seed, compression) in [(7, Compression::None), (8, Compression::Zstd(1))] {
        let summary = CrashTest::new(seed)
            .run(
                |disk, notes| {
                    build(disk, compression)?;
                    notes.note(());
                    Ok(())
                },
                |disk, crash| {
                    let options =
                        Store::options().storage(disk.clone()).threads(false).create(false);
                    let store = match options.open(DIR) {
                        Ok(store) => store,
                        Err(error) => {
                            assert!(crash.noted().is_empty(), "it was made: {error}");
                            let kinds = [ErrorKind::Damaged, ErrorKind::NotFound];
                            assert!(kinds.contains(&error.kind()), "{error}");
                            return Ok(false);
                        }
                    };
                    let healed = &store.boot_report().healed;
                    // A boot that was cut short may have torn LOCK; it was there before.
                    let torn = |note: &String| note.contains("LOCK was invalid (its checksum");
                    assert!(healed.iter().all(torn), "{healed:?}");
                    // What opens is all of it: never an empty store in its place.
                    let map: DurableMap<u32, String> = store.durable_map("map")?;
                    let view = store.view();
                    let found: rocstate::Result<Entries> =
                        map.iter(&view).map(|entry| entry.map(|(k, v)| (*k, v.clone()))).collect();
                    assert_eq!(found?, entries());
                    assert!(store.visible_lsn() >= Lsn::new(41));
                    store.transact(|tx| map.insert(tx, 0, entries()[&0].clone()))?;
                    Ok(true)
                },
            )
            .unwrap();
        println!("{summary}");
        assert!(summary.images > 30, "{summary}");
    }
}

#[test]
fn a_builder_refuses_what_a_store_could_not_hold() {
    let disk = SimDisk::new(5);
    let (schema, entries) = encoded();
    let storage = Arc::new(disk.clone());
    let begin = || Builder::over(storage.clone(), Path::new(DIR), Lsn::ZERO, Compression::None);
    let mut builder = begin().unwrap();
    let kind = |result: rocstate::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(builder.push(b"key", b"value")), ErrorKind::Invalid);
    assert_eq!(kind(builder.region(RegionNo(0), "map", &schema)), ErrorKind::Invalid);
    assert_eq!(kind(builder.region(RegionNo(u64::MAX), "map", &schema)), ErrorKind::Invalid);
    assert_eq!(kind(builder.region(RegionNo(1), "", &schema)), ErrorKind::Invalid);
    assert_eq!(kind(builder.region(RegionNo(1), "map", b"no schema")), ErrorKind::Invalid);
    builder.region(RegionNo(1), "map", &schema).unwrap();
    let (key, value) = &entries[3];
    builder.push(key, value).unwrap();
    assert_eq!(kind(builder.push(key, value)), ErrorKind::Invalid);
    assert_eq!(kind(builder.push(&entries[2].0, value)), ErrorKind::Invalid);
    assert_eq!(kind(builder.push(&vec![0xff; 65 << 10], value)), ErrorKind::TooLarge);
    assert_eq!(kind(builder.region(RegionNo(1), "other", &schema)), ErrorKind::Invalid);
    assert_eq!(kind(builder.region(RegionNo(2), "map", &schema)), ErrorKind::Invalid);
    // The place is taken, while it is made and afterwards.
    assert_eq!(begin().unwrap_err().kind(), ErrorKind::Invalid);
    builder.finish().unwrap();
    assert_eq!(begin().unwrap_err().kind(), ErrorKind::Invalid);
}
