//! Short runs: a store is opened, one order is committed, the store is closed, again and again, as a program does
//! that is restarted all the time or ends at once.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rocstate_bench::data::Order;
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::peers::ENTRANTS;
use crate::report::Report;

/// How many runs there are in a round.
const RUNS: u64 = 100;

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let raw = dir.path().join("raw");
    let mut runs = Question::of_costs("a run that commits one order", "us")
        .ask("an appended line, synced, no store", || each_run(|run| append(&raw, run)));
    for entrant in &ENTRANTS {
        let dir = dir.path().join(entrant.name);
        std::fs::create_dir(&dir)?;
        let mut before = 0;
        runs = runs.ask(entrant.name, move || {
            let took = each_run(|run| {
                let key = before + run;
                (entrant.open)(&dir)?.commit(vec![(key, Order::new(key, 1))])
            });
            before += RUNS;
            took
        });
    }
    report.ask(runs, plan.rounds)?;
    let mut room = Question::of_costs("room on the disk after such runs", "KiB");
    for entrant in &ENTRANTS {
        let dir = dir.path().join(entrant.name);
        room = room.ask(entrant.name, move || Ok(blocks_of(&dir)? as f64 / 2.0));
    }
    report.ask(room, 1)
}

/// How long a run takes in the mean, in microseconds.
fn each_run(mut run: impl FnMut(u64) -> Result<(), Failure>) -> Result<f64, Failure> {
    let began = Instant::now();
    (0..RUNS).try_for_each(&mut run)?;
    Ok(began.elapsed().as_secs_f64() * 1e6 / RUNS as f64)
}

fn append(path: &Path, run: u64) -> Result<(), Failure> {
    let mut file = File::options().create(true).append(true).open(path)?;
    file.write_all(&Order::new(run, 1).to_bytes())?;
    Ok(file.sync_data()?)
}

/// The blocks of 512 bytes that the files below a directory take.
fn blocks_of(dir: &Path) -> Result<u64, Failure> {
    std::fs::read_dir(dir)?.try_fold(0, |blocks, entry| {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let inside = if metadata.is_dir() { blocks_of(&entry.path())? } else { metadata.blocks() };
        Ok(blocks + inside)
    })
}
