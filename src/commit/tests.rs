//! One group at a time, by hand.

use std::sync::Weak;
use std::sync::atomic::AtomicBool;

use super::queue::WITNESS_AFTER;
use super::*;
use crate::boot::boot;
use crate::format::RegionNo;
use crate::options::Options;
use crate::state::RegionRoot;
use crate::tree::Graveyard;

const SECOND: Duration = Duration::from_secs(1);

/// A `Process` commit that waits to be written.
fn staged(sync_interval: Duration, pressure: Arc<dyn Pressure>) -> (tempfile::TempDir, Commits) {
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
    let (dir, commits) = staged(sync_interval, Arc::new(Behind::default()));
    let group = commits.queue.lock().take_first().unwrap();
    (dir, commits, group)
}

/// Whether checkpoints are behind.
#[derive(Debug, Default)]
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

fn finish(commits: &Commits, written: Result<(Vec<u8>, Written)>) {
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

#[test]
fn who_waits_for_a_group_that_is_written_while_the_store_is_poisoned_is_refused() {
    let (_dir, commits, group) = begun(SECOND);
    let last = group.last;
    let refused = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| commits.wait(last));
        while !commits.queue.lock().waiters_of(last).has_a_bell() {
            std::thread::yield_now();
        }
        let written = commits.write(group);
        assert!(written.is_ok());
        commits.poison(&Error::new(ErrorKind::Io, "something else fails meanwhile"));
        finish(&commits, written);
        waiting.join().unwrap().unwrap_err()
    });
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    assert!(commits.seen().lsn < last, "nobody sees it");
}

/// What a state holds whose end asks the store for something.
struct Asking {
    of: Weak<Commits>,
    is_free: Arc<AtomicBool>,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let is_free = self.of.upgrade().is_some_and(|commits| commits.queue.try_lock().is_some());
        self.is_free.store(is_free, Ordering::Relaxed);
    }
}

#[test]
fn what_is_given_up_ends_when_the_queue_is_free() {
    for ends in [
        Commits::close,
        |commits: &Commits| {
            commits.poison(&Error::new(ErrorKind::Io, "something fails"));
        },
        |commits: &Commits| {
            let group = commits.queue.lock().take_first().unwrap();
            finish(commits, Err(Error::new(ErrorKind::Io, "it cannot be written")));
            drop(group);
        },
    ] {
        let (_dir, commits) = staged(SECOND, Arc::new(Behind::default()));
        let (commits, is_free) = (Arc::new(commits), Arc::new(AtomicBool::new(false)));
        let asking = Asking { of: Arc::downgrade(&commits), is_free: Arc::clone(&is_free) };
        enqueue_with(&commits, asking);
        ends(&commits);
        assert!(is_free.load(Ordering::Relaxed));
    }
}

/// What a state holds whose end panics.
struct Panicking;

impl Drop for Panicking {
    fn drop(&mut self) {
        panic!("a destructor of the program");
    }
}

/// Enqueues the next commit, with this in its state.
fn enqueue_with(commits: &Commits, what: impl std::any::Any + Send + Sync) -> Lsn {
    let mut state = State::clone(&commits.seen());
    state.lsn = commits.queue.lock().last_enqueued().next();
    state.regions = state.regions.with(RegionNo(1), RegionRoot::owned_by(Arc::new(what))).0;
    let lsn = state.lsn;
    commits.enqueue(Staged::sample(Durability::Process, Arc::new(state))).unwrap();
    lsn
}

/// How a commit ends for whoever waits for it while `f` runs, which panics.
fn told_despite_a_panic(commits: &Commits, lsn: Lsn, f: impl FnOnce() + Send) -> Result<()> {
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| commits.wait(lsn));
        while !commits.queue.lock().waiters_of(lsn).has_a_bell() {
            std::thread::yield_now();
        }
        scope.spawn(f).join().unwrap_err();
        waiting.join().unwrap()
    })
}

#[test]
fn a_destructor_that_panics_leaves_nobody_asleep() {
    let (_dir, commits, first) = begun(SECOND);
    commits.queue.lock().group_bytes_max = 0;
    enqueue_with(&commits, Panicking);
    let last = enqueue_with(&commits, ());
    let fails = || drop(commits.poison(&Error::new(ErrorKind::Io, "something fails")));
    let told = told_despite_a_panic(&commits, last, fails);
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Poisoned);
    drop(first);

    let (_dir, commits, first) = begun(SECOND);
    let written = commits.write(first);
    finish(&commits, written);
    commits.queue.lock().group_bytes_max = 0;
    let lsns = [enqueue_with(&commits, Panicking), enqueue_with(&commits, ())];
    let last = enqueue_with(&commits, ());
    let lead = || commits.queue.lock().take_first().unwrap();
    let written = commits.write(lead());
    assert_eq!(commits.finish(lsns[0], written), Some(lsns[0]));
    let written = commits.write(lead());
    commits.queue.lock().note_append(lsns[1]);
    let beside = commits.write(lead());
    assert_eq!(commits.finish(last, beside), None, "the one before it comes first");
    let ends = || {
        commits.finish(lsns[1], written);
    };
    told_despite_a_panic(&commits, last, ends).unwrap();
}

#[test]
fn who_waits_for_room_goes_on_when_the_store_is_poisoned() {
    let (_dir, commits) = staged(SECOND, Arc::new(Behind::default()));
    let mut state = State::clone(&commits.seen());
    state.lsn = state.lsn.next().next();
    let large = vec![1; 65 << 20];
    let staged = Staged::sample(Durability::Process, Arc::new(state));
    commits.enqueue(Staged { operations: &large, ..staged }).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let began = Instant::now();
            commits.await_room();
            began.elapsed()
        });
        std::thread::sleep(Duration::from_millis(50));
        commits.poison(&Error::new(ErrorKind::Io, "something fails"));
        let waited = waiting.join().unwrap();
        assert!(waited > Duration::ZERO && waited < ROOM_PATIENCE / 2, "{waited:?}");
    });
}
