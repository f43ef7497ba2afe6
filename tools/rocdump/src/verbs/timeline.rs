//! `timeline`: a picture of what is kept, along the order of commits.

mod svg;
mod text;

use std::ops::ControlFlow;
use std::path::Path;

use rocstate::Lsn;
use rocstate::format::operation::Operation;
use rocstate::inspect::LogEvent;

use super::restore::refuse_inside;
use crate::exit::Done;
use crate::files::{SegmentLine, checkpoints, segments};
use crate::health::{Health, health};
use crate::json::{self, Object};
use crate::out::{Out, begin_document, bytes, counted, duration, moment};
use crate::store::Opened;

/// What the picture shows. Commits are places on a line.
pub(super) struct Picture {
    /// Before the first commit that is shown, and the last one.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) segments: Vec<SegmentLine>,
    /// Number, commit, and whether the next boot begins with it.
    pub(super) checkpoints: Vec<(u64, u64, bool)>,
    /// Which boot, and the last commit before it.
    pub(super) boots: Vec<(u64, u64)>,
    /// What happened to a whole region, and in which commit.
    pub(super) discards: Vec<(String, u64)>,
    /// Commits that cannot be read: first and last.
    pub(super) gaps: Vec<(u64, u64)>,
    /// Moments: commit and time.
    pub(super) times: Vec<(u64, u64)>,
    /// From which commit on the next boot reads.
    pub(super) boot_from: Option<u64>,
    pub(super) boot_text: String,
    pub(super) health: Health,
}

impl Picture {
    /// Where a commit is, from 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
    pub(super) fn place(&self, lsn: u64) -> f64 {
        let width = self.to.saturating_sub(self.from).max(1) as f64;
        (lsn.saturating_sub(self.from) as f64 / width).clamp(0.0, 1.0)
    }

    /// The commits at the ends of the quarters, as a scale shows them.
    pub(super) fn quarters(&self) -> impl Iterator<Item = u64> {
        let width = u128::from(self.to.saturating_sub(self.from));
        let from = self.from;
        // A part of a difference of two numbers of 64 bits is one as well.
        (0..=4u128).map(move |part| from + u64::try_from(width * part / 4).unwrap_or(u64::MAX))
    }

    /// The time of a commit that is near a place.
    pub(super) fn time_near(&self, place: f64) -> Option<u64> {
        let far = |lsn: u64| (self.place(lsn) - place).abs();
        let nearest = self.times.iter().min_by(|a, b| far(a.0).total_cmp(&far(b.0)))?;
        Some(nearest.1)
    }
}

pub(crate) fn run(store: &Opened<'_>, svg: Option<&Path>, out: &mut Out<'_>) -> Done {
    let picture = look(store)?;
    if let Some(path) = svg {
        refuse_inside(store, path)?;
        fs_err::write(path, svg::draw(&picture))?;
    }
    if out.json {
        write_json(&picture, out)?;
    } else if svg.is_none() {
        text::draw(&picture, out)?;
    }
    Ok(picture.health.exit)
}

