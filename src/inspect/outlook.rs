//! What the next boot would do.

use std::time::Duration;

use super::{Inspector, Snapshot};
use crate::boot::foresee;
use crate::error::{ErrorKind, Result};
use crate::format::{CheckpointNo, Lsn};
use crate::report::LastRun;

/// How often a store is looked at again that a process is changing meanwhile.
const ATTEMPTS: u32 = 4;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// What the next boot would do, as the code that boots decides it; nothing is written.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outlook {
    /// The checkpoint that it begins with, and the last commit in it.
    pub checkpoint: Option<(CheckpointNo, Lsn)>,
    /// The checkpoints that are whole, newest first.
    pub whole: Vec<CheckpointNo>,
    /// The last commit that there will be.
    pub end: Lsn,
    /// The last commit of which anything says that it was synced.
    pub claimed: Lsn,
    /// Valid frames after it, which a boot writes again.
    pub unclaimed_frames: u64,
    /// Commits, operations and bytes of log to replay.
    pub commits: u64,
    /// Operations to replay.
    pub operations: u64,
    /// Bytes of log to read.
    pub log_bytes: u64,
    /// Bytes at the log's end that are no frame and that nothing claims.
    pub torn_bytes: u64,
    /// What is wrong and made up for, a sentence each.
    pub healed: Vec<String>,
    /// How the last run ended, or stands.
    pub last_run: LastRun,
    /// How long it will take on the machine that wrote the newest checkpoint, or on a usual one.
    pub estimate: Duration,
    /// The part of that for the log: the rest is there whatever the log holds.
    pub replay: Duration,
}

impl Inspector {
    /// What the next boot would do; of a store that was never begun, nothing.
    ///
    /// # Errors
    /// Those of an open: `Damaged` where a boot would refuse, `NewerFormat`, `Io`.
    pub fn outlook(&self) -> Result<Outlook> {
        self.next_boot().map(|(outlook, _)| outlook)
    }

    /// The same, and the state that the next boot would come to.
    ///
    /// # Errors
    /// As [`outlook`](Self::outlook).
    pub fn next_boot(&self) -> Result<(Outlook, Snapshot)> {
        let mut attempt = 1;
        let foreseen = loop {
            match foresee(&self.dir) {
                Ok(foreseen) if foreseen.healed.is_empty() || attempt == ATTEMPTS => {
                    break foreseen;
                }
                Err(error) if error.kind() != ErrorKind::Damaged || attempt == ATTEMPTS => {
                    return Err(error);
                }
                // A process that works with the store may have removed what was listed.
                _ => {
                    attempt += 1;
                    self.dir.pause(BETWEEN_ATTEMPTS);
                }
            }
        };
        let outlook = Outlook {
            checkpoint: foreseen.kept.first().map(|catalog| (catalog.number, catalog.lsn())),
            whole: foreseen.kept.iter().map(|catalog| catalog.number).collect(),
            end: foreseen.end,
            claimed: foreseen.claimed.lsn,
            unclaimed_frames: crate::format::disk_len(foreseen.unclaimed),
            commits: foreseen.tail.commits,
            operations: foreseen.work.operations,
            log_bytes: foreseen.work.bytes,
            torn_bytes: foreseen.torn_bytes,
            healed: foreseen.healed,
            last_run: foreseen.last_run,
            estimate: foreseen.rate.boot(foreseen.work),
            replay: foreseen.rate.replay(foreseen.work),
        };
        let snapshot = self.state_of(&foreseen.kept, &foreseen.tail, foreseen.end)?;
        Ok((outlook, snapshot))
    }
}
