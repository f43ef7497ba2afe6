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
            match Self::chore(&mut queue) {
                Chore::End => return,
                Chore::Lead => {
                    let busy_at = queue.sync_due();
                    self.lead(queue, busy_at);
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
        self.sync()?;
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

    fn chore(queue: &mut Queue) -> Chore {
        if queue.closed || queue.poison.is_some() {
            return Chore::End;
        }
        let now = Instant::now();
        // First, since there may always be a group.
        if queue.sync_due().is_some_and(|due| due <= now) {
            return Chore::Sync;
        }
        if queue.has_groups() {
            match queue.turn() {
                Turn::Lead => return Chore::Lead,
                Turn::KeepTime(until) => return Chore::KeepTime(until),
                Turn::Wait => {}
            }
        }
        match queue.due() {
            Some(due) if due > now => Chore::Wait(Some(due)),
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

#[cfg(not(feature = "schedules"))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::boot::boot;
    use crate::commit::queue::{Group, WITNESS_AFTER};
    use crate::commit::{NoPressure, Staged};
    use crate::options::{Durability, Options};
    use crate::state::State;
    use crate::tree::Graveyard;

    const SECOND: Duration = Duration::from_secs(1);

    /// A `Process` commit that is about to be written.
    fn begun(sync_interval: Duration) -> (tempfile::TempDir, Commits, Group) {
        let dir = tempfile::tempdir().unwrap();
        let booted = boot(dir.path(), &Options::default(), 1, &Graveyard::none(), Duration::ZERO);
        let booted = booted.unwrap();
        let mut state = State::clone(&booted.state);
        let commits = Commits::new(
            booted.log.unwrap().0,
            Arc::new(booted.state),
            sync_interval,
            Arc::new(NoPressure),
        );
        state.lsn = state.lsn.next();
        commits.enqueue(Staged::sample(Durability::Process, Arc::new(state))).unwrap();
        let group = commits.queue.lock().take_first().unwrap();
        (dir, commits, group)
    }

    #[test]
    fn the_witness_of_an_idle_log_is_due_in_time() {
        // Whether writes are timed, or what syncs them comes soon.
        for sync_interval in [SECOND, Duration::from_millis(10)] {
            let before = Instant::now();
            let (_dir, commits, group) = begun(sync_interval);
            let written = commits.write(group);
            commits.finish(written);
            let after = Instant::now();
            std::thread::sleep(Duration::from_millis(10));
            commits.sync_appended().unwrap();
            let due = commits.queue.lock().due().unwrap();
            assert!((before + WITNESS_AFTER..=after + WITNESS_AFTER).contains(&due));
        }
    }

    #[test]
    fn what_another_sync_has_covered_is_asked_for_once() {
        let (_dir, commits, group) = begun(SECOND);
        let written = commits.write(group);
        commits.sync_appended().unwrap();
        commits.finish(written);
        assert!(commits.queue.lock().unsynced_since.is_some(), "it is not known yet");
        commits.sync_appended().unwrap();
        assert!(commits.queue.lock().unsynced_since.is_none());
    }

    #[test]
    fn what_was_written_beside_a_sync_waits_for_another_one() {
        let (_dir, commits, group) = begun(SECOND);
        let (began, sync) = (Instant::now(), commits.log.lock().begin_sync());
        let written = commits.write(group);
        commits.finish(written);
        sync.run().unwrap();
        commits.log.lock().end_sync(&sync);
        commits.queue.lock().note_sync(began, commits.durable_lsn());
        assert!(commits.queue.lock().unsynced_since.is_some());
        commits.sync_appended().unwrap();
        assert!(commits.queue.lock().unsynced_since.is_none());
    }
}
