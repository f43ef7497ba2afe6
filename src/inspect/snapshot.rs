//! The state at a point of the kept history, read from a checkpoint and the log after it.

use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Inspector;
use super::log::{LogEvent, LogFrame};
use crate::boot::load;
use crate::checkpoint::layers::{Files, Layers};
use crate::error::{Error, ErrorKind, Result};
use crate::format::catalog::Catalog;
use crate::format::{CheckpointNo, Lsn, RegionNo};
use crate::log::tail::{Tail, TailBuilder};

/// How often a store is looked at again that a process is changing meanwhile.
const ATTEMPTS: u32 = 4;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// The durable state after some commit.
#[derive(Debug)]
pub struct Snapshot {
    /// The commit.
    pub lsn: Lsn,
    /// The checkpoint that it is read from; `None` where the log alone tells it.
    pub base: Option<CheckpointNo>,
    /// No region has had this number or a higher one.
    pub next_region: RegionNo,
    /// The regions by their numbers.
    pub regions: Vec<SnapshotRegion>,
    /// Why this is not the commit that was asked for.
    pub shortfall: Option<Error>,
}

/// One region of a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct SnapshotRegion {
    /// Its number.
    pub number: RegionNo,
    /// Its name.
    pub name: String,
    /// Its schema, encoded; [`Schema::decode`](crate::format::shape::Schema::decode) reads it.
    pub schema: Vec<u8>,
    /// The keys that it holds, as they were counted.
    pub entries: u64,
    pub(super) layers: Result<Arc<Layers>>,
    pub(super) others: Arc<Others>,
}

/// Other ways to tell the same state, worked out when something is damaged.
#[derive(Debug)]
pub(super) struct Others {
    inspector: Inspector,
    files: Arc<Files>,
    lsn: Lsn,
    /// Checkpoints that are not later than the state, and the empty one.
    catalogs: Vec<Arc<Catalog>>,
    told: OnceLock<Vec<(Arc<Catalog>, Tail)>>,
}

impl Others {
    /// The layers of a region by way of each other checkpoint whose log reaches as far.
    pub(super) fn layers(&self, region: RegionNo) -> Vec<Arc<Layers>> {
        let told = self.told.get_or_init(|| {
            let reach = |catalog: &Arc<Catalog>| {
                let reached = self.inspector.reach(catalog, Some(self.lsn)).ok()?;
                (reached.shortfall.is_none()).then(|| (Arc::clone(catalog), reached.tail))
            };
            self.catalogs.iter().filter_map(reach).collect()
        });
        let layers = |(catalog, tail): &(Arc<Catalog>, Tail)| {
            let made = load::regions(Some(catalog), tail, self.inspector.path(), self.lsn).ok()?;
            let made = made.get(&region)?;
            made.layers(&self.files).ok().map(Arc::new)
        };
        told.iter().filter_map(layers).collect()
    }
}

/// What a checkpoint and the log after it come to.
struct Reached {
    tail: Tail,
    lsn: Lsn,
    shortfall: Option<Error>,
}

