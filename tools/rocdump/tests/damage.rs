//! What the tool says of damage is what an open comes to.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::settings::setting;
use common::{Model, Work, files, idle, read, rocdump, text};
use rocdump::Exit;
use rocstate::{DurableCell, DurableMap, ErrorKind, Store};
use serde_json::Value;

/// The files of a store, to be put back after each damage.
struct Subject {
    dir: tempfile::TempDir,
    files: BTreeMap<PathBuf, Vec<u8>>,
    model: Model,
}

impl Subject {
    fn new(make: impl FnOnce(&Path) -> Model) -> Subject {
        let dir = tempfile::tempdir().unwrap();
        let model = make(dir.path());
        let files = files(dir.path());
        Subject { dir, files, model }
    }

    fn path(&self) -> &str {
        text(self.dir.path())
    }

    fn restore(&self) {
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if !self.files.contains_key(&path) {
                fs::remove_file(path).unwrap();
            }
        }
        for (path, bytes) in &self.files {
            if fs::read(path).ok().as_ref() != Some(bytes) {
                fs::write(path, bytes).unwrap();
            }
        }
    }
}

fn one_segment(path: &Path) -> Model {
    let mut work = Work::new(21);
    work.commits(&Store::options().segment_bytes(64 << 10).open(path).unwrap(), 12);
    // The witness of an idle log is written by its thread.
    let store = Store::open(path).unwrap();
    work.commits(&store, 4);
    idle();
    drop(store);
    work.now().clone()
}

fn checkpoints(path: &Path) -> Model {
    let mut work = Work::new(22);
    for _ in 0..3 {
        let store = Store::options().segment_bytes(64 << 10).open(path).unwrap();
        work.commits(&store, 10);
        store.checkpoint().unwrap();
        work.commits(&store, 4);
        idle();
    }
    work.now().clone()
}

fn one_checkpoint(path: &Path) -> Model {
    let mut work = Work::new(23);
    let options = Store::options().keep_checkpoints(1).segment_bytes(64 << 10);
    let store = options.open(path).unwrap();
    work.commits(&store, 60);
    store.checkpoint().unwrap();
    drop(store);
    let store = options.open(path).unwrap();
    work.commits(&store, 5);
    store.checkpoint().unwrap();
    work.commits(&store, 5);
    idle();
    drop(store);
    work.now().clone()
}

/// What comes of opening and reading a damaged store.
#[derive(Debug, PartialEq)]
enum Came {
    Exact,
    Healed,
    Refused,
    Torn,
}

fn open(path: &Path, model: &Model) -> Came {
    let attempt = || -> rocstate::Result<(Model, bool)> {
        // Threads would heal and rewrite while others look.
        let store = Store::options().create(false).threads(false).open(path)?;
        let things: DurableMap<u32, common::Thing> = store.durable_map("things")?;
        let pairs: DurableMap<(String, i64), f64> = store.durable_map("pairs")?;
        let cell: DurableCell<u64> = store.durable_cell("cell")?;
        let view = store.view();
        let read = Model {
            things: things
                .iter(&view)
                .map(|e| e.map(|(k, v)| (*k, v.clone())))
                .collect::<rocstate::Result<_>>()?,
            pairs: pairs
                .iter(&view)
                .map(|e| e.map(|(k, v)| (k.clone(), *v)))
                .collect::<rocstate::Result<_>>()?,
            cell: cell.get(&view)?.copied(),
        };
        let healed = !store.boot_report().healed.is_empty() || !store.stats().healed.is_empty();
        Ok((read, healed))
    };
    match attempt() {
        Ok((read, healed)) if read == *model => {
            if healed {
                Came::Healed
            } else {
                Came::Exact
            }
        }
        Ok(_) => Came::Torn,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error}");
            Came::Refused
        }
    }
}

