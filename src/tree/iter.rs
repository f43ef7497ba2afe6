//! Walking a tree from both ends.

mod position;

use super::between::{Between, Compare, outer};
use super::node::{Carry, NodePtr, Stamp};
use crate::error::{Error, Result};
use position::{Fetched, Position};

/// The entries between two places. After an error it ends.
pub(crate) struct Iter<'a, K, V> {
    root: NodePtr<K, V>,
    /// As of which everything is seen.
    version: Stamp,
    /// An end that is the tree's is sought when somebody comes from there: most come from one, and the way to the
    /// other one may not be in memory.
    front: Option<Position<'a, K, V>>,
    back: Option<Position<'a, K, V>>,
    /// How many entries of the front's leaf are before the back.
    before_back: usize,
    state: State,
    /// What the loads of cold ranges on the way leave for each other.
    carry: Carry<K, V>,
}

enum State {
    Between,
    Failed(Error),
    /// There are no places either.
    Ended,
}

impl<'a, K: Clone, V> Iter<'a, K, V> {
    /// # Safety
    /// As for `Position::seek`.
    #[inline]
    pub(super) unsafe fn new(
        root: NodePtr<K, V>,
        version: Stamp,
        between: Between<impl Compare<K>, impl Compare<K>>,
    ) -> Self {
        let (carry, state) = (Carry::default(), State::Between);
        let mut iter =
            Iter { root, version, front: None, back: None, before_back: 0, state, carry };
        // SAFETY: the caller's promise.
        match unsafe { iter.begin(between) } {
            Ok(true) => {}
            Ok(false) => iter.end(State::Ended),
            Err(error) => iter.end(State::Failed(error)),
        }
        iter
    }

    /// Goes to both ends; `false` if nothing is between.
    ///
    /// # Safety
    /// As for `Position::seek`.
    unsafe fn begin(&mut self, between: Between<impl Compare<K>, impl Compare<K>>) -> Result<bool> {
        let (root, version) = (self.root, self.version);
        if let Some(first) = between.first {
            // SAFETY: the caller's promise.
            unsafe { Position::seek(root, version, first, &mut self.carry, &mut self.front) }?;
            let Some(front) = &mut self.front else { return Ok(false) };
            while front.at == front.leaf.len() {
                if !front.turn(true, &mut self.carry)? {
                    return Ok(false);
                }
            }
        }
        if let Some(end) = between.end {
            if let Some(front) = &self.front {
                self.back = front.back_within(end);
            }
            if self.back.is_none() {
                let carry = &mut Carry::default();
                // SAFETY: as above.
                unsafe { Position::seek(root, version, end, carry, &mut self.back) }?;
                if self.back.is_none() {
                    return Ok(false);
                }
            }
        }
        self.before_back = self.before_back();
        if let Some(front) = &mut self.front {
            let fetched = if self.back.is_some() { Fetched::MUCH } else { Fetched::LITTLE };
            front.fetch_first(fetched, true, self.before_back);
        }
        Ok(true)
    }

    #[cold]
    fn end(&mut self, state: State) {
        (self.front, self.back, self.state) = (None, None, state);
    }

    /// Goes on to the front's next leaf that has entries, or to the back's, and takes a step there.
    #[cold]
    #[inline(never)]
    fn turn_and_step(&mut self, forward: bool) -> Option<Result<(&'a K, &'a V)>> {
        if let Err(error) = self.turn(forward)? {
            return Some(Err(error));
        }
        if forward { self.front.as_mut()?.step(self.before_back) } else { self.step_back() }
    }

    #[inline]
    fn step_back(&mut self) -> Option<Result<(&'a K, &'a V)>> {
        let entry = self.back.as_mut()?.step_back();
        self.before_back = self.before_back();
        entry
    }

    /// Goes on to the front's next leaf that has entries, or to the back's.
    fn turn(&mut self, forward: bool) -> Option<Result<()>> {
        if let State::Between = self.state {
            match self.turn_to(forward) {
                Ok(true) => return Some(Ok(())),
                Ok(false) => self.end(State::Ended),
                Err(error) => self.end(State::Failed(error)),
            }
        }
        let state = std::mem::replace(&mut self.state, State::Ended);
        if let State::Failed(error) = state { Some(Err(error)) } else { None }
    }

