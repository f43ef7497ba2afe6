//! What removals leave behind: no node that is empty, and few that are narrow.

use std::collections::VecDeque;

use super::cold::some_of_thousand;
use super::keys::{Owning, alive, keys_of};
use super::*;

/// The entries of each leaf that is in memory, in order.
pub(super) fn leaves<K, V>(tree: &Tree<K, V>) -> Vec<usize> {
    let leaves = nodes_of(tree).into_iter().filter_map(|node| match node {
        Hot::Inner(_) => None,
        Hot::Leaf(leaf) => Some(leaf.len()),
    });
    leaves.collect()
}

/// Entries come at one end of a tree of several levels and go at the other one, while versions are held and some of
/// what is done is undone.
fn come_and_go(frozen: Option<Frozen<Owning>>, ascending: bool) {
    let (window, steps) = if cfg!(miri) { (120, 4) } else { (4_000, 400) };
    let count = 50;
    let keys: Vec<u16> = (0..window + steps * count).collect();
    let key = |at: u16| if ascending { at } else { u16::MAX - at };
    let values = Arc::new(AtomicUsize::new(0));
    let insert = |draft: &mut Draft<Owning, Counted>, at: u16| {
        let new = Counted::new(at.into(), &values);
        assert!(draft.insert(Owning::new(key(at)), new).unwrap().is_none());
    };
    let remove = |draft: &mut Draft<Owning, Counted>, at: u16| {
        let key = key(at);
        assert!(draft.remove(|other| key.cmp(&other.number())).unwrap().is_some());
    };
    let shown = |tree: &Tree<Owning, Counted>| -> Vec<u16> {
        tree.read().iter().map(|entry| key(entry.unwrap().0.number())).collect()
    };
    let mut tree = Tree::new(frozen, Graveyard::none());
    let mut draft = tree.draft();
    keys.iter().take(window.into()).for_each(|at| insert(&mut draft, *at));
    tree = draft.freeze();
    draft.settle();
    let mut held = VecDeque::new();
    for (step, came) in keys.get(window.into()..).unwrap().chunks(count.into()).enumerate() {
        let mut draft = tree.draft();
        for at in came {
            insert(&mut draft, *at);
            remove(&mut draft, at - window);
        }
        if step % 3 == 0 {
            let first = came.last().unwrap() + 1 - window;
            let savepoint = draft.savepoint();
            (first..first + window - 1).for_each(|at| remove(&mut draft, at));
            draft.undo(&savepoint);
        }
        if step % 7 == 3 {
            // It comes to nothing, and then once more to something.
            drop(draft);
            draft = tree.draft();
            for at in came {
                remove(&mut draft, at - window);
                insert(&mut draft, *at);
            }
        }
        tree = draft.freeze();
        draft.settle();
        let leaves = leaves(&tree);
        assert!(leaves.iter().all(|len| *len > 0), "an empty leaf of {}", leaves.len());
        assert!(leaves.len() <= usize::from(window) / 25, "{} leaves", leaves.len());
        held.push_back((tree.clone(), step));
        if held.len() > 5 {
            held.pop_front();
        }
        if step % 50 == 3 {
            for (tree, step) in &held {
                let first = (u16::try_from(*step).unwrap() + 1) * count;
                let mut expected: Vec<u16> = (first..first + window).collect();
                expected.sort_by_key(|at| key(*at));
                assert_eq!(shown(tree), expected);
            }
        }
    }
    held.clear();
    tree.sweep();
    assert_eq!(alive(), keys_of(&tree));
    assert_eq!(values.load(Atomic::SeqCst), usize::from(window));
    let mut draft = tree.draft();
    for at in keys.iter().rev().take(window.into()) {
        remove(&mut draft, *at);
    }
    tree = draft.freeze();
    draft.settle();
    assert_eq!(leaves(&tree), [0]);
    tree.sweep();
    assert_eq!(alive(), 0);
    drop(tree);
    assert_eq!(values.load(Atomic::SeqCst), 0);
}

#[test]
fn of_what_comes_and_goes_in_turn_no_empty_node_is_left() {
    come_and_go(Some(Owning::frozen()), true);
    come_and_go(Some(Owning::frozen()), false);
    come_and_go(None, true);
    come_and_go(None, false);
}

