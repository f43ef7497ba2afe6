//! Room that was freed: who takes it next, and when it is given back.

use super::*;
use crate::tree::graveyard::Sweep;
use crate::tree::slot::{SPARE_MAX, SPARE_MIN};

/// So many, with room for a few more entries in each.
fn leaves(count: usize) -> Tree<usize, ()> {
    let entries = (0..count * BULK_FILL).map(|key| (2 * key, ())).collect();
    Tree::from_sorted(None, entries, Graveyard::none())
}

/// Has one entry more in a leaf, or one fewer again.
fn change(draft: &mut Draft<usize, ()>, leaf: usize) {
    let key = 2 * leaf * BULK_FILL + 1;
    if draft.remove(|other| key.cmp(other)).unwrap().is_none() {
        draft.insert(key, ()).unwrap();
    }
}

/// The same in each of so many.
fn changed(tree: &Tree<usize, ()>, leaves: usize) -> Tree<usize, ()> {
    let mut draft = tree.draft();
    (0..leaves).for_each(|leaf| change(&mut draft, leaf));
    let tree = draft.freeze();
    draft.settle();
    tree
}

#[test]
fn a_draft_takes_the_room_of_the_one_before() {
    for count in [10, 25, 40, 60] {
        let mut tree = leaves(count);
        for _ in 0..40 {
            tree = changed(&tree, count);
            let (at_hand, left) = tree.0.line.room_for_leaves();
            // What the next one needs is still in the tree, or is seen no more.
            let most = count + 40;
            assert!(at_hand + left <= most, "{at_hand} and {left} of {count}");
        }
    }
}

#[test]
fn not_all_room_is_kept_of_much_that_is_removed() {
    let mut tree = leaves(300);
    let mut draft = tree.draft();
    for key in 0..300 * BULK_FILL {
        draft.remove(|other| (2 * key).cmp(other)).unwrap();
        if key % (50 * BULK_FILL) == 0 {
            tree = draft.freeze();
            draft.settle();
            let (at_hand, left) = tree.0.line.room_for_leaves();
            assert!(at_hand <= SPARE_MAX && left <= SPARE_MAX, "{at_hand} and {left}");
            draft = tree.draft();
        }
    }
}

/// As whoever has time does; how many leaves there is room for then, and whether more can be done later.
fn looked_at(tree: &Tree<usize, ()>) -> (usize, bool) {
    let is_left = Sweep::sweep(&*tree.0.line, &mut || {});
    let (at_hand, left) = tree.0.line.room_for_leaves();
    (at_hand + left, is_left)
}

#[test]
fn room_that_no_draft_needs_is_given_back() {
    let mut tree = leaves(60);
    for count in [60, 60, 60, 60, 10] {
        tree = changed(&tree, count);
    }
    let (room, is_left) = looked_at(&tree);
    assert!(room > 2 * SPARE_MIN && is_left, "whoever goes on needs it");
    // Few changes need little.
    for _ in 0..4 {
        tree = changed(&tree, 2);
        looked_at(&tree);
    }
    let (room, _) = looked_at(&tree);
    assert!(room <= SPARE_MIN + 4, "{room} for few changes");
    for _ in 0..4 {
        tree = changed(&tree, 60);
        tree = changed(&tree, 2);
        let (room, is_left) = looked_at(&tree);
        assert!(room > 2 * SPARE_MIN && is_left, "{room} for many changes");
    }
    looked_at(&tree);
    let (room, is_left) = looked_at(&tree);
    assert!(room <= SPARE_MIN && !is_left, "{room} for none");
    tree = changed(&tree, 60);
    assert_eq!(tree.read().iter().count(), 60 * BULK_FILL + 50);
}

#[test]
fn a_tree_that_is_changed_where_it_stands_takes_its_room_back() {
    let count = 40;
    let mut live = Live::new(&leaves(count));
    for _ in 0..40 {
        let (seen, unswept) = live.version();
        unswept.sweep();
        let (_, left) = seen.0.line.room_for_leaves();
        assert!(left <= count, "{left} of {count}");
        for leaf in 0..count {
            live.change(|draft| change(draft, leaf)).1.sweep();
        }
    }
}
