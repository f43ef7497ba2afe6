//! Walking a region's entries over damage: what is proven is told, what is not is named.
//!
//! # Invariants
//! - An entry is told only if every newer layer could be read where it lies.
//! - A stretch of keys that a damaged block covers is told by way of an older checkpoint and the log
//!   since, if that is whole; only then is it lost.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::blocks::Blocks;
use super::snapshot::SnapshotRegion;
use crate::checkpoint::layers::{LayerWalk, Layers};
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::Entry;
use crate::format::catalog::SectionRef;
use crate::log::run::Run;

/// What a walk through a region meets, in the order of its keys.
#[derive(Debug)]
pub enum Walked<'a> {
    /// A key that is present, and its value; both encoded.
    Entry {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// A key that an older layer holds, where a damaged newer one may say something else.
    Unproven {
        /// The key.
        key: &'a [u8],
        /// What the older layer says.
        value: &'a [u8],
    },
    /// Something was damaged, and the entries before this came by way of an older checkpoint.
    Healed(Error),
    /// The index of a section is damaged, and its entries are found without it, block behind block.
    WithoutIndex(Error),
    /// Entries that nothing tells any more.
    Lost(Lost),
}

/// A stretch of keys whose entries are lost, as far as newer layers do not tell them.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The first key that may be concerned, encoded.
    pub from: Vec<u8>,
    /// The first key beyond, if there is an end.
    pub to: Option<Vec<u8>>,
    /// How many entries the damaged block held, removals included; `None` where nothing tells.
    pub entries: Option<u64>,
    /// What is damaged.
    pub error: Error,
}

/// By what means damage is got around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    All,
    OfAProgram,
}

type Each<'a> = dyn FnMut(Walked<'_>) -> Result<ControlFlow<()>> + 'a;

