//! The stores that are compared, each at the durability of a synced commit.

mod fjall;
mod flat;
mod heed;
mod redb;
mod rocstate;
mod sqlite;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::Failure;
use rocstate_bench::data::Order;

/// What a fresh process found.
pub(crate) struct Outcome {
    pub(crate) first_read: Duration,
    pub(crate) resident_kib: u64,
    pub(crate) everything: Duration,
    pub(crate) entries: u64,
    /// What the store itself says about its boot.
    pub(crate) remark: String,
}

impl Outcome {
    /// Everything is decoded and in memory, in order.
    fn kept(
        began: Instant,
        first_read: Duration,
        resident_kib: u64,
        everything: Vec<(u64, Order)>,
    ) -> Outcome {
        let entries = everything.len() as u64;
        std::hint::black_box(&everything);
        let elapsed = began.elapsed();
        // Freeing is not what is measured.
        std::mem::forget(everything);
        Outcome { first_read, resident_kib, everything: elapsed, entries, remark: String::new() }
    }
}

/// A store under test. Its commits are synced when they return.
pub(crate) trait Contender {
    /// Writes entries 0 to `entries`, in order, in commits of any size.
    fn fill(&self, dir: &Path, entries: u64) -> Result<(), Failure>;
    /// Replaces entries in commits of `per_commit`, and leaves the rest to the kill.
    fn update(
        &self,
        dir: &Path,
        keys: &mut dyn Iterator<Item = u64>,
        per_commit: usize,
    ) -> Result<(), Failure>;
    /// Opens, reads one entry, then everything.
    fn read(&self, dir: &Path, key: u64) -> Result<Outcome, Failure>;
    /// Whether a file of that name never changes once it is there.
    fn leaves(&self, _file: &str) -> bool {
        false
    }
    /// The settings that make it comparable.
    fn settings(&self) -> &'static str;
}

pub(crate) const NAMES: [&str; 6] = ["rocstate", "redb", "fjall", "heed", "sqlite", "flat"];

pub(crate) fn contender(name: &str) -> Result<Box<dyn Contender>, Failure> {
    Ok(match name {
        "rocstate" => Box::new(rocstate::Rocstate),
        "redb" => Box::new(redb::Redb),
        "fjall" => Box::new(fjall::Fjall),
        "heed" => Box::new(heed::Heed),
        "sqlite" => Box::new(sqlite::Sqlite),
        "flat" => Box::new(flat::Flat),
        _ => return Err(format!("no such contender: {name}").into()),
    })
}

/// Keys in pieces of `per_commit`.
fn batches(
    keys: &mut dyn Iterator<Item = u64>,
    per_commit: usize,
    mut commit: impl FnMut(&[u64]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let batch: Vec<u64> = std::iter::from_fn(|| keys.next()).take(per_commit).collect();
        if batch.is_empty() {
            return Ok(());
        }
        commit(&batch)?;
    }
}

/// Checks the one entry that is read first.
fn check(order: Option<Order>, key: u64) -> Result<(), Failure> {
    let order = order.ok_or("the first entry is absent")?;
    if order == Order::new(key, order.version) { Ok(()) } else { Err("the entry is wrong".into()) }
}

/// Resident memory of this process, in KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or_default()
}