impl Inspector {
    /// The state after a commit, or at the end of what is readable.
    ///
    /// # Errors
    /// `NotFound`: the kept history does not hold that commit. `Io`, `NewerFormat`. Where damage is in
    /// the way, the state is the nearest one before it, and says so.
    pub fn snapshot(&self, upto: Option<Lsn>) -> Result<Snapshot> {
        let mut inspector = self.clone();
        for _ in 1..ATTEMPTS {
            match inspector.snapshot_once(upto) {
                Ok(snapshot) if snapshot.shortfall.is_none() => return Ok(snapshot),
                Err(error) if error.kind() != ErrorKind::Io || error.is_absent() => {}
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            // A process that works with the store may have removed what was listed.
            inspector.dir.pause(BETWEEN_ATTEMPTS);
            inspector.look_again()?;
        }
        inspector.snapshot_once(upto)
    }

    /// The state that a checkpoint holds, without the log after it.
    ///
    /// # Errors
    /// `Damaged`: it has no catalog that can be read. `NewerFormat`, `Io`.
    pub fn snapshot_of(&self, checkpoint: CheckpointNo) -> Result<Snapshot> {
        let files = self.files();
        let catalog = Arc::new(files.get(checkpoint)?.catalog()?);
        let lsn = catalog.lsn();
        self.put_together(&files, &[], &catalog, &TailBuilder::default().finish(), lsn)
    }

    /// The state after a commit, by way of one checkpoint and the log after it; of none, of the log alone.
    ///
    /// # Errors
    /// `Damaged`: that way does not lead there. `NewerFormat`, `Io`.
    pub fn snapshot_by(&self, base: Option<CheckpointNo>, upto: Lsn) -> Result<Snapshot> {
        let files = self.files();
        let catalog = match base {
            Some(number) => files.get(number)?.catalog()?,
            None => Catalog::empty(),
        };
        let catalog = Arc::new(catalog);
        let reached = self.reach(&catalog, Some(upto))?;
        match reached.shortfall {
            Some(shortfall) => Err(shortfall),
            None => self.put_together(&files, &[], &catalog, &reached.tail, upto),
        }
    }

    fn snapshot_once(&self, upto: Option<Lsn>) -> Result<Snapshot> {
        let files = self.files();
        let mut catalogs: Vec<Arc<Catalog>> = Vec::new();
        for number in self.checkpoints().iter().rev() {
            match files.get(*number).and_then(|file| file.catalog()) {
                Ok(catalog) => catalogs.push(Arc::new(catalog)),
                // What cannot be read is passed over; an older one may do.
                Err(error) if error.kind() == ErrorKind::Damaged => {}
                Err(error) => return Err(error),
            }
        }
        catalogs.push(Arc::new(Catalog::empty()));
        catalogs.retain(|catalog| upto.is_none_or(|upto| catalog.lsn() <= upto));
        let mut best: Option<(Arc<Catalog>, Reached)> = None;
        for catalog in &catalogs {
            let reached = self.reach(catalog, upto)?;
            let further = best.as_ref().is_none_or(|(_, best)| best.lsn < reached.lsn);
            let done = reached.shortfall.is_none();
            if further || done {
                best = Some((Arc::clone(catalog), reached));
            }
            if done {
                break;
            }
        }
        let not_found = || {
            let what = "the history that is kept begins after this commit";
            let error = Error::new(ErrorKind::NotFound, what).at_path(self.path());
            upto.map_or(error.clone(), |upto| error.at_lsn(upto))
        };
        let (catalog, reached) = best.ok_or_else(not_found)?;
        let nothing = catalog.number.0 == 0 && reached.lsn == Lsn::ZERO;
        if let Some(shortfall) = reached.shortfall.as_ref().filter(|_| nothing) {
            let asked = upto.is_some_and(|upto| upto > Lsn::ZERO);
            return Err(if asked {
                not_found().caused_by_own(shortfall.clone())
            } else {
                shortfall.clone()
            });
        }
        let snapshot =
            self.put_together(&files, &catalogs, &catalog, &reached.tail, reached.lsn)?;
        Ok(Snapshot { shortfall: reached.shortfall, ..snapshot })
    }

    /// What the newest of some checkpoints and the log after it come to.
    pub(super) fn state_of(
        &self,
        kept: &[Arc<Catalog>],
        tail: &Tail,
        lsn: Lsn,
    ) -> Result<Snapshot> {
        let empty = Arc::new(Catalog::empty());
        let base = kept.first().unwrap_or(&empty);
        let others: Vec<Arc<Catalog>> = kept.iter().skip(1).chain([&empty]).cloned().collect();
        self.put_together(&self.files(), &others, base, tail, lsn)
    }

    fn put_together(
        &self,
        files: &Arc<Files>,
        catalogs: &[Arc<Catalog>],
        base: &Arc<Catalog>,
        tail: &Tail,
        lsn: Lsn,
    ) -> Result<Snapshot> {
        let others = Arc::new(Others {
            inspector: self.clone(),
            files: Arc::clone(files),
            lsn,
            catalogs: catalogs.iter().filter(|other| other.number < base.number).cloned().collect(),
            told: OnceLock::new(),
        });
        let made = load::regions(Some(base), tail, self.path(), lsn)?;
        let regions = made.into_iter().map(|(number, made)| SnapshotRegion {
            number,
            name: made.name.to_owned(),
            schema: made.schema.to_vec(),
            entries: made.entries,
            layers: made.layers(files).map(Arc::new),
            others: Arc::clone(&others),
        });
        Ok(Snapshot {
            lsn,
            base: Some(base.number).filter(|number| number.0 > 0),
            next_region: RegionNo(base.next_region.0.max(tail.next_region)),
            regions: regions.collect(),
            shortfall: None,
        })
    }

    /// Replays the log over a checkpoint, up to a commit or as far as it reads.
    fn reach(&self, catalog: &Catalog, upto: Option<Lsn>) -> Result<Reached> {
        let mut builder = TailBuilder::default();
        let mut lsn = catalog.lsn();
        let mut shortfall = None;
        if upto.is_none_or(|upto| upto > lsn) {
            self.walk_log(lsn.next(), |event| {
                match event {
                    LogEvent::Segment(header) if header.before.lsn > lsn => {
                        let path = self.path_of(&self.name_of_segment(header.number));
                        let what = "the log before this segment is gone";
                        shortfall = Some(Error::damaged(&path, 0, what).at_lsn(lsn.next()));
                    }
                    LogEvent::Frame(frame) => match add(&mut builder, &frame, lsn, upto) {
                        Ok(now) => lsn = now,
                        Err(why) => {
                            let name = self.name_of_segment(frame.segment);
                            let path = self.path_of(&name);
                            let begin = frame.header.begin;
                            shortfall = Some(Error::damaged(&path, begin, why).at_lsn(lsn.next()));
                        }
                    },
                    LogEvent::Gap(gap) if gap.last.is_none_or(|last| last > lsn) => {
                        shortfall = Some(gap.error);
                    }
                    LogEvent::Segment(_) | LogEvent::Gap(_) | LogEvent::End(_) => {}
                }
                let done = shortfall.is_some() || upto == Some(lsn);
                Ok(if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        if let Some(upto) = upto.filter(|upto| *upto > lsn)
            && shortfall.is_none()
        {
            let what = format!("the log ends with commit {lsn}");
            shortfall =
                Some(Error::new(ErrorKind::NotFound, what).at_path(self.path()).at_lsn(upto));
        }
        Ok(Reached { tail: builder.finish(), lsn, shortfall })
    }
}

/// Adds what a frame holds beyond a commit, and returns the last commit that is in then.
fn add(
    builder: &mut TailBuilder,
    frame: &LogFrame<'_>,
    lsn: Lsn,
    upto: Option<Lsn>,
) -> Result<Lsn, crate::format::Malformed> {
    let facts = &frame.header.facts;
    if frame.header.last_lsn() <= lsn {
        return Ok(lsn);
    }
    if facts.first_lsn != lsn.next() {
        return Err(crate::format::Malformed::Field("place in the order of commits"));
    }
    let room = upto.map_or(u64::MAX, |upto| upto.get().saturating_sub(lsn.get()));
    let take = u32::try_from(room).unwrap_or(u32::MAX).min(facts.commits);
    if take == facts.commits {
        builder.add(frame.records(), None, take)?;
    } else {
        builder.add_first(frame.records(), take)?;
    }
    Ok(lsn.plus(u64::from(take)))
}
