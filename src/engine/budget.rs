//! The boot budget: how long a boot would take if the process died now, when a checkpoint is due for
//! it, and what happens when writers outrun checkpoints.
//!
//! What a boot takes whatever the log holds (opening files, its syncs) cannot be made shorter by a
//! checkpoint. What is left of the budget is for the log, but at least a quarter of it: on a disk so
//! slow that nothing is left, checkpoints would chase each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::checkpoint::policy::ReplayRate;
use crate::log::tail::ReplayWork;

/// Nobody is held longer than this for one checkpoint: then the budget slips after all.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// How long a group is held where writers begin to outrun a checkpoint, at most, each time that the log
/// has grown enough for a look: many small commits are not to wait longer than few large ones.
const BRAKE_MAX: Duration = Duration::from_millis(2);

/// The first pause after a checkpoint that failed; it doubles each time.
const RETRY_AFTER: Duration = Duration::from_millis(200);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A checkpoint is due where a boot has read so many segments, however short they are: each boot makes one, which
/// takes room on the disk, and tens of microseconds of the next. A checkpoint of next to nothing takes a few
/// milliseconds, so lives of a commit each are shortest in the mean with 8 to 16.
const SEGMENTS_MAX: u64 = 16;

/// Runs may all be shorter than a checkpoint takes. After so many the end of one waits for it: what those before have
/// begun was for nothing.
const SEGMENTS_WAITED_FOR: u64 = SEGMENTS_MAX + 4;

/// The log is looked at again when it has grown by so many bytes, where an operation counts as some.
const LOOK_BYTES: u64 = 16 << 10;
const BYTES_PER_OPERATION: u64 = 64;

#[derive(Debug)]
pub(super) struct BootBudget {
    budget: Duration,
    slow_writers: bool,
    log: Grown,
    now: Mutex<Now>,
    /// A checkpoint ended, or the store is closed.
    changed: Condvar,
    /// Writers may have to be held: a look without the lock.
    behind: AtomicBool,
}

/// What the log has grown to, as those who append say, one at a time; read by anybody.
#[derive(Debug, Default)]
struct Grown {
    bytes: AtomicU64,
    operations: AtomicU64,
    segments: AtomicU64,
    next_look: AtomicU64,
}

impl Grown {
    fn work(&self) -> ReplayWork {
        ReplayWork {
            bytes: self.bytes.load(Ordering::Relaxed),
            operations: self.operations.load(Ordering::Relaxed),
            segments: self.segments.load(Ordering::Relaxed),
        }
    }

    /// Whether it is worth a look.
    fn grow_to(&self, work: ReplayWork) -> bool {
        self.bytes.store(work.bytes, Ordering::Relaxed);
        self.operations.store(work.operations, Ordering::Relaxed);
        self.segments.store(work.segments, Ordering::Relaxed);
        let size = work.bytes + work.operations * BYTES_PER_OPERATION;
        let looks = size >= self.next_look.load(Ordering::Relaxed);
        if looks {
            self.next_look.store(size + LOOK_BYTES, Ordering::Relaxed);
        }
        looks
    }
}

/// What is known at this moment.
#[derive(Debug)]
struct Now {
    rate: ReplayRate,
    /// The log that this boot replayed, while no checkpoint has replaced it.
    replayed: ReplayWork,
    /// What the log had grown to at the last checkpoint.
    at_checkpoint: ReplayWork,
    /// A checkpoint is being taken.
    taking: bool,
    /// What the log grew by during the last checkpoints, in time of a boot.
    growth: Duration,
    /// Checkpoints that failed one after the other, and when the next may be tried.
    failures: u32,
    retry_at: Option<Instant>,
    slipping: bool,
    slips: u64,
    held: Duration,
    closed: bool,
}

impl Now {
    /// The log that a boot would replay, where all of it since this open is `log`.
    fn tail(&self, log: ReplayWork) -> ReplayWork {
        let since = log.less(self.at_checkpoint);
        ReplayWork {
            bytes: since.bytes + self.replayed.bytes,
            operations: since.operations + self.replayed.operations,
            segments: since.segments + self.replayed.segments,
        }
    }
}

