//! First touches: entries read one by one by a process that has only opened its store, with nobody who loads them
//! ahead.

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use rocstate::{DurableMap, Store, Warming};

use crate::{
    Failure, PER_COMMIT, UPDATES, can_empty_the_cache, copy_store, empty_the_cache, figures,
    prepare, spread,
};
use rocstate_bench::data::{Dice, Order};

const ENTRIES: u64 = 1_000_000;
/// Few enough that they seldom meet what another has loaded.
const TOUCHES: usize = 1_000;

/// Opens a store and reads keys at random; prints the median and the 99th percentile, in microseconds.
pub(crate) fn touch(dir: &Path, seed: u64) -> Result<(), Failure> {
    let store = Store::options().warming(Warming::OnDemand).open(dir)?;
    let map: DurableMap<u64, Order> = store.durable_map("orders")?;
    let (view, mut dice, mut times) = (store.view(), Dice::new(seed), Vec::new());
    for _ in 0..TOUCHES {
        let key = dice.below(ENTRIES);
        let began = Instant::now();
        black_box(map.get(&view, &key)?);
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    println!("{} {}", times[TOUCHES / 2], times[TOUCHES * 99 / 100]);
    std::process::exit(0)
}

/// Touches in fresh processes, with the page cache as the dead one left it and, where that can be had, empty.
pub(crate) fn measure(rounds: u64) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    prepare("rocstate", dir.path(), ENTRIES, UPDATES, PER_COMMIT)?;
    let (store, copy) = (dir.path().join("rocstate"), dir.path().join("copy"));
    println!("\n{TOUCHES} first touches at random of {ENTRIES} entries; microseconds");
    println!("{:<12} {:>24} {:>24}", "page cache", "median", "99th percentile");
    for (cache, chill) in [("warm", false), ("emptied", true)] {
        if chill && !can_empty_the_cache() {
            continue;
        }
        let (mut medians, mut tails) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            copy_store("rocstate", &store, &copy)?;
            if chill {
                empty_the_cache()?;
            }
            let path = copy.to_str().ok_or("the path is not UTF-8")?;
            let touched = figures(&["touch", path, &(round * 7919).to_string()]);
            std::fs::remove_dir_all(&copy)?;
            let [median, tail] = touched?;
            medians.push(median);
            tails.push(tail);
        }
        println!("{cache:<12} {:>24} {:>24}", spread(medians), spread(tails));
    }
    Ok(())
}