    fn turn_to(&mut self, forward: bool) -> Result<bool> {
        let from = if forward { &mut self.front } else { &mut self.back };
        if from.is_none() {
            let edge = outer(forward);
            // SAFETY: whoever made this promised it.
            unsafe { Position::seek(self.root, self.version, edge, &mut self.carry, from) }?;
            if let Some(outer) = from {
                outer.fetch_first(Fetched::LITTLE, forward, outer.leaf.len());
            }
        }
        while !self.is_met() {
            let end = self.before_back();
            let from = if forward { &mut self.front } else { &mut self.back };
            let Some(from) = from else { break };
            let has_entries = if forward { from.at < end } else { from.at > 0 };
            if has_entries {
                self.before_back = end;
                return Ok(true);
            }
            if !from.turn(forward, &mut self.carry)? {
                break;
            }
        }
        Ok(false)
    }

    fn nth_from(&mut self, n: usize, forward: bool) -> Option<Result<(&'a K, &'a V)>> {
        match self.pass(n, forward) {
            (_, Some(error)) => Some(Err(error)),
            _ if forward => self.next(),
            _ => self.next_back(),
        }
    }

    /// How many entries are before the front and before the back, if both are in one leaf.
    #[inline]
    fn together(&self) -> Option<(usize, usize)> {
        let (front, back) = (self.front.as_ref()?, self.back.as_ref()?);
        (front.leaf == back.leaf).then_some((front.at, back.at))
    }

    /// Whether nothing is between the places. The back is before the front where keys contradict themselves.
    #[inline]
    fn is_met(&self) -> bool {
        self.together().is_some_and(|(front, back)| front >= back)
    }

    /// How many entries of the front's leaf are before the back.
    #[inline]
    fn before_back(&self) -> usize {
        let all = self.front.as_ref().map_or(0, |front| front.leaf.len());
        self.together().map_or(all, |(_, back)| back)
    }

    /// Goes past so many entries, if there are as many, and looks at none of their values; tells past how many, and
    /// what could not be read on the way.
    fn pass(&mut self, most: usize, forward: bool) -> (usize, Option<Error>) {
        let mut passed = 0;
        loop {
            let before_front = self.together().map_or(0, |(front, _)| front);
            let from = if forward { &mut self.front } else { &mut self.back };
            if let Some(from) = from {
                let (first, end) =
                    if forward { (from.at, self.before_back) } else { (before_front, from.at) };
                let steps = end.saturating_sub(first).min(most - passed);
                from.pass(steps, forward);
                passed += steps;
            }
            self.before_back = self.before_back();
            if passed == most {
                return (passed, None);
            }
            match self.turn(forward) {
                Some(Ok(())) => {}
                Some(Err(error)) => return (passed, Some(error)),
                None => return (passed, None),
            }
        }
    }
}

impl<'a, K: Clone, V> Iterator for Iter<'a, K, V> {
    type Item = Result<(&'a K, &'a V)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(front) = &mut self.front
            && front.at < self.before_back
        {
            return front.step(self.before_back);
        }
        self.turn_and_step(true)
    }

    fn nth(&mut self, n: usize) -> Option<Self::Item> {
        self.nth_from(n, true)
    }

    fn count(mut self) -> usize {
        let (passed, error) = self.pass(usize::MAX, true);
        passed + usize::from(error.is_some())
    }

    fn last(mut self) -> Option<Self::Item> {
        self.next_back()
    }
}

impl<K: Clone, V> DoubleEndedIterator for Iter<'_, K, V> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        if !self.is_met() && self.back.as_ref().is_some_and(|back| back.at > 0) {
            return self.step_back();
        }
        self.turn_and_step(false)
    }

    fn nth_back(&mut self, n: usize) -> Option<Self::Item> {
        self.nth_from(n, false)
    }
}

impl<K: Clone, V> std::iter::FusedIterator for Iter<'_, K, V> {}
