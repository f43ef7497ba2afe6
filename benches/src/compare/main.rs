//! The same work for rocstate, its peers and the floor, at equal durability, alternating in one run.
//!
//! `cargo run --release -p rocstate-bench --bin compare -- [--quick] [--rounds N] [--only PART,PART]`

#![expect(clippy::print_stdout, reason = "it is a program")]
#![expect(clippy::cast_precision_loss, reason = "figures are told in three digits")]

mod floor;
mod memory;
mod process;
mod reads;
mod report;

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
    only: Vec<String>,
}

impl Plan {
    fn from_arguments(words: impl Iterator<Item = String>) -> Result<Plan, Failure> {
        let mut plan =
            Plan { rounds: 7, entries: 1_000_000, operations: 200_000, only: Vec::new() };
        let mut words = words;
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word.as_str() {
                "--quick" => {
                    plan.rounds = 3;
                    plan.entries = 100_000;
                    plan.operations = 50_000;
                }
                "--rounds" => plan.rounds = value()?.parse()?,
                "--entries" => plan.entries = value()?.replace('_', "").parse()?,
                "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
                _ => return Err(format!("{word} is not known; see the head of main.rs").into()),
            }
        }
        Ok(plan)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn main() -> Result<(), Failure> {
    let plan = Plan::from_arguments(std::env::args().skip(1))?;
    let mut report = Report::default();
    for (part, measure) in [
        ("process", process::measure as fn(&Plan, &mut Report) -> Result<(), Failure>),
        ("reads", reads::measure),
        ("memory", memory::measure),
    ] {
        if plan.wants(part) {
            measure(&plan, &mut report)?;
        }
    }
    Ok(())
}
