//! What was being made when the last run ended; nothing refers to it.

use super::Listing;
use crate::control::{Step, left_out};
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
    /// What the log was continued in has its name still.
    begun: bool,
}

impl Leftovers {
    /// Removes the names. The room that was kept for this boot is given back at once; what the log was continued
    /// in stays until that is durable elsewhere.
    pub(super) fn remove(dir: &Directory, listing: &Listing) -> Result<Leftovers> {
        let mut leftovers = Leftovers { held: Vec::new(), begun: false };
        for temporary in &listing.temporary {
            if temporary == name::RESERVE {
                dir.remove(temporary)?;
            } else if temporary == name::BEGUN && !left_out(Step::BegunStaysUntilSealed) {
                leftovers.begun = true;
            } else {
                leftovers.add(dir, temporary)?;
            }
        }
        Ok(leftovers)
    }

    /// Removes what the log was continued in, if there was that, now that it is durable elsewhere.
    pub(super) fn remove_begun(&mut self, dir: &Directory) -> Result<()> {
        if self.begun { self.add(dir, name::BEGUN) } else { Ok(()) }
    }

    /// Removes a name, and keeps the file for later.
    fn add(&mut self, dir: &Directory, name: &str) -> Result<()> {
        if self.held.len() < HELD_MAX {
            // What cannot be opened gives its room back as it is removed.
            self.held.extend(dir.open(name, OpenMode::Read).ok());
        }
        dir.remove(name)
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
