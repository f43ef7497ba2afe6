//! Walks between two edges, from both ends.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use crate::tree::{Between, Compare, Edge, Tree};

/// Where somebody walks, and from which end each step comes: the front, or not.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    first: Option<Bound>,
    end: Option<Bound>,
    steps: Vec<bool>,
}

/// The key of an edge; so many low bits do not count, as with a prefix; and the edge is behind those that equal it.
type Bound = (u16, u8, bool);

pub(super) fn walked() -> impl Strategy<Value = Walk> {
    let bound = || prop::option::of((0u16..1100, 0u8..4, any::<bool>()));
    let steps = prop_oneof![
        prop::collection::vec(any::<bool>(), 1..9),
        Just(vec![true]),
        Just(vec![false])
    ];
    (bound(), bound(), steps).prop_map(|(first, end, steps)| Walk { first, end, steps })
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

/// The steps are repeated until there is nothing left from either end.
pub(super) fn walk(tree: &Tree<u16, u32>, model: &BTreeMap<u16, u32>, walk: &Walk) {
    let Walk { first, end, steps } = walk;
    let mut entries = tree.range(Between { first: first.map(edge), end: end.map(edge) });
    let is_before = |key: u16, (at, low_bits, is_behind_equal): Bound| {
        let (key, at) = (key >> low_bits, at >> low_bits);
        key < at || is_behind_equal && key == at
    };
    let is_within = |key: &u16| {
        first.is_none_or(|first| !is_before(*key, first))
            && end.is_none_or(|end| is_before(*key, end))
    };
    let mut expected: VecDeque<_> = model.keys().copied().filter(is_within).collect();
    for forward in steps.iter().cycle() {
        let shown = if *forward { entries.next() } else { entries.next_back() };
        let next = if *forward { expected.pop_front() } else { expected.pop_back() };
        assert_eq!(shown.map(|entry| *entry.unwrap().0), next);
        if next.is_none() {
            break;
        }
    }
    assert!(entries.next().is_none() && entries.next_back().is_none());
}
