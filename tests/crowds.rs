//! More writers than processors: they meet at locks, and had better not sleep there.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common;

use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;

use common::FaultyDisk;
use rocstate::{Disk, Durability, DurableMap, Storage, Store};

const WRITERS: u64 = 64;
const COMMITS: u64 = 6_000;

/// What the system says of this thread.
fn status(what: &str) -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
    value.unwrap().trim().to_owned()
}

/// How often this thread has slept until now.
fn sleeps() -> u64 {
    status("voluntary_ctxt_switches").parse().unwrap()
}

/// Two of those that this process may use. Where more writers run at a time, they may well have to wait.
fn processors() -> String {
    let allowed = status("Cpus_allowed_list");
    let ranges = allowed.split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
    let all = ranges.flat_map(|(from, to)| from.parse::<u32>().unwrap()..=to.parse().unwrap());
    all.take(2).map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

/// How often those who commit at the same time, without a sync, sleep in all.
fn sleeps_of_writers(disk: impl Storage) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let options = Store::options().durability(Durability::Process).storage(disk);
    let store = options.open(dir.path()).unwrap();
    let map: DurableMap<u64, String> = store.durable_map("map").unwrap();
    let together = Barrier::new(usize::try_from(WRITERS).unwrap());
    let write = |writer| {
        together.wait();
        let before = sleeps();
        for nth in 0..COMMITS {
            let key = (nth * WRITERS + writer) % 10_000;
            store.transact(|tx| map.insert(tx, key, format!("value {nth}"))).unwrap();
        }
        sleeps() - before
    };
    thread::scope(|scope| {
        let write = &write;
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).sum()
    })
}

#[test]
#[ignore = "it is run by the test below, on two processors"]
fn writers_on_two_processors() {
    let unmapped = FaultyDisk::default();
    unmapped.0.unmapped.store(true, Ordering::SeqCst);
    let all_sleeps = [sleeps_of_writers(Disk), sleeps_of_writers(unmapped)];
    let commits = WRITERS * COMMITS;
    for (sleeps, log) in all_sleeps.into_iter().zip(["mapped, if it can be", "not mapped"]) {
        println!("{sleeps} sleeps, the log {log}");
        assert!(sleeps * 10 < commits, "{sleeps} sleeps for {commits} commits, the log {log}");
    }
}

#[test]
fn many_writers_do_not_sleep_for_the_locks_of_a_commit() {
    let mut child = Command::new("taskset");
    child.args(["--cpu-list", &processors()]).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "writers_on_two_processors", "--ignored"]);
    match child.output() {
        Err(cause) => println!("SKIPPED: taskset is not there: {cause}"),
        Ok(child) => {
            let said = String::from_utf8_lossy(&child.stdout);
            let is_passed = child.status.success() && said.contains("1 passed");
            assert!(is_passed, "{said}{}", String::from_utf8_lossy(&child.stderr));
        }
    }
}
