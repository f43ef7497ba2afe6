//! The groups that wait to be written, and who waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Staged;
use super::waiters::{Done, Waiters};
use crate::error::{Error, Result};
use crate::format::Lsn;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::operation::{put_record, record_len};
use crate::log::writer::LogWriter;
use crate::options::Durability;
use crate::state::State;
use crate::sync::{Condvar, EXPLORED};
use crate::visible::Publisher;

/// A group holds at most this many bytes of records, or one commit.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Whoever begins a transaction waits while more than this is staged and nobody has begun to write it.
const STAGED_BYTES_MAX: usize = 64 << 20;

/// A buffer that grew beyond this is not kept for the next group.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// A group waits for those who are expected for as long as the last write took, if they mostly come; else for so
/// small a part of it.
const GATHER_PART: u32 = 2;

/// Trust in those who are expected grows by one with each group that is complete in time, up to this, and falls
/// by half of this with each that has waited in vain. So one who waited for a processor is forgiven, and those
/// who come when they like are not trusted.
const TRUST_MAX: u32 = 8;

/// Who was woken comes back in less, however long a sync has waited for the disk.
const PATIENCE_MAX: Duration = Duration::from_millis(10);

/// Under explored schedules, where there is no time, it is looked at so often instead.
const GATHER_LOOKS: u32 = 4;

/// Writers that were acknowledged longer ago are not expected back.
const RECENT: Duration = Duration::from_millis(2);

/// A log that has been idle for this long gets a witness of its last commit.
pub(super) const WITNESS_AFTER: Duration = Duration::from_millis(if EXPLORED { 0 } else { 250 });

#[derive(Debug)]
pub(super) struct Queue {
    /// [`GROUP_BYTES_MAX`], but where a test wants several groups.
    pub(super) group_bytes_max: usize,
    groups: VecDeque<(Group, Waiters)>,
    /// Of the records of those groups.
    staged_bytes: usize,
    /// Those who wait for the group that is being written.
    led: Option<Waiters>,
    pub(super) visible: Lsn,
    pub(super) publisher: Publisher,
    pub(super) poison: Option<Error>,
    pub(super) closed: bool,
    /// Since when something is appended that nobody has synced.
    pub(super) unsynced_since: Option<Instant>,
    pub(super) urgency: Urgency,
    /// When a write began last; or, of writes that are not timed, the first that the last sync covered.
    pub(super) last_write: Instant,
    /// How long something may be unsynced.
    sync_interval: Duration,
    /// How many commits the next group may be about to have.
    expected: u32,
    /// From the beginning of the last write to its end, with the sync.
    pub(super) last_write_took: Duration,
    /// The first group waits for more to join it.
    gathering: Option<Gathering>,
    /// How reliably those who were expected came of late, up to [`TRUST_MAX`].
    trust: u32,
    /// Somebody is about to lead, and held until checkpoints have caught up.
    pub(super) held: bool,
    /// Something was synced that has no witness yet.
    pub(super) unwitnessed: bool,
    /// What the thread does that syncs what is due.
    pub(super) syncer: Syncer,
    buffer: Vec<u8>,
}

/// How soon what nobody has synced is to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    InTime,
    /// The newest segment has no name until then.
    AtOnce,
}

impl Urgency {
    pub(super) fn of(log: &LogWriter) -> Urgency {
        if log.is_unnamed() { Urgency::AtOnce } else { Urgency::InTime }
    }
}

/// When the thread that syncs what is due looks at the queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncer {
    Awake,
    SleepsUntil(Instant),
    Sleeps,
}

/// How long the first group may wait for more.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    until: Instant,
    /// Somebody is awake by then.
    is_kept: bool,
    looks: u32,
}

/// What somebody who waits for a commit, or the thread that leads, does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Lead,
    /// Somebody else will.
    Wait,
    /// As above, but come back by then: the group is written even if nobody joins it any more.
    KeepTime(Instant),
}

/// Commits that are written as one frame.
#[derive(Debug)]
pub(super) struct Group {
    /// Room for the frame's header, then the records.
    pub(super) frame: Vec<u8>,
    pub(super) commits: u32,
    pub(super) operations: u64,
    pub(super) last: Lsn,
    /// The state after the last commit.
    pub(super) state: Arc<State>,
    /// Somebody asked for `Machine`.
    pub(super) sync: bool,
    /// When it was taken to be written, if that matters.
    pub(super) began: Option<Instant>,
}

