//! Ranges that are loaded on first touch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use proptest::prelude::*;

use super::walks::{between, walk, walked};
use super::{insert, remove, same, up_to};
use crate::error::{Error, Result};
use crate::tree::{Entries, Graveyard, Loaded, Source, Standing, Stored, Tree, WarmPosition};

/// A thousand entries, cold, divided by three hundred and then by a hundred.
pub(super) struct Thousand {
    loads: AtomicUsize,
    /// This load fails, of ranges and of entries.
    fails: AtomicUsize,
    /// The entries of a range that one thread loads.
    narrow: usize,
    /// Others are not there, for all that is known before they are read.
    holds: std::ops::Range<u16>,
}

struct Part(Arc<Thousand>, std::ops::Range<u16>);

impl Source<u16, u32> for Part {
    fn load(&self, _: &mut Standing, to: &mut Entries<u16, u32>) -> Result<Loaded<u16, u32>> {
        let Part(all, range) = self;
        if all.fails.fetch_sub(1, Atomic::SeqCst) == 1 {
            return Err(Error::new(crate::ErrorKind::Io, "the first touch fails"));
        }
        if range.len() > 100 {
            let step = if range.len() > 300 { 300 } else { 100 };
            let parts = range.clone().step_by(step.into()).map(|first| {
                let part = Part(Arc::clone(all), first..(first + step).min(range.end));
                (Some(first), Box::new(part) as Box<dyn Source<u16, u32>>)
            });
            return Ok(Loaded::Ranges(parts.collect()));
        }
        all.loads.fetch_add(1, Atomic::SeqCst);
        let there = range.clone().filter(|key| all.holds.contains(key));
        to.extend(there.map(|key| (key, Stored::Value(key.into()))));
        Ok(Loaded::Entries)
    }

    fn divides(&self) -> bool {
        self.1.len() > self.0.narrow
    }
}

pub(super) fn thousand(fails: usize, narrow: usize) -> (Arc<Thousand>, Tree<u16, u32>) {
    some_of_thousand(fails, narrow, 0..1000)
}

pub(super) fn some_of_thousand(
    fails: usize,
    narrow: usize,
    holds: std::ops::Range<u16>,
) -> (Arc<Thousand>, Tree<u16, u32>) {
    let (loads, fails, len) = (AtomicUsize::new(0), AtomicUsize::new(fails), holds.len());
    let all = Arc::new(Thousand { loads, fails, narrow, holds });
    let tree = Tree::cold(None, Box::new(Part(Arc::clone(&all), 0..1000)), len, Graveyard::none());
    (all, tree)
}

#[test]
fn a_cold_range_is_loaded_once_and_a_failed_touch_changes_nothing() {
    for fails in [1, 2, 3] {
        let (all, mut tree) = thousand(fails, 100);
        let view = tree.clone();
        assert!(insert(&mut tree, 505, 1).is_err());
        assert_eq!(tree.len(), 1000);
        assert!(insert(&mut tree, 505, 1).unwrap().is_some());
        assert_eq!(remove(&mut tree, 501), Some(501));
        assert_eq!(tree.len(), 999);
        assert_eq!(all.loads.load(Atomic::SeqCst), 1, "one range was touched");
        assert_eq!(*view.read().get(|k| 501.cmp(k)).unwrap().unwrap(), 501);
        assert_eq!(*view.read().get(|k| 505.cmp(k)).unwrap().unwrap(), 505);
        assert!(tree.read().get(|k| 501.cmp(k)).unwrap().is_none());
        assert_eq!(all.loads.load(Atomic::SeqCst), 1, "views share what was loaded");
        assert_eq!(view.read().iter().count(), 1000);
        assert_eq!(tree.read().iter().rev().count(), 999);
        assert_eq!(all.loads.load(Atomic::SeqCst), 10);
    }
}

#[test]
fn an_end_is_read_without_the_other_one_and_beyond_what_holds_nothing() {
    let (all, mut tree) = thousand(0, 100);
    for (first, loads, key) in [(true, 1, 0), (false, 2, 999)] {
        assert_eq!(tree.read().outermost(first).unwrap(), Some((&key, &u32::from(key))));
        assert_eq!(all.loads.load(Atomic::SeqCst), loads);
    }
    for key in (0..150).chain(850..1000) {
        remove(&mut tree, key);
    }
    let before = tree.clone();
    let mut draft = tree.draft();
    for (first, key) in [(true, 150), (false, 849)] {
        assert_eq!(draft.read().outermost(first).unwrap().map(|(key, _)| *key), Some(key));
        draft.remove(|other| key.cmp(other)).unwrap();
        assert_eq!(before.read().outermost(first).unwrap().map(|(key, _)| *key), Some(key));
    }
    assert_eq!(draft.read().outermost(true).unwrap().map(|(key, _)| *key), Some(151));
    assert_eq!(draft.read().outermost(false).unwrap().map(|(key, _)| *key), Some(848));
}

