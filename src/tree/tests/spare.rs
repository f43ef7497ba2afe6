//! Room that was freed: who takes it next, and when it is given back.

use super::*;
use crate::tree::graveyard::Sweep;
use crate::tree::slot::{SPARE_MAX, SPARE_MIN};

/// So many, with room for a few more entries in each.
fn leaves(count: usize) -> Tree<usize, ()> {
    let entries = (0..count * BULK_FILL).map(|key| (2 * key, ())).collect();
    Tree::from_sorted(None, entries, Graveyard::none())
}

/// Has one entry more in each of so many leaves, or fewer again.
fn changed(tree: &Tree<usize, ()>, leaves: usize) -> Tree<usize, ()> {
    let mut draft = tree.draft();
    for key in (0..leaves).map(|leaf| 2 * leaf * BULK_FILL + 1) {
        if draft.remove(|other| key.cmp(other)).unwrap().is_none() {
            draft.insert(key, ()).unwrap();
        }
    }
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

#[test]
fn a_tree_that_nobody_changes_keeps_little_room() {
    let mut tree = leaves(60);
    for count in [60, 60, 60, 60, 10] {
        tree = changed(&tree, count);
    }
    let line = &tree.0.line;
    let sweep = || Sweep::sweep(&**line, &mut || {});
    let left = sweep();
    assert!(left, "it has just been changed");
    assert!(line.room_for_leaves().0 > 2 * SPARE_MIN, "whoever goes on needs it");
    let left = sweep();
    let (at_hand, by_others) = line.room_for_leaves();
    assert!(!left && at_hand <= SPARE_MIN && by_others <= SPARE_MIN, "{at_hand} and {by_others}");
    tree = changed(&tree, 60);
    assert_eq!(tree.iter().count(), 60 * BULK_FILL + 50);
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
        for key in (0..count).map(|leaf| 2 * leaf * BULK_FILL + 1) {
            let ((), unswept) = live.change(|draft| {
                if draft.remove(|other| key.cmp(other)).unwrap().is_none() {
                    draft.insert(key, ()).unwrap();
                }
            });
            unswept.sweep();
        }
    }
}
