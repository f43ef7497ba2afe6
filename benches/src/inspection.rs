//! How fast rocdump prints and verifies, beside what reading the same bytes takes at least.
//!
//! `cargo run --release -p rocstate-bench --bin inspection -- [COMMITS] [ENTRIES] [ROUNDS]`

#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::cast_precision_loss, reason = "rates are told in three digits")]

use std::error::Error;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use rocdump::{Exit, Rocdump};
use rocstate::{Durability, DurableMap, Store};
use rocstate_bench::data::Order;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (commits, entries, rounds) = (next(1_000_000)?, next(2_000_000)?, next(5)?);
    let dir = tempfile::tempdir()?;
    let (log, state) = (dir.path().join("log"), dir.path().join("state"));
    let few = rounds.min(3);
    fill_log(&log, commits)?;
    fill_state(&state, entries)?;
    println!(
        "{commits} commits of one order each; {entries} orders in a checkpoint; {rounds} rounds"
    );
    println!("{:<34} {:>12} {:>12} {:>12}", "", "median", "least", "most");

    let file = dir.path().join("out");
    let printed = |extra: &[&str]| -> Result<f64, Failure> {
        let mut to = std::fs::File::create(&file)?;
        let mut arguments = vec!["rocdump", "--quiet", "log", path(&log)?];
        arguments.extend(extra);
        let took = timed(&arguments, &mut to)?;
        Ok(commits as f64 / took.as_secs_f64() / 1e3)
    };
    row("log, thousand commits a second", rounds, &mut || printed(&[]))?;
    row("log --json, thousand a second", few, &mut || printed(&["--json"]))?;
    row("log --ops, thousand a second", few, &mut || printed(&["--ops"]))?;
    for (name, store) in [("log", &log), ("checkpoint", &state)] {
        let bytes = bytes_of(store)?;
        let what = format!("reading the {name}'s files, MB/s");
        row(&what, rounds, &mut || {
            let took = read_all(store)?;
            Ok(bytes as f64 / took.as_secs_f64() / 1e6)
        })?;
        let what = format!("verify of the {name}, MB/s");
        row(&what, rounds, &mut || {
            let took =
                timed(&["rocdump", "--quiet", "verify", path(store)?], &mut std::io::sink())?;
            Ok(bytes as f64 / took.as_secs_f64() / 1e6)
        })?;
    }
    Ok(())
}

fn path(path: &Path) -> Result<&str, Failure> {
    path.to_str().ok_or_else(|| "the temporary directory has a strange name".into())
}

fn row(
    name: &str,
    rounds: u64,
    measure: &mut dyn FnMut() -> Result<f64, Failure>,
) -> Result<(), Failure> {
    let mut rates = (0..rounds).map(|_| measure()).collect::<Result<Vec<f64>, Failure>>()?;
    rates.sort_by(f64::total_cmp);
    let (least, most) = (rates.first().copied(), rates.last().copied());
    let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
    println!(
        "{name:<34} {median:>12.0} {:>12.0} {:>12.0}",
        least.unwrap_or_default(),
        most.unwrap_or_default()
    );
    Ok(())
}

fn timed(arguments: &[&str], to: &mut dyn std::io::Write) -> Result<Duration, Failure> {
    let began = Instant::now();
    let mut errors = Vec::new();
    let exit = Rocdump::new().run_with(arguments, to, &mut errors);
    if exit == Exit::Fine {
        Ok(began.elapsed())
    } else {
        Err(String::from_utf8_lossy(&errors).into_owned().into())
    }
}

/// The bytes of the checkpoint files and of what is written of the log.
fn bytes_of(store: &Path) -> Result<u64, Failure> {
    let mut out = Vec::new();
    timed(&["rocdump", "--json", "verify", path(store)?], &mut out)?;
    let seen: serde_json::Value = serde_json::from_slice(&out)?;
    seen["bytes"].as_u64().ok_or_else(|| "verify does not say how much it read".into())
}

fn read_all(store: &Path) -> Result<Duration, Failure> {
    let began = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    for entry in std::fs::read_dir(store)? {
        let mut file = std::fs::File::open(entry?.path())?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(began.elapsed())
}

fn fill_log(path: &Path, commits: u64) -> Result<(), Failure> {
    // No checkpoint comes in between, so that all of the log is kept.
    let options = Store::options().boot_budget(Duration::from_secs(3600)).segment_bytes(64 << 20);
    let store = options.durability(Durability::Process).open(path)?;
    let orders: DurableMap<u64, Order> = store.durable_map("orders")?;
    for commit in 0..commits {
        store.transact(|tx| {
            tx.label("order");
            orders.insert(tx, commit % 100_000, Order::new(commit, 0))
        })?;
    }
    Ok(())
}

fn fill_state(path: &Path, entries: u64) -> Result<(), Failure> {
    let store = Store::options().durability(Durability::Process).open(path)?;
    let orders: DurableMap<u64, Order> = store.durable_map("orders")?;
    let mut key = 0;
    while key < entries {
        store.transact(|tx| {
            for key in key..(key + 1000).min(entries) {
                orders.insert(tx, key, Order::new(key, 0))?;
            }
            Ok(())
        })?;
        key += 1000;
    }
    store.checkpoint()?;
    Ok(())
}
