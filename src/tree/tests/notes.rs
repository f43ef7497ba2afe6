//! What is noted of a place that is changed under the eyes of others, and where that is not done.

use super::*;

/// The leaf of a key in a version.
fn leaf_of<V>(tree: &Tree<u16, V>, key: u16) -> NodePtr<u16, V> {
    let mut node = tree.0.root;
    loop {
        // SAFETY: nodes of a version live.
        match unsafe { node.in_memory() } {
            Some(Hot::Inner(inner)) => {
                let at = inner.child_for(|bound| key.cmp(bound));
                // SAFETY: as above.
                node = unsafe { inner.child(at, tree.0.stamp) }.unwrap();
            }
            _ => return node,
        }
    }
}

/// Too long for a seat in a leaf.
type Long = [u32; 8];

#[test]
fn a_change_copies_no_node_as_long_as_there_is_room_for_notes() {
    copies_no_node::<Long>(|number| [number; 8]);
    copies_no_node::<u32>(|number| number);
}

fn copies_no_node<V: Compared>(value: fn(u32) -> V) {
    let entries = (0..10_000).map(|key| (key, value(0))).collect();
    let mut tree = Tree::from_sorted(None, entries, Graveyard::none());
    // Leaves that were loaded have few seats that are free.
    (70..76).for_each(|key| assert!(remove(&mut tree, key).is_some()));
    let (root, leaf) = (tree.0.root, leaf_of(&tree, 77));
    for round in 1..100 {
        insert(&mut tree, 77, value(round)).unwrap();
        assert!(leaf_of(&tree, 77) == leaf, "nobody needs the notes of the rounds before");
    }
    let view = tree.clone();
    for round in 100..108 {
        insert(&mut tree, 77, value(round)).unwrap();
        assert!(leaf_of(&tree, 77) == leaf);
        assert_eq!(view.read().get(|k| 77.cmp(k)).unwrap(), Some(&value(99)));
    }
    insert(&mut tree, 77, value(108)).unwrap();
    assert!(leaf_of(&tree, 77) != leaf, "there was no room for a ninth");
    assert!(leaf_of(&view, 77) == leaf && tree.0.root == root);
    assert_eq!(view.read().get(|k| 77.cmp(k)).unwrap(), Some(&value(99)));
    assert_eq!(tree.read().get(|k| 77.cmp(k)).unwrap(), Some(&value(108)));
}

#[test]
fn a_leaf_is_copied_where_no_seat_is_free() {
    let entries = (0..10_000).map(|key| (key, 0u32)).collect();
    let mut tree = Tree::from_sorted(None, entries, Graveyard::none());
    let (view, leaf) = (tree.clone(), leaf_of(&tree, 77));
    let free = node::SEATS - node::BULK_FILL;
    let changes = (1..).take_while(|round| {
        insert(&mut tree, 77, *round).unwrap();
        leaf_of(&tree, 77) == leaf
    });
    assert_eq!(changes.count(), free);
    assert_eq!(view.read().get(|k| 77.cmp(k)).unwrap(), Some(&0));
}

/// As leaves are that are filled in ascending order.
#[test]
fn a_value_of_a_full_leaf_is_replaced_where_it_stands() {
    let mut tree: Tree<u16, u32> = Tree::new(None, Graveyard::none());
    (0..10_000).for_each(|key| assert!(insert(&mut tree, key, 0).unwrap().is_none()));
    let leaf = leaf_of(&tree, 77);
    // SAFETY: nodes of a version live.
    assert_eq!(unsafe { leaf.width() }, node::FAN_OUT);
    for round in 1..100 {
        let key = 70 + round % 10;
        insert(&mut tree, key, u32::from(round)).unwrap();
        assert!(
            leaf_of(&tree, key) == leaf,
            "one seat more is enough, if nobody needs what was before"
        );
    }
}

#[test]
fn what_a_draft_itself_made_is_handed_back_by_it() {
    is_handed_back::<Long>(|number| [number; 8]);
    is_handed_back::<u32>(|number| number);
}

/// Of values that have seats, whoever replaces or removes one has a copy.
fn is_handed_back<V: Compared>(value: fn(u32) -> V) {
    let entries = (0..1000).map(|key| (key, value(0))).collect();
    let tree: Tree<i32, V> = Tree::from_sorted(None, entries, Graveyard::none());
    let mut draft = tree.draft();
    let replaced = |draft: &mut Draft<i32, V>, to| match draft.insert(77, value(to)).unwrap() {
        Some(Old::Owned(value)) => (value, "owned"),
        Some(Old::Seen(value)) => (value.clone(), "seen"),
        _ => unreachable!("the key was there"),
    };
    // In a node that others see as well.
    let seen = if node::are_seated::<V>() { "owned" } else { "seen" };
    assert_eq!(replaced(&mut draft, 1), (value(0), seen));
    assert_eq!(replaced(&mut draft, 2), (value(1), "owned"));
    let version = draft.freeze();
    assert_eq!(replaced(&mut draft, 3), (value(2), seen), "by those who have the version");
    assert_eq!(replaced(&mut draft, 4), (value(3), "owned"));
    // In one that is its own.
    draft.insert(1000, value(0)).unwrap();
    draft.remove(|key| 78.cmp(key)).unwrap();
    assert_eq!(replaced(&mut draft, 5), (value(4), "owned"));
    let removed = draft.remove(|key| 77.cmp(key)).unwrap().unwrap();
    assert_eq!(removed.into_owned(), Some(value(5)));
    let removed = draft.remove(|key| 79.cmp(key)).unwrap().unwrap();
    assert_eq!(matches!(removed, Old::Seen(_)), !node::are_seated::<V>());
    assert_eq!(removed.into_value().unwrap(), value(0));
    assert_eq!(version.read().get(|key| 77.cmp(key)).unwrap(), Some(&value(2)));
}

#[test]
fn notes_stay_for_each_version_of_one_draft_that_is_held() {
    let before: Tree<u16, u32> = Tree::new(None, Graveyard::none());
    let mut draft = before.draft();
    draft.insert(7, 1).unwrap();
    let first = draft.freeze();
    draft.insert(7, 2).unwrap();
    let mut tree = draft.freeze();
    draft.settle();
    insert(&mut tree, 7, 3).unwrap();
    let shown =
        [&before, &first, &tree].map(|tree| tree.read().get(|k| 7.cmp(k)).unwrap().copied());
    assert_eq!(shown, [None, Some(1), Some(3)]);
}
