//! What `--json` prints is a contract: every field of every verb, over a store that never changes.
//!
//! A snapshot that changes is a change of the contract: JSON.md, `JSON_VERSION` and the changelog with it.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use common::{rocdump, text};
use rocdump::Exit;
use serde_json::{Value, json};

const STORE: &str = "../../tests/fixtures/v1";

/// What a run printed, a line for each field of what is an object.
fn printed(arguments: &[&str]) -> String {
    let ran = rocdump(arguments);
    let mut lines = Vec::new();
    for line in ran.out.lines() {
        let mut value: Value = serde_json::from_str(line).unwrap();
        // Whether it can be told who has a store depends on the machine.
        if value.get("lock").is_some() {
            value["lock"] = json!("(depends on the machine)");
        }
        lines.push(serde_json::to_string_pretty(&value).unwrap());
    }
    format!("exit {}\n{}\n", ran.exit as u8, lines.join("\n"))
}

macro_rules! contract {
    ($($name:ident: $($argument:expr),*;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(printed(&["--json", $($argument),*]));
        }
    )*};
}

contract! {
    info: "info", STORE;
    info_of_a_segment: "info", "../../tests/fixtures/v1/log-0000000002.roc";
    info_of_lock: "info", "../../tests/fixtures/v1/LOCK";
    log: "log", STORE, "--from", "103", "--to", "104";
    log_of_a_creation: "log", STORE, "--from", "101", "--to", "101";
    show: "show", STORE, "103";
    checkpoints: "checkpoint", STORE;
    checkpoint: "checkpoint", STORE, "2";
    regions: "regions", STORE;
    get: "get", STORE, "map", "7";
    scan: "scan", STORE, "pairs";
    schema: "schema", STORE;
    schema_differences: "schema", STORE, "--at", "checkpoint:1", "--against", "end";
    diff: "diff", STORE, "101", "104";
    stats: "stats", STORE, "-n", "2";
    timeline: "timeline", STORE;
    verify: "verify", STORE, "--deep";
    export: "export", STORE, "--region", "pairs";
    restore: "restore", STORE, "no/such/place", "--dry-run";
    backup: "backup", STORE, "no/such/place", "--dry-run";
    salvage: "salvage", STORE, "no/such/place", "--dry-run";
    error: "get", STORE, "map", "100000";
}

/// What people see, less what depends on the machine.
fn seen(arguments: &[&str]) -> String {
    let ran = rocdump(arguments);
    let lines = ran.out.lines().filter(|line| !line.contains("in use"));
    lines.map(str::trim_end).collect::<Vec<_>>().join("\n")
}

macro_rules! pages {
    ($($name:ident: $($argument:expr),*;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(seen(&[$($argument),*]));
        }
    )*};
}

pages! {
    info_for_people: "info", STORE;
    log_for_people: "log", STORE, "--from", "103", "--to", "105", "--ops";
    show_for_people: "show", STORE, "103";
    checkpoint_for_people: "checkpoint", STORE, "2";
    diff_for_people: "diff", STORE, "101", "104";
    stats_for_people: "stats", STORE, "-n", "3";
    timeline_for_people: "timeline", STORE;
    schema_for_people: "schema", STORE;
    get_for_people: "get", STORE, "map", "77";
    scan_for_people: "scan", STORE, "pairs";
    regions_for_people: "regions", STORE;
    checkpoints_for_people: "checkpoint", STORE;
}

#[test]
fn exit_codes_are_frozen() {
    let codes = [
        (Exit::Fine, 0),
        (Exit::No, 1),
        (Exit::Usage, 2),
        (Exit::Repairable, 3),
        (Exit::Lost, 4),
        (Exit::Locked, 5),
        (Exit::Newer, 6),
        (Exit::Io, 7),
    ];
    for (exit, code) in codes {
        assert_eq!(exit as u8, code);
    }
}

#[test]
fn each_exit_code_is_what_a_caller_sees() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(STORE).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let path = text(&copy);
    assert_eq!(rocdump(&["verify", path]).exit as u8, 0);
    assert_eq!(rocdump(&["get", path, "map", "100000"]).exit as u8, 1);
    assert_eq!(rocdump(&["get", path]).exit as u8, 2);
    // LOCK is written again by the next boot.
    let lock = std::fs::read(copy.join("LOCK")).unwrap();
    std::fs::write(copy.join("LOCK"), &lock[..100]).unwrap();
    assert_eq!(rocdump(&["verify", path]).exit as u8, 3);
    assert_eq!(rocdump(&["info", path]).exit as u8, 3);
    std::fs::write(copy.join("LOCK"), &lock).unwrap();
    // A newer version wrote the newest segment.
    let log = copy.join("log-0000000002.roc");
    let segment = std::fs::read(&log).unwrap();
    let mut newer = segment.clone();
    newer[8] = 9;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[0; 16]);
    hasher.update(&newer[..508]);
    let sum = hasher.finalize();
    newer[508..512].copy_from_slice(&sum.to_le_bytes());
    std::fs::write(&log, &newer).unwrap();
    for verb in ["info", "verify", "log"] {
        assert_eq!(rocdump(&[verb, path]).exit as u8, 6, "{verb}");
    }
    std::fs::remove_file(&log).unwrap();
    assert_eq!(rocdump(&["verify", path]).exit as u8, 4);
    assert_eq!(rocdump(&["info", path]).exit as u8, 4);
    std::fs::write(&log, &segment).unwrap();
    // A program has the place that is to be written to.
    let taken = rocstate::Store::open(dir.path().join("taken")).unwrap();
    let to = text(&dir.path().join("taken")).to_owned();
    let refused = rocdump(&["restore", path, &to]).exit as u8;
    // Where it cannot be told who has it, it is only a place that holds something.
    assert!(refused == 5 || (refused == 2 && !cfg!(target_os = "linux")), "{refused}");
    drop(taken);
    assert_eq!(rocdump(&["restore", path, &to]).exit as u8, 2);
    // A directory in the place of a file is what the system refuses to read.
    std::fs::remove_file(copy.join("LOCK")).unwrap();
    std::fs::create_dir(copy.join("LOCK")).unwrap();
    assert_eq!(rocdump(&["info", path]).exit as u8, 7);
}
