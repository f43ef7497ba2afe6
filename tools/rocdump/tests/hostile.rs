//! P11: no content of a store makes the tool panic, loop or take memory without bound, also where every
//! checksum is right.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::settings::{seeded, setting};
use common::{rocdump, text};
use fastrand::Rng;
use rocdump::Exit;
use rocstate::format::RegionNo;
use rocstate::format::shape::Schema;
use rocstate::inspect::Builder;
use rocstate::{Compression, Lsn};

/// Verbs that decode everything.
fn read_all(path: &Path, took_at_most: Duration) {
    let path = text(path);
    let began = Instant::now();
    for verb in [
        &["info", path][..],
        &["regions", path],
        &["schema", path],
        &["scan", path, "r"],
        &["--json", "scan", path, "r"],
        &["get", path, "r", "hex:00"],
        &["export", path],
        &["checkpoint", path, "1"],
        &["verify", path],
        &["stats", path],
        &["timeline", path],
        &["diff", path, "end", "end"],
    ] {
        let ran = rocdump(verb);
        assert_ne!(ran.exit, Exit::Io, "{verb:?}: {}", ran.errors);
    }
    assert!(began.elapsed() < took_at_most, "{:?}", began.elapsed());
}

/// A store whose one region has this schema, if it is one, and these values under ascending keys.
fn store(path: &Path, schema: &[u8], values: &[Vec<u8>]) -> bool {
    let mut builder = Builder::create(path, Lsn::ZERO, Compression::None).unwrap();
    if builder.region(RegionNo(1), "r", schema).is_err() {
        return false;
    }
    for (key, value) in (0u32..).zip(values) {
        builder.push(&key.to_be_bytes(), value).unwrap();
    }
    builder.finish().unwrap();
    true
}

#[cfg(target_os = "linux")]
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Map, `u32` keys, then a shape and types.
fn schema(root: &[u8], types: &[&[u8]]) -> Vec<u8> {
    let mut schema = vec![0, 3, 4, 1];
    schema.extend_from_slice(root);
    schema.extend(varint(types.len() as u64));
    for one in types {
        schema.extend_from_slice(one);
    }
    schema
}

#[test]
fn shapes_and_values_that_are_bombs_are_only_undecodable() {
    let huge = varint(1 << 60);
    let endless = vec![1u8; 60_000];
    // A type that wraps itself; a list of nothing; a nest of lists; an enum that nests for ever.
    let array_of_nothing = [&[36u8][..], &huge, &[0]].concat();
    let many_parts = [&[35u8][..], &varint(20_000), &vec![0; 20_000]].concat();
    let nested_arrays: Vec<u8> =
        std::iter::repeat_n([36u8, 0xff, 0x7f], 40).flatten().chain([0]).collect();
    let bombs: Vec<(Vec<u8>, Vec<Vec<u8>>)> = vec![
        (schema(&[37, 1, b'A'], &[&[1, b'A', 1, 37, 1, b'A']]), vec![vec![], vec![1, 2, 3]]),
        (schema(&[33, 0], &[]), vec![huge.clone(), varint(1 << 20), vec![3]]),
        (schema(&[34, 0, 0], &[]), vec![huge.clone(), vec![0]]),
        (schema(&array_of_nothing, &[]), vec![vec![]]),
        (schema(&many_parts, &[]), vec![vec![]]),
        (schema(&nested_arrays, &[]), vec![vec![]]),
        (schema(&[37, 1, b'B'], &[]), vec![vec![1]]),
        (
            // enum E { 0: Leaf, 1: One(E) }
            schema(&[37, 1, b'E'], &[&[1, b'E', 4, 2, 0, 1, b'l', 0, 1, 1, b'o', 1, 37, 1, b'E']]),
            vec![vec![0], endless.clone(), vec![1, 1, 0], vec![2], vec![]],
        ),
        (
            // enum E { 0: an enum itself }
            schema(&[37, 1, b'E'], &[&[1, b'E', 4, 1, 0, 1, b'l', 4, 0]]),
            vec![vec![0], vec![1]],
        ),
        (schema(&[32, 37, 1, b'A'], &[&[1, b'A', 1, 37, 1, b'A']]), vec![vec![0], vec![1]]),
        (schema(&[15], &[]), vec![huge.clone(), vec![2, 0xff, 0xff], vec![]]),
        (schema(&[16], &[]), vec![huge.clone()]),
        (schema(&[14], &[]), vec![vec![4, 0xff, 0xff, 0xff, 0xff], vec![0]]),
        (schema(&[1], &[]), vec![vec![7]]),
        // Keys of strange widths, and of a length that nobody has.
        (vec![0, 3, 200, 0], vec![vec![1]]),
        (vec![0, 4, 3, 0], vec![vec![1]]),
        (vec![0, 4, 0, 0], vec![vec![1]]),
        ([&[0, 7][..], &huge, &[0]].concat(), vec![vec![1]]),
        ([&[0][..], &[8; 60], &[0, 0]].concat(), vec![vec![1]]),
        ([&[0][..], &[9; 60], &[5, 0]].concat(), vec![vec![1]]),
    ];
    for (schema, values) in bombs {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(store(&path, &schema, &values), "{:02x?}", &schema[..schema.len().min(40)]);
        read_all(&path, Duration::from_secs(20));
    }
    #[cfg(target_os = "linux")]
    assert!(peak_bytes() < 600 << 20, "{} MiB", peak_bytes() >> 20);
}

