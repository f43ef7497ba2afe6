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
    pub mod devices;
    pub mod settings;
    pub mod writers;
}

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::blocklog::{apply, read_block_log};
use common::devices::{Loop, Mounted, Service, file_systems, make_file_system, must, run, text};
use common::settings::{seeded, setting};
use common::writers::{self, Ack, Clock, STORE, Writers, check, newest_of};
use rocstate::control::Step;
use rocstate::{Disk, OpenMode, Storage};

fn cuts() -> usize {
    setting("ROCSTATE_CUTS", 30)
}

/// The process of the writers.
#[test]
#[ignore = "run by the other tests"]
fn child_of_writers() {
    writers::write_until_told();
}

/// Cuts the power of one file system again and again, under the same store; how many commits were promised
/// to survive that, if all did.
///
/// A sync that is under way while a file system is shut down may return as if it had succeeded (ext4 looks for
/// the transaction that it waits for, and finds that there is none any more): nobody would hear of it whose
/// power has gone. So only what was acknowledged before counts.
fn shut_down_again_and_again(
    kind: &str,
    image: &Path,
    at: &Path,
    cuts: usize,
    leaving_out: Option<Step>,
) -> Result<usize, String> {
    let mut promised: Vec<Ack> = Vec::new();
    for cut in 0..cuts {
        let mounted = Mounted::new(image, at).unwrap();
        let path = mounted.store();
        if cut > 0 {
            check(&path, &newest_of(promised.iter()), &format!("{kind}, cut {cut}"))?;
        }
        let (writers, switch) =
            (Writers::begin(&path, &Clock::Time, leaving_out), mounted.switch());
        // Some cuts meet the boot.
        if cut % 3 != 2 {
            writers.wait_until_opened();
        }
        std::thread::sleep(Duration::from_micros((cut as u64 * 7_919) % 50_000));
        let power_goes = Clock::Time.now();
        switch.turn_off();
        let acks = writers.end().acks.into_iter();
        promised.extend(acks.filter(|ack| ack.is_durable && ack.at < power_goes));
    }
    Ok(promised.len())
}

/// The least that each file system takes.
const SIZES: [(&str, &str); 2] = [("ext4", "48M"), ("xfs", "320M")];

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
        let kept = shut_down_again_and_again(kind, &image, &at, cuts(), None).unwrap();
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
            shut_down_again_and_again(kind, image, &at, 60, Some(step)).err()
        });
        println!("without {step:?}: {}", caught.clone().unwrap_or("nothing".into()));
        assert!(caught.is_some(), "nobody misses {step:?}");
    }
}

#[test]
#[ignore = "needs root, loop devices, fuse3 and qemu-storage-daemon"]
fn every_replay_of_a_block_log_keeps_what_was_acknowledged() {
    for (kind, size) in SIZES {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        must("truncate", &["-s", size, text(&file("data"))]);
        File::create(file("log")).unwrap();
        let (acks, made) = record_block_log(kind, dir.path());
        let log = File::open(file("log")).unwrap();
        let entries = read_block_log(&log);
        let made = entries.iter().position(|entry| entry.end >= made).unwrap();
        let mut random = fastrand::Rng::with_seed(seeded(7));
        let mut points: Vec<usize> =
            (0..cuts()).map(|_| random.usize(made..entries.len())).collect();
        points.sort_unstable();
        must("truncate", &["-s", size, text(&file("stable"))]);
        let stable = File::options().write(true).open(file("stable")).unwrap();
        let (mut applied, mut unmountable) = (0, 0);
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
            // A file system may not outlive that its own blocks are torn.
            let Some(mounted) = Mounted::new(&file("image"), &file("mounted")) else {
                println!("{what}: it cannot be mounted");
                unmountable += 1;
                continue;
            };
            // The last flush ends with whatever was told before it began.
            let flush = entries[flushed].end;
            let promised = newest_of(acks.iter().filter(|ack| ack.is_durable && ack.at <= flush));
            check(&mounted.store(), &promised, &what).unwrap();
        }
        assert!(unmountable * 20 <= points.len(), "{unmountable} of {} replays", points.len());
        println!(
            "{kind}: {} replays of {} writes, {} commits acknowledged",
            points.len(),
            entries.len(),
            acks.len()
        );
    }
}

