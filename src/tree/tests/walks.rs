//! Walks between two edges, from both ends.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use crate::error::Result;
use crate::tree::{Between, Compare, Edge, Graveyard, Tree};

/// Where somebody walks, from which end each step comes (the front, or not), and past how many entries it goes.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    first: Option<Bound>,
    end: Option<Bound>,
    steps: Vec<(bool, usize)>,
    /// What is done after so many steps.
    then: (usize, Then),
}

#[derive(Clone, Debug)]
enum Then {
    Count,
    Last,
}

/// The key of an edge; so many low bits do not count, as with a prefix; and the edge is behind those that equal it.
type Bound = (u16, u8, bool);

pub(super) fn walked() -> impl Strategy<Value = Walk> {
    let bound = || prop::option::of((0u16..1100, 0u8..4, any::<bool>()));
    let step = || (any::<bool>(), prop_oneof![8 => Just(0), 1 => 0usize..100]);
    let steps = prop_oneof![
        prop::collection::vec(step(), 1..9),
        Just(vec![(true, 0)]),
        Just(vec![(false, 0)])
    ];
    let then = (0usize..500, prop_oneof![Just(Then::Count), Just(Then::Last)]);
    let walk = (bound(), bound(), steps, then);
    walk.prop_map(|(first, end, steps, then)| Walk { first, end, steps, then })
}

fn edge((at, low_bits, is_behind_equal): Bound) -> Edge<impl Compare<u16>> {
    let compare = move |key: &u16| (at >> low_bits).cmp(&(key >> low_bits));
    Edge { compare, is_behind_equal }
}

/// From one key to before another, or to the ends of the tree.
pub(super) fn between(
    low: Option<u16>,
    high: Option<u16>,
) -> Between<impl Compare<u16>, impl Compare<u16>> {
    let before = |key: u16| edge((key, 0, false));
    Between { first: low.map(before), end: high.map(before) }
}

/// The steps are repeated, also when nothing is left.
pub(super) fn walk(tree: &Tree<u16, u32>, model: &BTreeMap<u16, u32>, walk: &Walk) {
    let Walk { first, end, steps, then } = walk;
    let mut entries = tree.read().range(Between { first: first.map(edge), end: end.map(edge) });
    let is_before = |key: u16, (at, low_bits, is_behind_equal): Bound| {
        let (key, at) = (key >> low_bits, at >> low_bits);
        key < at || is_behind_equal && key == at
    };
    let is_within = |key: &u16| {
        first.is_none_or(|first| !is_before(*key, first))
            && end.is_none_or(|end| is_before(*key, end))
    };
    let mut expected: VecDeque<_> = model.keys().copied().filter(is_within).collect();
    let key = |entry: Option<Result<(&u16, &u32)>>| entry.map(|entry| *entry.unwrap().0);
    for (forward, past) in steps.iter().cycle().take(then.0) {
        let (shown, next) = if *forward {
            expected.drain(..expected.len().min(*past));
            (entries.nth(*past), expected.pop_front())
        } else {
            expected.truncate(expected.len().saturating_sub(*past));
            (entries.nth_back(*past), expected.pop_back())
        };
        assert_eq!(key(shown), next);
    }
    match then.1 {
        Then::Count => assert_eq!(entries.count(), expected.len()),
        Then::Last => assert_eq!(key(entries.last()), expected.pop_back()),
    }
}

proptest! {
    /// What a program says of its keys may be wrong: then a walk shows anything, and ends.
    #[test]
    fn edges_that_contradict_themselves_end_a_walk(
        len in 1u16..200,
        answers in prop::collection::vec(-1i8..=1, 1..40),
        steps in prop::collection::vec((any::<bool>(), 0usize..30), 1..20),
    ) {
        let entries = (0..len).map(|key| (key, 0)).collect();
        let tree: Tree<u16, u32> = Tree::from_sorted(None, entries, Graveyard::none());
        let asked = Cell::new(0);
        let compare = |_: &u16| {
            asked.set(asked.get() + 1);
            answers[asked.get() % answers.len()].cmp(&0)
        };
        let edge = |is_behind_equal| Some(Edge { compare, is_behind_equal });
        let mut entries = tree.read().range(Between { first: edge(false), end: edge(true) });
        for (forward, past) in steps {
            let _: Option<_> = if forward { entries.nth(past) } else { entries.nth_back(past) };
        }
        assert!(entries.count() <= len.into());
    }
}
