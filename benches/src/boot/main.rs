//! From the death of a process to the first read of the next one, and to everything in memory.
//!
//! Each contender is filled, takes 100 000 random updates in synced commits of 100 (or `--per-commit N`), and is
//! killed with SIGKILL. Fresh processes then measure open to first read, memory, and open to everything decoded:
//! with the page cache as the dead process left it, and with an empty one where that can be had.
//!
//! With `--under-load N` the process is killed N times at any moment of full load instead, with one
//! writer and with sixteen. With `--touches N` entries that are on disk are read one by one, in N rounds.
//!
//! `cargo run --release -p rocstate-bench --bin boot -- [--rounds N] [--updates N] [--per-commit N]
//! [--only NAME,NAME] [ENTRIES]...`

#![expect(clippy::print_stdout, reason = "it is a program")]

mod contenders;
mod load;
mod touch;

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use contenders::{NAMES, contender};
use rocstate_bench::data::Dice;

pub(crate) type Failure = Box<dyn Error>;

const PER_COMMIT: usize = 100;
const UPDATES: u64 = 100_000;
const SEED: u64 = 88_172_645_463_325_252;

/// What is measured, as the command line says.
struct Plan {
    rounds: usize,
    updates: u64,
    per_commit: usize,
    names: Vec<String>,
    sizes: Vec<u64>,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["child", "fill", name, dir, entries] => {
            contender(name)?.fill(Path::new(dir), entries.parse()?)
        }
        ["child", "update", name, dir, entries, updates, per_commit] => {
            let (entries, updates): (u64, u64) = (entries.parse()?, updates.parse()?);
            let mut dice = Dice::new(SEED);
            let mut keys = (0..updates).map(|_| dice.below(entries));
            contender(name)?.update(Path::new(dir), &mut keys, per_commit.parse()?)?;
            println!("done");
            // The parent kills this process.
            loop {
                std::thread::park();
            }
        }
        ["child", "read", name, dir, key] => {
            let outcome = contender(name)?.read(Path::new(dir), key.parse()?)?;
            println!(
                "{} {} {} {} {}",
                outcome.first_read.as_secs_f64(),
                outcome.resident_kib,
                outcome.everything.as_secs_f64(),
                outcome.entries,
                outcome.remark
            );
            // Nothing is taken down: that is not what is measured.
            std::process::exit(0)
        }
        ["child", "write", dir, writers] => {
            load::write_until_killed(Path::new(dir), writers.parse()?)
        }
        ["child", "first-read", dir] => load::first_read(Path::new(dir)),
        ["child", "touch", dir, seed] => touch::touch(Path::new(dir), seed.parse()?),
        ["--under-load", rounds] => load::measure(rounds.parse()?),
        ["--touches", rounds] => touch::measure(rounds.parse()?),
        words => compare(&plan(words)?),
    }
}

fn plan(words: &[&str]) -> Result<Plan, Failure> {
    let mut plan = Plan {
        rounds: 5,
        updates: UPDATES,
        per_commit: PER_COMMIT,
        names: Vec::new(),
        sizes: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().ok_or(format!("{word} needs a value"));
        match *word {
            "--rounds" => plan.rounds = value()?.parse()?,
            "--updates" => plan.updates = value()?.parse()?,
            "--per-commit" => plan.per_commit = value()?.parse()?,
            "--only" => plan.names = value()?.split(',').map(str::to_owned).collect(),
            entries => plan.sizes.push(entries.replace('_', "").parse()?),
        }
    }
    if plan.names.is_empty() {
        plan.names = NAMES.map(str::to_owned).to_vec();
    }
    if plan.sizes.is_empty() {
        plan.sizes = vec![100_000, 1_000_000, 5_000_000];
    }
    Ok(plan)
}

fn compare(plan: &Plan) -> Result<(), Failure> {
    for name in &plan.names {
        println!("{name}: {}", contender(name)?.settings());
    }
    let cold = can_empty_the_cache();
    println!(
        "{} rounds, {} updates in commits of {}; milliseconds, median (range)",
        plan.rounds, plan.updates, plan.per_commit
    );
    for entries in &plan.sizes {
        let dir = tempfile::tempdir_in(".")?;
        for name in &plan.names {
            prepare(name, dir.path(), *entries, plan.updates, plan.per_commit)?;
        }
        println!(
            "\n{entries} entries\n{:<9} {:>24} {:>24} {:>9} {:>24} {:>24}",
            "", "first read, hot", "first read, cold", "MiB", "everything, hot", "everything, cold"
        );
        let mut hot: Vec<Vec<Read>> = plan.names.iter().map(|_| Vec::new()).collect();
        let mut chilled: Vec<Vec<Read>> = plan.names.iter().map(|_| Vec::new()).collect();
        for round in 0..plan.rounds {
            for (at, name) in plan.names.iter().enumerate() {
                // A boot changes its store: each reads a copy of what the kill left.
                let (hot_read, cold_read) = measure(name, dir.path(), *entries, round, cold)?;
                hot[at].push(hot_read);
                chilled[at].extend(cold_read);
            }
        }
        for (at, name) in plan.names.iter().enumerate() {
            let column =
                |reads: &[Read], of: fn(&Read) -> f64| spread(reads.iter().map(of).collect());
            let mib = hot[at].iter().map(|read| read.resident_mib).fold(0.0, f64::max);
            println!(
                "{name:<9} {:>24} {:>24} {mib:>9.0} {:>24} {:>24}",
                column(&hot[at], |read| read.first_ms),
                column(&chilled[at], |read| read.first_ms),
                column(&hot[at], |read| read.everything_ms),
                column(&chilled[at], |read| read.everything_ms),
            );
            if let Some(read) = hot[at].iter().find(|read| !read.remark.is_empty()) {
                println!("          {}", read.remark);
            }
        }
    }
    Ok(())
}

