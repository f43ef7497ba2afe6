//! Who is expected to commit soon, and for how long a group waits for them.

use std::time::{Duration, Instant};

use super::pace::Pace;
use super::queue::Turn;
use crate::sync::EXPLORED;

/// A group waits for those who are expected for as long as the last write took, if they mostly come; else for so
/// small a part of it.
const GATHER_PART: u32 = 2;

/// Trust in those who are expected grows by one with each group that is complete in time, up to this, and falls
/// by half of this with each that has waited in vain. So one who waited for a processor is forgiven, and those
/// who come when they like are not trusted.
const TRUST_MAX: u32 = 8;

/// So many who commit may be in two groups at a time: to wake more takes longer than the syncs that they spare.
const LOOSE_MAX: u32 = 8;

/// Of those who always come back together, so many may: each then waits for a sync of its own.
const LOOSE_TOGETHER_MAX: u32 = 2;

/// Who was woken comes back in less, however long a sync has waited for the disk.
const PATIENCE_MAX: Duration = Duration::from_millis(10);

/// Under explored schedules, where there is no time, it is looked at so often instead.
const GATHER_LOOKS: u32 = 4;

/// Writers that were acknowledged longer ago are not expected back.
const RECENT: Duration = Duration::from_millis(2);

/// Those who were acknowledged of late.
#[derive(Debug)]
pub(super) struct Crowd {
    /// How many commits the next group may be about to have.
    expected: u32,
    /// How reliably those who were expected came of late, up to [`TRUST_MAX`].
    trust: u32,
    /// They came so reliably, and have not failed to twice in a row since.
    comes_together: bool,
    /// The first group waits for more to join it.
    gathering: Option<Gathering>,
    /// When the last write began that was timed, and how long it took, with the sync.
    last_write: (Instant, Duration),
}

/// How long the first group may wait for more.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    until: Instant,
    /// Somebody is awake by then.
    is_kept: bool,
    looks: u32,
}

impl Crowd {
    pub(super) fn new() -> Crowd {
        Crowd {
            expected: 0,
            trust: 0,
            comes_together: false,
            gathering: None,
            last_write: (Instant::now(), Duration::ZERO),
        }
    }

    /// The next group may be about to have so many commits.
    pub(super) fn expect(&mut self, commits: u32) {
        self.expected = commits;
    }

    /// Takes note of a write that began then and took so long.
    pub(super) fn note_write(&mut self, began: Instant, took: Duration) {
        self.last_write = (began, took);
    }

    /// A group of so many commits is about to be written, for which this many were waited for.
    pub(super) fn note_lead(&mut self, commits: u32, wanted: u32) {
        self.expected = self.expected.saturating_sub(commits);
        if self.gathering.take().is_none() {
            return;
        }
        if commits < wanted {
            self.trust = self.trust.saturating_sub(TRUST_MAX / 2);
            self.comes_together &= self.trust >= TRUST_MAX / 2;
        } else {
            self.trust = (self.trust + 1).min(TRUST_MAX);
            self.comes_together |= self.trust == TRUST_MAX;
        }
    }

    /// Whether others may join the first group, if the last one was not long ago.
    pub(super) fn is_expected(&self) -> bool {
        self.expected > 1
    }

    /// How many commits the first group may be about to have, unless the last one was long ago.
    pub(super) fn expected(&self) -> u32 {
        let (began, took) = self.last_write;
        if self.is_expected() && began.elapsed() < RECENT + took { self.expected } else { 0 }
    }

    /// Whether they need not wait for each other, with so many commits being written. Those who come when they like
    /// then wait for no sync but their own; those who come back together, or are many, had better share one.
    pub(super) fn is_loose(&self, being_written: u32) -> bool {
        self.are_loose(self.expected().saturating_add(being_written))
    }

    /// The same of so many in all.
    fn are_loose(&self, all: u32) -> bool {
        all <= if self.comes_together { LOOSE_TOGETHER_MAX } else { LOOSE_MAX }
    }

