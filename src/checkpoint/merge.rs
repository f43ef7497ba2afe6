//! Several sorted runs read as one: the newest layer wins, tombstones hide what is below.

use std::sync::Arc;

use super::section::{Section, SectionCursor};
use crate::error::Result;
use crate::format::block::Entry;
use crate::log::run::Run;

/// So many entries of a run are fetched ahead.
const RUN_AHEAD: usize = 4;

/// One sorted run.
#[derive(Debug)]
pub(crate) enum Cursor {
    Run { run: Arc<Run>, at: usize },
    Section(Box<SectionCursor>),
}

impl Cursor {
    pub(crate) fn over_run(run: &Arc<Run>, lower: &[u8]) -> Cursor {
        let at = run.seek(lower);
        (at..at + RUN_AHEAD).for_each(|at| run.prefetch(at));
        Cursor::Run { run: Arc::clone(run), at }
    }

    /// The entries of a delta, whose blocks span the ranges of many others.
    pub(crate) fn over_delta(delta: &Arc<Section>, lower: &[u8]) -> Result<Cursor> {
        Ok(Cursor::Section(Box::new(SectionCursor::at(delta, lower, true)?)))
    }

    /// The entries of a piece of the base.
    pub(crate) fn over_base(section: &Arc<Section>, lower: &[u8]) -> Result<Cursor> {
        Ok(Cursor::Section(Box::new(SectionCursor::at(section, lower, false)?)))
    }

    fn entry(&self) -> Option<Entry<'_>> {
        match self {
            Cursor::Run { run, at } => run.get(*at),
            Cursor::Section(section) => section.entry(),
        }
    }

    fn advance(&mut self) -> Result<()> {
        match self {
            Cursor::Run { run, at } => {
                *at += 1;
                run.prefetch(*at + RUN_AHEAD - 1);
                Ok(())
            }
            Cursor::Section(section) => section.advance(),
        }
    }
}

/// Layers over one key range, newest first, read as one run.
#[derive(Debug)]
pub(crate) struct Merge {
    cursors: Vec<Cursor>,
    upper: Option<Vec<u8>>,
    /// The cursor that stands at the lowest key; of equal ones the newest.
    current: Option<usize>,
    /// The lowest key of the others, if there is one: a copy, since finding an entry costs more than
    /// comparing with one.
    next: Option<Vec<u8>>,
    /// Whether it is the same key.
    tied: bool,
}

impl Merge {
    /// Begins with the lowest key; keys from `upper` on are left out.
    pub(crate) fn new(cursors: Vec<Cursor>, upper: Option<Vec<u8>>) -> Merge {
        let mut merge = Merge { cursors, upper, current: None, next: None, tied: false };
        merge.choose();
        merge
    }

    /// The entry it stands at; a tombstone if that is what the newest layer says.
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        let entry = self.cursors.get(self.current?)?.entry()?;
        let inside = self.upper.as_deref().is_none_or(|upper| entry.key < upper);
        inside.then_some(entry)
    }

    /// Goes to the next key, past what the older layers say of this one.
    pub(crate) fn advance(&mut self) -> Result<()> {
        let Some(current) = self.current else { return Ok(()) };
        if self.tied {
            let key = self.key_of(self.current).map(<[u8]>::to_vec);
            // Those that stand at the same key are older.
            for cursor in self.cursors.iter_mut().skip(current + 1) {
                if cursor.entry().map(|entry| entry.key) == key.as_deref() {
                    cursor.advance()?;
                }
            }
        }
        if let Some(cursor) = self.cursors.get_mut(current) {
            cursor.advance()?;
        }
        // As long as it stays below all others, nothing else moves.
        let stays = !self.tied
            && match (self.key_of(self.current), self.next.as_deref()) {
                (Some(key), Some(next)) => key < next,
                (Some(_), None) => true,
                (None, _) => false,
            };
        if !stays {
            self.choose();
        }
        Ok(())
    }

    fn key_of(&self, cursor: Option<usize>) -> Option<&[u8]> {
        self.cursors.get(cursor?)?.entry().map(|entry| entry.key)
    }

    /// Finds the lowest key and the one after it; of equal ones the newest layer's comes first.
    fn choose(&mut self) {
        let mut best: Option<(usize, &[u8])> = None;
        let mut next: Option<(usize, &[u8])> = None;
        for (at, cursor) in self.cursors.iter().enumerate() {
            let Some(entry) = cursor.entry() else { continue };
            if best.is_none_or(|(_, key)| entry.key < key) {
                next = best.replace((at, entry.key));
            } else if next.is_none_or(|(_, key)| entry.key < key) {
                next = Some((at, entry.key));
            }
        }
        let tied = next.is_some() && best.map(|(_, key)| key) == next.map(|(_, key)| key);
        let mut kept = self.next.take().unwrap_or_default();
        self.next = next.map(|(_, key)| {
            kept.clear();
            kept.extend_from_slice(key);
            kept
        });
        (self.current, self.tied) = (best.map(|(at, _)| at), tied);
    }
}
