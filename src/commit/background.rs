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
    /// Has a thread of the store lead what nobody blocks for. Leads itself what is only copied: to wake that thread
    /// would take many times as long.
    pub(crate) fn lead_in_background(&self) {
        let mut queue = self.queue.lock();
        for _ in 0..COPIED_AT_ONCE {
            if !queue.wants_leader() || !queue.is_only_copied() || self.pressure.is_behind() {
                break;
            }
            queue.claim = Claim::LedOn;
            self.lead_first(queue);
            queue = self.queue.lock();
            queue.claim = Claim::None;
        }
        if queue.wants_leader() {
            self.leading.notify_one();
        }
    }

    /// Leads what nobody blocks for, until the store is closed or poisoned.
    pub(crate) fn run_leader(&self) {
        let mut queue = self.queue.lock();
        while !queue.has_ended() {
            let turn = if queue.has_groups() { queue.turn() } else { Turn::Wait };
            match turn {
                Turn::Lead => {
                    self.lead(queue);
                    queue = self.queue.lock();
                }
                Turn::KeepTime(until) => {
                    self.leading.wait_until(&mut queue, until);
                    queue.end_keeping_time(until);
                }
                Turn::Wait => self.leading.wait(&mut queue),
            }
        }
    }

    /// Syncs what is due, until the store is closed or poisoned.
    pub(crate) fn run_syncer(&self) {
        let mut queue = self.queue.lock();
        while !queue.has_ended() {
            match Self::chore(&queue) {
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
                Chore::Wait(until) => self.sleep(&mut queue, until),
            }
        }
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
        self.queue.lock().unwitnessed = false;
        let mut log = self.log.lock();
        if !log.lacks_witness() {
            return Ok(());
        }
        let appended = log.append_witness();
        let synced = appended.and_then(|()| self.sync_log(log, || ()).map(drop));
        synced.map_err(|cause| self.poison(&cause))
    }
}

#[cfg(not(feature = "schedules"))]
#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::boot::boot;
    use crate::commit::queue::{Group, WITNESS_AFTER};
    use crate::commit::{NoPressure, Pressure, Staged, Written};
    use crate::log::writer::LogWriter;
    use crate::options::{Durability, Options};
    use crate::state::State;
    use crate::tree::Graveyard;

    const SECOND: Duration = Duration::from_secs(1);

    /// A `Process` commit that waits to be written.
    fn staged(
        sync_interval: Duration,
        pressure: Arc<dyn Pressure>,
    ) -> (tempfile::TempDir, Commits) {
        let dir = tempfile::tempdir().unwrap();
        let booted = boot(dir.path(), &Options::default(), 1, &Graveyard::none(), Duration::ZERO);
        let booted = booted.unwrap();
        let mut state = State::clone(&booted.state);
        let log = booted.log.unwrap().0;
        let commits = Commits::new(log, Arc::new(booted.state), sync_interval, pressure);
        state.lsn = state.lsn.next();
        commits.enqueue(Staged::sample(Durability::Process, Arc::new(state))).unwrap();
        (dir, commits)
    }

    /// One that is about to be.
    fn begun(sync_interval: Duration) -> (tempfile::TempDir, Commits, Group) {
        let (dir, commits) = staged(sync_interval, Arc::new(NoPressure));
        let group = commits.queue.lock().take_first().unwrap();
        (dir, commits, group)
    }

    /// Checkpoints are behind for a while.
    #[derive(Debug)]
    struct Behind(AtomicBool);

    impl Pressure for Behind {
        fn log_grew(&self, _: &LogWriter) {}
        fn is_behind(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
        fn hold(&self) {
            panic!("somebody is held who may not wait");
        }
    }

    #[test]
    fn who_may_not_wait_writes_what_is_only_copied_and_is_not_held() {
        let behind = Arc::new(Behind(AtomicBool::new(true)));
        let (_dir, commits) = staged(SECOND, Arc::clone(&behind) as Arc<dyn Pressure>);
        let before = commits.seen().lsn;
        commits.lead_in_background();
        assert_eq!(commits.seen().lsn, before, "it is left to a thread of the store");
        behind.0.store(false, Ordering::Relaxed);
        commits.lead_in_background();
        assert_eq!(commits.seen().lsn, before.next());
    }

    fn finish(commits: &Commits, written: Result<Written>) {
        let last = commits.queue.lock().last_enqueued();
        commits.finish(last, written);
    }

    #[test]
    fn the_witness_of_an_idle_log_is_due_in_time() {
        // Whether writes are timed, or what syncs them comes soon.
        for sync_interval in [SECOND, Duration::from_millis(10)] {
            let before = Instant::now();
            let (_dir, commits, group) = begun(sync_interval);
            let written = commits.write(group);
            finish(&commits, written);
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
        finish(&commits, written);
        assert!(commits.queue.lock().unsynced_since.is_some(), "it is not known yet");
        commits.sync_appended().unwrap();
        assert!(commits.queue.lock().unsynced_since.is_none());
    }

    #[test]
    fn what_was_written_beside_a_sync_waits_for_another_one() {
        let (_dir, commits, group) = begun(SECOND);
        let (began, sync) = (Instant::now(), commits.log.lock().begin_sync());
        let written = commits.write(group);
        finish(&commits, written);
        sync.run().unwrap();
        commits.log.lock().end_sync(&sync);
        commits.queue.lock().note_sync(began, commits.durable_lsn());
        assert!(commits.queue.lock().unsynced_since.is_some());
        commits.sync_appended().unwrap();
        assert!(commits.queue.lock().unsynced_since.is_none());
    }
}