/// Flips bits where a file says something, and asks the tool before a program opens it.
fn sweep(subject: &Subject, stride: usize) -> BTreeMap<String, usize> {
    let mut table: BTreeMap<String, usize> = BTreeMap::new();
    for (path, bytes) in &subject.files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let near =
            (0..bytes.len()).filter(|at| bytes[at / 64 * 64..].iter().take(64).any(|b| *b != 0));
        for bit in near.flat_map(|at| at * 8..at * 8 + 8).step_by(stride) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(path, &damaged).unwrap();
            let ran = rocdump(&["--json", "verify", subject.path()]);
            let came = open(subject.dir.path(), &subject.model);
            let told = || {
                format!("bit {bit} of {name}: {came:?}, and verify: {}\n{}", ran.out, ran.errors)
            };
            match came {
                Came::Exact => assert!(ran.exit <= Exit::Repairable, "{}", told()),
                Came::Healed => assert_eq!(ran.exit, Exit::Repairable, "{}", told()),
                Came::Refused => {
                    assert!(matches!(ran.exit, Exit::Lost | Exit::Newer), "{}", told());
                }
                Came::Torn => panic!("another state in silence: {}", told()),
            }
            *table.entry(format!("{came:?} as {:?}", ran.exit)).or_default() += 1;
            subject.restore();
        }
    }
    table
}

/// `ROCSTATE_SWEEP=1` sweeps every bit in the place of one in so many.
#[test]
fn verify_finds_every_flipped_bit_that_matters() {
    let stride = setting("ROCSTATE_SWEEP", 149);
    let sweep_one = |make: fn(&Path) -> Model| {
        let subject = Subject::new(make);
        rocdump(&["verify", "--deep", subject.path()]).expect(Exit::Fine);
        assert_eq!(open(subject.dir.path(), &subject.model), Came::Exact);
        subject.restore();
        sweep(&subject, stride)
    };
    let mut seen = BTreeMap::new();
    // Each waits for the syncs of its boots most of the time.
    std::thread::scope(|scope| {
        let subjects = [one_segment as fn(&Path) -> Model, checkpoints, one_checkpoint];
        let sweeps = subjects.map(|make| scope.spawn(move || sweep_one(make)));
        for (what, count) in sweeps.into_iter().flat_map(|swept| swept.join().unwrap()) {
            *seen.entry(what).or_insert(0) += count;
        }
    });
    eprintln!("{seen:?}");
    for what in ["Refused as Lost", "Healed as Repairable", "Exact as Fine"] {
        assert!(seen.contains_key(what), "{what} is not in {seen:?}");
    }
}

/// Every verb on damaged stores: some answer, and no panic.
#[test]
fn no_damage_makes_any_verb_panic() {
    let stride = setting("ROCSTATE_SWEEP", 1999);
    let subject = Subject::new(checkpoints);
    let out = tempfile::tempdir().unwrap();
    let path = subject.path();
    let try_all = |what: &str| {
        let (salvaged, restored) = (out.path().join("salvaged"), out.path().join("restored"));
        let verbs: [&[&str]; 15] = [
            &["info", path],
            &["log", path, "--ops"],
            &["log", path, "--reverse", "-n", "20"],
            &["show", path, "30"],
            &["checkpoint", path],
            &["checkpoint", path, "2"],
            &["regions", path],
            &["scan", path, "things"],
            &["schema", path],
            &["diff", path, "checkpoint:2", "end"],
            &["stats", path],
            &["timeline", path],
            &["export", path],
            &["salvage", path, text(&salvaged)],
            &["restore", path, text(&restored), "--at", "35"],
        ];
        for verb in verbs {
            let ran = rocdump(verb);
            assert_ne!(ran.exit, Exit::Usage, "{what}: {verb:?}: {}", ran.errors);
        }
        // `verify` says no less than a boot would.
        let (boot, verify) = (rocdump(&["info", path]), rocdump(&["verify", path]));
        assert!(verify.exit >= boot.exit, "{what}: {}{}", boot.out, verify.out);
        if salvaged.exists() {
            rocdump(&["verify", text(&salvaged)]).expect(Exit::Fine);
        }
        for made in [salvaged, restored] {
            fs::remove_dir_all(made).ok();
        }
    };
    for (path, bytes) in &subject.files {
        let name = path.file_name().unwrap().to_str().unwrap();
        for bit in (0..bytes.len() * 8).step_by(stride).filter(|bit| bytes[bit / 8] != 0) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(path, &damaged).unwrap();
            try_all(&format!("bit {bit} of {name}"));
            subject.restore();
        }
        for len in (0..bytes.len()).step_by(bytes.len() / 3 + 1) {
            fs::write(path, &bytes[..len]).unwrap();
            try_all(&format!("{name} cut to {len}"));
            subject.restore();
        }
        fs::remove_file(path).unwrap();
        try_all(&format!("{name} removed"));
        subject.restore();
    }
}