impl BootBudget {
    pub(super) fn new(
        budget: Duration,
        slow_writers: bool,
        rate: ReplayRate,
        replayed: ReplayWork,
    ) -> BootBudget {
        let now = Now {
            rate,
            replayed,
            at_checkpoint: ReplayWork::default(),
            taking: false,
            growth: Duration::ZERO,
            failures: 0,
            retry_at: None,
            slipping: false,
            slips: 0,
            held: Duration::ZERO,
            closed: false,
        };
        BootBudget {
            budget,
            slow_writers,
            log: Grown::default(),
            now: Mutex::new(now),
            changed: Condvar::new(),
            behind: AtomicBool::new(false),
        }
    }

    /// What a replay of `work` took.
    pub(super) fn learn(&self, work: ReplayWork, taken: Duration) {
        self.now.lock().rate.learn(work, taken);
    }

    /// What a boot took besides.
    pub(super) fn learn_fixed(&self, taken: Duration) {
        self.now.lock().rate.learn_fixed(taken);
    }

    pub(super) fn rate(&self) -> ReplayRate {
        self.now.lock().rate
    }

    /// The log that a boot would replay now.
    pub(super) fn tail(&self) -> ReplayWork {
        self.now.lock().tail(self.log.work())
    }

    /// How long a boot would take now, to the first read.
    pub(super) fn estimate(&self) -> Duration {
        let now = self.now.lock();
        now.rate.boot(now.tail(self.log.work()))
    }

    /// Whether there is more log for a boot than there may be.
    pub(super) fn is_exceeded(&self) -> bool {
        let segments = self.now.lock().replayed.segments;
        self.estimate() > self.budget || segments >= SEGMENTS_WAITED_FOR
    }

    /// How often the estimate went over the budget, and how long writers were held in all.
    pub(super) fn slips(&self) -> (u64, Duration) {
        let now = self.now.lock();
        (now.slips, now.held)
    }

    /// The part of the budget that is for the log.
    fn for_log(&self, now: &Now) -> Duration {
        self.budget.saturating_sub(now.rate.fixed()).max(self.budget / 4)
    }

    /// The log has grown to `log`; whether a checkpoint is due. Called by one at a time.
    pub(super) fn log_grew(&self, log: ReplayWork) -> bool {
        if !self.log.grow_to(log) {
            return false;
        }
        let mut now = self.now.lock();
        let replay = now.rate.replay(now.tail(log));
        let for_log = self.for_log(&now);
        let slips = replay > for_log;
        if slips && !now.slipping {
            now.slips += 1;
        }
        now.slipping = slips;
        self.behind.store(now.taking && replay > for_log * 3 / 4, Ordering::Relaxed);
        // The log grows on while the checkpoint is taken.
        let due = (for_log * 3 / 4).saturating_sub(now.growth).clamp(for_log / 8, for_log / 2);
        let may = !now.taking && now.retry_at.is_none_or(|at| Instant::now() >= at);
        may && (replay >= due || now.replayed.segments >= SEGMENTS_MAX)
    }

    /// A checkpoint is begun, which waits for no commit that is not written.
    pub(super) fn begin(&self) -> Begun<'_> {
        self.now.lock().taking = true;
        Begun(self)
    }

    /// It holds everything up to where the log had grown to `upto`.
    pub(super) fn checkpointed(&self, upto: ReplayWork) {
        let mut now = self.now.lock();
        now.replayed = ReplayWork::default();
        now.at_checkpoint = upto;
        let grown = now.rate.replay(now.tail(self.log.work()));
        now.growth = if grown > now.growth { grown } else { (now.growth + grown) / 2 };
        now.failures = 0;
        now.retry_at = None;
        drop(now);
        self.ended();
    }

    /// It came to nothing: the next one waits a while.
    fn failed(&self) {
        let mut now = self.now.lock();
        let pause = RETRY_AFTER.saturating_mul(1 << now.failures.min(16)).min(RETRY_AFTER_MAX);
        now.failures += 1;
        now.retry_at = Some(Instant::now() + pause);
        drop(now);
        self.ended();
    }

    fn ended(&self) {
        self.now.lock().taking = false;
        self.behind.store(false, Ordering::Relaxed);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        self.now.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether a leader should ask [`hold`](Self::hold).
    pub(super) fn is_behind(&self) -> bool {
        self.slow_writers && self.behind.load(Ordering::Relaxed)
    }

    /// Holds a leader that has taken no group yet: a little where the log nears what the budget
    /// allows, until the checkpoint ends where it is there.
    pub(super) fn hold(&self) {
        let began = Instant::now();
        let mut now = self.now.lock();
        loop {
            let replay = now.rate.replay(now.tail(self.log.work()));
            let for_log = self.for_log(&now);
            let (soft, hard) = (for_log * 3 / 4, for_log * 19 / 20);
            let elapsed = began.elapsed();
            if !now.taking || now.closed || replay <= soft || elapsed >= HOLD_MAX {
                break;
            }
            let over = replay.saturating_sub(soft).as_secs_f64();
            let part = over / hard.saturating_sub(soft).as_secs_f64().max(1e-9);
            if part >= 1.0 {
                self.changed.wait_for(&mut now, HOLD_MAX.saturating_sub(elapsed));
                continue;
            }
            self.changed.wait_for(&mut now, BRAKE_MAX.mul_f64(part));
            self.behind.store(false, Ordering::Relaxed);
            break;
        }
        now.held += began.elapsed();
    }
}

