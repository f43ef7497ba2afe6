//! What was being made when the last run ended; nothing refers to it.

use super::Listing;
use crate::error::Result;
use crate::format::name;
use crate::storage::OpenMode;
use crate::storage::directory::{Directory, StoreFile};
use crate::tree::Remains;

/// A store leaves a few; what somebody else put there must not take all that a process may have open.
const HELD_MAX: usize = 64;

/// Files that have no name any more, and take room as long as this holds them: giving back that of a checkpoint
/// which was half written takes longer than all of a boot.
#[derive(Debug)]
pub(super) struct Leftovers {
    held: Vec<StoreFile>,
}

impl Leftovers {
    /// Removes the names. The room that was kept for this boot is given back at once.
    pub(super) fn remove(dir: &Directory, listing: &Listing) -> Result<Leftovers> {
        let mut held = Vec::new();
        for temporary in &listing.temporary {
            if temporary != name::RESERVE && held.len() < HELD_MAX {
                // What cannot be opened gives its room back as it is removed.
                held.extend(dir.open(temporary, OpenMode::Read).ok());
            }
            dir.remove(temporary)?;
        }
        Ok(Leftovers { held })
    }

    /// Gives back the room now; whether there was any.
    pub(super) fn give_back(&mut self) -> bool {
        let any = !self.held.is_empty();
        self.held.clear();
        any
    }
}

impl Remains for Leftovers {
    fn decay(self: Box<Self>, pause: &mut dyn FnMut()) {
        for file in self.held {
            drop(file);
            pause();
        }
    }
}
