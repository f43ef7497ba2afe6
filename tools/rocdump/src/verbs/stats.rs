//! `stats`: what the kept log did, by region and kind; groups, gaps, hot keys, and what writing cost.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::time::Duration;

use rocstate::Lsn;
use rocstate::format::operation::Operation;
use rocstate::format::segment::FRAMES_BEGIN;
use rocstate::format::{BLOCK_BYTES, RegionNo};
use rocstate::inspect::{LogEvent, LogFrame};

use super::log::{key_of, value_of};
use crate::exit::{Done, Exit};
use crate::files::checkpoints;
use crate::json::{self, Object};
use crate::out::{Out, begin_document, bytes, count, counted, duration};
use crate::store::{Opened, Regions};

/// So many keys are counted; when there are more, the least counted one makes room, so that the counts of
/// the hottest are at most too high by that of the coldest (the Space-Saving summary of Metwally, Agrawal
/// and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", 2005).
const KEYS_COUNTED: usize = 16_384;

/// What happened to one region.
#[derive(Default)]
struct Work {
    inserts: u64,
    replaces: u64,
    removes: u64,
    clears: u64,
    key_bytes: u64,
    value_bytes: u64,
}

/// Counts of the keys that were changed most.
#[derive(Default)]
struct Hot {
    counts: HashMap<(RegionNo, Vec<u8>), u64>,
    /// How much too high a count may be.
    error: u64,
}

impl Hot {
    fn add(&mut self, region: RegionNo, key: &[u8]) {
        let at = (region, key.to_vec());
        if let Some(count) = self.counts.get_mut(&at) {
            *count += 1;
            return;
        }
        if self.counts.len() >= KEYS_COUNTED {
            // The colder half makes room at once, so that it is not searched for each new key.
            let mut counts: Vec<u64> = self.counts.values().copied().collect();
            let middle = counts.len() / 2;
            let (_, median, _) = counts.select_nth_unstable(middle);
            self.error = self.error.max(*median);
            let least = *median;
            self.counts.retain(|_, count| *count > least);
        }
        self.counts.insert(at, self.error + 1);
    }

    fn hottest(&self, keys: usize) -> Vec<(&(RegionNo, Vec<u8>), u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(key, count)| (key, *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all.truncate(keys);
        all
    }
}

/// Numbers by powers of two.
#[derive(Default)]
struct Spread {
    buckets: BTreeMap<u32, u64>,
    total: u64,
    max: u64,
}

impl Spread {
    fn add(&mut self, number: u64) {
        *self.buckets.entry(number.checked_ilog2().map_or(0, |log| log + 1)).or_default() += 1;
        self.total += 1;
        self.max = self.max.max(number);
    }

    /// A number that so many in a hundred are at most; exact to a power of two.
    fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return ((1u64 << bucket.min(&63)) - 1).min(self.max);
            }
        }
        self.max
    }
}

#[derive(Default)]
struct Stats {
    work: BTreeMap<RegionNo, Work>,
    hot: Hot,
    groups: Spread,
    gaps_us: Spread,
    commits: u64,
    frames: u64,
    first: Option<(Lsn, u64)>,
    last: Option<(Lsn, u64)>,
    frame_bytes: u64,
    disk_bytes: u64,
    damaged: bool,
}

impl Stats {
    fn frame(&mut self, frame: &LogFrame<'_>, regions: &mut Regions<'_>) {
        let facts = &frame.header.facts;
        self.frame_bytes += frame.header.len;
        if facts.commits == 0 {
            return;
        }
        self.frames += 1;
        self.groups.add(u64::from(facts.commits));
        if let Some((_, before)) = self.last {
            self.gaps_us.add(facts.time_us.saturating_sub(before));
        }
        self.first.get_or_insert((facts.first_lsn, facts.time_us));
        self.last = Some((frame.header.last_lsn(), facts.time_us));
        for commit in frame.commits().flatten() {
            self.commits += 1;
            for operation in commit.operations().flatten() {
                regions.learn(std::iter::once(operation));
                self.operation(&operation);
            }
        }
    }