    /// How many commits the first group waits for, with so many being written: half of all, where two groups at a
    /// time pay and they need not wait for each other.
    pub(super) fn wanted(&self, being_written: u32, pace: &Pace) -> u32 {
        let expected = self.expected();
        let all = expected.saturating_add(being_written);
        let in_halves = expected > 0 && self.are_loose(all) && pace.pays();
        if in_halves { expected.min(all.div_ceil(2)) } else { expected }
    }

    /// What somebody does whose group could be written and is not complete.
    pub(super) fn gather(&mut self) -> Turn {
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
        (self.last_write.1 / part).min(PATIENCE_MAX)
    }

    /// Whether somebody is awake in time to lead the first group as it is.
    pub(super) fn is_kept(&self) -> bool {
        self.gathering.is_some_and(|gathering| gathering.is_kept)
    }

    /// Whoever kept the time until then is awake again; somebody has to, unless the group is led.
    pub(super) fn end_keeping_time(&mut self, until: Instant) {
        if let Some(gathering) = self.gathering.as_mut().filter(|kept| kept.until == until) {
            gathering.is_kept = false;
        }
    }
}

#[cfg(not(feature = "schedules"))]
#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Duration = Duration::from_millis(5);

    /// A group for which two are waited for, after a write just now; for how long the first waits for the other.
    fn gather(crowd: &mut Crowd, comes: bool) -> Duration {
        // However long it takes until somebody looks.
        crowd.note_write(Instant::now() + Duration::from_secs(60), WRITE);
        crowd.expect(2);
        assert!(matches!(crowd.gather(), Turn::KeepTime(_)));
        let waited = crowd.patience();
        if !comes && let Some(gathering) = &mut crowd.gathering {
            gathering.until = Instant::now();
            assert_eq!(crowd.gather(), Turn::Lead);
        }
        crowd.note_lead(if comes { 2 } else { 1 }, 2);
        waited
    }

    #[test]
    fn a_group_waits_for_a_whole_write_where_those_who_are_expected_come() {
        let crowd = &mut Crowd::new();
        // Whether they come, so often in turn, and whether the last of these waited for a whole write.
        let story = [(true, 4, false), (true, 20, true), (false, 1, true), (true, 1, true)];
        let end = [(false, 2, false), (true, 3, false), (false, 1, false), (true, 5, true)];
        for (comes, times, whole) in story.into_iter().chain(end) {
            let waited = (0..times).map(|_| gather(crowd, comes)).last();
            let meant = if whole { WRITE } else { WRITE / 2 };
            assert_eq!(waited, Some(meant), "{times} times: {comes}");
        }
        crowd.note_write(Instant::now(), Duration::from_secs(3));
        assert_eq!(crowd.patience(), PATIENCE_MAX);
    }

    #[test]
    fn those_who_come_together_share_a_sync_and_so_do_many() {
        let crowd = &mut Crowd::new();
        let most = |crowd: &Crowd| (0..100).rfind(|commits| crowd.is_loose(*commits));
        assert_eq!(most(crowd), Some(LOOSE_MAX));
        // Whether they come, so often in turn, and how many may be in two groups at a time after it.
        let story = [(true, 7, 8), (true, 1, 2), (true, 9, 2), (false, 1, 2), (true, 1, 2)];
        let end = [(false, 1, 8), (true, 3, 8), (true, 4, 2), (false, 2, 8)];
        for (comes, times, loose) in story.into_iter().chain(end) {
            assert_eq!((0..times).map(|_| gather(crowd, comes)).count(), times);
            crowd.expect(0);
            assert_eq!(most(crowd), Some(loose), "{times} times: {comes}");
        }
        crowd.expect(LOOSE_MAX);
        assert!(crowd.is_loose(0) && !crowd.is_loose(1), "those who are expected count");
    }
}
