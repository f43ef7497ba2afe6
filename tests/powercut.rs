//! P2, P3 on real file systems: real power cuts over the real `Disk`.
//!
//! They need root, loop devices and Debian's xfsprogs, qemu-storage-daemon, nbdkit, libnbd-bin, fuse3 and
//! strace: `cargo test --release --test powercut -- --ignored --nocapture --test-threads 1`.
//! `ROCSTATE_CUTS` says how many of each kind.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod blocklog;
}

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::blocklog::{apply, read_block_log};
use rocstate::control::{Step, without};
use rocstate::{Durability, DurableMap, Error, Options, Store};

type Map = DurableMap<u32, (u32, String)>;

/// Each thread writes its numbers in turn into so many slots.
const SLOTS: u32 = 100;
const THREADS: u32 = 3;

fn cuts() -> usize {
    std::env::var("ROCSTATE_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

fn options() -> Options {
    Store::options().segment_bytes(64 << 10).boot_budget(Duration::from_millis(4))
}

/// Runs a command to its end; whether it succeeded.
fn run(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

fn must(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    text
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file system with a store, on an image; unmounted at the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(what: &Path, at: &Path) -> Option<Mounted> {
        let options = if what.starts_with("/dev") { "rw" } else { "loop" };
        run("mount", &["-o", options, text(what), text(at)]).then(|| Mounted(at.to_owned()))
    }

    /// The power goes: nothing that is not on the disk gets there.
    fn shut_down(&self) {
        must("xfs_io", &["-x", "-c", "shutdown", text(&self.0)]);
    }

    fn store(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[text(&self.0)]);
    }
}

/// The file systems, with an image of each.
fn file_systems(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    [("ext4", "48M"), ("xfs", "320M")]
        .into_iter()
        .map(|(kind, size)| {
            let image = dir.join(kind);
            must("truncate", &["-s", size, text(&image)]);
            make_file_system(kind, &image);
            (kind, image)
        })
        .collect()
}

fn make_file_system(kind: &str, on: &Path) {
    let force = if kind == "xfs" { "-f" } else { "-F" };
    must(&format!("mkfs.{kind}"), &["-q", force, text(on)]);
}

/// What was acknowledged to each thread as durable, and how far the disk's log had come then.
type Acknowledged = Mutex<Vec<(u32, u32, u64)>>;

/// Writes until something fails or it is told to stop.
fn write(store: &Store, thread: u32, stop: &AtomicBool, told: &dyn Fn(u32, Durability)) {
    let Ok(map) = store.durable_map::<u32, (u32, String)>("map") else { return };
    let last = newest(&map, store, thread).unwrap_or(0);
    for n in last + 1.. {
        let process = n % 4 == 1;
        let durability = if process { Durability::Process } else { Durability::Machine };
        let mut tx = store.begin();
        if map.insert(&mut tx, slot(thread, n), value(n)).is_err() {
            return;
        }
        if stop.load(Ordering::Relaxed) || tx.commit_with(durability).is_err() {
            return;
        }
        told(n, durability);
        if thread == 0 && n % 50 == 0 && store.checkpoint().is_err() {
            return;
        }
    }
}

fn slot(thread: u32, n: u32) -> u32 {
    thread * 1_000 + n % SLOTS
}

fn value(n: u32) -> (u32, String) {
    (n, "x".repeat(n as usize * 37 % 700))
}

fn newest(map: &Map, store: &Store, thread: u32) -> Result<u32, Error> {
    let view = store.view();
    let slots = map.range(&view, thread * 1_000..thread * 1_000 + SLOTS);
    slots.map(|entry| entry.map(|(_, (n, _))| *n)).try_fold(0, |last, n| Ok(last.max(n?)))
}

/// A prefix of each thread's numbers is there, with all that were acknowledged.
fn check(path: &Path, acknowledged: &BTreeMap<u32, u32>, what: &str) -> Result<(), String> {
    let store = options().open(path).map_err(|error| format!("{what}: {error}"))?;
    let map: Map = store.durable_map("map").map_err(|error| format!("{what}: {error}"))?;
    let view = store.view();
    let read = |error: Error| format!("{what}: {error}");
    for thread in 0..THREADS {
        let last = newest(&map, &store, thread).map_err(read)?;
        let promised = acknowledged.get(&thread).copied().unwrap_or(0);
        if last < promised {
            return Err(format!("{what}: {promised} of thread {thread} is lost, {last} is there"));
        }
        for n in last.saturating_sub(SLOTS - 1).max(1)..=last {
            if map.get(&view, &slot(thread, n)).map_err(read)? != Some(&value(n)) {
                return Err(format!("{what}: {n} of thread {thread} is not what was written"));
            }
        }
    }
    Ok(())
}

fn newest_acknowledged(acknowledged: &Acknowledged, upto: u64) -> BTreeMap<u32, u32> {
    let mut newest = BTreeMap::new();
    for (thread, n, at) in acknowledged.lock().unwrap().iter() {
        if *at <= upto {
            let last = newest.entry(*thread).or_insert(0);
            *last = (*n).max(*last);
        }
    }
    newest
}

/// Writers in this process, for so long; then `end` while they still write.
fn live(
    path: &Path,
    leaving_out: &[Step],
    acknowledged: &Acknowledged,
    position: &(dyn Fn() -> u64 + Sync),
    time: Duration,
    end: impl FnOnce(),
) {
    let stop = AtomicBool::new(false);
    let store = without(leaving_out, || options().open(path)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, stop) = (&store, &stop);
            scope.spawn(move || {
                without(leaving_out, || {
                    write(store, thread, stop, &|n, durability| {
                        if durability == Durability::Machine {
                            let at = position();
                            acknowledged.lock().unwrap().push((thread, n, at));
                        }
                    });
                });
            });
        }
        std::thread::sleep(time);
        end();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Cuts the power of one file system again and again, under the same store.
fn shut_down_again_and_again(
    kind: &str,
    image: &Path,
    at: &Path,
    cuts: usize,
    leaving_out: &[Step],
) -> Result<usize, String> {
    let acknowledged = Acknowledged::default();
    for cut in 0..cuts {
        let mounted = Mounted::new(image, at).unwrap();
        let path = mounted.store();
        let what = format!("{kind}, cut {cut}");
        if cut > 0 {
            check(&path, &newest_acknowledged(&acknowledged, 0), &what)?;
        }
        let time = Duration::from_micros(1_000 + (cut as u64 * 7_919) % 50_000);
        live(&path, leaving_out, &acknowledged, &|| 0, time, || mounted.shut_down());
    }
    let count = acknowledged.lock().unwrap().len();
    Ok(count)
}

#[test]
fn real_power_cuts() {
    use std::io::Write;
    // Past the capture of the test's output, so that it is seen.
    let skipped = "SKIPPED: real power cuts need root and loop devices; tests/powercut.rs says how";
    writeln!(std::io::stderr(), "\n{skipped}").unwrap();
}

#[test]
#[ignore = "needs root, loop devices and xfsprogs"]
fn a_file_system_that_is_shut_down_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mounted");
    std::fs::create_dir(&at).unwrap();
    for (kind, image) in file_systems(dir.path()) {
        let kept = shut_down_again_and_again(kind, &image, &at, cuts(), &[]).unwrap();
        println!("{kind}: {} cuts, {kept} durable commits acknowledged, none lost", cuts());
    }
}

/// A real disk shows what its cache hides: without these the same test fails.
#[test]
#[ignore = "needs root, loop devices and xfsprogs"]
fn a_file_system_that_is_shut_down_misses_what_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("mounted");
    std::fs::create_dir(&at).unwrap();
    let steps = [Step::GroupSync, Step::AcknowledgeAfterSync, Step::BootSegmentSync];
    for step in steps {
        let images = file_systems(dir.path());
        let caught = images.iter().find_map(|(kind, image)| {
            shut_down_again_and_again(kind, image, &at, 60, &[step]).err()
        });
        println!("without {step:?}: {}", caught.clone().unwrap_or("nothing".into()));
        assert!(caught.is_some(), "nobody misses {step:?}");
    }
}