#[test]
fn what_an_older_checkpoint_still_tells_is_not_lost() {
    let subject = Subject::new(checkpoints);
    let newest =
        subject.files.keys().filter(|path| text(path).contains("checkpoint-")).max().unwrap();
    let mut bytes = subject.files[newest].clone();
    bytes[100] ^= 1;
    fs::write(newest, &bytes).unwrap();
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("salvaged");
    let ran = rocdump(&["salvage", subject.path(), text(&to)]).expect(Exit::Repairable);
    assert!(ran.out.contains("healed by an older checkpoint"), "{}", ran.out);
    assert_eq!(read(&to), subject.model);
    rocdump(&["verify", subject.path()]).expect(Exit::Repairable);
    let info = rocdump(&["--json", "info", subject.path()]);
    assert!(info.exit <= Exit::Repairable);
}

/// Frames that follow each other in one segment, packed and at blocks of their own.
fn many_frames(path: &Path) -> usize {
    let store = Store::open(path).unwrap();
    let map: DurableMap<u32, String> = store.durable_map("map").unwrap();
    for n in 0..40u32 {
        let mut tx = store.begin();
        map.insert(&mut tx, n, "x".repeat(n as usize * 7)).unwrap();
        let durability =
            if n % 4 == 0 { rocstate::Durability::Machine } else { rocstate::Durability::Process };
        tx.commit_with(durability).unwrap();
    }
    idle();
    40
}

#[test]
fn the_log_goes_on_behind_each_frame_that_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let commits = many_frames(dir.path()) as u64;
    let path = text(dir.path());
    let image = files(dir.path());
    let file = image.keys().find(|path| text(path).contains("log-")).unwrap();
    let lsn = |line: &Value| line["lsn"].as_str().map(|lsn| lsn.parse::<u64>().unwrap());
    let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let before = rocdump(&["--json", "log", path]).expect(Exit::Fine).lines();
    let mut went_on_in_a_block = 0;
    for hit in &before[1..before.len() - 1] {
        let begin = usize::try_from(hit["offset"].as_u64().unwrap()).unwrap();
        // In the header, whose length cannot be believed then, and in the body, behind a good header.
        for (at, in_header) in [(begin + 5, true), (begin + 50, false)] {
            let mut bytes = image[file].clone();
            bytes[at] ^= 8;
            fs::write(file, &bytes).unwrap();
            let ran = rocdump(&["--json", "log", path]);
            assert_eq!(ran.exit, Exit::Lost);
            let lines = ran.lines();
            let gaps: Vec<&Value> = lines.iter().filter(|line| line["type"] == "gap").collect();
            assert_eq!(gaps.len(), 1, "{gaps:?}");
            let (first, end) = (number(&gaps[0]["first"]), number(&gaps[0]["last"]));
            assert_eq!(Some(first), lsn(hit));
            if in_header {
                // At most what is packed behind it up to the next block.
                assert!((first..first + 4).contains(&end), "{first} to {end}");
                went_on_in_a_block += u64::from(end > first);
            } else {
                assert_eq!(end, first);
            }
            let found: Vec<u64> = lines.iter().filter_map(lsn).collect();
            let expected: Vec<u64> =
                (1..=commits).filter(|lsn| !(first..=end).contains(lsn)).collect();
            assert_eq!(found, expected);
        }
    }
    assert!(went_on_in_a_block > 0, "no frames are packed");
}

/// What a boot does not read now it would heal from.
#[test]
fn verify_looks_at_what_only_healing_would_read() {
    let subject = Subject::new(checkpoints);
    let kept = subject.files.keys().filter(|path| text(path).contains("checkpoint-"));
    // The newest, and the older one that is kept with it.
    let kept: Vec<&PathBuf> = kept.rev().take(2).collect();
    assert_eq!(kept.len(), 2);
    for file in kept {
        let mut bytes = subject.files[file].clone();
        bytes[100] ^= 1;
        fs::write(file, &bytes).unwrap();
        let ran = rocdump(&["--json", "verify", subject.path()]);
        assert!(ran.exit >= Exit::Repairable, "{}: {}", file.display(), ran.out);
        let told = ran.json()["findings"].to_string();
        assert!(told.contains(file.file_name().unwrap().to_str().unwrap()), "{told}");
        subject.restore();
    }
}

