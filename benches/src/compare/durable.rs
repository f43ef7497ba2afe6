//! Synced commits: one writer to many, against the peers, a raw loop of write and fdatasync, and threads
//! that do nothing but share such a loop.

mod latencies;
mod shared;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::drawn;
use crate::peers::ENTRANTS;
use crate::report::Report;

pub(crate) use latencies::{Latencies, MEAN, P99};
pub(crate) use shared::write as share_syncs;

const RAW: &str = "raw write + fdatasync, one thread";
const SHARED: &str = "one write + fdatasync for all, no store";

const BLOCK: usize = 4096;
const PREWRITTEN_BLOCKS: u64 = 4096;
pub(crate) const KEYS: u64 = 100_000;
const PER_BATCH: usize = 1000;

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    for writers in [1, 4, 16, 64] {
        commits(plan, report, writers)?;
    }
    batches(plan, report)
}

fn commits(plan: &Plan, report: &mut Report, writers: u64) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let raw = prewritten(&dir.path().join("raw"))?;
    let mut latencies = Latencies::new(plan.time);
    latencies.add(RAW, || raw_loop(&raw, plan.time));
    latencies.add(SHARED, || shared::write(&raw, writers, plan.time));
    for entrant in &ENTRANTS {
        let dir = dir.path().join(entrant.name);
        std::fs::create_dir(&dir)?;
        let peer = (entrant.open)(&dir)?;
        latencies.add(entrant.name, move || {
            commit_from(writers, KEYS, plan.time, &|orders| peer.commit(orders))
        });
    }
    latencies.ask(plan, report, &format!("synced commits, {writers} writers"), &[P99])
}

/// Commits by so many threads, each of one order with a key below `keys`; how long each took, in seconds.
pub(crate) fn commit_from(
    writers: u64,
    keys: u64,
    time: Duration,
    commit: &(dyn Fn(Vec<(u64, Order)>) -> Result<(), Failure> + Sync),
) -> Result<Vec<f64>, Failure> {
    commit_what(writers, time, |dice| drawn(dice, keys, 1), commit)
}

/// Commits by so many threads of what each draws before; how long each commit took, in seconds.
pub(crate) fn commit_what<T>(
    writers: u64,
    time: Duration,
    draw: impl Fn(&mut Dice) -> T + Sync,
    commit: impl Fn(T) -> Result<(), Failure> + Sync,
) -> Result<Vec<f64>, Failure> {
    in_threads(writers, time, |seed, stop| {
        let (mut dice, mut times) = (Dice::new(seed * 7919), Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let what = draw(&mut dice);
            let began = Instant::now();
            commit(what).map_err(|error| error.to_string())?;
            times.push(began.elapsed().as_secs_f64());
        }
        Ok(times)
    })
}

/// Runs it in threads numbered from 1, which are told to stop after a while; all that they return.
pub(crate) fn in_threads(
    count: u64,
    time: Duration,
    run: impl Fn(u64, &AtomicBool) -> Result<Vec<f64>, String> + Sync,
) -> Result<Vec<f64>, Failure> {
    let stop = AtomicBool::new(false);
    let all: Result<Vec<Vec<f64>>, Failure> = std::thread::scope(|scope| {
        let (run, stop) = (&run, &stop);
        let threads: Vec<_> = (1..=count).map(|nth| scope.spawn(move || run(nth, stop))).collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.map(|times| times.map_err(|_| "a writer panicked")?.map_err(Failure::from)).collect()
    });
    all.map(|times| times.concat())
}

/// Batches of one writer, into a map that is empty at first.
fn batches(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let mut question = Question::of_rates(
        format!("synced batches of {PER_BATCH}, keys at random"),
        "operations/s",
    );
    for entrant in &ENTRANTS {
        let dir = dir.path().join(entrant.name);
        std::fs::create_dir(&dir)?;
        let (peer, mut dice) = ((entrant.open)(&dir)?, Dice::new(3));
        question = question.ask(entrant.name, move || {
            let batches: Vec<_> =
                (0..20).map(|_| drawn(&mut dice, plan.entries, PER_BATCH)).collect();
            let (count, began) = (batches.len() * PER_BATCH, Instant::now());
            batches.into_iter().try_for_each(|batch| peer.commit(batch))?;
            Ok(count as f64 / began.elapsed().as_secs_f64())
        });
    }
    report.ask(question, plan.rounds)
}

/// A file whose blocks were written and synced before.
pub(crate) fn prewritten(path: &Path) -> Result<File, Failure> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    for block in 0..PREWRITTEN_BLOCKS {
        file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Blocks written and synced one after the other; how long each took, in seconds.
fn raw_loop(file: &File, time: Duration) -> Result<Vec<f64>, Failure> {
    let (began, mut times) = (Instant::now(), Vec::new());
    let order = Order::new(1, 1).to_bytes();
    while began.elapsed() < time {
        let began = Instant::now();
        write_synced(file, times.len() as u64, &order)?;
        times.push(began.elapsed().as_secs_f64());
    }
    Ok(times)
}

/// One block, with these bytes in it, as the so many-th.
pub(crate) fn write_synced(file: &File, nth: u64, bytes: &[u8]) -> std::io::Result<()> {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    file.write_all_at(&block, nth % PREWRITTEN_BLOCKS * BLOCK as u64)?;
    file.sync_data()
}