impl Queue {
    pub(super) fn new(visible: Lsn, publisher: Publisher, sync_interval: Duration) -> Queue {
        Queue {
            group_bytes_max: GROUP_BYTES_MAX,
            staged_bytes: 0,
            groups: VecDeque::new(),
            led: None,
            visible,
            publisher,
            poison: None,
            closed: false,
            unsynced_since: None,
            urgency: Urgency::InTime,
            last_write: Instant::now(),
            sync_interval,
            expected: 0,
            last_write_took: Duration::ZERO,
            gathering: None,
            trust: 0,
            held: false,
            unwitnessed: false,
            syncer: Syncer::Awake,
            buffer: Vec::new(),
        }
    }

    /// Adds a commit to the last group, or begins one; returns the state that it replaces there.
    pub(super) fn push(&mut self, staged: Staged<'_>) -> Option<Arc<State>> {
        let lsn = staged.state.lsn;
        let sync = staged.durability == Durability::Machine;
        let bytes = record_len(staged.label, staged.operations);
        self.staged_bytes += bytes;
        if let Some((group, waiters)) = self.groups.back_mut()
            && group.frame.len() + bytes <= self.group_bytes_max
        {
            put_record(&mut group.frame, staged.label, staged.operations);
            group.commits += 1;
            group.operations += staged.operation_count;
            group.last = lsn;
            group.sync |= sync;
            waiters.last = lsn;
            return Some(std::mem::replace(&mut group.state, staged.state));
        }
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        frame.resize(FRAME_HEADER_BYTES, 0);
        put_record(&mut frame, staged.label, staged.operations);
        let group = Group {
            frame,
            commits: 1,
            operations: staged.operation_count,
            last: lsn,
            state: staged.state,
            sync,
            began: None,
        };
        self.groups.push_back((group, Waiters::of(lsn)));
        None
    }

    /// Whether nothing more will be written.
    pub(super) fn has_ended(&self) -> bool {
        self.closed || self.poison.is_some()
    }

    pub(super) fn is_led(&self) -> bool {
        self.led.is_some() || self.held
    }

    /// Whose turn it is to lead the first group: whoever makes it complete, or comes after its time.
    ///
    /// Those who were just acknowledged may join before the group is written: without it, two halves of
    /// the writers would wait for each other's syncs in turn. A lone writer never waits here.
    pub(super) fn turn(&mut self) -> Turn {
        if self.is_led() {
            return Turn::Wait;
        }
        if self.is_complete() {
            return Turn::Lead;
        }
        let now = Instant::now();
        let new = Gathering { until: now + self.patience(), is_kept: false, looks: 0 };
        let gathering = self.gathering.get_or_insert(new);
        gathering.looks += 1;
        let is_over =
            if EXPLORED { gathering.looks > GATHER_LOOKS } else { now >= gathering.until };
        if is_over {
            return Turn::Lead;
        }
        if std::mem::replace(&mut gathering.is_kept, true) {
            return Turn::Wait;
        }
        Turn::KeepTime(gathering.until)
    }

    /// How long a group waits for those who are expected.
    fn patience(&self) -> Duration {
        let part = if self.trust >= TRUST_MAX / 2 { 1 } else { GATHER_PART };
        (self.last_write_took / part).min(PATIENCE_MAX)
    }

    /// Whoever kept the time until then is awake again; somebody has to, unless the group is led.
    pub(super) fn end_keeping_time(&mut self, until: Instant) {
        if let Some(gathering) = self.gathering.as_mut().filter(|kept| kept.until == until) {
            gathering.is_kept = false;
        }
    }

    /// Whether there is a group that nobody leads, and nobody will before somebody is woken for it.
    pub(super) fn wants_leader(&self) -> bool {
        let is_kept = self.gathering.is_some_and(|gathering| gathering.is_kept);
        self.has_groups() && !self.is_led() && (!is_kept || self.is_complete())
    }

    /// Whether nobody is expected to join the first group.
    fn is_complete(&self) -> bool {
        let expected = self.expected_commits();
        expected < 2 || self.first_commits() >= expected || self.groups.len() > 1
    }