impl SnapshotRegion {
    /// Calls `each` with the entries from `lower` up to, not including, `upper`, until it breaks off.
    ///
    /// # Errors
    /// `Io`, and what `each` returns. Damage is told to `each`.
    pub fn walk(
        &self,
        lower: &[u8],
        upper: Option<&[u8]>,
        mut each: impl FnMut(Walked<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.walk_by(Means::All, lower, upper, &mut each)
    }

    /// The same over all entries by no other means than a program has that opens the store: what it could
    /// not read is lost.
    ///
    /// # Errors
    /// As [`walk`](Self::walk).
    pub fn walk_as_a_program(
        &self,
        mut each: impl FnMut(Walked<'_>) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        self.walk_by(Means::OfAProgram, &[], None, &mut each)
    }

    fn walk_by(
        &self,
        means: Means,
        lower: &[u8],
        upper: Option<&[u8]>,
        each: &mut Each<'_>,
    ) -> Result<()> {
        let blame = |error: Error| error.in_region(&self.name).with_keys(lower, upper);
        let layers = match &self.layers {
            Ok(layers) => layers,
            Err(error) if error.kind() == ErrorKind::Damaged => {
                return self.walk_otherwise(lower, upper, blame(error.clone()), each);
            }
            Err(error) => return Err(error.clone()),
        };
        for piece in layers.piece_of(lower)..layers.pieces.len() {
            let Some(at) = layers.pieces.get(piece) else { break };
            let from = lower.max(&at.lower);
            if upper.is_some_and(|upper| from >= upper) {
                break;
            }
            let to = layers.upper(piece).into_iter().chain(upper).min();
            let mut stretch = Stretch::new(self, layers, piece, (from, to), means)?;
            if stretch.run(each)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The sections of its base, if those hold all that it has: no changes lie over them, neither in a checkpoint
    /// nor in the log.
    pub fn base_alone(&self) -> Option<impl Iterator<Item = &SectionRef>> {
        let layers = self.layers.as_ref().ok()?;
        let sections = layers.pieces.iter().filter_map(|piece| piece.section.as_ref());
        let is_alone = layers.runs.is_empty() && layers.deltas.is_empty();
        is_alone.then(|| sections.map(|section| &section.at))
    }

    /// The value of one key.
    ///
    /// # Errors
    /// `Damaged`: nothing tells it any more. `Io`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut upper = key.to_vec();
        upper.push(0);
        let mut found = None;
        let mut damage = None;
        self.walk(key, Some(&upper), |walked| {
            match walked {
                Walked::Entry { value, .. } => found = Some(value.to_vec()),
                Walked::Lost(lost) => damage = Some(lost.error),
                _ => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match (found, damage) {
            (None, Some(damage)) => Err(damage),
            (found, _) => Ok(found),
        }
    }

    /// Tells a stretch by way of an older checkpoint, or that it is lost.
    fn walk_otherwise(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        error: Error,
        each: &mut Each<'_>,
    ) -> Result<()> {
        if self.heal(from, to, &error, each)?.is_none() {
            let (from, to) = (from.to_vec(), to.map(<[u8]>::to_vec));
            let _stop = each(Walked::Lost(Lost { from, to, entries: None, error }))?;
        }
        Ok(())
    }

    /// The same entries from an older checkpoint and the log since; `None` if that is damaged as well.
    fn heal(
        &self,
        from: &[u8],
        to: Option<&[u8]>,
        error: &Error,
        each: &mut Each<'_>,
    ) -> Result<Option<ControlFlow<()>>> {
        for older in self.others.layers(self.number) {
            // It is read twice, so that nothing is told of a way that turns out to be damaged.
            let whole =
                LayerWalk::from(&older, from).and_then(|mut walk| walk.walk_to(to, |_, _| Ok(())));
            if whole.is_err() {
                continue;
            }
            let mut flow = ControlFlow::Continue(());
            LayerWalk::from(&older, from)?.walk_to(to, |key, value| {
                if flow.is_continue() {
                    flow = each(Walked::Entry { key, value })?;
                }
                Ok(())
            })?;
            if flow.is_continue() {
                flow = each(Walked::Healed(error.clone()))?;
            }
            return Ok(Some(flow));
        }
        Ok(None)
    }
}

/// The layers over a part of one piece, merged.
struct Stretch<'a> {
    region: &'a SnapshotRegion,
    /// Newest first.
    sources: Vec<Source>,
    to: Option<&'a [u8]>,
    key: Vec<u8>,
}

/// One layer.
struct Source {
    entries: Entries,
    /// How far what it held is unknown, so that older layers are not to be believed.
    blind: Blind,
}

enum Blind {
    No,
    UpTo(Vec<u8>),
    ToTheEnd,
}

enum Entries {
    Run { run: Arc<Run>, at: usize },
    Section(Blocks),
}

/// What a layer stands at.
pub(super) enum At<'a> {
    Entry(Entry<'a>),
    Hole(&'a [u8]),
}

impl<'a> Stretch<'a> {
    fn new(
        region: &'a SnapshotRegion,
        layers: &Layers,
        piece: usize,
        (from, to): (&[u8], Option<&'a [u8]>),
        means: Means,
    ) -> Result<Stretch<'a>> {
        let runs = layers.runs.iter().map(|run| Source {
            entries: Entries::Run { run: Arc::clone(run), at: run.seek(from) },
            blind: Blind::No,
        });
        let mut sources: Vec<Source> = runs.collect();
        if let Some(piece) = layers.pieces.get(piece) {
            for section in layers.deltas_over(piece).chain(&piece.section) {
                let entries = Entries::Section(Blocks::over(section, from, to, means)?);
                sources.push(Source { entries, blind: Blind::No });
            }
        }
        Ok(Stretch { region, sources, to, key: Vec::new() })
    }

    fn run(&mut self, each: &mut Each<'_>) -> Result<ControlFlow<()>> {
        for source in &self.sources {
            if let Entries::Section(blocks) = &source.entries
                && let Some(error) = blocks.without_index.clone()
                && each(Walked::WithoutIndex(error.in_region(&self.region.name)))?.is_break()
            {
                return Ok(ControlFlow::Break(()));
            }
        }
        while let Some(number) = self.lowest() {
            let source = self.sources.get_mut(number).map(|source| &mut source.entries);
            let flow = match source {
                Some(Entries::Section(blocks)) if blocks.is_at_hole() => {
                    match blocks.take_hole()? {
                        Some(hole) => self.over_hole(number, hole, each)?,
                        None => ControlFlow::Continue(()),
                    }
                }
                _ => self.tell(number, each)?,
            };
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The newest of the layers that stand at the lowest key; a hole comes before an entry.
    fn lowest(&mut self) -> Option<usize> {
        let mut lowest: Option<(usize, &[u8], bool)> = None;
        for (number, source) in self.sources.iter().enumerate() {
            let (key, entry) = match source.entries.at() {
                Some(At::Entry(entry)) => (entry.key, true),
                Some(At::Hole(from)) => (from, false),
                None => continue,
            };
            if self.to.is_some_and(|to| key >= to) {
                continue;
            }
            if lowest.is_none_or(|(_, least, is_entry)| (key, entry) < (least, is_entry)) {
                lowest = Some((number, key, entry));
            }
        }
        let (number, key, _) = lowest?;
        self.key.clear();
        self.key.extend_from_slice(key);
        Some(number)
    }

    /// Tells what the newest layer says of a key, and goes past what the others say.
    fn tell(&mut self, number: usize, each: &mut Each<'_>) -> Result<ControlFlow<()>> {
        let key = self.key.as_slice();
        let newer = self.sources.iter().take(number);
        let proven = !newer.into_iter().any(|source| source.is_blind_at(key));
        let entry = self.sources.get(number).and_then(|source| match source.entries.at()? {
            At::Entry(entry) => entry.value,
            At::Hole(_) => None,
        });
        let flow = match entry {
            Some(value) if proven => each(Walked::Entry { key, value })?,
            Some(value) => each(Walked::Unproven { key, value })?,
            None => ControlFlow::Continue(()),
        };
        for source in self.sources.iter_mut().skip(number) {
            let same = matches!(source.entries.at(), Some(At::Entry(entry)) if entry.key == key);
            if same {
                source.entries.advance()?;
            }
        }
        Ok(flow)
    }

    fn over_hole(
        &mut self,
        number: usize,
        hole: Lost,
        each: &mut Each<'_>,
    ) -> Result<ControlFlow<()>> {
        let to = hole.to.clone().or(self.to.map(<[u8]>::to_vec));
        let error = hole.error.in_region(&self.region.name).with_keys(&hole.from, to.as_deref());
        if let Some(flow) = self.region.heal(&hole.from, to.as_deref(), &error, each)? {
            for source in &mut self.sources {
                source.entries.seek(to.as_deref())?;
            }
            return Ok(flow);
        }
        if let Some(source) = self.sources.get_mut(number) {
            source.blind = to.clone().map_or(Blind::ToTheEnd, Blind::UpTo);
        }
        each(Walked::Lost(Lost { to, error, ..hole }))
    }
}

impl Source {
    fn is_blind_at(&self, key: &[u8]) -> bool {
        match &self.blind {
            Blind::No => false,
            Blind::UpTo(upto) => key < upto.as_slice(),
            Blind::ToTheEnd => true,
        }
    }
}

impl Entries {
    fn at(&self) -> Option<At<'_>> {
        match self {
            Entries::Run { run, at } => run.get(*at).map(At::Entry),
            Entries::Section(blocks) => blocks.at(),
        }
    }

    fn advance(&mut self) -> Result<()> {
        match self {
            Entries::Run { at, .. } => {
                *at += 1;
                Ok(())
            }
            Entries::Section(blocks) => blocks.advance(),
        }
    }

    /// Goes to the first key that is not below `to`, or past all.
    fn seek(&mut self, to: Option<&[u8]>) -> Result<()> {
        match self {
            Entries::Run { run, at } => *at = to.map_or(run.len(), |to| run.seek(to)),
            Entries::Section(blocks) => blocks.seek(to)?,
        }
        Ok(())
    }
}
