//! How many instructions a read, a walk, a staged operation and a commit take, counted by callgrind: how long they take
//! depends on the machine and the hour, these do not. Whoever has a reason to need more changes the figure with it.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

use std::hint::black_box;
use std::process::Command;

use rocstate::{Durability, DurableMap, Store};

const COUNTED: u64 = 20_000;

/// Which of these is counted, and the most instructions that a test's build may need for each. They took an eighth less
/// when this was written; the tolerance is for other compilers.
const COUNTED_WORK: &str = "COUNTED_WORK";
const READS: (&str, u64) = ("reads", 850);
const WALKS: (&str, u64) = ("walks of one entry", 1_300);
const STAGED: (&str, u64) = ("staged operations", 2_100);
const COMMITS: (&str, u64) = ("commits that are not synced", 8_700);

/// What callgrind counts.
#[inline(never)]
fn rocstate_counted_work(store: &Store, map: &DurableMap<u64, u64>, what: &str) {
    let keys = (0..COUNTED).map(|key| key * 7919 % 100_000);
    if what == READS.0 {
        for key in keys {
            black_box(map.get(&store.view(), &key).unwrap());
        }
    } else if what == WALKS.0 {
        for key in keys {
            black_box(map.range(&store.view(), key..).next());
        }
    } else if what == STAGED.0 {
        let mut tx = store.begin();
        for key in keys {
            map.put(&mut tx, key, key).unwrap();
        }
    } else {
        for key in keys {
            store.transact(|tx| map.put(tx, key, key)).unwrap();
        }
    }
}

/// The process that callgrind runs.
#[test]
#[ignore = "run by instructions_are_counted"]
fn counted_work() {
    let dir = tempfile::tempdir().unwrap();
    let options = Store::options().threads(false).durability(Durability::Process);
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    store.transact(|tx| (0..100_000).try_for_each(|key| map.put(tx, key, 0).map(drop))).unwrap();
    rocstate_counted_work(&store, &map, &std::env::var(COUNTED_WORK).unwrap());
}

#[test]
fn instructions_are_counted() {
    // Other processors need more or fewer.
    let is_known = cfg!(target_arch = "x86_64");
    if !is_known || Command::new("valgrind").arg("--version").output().is_err() {
        println!("SKIPPED: instructions of x86-64 are counted, by valgrind");
        return;
    }
    let count = |what: &str| {
        let mut command = Command::new("valgrind");
        command
            .env(COUNTED_WORK, what)
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg("--toggle-collect=*rocstate_counted_work*")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "counted_work", "--ignored", "--test-threads=1"]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let line = text.lines().find(|line| line.contains("Collected :"));
        let line = line.unwrap_or_else(|| panic!("callgrind counted nothing: {text}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() / COUNTED
    };
    for (what, limit) in [READS, WALKS, STAGED, COMMITS] {
        let counted = count(what);
        println!("{counted} instructions for each of the {what}");
        assert!((1..=limit).contains(&counted), "{counted} instructions for each of the {what}");
    }
}