/// A checkpoint that is being taken; it has failed if this is dropped, by an error or a panic.
#[must_use]
pub(super) struct Begun<'a>(&'a BootBudget);

impl Begun<'_> {
    /// It was taken, or there was nothing to take.
    pub(super) fn end(self) {
        self.0.ended();
        std::mem::forget(self);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.failed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn work(blocks: u64) -> ReplayWork {
        ReplayWork { bytes: blocks * 4096, operations: blocks, segments: 0 }
    }

    /// A budget of which a block costs a microsecond and nothing else anything.
    fn budget(slow_writers: bool) -> BootBudget {
        let budget = BootBudget::new(40 * MS, slow_writers, ReplayRate::default(), work(0));
        for _ in 0..200 {
            budget.learn(work(10_000), 10 * MS);
            budget.learn_fixed(Duration::ZERO);
        }
        budget
    }

    #[test]
    fn a_checkpoint_is_due_earlier_when_the_log_grows_meanwhile() {
        let budget = budget(true);
        assert!(!budget.log_grew(work(19_000)));
        assert!(budget.log_grew(work(21_000)));
        let _begun = budget.begin();
        assert!(!budget.log_grew(work(22_000)), "one is being taken");
        budget.log_grew(work(36_000));
        budget.checkpointed(work(21_000));
        // Fifteen came meanwhile, so the next one begins that much earlier.
        assert!(budget.log_grew(work(21_000 + 17_000)));
        assert_eq!(budget.slips().0, 0);
    }

    #[test]
    fn a_failed_checkpoint_is_not_tried_again_at_once() {
        let budget = budget(true);
        assert!(budget.log_grew(work(30_000)));
        drop(budget.begin());
        assert!(!budget.log_grew(work(31_000)));
        std::thread::sleep(RETRY_AFTER + 20 * MS);
        assert!(budget.log_grew(work(32_000)));
    }

    #[test]
    fn writers_are_braked_by_what_the_log_grows() {
        let budget = budget(true);
        let _begun = budget.begin();
        budget.log_grew(work(33_000));
        assert!(budget.is_behind());
        let began = Instant::now();
        budget.hold();
        assert!(began.elapsed() >= MS / 2, "{:?}", began.elapsed());
        budget.log_grew(work(33_001));
        assert!(!budget.is_behind(), "a small commit goes on");
        budget.log_grew(work(33_010));
        assert!(budget.is_behind());
    }

    #[test]
    fn writers_are_held_until_the_checkpoint_ends_if_they_may_be() {
        for slow_writers in [true, false] {
            let budget = budget(slow_writers);
            let _begun = budget.begin();
            budget.log_grew(work(60_000));
            assert_eq!(budget.slips().0, 1, "the budget slipped, and that is told");
            assert_eq!(budget.is_behind(), slow_writers);
            if slow_writers {
                let began = Instant::now();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        std::thread::sleep(50 * MS);
                        budget.checkpointed(work(60_000));
                    });
                    budget.hold();
                });
                assert!(began.elapsed() >= 50 * MS);
                assert!(budget.slips().1 >= 50 * MS);
            }
            assert!(!budget.is_behind() || !slow_writers);
        }
    }
}
