//! What nobody blocks for: leading awaited commits; and, on a thread of its own, since commits that ask for
//! no sync must not wait for one, syncing `Process` commits and the witness of an idle log.

use std::time::Instant;

use super::Commits;
use super::queue::{Claim, Queue, Syncer, Turn};
use crate::error::Result;
use crate::sync::{EXPLORED, MutexGuard};

/// Who may not wait leads so many groups that are only copied, one after the other.
const COPIED_AT_ONCE: u32 = if EXPLORED { 1 } else { 8 };

/// What the log needs now, or when to look again.
enum Chore {
    Sync,
    Witness,
    Wait(Option<Instant>),
}

impl Commits {
    /// Has a thread of the store lead what nobody blocks for; whether there has to be one. Leads itself what is only
    /// copied: to wake that thread would take many times as long.
    pub(crate) fn lead_in_background(&self) -> bool {
        let mut queue = self.queue();
        for _ in 0..COPIED_AT_ONCE {
            if !queue.wants_leader() || !queue.is_only_copied() || self.pressure.is_behind() {
                break;
            }
            queue.claim = Claim::LedOn;
            self.lead_first(queue);
            queue = self.queue();
            // Somebody else may be about to lead by now, and be held.
            if queue.claim == Claim::LedOn {
                queue.claim = Claim::None;
            }
        }
        if queue.wants_leader() {
            self.leading.notify_one();
        }
        // Whoever leads now may leave them to that thread.
        queue.has_groups()
    }

    /// Leads what nobody blocks for, until the store is closed or poisoned.
    pub(crate) fn run_leader(&self) {
        let mut queue = self.queue();
        while !queue.has_ended() {
            let turn = if queue.has_groups() { queue.turn() } else { Turn::Wait };
            match turn {
                Turn::Lead => {
                    self.lead(queue);
                    queue = self.queue();
                }
                Turn::KeepTime(until) => {
                    self.leading.wait_until(&mut queue, until);
                    queue.end_keeping_time(until);
                }
                Turn::Wait => self.leading.wait(&mut queue),
            }
        }
    }

    /// Makes what names boot's segment stable, which nobody waits for yet. Then syncs what is due, until the store is
    /// closed or poisoned.
    pub(crate) fn run_syncer(&self) {
        if !self.queue().has_ended() {
            // As below.
            self.sync_newest().ok();
        }
        let mut queue = self.queue();
        while !queue.has_ended() {
            match Self::chore(&queue) {
                Chore::Sync => {
                    drop(queue);
                    // A failure has poisoned the store, which the next round sees.
                    self.sync_appended().ok();
                    queue = self.queue();
                }
                Chore::Witness => {
                    drop(queue);
                    // As above.
                    self.witness().ok();
                    queue = self.queue();
                }
                Chore::Wait(until) => self.sleep(&mut queue, until),
            }
        }
    }

    /// Makes stable what names boot's segment.
    fn sync_newest(&self) -> Result<()> {
        let newest = self.log.lock().newest();
        newest.sync().map_err(|cause| self.poison(&cause))
    }

    fn chore(queue: &Queue) -> Chore {
        match queue.due() {
            Some(due) if due > Instant::now() => Chore::Wait(Some(due)),
            Some(_) if queue.unsynced_since.is_some() => Chore::Sync,
            Some(_) if !queue.is_led() => Chore::Witness,
            // Whoever leads hands over when it ends.
            Some(_) | None => Chore::Wait(None),
        }
    }

    fn sleep(&self, queue: &mut MutexGuard<'_, Queue>, until: Option<Instant>) {
        if let Some(until) = until {
            queue.syncer = Syncer::SleepsUntil(until);
            self.syncing.wait_until(queue, until);
        } else {
            queue.syncer = Syncer::Sleeps;
            self.syncing.wait(queue);
        }
        queue.syncer = Syncer::Awake;
    }

    /// Does at once what the background does after a while.
    pub(crate) fn tend(&self) -> Result<()> {
        self.sync()?;
        self.witness()
    }

    /// Appends a frame that says what is stable, so that damage to it is told from a torn tail.
    fn witness(&self) -> Result<()> {
        // What is synced from here on asks again.
        self.queue().unwitnessed = false;
        let mut log = self.log.lock();
        if !log.lacks_witness() {
            return Ok(());
        }
        let appended = log.append_witness();
        let synced = appended.and_then(|()| self.sync_log(log, || ()).map(drop));
        synced.map_err(|cause| self.poison(&cause))
    }
}
