//! A store that follows another one, as a process of its own would.

use std::time::{Duration, Instant};

use rocstate::{DurableMap, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::store;
use crate::reads::{on_threads, read_store};
use crate::report::Report;

/// How often a store is refreshed in a round.
const REFRESHES: u32 = 20;
const CHANGES: [u64; 4] = [0, 1, 100, 10_000];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (writer, map) = store(dir.path(), plan.entries)?;
    writer.checkpoint()?;
    let reader = Store::options().read_only(true).open(dir.path())?;
    let followed: DurableMap<u64, Order> = reader.durable_map("orders")?;
    followed.warm()?;
    let mut dice = Dice::new(7);
    // A commit for a hundred entries, and what it takes to follow all of them.
    let mut follow = |changes: u64| {
        let mut left = changes;
        while left > 0 {
            let count = left.min(100);
            writer.transact(|tx| {
                (0..count).try_for_each(|_| {
                    let key = dice.below(plan.entries);
                    map.put(tx, key, Order::new(key, 1)).map(drop)
                })
            })?;
            left -= count;
        }
        writer.sync()?;
        let began = Instant::now();
        reader.refresh()?;
        Ok::<Duration, Failure>(began.elapsed())
    };
    for changes in CHANGES {
        let name = format!("a refresh after {changes} changed entries");
        let question = Question::of_costs(name, "us").ask("rocstate", || {
            let took =
                (0..REFRESHES).map(|_| follow(changes)).sum::<Result<Duration, Failure>>()?;
            Ok(took.as_secs_f64() * 1e6 / f64::from(REFRESHES))
        });
        report.ask(question, plan.rounds)?;
    }
    let question = Question::of_costs("a point read after a refresh", "ns")
        .ask("the store that writes", || {
            Ok(on_threads(1, plan, &|key| read_store(&writer, &map, key)))
        })
        .ask("the store that follows", || {
            follow(1_000)?;
            Ok(on_threads(1, plan, &|key| read_store(&reader, &followed, key)))
        });
    report.ask(question, plan.rounds)
}
