//! The story of a commit, in five steps:
//!
//! 1. *stage*: a transaction changes its own copy of the roots and encodes its effects, under the
//!    writer lock ([`Transaction`](crate::Transaction));
//! 2. *append*: its record joins a group, and the group's leader writes the group as one frame;
//! 3. *sync*: the leader makes the frame stable, if anyone in the group asked for that;
//! 4. *publish*: the group's last state becomes the visible one;
//! 5. *acknowledge*: everyone who waits for a commit of the group wakes.
//!
//! **A commit becomes durable in step 3 of [`Commits::write`]; it is acknowledged only after.**
//!
//! # Invariants
//! - Any of those who wait leads, one at a time, or two while the first syncs: groups are appended and published in
//!   LSN order, each after the one before it, whichever is synced first.
//! - A leader that fails or panics poisons the store and wakes everybody; nobody waits for a leader
//!   that is gone.
//! - After a failed append or sync nothing further is acknowledged.
//! - No user code (wakers, destructors of values) runs under the lock of the queue.
//! - While a group waits for more to join it, somebody is awake in time to lead it as it is.

mod background;
mod bell;
mod crowd;
mod end;
#[cfg(all(test, feature = "schedules"))]
mod explored;
mod led;
mod pace;
mod queue;
#[cfg(not(feature = "schedules"))]
#[cfg(test)]
mod tests;
mod waiters;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::control::{Step, left_out};
use crate::error::{Error, ErrorKind, Result};
use crate::format::Lsn;
use crate::log::writer::LogWriter;
use crate::options::Durability;
use crate::state::{Spare, State};
use crate::sync::{Condvar, EXPLORED, Mutex, MutexGuard, lock_awake, look_awake, sleep_until};
use crate::visible::{Seen, Visible};
use bell::Call;
use queue::{AT_ONCE, Claim, Group, Outlook, Queue, Turn};
pub(crate) use waiters::Seat;

/// Who begins a transaction waits no longer than this for room: it may be whom the log waits for.
const ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// The queue of groups, the open end of the log, and the state that readers see.
#[derive(Debug)]
pub(crate) struct Commits {
    queue: Mutex<Queue>,
    log: Mutex<LogWriter>,
    visible: Visible,
    spare: Spare,
    durable: AtomicU64,
    /// How many groups have ended, for those who look whether one has.
    ended: AtomicU64,
    /// The thread that leads waits here.
    leading: Condvar,
    /// The one that syncs what is due waits here.
    syncing: Condvar,
    /// Closing waits here for the leader to finish.
    led: Condvar,
    /// So much is staged that those who would stage more wait here.
    full: AtomicBool,
    room: Condvar,
    pressure: Arc<dyn Pressure>,
}

/// Who is told after the log grew: to prepare a segment, to take a checkpoint.
pub(crate) trait Pressure: Send + Sync + std::fmt::Debug {
    fn log_grew(&self, log: &LogWriter);
    /// Whether checkpoints are behind, so that a leader is to be held.
    fn is_behind(&self) -> bool;
    /// Holds a leader, which has no group and no lock, until they have caught up.
    fn hold(&self);
}

/// What a transaction hands over.
#[derive(Debug)]
pub(crate) struct Staged<'a> {
    pub(crate) label: &'a str,
    /// Encoded, and how many.
    pub(crate) operations: &'a [u8],
    pub(crate) operation_count: u64,
    pub(crate) durability: Durability,
    /// The state after this commit, which carries its LSN.
    pub(crate) state: Arc<State>,
}

#[cfg(test)]
impl Staged<'static> {
    /// One operation, whatever it is.
    fn sample(durability: Durability, state: Arc<State>) -> Self {
        Staged { label: "", operations: &[2, 1], operation_count: 1, durability, state }
    }
}