    /// A group of so many commits was acknowledged. Those who made them are awake now and may come back,
    /// to join those who wait already.
    pub(super) fn expect(&mut self, commits: u32) {
        self.expected = commits.saturating_add(self.first_commits());
    }

    /// How many commits the first group may be about to have, unless the last one was long ago.
    fn expected_commits(&self) -> u32 {
        let recent = self.expected > 1 && self.last_write.elapsed() < RECENT + self.last_write_took;
        if recent { self.expected } else { 0 }
    }

    /// How many commits the first group has.
    fn first_commits(&self) -> u32 {
        self.groups.front().map_or(0, |(group, _)| group.commits)
    }

    /// Whether so much is staged that nobody should begin to stage more.
    pub(super) fn is_full(&self) -> bool {
        self.staged_bytes > STAGED_BYTES_MAX
    }

    pub(super) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    pub(super) fn last_enqueued(&self) -> Lsn {
        let waiting = self.groups.back().map(|(group, _)| group.last);
        waiting.or(self.led.as_ref().map(|led| led.last)).unwrap_or(self.visible)
    }

    /// How a commit ended, once it has.
    pub(super) fn outcome(&self, lsn: Lsn) -> Option<Result<()>> {
        if self.visible >= lsn {
            return Some(Ok(()));
        }
        if let Some(first) = &self.poison {
            return Some(Err(Error::poisoned(first)));
        }
        let being_written = self.led.as_ref().is_some_and(|led| lsn <= led.last);
        (self.closed && !being_written).then(|| Err(Error::closed()))
    }

    /// Those who wait for a commit that has not ended.
    pub(super) fn waiters_of(&mut self, lsn: Lsn) -> &mut Waiters {
        let led = self.led.as_mut();
        let waiting = self.groups.iter_mut().map(|(_, waiters)| waiters);
        let mut all = led.into_iter().chain(waiting);
        all.find(|waiters| lsn <= waiters.last).expect("a commit that has not ended is in a group")
    }

    /// Takes the first group to write it; until `end_lead` nobody else does.
    pub(super) fn take_first(&mut self) -> Option<Group> {
        if self.has_ended() {
            return None;
        }
        let (mut group, waiters) = self.groups.pop_front()?;
        self.staged_bytes -= group.frame.len() - FRAME_HEADER_BYTES;
        if self.gathering.take().is_some() {
            self.trust = if group.commits < self.expected {
                self.trust.saturating_sub(TRUST_MAX / 2)
            } else {
                (self.trust + 1).min(TRUST_MAX)
            };
        }
        self.led = Some(waiters);
        // Looking at the clock takes a part of a commit that is not synced. Where nobody else is expected it
        // only tells when the log fell idle, which the syncs that are due tell as well if they come often.
        let syncs_seldom = self.sync_interval >= WITNESS_AFTER / 2;
        let is_timed = group.sync || self.expected > 1 || syncs_seldom;
        group.began = is_timed.then(Instant::now);
        Some(group)
    }

    pub(super) fn end_lead(&mut self) -> Done {
        Done { acknowledged: self.led.take(), refused: Vec::new() }
    }

    /// Ends the lead, and everything else.
    pub(super) fn poison(&mut self, cause: &Error) -> Done {
        let led = self.led.take();
        let mut done = self.poison_all(cause);
        done.refused.extend(led);
        done
    }

    /// Nothing more is acknowledged; whoever leads ends on its own.
    pub(super) fn poison_all(&mut self, cause: &Error) -> Done {
        self.poison.get_or_insert_with(|| cause.clone());
        self.refuse_all()
    }

    /// Lets go of all groups that nobody writes.
    pub(super) fn refuse_all(&mut self) -> Done {
        self.staged_bytes = 0;
        let refused = self.groups.drain(..).map(|(_, waiters)| waiters).collect();
        Done { acknowledged: None, refused }
    }

    /// Wakes one of those who wait for the next group, or the thread that leads where none does; and the one
    /// that syncs, if it sleeps beyond what is due.
    pub(super) fn hand_over(&mut self, leading: &Condvar, syncing: &Condvar) {
        if let Some((_, next)) = self.groups.front()
            && !next.ask_for_a_look()
        {
            leading.notify_one();
        }
        if let Some(due) = self.due() {
            let late = match self.syncer {
                Syncer::Awake => false,
                Syncer::SleepsUntil(until) => until > due,
                Syncer::Sleeps => true,
            };
            if late {
                self.syncer = Syncer::Awake;
                syncing.notify_one();
            }
        }
    }

