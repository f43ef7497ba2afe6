//! What others notice while millions of small blocks are freed: after a discard, after a store was dropped, and after a
//! view was that saw much of what has changed since.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rocstate::{Durability, DurableMap, Store, View, VolatileMap};
use rocstate_bench::data::{Dice, Order};
use rocstate_bench::run::{Failure, Question};

use crate::Plan;
use crate::floor::{put_all, shuffled, store_without_checkpoints};
use crate::report::{Report, let_background_end};

/// What is not taken from what a thread has at hand.
const BLOCK_BYTES: usize = 2_048;

/// A session of two small blocks, which tells whether it lives.
type Session = (Order, Arc<()>);

pub(crate) fn measure(plan: &Plan, report: &mut Report) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, orders) = store_without_checkpoints(dir.path(), plan.entries.min(100_000))?;
    let sessions: VolatileMap<u64, Session> = store.volatile_map("sessions")?;
    let question = Question::of_costs("longest wait for a block while sessions are freed", "us")
        .ask("BTreeMap", || Ok(longest_wait(&dropped_by_a_thread(plan.entries))))
        .ask("rocstate", || Ok(longest_wait(&discarded(&sessions, plan.entries))));
    report.ask(question, plan.rounds)?;

    let commits = |lives: &Arc<()>| commits_meanwhile(&store, &orders, lives);
    let question = Question::of_rates("Process commits while sessions are freed", "commits/s")
        .ask("BTreeMap", || commits(&dropped_by_a_thread(plan.entries)))
        .ask("rocstate", || commits(&discarded(&sessions, plan.entries)));
    report.ask(question, plan.rounds)?;
    drop((store, orders, sessions));
    let question = Question::of_costs("open to first read after a store was dropped", "ms")
        .ask("all of it is freed", || first_read_after_a_drop(plan, let_background_end))
        .ask("at once", || first_read_after_a_drop(plan, || {}));
    report.ask(question, plan.rounds)?;

    let dir = tempfile::tempdir_in(".")?;
    let (store, orders) = store_without_checkpoints(dir.path(), plan.entries)?;
    let longest = |held: Option<View>| longest_commit_without_a_view(&store, &orders, plan, held);
    let question = Question::of_costs("longest Process commit after a large view", "ms")
        .ask("an older one held", || longest(Some(store.view())))
        .ask("none held", || longest(None));
    report.ask(question, plan.rounds)?;
    store.checkpoint()?;
    drop((store, orders));
    let question = Question::of_costs("longest Process commit after a boot", "ms")
        .ask("rocstate", || longest_commit_after_a_boot(dir.path(), plan));
    report.ask(question, plan.rounds)
}

/// A plain map of so many sessions, which a thread drops; what lives as long as any.
fn dropped_by_a_thread(entries: u64) -> Arc<()> {
    let lives = Arc::default();
    let mut map = BTreeMap::new();
    for (key, session) in sessions(entries, &lives) {
        map.insert(key, session);
    }
    std::thread::spawn(move || drop(map));
    lives
}

/// The same of a region that is discarded.
fn discarded(map: &VolatileMap<u64, Session>, entries: u64) -> Arc<()> {
    let lives = Arc::default();
    for (key, session) in sessions(entries, &lives) {
        map.insert(key, session);
    }
    map.discard();
    lives
}

/// In random order, each made when it is asked for.
fn sessions(entries: u64, lives: &Arc<()>) -> impl Iterator<Item = (u64, Session)> {
    let keys = shuffled(entries).into_iter();
    keys.map(|key| (key, (Order::new(key, 0), Arc::clone(lives))))
}

fn is_freed(lives: &Arc<()>) -> bool {
    Arc::strong_count(lives) == 1
}

/// What is merged of what was freed only for somebody who needs a block is merged now, if not before.
fn need_a_block() -> Duration {
    let began = Instant::now();
    drop(black_box(Vec::<u8>::with_capacity(black_box(BLOCK_BYTES))));
    began.elapsed()
}

/// In microseconds, until all is freed.
fn longest_wait(lives: &Arc<()>) -> f64 {
    let mut longest = Duration::ZERO;
    while !is_freed(lives) {
        longest = longest.max(need_a_block());
        std::thread::sleep(Duration::from_micros(100));
    }
    longest.max(need_a_block()).as_secs_f64() * 1e6
}

/// A second, until all is freed and a block was needed.
fn commits_meanwhile(
    store: &Store,
    map: &DurableMap<u64, Order>,
    lives: &Arc<()>,
) -> Result<f64, Failure> {
    let mut dice = Dice::new(9);
    let (began, mut count) = (Instant::now(), 0_u32);
    while !is_freed(lives) {
        let key = dice.below(100_000);
        store.transact(|tx| map.put(tx, key, Order::new(key, 1)))?;
        count += 1;
    }
    need_a_block();
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// In milliseconds, within half a second after a view was dropped that saw all entries as they were before they were
/// changed; an older one may be `held`.
fn longest_commit_without_a_view(
    store: &Store,
    orders: &DurableMap<u64, Order>,
    plan: &Plan,
    held: Option<View>,
) -> Result<f64, Failure> {
    let change = |key: u64| store.transact(|tx| orders.put(tx, key, Order::new(key, 2)));
    change(0)?;
    let view = store.view();
    put_all(store, orders, plan.entries, 1_000)?;
    drop(view);
    let longest = longest_in(Duration::from_millis(500), plan.entries, change)?;
    drop(held);
    let_background_end();
    Ok(longest)
}

/// In milliseconds, within two seconds after all was loaded, in which that is replaced and checkpoints are taken.
fn longest_commit_after_a_boot(dir: &Path, plan: &Plan) -> Result<f64, Failure> {
    let store = Store::options().durability(Durability::Process).open(dir)?;
    let orders: DurableMap<u64, Order> = store.durable_map("orders")?;
    while store.regions().iter().any(|region| region.cold > 0) {
        std::thread::sleep(Duration::from_millis(1));
    }
    longest_in(Duration::from_secs(2), plan.entries, |key| {
        store.transact(|tx| orders.put(tx, key, Order::new(key, 3)))
    })
}

/// The longest of some changes, in milliseconds.
fn longest_in(
    time: Duration,
    entries: u64,
    change: impl Fn(u64) -> rocstate::Result<bool>,
) -> Result<f64, Failure> {
    let (mut dice, mut longest) = (Dice::new(11), Duration::ZERO);
    let until = Instant::now() + time;
    while Instant::now() < until {
        let began = Instant::now();
        change(dice.below(entries))?;
        longest = longest.max(began.elapsed());
    }
    Ok(longest.as_secs_f64() * 1e3)
}

/// A store that this process filled is dropped, and opened again.
fn first_read_after_a_drop(plan: &Plan, meanwhile: impl Fn()) -> Result<f64, Failure> {
    let dir = tempfile::tempdir_in(".")?;
    let (store, map) = store_without_checkpoints(dir.path(), plan.entries)?;
    store.checkpoint()?;
    drop((store, map));
    meanwhile();
    let began = Instant::now();
    let store = Store::open(dir.path())?;
    let map: DurableMap<u64, Order> = store.durable_map("orders")?;
    black_box(map.get(&store.view(), &7)?);
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