#[test]
fn any_schema_over_any_bytes_is_shown_somehow() {
    let runs = setting("ROCSTATE_HOSTILE", 150);
    let mut random = Rng::with_seed(seeded(77));
    let seeds: Vec<Vec<u8>> = vec![
        schema(&[37, 1, b'T'], &[&[1, b'T', 3, 3, 1, b'a', 10, 1, b'b', 33, 15, 1, b'c', 32, 13]]),
        schema(&[35, 3, 10, 34, 15, 5, 36, 4, 7], &[]),
        schema(
            &[37, 1, b'E'],
            &[&[1, b'E', 4, 3, 0, 1, b'x', 0, 1, 1, b'y', 1, 9, 2, 1, b'z', 2, 2, 5, 15]],
        ),
        vec![0, 10, 3, 5, 4, 8, 9, 6, 0],
        vec![1, 0, 1, 10, 0],
    ];
    let mut made = 0;
    for _ in 0..runs {
        let mut schema = seeds[random.usize(..seeds.len())].clone();
        for _ in 0..random.usize(..3) {
            let at = random.usize(..schema.len());
            match random.u8(..3) {
                0 => schema[at] = random.u8(..40),
                1 => schema.insert(at, random.u8(..40)),
                _ => {
                    schema.remove(at);
                }
            }
        }
        let value = |random: &mut Rng| -> Vec<u8> {
            let small = random.bool();
            (0..random.usize(..40))
                .map(|_| if small { random.u8(..4) } else { random.u8(..) })
                .collect()
        };
        let values: Vec<Vec<u8>> = (0..12).map(|_| value(&mut random)).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        if Schema::decode(&schema).is_ok() && store(&path, &schema, &values) {
            read_all(&path, Duration::from_secs(10));
            // What was exported comes back, whatever it is.
            let exported = rocdump(&["export", text(&path)]).expect(Exit::Fine).out;
            let file = dir.path().join("export");
            std::fs::write(&file, exported).unwrap();
            let copy = dir.path().join("copy");
            rocdump(&["import", text(&copy), text(&file)]).expect(Exit::Fine);
            rocdump(&["diff", text(&path), "end", "--with", text(&copy)]).expect(Exit::Fine);
            made += 1;
        }
    }
    assert!(made > runs / 5, "only {made} of {runs} were schemas");
}

/// Numbers that no store gets to.
#[test]
fn the_last_commits_that_can_be_numbered_are_shown() {
    for lsn in [u64::MAX, u64::MAX - 1, u64::MAX - 5, 1 << 63] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let mut builder = Builder::create(&path, Lsn::new(lsn), Compression::None).unwrap();
        builder.region(RegionNo(u64::MAX - 1), "r", &schema(&[10], &[])).unwrap();
        builder.push(&[0, 0, 0, 1], &[5]).unwrap();
        builder.finish().unwrap();
        read_all(&path, Duration::from_secs(20));
        let path = text(&path);
        rocdump(&["log", path, "--from", &lsn.to_string(), "--follow", "--idle", "0"]);
        rocdump(&["show", path, &lsn.to_string()]);
        let shown = rocdump(&["--json", "scan", path, "r"]).expect(Exit::Fine).lines();
        assert_eq!(shown[0]["lsn"], lsn.to_string());
        assert_eq!(shown[1]["value"], 5);
    }
}

/// Files of random bytes under the names of a store.
#[test]
fn files_of_noise_are_no_store() {
    let mut random = Rng::with_seed(5);
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        for name in
            ["LOCK", "log-0000000001.roc", "log-0000000002.roc", "checkpoint-0000000001.roc"]
        {
            let bytes: Vec<u8> = (0..random.usize(..20_000)).map(|_| random.u8(..)).collect();
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let path = text(dir.path());
        for verb in [
            "info",
            "log",
            "regions",
            "schema",
            "stats",
            "timeline",
            "verify",
            "checkpoint",
            "export",
        ] {
            let ran = rocdump(&[verb, path]);
            assert!(
                !matches!(ran.exit, Exit::Usage | Exit::Io),
                "{verb}: {:?} {}",
                ran.exit,
                ran.errors
            );
        }
        assert_eq!(rocdump(&["verify", path]).exit, Exit::Lost);
    }
}
