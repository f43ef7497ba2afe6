//! Views, discards, and what an entry takes in memory.

use std::hint::black_box;
use std::time::Instant;

use rocstate::Store;
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::report::Report;

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let store = Store::open(dir.path())?;
    let question = Question::of_costs("a view", "ns").ask("rocstate", || {
        let began = Instant::now();
        for _ in 0..plan.operations {
            black_box(store.view());
        }
        Ok(began.elapsed().as_secs_f64() * 1e9 / plan.operations as f64)
    });
    report.ask(question, plan.rounds)?;
    for entries in [10_000, plan.entries * 10] {
        let map = store.volatile_map::<u64, u64>("cache")?;
        let question = Question::of_costs(format!("discard of {entries} entries"), "us").ask(
            "rocstate",
            || {
                for key in 0..entries {
                    map.insert(key, key);
                }
                let began = Instant::now();
                map.discard();
                Ok(began.elapsed().as_secs_f64() * 1e6)
            },
        );
        report.ask(question, plan.rounds.min(5))?;
    }
    Ok(())
}
