//! The same work for rocstate, its peers and the floor, at equal durability, alternating in one run.
//!
//! `cargo run --release -p rocstate-bench --bin compare -- [OPTION]...`
//!
//! - `--quick`: everything, smaller and in three rounds, in under three minutes
//! - `--rounds N`, `--entries N`: instead of seven rounds, a million entries
//! - `--only PART,PART`: of `durable`, `arrivals`, `awaited`, `process`, `reads`, `follow`, `runs`, `memory`,
//!   `volatile`, `freeing`, `growth`, `crowds`
//! - `--fixed-sync US`: every sync of every contender waits so many microseconds and syncs nothing
//! - `--out DIR`: JSON lines and a plot for each question go there
//!
//! Each part has a process of its own: threads that once took views, and memory that was freed, would be
//! found by the next one.

#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::cast_precision_loss, reason = "figures are told in three digits")]

mod arrivals;
mod awaited;
mod crowds;
mod durable;
mod floor;
mod follow;
mod freeing;
mod growth;
mod memory;
mod peers;
mod process;
mod reads;
mod report;
mod runs;
mod volatile;

use std::path::PathBuf;
use std::time::Duration;

use report::Report;
use rocstate_bench::run::Failure;

/// How much is done.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    /// Entries that a map holds where nothing else is said.
    pub(crate) entries: u64,
    /// Operations of a round.
    pub(crate) operations: usize,
    /// How long a round is that is measured by time.
    pub(crate) time: Duration,
    /// The sizes at which growth is looked at.
    pub(crate) sizes: Vec<u64>,
    only: Vec<String>,
    /// This part is measured, and nothing else is said.
    part: Option<String>,
    /// Nothing is measured but the memory that this one takes.
    resident_of: Option<String>,
    fixed_sync: Option<Duration>,
    out: Option<PathBuf>,
}

impl Plan {
    fn from_arguments(words: impl Iterator<Item = String>) -> Result<Plan, Failure> {
        let mut plan = Plan {
            rounds: 7,
            entries: 1_000_000,
            operations: 200_000,
            time: Duration::from_millis(500),
            sizes: vec![10_000, 1_000_000, 20_000_000],
            only: Vec::new(),
            part: None,
            resident_of: None,
            fixed_sync: None,
            out: None,
        };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => {
                    plan.rounds = 3;
                    plan.entries = 100_000;
                    plan.operations = 20_000;
                    plan.time = Duration::from_millis(150);
                    plan.sizes = vec![10_000, 100_000];
                }
                "--rounds" => plan.rounds = value()?.parse()?,
                "--entries" => plan.entries = value()?.replace('_', "").parse()?,
                "--only" => {
                    plan.only = value()?.split(',').map(str::to_owned).collect();
                    plan.only.iter().try_for_each(|part| measure_of(part).map(drop))?;
                }
                "--fixed-sync" => {
                    plan.fixed_sync = Some(Duration::from_micros(value()?.parse()?));
                }
                "--part" => plan.part = Some(value()?),
                "--resident-of" => plan.resident_of = Some(value()?),
                "--out" => plan.out = Some(value()?.into()),
                _ => return Err(format!("{word} is not known; see the head of main.rs").into()),
            }
        }
        Ok(plan)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

type Measure = fn(&Plan, &mut Report) -> Result<(), Failure>;

const PARTS: [(&str, Measure); 12] = [
    ("durable", durable::measure),
    ("arrivals", arrivals::measure),
    ("awaited", awaited::measure),
    ("process", process::measure),
    ("reads", reads::measure),
    ("follow", follow::measure),
    ("runs", runs::measure),
    ("memory", memory::measure),
    ("volatile", volatile::measure),
    ("freeing", freeing::measure),
    ("growth", growth::measure),
    ("crowds", crowds::measure),
];

fn measure_of(part: &str) -> Result<Measure, Failure> {
    let known = PARTS.iter().find(|(name, _)| *name == part);
    known.map(|(_, measure)| *measure).ok_or_else(|| format!("{part} is not a part").into())
}

fn main() -> Result<(), Failure> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    if let Some(of) = &plan.resident_of {
        println!("{}", memory::bytes_of_an_entry(of, plan.entries)?);
        return Ok(());
    }
    let cores = std::thread::available_parallelism()?;
    let syncs = plan.fixed_sync.map_or("the disk's".to_owned(), |wait| {
        format!("simulated: each waits {} us and syncs nothing", wait.as_micros())
    });
    if let Some(part) = &plan.part {
        let measure = measure_of(part)?;
        if let Some(wait) = plan.fixed_sync {
            rocstate_bench::fixed_sync::fix(wait);
        }
        let circumstances = format!("{cores} cores, syncs: {syncs}");
        return measure(&plan, &mut Report::new(plan.out.clone(), circumstances)?);
    }
    println!("{} rounds, contenders in turn; {cores} cores; syncs: {syncs}", plan.rounds);
    for entrant in &peers::ENTRANTS {
        println!("{}: {}", entrant.name, entrant.settings);
    }
    for (part, _) in PARTS.iter().filter(|(part, _)| plan.wants(part)) {
        let mut measured = std::process::Command::new(std::env::current_exe()?);
        measured.args(std::env::args_os().skip(1)).args(["--part", part]);
        if !measured.status()?.success() {
            return Err(format!("{part} was not measured").into());
        }
    }
    Ok(())
}
