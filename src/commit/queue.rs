//! The groups that wait to be written, and who waits for them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::crowd::Crowd;
use super::end::{End, Refused};
use super::led::Led;
use super::pace::Pace;
use super::waiters::Waiters;
use super::{Staged, Written};
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

/// So many groups are written at a time.
pub(super) const AT_ONCE: usize = 2;

/// A buffer that grew beyond this is not kept for the next group.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// A log that has been idle for this long gets a witness of its last commit.
pub(super) const WITNESS_AFTER: Duration = Duration::from_millis(if EXPLORED { 0 } else { 250 });

#[derive(Debug)]
pub(super) struct Queue {
    /// [`GROUP_BYTES_MAX`], but where a test wants several groups.
    pub(super) group_bytes_max: usize,
    groups: VecDeque<(Group, End)>,
    /// Of the records of those groups.
    staged_bytes: usize,
    led: Led,
    pub(super) visible: Lsn,
    pub(super) publisher: Publisher,
    pub(super) poison: Option<Error>,
    pub(super) closed: bool,
    /// Since when something is appended that nobody has synced.
    pub(super) unsynced_since: Option<Instant>,
    urgency: Urgency,
    pace: Pace,
    /// See [`Outlook`].
    copied_bytes_max: usize,
    /// See [`Outlook`].
    is_mapped: bool,
    /// When a write began last; or, of writes that are not timed, the first that the last sync covered.
    pub(super) last_write: Instant,
    /// How long something may be unsynced.
    sync_interval: Duration,
    crowd: Crowd,
    pub(super) claim: Claim,
    /// Something was synced that has no witness yet.
    pub(super) unwitnessed: bool,
    /// What the thread does that syncs what is due.
    pub(super) syncer: Syncer,
    buffer: Vec<u8>,
}

/// How soon what nobody has synced is to be synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    InTime,
    /// The newest segment has no name until then.
    AtOnce,
}

/// What the end of the log is like, for the groups to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    urgency: Urgency,
    /// Two syncs may run at a time.
    syncs_beside: bool,
    /// How long a frame may be that is only copied to where it belongs.
    copied_bytes_max: usize,
    /// A frame that is less than a block is written without a call of the system.
    is_mapped: bool,
}

impl Outlook {
    pub(super) fn of(log: &LogWriter) -> Outlook {
        Outlook {
            urgency: if log.is_unnamed() { Urgency::AtOnce } else { Urgency::InTime },
            syncs_beside: log.syncs_beside(),
            copied_bytes_max: log.copied_bytes_max(),
            is_mapped: log.maps_small_writes(),
        }
    }
}

/// Whether somebody is about to take the first group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    None,
    /// Once checkpoints have caught up.
    Held,
    /// Once the one before it is written, if this one is only copied.
    LedOn,
}

/// When the thread that syncs what is due looks at the queue again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syncer {
    Awake,
    SleepsUntil(Instant),
    Sleeps,
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
    /// Somebody asked for `Machine`.
    pub(super) sync: bool,
    /// When it was taken to be written, if that matters.
    pub(super) began: Option<Instant>,
}

impl Group {
    /// One of no commits, in this room.
    fn of(frame: Vec<u8>, last: Lsn) -> Group {
        Group { frame, commits: 0, operations: 0, last, sync: false, began: None }
    }
}

impl Queue {
    pub(super) fn new(visible: Lsn, publisher: Publisher, sync_interval: Duration) -> Queue {
        Queue {
            group_bytes_max: GROUP_BYTES_MAX,
            staged_bytes: 0,
            groups: VecDeque::new(),
            led: Led::default(),
            visible,
            publisher,
            poison: None,
            closed: false,
            unsynced_since: None,
            urgency: Urgency::InTime,
            pace: Pace::default(),
            copied_bytes_max: 0,
            is_mapped: false,
            last_write: Instant::now(),
            sync_interval,
            crowd: Crowd::new(),
            claim: Claim::None,
            unwitnessed: false,
            syncer: Syncer::Awake,
            buffer: Vec::new(),
        }
    }

    /// Takes note of what the end of the log is like now.
    pub(super) fn note_outlook(&mut self, outlook: Outlook) {
        self.urgency = outlook.urgency;
        self.pace.is_possible = outlook.syncs_beside;
        self.copied_bytes_max = outlook.copied_bytes_max;
        self.is_mapped = outlook.is_mapped;
    }