impl Commits {
    pub(crate) fn new(
        log: LogWriter,
        state: Arc<State>,
        sync_interval: Duration,
        pressure: Arc<dyn Pressure>,
    ) -> Commits {
        let lsn = state.lsn;
        let (visible, publisher) = Visible::new(state);
        let mut queue = Queue::new(lsn, publisher, sync_interval);
        queue.note_outlook(Outlook::of(&log));
        Commits {
            queue: Mutex::new(queue),
            durable: AtomicU64::new(log.synced().lsn.get()),
            log: Mutex::new(log),
            visible,
            spare: Spare::default(),
            ended: AtomicU64::new(0),
            leading: Condvar::new(),
            syncing: Condvar::new(),
            led: Condvar::new(),
            full: AtomicBool::new(false),
            room: Condvar::new(),
            pressure,
        }
    }

    /// Takes the lock of the queue. Whoever sleeps for it may have the writer lock, and then all others sleep for that.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        lock_awake(&self.queue)
    }

    /// What readers see; nothing is counted before it is replaced.
    pub(crate) fn seen(&self) -> Seen {
        self.visible.see()
    }

    /// What the next state may begin with.
    pub(crate) fn spare(&self) -> &Spare {
        &self.spare
    }

    /// The last commit that survives a power loss.
    pub(crate) fn durable_lsn(&self) -> Lsn {
        Lsn::new(self.durable.load(Ordering::Acquire))
    }

    /// Puts a commit at the end of the queue. The caller holds the writer lock, so that the order
    /// of the queue is the order of LSNs.
    pub(crate) fn enqueue(&self, staged: Staged<'_>) -> Result<()> {
        let mut queue = self.queue();
        if let Some(first) = &queue.poison {
            return Err(Error::poisoned(first));
        }
        let replaced = queue.push(staged);
        if queue.is_full() {
            self.full.store(true, Ordering::Relaxed);
        }
        drop(queue);
        drop(replaced);
        Ok(())
    }

    /// Waits, for a while, where more is staged than the log takes: it is all in memory.
    pub(crate) fn await_room(&self) {
        if self.full.load(Ordering::Relaxed) {
            let until = Instant::now() + ROOM_PATIENCE;
            let mut queue = self.queue();
            while queue.is_full() && Instant::now() < until {
                self.room.wait_until(&mut queue, until);
            }
        }
    }

    /// Lets those go on who wait for room, now that there is some.
    fn make_room(&self, queue: &Queue) {
        if self.full.load(Ordering::Relaxed) && !queue.is_full() {
            self.full.store(false, Ordering::Relaxed);
            self.room.notify_all();
        }
    }

    /// Waits until a commit is acknowledged; leads if that is up to the caller.
    pub(crate) fn wait(&self, lsn: Lsn) -> Result<()> {
        let mut queue = self.queue();
        let mut looks = true;
        loop {
            if let Some(outcome) = queue.outcome(lsn) {
                return outcome;
            }
            match queue.turn_of(lsn) {
                Turn::Lead => match self.lead(queue) {
                    Some(acknowledged) if acknowledged >= lsn => return Ok(()),
                    _ => queue = self.queue(),
                },
                // Its processor is free, for those who are about to come.
                Turn::KeepTime(until) => {
                    drop(queue);
                    sleep_until(until);
                    queue = self.queue();
                    queue.end_keeping_time(until);
                }
                Turn::Wait if looks && queue.ends_soon() => {
                    let ended = self.ended.load(Ordering::Relaxed);
                    drop(queue);
                    looks = look_awake(|| self.ended.load(Ordering::Relaxed) != ended);
                    queue = self.queue();
                }
                Turn::Wait => {
                    let bell = queue.waiters_of(lsn).join();
                    drop(queue);
                    if bell.wait() == Call::Acknowledged {
                        return Ok(());
                    }
                    queue = self.queue();
                }
            }
        }
    }

    /// The same for a task: leaves its waker and does no I/O; a thread of the store leads.
    pub(crate) fn poll(
        &self,
        lsn: Lsn,
        seat: &mut Seat,
        context: &Context<'_>,
    ) -> Poll<Result<()>> {
        if let Some(outcome) = self.queue().outcome(lsn) {
            return Poll::Ready(outcome);
        }
        let waker = context.waker().clone();
        let mut queue = self.queue();
        if let Some(outcome) = queue.outcome(lsn) {
            drop(queue);
            return Poll::Ready(outcome);
        }
        let known = queue.waiters_of(lsn).leave(seat, waker);
        drop(queue);
        drop(known);
        Poll::Pending
    }

    /// Leads the first group, with the lock released; returns the last commit that it acknowledged.
    fn lead(&self, mut queue: MutexGuard<'_, Queue>) -> Option<Lsn> {
        if self.pressure.is_behind() {
            queue.claim = Claim::Held;
            MutexGuard::unlocked(&mut queue, || self.pressure.hold());
            queue.claim = Claim::None;
        }
        self.lead_first(queue)
    }

    /// The same, whether or not checkpoints are behind.
    fn lead_first(&self, mut queue: MutexGuard<'_, Queue>) -> Option<Lsn> {
        let Some(group) = queue.take_first() else {
            // It was closed or poisoned meanwhile, and closing waits for whoever is held.
            self.led.notify_all();
            return None;
        };
        self.make_room(&queue);
        drop(queue);
        let last = group.last;
        let unless_it_panics = Leader(self, last);
        let outcome = self.write(group);
        std::mem::forget(unless_it_panics);
        self.finish(last, outcome)
    }

    /// Steps 2 and 3; returns the room of the frame.
    fn write(&self, group: Group) -> Result<(Vec<u8>, Written)> {
        let Group { mut frame, commits, operations, last, sync, began } = group;
        // Append.
        let mut log = self.log.lock();
        if left_out(Step::AcknowledgeAfterSync) {
            log = self.sync_log(log, || ())?;
        }
        let appended = log.append(&mut frame, commits, sync);
        if !left_out(Step::FailedAppendPoisons) {
            appended?;
        }
        log.count_operations(operations);
        if sync && !left_out(Step::AcknowledgeAfterSync) {
            // Sync.
            log = match self.sync_log(log, || self.let_others_lead(last)) {
                Err(_) if left_out(Step::FailedSyncPoisons) => self.log.lock(),
                outcome => outcome?,
            };
        }
        // A segment that ended may have been synced in any case.
        self.note_durable(&log);
        self.pressure.log_grew(&log);
        let outlook = Outlook::of(&log);
        drop(log);
        let took = |began: Instant| if EXPLORED { Duration::ZERO } else { began.elapsed() };
        let timing = began.map(|began| (began, took(began)));
        Ok((frame, Written { commits, synced: sync, outlook, timing }))
    }

    /// The group that ends with this commit is appended: while it is synced, another one may be.
    fn let_others_lead(&self, last: Lsn) {
        let mut queue = self.queue();
        queue.note_append(last);
        if queue.wants_leader() {
            queue.call_leader(&self.leading);
        }
    }

    /// Closes the block and syncs what is appended, with the log free for others meanwhile.
    fn sync_log<'a>(
        &'a self,
        mut log: MutexGuard<'a, LogWriter>,
        meanwhile: impl FnOnce(),
    ) -> Result<MutexGuard<'a, LogWriter>> {
        let ticket = log.begin_sync();
        drop(log);
        meanwhile();
        if !left_out(Step::GroupSync) {
            let outcome = ticket.run();
            let again = outcome.is_err() && left_out(Step::FailedSyncIsFinal);
            if again { ticket.run() } else { outcome }?;
        }
        let mut log = self.log.lock();
        log.end_sync(&ticket);
        self.note_durable(&log);
        Ok(log)
    }

    /// What is durable changes under the log's lock alone.
    fn note_durable(&self, log: &LogWriter) {
        let synced = log.synced().lsn.get();
        if synced > self.durable.load(Ordering::Relaxed) {
            self.durable.store(synced, Ordering::Release);
        }
    }

    /// Steps 4 and 5, unless a group before this one is not there yet, or the end of all acknowledgements; returns
    /// the last commit that is acknowledged.
    fn finish(&self, last: Lsn, outcome: Result<(Vec<u8>, Written)>) -> Option<Lsn> {
        let mut queue = self.queue();
        let refused = queue.end_lead(last, outcome);
        if queue.poison.is_some() {
            self.make_room(&queue);
        }
        // Publish.
        let published: [_; AT_ONCE] = std::array::from_fn(|_| queue.publish_first());
        queue.hand_over(&self.leading, &self.syncing);
        // It changes under the lock of the queue alone.
        self.ended.store(self.ended.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let is_newest = queue.visible == queue.last_enqueued();
        drop(queue);
        // Acknowledge.
        self.led.notify_all();
        refused.tell();
        let mut acknowledged = None;
        let replaced = published.map(|published| {
            let (waiters, replaced) = published?;
            acknowledged = Some(waiters.last);
            waiters.acknowledge();
            Some(replaced)
        });
        // A destructor of the program that panics keeps nobody asleep.
        for replaced in replaced.into_iter().flatten() {
            if replaced.regions.are_many() {
                self.spare.keep(replaced, &self.seen(), is_newest, || self.seen().lsn);
            }
        }
        acknowledged
    }

    /// Waits until everything that is in the queue now is acknowledged.
    pub(crate) fn settle(&self) -> Result<()> {
        let last = self.queue().last_enqueued();
        self.wait(last)
    }

    /// Makes everything that is committed stable.
    pub(crate) fn sync(&self) -> Result<Lsn> {
        self.settle()?;
        self.sync_appended()?;
        Ok(self.durable_lsn())
    }

    /// Makes what is appended stable; when it is due, for `sync`, and before a checkpoint.
    pub(crate) fn sync_appended(&self) -> Result<()> {
        self.check()?;
        let (began, mut log) = (Instant::now(), self.log.lock());
        // Also if it was synced by another sync: whoever wrote meanwhile may not have known.
        if !log.is_synced() && !left_out(Step::RequestedSync) {
            log = self.sync_log(log, || ()).map_err(|cause| self.poison(&cause))?;
        }
        let outlook = Outlook::of(&log);
        drop(log);
        let mut queue = self.queue();
        queue.note_sync(began, self.durable_lsn());
        queue.note_outlook(outlook);
        drop(queue);
        self.check()
    }

    /// The first cause, if the store is poisoned.
    pub(crate) fn check(&self) -> Result<()> {
        self.queue().poison.as_ref().map_or(Ok(()), |first| Err(Error::poisoned(first)))
    }

    /// Stops all acknowledgements from here on.
    pub(crate) fn poison(&self, cause: &Error) -> Error {
        let mut queue = self.queue();
        let refused = queue.poison(cause);
        self.make_room(&queue);
        let error = queue.poison.as_ref().map_or_else(Error::closed, Error::poisoned);
        self.end_background();
        drop(queue);
        refused.tell();
        error
    }

    /// Ends it: what was not begun to be written is refused as closed, what was ends as it ends.
    pub(crate) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        self.end_background();
        while queue.is_led() {
            self.led.wait(&mut queue);
        }
        let refused = queue.refuse_all();
        drop(queue);
        refused.tell();
    }

    /// Has the threads of the store end: nothing more will be written, as the queue says, whose lock is held.
    fn end_background(&self) {
        self.leading.notify_one();
        self.syncing.notify_one();
    }

    /// Looks at the log, or prepares it.
    pub(crate) fn with_log<T>(&self, f: impl FnOnce(&mut LogWriter) -> T) -> T {
        f(&mut self.log.lock())
    }
}

/// What a leader has written and, if asked, synced.
#[derive(Clone, Copy, Debug)]
struct Written {
    commits: u32,
    synced: bool,
    outlook: Outlook,
    /// When it began and how long it took, if that matters.
    timing: Option<(Instant, Duration)>,
}

/// Ends the lead of whoever panics in it.
struct Leader<'a>(&'a Commits, Lsn);

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let error = Error::new(ErrorKind::Poisoned, "the thread that wrote a group panicked");
        self.0.finish(self.1, Err(error));
    }
}