/// LOCK names the newest segment, so that nobody takes what is left for all there was.
#[test]
fn a_log_whose_end_is_gone_is_not_taken_for_a_whole_one() {
    let subject = Subject::new(one_segment);
    let newest = subject.files.keys().filter(|path| text(path).contains("log-")).max().unwrap();
    fs::remove_file(newest).unwrap();
    for verb in ["info", "log", "regions", "timeline", "verify", "stats", "export"] {
        let ran = rocdump(&[verb, subject.path()]);
        assert_eq!(ran.exit, Exit::Lost, "{verb}: {}", ran.errors);
        let told = format!("{}{}", ran.out, ran.errors);
        assert!(
            told.contains("the newest segment of the log is absent") || verb == "stats",
            "{told}"
        );
    }
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("salvaged");
    rocdump(&["salvage", subject.path(), text(&to)]).expect(Exit::Lost);
    assert!(Store::open(&to).is_ok());
    assert_eq!(rocdump(&["restore", subject.path(), text(&out.path().join("r"))]).exit, Exit::Lost);
}

#[test]
fn a_gap_in_the_log_is_told_and_what_is_behind_it_is_still_readable() {
    let subject = Subject::new(one_segment);
    let before: Vec<Value> = rocdump(&["--json", "log", subject.path()]).expect(Exit::Fine).lines();
    // Behind the first frame, so that there is a state before it.
    let hit = before[1..].iter().find(|line| line["offset"] != before[1]["offset"]).unwrap();
    let name = format!("log-{:0>10}.roc", hit["segment"].as_str().unwrap());
    let log = &subject.dir.path().join(name);
    let mut bytes = subject.files[log].clone();
    bytes[usize::try_from(hit["offset"].as_u64().unwrap()).unwrap() + 50] ^= 4;
    fs::write(log, &bytes).unwrap();
    let after = rocdump(&["--json", "log", subject.path()]);
    assert_eq!(after.exit, Exit::Lost);
    let lines = after.lines();
    let gap = lines.iter().find(|line| line["type"] == "gap").unwrap();
    // A frame is lost whole, with the commits that share it.
    let in_frame =
        |line: &&Value| line["offset"] == hit["offset"] && line["segment"] == hit["segment"];
    let lost: Vec<&Value> = before.iter().filter(in_frame).collect();
    let (first, end) = (&lost[0]["lsn"], &lost[lost.len() - 1]["lsn"]);
    assert_eq!((&gap["first"], &gap["last"]), (first, end));
    // What the lost ones created has no name behind them, but every commit is there.
    let told = |line: &Value| (line["lsn"].clone(), line["label"].clone(), line["time"].clone());
    let commits = lines.iter().filter(|line| line["type"] == "commit");
    let others = before.iter().filter(|line| line["type"] == "commit" && !in_frame(line));
    assert_eq!(commits.map(told).collect::<Vec<_>>(), others.map(told).collect::<Vec<_>>());
    // A state is shown up to there, and says so.
    let shown = rocdump(&["--json", "regions", subject.path()]);
    assert_eq!(shown.exit, Exit::Lost);
    assert!(shown.errors.contains("damaged"), "{}", shown.errors);
    let before_it = first.as_str().unwrap().parse::<u64>().unwrap() - 1;
    assert_eq!(shown.json()["lsn"], before_it.to_string());
    assert_eq!(rocdump(&["show", subject.path(), hit["lsn"].as_str().unwrap()]).exit, Exit::Lost);
    let picture = rocdump(&["timeline", subject.path()]);
    assert!(picture.out.contains(" cannot be read"), "{}", picture.out);
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("salvaged");
    let ran = rocdump(&["salvage", subject.path(), text(&to)]).expect(Exit::Lost);
    assert!(ran.out.contains("can be read one by one"), "{}", ran.out);
    assert_eq!(Store::open(&to).unwrap().visible_lsn().get(), before_it);
}
