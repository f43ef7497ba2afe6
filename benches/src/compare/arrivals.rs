//! Synced commits of threads that do not wait for each other: they come at random times, so many a second, as
//! requests to a server do. What counts is how long each takes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::Failure;

use crate::Plan;
use crate::durable::{KEYS, Latencies, MEAN, P99, in_threads, prewritten, write_synced};
use crate::floor::drawn;
use crate::peers::ENTRANTS;
use crate::report::Report;

const RAW: &str = "raw write + fdatasync, each for itself";

const THREADS: u64 = 16;

/// Of all threads. A loop of syncs of 200 us makes four thousand.
const COMMITS_A_SECOND: [u32; 4] = [1_000, 2_000, 4_000, 8_000];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    for rate in COMMITS_A_SECOND {
        at_rate(plan, report, rate)?;
    }
    Ok(())
}

fn at_rate(plan: &Plan, report: &mut Report, rate: u32) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let raw = prewritten(&dir.path().join("raw"))?;
    let mut latencies = Latencies::new(plan.time);
    latencies.add(RAW, || {
        let (order, next) = (Order::new(1, 1).to_bytes(), AtomicU64::new(0));
        arrive(rate, plan.time, &|_| {
            Ok(write_synced(&raw, next.fetch_add(1, Ordering::Relaxed), &order)?)
        })
    });
    for entrant in &ENTRANTS {
        let dir = dir.path().join(entrant.name);
        std::fs::create_dir(&dir)?;
        let peer = (entrant.open)(&dir)?;
        latencies.add(entrant.name, move || {
            arrive(rate, plan.time, &|dice| peer.commit(drawn(dice, KEYS, 1)))
        });
    }
    let question = format!("synced commits that come at random, {rate} a second");
    latencies.ask(plan, report, &question, &[MEAN, P99])
}

/// Commits by threads that each make the next one when its time has come, or when the last one is done; how long each
/// took, in seconds.
fn arrive(
    rate: u32,
    time: Duration,
    commit: &(dyn Fn(&mut Dice) -> Result<(), Failure> + Sync),
) -> Result<Vec<f64>, Failure> {
    let mean_gap = THREADS as f64 / f64::from(rate);
    in_threads(THREADS, time, |seed, stop| {
        let (mut dice, mut times) = (Dice::new(seed * 7919), Vec::new());
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            due += Duration::from_secs_f64(gap(&mut dice) * mean_gap);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let began = Instant::now();
            due = due.max(began);
            commit(&mut dice).map_err(|error| error.to_string())?;
            times.push(began.elapsed().as_secs_f64());
        }
        Ok(times)
    })
}

/// The time until the next of events that come at random, one in a unit of time on the average.
fn gap(dice: &mut Dice) -> f64 {
    const PARTS: u64 = 1 << 32;
    -((dice.below(PARTS) as f64 + 1.0) / PARTS as f64).ln()
}
