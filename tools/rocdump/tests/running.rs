//! A store that another process is writing: what is shown was true at some moment, and nobody is disturbed.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{rocdump, text};
use rocdump::{Exit, Rocdump};
use rocstate::{DurableMap, Store};
use serde_json::Value;

/// The store that the child writes, if this process is one.
const CHILD: &str = "ROCDUMP_TEST_CHILD";

/// A commit takes at least as long as with a disk that syncs. In memory it takes none, and the checkpoint after the
/// next one takes the log away before anybody has looked at it.
const PACE: Duration = Duration::from_micros(200);

/// Commit `n` holds `n` under the keys `n % 50`, and the sum of all in the cell: so each state is known.
fn write(path: &Path, every: u64) -> ! {
    let options = Store::options().segment_bytes(64 << 10).boot_budget(Duration::from_secs(60));
    let store = options.open(path).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    let mut next = store.visible_lsn().get() + 1;
    loop {
        let began = Instant::now();
        store.transact(|tx| map.insert(tx, next % 50, next)).unwrap();
        std::thread::sleep(PACE.saturating_sub(began.elapsed()));
        next += 1;
        if next.is_multiple_of(every) {
            store.checkpoint().unwrap();
        }
    }
}

struct Writer(Child);

impl Writer {
    fn start(path: &Path, every: u64) -> Writer {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["the_child_of_the_other_tests", "--exact", "--nocapture"])
            .env(CHILD, path)
            .env("ROCDUMP_TEST_EVERY", every.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let writer = Writer(child);
        let until = Instant::now() + Duration::from_secs(20);
        while rocdump(&["show", text(path), "60"]).exit != Exit::Fine {
            assert!(Instant::now() < until, "the child does not write");
            std::thread::sleep(Duration::from_millis(20));
        }
        writer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_child_of_the_other_tests() {
    if let Some(path) = std::env::var_os(CHILD) {
        let every = std::env::var("ROCDUMP_TEST_EVERY").unwrap().parse().unwrap();
        write(Path::new(&path), every);
    }
}

/// The state that these entries must be.
fn check(entries: &[(u64, u64)], lsn: u64) {
    let expected: Vec<(u64, u64)> = (0..50u64)
        .filter_map(|key| {
            let last = lsn - (lsn + 50 - key) % 50;
            (last > 0 && last <= lsn).then_some((key, last))
        })
        .collect();
    assert_eq!(entries, expected, "at commit {lsn}");
}

fn entries(lines: &[Value]) -> Vec<(u64, u64)> {
    let number = |value: &Value| value.as_u64().unwrap();
    lines.iter().map(|line| (number(&line["key"]), number(&line["value"]))).collect()
}

#[test]
fn every_verb_works_beside_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    let writer = Writer::start(dir.path(), 500);
    let until = Instant::now() + Duration::from_secs(6);
    let mut round = 0;
    let mut last = 0;
    while Instant::now() < until || round < 3 {
        let info = rocdump(&["--json", "info", path]).expect(Exit::Fine).json();
        if let Some(held) = info["lock"]["held"].as_bool() {
            assert!(held, "{info}");
            assert_eq!(info["lock"]["pid"], writer.0.id(), "{info}");
        }
        let lsn: u64 = info["lsn"].as_str().unwrap().parse().unwrap();
        assert!(lsn >= last, "{lsn} after {last}");
        last = lsn;

        let scan = rocdump(&["--json", "scan", path, "map"]).expect(Exit::Fine).lines();
        let lsn: u64 = scan[0]["lsn"].as_str().unwrap().parse().unwrap();
        check(&entries(&scan[1..]), lsn);

        let verify = rocdump(&["--json", "verify", path]);
        assert_eq!(verify.exit, Exit::Fine, "{}{}", verify.out, verify.errors);

        let log = rocdump(&["--json", "log", path]);
        assert_eq!(
            log.exit,
            Exit::Fine,
            "{}{:?}",
            log.errors,
            log.lines().iter().filter(|line| line["type"] == "gap").collect::<Vec<_>>()
        );
        let lsns: Vec<u64> = log.lines()[1..]
            .iter()
            .map(|line| line["lsn"].as_str().unwrap().parse().unwrap())
            .collect();
        assert!(lsns.windows(2).all(|pair| pair[0] + 1 == pair[1]));

        for verb in ["stats", "timeline", "checkpoint", "regions", "schema"] {
            rocdump(&[verb, path]).expect(Exit::Fine);
        }
        let backup = out.path().join(format!("backup {round}"));
        let ran = rocdump(&["--json", "backup", path, text(&backup)]).expect(Exit::Fine);
        let told: u64 = ran.json()["lsn"].as_str().unwrap().parse().unwrap();
        rocdump(&["verify", "--deep", text(&backup)]).expect(Exit::Fine);
        let scan = rocdump(&["--json", "scan", text(&backup), "map"]).expect(Exit::Fine).lines();
        let lsn: u64 = scan[0]["lsn"].as_str().unwrap().parse().unwrap();
        assert!(lsn >= told, "the backup has {lsn} and said {told}");
        check(&entries(&scan[1..]), lsn);
        assert_eq!(Store::open(&backup).unwrap().visible_lsn().get(), lsn);

        let restored = out.path().join(format!("restored {round}"));
        rocdump(&["restore", path, text(&restored)]).expect(Exit::Fine);
        round += 1;
    }
    drop(writer);
    // It was not disturbed: the next open finds nothing to heal.
    let store = Store::open(dir.path()).unwrap();
    assert!(store.boot_report().healed.is_empty(), "{}", store.boot_report());
}

/// What a checkpoint holds was synced, also while the log does not say so yet.
#[test]
fn a_backup_holds_all_that_its_checkpoints_do() {
    let dir = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    for round in 1..=5u64 {
        store.transact(|tx| map.insert(tx, round, round)).unwrap();
        store.checkpoint().unwrap();
        let backup = out.path().join(format!("backup {round}"));
        rocdump(&["backup", text(dir.path()), text(&backup)]).expect(Exit::Fine);
        rocdump(&["show", text(&backup), &round.to_string()]).expect(Exit::Fine);
        rocdump(&["verify", "--deep", text(&backup)]).expect(Exit::Fine);
        assert_eq!(Store::open(&backup).unwrap().visible_lsn().get(), round);
    }
}

#[test]
fn a_follower_sees_each_commit_once_across_segments_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    let writer = Writer::start(dir.path(), 20_000);
    let start: u64 = {
        let info = rocdump(&["--json", "info", path]).json();
        info["next_boot"]["claimed_lsn"].as_str().unwrap().parse().unwrap()
    };
    let mut next = start;
    for _ in 0..3 {
        let (from, count) = (next.to_string(), "1500");
        let followed = rocdump(&["--json", "log", path, "--follow", "--from", &from, "-n", count]);
        let lines = followed.expect(Exit::Fine).lines();
        let lsns: Vec<u64> =
            lines[1..].iter().map(|line| line["lsn"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(lsns, (next..next + 1500).collect::<Vec<u64>>());
        assert!(lines[1..].iter().all(|line| line["claimed"] == true));
        next += 1500;
    }
    let segments = rocdump(&["--json", "info", path]).json()["segments"].as_array().unwrap().len();
    assert!(segments >= 1);
    drop(writer);
    // Nothing more comes: it ends when it was told to, with what nobody claims left out.
    let from = next.to_string();
    let rest = rocdump(&["--json", "log", path, "--follow", "--from", &from, "--idle", "1"]);
    rest.expect(Exit::Fine);
    // What is gone is said to be gone.
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    for _ in 0..3 {
        store.transact(|tx| map.insert(tx, 0, 0)).unwrap();
        store.checkpoint().unwrap();
    }
    drop(store);
    drop(Store::open(dir.path()).unwrap());
    assert_eq!(rocdump(&["log", path, "--from", "1", "-n", "1"]).exit, Exit::No);
    let gone = rocdump(&["log", path, "--follow", "--from", "1", "--idle", "1"]);
    // Nothing is passed over in silence.
    assert_eq!((gone.exit, gone.out.as_str()), (Exit::No, ""), "{}", gone.errors);
}

#[test]
fn a_follower_that_had_enough_within_a_frame_goes_on_within_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = text(dir.path());
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    // While the first one is synced, others gather.
    let together: Vec<_> = (0..200).map(|n| store.submit(|tx| map.put(tx, n, n))).collect();
    for submitted in together {
        submitted.wait().unwrap();
    }
    // A claim for those before.
    store.transact(|tx| map.put(tx, 0, 1)).unwrap();
    let show =
        |lsn: u64| rocdump(&["--json", "show", path, &lsn.to_string()]).expect(Exit::Fine).json();
    let shared = |lsn: &u64| show(*lsn)["commits_in_frame"].as_u64().unwrap() >= 3;
    let within = (1..198).find(shared).expect("some share a frame");
    let lsns = |followed: &str| -> Vec<u64> {
        let number = |line: &str| line.split_whitespace().next().unwrap().parse().unwrap();
        followed.lines().map(number).collect()
    };
    let (from, next) = (within.to_string(), (within + 2).to_string());
    let first = rocdump(&["log", path, "--follow", "--from", &from, "-n", "2"]);
    let first = first.expect(Exit::Fine);
    assert_eq!(lsns(&first.out), [within, within + 1]);
    assert!(first.errors.contains(&format!("go on with --from {next}\n")), "{}", first.errors);
    let rest = rocdump(&["log", path, "--follow", "--from", &next, "--idle", "0"]);
    let rest = lsns(&rest.expect(Exit::Fine).out);
    assert!(rest.iter().copied().eq(within + 2..within + 2 + rest.len() as u64), "{rest:?}");
}

/// A reader that has gone away.
struct Gone;

impl std::io::Write for Gone {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// As a shell has it: `rocdump log STORE | head -1`.
#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, String> = store.durable_map("map").unwrap();
    store
        .transact(|tx| {
            for n in 0..20_000 {
                map.insert(tx, n, format!("value {n}"))?;
            }
            Ok(())
        })
        .unwrap();
    drop(store);
    let mut child = Command::new(env!("CARGO_BIN_EXE_rocdump"))
        .args(["scan", text(dir.path()), "map"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "0  \"value 0\"\n");
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()), (Some(0), ""));
    // The same inside a process.
    let mut errors = Vec::new();
    let exit =
        Rocdump::new().run_with(["rocdump", "info", text(dir.path())], &mut Gone, &mut errors);
    assert_eq!((exit, errors.is_empty()), (Exit::Fine, true));
}
