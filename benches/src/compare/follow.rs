//! A store that follows another one, as a process of its own would.

use std::time::{Duration, Instant};

use rocstate::{DurableMap, Store};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{open, store};
use crate::reads::{on_threads, read_store};
use crate::report::Report;

/// How often a store is refreshed in a round.
const REFRESHES: u32 = 20;
const CHANGES: [u64; 4] = [0, 1, 100, 10_000];
const REGIONS: [u64; 3] = [10, 1_000, 10_000];

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    entries(plan, report)?;
    undeclared(plan, report)?;
    regions(plan, report)
}

fn entries(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
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
        refreshed(&writer, &reader)
    };
    for changes in CHANGES {
        let name = format!("a refresh after {changes} changed entries");
        let question = Question::of_costs(name, "us").ask("rocstate", || mean(|| follow(changes)));
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

/// A region that nobody has declared where it is followed, behind a log of a tenth of the entries.
fn undeclared(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (writer, map) = store(dir.path(), plan.entries)?;
    writer.checkpoint()?;
    for keys in (0..plan.entries / 10).collect::<Vec<_>>().chunks(100) {
        writer.transact(|tx| {
            keys.iter().try_for_each(|key| map.put(tx, *key, Order::new(*key, 1)).map(drop))
        })?;
    }
    let reader = Store::options().read_only(true).open(dir.path())?;
    let mut dice = Dice::new(7);
    let name = "a refresh after 1 changed entry of a region that nobody declared";
    let question = Question::of_costs(name, "us").ask("rocstate", || {
        mean(|| {
            let key = dice.below(plan.entries);
            writer.transact(|tx| map.put(tx, key, Order::new(key, 1)).map(drop))?;
            refreshed(&writer, &reader)
        })
    });
    report.ask(question, plan.rounds)
}

/// So many regions, all of which are declared where they are followed.
fn regions(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let mut question = Question::of_costs("a refresh after 1 change in so many regions", "us");
    for count in REGIONS {
        let dir = tempfile::tempdir_in(".")?;
        let writer = open(dir.path())?.0;
        let declare = |store: &Store| -> Result<Vec<DurableMap<u64, u64>>, Failure> {
            let declared = (0..count).map(|at| store.durable_map(&format!("region {at}")));
            Ok(declared.collect::<rocstate::Result<_>>()?)
        };
        let maps = declare(&writer)?;
        writer.transact(|tx| maps.iter().try_for_each(|map| map.put(tx, 0, 0).map(drop)))?;
        let reader = Store::options().read_only(true).open(dir.path())?;
        let followed = declare(&reader)?;
        for map in &followed {
            map.warm()?;
        }
        let mut changed = maps.into_iter().cycle();
        question = question.ask(count.to_string(), move || {
            // They are followed for as long as that is asked.
            let _declared = (&followed, &dir);
            mean(|| {
                let map = changed.next().ok_or("there are no regions")?;
                writer.transact(|tx| map.put(tx, 1, 1).map(drop))?;
                refreshed(&writer, &reader)
            })
        });
    }
    report.ask(question, plan.rounds)
}

/// How long a refresh takes, once what was committed can be seen.
fn refreshed(writer: &Store, reader: &Store) -> Result<Duration, Failure> {
    writer.tend()?;
    let began = Instant::now();
    let lsn = reader.refresh()?;
    let took = began.elapsed();
    if lsn < writer.visible_lsn() {
        return Err("what was synced cannot be seen".into());
    }
    Ok(took)
}

/// Microseconds.
fn mean(mut follow: impl FnMut() -> Result<Duration, Failure>) -> Result<f64, Failure> {
    let took = (0..REFRESHES).map(|_| follow()).sum::<Result<Duration, Failure>>()?;
    Ok(took.as_secs_f64() * 1e6 / f64::from(REFRESHES))
}
