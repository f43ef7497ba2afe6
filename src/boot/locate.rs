//! Which store this is, and the newest checkpoint that is whole.

use std::sync::Arc;

use super::Listing;
use crate::checkpoint::layers::Files;
use crate::checkpoint::reader::CheckpointFile;
use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::catalog::Catalog;
use crate::format::lock::LockSector;
use crate::format::segment::SegmentHeader;
use crate::format::{Epoch, Lineage, SegmentNo, name};
use crate::log::cut::unreadable;
use crate::log::scan::SegmentReader;
use crate::storage::directory::Directory;

/// Which store this is and how far it has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) lineage: Lineage,
    /// What LOCK says, or the newest segment in its place: either may be behind the other.
    pub(crate) epoch: Epoch,
    /// The newest segment that exists or is named; 0 in a store that was never begun.
    pub(crate) newest_segment: SegmentNo,
}

/// The checkpoints that are whole.
#[derive(Debug, Default)]
pub(crate) struct Located {
    /// Newest first.
    pub(crate) kept: Vec<Arc<Catalog>>,
    pub(crate) healed: Vec<String>,
    /// What is wrong with the newest checkpoint: the cause, if the log does not make up for it.
    pub(crate) damage: Option<Error>,
    pub(crate) renew: bool,
    pub(crate) bytes: u64,
}

/// Reads the identity from LOCK, or from the newest segment where LOCK is no good.
pub(crate) fn identity(
    dir: &Directory,
    listing: &Listing,
    sector: Option<LockSector>,
) -> Result<Identity> {
    let newest = listing.segments.last().copied();
    if let Some(sector) = sector {
        let named = sector.newest_segment;
        if newest.is_none_or(|newest| newest < named) && !left_out(Step::NewestIsThere) {
            let path = dir.path_of(&name::segment(named));
            return Err(Error::damaged(&path, 0, "the newest segment of the log is absent"));
        }
        return Ok(Identity {
            lineage: sector.lineage,
            epoch: sector.epoch,
            newest_segment: newest.unwrap_or(named),
        });
    }
    let Some(newest) = newest else {
        if let Some(number) = listing.checkpoints.last() {
            let path = dir.path_of(&name::checkpoint(*number));
            return Err(Error::damaged(&path, 0, "the store has checkpoints and no log"));
        }
        let lineage = Lineage(dir.random()?);
        return Ok(Identity { lineage, epoch: Epoch(0), newest_segment: SegmentNo(0) });
    };
    let segment = SegmentReader::open(dir, newest).map_err(|why| unreadable(dir, newest, why))?;
    let header = segment.header;
    Ok(Identity { lineage: header.lineage, epoch: header.epoch, newest_segment: newest })
}

/// Reads the catalogs, newest first. A damaged one is left out and reported; whether the log makes
/// up for it is for the scan to see.
pub(crate) fn locate(dir: &Directory, files: &Files, listing: &Listing) -> Result<Located> {
    let mut located = Located::default();
    let mut listed_as_kept = None;
    for number in listing.checkpoints.iter().rev() {
        // What a newer catalog does not keep is only waiting for its removal.
        let kept: Option<&Vec<_>> = listed_as_kept.as_ref();
        if kept.is_some_and(|kept| !kept.contains(number)) {
            continue;
        }
        match read(files, *number) {
            Ok((file, catalog)) => {
                located.bytes += file.len();
                listed_as_kept.get_or_insert_with(|| catalog.kept.clone());
                located.kept.push(Arc::new(catalog));
            }
            Err(error) if error.kind() == ErrorKind::Damaged => {
                located.renew = true;
                located.damage.get_or_insert_with(|| error.clone());
                located
                    .healed
                    .push(format!("{error} (replaced by an older checkpoint and the log)"));
            }
            Err(error) => return Err(error),
        }
    }
    // A kept checkpoint that is gone is damage to redundancy, not to the state.
    let newest_kept = located.kept.first().map(|newest| newest.kept.clone()).unwrap_or_default();
    for number in newest_kept {
        if !listing.checkpoints.contains(&number) {
            let path = dir.path_of(&name::checkpoint(number));
            located.renew = true;
            located.healed.push(format!("{} is absent and not needed", path.display()));
        }
    }
    Ok(located)
}

fn read(
    files: &Files,
    number: crate::format::CheckpointNo,
) -> Result<(Arc<CheckpointFile>, Catalog)> {
    let file = files.get(number)?;
    let catalog = file.catalog()?;
    files.open_all(&catalog)?;
    Ok((file, catalog))
}

/// The highest epoch that any durable thing names.
pub(crate) fn highest_epoch(
    identity: &Identity,
    newest: Option<&SegmentHeader>,
    kept: &[Arc<Catalog>],
) -> Epoch {
    let of_catalogs = kept.iter().map(|catalog| catalog.epoch);
    of_catalogs.chain(newest.map(|newest| newest.epoch)).fold(identity.epoch, Epoch::max)
}