/// A device with a file system, which a program serves as `export` in a directory.
struct Served {
    /// Ends first.
    device: Loop,
    _service: Service,
}

impl Served {
    fn by(program: &mut Command, kind: &str, dir: &Path) -> Served {
        let export = dir.join("export");
        File::create(&export).unwrap();
        std::fs::create_dir(dir.join("mounted")).unwrap();
        let service = program.stderr(Stdio::null()).spawn().unwrap();
        let service = Service::exporting(service, &export);
        let device = Loop::over(&export);
        make_file_system(kind, Path::new(&device.0));
        Served { device, _service: service }
    }

    /// As `mounted` beside it.
    fn mount(&self, dir: &Path) -> Mounted {
        Mounted::new(Path::new(&self.device.0), &dir.join("mounted")).unwrap()
    }
}

/// Runs a store over a device that logs its writes; what was acknowledged, and where in the log the file
/// system was made.
fn record_block_log(kind: &str, dir: &Path) -> (Vec<Ack>, u64) {
    let file = |name: &str| dir.join(name);
    let path = |name: &str| text(&dir.join(name)).to_owned();
    let mut daemon = Command::new("qemu-storage-daemon");
    daemon
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
        ]);
    let served = Served::by(&mut daemon, kind, dir);
    let clock = Clock::LengthOf(file("log"));
    let made;
    let mut acks = Vec::new();
    {
        let mounted = served.mount(dir);
        run("sync", &[]);
        made = clock.now();
        for _ in 0..6 {
            let writers = Writers::begin(&mounted.store(), &clock, None);
            writers.wait_until_opened();
            std::thread::sleep(Duration::from_millis(350));
            acks.extend(writers.end().acks);
        }
    }
    drop(served);
    (acks, made)
}

#[test]
#[ignore = "needs root, loop devices, fuse3, nbdkit and libnbd-bin"]
fn a_failed_writeback_takes_nothing_back_that_was_served() {
    for (kind, size) in SIZES {
        let rounds = cuts().div_ceil(10);
        let mut failed = 0;
        for round in 0..rounds {
            failed += usize::from(fail_a_writeback(kind, size, round as u64));
        }
        println!("{kind}: {rounds} rounds, in {failed} of them a sync failed");
        assert!(failed > 0, "no sync has ever failed");
    }
}

/// A file system on a disk that fails each write while a file stands beside it.
struct Failing {
    served: Served,
    dir: tempfile::TempDir,
}

impl Failing {
    fn new(kind: &str, size: &str) -> Failing {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        must("truncate", &["-s", size, text(&file("data"))]);
        let mut service = Command::new("nbdfuse");
        service
            .arg(file("export"))
            .args(["--command", "nbdkit", "-s", "--filter=error", "file"])
            .arg(file("data"))
            .args(["error-pwrite=EIO", "error-pwrite-rate=100%"])
            .arg(format!("error-pwrite-file={}", text(&file("fail"))));
        Failing { served: Served::by(&mut service, kind, dir.path()), dir }
    }

    fn mount(&self) -> Mounted {
        self.served.mount(self.dir.path())
    }

    fn fail(&self) {
        File::create(self.dir.path().join("fail")).unwrap();
    }

    fn work_again(&self) {
        std::fs::remove_file(self.dir.path().join("fail")).unwrap();
    }
}

