//! What has happened to a disk, gone through once more: every moment at which the power may go.

use super::image::CrashPoint;
use super::world::{Effect, InodeNo, World};

/// Goes through the history of a disk, and stops after every change.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    world: World,
    history: Vec<Effect>,
    next: usize,
}

impl Replay {
    pub(super) fn new(before: World, history: Vec<Effect>) -> Replay {
        Replay { world: before, history, next: 0 }
    }

    /// How many changes are behind it.
    pub(crate) fn at(&self) -> usize {
        self.next
    }

    /// How many changes there are.
    pub(crate) fn changes(&self) -> usize {
        self.history.len()
    }

    /// Goes on by one change; whether it may have changed what a crash leaves, or `None` at the end.
    pub(crate) fn step(&mut self) -> Option<bool> {
        let matters = self.world.apply(self.history.get(self.next)?);
        self.next += 1;
        Some(matters)
    }

    /// After which of the changes to come a crash may leave something else than before it.
    pub(crate) fn moments(&self) -> Vec<usize> {
        let mut ahead = self.clone();
        let step = || ahead.step().map(|matters| matters.then_some(ahead.at()));
        std::iter::from_fn(step).flatten().collect()
    }

    /// A crash at this moment.
    pub(crate) fn crash(&self) -> CrashPoint<'_> {
        CrashPoint::new(&self.world)
    }

    /// The last changes before this moment, a line each.
    pub(crate) fn last_changes(&self, count: usize) -> String {
        let from = self.next.saturating_sub(count);
        let lines = self.history[from..self.next]
            .iter()
            .enumerate()
            .map(|(at, effect)| format!("  {:>5}  {}", from + at + 1, self.describe(effect)));
        lines.collect::<Vec<_>>().join("\n")
    }

    fn describe(&self, effect: &Effect) -> String {
        let name = |file: &InodeNo| {
            let mut names = self.world.names.iter();
            let found = names.find(|(_, inode)| *inode == file).map(|(path, _)| path.display());
            found.map_or_else(|| "a file without a name".to_owned(), |path| path.to_string())
        };
        match effect {
            Effect::Create(path) => format!("create {}", path.display()),
            Effect::Rename(from, to) => format!("rename {} to {}", from.display(), to.display()),
            Effect::Remove(path) => format!("remove {}", path.display()),
            Effect::SyncDir => "sync the directory".to_owned(),
            Effect::Write { file, at, bytes } => {
                format!("write {} bytes at {at} of {}", bytes.len(), name(file))
            }
            Effect::SetLen { file, len } => format!("set the length of {} to {len}", name(file)),
            Effect::Sync(file) => format!("sync {}", name(file)),
            Effect::FailedSync(file) => format!("fail to sync {}", name(file)),
            Effect::Put(path, _) => format!("somebody puts another {} there", path.display()),
            Effect::TakeAway(path) => format!("somebody takes {} away", path.display()),
            Effect::Rot { file, bit } => format!("bit {bit} of {} rots", name(file)),
        }
    }
}
