//! Tests: a destructor that panics costs what was to be freed with it, and nothing else; a clone or a destructor of a
//! key that panics in the middle of a change costs what its draft has made.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

thread_local! {
    static ALIVE: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
    static DROPPED_TWICE: Cell<u32> = const { Cell::new(0) };
    static LAST: Cell<u32> = const { Cell::new(0) };
    /// The destructor that panics, counted from now.
    static FUSE: Cell<u32> = const { Cell::new(0) };
}

/// Panics if that is its turn.
fn may_panic() {
    if FUSE.get() > 0 && !std::thread::panicking() {
        FUSE.set(FUSE.get() - 1);
        assert!(FUSE.get() > 0, "on purpose");
    }
}

/// A value by its number, whose destructor may panic.
struct Brittle(u32);

impl Brittle {
    fn new() -> Brittle {
        LAST.set(LAST.get() + 1);
        ALIVE.with_borrow_mut(|alive| alive.insert(LAST.get()));
        Brittle(LAST.get())
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        if !ALIVE.with_borrow_mut(|alive| alive.remove(&self.0)) {
            DROPPED_TWICE.set(DROPPED_TWICE.get() + 1);
        }
        may_panic();
    }
}

/// What a version has, and what it is to have.
type Version = (Tree<u16, Brittle>, BTreeMap<u16, u32>);

fn is_what_it_was((tree, model): &Version) {
    let entries: Vec<_> = tree
        .read()
        .iter()
        .map(|entry| entry.map(|(key, value)| (*key, value.0)).unwrap())
        .collect();
    assert!(entries.iter().copied().eq(model.iter().map(|(key, value)| (*key, *value))));
    let alive = ALIVE.with_borrow(Clone::clone);
    assert!(entries.iter().all(|(_, value)| alive.contains(value)), "something visible is gone");
}

/// Makes the next version, or begins to and lets go of it.
fn step(newest: &mut Version, nth: u16) {
    let mut model = newest.1.clone();
    let mut draft = newest.0.draft();
    let mut change = |draft: &mut Draft<u16, Brittle>, keys: std::ops::Range<u16>| {
        for key in keys.map(|key| key * 7 % 200) {
            if key % 5 == nth % 5 {
                drop(draft.remove(|other| key.cmp(other)).unwrap());
                model.remove(&key);
            } else {
                let value = Brittle::new();
                model.insert(key, value.0);
                drop(draft.insert(key, value).unwrap());
            }
        }
        model.clone()
    };
    let after = change(&mut draft, nth..nth + 20);
    if nth.is_multiple_of(3) {
        let savepoint = draft.savepoint();
        change(&mut draft, nth + 10..nth + 30);
        draft.undo(&savepoint);
    }
    if !nth.is_multiple_of(4) {
        *newest = (draft.freeze(), after);
        draft.settle();
    }
}

#[test]
fn a_destructor_that_panics_leaves_every_version_as_it_is() {
    let mut panics = 0;
    for fuse in 1..if cfg!(miri) { 4 } else { 400 } {
        let mut newest: Version = (Tree::new(None, Graveyard::none()), BTreeMap::new());
        let mut held = Vec::new();
        for nth in 0..if cfg!(miri) { 12 } else { 60 } {
            if nth == 7 {
                FUSE.set(fuse);
            }
            let may_panic = FUSE.get() > 0;
            let panicked = catch_unwind(AssertUnwindSafe(|| step(&mut newest, nth))).is_err();
            assert!(may_panic || !panicked, "step {nth} after {fuse} drops");
            panics += u32::from(panicked);
            is_what_it_was(&newest);
            if nth % 10 == 0 {
                held.push((newest.0.clone(), newest.1.clone()));
            }
            if nth % 25 == 0 {
                panics += u32::from(catch_unwind(AssertUnwindSafe(|| held.clear())).is_err());
            }
            held.iter().for_each(is_what_it_was);
            // The next step might mend what this one broke.
            if panicked && fuse % 2 == 0 {
                break;
            }
        }
        catch_unwind(AssertUnwindSafe(|| drop((newest, held)))).ok();
        FUSE.set(0);
        assert_eq!(DROPPED_TWICE.get(), 0, "after {fuse} drops");
        ALIVE.with_borrow_mut(BTreeSet::clear);
    }
    assert!(panics > 2, "{panics} panics");
}