    /// Adds a commit to the last group, or begins one; returns the state that it replaces there.
    pub(super) fn push(&mut self, staged: Staged<'_>) -> Option<Arc<State>> {
        let lsn = staged.state.lsn;
        let bytes = record_len(staged.label, staged.operations);
        self.staged_bytes += bytes;
        let fits = |(group, _): &(Group, End)| group.frame.len() + bytes <= self.group_bytes_max;
        let last = self.groups.back_mut().filter(|last| fits(last));
        let replaced = if let Some((_, end)) = last {
            end.waiters.last = lsn;
            Some(std::mem::replace(&mut end.state, staged.state))
        } else {
            let mut frame = std::mem::take(&mut self.buffer);
            frame.clear();
            frame.resize(FRAME_HEADER_BYTES, 0);
            let end = End { state: staged.state, waiters: Waiters::of(lsn) };
            self.groups.push_back((Group::of(frame, lsn), end));
            None
        };
        if let Some((group, _)) = self.groups.back_mut() {
            put_record(&mut group.frame, staged.label, staged.operations);
            group.commits += 1;
            group.operations += staged.operation_count;
            group.last = lsn;
            group.sync |= staged.durability == Durability::Machine;
        }
        replaced
    }

    /// Whether nothing more will be written.
    pub(super) fn has_ended(&self) -> bool {
        self.closed || self.poison.is_some()
    }

    pub(super) fn is_led(&self) -> bool {
        self.led.len() > 0 || self.claim == Claim::Held
    }

    /// Whether somebody may lead the first group now.
    fn may_lead(&self) -> bool {
        let is_free = self.led.len() == 0
            || self.led.len() < AT_ONCE
                && self.led.is_appended()
                && self.is_first_synced()
                && self.leads_beside();
        is_free && self.claim != Claim::Held
    }

    /// Whether a group may be written while another one is synced: if that pays, and those who commit wait for less.
    fn leads_beside(&self) -> bool {
        self.pace.pays() && self.crowd.is_loose(self.led.commits())
    }

    /// Whether somebody in the first group asks for a sync: else it may as well wait for more.
    fn is_first_synced(&self) -> bool {
        self.groups.front().is_some_and(|(group, _)| group.sync)
    }

    /// What somebody does next who waits for this commit.
    pub(super) fn turn_of(&mut self, lsn: Lsn) -> Turn {
        // Somebody writes it.
        if self.led.last().is_some_and(|last| lsn <= last) { Turn::Wait } else { self.turn() }
    }

    /// Whose turn it is to lead the first group: whoever makes it complete, or comes after its time.
    ///
    /// Those who were just acknowledged may join before the group is written: without it, two halves of
    /// the writers would wait for each other's syncs in turn. A lone writer never waits here.
    pub(super) fn turn(&mut self) -> Turn {
        if !self.may_lead() {
            return Turn::Wait;
        }
        if self.is_complete() {
            return Turn::Lead;
        }
        self.crowd.gather()
    }

    /// See [`Crowd::end_keeping_time`].
    pub(super) fn end_keeping_time(&mut self, until: Instant) {
        self.crowd.end_keeping_time(until);
    }

    /// Whether there is a group that nobody leads, and nobody will before somebody is woken for it.
    pub(super) fn wants_leader(&self) -> bool {
        let is_kept = self.crowd.is_kept();
        self.has_groups() && self.may_lead() && (!is_kept || self.is_complete())
    }

    /// Whether the first group asks for no sync, and writing it takes no longer than copying it: then whoever comes
    /// by may lead it, and may not wait.
    pub(super) fn is_only_copied(&self) -> bool {
        let first = self.groups.front();
        first.is_some_and(|(group, _)| !group.sync && group.frame.len() <= self.copied_bytes_max)
    }

    /// Whether what is led ends sooner than somebody is woken who sleeps for it: it is written by calls of the system, and
    /// not synced. What is stored into a map ends sooner still; but one thread that goes on makes more of such commits
    /// than two of which each waits for the other, awake.
    pub(super) fn ends_soon(&self) -> bool {
        !self.is_mapped && !self.led.syncs()
    }

    /// Whether nobody is expected to join the first group.
    fn is_complete(&self) -> bool {
        let wanted = self.wanted_commits();
        wanted < 2 || self.first_commits() >= wanted || self.groups.len() > 1
    }

    /// How many commits the first group waits for.
    fn wanted_commits(&self) -> u32 {
        self.crowd.wanted(self.led.commits(), &self.pace)
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
        waiting.or(self.led.last()).unwrap_or(self.visible)
    }

    /// How a commit ended, once it has.
    pub(super) fn outcome(&self, lsn: Lsn) -> Option<Result<()>> {
        if self.visible >= lsn {
            return Some(Ok(()));
        }
        if let Some(first) = &self.poison {
            return Some(Err(Error::poisoned(first)));
        }
        let being_written = self.led.last().is_some_and(|last| lsn <= last);
        (self.closed && !being_written).then(|| Err(Error::closed()))
    }

