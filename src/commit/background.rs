//! What nobody blocks for: leading awaited commits, syncing `Process` commits, the witness of an
//! idle log.

use std::time::Instant;

use super::Commits;
use super::queue::{Background, Queue, Turn};
use crate::error::Result;
use crate::sync::MutexGuard;

/// What there is to do now, or when to look again.
enum Chore {
    Lead,
    /// For a group that waits for more.
    KeepTime(Instant),
    Sync,
    Witness,
    Wait(Option<Instant>),
    End,
}

impl Commits {
    /// Runs until the store is closed or poisoned.
    pub(crate) fn run_background(&self) {
        let mut queue = self.queue.lock();
        loop {
            match self.chore(&mut queue) {
                Chore::End => return,
                Chore::Lead => {
                    self.lead(queue);
                    queue = self.queue.lock();
                }
                Chore::Sync => {
                    drop(queue);
                    // A failure has poisoned the store, which the next round sees.
                    self.sync_appended().ok();
                    queue = self.queue.lock();
                }
                Chore::Witness => {
                    drop(queue);
                    // As above.
                    self.witness().ok();
                    queue = self.queue.lock();
                }
                Chore::KeepTime(until) => {
                    self.sleep(&mut queue, Some(until));
                    queue.end_keeping_time(until);
                }
                Chore::Wait(until) => self.sleep(&mut queue, until),
            }
        }
    }

    /// Does at once what the background does after a while.
    pub(crate) fn tend(&self) -> Result<()> {
        let last = self.queue.lock().last_enqueued();
        self.wait(last)?;
        self.sync_appended()?;
        self.witness()
    }

    fn sleep(&self, queue: &mut MutexGuard<'_, Queue>, until: Option<Instant>) {
        if let Some(until) = until {
            queue.background = Background::SleepsUntil(until);
            self.background.wait_until(queue, until);
        } else {
            queue.background = Background::Sleeps;
            self.background.wait(queue);
        }
        queue.background = Background::Awake;
    }

    fn chore(&self, queue: &mut Queue) -> Chore {
        if queue.closed || queue.poison.is_some() {
            return Chore::End;
        }
        if queue.has_groups() {
            match queue.turn() {
                Turn::Lead => return Chore::Lead,
                Turn::KeepTime(until) => return Chore::KeepTime(until),
                Turn::Wait => {}
            }
        }
        match queue.due(self.sync_interval) {
            Some(due) if due > Instant::now() => Chore::Wait(Some(due)),
            Some(_) if queue.unsynced_since.is_some() => Chore::Sync,
            Some(_) if !queue.is_led() => Chore::Witness,
            // Whoever leads hands over when it ends.
            Some(_) | None => Chore::Wait(None),
        }
    }

    /// Appends a frame that says what is stable, so that damage to it is told from a torn tail.
    fn witness(&self) -> Result<()> {
        // What is synced from here on asks again.
        self.queue.lock().unwitnessed = false;
        let mut log = self.log.lock();
        if !log.lacks_witness() {
            return Ok(());
        }
        let appended = log.append_witness();
        let synced = appended.and_then(|()| self.sync_log(log).map(drop));
        synced.map_err(|cause| self.poison(&cause))
    }
}
