//! The groups that are being written: one, or another one beside it while the first is synced.
//!
//! # Invariants
//! - A group is appended only when the one before it is, so that the log has the order of LSNs.
//! - Whichever ends first, they are published in that order.

use std::collections::VecDeque;

use super::end::End;
use super::waiters::Waiters;
use super::{Group, Written};
use crate::format::Lsn;

/// The groups that somebody leads, in the order of their LSNs.
#[derive(Debug, Default)]
pub(super) struct Led(VecDeque<Write>);

/// One of them.
#[derive(Debug)]
struct Write {
    end: End,
    commits: u32,
    syncs: bool,
    /// Another one was written meanwhile.
    beside: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Appending,
    /// Another one may be appended meanwhile.
    Syncing,
    /// And waits for the one before it to be published.
    Ended(Written),
}

impl Led {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many commits are in them.
    pub(super) fn commits(&self) -> u32 {
        self.0.iter().map(|write| write.commits).sum()
    }

    /// Whether one of them is synced.
    pub(super) fn syncs(&self) -> bool {
        self.0.iter().any(|write| write.syncs)
    }

    /// The last commit of the last one.
    pub(super) fn last(&self) -> Option<Lsn> {
        self.0.back().map(|write| write.end.waiters.last)
    }

    pub(super) fn waiters(&mut self) -> impl Iterator<Item = &mut Waiters> {
        self.0.iter_mut().map(|write| &mut write.end.waiters)
    }

    /// Whether what comes next could be appended.
    pub(super) fn is_appended(&self) -> bool {
        self.0.back().is_none_or(|last| !matches!(last.stage, Stage::Appending))
    }

    pub(super) fn begin(&mut self, group: &Group, end: End) {
        debug_assert!(self.is_appended(), "the group before it is not appended");
        let beside = !self.0.is_empty();
        self.0.iter_mut().for_each(|write| write.beside = true);
        let stage = Stage::Appending;
        let (commits, syncs) = (group.commits, group.sync);
        self.0.push_back(Write { end, commits, syncs, beside, stage });
    }

    fn find(&mut self, last: Lsn) -> Option<&mut Write> {
        self.0.iter_mut().find(|write| write.end.waiters.last == last)
    }

    /// Takes note that the group that ends with this commit is appended, and is synced now.
    pub(super) fn note_append(&mut self, last: Lsn) {
        if let Some(write) = self.find(last) {
            write.stage = Stage::Syncing;
        }
    }

    /// Takes note that the group that ends with this commit is written; whether another one was meanwhile.
    pub(super) fn note_end(&mut self, last: Lsn, written: Written) -> bool {
        self.find(last).is_some_and(|write| {
            write.stage = Stage::Ended(written);
            write.beside
        })
    }

    /// The first one, if it is written.
    pub(super) fn take_ended(&mut self) -> Option<(End, Written)> {
        let Stage::Ended(written) = self.0.front()?.stage else { return None };
        self.0.pop_front().map(|first| (first.end, written))
    }

    /// Gives up the one that ends with this commit, and those that are written and will not be published.
    pub(super) fn give_up(&mut self, last: Lsn) -> impl Iterator<Item = End> {
        let all = std::mem::take(&mut self.0).into_iter();
        let (given_up, kept): (VecDeque<_>, _) = all.partition(|write| {
            write.end.waiters.last == last || matches!(write.stage, Stage::Ended(_))
        });
        self.0 = kept;
        given_up.into_iter().map(|write| write.end)
    }
}