/// One fresh process.
struct Read {
    first_ms: f64,
    resident_mib: f64,
    everything_ms: f64,
    remark: String,
}

/// Fills a store and kills the process that updates it.
fn prepare(
    name: &str,
    dir: &Path,
    entries: u64,
    updates: u64,
    per_commit: usize,
) -> Result<(), Failure> {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir)?;
    let dir = dir.to_str().ok_or("the path is not UTF-8")?;
    let filled = child(&["fill", name, dir, &entries.to_string()])?.status()?;
    if !filled.success() {
        return Err(format!("{name} could not be filled").into());
    }
    let [entries, updates, per_commit] =
        [entries, updates, per_commit as u64].map(|number| number.to_string());
    let mut updating = child(&["update", name, dir, &entries, &updates, &per_commit])?
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = updating.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    updating.kill()?;
    updating.wait()?;
    if line == "done\n" { Ok(()) } else { Err(format!("{name} could not be updated").into()) }
}

fn measure(
    name: &str,
    dir: &Path,
    entries: u64,
    round: usize,
    cold: bool,
) -> Result<(Read, Option<Read>), Failure> {
    let key = Dice::new(SEED ^ ((round as u64 + 1) * 7919)).below(entries);
    let copy = dir.join(format!("{name}-copy"));
    let read = |chill: bool| -> Result<Read, Failure> {
        copy_store(name, &dir.join(name), &copy)?;
        if chill {
            empty_the_cache()?;
        }
        let path = copy.to_str().ok_or("the path is not UTF-8")?;
        let output =
            child(&["read", name, path, &key.to_string()])?.stderr(Stdio::inherit()).output()?;
        std::fs::remove_dir_all(&copy)?;
        let text = String::from_utf8(output.stdout)?;
        let mut words = text.trim().splitn(5, ' ');
        let mut word = || words.next().ok_or(format!("{name} could not be read: {text}"));
        let (first, resident, everything, count) = (word()?, word()?, word()?, word()?);
        if count.parse::<u64>()? != entries {
            return Err(format!("{name} has {count} entries instead of {entries}").into());
        }
        Ok(Read {
            first_ms: first.parse::<f64>()? * 1e3,
            resident_mib: resident.parse::<f64>()? / 1024.0,
            everything_ms: everything.parse::<f64>()? * 1e3,
            remark: words.next().unwrap_or_default().to_owned(),
        })
    };
    let hot = read(false)?;
    Ok((hot, if cold { Some(read(true)?) } else { None }))
}

fn child(words: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("child").args(words);
    Ok(command)
}

/// The figures that a fresh process prints, which must be so many.
fn figures<const N: usize>(words: &[&str]) -> Result<[f64; N], Failure> {
    let output = child(words)?.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    figures.try_into().map_err(|_| format!("it could not be read: {text}").into())
}

/// Copies the files of a store, with what is in them on the disk afterwards. What never changes is shared:
/// copying gigabytes takes the machine's memory, which a boot of any size then waits for.
fn copy_store(name: &str, from: &Path, to: &Path) -> Result<(), Failure> {
    let contender = contender(name)?;
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_store(name, &entry.path(), &to)?;
        } else if entry.file_name().to_str().is_some_and(|name| contender.leaves(name)) {
            std::fs::hard_link(entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), &to)?;
            std::fs::File::open(&to)?.sync_all()?;
        }
    }
    Ok(())
}

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

fn can_empty_the_cache() -> bool {
    std::fs::OpenOptions::new().write(true).open(DROP_CACHES).is_ok() && empty_the_cache().is_ok()
}

fn empty_the_cache() -> Result<(), Failure> {
    std::fs::write(DROP_CACHES, "3")?;
    Ok(())
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match (values.first(), values.get(values.len() / 2), values.last()) {
        (Some(low), Some(median), Some(high)) => format!("{median:.1} ({low:.1} to {high:.1})"),
        _ => "-".to_owned(),
    }
}
