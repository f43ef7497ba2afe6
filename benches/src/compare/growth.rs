//! How costs grow with the entries, the size of values, and the number of regions.

use std::hint::black_box;
use std::time::Instant;

use rocstate::DurableMap;
use rocstate_bench::data::Dice;
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{commit_each, drawn, open, store};
use crate::report::Report;

const VALUE_BYTES: [usize; 4] = [16, 1 << 10, 32 << 10, 1 << 20];
const REGIONS: [usize; 4] = [1, 100, 1_000, 10_000];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    values(plan, report)?;
    regions(plan, report)?;
    // Last, since what many entries leave behind when they are dropped is freed for seconds.
    entries(plan, report)
}

fn entries(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    for entries in &plan.sizes {
        let dir = tempfile::tempdir_in(".")?;
        let (store, map) = store(dir.path(), *entries)?;
        let (mut reads, mut writes) = (Dice::new(1), Dice::new(2));
        let question = Question::of_costs(format!("operation at {entries} entries"), "ns")
            .ask("point read", || {
                let began = Instant::now();
                for _ in 0..plan.operations {
                    black_box(map.get(&store.view(), &reads.below(*entries))?);
                }
                Ok(began.elapsed().as_secs_f64() * 1e9 / plan.operations as f64)
            })
            .ask("Process commit", || {
                let orders = drawn(&mut writes, *entries, plan.operations);
                let took = commit_each(&store, &map, orders)?;
                Ok(took * 1e9 / plan.operations as f64)
            })
            .ask("an entry of a scan", || {
                let (view, began) = (store.view(), Instant::now());
                for entry in map.iter(&view) {
                    black_box(entry?.1.cents);
                }
                Ok(began.elapsed().as_secs_f64() * 1e9 / *entries as f64)
            });
        report.ask(question, plan.rounds.min(3))?;
    }
    Ok(())
}

fn values(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let store = open(dir.path())?.0;
    let map: DurableMap<u64, Vec<u8>> = store.durable_map("values")?;
    let mut question = Question::of_rates("Process commits of a value of so many bytes", "bytes/s");
    for bytes in VALUE_BYTES {
        let (store, map, mut dice) = (&store, &map, Dice::new(4));
        let count = (plan.operations * 64 / bytes).clamp(16, plan.operations);
        question = question.ask(bytes.to_string(), move || {
            let values = vec![vec![7; bytes]; count];
            let began = Instant::now();
            for value in values {
                store.transact(|tx| map.put(tx, dice.below(100), value))?;
            }
            Ok((count * bytes) as f64 / began.elapsed().as_secs_f64())
        });
    }
    report.ask(question, plan.rounds.min(3))
}

fn regions(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let mut question = Question::of_costs("Process commit to one of so many regions", "ns");
    for count in REGIONS {
        let dir = tempfile::tempdir_in(".")?;
        let store = open(dir.path())?.0;
        let maps = (0..count).map(|at| store.durable_map::<u64, u64>(&format!("region {at}")));
        let maps: Vec<_> = maps.collect::<Result<_, _>>()?;
        store.transact(|tx| maps.iter().try_for_each(|map| map.put(tx, 0, 0).map(drop)))?;
        let mut dice = Dice::new(8);
        question = question.ask(count.to_string(), move || {
            let began = Instant::now();
            // The store lives in its directory as long as the question does.
            let _: &tempfile::TempDir = &dir;
            for n in 0..plan.operations as u64 {
                let at = usize::try_from(dice.below(maps.len() as u64))?;
                store.transact(|tx| maps[at].put(tx, n % 100, n))?;
            }
            Ok(began.elapsed().as_secs_f64() * 1e9 / plan.operations as f64)
        });
    }
    report.ask(question, plan.rounds.min(3))
}