#[test]
fn a_live_tree_goes_on_after_a_destructor_that_panics() {
    for fuse in 1..if cfg!(miri) { 4 } else { 200 } {
        let mut live: Live<u16, Brittle> = Live::new(&Tree::new(None, Graveyard::none()));
        let (mut model, mut held) = (BTreeMap::new(), Vec::new());
        FUSE.set(fuse);
        for nth in 0..if cfg!(miri) { 30 } else { 300 } {
            let key = nth * 7 % 100;
            let value = Brittle::new();
            let number = value.0;
            let changed =
                AssertUnwindSafe(|| live.change(|draft| drop(draft.insert(key, value))).1.sweep());
            catch_unwind(changed).ok();
            model.insert(key, number);
            if nth % 10 == 0 {
                let mut version = None;
                let look = || {
                    let (now, unswept) = live.version();
                    version = Some(now);
                    unswept.sweep();
                };
                catch_unwind(AssertUnwindSafe(look)).ok();
                held.extend(version.map(|version| (version, model.clone())));
            }
            if nth % 40 == 0 {
                held.clear();
            }
            held.iter().for_each(is_what_it_was);
        }
        catch_unwind(AssertUnwindSafe(|| drop((live, held)))).ok();
        FUSE.set(0);
        assert_eq!(DROPPED_TWICE.get(), 0, "after {fuse} drops");
        ALIVE.with_borrow_mut(BTreeSet::clear);
    }
}

/// A key that owns something; its clones and its destructor may panic.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Frail(Vec<u16>);

impl Clone for Frail {
    fn clone(&self) -> Frail {
        may_panic();
        Frail(self.0.clone())
    }
}

impl Drop for Frail {
    fn drop(&mut self) {
        may_panic();
    }
}

#[test]
fn a_change_that_panics_half_way_is_undone() {
    let keys = |entries: Iter<'_, Frail, String>| -> Vec<(u16, String)> {
        entries.map(|entry| entry.map(|(key, value)| (key.0[0], value.clone())).unwrap()).collect()
    };
    let put = |draft: &mut Draft<Frail, String>, key: u16, value: u16| {
        drop(draft.insert(Frail(vec![key]), value.to_string()).unwrap());
    };
    // SAFETY: it consists of a vector of numbers.
    let frozen = Some(unsafe { Frozen::new() });
    let fuses = (0..500).step_by(if cfg!(miri) { 170 } else { 1 });
    let mut panics = 0;
    for (fuse, shares) in fuses.flat_map(|fuse| [(fuse, None), (fuse, frozen)]) {
        let mut draft = Tree::new(shares, Graveyard::none()).draft();
        (0..150).for_each(|key| put(&mut draft, 8 * key, key));
        let tree: Tree<Frail, String> = draft.freeze();
        draft.settle();
        let before = keys(tree.read().iter());
        let mut draft = tree.draft();
        (0..150).for_each(|key| put(&mut draft, 8 * key + 1, key));
        let (savepoint, then) = (draft.savepoint(), keys(draft.read().iter()));
        // It is not changed where it stands from here on; leaves that are the draft's own again are joined.
        let change = || {
            for key in (0..160).map(|n| 8 * (n % 2 * 20 + n / 2 % 40) + n / 80) {
                drop(draft.remove(|other| key.cmp(&other.0[0])).unwrap());
            }
            (0..60).for_each(|key| put(&mut draft, 8 * key + 2, key));
        };
        FUSE.set(fuse);
        let panicked = catch_unwind(AssertUnwindSafe(change)).is_err();
        FUSE.set(0);
        panics += u32::from(panicked);
        if fuse % 2 == 0 {
            draft.undo(&savepoint);
            assert!(keys(draft.read().iter()) == then, "after {fuse}");
            put(&mut draft, 7, 7);
        } else if !panicked {
            put(&mut draft, 7, 7);
        }
        drop(draft);
        assert!(keys(tree.read().iter()) == before, "after {fuse}");
        // Whatever room was left is used again.
        let mut draft = tree.draft();
        (0..300).for_each(|key| put(&mut draft, 4 * key + 2, key));
        assert_eq!(keys(draft.read().iter()).len(), 450, "after {fuse}");
        drop(draft);
        assert!(keys(tree.read().iter()) == before, "after {fuse}");
    }
    assert!(panics > 1, "{panics}");
    println!("{panics} panics");
}
