//! Several sorted runs read as one: the newest layer wins, tombstones hide what is below.

use std::sync::Arc;

use super::section::{Section, SectionCursor};
use crate::error::Result;
use crate::format::block::Entry;
use crate::log::tail::Run;

/// One sorted run.
#[derive(Debug)]
pub(crate) enum Cursor {
    Run { run: Arc<Run>, at: usize },
    Section(Box<SectionCursor>),
}

impl Cursor {
    pub(crate) fn over_run(run: &Arc<Run>, lower: &[u8]) -> Cursor {
        Cursor::Run { run: Arc::clone(run), at: run.seek(lower) }
    }

    pub(crate) fn over_section(section: &Section, lower: &[u8]) -> Result<Cursor> {
        Ok(Cursor::Section(Box::new(SectionCursor::at(section.clone(), lower)?)))
    }

    fn entry(&self) -> Option<Entry<'_>> {
        match self {
            Cursor::Run { run, at } => run.get(*at),
            Cursor::Section(section) => section.entry(),
        }
    }

    fn advance(&mut self) -> Result<()> {
        match self {
            Cursor::Run { at, .. } => {
                *at += 1;
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
    current: Option<usize>,
}

impl Merge {
    /// Begins with the lowest key; keys from `upper` on are left out.
    pub(crate) fn new(cursors: Vec<Cursor>, upper: Option<Vec<u8>>) -> Merge {
        let mut merge = Merge { cursors, upper, current: None };
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
        if self.cursors.len() > 1 {
            let key =
                self.cursors.get(current).and_then(Cursor::entry).map(|entry| entry.key.to_vec());
            for (at, cursor) in self.cursors.iter_mut().enumerate() {
                let same = cursor.entry().map(|entry| entry.key) == key.as_deref();
                if at != current && same {
                    cursor.advance()?;
                }
            }
        }
        if let Some(cursor) = self.cursors.get_mut(current) {
            cursor.advance()?;
        }
        self.choose();
        Ok(())
    }

    /// Stands at the lowest key; of equal ones at the newest layer's.
    fn choose(&mut self) {
        let mut best: Option<(usize, &[u8])> = None;
        for (at, cursor) in self.cursors.iter().enumerate() {
            let Some(entry) = cursor.entry() else { continue };
            if best.is_none_or(|(_, key)| entry.key < key) {
                best = Some((at, entry.key));
            }
        }
        self.current = best.map(|(at, _)| at);
    }
}
