//! What is made of a store elsewhere is the same, and the store stays as it is.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::collections::BTreeMap;

use common::{Work, check_at, oldest, read, rocdump, store, text};
use rocdump::Exit;
use rocstate::Store;

#[test]
fn a_store_comes_back_from_export_backup_and_restore() {
    let (dir, work) = store(8);
    let path = text(dir.path());
    let to = tempfile::tempdir().unwrap();
    let (oldest, end) = (oldest(path), work.states.len() - 1);
    let mut random = fastrand::Rng::with_seed(9);
    let mut lineages = std::collections::BTreeSet::new();
    for round in 0..6 {
        let lsn = if round == 0 { end } else { random.usize(oldest..=end) };
        let at = lsn.to_string();
        // Restored.
        let restored = to.path().join(format!("restored {round}"));
        rocdump(&["restore", path, text(&restored), "--at", &at, "--dry-run"]).expect(Exit::Fine);
        assert!(!restored.exists());
        let made =
            rocdump(&["--json", "restore", path, text(&restored), "--at", &at]).expect(Exit::Fine);
        let lineage = rocdump(&["--json", "info", path]).json()["lineage"].clone();
        assert_ne!(made.json()["lineage"], lineage);
        assert!(lineages.insert(made.json()["lineage"].to_string()), "a lineage came twice");
        rocdump(&["verify", "--deep", text(&restored)]).expect(Exit::Fine);
        rocdump(&["diff", path, &at, "--with", text(&restored)]).expect(Exit::Fine);
        assert_eq!(read(&restored), work.states[lsn]);
        // It goes on where it was.
        let store = Store::open(&restored).unwrap();
        assert_eq!(store.visible_lsn().get(), lsn as u64);
        let mut on = Work { random: random.clone(), states: work.states[..=lsn].to_vec() };
        on.commits(&store, 20);
        store.checkpoint().unwrap();
        on.commits(&store, 5);
        drop(store);
        assert_eq!(&read(&restored), on.now());
        rocdump(&["verify", "--deep", text(&restored)]).expect(Exit::Fine);
        // Exported and imported.
        let exported = rocdump(&["export", path, "--at", &at]).expect(Exit::Fine).out;
        let file = to.path().join(format!("export {round}"));
        std::fs::write(&file, &exported).unwrap();
        let imported = to.path().join(format!("imported {round}"));
        rocdump(&["import", text(&imported), text(&file)]).expect(Exit::Fine);
        assert_eq!(read(&imported), work.states[lsn]);
        rocdump(&["import", text(&imported), text(&file)]).expect(Exit::Usage);
        let again = rocdump(&["export", text(&imported)]).expect(Exit::Fine).out;
        let body = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert_eq!(body(&again), body(&exported));
    }
    let backup = to.path().join("backup");
    rocdump(&["backup", path, text(&backup), "--dry-run"]).expect(Exit::Fine);
    assert!(!backup.exists());
    rocdump(&["backup", path, text(&backup)]).expect(Exit::Fine);
    rocdump(&["backup", path, text(&backup)]).expect(Exit::Usage);
    rocdump(&["verify", "--deep", text(&backup)]).expect(Exit::Fine);
    check_at(text(&backup), &oldest.to_string(), &work.states[oldest]);
    assert_eq!(&read(&backup), work.now());
}

#[test]
fn nothing_is_written_into_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut work = Work::new(30);
    work.commits(&Store::open(dir.path()).unwrap(), 5);
    let listed = || {
        let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let before = listed();
    let path = text(dir.path());
    let inside = dir.path().join("sub").join("place");
    for verb in ["backup", "restore", "salvage"] {
        assert_eq!(rocdump(&[verb, path, text(&inside)]).exit, Exit::Usage, "{verb}");
        assert_eq!(rocdump(&[verb, path, path]).exit, Exit::Usage, "{verb}");
    }
    for name in ["LOCK", "picture.svg"] {
        let picture = dir.path().join(name);
        assert_eq!(rocdump(&["timeline", path, "--svg", text(&picture)]).exit, Exit::Usage);
    }
    for verb in ["info", "log", "stats", "timeline", "verify", "export"] {
        rocdump(&[verb, path]).expect(Exit::Fine);
    }
    assert_eq!(listed(), before);
    let other = tempfile::tempdir().unwrap();
    let picture = other.path().join("picture.svg");
    rocdump(&["timeline", path, "--svg", text(&picture)]).expect(Exit::Fine);
    assert!(std::fs::read_to_string(picture).unwrap().starts_with("<svg"));
}

#[test]
fn what_the_system_refuses_is_named() {
    let (dir, _) = store(31);
    let path = text(dir.path());
    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("a file");
    std::fs::write(&file, rocdump(&["export", path]).expect(Exit::Fine).out).unwrap();
    let (file, missing) = (text(&file), other.path().join("missing"));
    let (missing, below) = (text(&missing), missing.join("picture.svg"));
    let refused = |arguments: &[&str], named: &str| {
        let ran = rocdump(arguments).expect(Exit::Io);
        assert!(ran.errors.contains(named), "{arguments:?}: {}", ran.errors);
    };
    for verb in ["backup", "restore", "salvage"] {
        refused(&[verb, path, file], file);
    }
    refused(&["import", file, file], file);
    refused(&["import", missing, text(&below)], text(&below));
    refused(&["import", missing, text(other.path())], text(other.path()));
    refused(&["timeline", path, "--svg", text(&below)], text(&below));
}
