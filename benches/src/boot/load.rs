//! A process that is killed at any moment of full load, and how long the next one takes to its first
//! read.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rocstate::{DurableMap, Store};

use crate::{Failure, child, figures, spread};
use rocstate_bench::data::{Dice, Order};

const KEYS: u64 = 1_000_000;

/// Writes synced commits of one insert from so many threads until it is killed.
pub(crate) fn write_until_killed(dir: &Path, writers: u64) -> Result<(), Failure> {
    let store = Store::open(dir)?;
    let map: DurableMap<u64, Order> = store.durable_map("orders")?;
    // Other keys in each run.
    let run = store.generation().epoch();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers)
            .map(|writer| {
                let (store, map) = (&store, &map);
                scope.spawn(move || -> rocstate::Result<()> {
                    let mut dice = Dice::new((writer + 1).wrapping_mul(0x9e37_79b9) ^ (run << 40));
                    loop {
                        let key = dice.below(KEYS);
                        store.transact(|tx| map.insert(tx, key, Order::new(key, 1)))?;
                    }
                })
            })
            .collect();
        println!("begun");
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(outcome) => outcome.map_err(Failure::from),
            Err(_) => Err("a writer panicked".into()),
        })
    })
}

/// Opens what the kill left and reads one key.
pub(crate) fn first_read(dir: &Path) -> Result<(), Failure> {
    let began = Instant::now();
    let store = Store::open(dir)?;
    let map: DurableMap<u64, Order> = store.durable_map("orders")?;
    std::hint::black_box(map.get(&store.view(), &77)?);
    let taken = began.elapsed();
    let report = store.boot_report();
    println!(
        "{} {} {} {}",
        taken.as_secs_f64(),
        report.estimate.as_secs_f64(),
        report.commits_replayed,
        map.len(&store.view())
    );
    std::process::exit(0)
}

/// Kills and reads, round after round, on one store that grows.
pub(crate) fn measure(rounds: usize) -> Result<(), Failure> {
    println!("\nkilled under full load, {rounds} times; first read of the next process, ms");
    println!(
        "{:<11} {:>24} {:>24} {:>9} {:>9}",
        "", "measured", "estimated", "replayed", "entries"
    );
    for writers in ["1", "16"] {
        let dir = tempfile::tempdir_in(".")?;
        let path = dir.path().to_str().ok_or("the path is not UTF-8")?;
        let mut dice = Dice::new(12_345);
        let (mut measured, mut estimated, mut replayed) = (Vec::new(), Vec::new(), Vec::new());
        let mut entries = 0;
        for _ in 0..rounds {
            let mut writing = child(&["write", path, writers])?.stdout(Stdio::piped()).spawn()?;
            let mut line = String::new();
            if let Some(output) = writing.stdout.take() {
                BufReader::new(output).read_line(&mut line)?;
            }
            std::thread::sleep(Duration::from_millis(300 + dice.below(3_000)));
            writing.kill()?;
            writing.wait()?;
            let [first, estimate, commits, len] = figures(&["first-read", path])?;
            measured.push(first * 1e3);
            estimated.push(estimate * 1e3);
            replayed.push(commits);
            entries = entries.max(format!("{len:.0}").parse()?);
        }
        let most = replayed.iter().copied().fold(0.0, f64::max);
        let (measured, estimated) = (spread(measured), spread(estimated));
        println!("{writers:>2} writers  {measured:>24} {estimated:>24} {most:>9.0} {entries:>9}");
    }
    Ok(())
}