    fn operation(&mut self, operation: &Operation<'_>) {
        let work = self.work.entry(operation.region()).or_default();
        match operation {
            Operation::Insert { .. } => work.inserts += 1,
            Operation::Replace { .. } => work.replaces += 1,
            Operation::Remove { .. } => work.removes += 1,
            Operation::Clear { .. } => work.clears += 1,
            Operation::Create { .. } | Operation::RemoveRegion { .. } => {}
        }
        if let Some(key) = key_of(operation) {
            work.key_bytes += key.len() as u64;
            work.value_bytes += value_of(operation).map_or(0, |value| value.len() as u64);
            self.hot.add(operation.region(), key);
        }
    }

    fn payload(&self) -> u64 {
        self.work.values().map(|work| work.key_bytes + work.value_bytes).sum()
    }

    fn elapsed(&self) -> Duration {
        match (self.first, self.last) {
            (Some((_, first)), Some((_, last))) => {
                Duration::from_micros(last.saturating_sub(first))
            }
            _ => Duration::ZERO,
        }
    }
}

pub(crate) fn run(store: &Opened<'_>, keys: usize, out: &mut Out<'_>) -> Done {
    let (mut regions, _) = store.regions_of_catalogs()?;
    let mut stats = Stats::default();
    let mut used = FRAMES_BEGIN;
    store.files.walk_log(Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(_) => {
                stats.disk_bytes += used.next_multiple_of(BLOCK_BYTES);
                used = FRAMES_BEGIN;
            }
            LogEvent::Frame(frame) => {
                used = frame.header.end();
                stats.frame(&frame, &mut regions);
            }
            LogEvent::Gap(_) => stats.damaged = true,
            LogEvent::End(_) => stats.disk_bytes += used.next_multiple_of(BLOCK_BYTES),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    stats.disk_bytes = stats.disk_bytes.saturating_sub(FRAMES_BEGIN);
    // What is live of the checkpoint files, and what they take.
    let lines = checkpoints(store);
    let taken: u64 = lines.iter().map(|line| line.len).sum();
    let newest = lines.iter().rev().find(|line| line.catalog.is_ok());
    let live = newest.map_or(0, |line| {
        let (own, shared) = line.own_and_shared();
        own.saturating_add(shared)
    });
    if out.json {
        json(&stats, &mut regions, keys, (taken, live), out)?;
    } else {
        text(&stats, &mut regions, keys, (taken, live), out)?;
    }
    Ok(if stats.damaged { Exit::Lost } else { Exit::Fine })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a ratio for people needs no more than a few digits"
)]
fn times(of: u64, payload: u64) -> f64 {
    if payload == 0 { 0.0 } else { of as f64 / payload as f64 }
}