/// One entry of each full leaf, whose neighbours are full when it becomes narrow, or hold next to nothing.
#[test]
fn few_entries_that_stay_lie_together() {
    let count = if cfg!(miri) { 600 } else { 20_000 };
    let stays = |key: &u16| key % 60 == 7;
    for ascending in [true, false] {
        let entries = (0..count).map(|key| (key, u32::from(key))).collect();
        let mut tree = Tree::from_sorted(None, entries, Graveyard::none());
        let mut gone: Vec<u16> = (0..count).filter(|key| !stays(key)).collect();
        if !ascending {
            gone.reverse();
        }
        for key in gone {
            remove(&mut tree, key);
        }
        same(&tree, &(0..count).filter(stays).map(|key| (key, u32::from(key))).collect());
        let leaves = leaves(&tree);
        assert!(leaves.len() <= tree.len() / 20 + 1, "{} entries: {leaves:?}", tree.len());
    }
}

/// Ten ranges of which nobody knows that they are empty before they are read.
#[test]
fn ranges_that_turn_out_to_be_empty_go_when_something_beside_them_does() {
    for (first, beyond) in [(true, 750), (false, 300)] {
        let mut tree = some_of_thousand(0, 100, beyond - 50..beyond).1;
        let before = tree.clone();
        let key = if first { beyond - 50 } else { beyond - 1 };
        assert_eq!(tree.read().outermost(first).unwrap().map(|(key, _)| *key), Some(key));
        assert!(leaves(&tree).iter().filter(|len| **len == 0).count() >= 6);
        remove(&mut tree, key);
        assert_eq!(leaves(&tree).iter().filter(|len| **len == 0).count(), 0);
        assert_eq!(before.read().iter().count(), 50);
        // What comes to where they were is found.
        for key in [0, 350, 649, 999] {
            insert(&mut tree, key, 7).unwrap();
            assert_eq!(tree.read().get(|other| key.cmp(other)).unwrap(), Some(&7));
        }
        assert_eq!(tree.read().iter().count(), 53);
        (0..1000).for_each(|key| {
            remove(&mut tree, key);
        });
        assert_eq!(leaves(&tree), [0]);
    }
}

/// A cold range of keys that own something, divided by four until it is small, of which the last fifty are there.
struct Fourths(std::ops::Range<u16>);

const FOURTHS_END: u16 = 2048;

impl Source<Owning, ()> for Fourths {
    fn load(&self, _: &mut Standing, to: &mut Entries<Owning, ()>) -> Result<Loaded<Owning, ()>> {
        let Fourths(range) = self;
        if self.divides() {
            let len = range.end.abs_diff(range.start) / 4;
            let parts = range.clone().step_by(len.into()).map(|first| {
                let part = Fourths(first..first + len);
                (Some(Owning::new(first)), Box::new(part) as Box<dyn Source<Owning, ()>>)
            });
            return Ok(Loaded::Ranges(parts.collect()));
        }
        let there = range.clone().filter(|number| *number >= FOURTHS_END - 50);
        to.extend(there.map(|number| (Owning::new(number), Stored::Value(()))));
        Ok(Loaded::Entries)
    }

    fn divides(&self) -> bool {
        self.0.len() > 8
    }
}

/// Of all levels of what is empty.
#[test]
fn the_bounds_of_what_was_empty_end_with_it() {
    for frozen in [Some(Owning::frozen()), None] {
        let cold = Box::new(Fourths(0..FOURTHS_END));
        let mut tree = Tree::cold(frozen, cold, 50, Graveyard::none());
        let number = FOURTHS_END - 50;
        let first = tree.read().outermost(true).unwrap().map(|(key, ())| key.number());
        assert_eq!(first, Some(number));
        let before = keys_of(&tree);
        for undone in [true, false] {
            let mut draft = tree.draft();
            draft.remove(|key| number.cmp(&key.number())).unwrap();
            if undone {
                drop(draft);
                assert_eq!(keys_of(&tree), before);
            } else {
                tree = draft.freeze();
                draft.settle();
            }
        }
        tree.sweep();
        assert!(keys_of(&tree) < 100, "of {before}, most of which were bounds");
        assert_eq!(alive(), keys_of(&tree));
        drop(tree);
        assert_eq!(alive(), 0);
    }
}
