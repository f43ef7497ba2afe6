//! What the files of a store say of themselves.

use std::ops::ControlFlow;

use rocstate::format::catalog::Catalog;
use rocstate::format::{CheckpointNo, SegmentNo, name};
use rocstate::inspect::LogEvent;
use rocstate::{Error, Lsn};

use crate::exit::Done;
use crate::store::Opened;

/// What is known of a segment.
pub(crate) struct SegmentLine {
    pub(crate) number: SegmentNo,
    pub(crate) epoch: Option<u64>,
    pub(crate) first: Option<Lsn>,
    pub(crate) last: Option<Lsn>,
    pub(crate) began_us: Option<u64>,
    pub(crate) used: u64,
    pub(crate) len: u64,
    pub(crate) broken: Option<String>,
}

/// What is known of a checkpoint.
pub(crate) struct CheckpointLine {
    pub(crate) number: CheckpointNo,
    pub(crate) catalog: Result<Catalog, Error>,
    pub(crate) len: u64,
}

impl CheckpointLine {
    /// The bytes of its sections that lie in its own file, and in older ones.
    pub(crate) fn own_and_shared(&self) -> (u64, u64) {
        let Ok(catalog) = &self.catalog else { return (0, 0) };
        let sections =
            catalog.regions.values().flat_map(rocstate::format::catalog::CatalogRegion::sections);
        sections.fold((0, 0), |(own, shared), section| {
            if section.file == self.number {
                (own.saturating_add(section.bytes), shared)
            } else {
                (own, shared.saturating_add(section.bytes))
            }
        })
    }
}

pub(crate) fn checkpoints(store: &Opened<'_>) -> Vec<CheckpointLine> {
    let numbers = store.files.checkpoints().iter();
    let line = |number: &CheckpointNo| CheckpointLine {
        number: *number,
        catalog: store.files.checkpoint(*number).and_then(|file| file.catalog()),
        len: store.files.len_of(&name::checkpoint(*number)).unwrap_or(0),
    };
    let lines = numbers.map(line);
    // A process that works with the store may have removed one since it was listed.
    let is_there = |line: &CheckpointLine| {
        line.catalog.is_ok() || store.files.path_of(&name::checkpoint(line.number)).exists()
    };
    lines.filter(is_there).collect()
}

pub(crate) fn segments(store: &Opened<'_>) -> Done<Vec<SegmentLine>> {
    let mut lines: Vec<SegmentLine> = Vec::new();
    store.files.walk_log(Lsn::ZERO, |event| {
        match event {
            LogEvent::Segment(header) => lines.push(SegmentLine {
                number: header.number,
                epoch: Some(header.epoch.0),
                first: None,
                last: None,
                began_us: None,
                used: rocstate::format::segment::FRAMES_BEGIN,
                len: header.len,
                broken: None,
            }),
            LogEvent::Frame(frame) => {
                if let Some(line) = lines.last_mut() {
                    line.began_us.get_or_insert(frame.header.facts.time_us);
                    line.used = frame.header.end();
                    if frame.header.facts.commits > 0 {
                        line.first.get_or_insert(frame.header.facts.first_lsn);
                        line.last = Some(frame.header.last_lsn());
                    }
                }
            }
            LogEvent::Gap(gap) => {
                let broken = Some(gap.error.to_string());
                match lines.last_mut().filter(|line| line.number == gap.segment) {
                    Some(line) => line.broken = broken,
                    None => lines.push(SegmentLine {
                        number: gap.segment,
                        epoch: None,
                        first: None,
                        last: None,
                        began_us: None,
                        used: 0,
                        len: 0,
                        broken,
                    }),
                }
            }
            LogEvent::End(_) => {}
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(lines)
}