#[test]
fn warming_loads_every_range_once_from_the_end_on() {
    // Two hundred of a narrow range of three hundred are loaded by themselves.
    for (narrow, expected) in [(100, 8), (300, 4)] {
        let (all, mut tree) = thousand(0, narrow);
        insert(&mut tree, 250, 1).unwrap();
        remove(&mut tree, 999);
        let mut warming = WarmPosition::default();
        let mut fails = |error: Error| panic!("{error}");
        let mut steps = 0;
        while let Some(claim) = tree.claim(&mut warming, &mut fails) {
            assert_eq!(all.loads.load(Atomic::SeqCst), 2, "who claims loads no entries");
            claim.load(|done| {
                done.unwrap();
                steps += 1;
                true
            });
        }
        assert_eq!((steps, all.loads.load(Atomic::SeqCst)), (expected, 10));
        assert_eq!(tree.read().iter().count(), 999);
        assert_eq!(all.loads.load(Atomic::SeqCst), 10);
    }
}

/// Ten ranges: who comes from an end that has no bound loads nothing of the other one, before somebody comes from
/// there.
#[test]
fn a_walk_loads_what_it_comes_to() {
    let (all, tree) = thousand(0, 100);
    let loaded = || all.loads.load(Atomic::SeqCst);
    let key = |entry: Option<Result<(&u16, &u32)>>| entry.map(|entry| *entry.unwrap().0);
    let mut entries = tree.read().iter();
    assert_eq!(loaded(), 0);
    assert_eq!(key(entries.next_back()), Some(999));
    assert_eq!(loaded(), 1);
    assert_eq!(key(tree.read().range(between(Some(250), None)).next()), Some(250));
    assert_eq!(loaded(), 2);
    assert_eq!(key(tree.read().range(between(None, Some(450))).next_back()), Some(449));
    assert_eq!(loaded(), 3);
    assert_eq!(key(entries.next()), Some(0));
    assert_eq!(key(entries.next_back()), Some(998));
    assert_eq!(loaded(), 4);
    assert_eq!(entries.count(), 997);
    assert_eq!(loaded(), 10);
}

#[test]
fn a_walk_that_fails_has_one_entry_more_however_it_is_walked() {
    for fails in 1..=14 {
        let tree = || thousand(fails, 100).1;
        let mut one_by_one = 0;
        tree().read().iter().for_each(|_| one_by_one += 1);
        assert!(one_by_one <= 1000);
        assert_eq!(tree().read().iter().count(), one_by_one);
        let (tree, again) = (tree(), tree());
        let (mut forward, mut back) = (tree.read().iter(), again.read().iter());
        assert!(forward.nth(999).unwrap().is_err() && back.nth_back(999).unwrap().is_err());
        assert!(forward.next().is_none() && back.next().is_none());
    }
}

#[test]
fn what_cannot_be_loaded_is_told_and_the_rest_is_loaded() {
    // Of the root and four parts of it, which are divided, and ten that have entries.
    for (narrow, divisions) in [(100, 4), (300, 1)] {
        // Miri runs a thousand times slower.
        for fails in (divisions + 1..=14).step_by(if cfg!(miri) { 5 } else { 1 }) {
            let (all, tree) = thousand(fails, narrow);
            let (mut warming, mut failures) = (WarmPosition::default(), 0);
            let mut unexpected = |error: Error| panic!("{error}");
            while let Some(claim) = tree.claim(&mut warming, &mut unexpected) {
                claim.load(|done| {
                    failures += usize::from(done.is_err());
                    true
                });
            }
            assert_eq!(failures, 1);
            assert!((7..=9).contains(&all.loads.load(Atomic::SeqCst)), "what failed is cold");
            assert_eq!(tree.read().iter().count(), 1000, "and is loaded when it is touched");
        }
    }
}

proptest! {
    #[test]
    fn a_cold_tree_is_a_hot_one(
        operations in prop::collection::vec((0u8..6, 0u16..1100, any::<u32>()), 0..up_to(300)),
        narrow in prop::sample::select(vec![100usize, 300]),
        walked in walked(),
    ) {
        let (_, mut tree) = thousand(0, narrow);
        let mut model: BTreeMap<u16, u32> = (0..1000).map(|key| (key, u32::from(key))).collect();
        let mut older = Vec::new();
        let mut warming = WarmPosition::default();
        for (what, key, value) in operations {
            match what {
                0 | 1 => {
                    let old = insert(&mut tree, key, value).unwrap();
                    prop_assert_eq!(old, model.insert(key, value));
                }
                2 | 3 => {
                    // A stretch, so that leaves and whole ranges become empty.
                    for key in key..key + 60 {
                        prop_assert_eq!(remove(&mut tree, key), model.remove(&key));
                    }
                }
                4 => older.push((tree.clone(), model.clone())),
                _ => {
                    let claim = tree.claim(&mut warming, &mut |error| panic!("{error}"));
                    let mut left = 3;
                    if let Some(claim) = claim {
                        claim.load(|_| { left -= 1; left > 0 });
                    }
                }
            }
        }
        older.push((tree, model));
        for (tree, model) in &older {
            // Before all of it is loaded.
            walk(tree, model, &walked);
            same(tree, model);
        }
    }
}