    /// When something is to be synced, or the log falls idle.
    pub(super) fn due(&self) -> Option<Instant> {
        let within = match self.urgency {
            Urgency::InTime => self.sync_interval,
            Urgency::AtOnce => Duration::ZERO,
        };
        let sync = self.unsynced_since.map(|since| since + within);
        let witness = self.unwitnessed.then(|| self.last_write + WITNESS_AFTER);
        sync.into_iter().chain(witness).min()
    }

    /// A write has ended that began then, if that matters.
    pub(super) fn note_write(&mut self, began: Option<Instant>, synced: bool) {
        if let Some(began) = began {
            self.last_write = began;
            self.last_write_took = if EXPLORED { Duration::ZERO } else { began.elapsed() };
        }
        if synced {
            self.unsynced_since = None;
            self.unwitnessed = true;
        } else {
            self.unsynced_since.get_or_insert_with(|| began.unwrap_or_else(Instant::now));
        }
    }

    /// A sync that began then has ended: what was written by then is durable.
    pub(super) fn note_sync(&mut self, began: Instant, durable: Lsn) {
        self.unwitnessed = true;
        self.last_write = self.unsynced_since.map_or(self.last_write, |at| at.max(self.last_write));
        let written_since = self.visible > durable;
        self.unsynced_since = self.unsynced_since.filter(|_| written_since).map(|_| began);
    }

    pub(super) fn keep_buffer(&mut self, frame: Vec<u8>) {
        if frame.capacity() <= KEPT_BUFFER_BYTES {
            self.buffer = frame;
        }
    }
}

#[cfg(not(feature = "schedules"))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::boot;
    use crate::options::Options;
    use crate::tree::Graveyard;
    use crate::visible::Visible;

    const WRITE: Duration = Duration::from_millis(5);

    /// Adds a commit of which two are expected to be acknowledged together.
    fn push(queue: &mut Queue, state: &State) {
        drop(queue.push(Staged::sample(Durability::Machine, Arc::new(state.clone()))));
    }

    /// For how long the first of two waits for the other, after two were acknowledged just now.
    fn patience(queue: &mut Queue, state: &State) -> Duration {
        queue.expect(2);
        // However long it takes until somebody looks.
        queue.note_write(Some(Instant::now() + Duration::from_secs(60)), true);
        queue.last_write_took = WRITE;
        push(queue, state);
        assert!(matches!(queue.turn(), Turn::KeepTime(_)), "another one is expected");
        queue.patience()
    }

    #[test]
    fn a_group_waits_for_a_whole_write_where_those_who_are_expected_come() {
        let dir = tempfile::tempdir().unwrap();
        let booted = boot(dir.path(), &Options::default(), 1, &Graveyard::none(), Duration::ZERO);
        let state = booted.unwrap().state;
        let (_visible, publisher) = Visible::new(Arc::new(state.clone()));
        let queue = &mut Queue::new(state.lsn, publisher, Duration::from_secs(1));
        // Whether they come, so often in turn, and whether the last of these waited for a whole write.
        let story = [(true, 4, false), (true, 20, true), (false, 1, true), (true, 1, true)];
        let end = [(false, 2, false), (true, 3, false), (false, 1, false), (true, 5, true)];
        for (comes, times, whole) in story.into_iter().chain(end) {
            let mut waited = Duration::ZERO;
            for _ in 0..times {
                waited = patience(queue, &state);
                if comes {
                    push(queue, &state);
                } else if let Some(gathering) = &mut queue.gathering {
                    gathering.until = Instant::now();
                }
                assert_eq!(queue.turn(), Turn::Lead);
                assert_eq!(queue.take_first().unwrap().commits, if comes { 2 } else { 1 });
                drop(queue.end_lead());
            }
            let meant = if whole { WRITE } else { WRITE / 2 };
            assert_eq!(waited, meant, "{times} times: {comes}");
        }
        queue.last_write_took = Duration::from_secs(3);
        assert_eq!(queue.patience(), PATIENCE_MAX);
    }
}