/// A process that ends when this does.
struct Service(Child);

impl Service {
    /// Waits until a device shows in place of a file.
    fn exporting(child: Child, export: &Path) -> Service {
        let service = Service(child);
        let mut tries = 0;
        while std::fs::metadata(export).map_or(0, |data| data.len()) == 0 {
            std::thread::sleep(Duration::from_millis(20));
            tries += 1;
            assert!(tries < 250, "the export does not come up");
        }
        service
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A file that is a block device, whatever lies behind it.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Loop {
        Loop(must("losetup", &["-f", "--show", text(file)]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.0]);
    }
}

#[test]
#[ignore = "needs root, loop devices, fuse3 and qemu-storage-daemon"]
fn every_replay_of_a_block_log_keeps_what_was_acknowledged() {
    for (kind, size) in [("ext4", "48M"), ("xfs", "320M")] {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        must("truncate", &["-s", size, text(&file("data"))]);
        for name in ["log", "export"] {
            File::create(file(name)).unwrap();
        }
        std::fs::create_dir(file("mounted")).unwrap();
        let acknowledged = record_block_log(kind, dir.path());
        let log = File::open(file("log")).unwrap();
        let entries = read_block_log(&log);
        let made = entries.iter().position(|entry| entry.end >= acknowledged.1).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut points: Vec<usize> =
            (0..cuts()).map(|_| random.usize(made..entries.len())).collect();
        points.sort_unstable();
        must("truncate", &["-s", size, text(&file("stable"))]);
        let stable = File::options().write(true).open(file("stable")).unwrap();
        let mut applied = 0;
        for (number, point) in points.iter().enumerate() {
            let flushed = (0..=*point).rev().find(|at| entries[*at].flush).unwrap_or(0);
            while applied < flushed {
                apply(&entries[applied], &log, &stable, |_| true);
                applied += 1;
            }
            must("cp", &["--sparse=always", text(&file("stable")), text(&file("image"))]);
            let image = File::options().write(true).open(file("image")).unwrap();
            // What came before the last flush is there; of the rest, whatever.
            for entry in &entries[flushed..=*point] {
                let (kept, torn) = (random.bool(), random.u8(..4) == 0);
                let upto = if torn { random.u64(..=entry.sectors) } else { entry.sectors };
                apply(entry, &log, &image, |number| kept && number < upto);
            }
            drop(image);
            let what = format!("{kind}, replay {number}, up to write {point} of {}", entries.len());
            let mounted = Mounted::new(&file("image"), &file("mounted")).expect(&what);
            // The last flush ends with whatever was told before it began.
            let promised = newest_acknowledged(&acknowledged.0, entries[flushed].end);
            check(&mounted.store(), &promised, &what).unwrap();
        }
        let told = acknowledged.0.lock().unwrap().len();
        println!(
            "{kind}: {} replays of {} writes, {told} commits acknowledged",
            points.len(),
            entries.len()
        );
    }
}

/// Runs a store over a device that logs its writes; what was acknowledged, and where in the log the file
/// system was made.
fn record_block_log(kind: &str, dir: &Path) -> (Acknowledged, u64) {
    let file = |name: &str| dir.join(name);
    let path = |name: &str| text(&dir.join(name)).to_owned();
    let service = Command::new("qemu-storage-daemon")
        .args(["--blockdev", &format!("driver=file,node-name=raw,filename={}", path("data"))])
        .args(["--blockdev", &format!("driver=file,node-name=to,filename={}", path("log"))])
        .args([
            "--blockdev",
            "driver=blklogwrites,node-name=logged,file=raw,log=to,log-sector-size=512",
        ])
        .args([
            "--export",
            &format!(
                "type=fuse,id=export,node-name=logged,mountpoint={},writable=on",
                path("export")
            ),
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let service = Service::exporting(service, &file("export"));
    let device = Loop::over(&file("export"));
    make_file_system(kind, Path::new(&device.0));
    let log_len = || std::fs::metadata(file("log")).unwrap().len();
    let made;
    let acknowledged = Acknowledged::default();
    {
        let mounted = Mounted::new(Path::new(&device.0), &file("mounted")).unwrap();
        run("sync", &[]);
        made = log_len();
        for _ in 0..6 {
            let time = Duration::from_millis(350);
            live(&mounted.store(), &[], &acknowledged, &log_len, time, || ());
        }
    }
    drop(device);
    drop(service);
    (acknowledged, made)
}

#[test]
#[ignore = "needs root, loop devices, fuse3, nbdkit and libnbd-bin"]
fn a_failed_writeback_takes_nothing_back_that_was_served() {
    for (kind, size) in [("ext4", "48M"), ("xfs", "320M")] {
        let rounds = cuts().div_ceil(10);
        let mut failed = 0;
        for round in 0..rounds {
            failed += usize::from(fail_a_writeback(kind, size, round as u64));
        }
        println!("{kind}: {rounds} rounds, in {failed} of them a sync failed");
        assert!(failed > 0, "no sync has ever failed");
    }
}

/// Whether a sync failed in it.
fn fail_a_writeback(kind: &str, size: &str, round: u64) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    must("truncate", &["-s", size, text(&file("data"))]);
    File::create(file("export")).unwrap();
    std::fs::create_dir(file("mounted")).unwrap();
    let service = Command::new("nbdfuse")
        .arg(file("export"))
        .args(["--command", "nbdkit", "-s", "--filter=error", "file"])
        .arg(file("data"))
        .args(["error-pwrite=EIO", "error-pwrite-rate=100%"])
        .arg(format!("error-pwrite-file={}", text(&file("fail"))))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let service = Service::exporting(service, &file("export"));
    let device = Loop::over(&file("export"));
    make_file_system(kind, Path::new(&device.0));
    let acknowledged = Acknowledged::default();
    let failed;
    {
        let mounted = Mounted::new(Path::new(&device.0), &file("mounted")).unwrap();
        let path = mounted.store();
        let time = Duration::from_millis(30 + round * 13 % 60);
        live(&path, &[], &acknowledged, &|| 0, time, || {
            File::create(file("fail")).unwrap();
            std::thread::sleep(Duration::from_millis(8));
            std::fs::remove_file(file("fail")).unwrap();
        });
        // The disk works again, and the cache shows what it does not have.
        let store = options().open(&path);
        failed = store
            .as_ref()
            .is_ok_and(|store| store.boot_report().last_run != rocstate::LastRun::Idle)
            || store.is_err();
        if let Ok(store) = store {
            let map: Map = store.durable_map("map").unwrap();
            for thread in 0..THREADS {
                // Whatever is served counts as acknowledged.
                let served = newest(&map, &store, thread).unwrap();
                acknowledged.lock().unwrap().push((thread, served, 0));
            }
        }
        // A file system that lost its own log has shut itself down.
        run("xfs_io", &["-x", "-c", "shutdown", text(&mounted.0)]);
    }
    let mounted = Mounted::new(Path::new(&device.0), &file("mounted")).unwrap();
    let what = format!("{kind}, round {round}");
    check(&mounted.store(), &newest_acknowledged(&acknowledged, 0), &what).unwrap();
    drop(mounted);
    drop(device);
    drop(service);
    failed
}

/// The child of the next test: commits, and says so on its output.
#[test]
#[ignore = "run by the test of system calls"]
fn child_that_commits() {
    use std::io::Write;
    let Ok(path) = std::env::var("ROCSTATE_TEST_CHILD") else { return };
    let store = options().open(path).unwrap();
    let out = std::io::stdout();
    let stop = AtomicBool::new(false);
    write(&store, 0, &stop, &|n, durability| {
        writeln!(out.lock(), "ack {n} {durability:?}").unwrap();
        if n % 60 == 0 {
            stop.store(true, Ordering::Relaxed);
        }
    });
}

#[test]
#[ignore = "needs strace"]
fn a_process_that_dies_or_fails_at_any_system_call_loses_nothing() {
    let faults = ["signal=KILL", "error=EIO", "error=ENOSPC", "retval=3"];
    let (mut runs, mut lies) = (0, 0);
    for fault in faults {
        let step = if cuts() < 1_000 { 7 } else { 1 };
        for (number, call) in (1..280).step_by(step).take(cuts()).enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            // A short write is one of `pwrite64` alone: a sync has no length.
            let calls =
                if fault == "retval=3" { "pwrite64" } else { "pwrite64,fdatasync,fsync,rename" };
            let mut acknowledged = BTreeMap::new();
            for life in 0..2 {
                let inject = format!("inject={calls}:{fault}:when={}", call + life);
                let output = Command::new("strace")
                    .args(["-f", "-qq", "-o", "/dev/null", "-e", &inject])
                    .arg(std::env::current_exe().unwrap())
                    .args(["child_that_commits", "--ignored", "--nocapture"])
                    .env("ROCSTATE_TEST_CHILD", &path)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let acks = text.lines().filter_map(|line| {
                    line.split("ack ").nth(1)?.split(' ').next()?.parse::<u32>().ok()
                });
                let newest = acks.max().unwrap_or(0);
                let known = acknowledged.entry(0).or_insert(0);
                *known = newest.max(*known);
                let what = format!("{fault} at call {call}, run {number}, life {life}");
                runs += 1;
                let outcome = check(&path, &acknowledged, &what);
                // strace says that three bytes were written and has none written: a lie, which is seen
                // as damage unless it was told of the last group.
                if fault == "retval=3" && outcome.is_err() {
                    lies += 1;
                    break;
                }
                outcome.unwrap();
            }
        }
    }
    println!("{runs} processes that died or whose calls failed, {lies} lies about writes");
}
