//! Durable commits against the floor, alternating in one run: a raw loop of write + fdatasync of one
//! block into prewritten space, a store with one writer, a store with sixteen.
//!
//! `cargo run --release -p rocstate-bench --bin commits -- [ROUNDS] [SECONDS PER CONTENDER]`

#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::cast_precision_loss, reason = "rates are told in three digits")]

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use rocstate::{DurableMap, Store};

type Failure = Box<dyn Error>;

const BLOCK: usize = 4096;
const PREWRITTEN_BLOCKS: u64 = 8192;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(7), |text| text.parse())?;
    let seconds: f64 = arguments.next().map_or(Ok(0.7), |text| text.parse())?;
    let dir = tempfile::tempdir_in(".")?;
    let time = Duration::from_secs_f64(seconds);
    let raw_file = prewritten(&dir.path().join("raw"))?;

    let mut rows: Vec<[f64; 3]> = Vec::new();
    println!("round      raw/s   1 writer/s  16 writers/s   1 : raw   16 : 1   16 : 16 raw");
    for round in 0..rounds {
        let raw = raw_loop(&raw_file, time)?;
        let one = store_loop(&dir.path().join(format!("one-{round}")), 1, time)?;
        let sixteen = store_loop(&dir.path().join(format!("sixteen-{round}")), 16, time)?;
        println!(
            "{round:>5} {raw:>10.0} {one:>12.0} {sixteen:>13.0} {:>9.2} {:>8.1} {:>12.2}",
            one / raw,
            sixteen / one,
            sixteen / raw / 16.0
        );
        rows.push([raw, one, sixteen]);
    }
    let median = |of: &dyn Fn(&[f64; 3]) -> f64| {
        let mut values: Vec<f64> = rows.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    println!(
        "median {:>9.0} {:>12.0} {:>13.0} {:>9.2} {:>8.1} {:>12.2}",
        median(&|row| row[0]),
        median(&|row| row[1]),
        median(&|row| row[2]),
        median(&|row| row[1] / row[0]),
        median(&|row| row[2] / row[1]),
        median(&|row| row[2] / row[0] / 16.0),
    );
    Ok(())
}

/// A file whose blocks were written and synced before.
fn prewritten(path: &Path) -> Result<File, Failure> {
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    for block in 0..PREWRITTEN_BLOCKS {
        file.write_all_at(&[0; BLOCK], block * BLOCK as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Blocks written and synced per second, one after the other.
fn raw_loop(file: &File, time: Duration) -> Result<f64, Failure> {
    let (began, mut done) = (Instant::now(), 0u64);
    while began.elapsed() < time {
        file.write_all_at(&[1; BLOCK], done % PREWRITTEN_BLOCKS * BLOCK as u64)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// Acknowledged commits per second of `writers` threads, each of one small insert.
fn store_loop(path: &Path, writers: u64, time: Duration) -> Result<f64, Failure> {
    let store = Store::open(path)?;
    let map: DurableMap<u64, String> = store.durable_map("map")?;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let start = Arc::new(Barrier::new(usize::try_from(writers)? + 1));
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, map) = (store.clone(), map.clone());
            let (stop, done, start) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&start));
            std::thread::spawn(move || -> rocstate::Result<()> {
                start.wait();
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = (n * 7919 + writer * 104_729) % 1_000_000;
                    store.transact(|tx| map.insert(tx, key, format!("value {n} of {writer}")))?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    start.wait();
    let began = Instant::now();
    std::thread::sleep(time);
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a writer panicked")??;
    }
    drop((store, map));
    std::fs::remove_dir_all(path)?;
    Ok(rate)
}