    /// Those who wait for a commit that has not ended.
    pub(super) fn waiters_of(&mut self, lsn: Lsn) -> &mut Waiters {
        let waiting = self.groups.iter_mut().map(|(_, end)| &mut end.waiters);
        let mut all = self.led.waiters().chain(waiting);
        all.find(|waiters| lsn <= waiters.last).expect("a commit that has not ended is in a group")
    }

    /// Takes the first group to write it, which ends with [`end_lead`](Self::end_lead).
    pub(super) fn take_first(&mut self) -> Option<Group> {
        if self.has_ended() {
            return None;
        }
        let wanted = self.wanted_commits();
        let (mut group, end) = self.groups.pop_front()?;
        self.staged_bytes -= group.frame.len() - FRAME_HEADER_BYTES;
        self.led.begin(&group, end);
        // Looking at the clock takes a part of a commit that is not synced. Where nobody else is expected it
        // only tells when the log fell idle, which the syncs that are due tell as well if they come often.
        let syncs_seldom = self.sync_interval >= WITNESS_AFTER / 2;
        let is_timed = group.sync || self.crowd.is_expected() || syncs_seldom;
        group.began = is_timed.then(Instant::now);
        self.crowd.note_lead(group.commits, wanted);
        Some(group)
    }

    /// The group that ends with this commit is appended: while it is synced, another one may be.
    pub(super) fn note_append(&mut self, last: Lsn) {
        self.led.note_append(last);
    }

    /// Ends the lead of the group that ends with this commit; returns whom that refuses.
    pub(super) fn end_lead(&mut self, last: Lsn, outcome: Result<(Vec<u8>, Written)>) -> Refused {
        match outcome {
            Ok((frame, written)) if self.poison.is_none() => {
                self.keep_buffer(frame);
                let timing = written.timing.filter(|_| written.synced);
                let beside = self.led.note_end(last, written);
                if let Some((_, took)) = timing {
                    self.pace.note(took, beside);
                }
                Refused::default()
            }
            outcome => {
                let poisoned = outcome.err().map(|cause| self.poison(&cause));
                let mut refused = poisoned.unwrap_or_default();
                refused.0.extend(self.led.give_up(last));
                refused
            }
        }
    }

    /// Publishes the first group that is led, if it is written; returns who waits for it, and the state that it
    /// replaces.
    pub(super) fn publish_first(&mut self) -> Option<(Waiters, Arc<State>)> {
        let (End { state, waiters }, written) = self.led.take_ended()?;
        let replaced = self.publisher.publish(state);
        self.visible = waiters.last;
        // Those who made them are awake now and may come back, to join those who wait already.
        self.crowd.expect(written.commits.saturating_add(self.first_commits()));
        self.note_write(written.timing, written.synced);
        self.note_outlook(written.outlook);
        Some((waiters, replaced))
    }

    /// Nothing more is acknowledged; whoever leads ends on its own.
    pub(super) fn poison(&mut self, cause: &Error) -> Refused {
        self.poison.get_or_insert_with(|| cause.clone());
        self.refuse_all()
    }

    /// Lets go of all groups that nobody writes.
    pub(super) fn refuse_all(&mut self) -> Refused {
        self.staged_bytes = 0;
        Refused(self.groups.drain(..).map(|(_, end)| end).collect())
    }

    /// Wakes one of those who wait for the next group, or the thread that leads where none does.
    pub(super) fn call_leader(&self, leading: &Condvar) {
        let is_led_on = self.claim == Claim::LedOn && self.is_only_copied();
        if let Some((_, next)) = self.groups.front()
            && !is_led_on
            && !next.waiters.ask_for_a_look()
        {
            leading.notify_one();
        }
    }

    /// The same, and wakes the thread that syncs, if it sleeps beyond what is due.
    pub(super) fn hand_over(&mut self, leading: &Condvar, syncing: &Condvar) {
        self.call_leader(leading);
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

    /// A write has ended that began then and took so long, if that matters.
    fn note_write(&mut self, timing: Option<(Instant, Duration)>, synced: bool) {
        if let Some((began, took)) = timing {
            self.last_write = began;
            self.crowd.note_write(began, took);
        }
        if synced {
            self.unsynced_since = None;
            self.unwitnessed = true;
        } else {
            self.unsynced_since
                .get_or_insert_with(|| timing.map_or_else(Instant::now, |(began, _)| began));
        }
    }

    /// A sync that began then has ended: what was written by then is durable.
    pub(super) fn note_sync(&mut self, began: Instant, durable: Lsn) {
        self.unwitnessed = true;
        self.last_write = self.unsynced_since.map_or(self.last_write, |at| at.max(self.last_write));
        let written_since = self.visible > durable;
        self.unsynced_since = self.unsynced_since.filter(|_| written_since).map(|_| began);
    }

    fn keep_buffer(&mut self, frame: Vec<u8>) {
        if frame.capacity() <= KEPT_BUFFER_BYTES {
            self.buffer = frame;
        }
    }
}