fn look(store: &Opened<'_>) -> Done<Picture> {
    let health = health(&store.files)?;
    let (mut regions, _) = store.regions_of_catalogs()?;
    let mut picture = Picture {
        from: u64::MAX,
        to: 0,
        segments: segments(store)?,
        checkpoints: Vec::new(),
        boots: Vec::new(),
        discards: Vec::new(),
        gaps: Vec::new(),
        times: Vec::new(),
        boot_from: health
            .outlook
            .as_ref()
            .map(|outlook| outlook.checkpoint.map_or(0, |(_, lsn)| lsn.get())),
        boot_text: boot_text(&health),
        health,
    };
    let base = picture.health.outlook.as_ref().and_then(|outlook| outlook.checkpoint);
    for line in checkpoints(store) {
        if let Ok(catalog) = &line.catalog {
            let begins = base.is_some_and(|(number, _)| number == line.number);
            picture.checkpoints.push((line.number.0, catalog.lsn().get(), begins));
        }
    }
    let mut epoch = None;
    store.files.walk_log(Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(header) => {
                picture.from = picture.from.min(header.before.lsn.get());
                picture.to = picture.to.max(header.before.lsn.get());
                if epoch.replace(header.epoch) != Some(header.epoch) {
                    picture.boots.push((header.epoch.0, header.before.lsn.get()));
                }
            }
            LogEvent::Frame(frame) => {
                let facts = &frame.header.facts;
                picture.to = picture.to.max(frame.header.last_lsn().get());
                picture.times.push((frame.header.last_lsn().get(), facts.time_us));
                for commit in frame.commits().flatten() {
                    for operation in commit.operations().flatten() {
                        regions.learn(std::iter::once(operation));
                        let what = match operation {
                            Operation::Clear { .. } => "cleared",
                            Operation::RemoveRegion { .. } => "removed",
                            _ => continue,
                        };
                        let name = &regions.get(operation.region()).name;
                        picture.discards.push((format!("{name} {what}"), commit.lsn.get()));
                    }
                }
            }
            LogEvent::Gap(gap) => {
                let last = gap.last.unwrap_or(gap.first).max(gap.first);
                picture.gaps.push((gap.first.get(), last.get()));
            }
            LogEvent::End(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for (_, lsn, _) in &picture.checkpoints {
        picture.from = picture.from.min(*lsn);
        picture.to = picture.to.max(*lsn);
    }
    for (_, last) in &picture.gaps {
        picture.to = picture.to.max(*last);
    }
    picture.from = picture.from.min(picture.to);
    thin(&mut picture.times);
    Ok(picture)
}

/// Enough moments for any picture.
fn thin(times: &mut Vec<(u64, u64)>) {
    const MOMENTS: usize = 2048;
    let step = times.len().div_ceil(MOMENTS).max(1);
    let last = times.last().copied();
    let mut at = 0;
    times.retain(|_| {
        at += 1;
        (at - 1) % step == 0
    });
    times.extend(last);
}

fn boot_text(health: &Health) -> String {
    match &health.outlook {
        None => "would refuse: the log is damaged where it is needed".to_owned(),
        Some(outlook) if outlook.commits == 0 => {
            format!("reads no commit, about {}", duration(outlook.estimate))
        }
        Some(outlook) => format!(
            "reads {} ({}), about {}",
            counted(outlook.commits, "commit"),
            bytes(outlook.log_bytes),
            duration(outlook.estimate)
        ),
    }
}

fn write_json(picture: &Picture, out: &mut Out<'_>) -> Done<()> {
    let mut line = Vec::new();
    let mut object = begin_document(&mut line, "timeline");
    object.text("after_lsn", picture.from);
    object.text("last_lsn", picture.to);
    object.text_or_null("next_boot_reads_after_lsn", picture.boot_from);
    json::list(object.field("segments"), &picture.segments, |to, segment| {
        let mut object = Object::begin(to);
        object.text("number", segment.number.0);
        object.text_or_null("first_lsn", segment.first);
        object.text_or_null("last_lsn", segment.last);
        object.end();
    });
    json::list(object.field("checkpoints"), &picture.checkpoints, |to, (number, lsn, begins)| {
        let mut object = Object::begin(to);
        object.text("number", number);
        object.text("lsn", lsn);
        object.bool("next_boot_begins_here", *begins);
        object.end();
    });
    json::list(object.field("boots"), &picture.boots, |to, (epoch, lsn)| {
        let mut object = Object::begin(to);
        object.text("epoch", epoch);
        object.text("after_lsn", lsn);
        object.end();
    });
    json::list(object.field("discards"), &picture.discards, |to, (what, lsn)| {
        let mut object = Object::begin(to);
        object.string("what", what);
        object.text("lsn", lsn);
        object.end();
    });
    json::list(object.field("gaps"), &picture.gaps, |to, (first, last)| {
        let mut object = Object::begin(to);
        object.text("first", first);
        object.text("last", last);
        object.end();
    });
    let ends = [picture.times.first(), picture.times.last()];
    json::list(object.field("times"), ends.into_iter().flatten(), |to, (lsn, us)| {
        let mut object = Object::begin(to);
        object.text("lsn", lsn);
        object.text("time", moment(*us));
        object.end();
    });
    object.end();
    out.document(&line)
}