fn text(
    stats: &Stats,
    regions: &mut Regions<'_>,
    keys: usize,
    (taken, needed): (u64, u64),
    out: &mut Out<'_>,
) -> Done<()> {
    let (Some((first, _)), Some((last, _))) = (stats.first, stats.last) else {
        return out.line("the log that is kept holds no commit");
    };
    out.head("the kept log")?;
    let elapsed = stats.elapsed();
    let rate =
        if elapsed.is_zero() { 0.0 } else { times(stats.commits, 1) / elapsed.as_secs_f64() };
    out.line(format!(
        "  commits {first} to {last}: {} in {}, {rate:.0} a second",
        counted(stats.commits, "commit"),
        duration(elapsed)
    ))?;
    out.line(format!(
        "  {} of keys and values became {} of frames, and {} on disk: {:.1} times",
        bytes(stats.payload()),
        bytes(stats.frame_bytes),
        bytes(stats.disk_bytes),
        times(stats.disk_bytes, stats.payload())
    ))?;
    out.line(format!(
        "  checkpoint files take {}, of which {} are live",
        bytes(taken),
        bytes(needed)
    ))?;
    out.line("")?;
    out.head("writes")?;
    let at = |spread: &Spread, show: &dyn Fn(u64) -> String| {
        [50, 90, 99, 100].map(|percent| show(spread.percentile(percent)))
    };
    let us = |us: u64| duration(Duration::from_micros(us));
    let mut rows = Vec::new();
    for (name, shown) in [
        ("commits in one write", at(&stats.groups, &count)),
        ("time from one write to the next", at(&stats.gaps_us, &us)),
    ] {
        rows.push([name.to_owned()].into_iter().chain(shown).collect());
    }
    let heads = ["at most, in so many of 100", "50", "90", "99", "100"];
    out.table(&heads, &[1, 2, 3, 4], rows)?;
    out.line("")?;
    out.head("regions")?;
    let rows = stats.work.iter().map(|(number, work)| {
        vec![
            regions.get(*number).name.clone(),
            count(work.inserts),
            count(work.replaces),
            count(work.removes),
            count(work.clears),
            bytes(work.key_bytes),
            bytes(work.value_bytes),
        ]
    });
    let rows = rows.collect();
    let heads = ["name", "inserts", "replaces", "removes", "clears", "keys", "values"];
    out.table(&heads, &[1, 2, 3, 4, 5, 6], rows)?;
    out.line("")?;
    out.head("hottest keys")?;
    let rows = stats.hot.hottest(keys).into_iter().map(|((number, key), changes)| {
        let region = regions.get(*number);
        let share = times(changes * 100, stats.commits);
        let key = if region.is_cell() { "(the value)".to_owned() } else { region.key_text(key) };
        vec![region.name.clone(), key, count(changes), format!("{share:.1} %")]
    });
    let rows = rows.collect();
    out.table(&["region", "key", "changes", "of all commits"], &[2, 3], rows)?;
    if stats.hot.error > 0 {
        out.line(format!(
            "  (there are many keys: a count may be too high by {})",
            stats.hot.error
        ))?;
    }
    Ok(())
}

fn json(
    stats: &Stats,
    regions: &mut Regions<'_>,
    keys: usize,
    (taken, needed): (u64, u64),
    out: &mut Out<'_>,
) -> Done<()> {
    let mut line = Vec::new();
    let mut object = begin_document(&mut line, "stats");
    object.text_or_null("first_lsn", stats.first.map(|(lsn, _)| lsn));
    object.text_or_null("last_lsn", stats.last.map(|(lsn, _)| lsn));
    object.number("commits", stats.commits);
    object.number("writes", stats.frames);
    object.number("elapsed_us", u64::try_from(stats.elapsed().as_micros()).unwrap_or(u64::MAX));
    object.number("payload_bytes", stats.payload());
    object.number("frame_bytes", stats.frame_bytes);
    object.number("disk_bytes", stats.disk_bytes);
    object.number("checkpoint_file_bytes", taken);
    object.number("checkpoint_live_bytes", needed);
    for (name, spread) in [("commits_in_write", &stats.groups), ("write_gap_us", &stats.gaps_us)] {
        let mut object = Object::begin(object.field(name));
        for (percent, field) in [(50, "p50"), (90, "p90"), (99, "p99"), (100, "max")] {
            object.number(field, spread.percentile(percent));
        }
        object.end();
    }
    json::list(object.field("regions"), &stats.work, |to, (number, work)| {
        let mut object = Object::begin(to);
        object.string("name", &regions.get(*number).name);
        object.number("inserts", work.inserts);
        object.number("replaces", work.replaces);
        object.number("removes", work.removes);
        object.number("clears", work.clears);
        object.number("key_bytes", work.key_bytes);
        object.number("value_bytes", work.value_bytes);
        object.end();
    });
    json::list(
        object.field("hot_keys"),
        stats.hot.hottest(keys),
        |to, ((number, key), changes)| {
            let region = regions.get(*number);
            let mut object = Object::begin(to);
            object.string("region", &region.name);
            region.key_field(key, &mut object);
            object.number("changes", changes);
            object.end();
        },
    );
    object.number("changes_too_high_by", stats.hot.error);
    object.end();
    out.document(&line)
}
