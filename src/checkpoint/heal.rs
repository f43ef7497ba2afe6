//! What a damaged section held, put together again from an older checkpoint and the log since.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::layers::{Files, Layers};
use crate::error::{Error, Result};
use crate::format::catalog::Catalog;
use crate::format::{Lineage, Place, RegionNo};
use crate::give_way::GiveWay;
use crate::log::cut::cut;
use crate::storage::directory::Directory;

/// A file that is damaged throughout needs no more sentences than this.
const NOTES_MAX: usize = 256;

/// Everything that healing reads from.
#[derive(Clone, Debug)]
pub(crate) struct Redundancy {
    pub(crate) dir: Directory,
    pub(crate) files: Arc<Files>,
    pub(crate) lineage: Lineage,
    /// Older checkpoints, newest first, and the empty one that the log begins with.
    pub(crate) older: Vec<Arc<Catalog>>,
    /// The place of the log at which the regions have the content that is asked for.
    pub(crate) at: Place,
}

impl Redundancy {
    /// The layers of a region by way of each older checkpoint, where its log is unbroken.
    pub(crate) fn alternatives(&self, region: RegionNo) -> impl Iterator<Item = Layers> {
        self.older.iter().filter_map(move |catalog| self.layers(catalog, region).ok())
    }

    fn layers(&self, catalog: &Catalog, region: RegionNo) -> Result<Layers> {
        // Views read on when the store has ended.
        let always = GiveWay::default();
        let (mut tail, _) = cut(&self.dir, self.lineage, &catalog.place, &self.at, &always)?;
        let change = tail.regions.remove(&region).unwrap_or_default();
        let below = catalog.regions.get(&region).filter(|_| !change.cleared);
        Layers::new(&self.files, below, change.run)
    }
}

/// What was healed since this open, for whoever asks; the next checkpoint must not depend on what
/// was damaged.
#[derive(Default)]
pub(crate) struct Healed {
    notes: Mutex<Vec<String>>,
    renew: AtomicBool,
    /// Has a checkpoint taken soon: what was healed is safe only once it is written anew.
    ask: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl fmt::Debug for Healed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Healed").field("notes", &self.notes).finish_non_exhaustive()
    }
}

impl Healed {
    /// Says who takes checkpoints.
    pub(crate) fn ask_for_checkpoints(&self, ask: impl Fn() + Send + Sync + 'static) {
        // A store has one keeper, and it is named once.
        self.ask.set(Box::new(ask)).ok();
    }

    pub(crate) fn note(&self, damage: &Error) {
        let note = format!("{damage} (rebuilt from an older checkpoint and the log)");
        let mut notes = self.notes.lock();
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            notes.push(note);
        }
        drop(notes);
        self.renew.store(true, Ordering::Release);
        if let Some(ask) = self.ask.get() {
            ask();
        }
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }

    /// Whether something was healed since this was last asked.
    pub(crate) fn take_renew(&self) -> bool {
        self.renew.swap(false, Ordering::AcqRel)
    }
}