/// What two syncs at a time rest on: of one open file only one of them would be told.
#[test]
#[ignore = "needs root, loop devices, fuse3, nbdkit and libnbd-bin"]
fn each_of_two_syncs_at_a_time_is_told_of_a_failed_writeback() {
    const BLOCKS: u64 = 1024;
    for (kind, size) in SIZES {
        let mut at_a_time = 0;
        for round in 0..cuts().div_ceil(10) {
            let failing = Failing::new(kind, size);
            let mounted = failing.mount();
            let file = Disk.open(&mounted.0.join("file"), OpenMode::CreateNew).unwrap();
            assert!(file.expect_syncs_beside());
            let write =
                |byte| (0..BLOCKS).for_each(|n| file.write_at(&[byte; 4096], n * 4096).unwrap());
            write(0);
            file.sync().unwrap();
            write(1);
            failing.fail();
            let barrier = Barrier::new(2);
            let sync = || {
                barrier.wait();
                let began = Instant::now();
                (file.sync().is_err(), began, Instant::now())
            };
            let syncs = std::thread::scope(|scope| {
                [scope.spawn(sync), scope.spawn(sync)].map(|sync| sync.join().unwrap())
            });
            failing.work_again();
            let [(_, _, first), (_, _, second)] = syncs;
            let began = syncs.iter().map(|(_, began, _)| *began).max().unwrap();
            // One that began when the other had ended has its open file.
            if began + Duration::from_millis(1) < first.min(second) {
                at_a_time += 1;
                assert_eq!(syncs.map(|(failed, ..)| failed), [true; 2], "{kind}, round {round}");
            }
        }
        println!("{kind}: {at_a_time} times two syncs failed at a time");
        assert!(at_a_time > 0, "they never ran at a time");
    }
}

/// Whether a sync failed in it.
fn fail_a_writeback(kind: &str, size: &str, round: u64) -> bool {
    let failing = Failing::new(kind, size);
    let what = format!("{kind}, round {round}");
    let (ended, served);
    {
        let mounted = failing.mount();
        let writers = Writers::begin(&mounted.store(), &Clock::Time, None);
        writers.wait_until_opened();
        std::thread::sleep(Duration::from_millis(30 + round * 13 % 60));
        failing.fail();
        std::thread::sleep(Duration::from_millis(8));
        failing.work_again();
        ended = writers.end();
        // The disk works again, and the cache shows what it does not have. Whatever is served now counts as
        // acknowledged; a file system that lost its own log has shut itself down, and serves nothing.
        let promised = newest_of(ended.acks.iter().filter(|ack| ack.is_durable));
        served = check(&mounted.store(), &promised, &what).unwrap_or(promised);
        run("xfs_io", &["-x", "-c", "shutdown", text(&mounted.0)]);
    }
    let mounted = failing.mount();
    check(&mounted.store(), &served, &what).unwrap();
    drop(mounted);
    drop(failing);
    ended.failed
}

/// The child of the next test: commits so often, and says so.
#[test]
#[ignore = "run by the test of system calls"]
fn child_that_commits() {
    let Ok(path) = std::env::var(STORE) else { return };
    let store = writers::options().open(path).unwrap();
    let stop = AtomicBool::new(false);
    writers::write(&store, 0, &stop, &|n, is_durable| {
        Ack { thread: 0, n, is_durable, at: 0 }.tell();
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
            let mut acknowledged = Vec::new();
            for life in 0..2 {
                let inject = format!("inject={calls}:{fault}:when={}", call + life);
                let output = Command::new("strace")
                    .args(["-f", "-qq", "-o", "/dev/null", "-e", &inject])
                    .arg(std::env::current_exe().unwrap())
                    .args(["child_that_commits", "--ignored", "--nocapture"])
                    .env(STORE, &path)
                    .output()
                    .unwrap();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                acknowledged.extend(text.lines().filter_map(Ack::heard));
                let what = format!("{fault} at call {call}, run {number}, life {life}");
                runs += 1;
                let outcome = check(&path, &newest_of(acknowledged.iter()), &what);
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
