mod cold;
mod keys;
mod live;
mod parked;
mod removal;
mod walks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use proptest::prelude::*;

use super::*;
use cold::thousand;
use walks::{walk, walked};

/// Miri runs a thousand times slower; a few operations still visit every line.
const fn up_to(operations: usize) -> usize {
    if cfg!(miri) { operations / 20 } else { operations }
}

fn same(tree: &Tree<u16, u32>, model: &BTreeMap<u16, u32>) {
    assert_eq!(tree.len(), model.len());
    let forward: Vec<_> = tree.iter().map(|entry| entry.map(|(k, v)| (*k, *v)).unwrap()).collect();
    assert!(forward.iter().copied().eq(model.iter().map(|(k, v)| (*k, *v))));
    let mut backward: Vec<_> = tree.iter().rev().map(|entry| *entry.unwrap().0).collect();
    backward.reverse();
    assert!(backward.iter().eq(model.keys()));
    let end = |first: bool| tree.outermost(first).unwrap().map(|(key, value)| (*key, *value));
    assert_eq!(end(true), model.first_key_value().map(|(key, value)| (*key, *value)));
    assert_eq!(end(false), model.last_key_value().map(|(key, value)| (*key, *value)));
}

/// The nodes of a version that are in memory; those of each level in order.
fn nodes_of<K, V>(tree: &Tree<K, V>) -> Vec<Hot<'_, K, V>> {
    let (mut open, mut nodes) = (vec![tree.0.root], Vec::new());
    while let Some(node) = open.pop() {
        // SAFETY: nodes of a version live.
        unsafe {
            let Some(hot) = node.in_memory() else { continue };
            if let Hot::Inner(inner) = &hot {
                let children = (0..inner.children.len()).rev();
                open.extend(children.filter_map(|at| inner.child(at, tree.0.stamp)));
            }
            nodes.push(hot);
        }
    }
    nodes
}

#[test]
fn keys_are_found_however_they_are_searched_for() {
    for len in 0..=node::FAN_OUT {
        let plain: Vec<_> = (0..len).map(|key| 2 * key + 1).collect();
        let long: Vec<_> = plain.iter().map(|key| (7u8, *key)).collect();
        let owning: Vec<_> = plain.iter().map(|key| format!("{key:03}")).collect();
        for bound in 0..=2 * len + 1 {
            let text = format!("{bound:03}");
            let expected = bound / 2;
            assert_eq!(node::partition(&plain, |key| *key < bound), expected);
            assert_eq!(node::partition(&long, |key| *key < (7, bound)), expected);
            assert_eq!(node::partition(&owning, |key| *key < text), expected);
        }
    }
}

/// Makes one change in a version of its own.
fn insert(tree: &mut Tree<u16, u32>, key: u16, value: u32) -> Result<Option<u32>> {
    let mut draft = tree.draft();
    let old = draft.insert(key, value)?.map(Old::into_value);
    *tree = draft.freeze();
    draft.settle();
    Ok(old)
}

fn remove(tree: &mut Tree<u16, u32>, key: u16) -> Option<u32> {
    let mut draft = tree.draft();
    let old = draft.remove(|k| key.cmp(k)).unwrap().map(Old::into_value);
    *tree = draft.freeze();
    draft.settle();
    old
}

proptest! {
    #[test]
    fn a_tree_is_a_btree_map_and_old_roots_do_not_change(
        operations in prop::collection::vec((any::<bool>(), 0u16..400, any::<u32>()), 0..up_to(1500)),
        walked in walked(),
        bulk in prop::collection::btree_map(0u16..400, any::<u32>(), 0..300),
    ) {
        let entries = bulk.iter().map(|(k, v)| (*k, *v)).collect();
        let mut tree = Tree::from_sorted(None, entries, Graveyard::none());
        let mut model = bulk.clone();
        let mut older = Vec::new();
        for (at, (inserts, key, value)) in operations.into_iter().enumerate() {
            if at % 200 == 0 {
                older.push((tree.clone(), model.clone()));
            }
            if inserts {
                prop_assert_eq!(insert(&mut tree, key, value).unwrap(), model.insert(key, value));
            } else {
                prop_assert_eq!(remove(&mut tree, key), model.remove(&key));
            }
        }
        older.push((tree, model));
        for (tree, model) in &older {
            same(tree, model);
            walk(tree, model, &walked);
            for key in 0..400 {
                let found = tree.get(|k| key.cmp(k)).unwrap().copied();
                prop_assert_eq!(found, model.get(&key).copied());
            }
        }
    }
}

/// Counts its kind.
#[derive(Debug)]
struct Counted(u32, Arc<AtomicUsize>);

impl Counted {
    fn new(value: u32, alive: &Arc<AtomicUsize>) -> Counted {
        alive.fetch_add(1, Atomic::SeqCst);
        Counted(value, Arc::clone(alive))
    }
}

impl Clone for Counted {
    fn clone(&self) -> Counted {
        Counted::new(self.0, &self.1)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Atomic::SeqCst);
    }
}

#[test]
fn a_large_abandoned_tree_is_freed_elsewhere() {
    let (graveyard, buried) = Graveyard::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let entries = (0..20_000u32).map(|key| (key, Counted::new(key, &alive))).collect();
    let tree = Tree::from_sorted(None, entries, graveyard);
    let view = tree.clone();
    drop(tree);
    assert_eq!(buried.decay_what_is_there(&mut || {}), 0);
    drop(view);
    assert_eq!(alive.load(Atomic::SeqCst), 20_000);
    let mut pauses = 0;
    assert_eq!(buried.decay_what_is_there(&mut || pauses += 1), 1);
    assert!(pauses > 5);
    assert_eq!(alive.load(Atomic::SeqCst), 0);
}

/// A key of a test, by its number.
trait Numbered: Ord + Clone + Send + Sync + 'static {
    fn number(&self) -> u16;
}

impl Numbered for u16 {
    fn number(&self) -> u16 {
        *self
    }
}

fn shows<K: Numbered>(tree: &Tree<K, Counted>, model: &BTreeMap<u16, u32>) {
    let shown = tree.iter().map(|entry| entry.map(|(k, v)| (k.number(), v.0)).unwrap());
    assert!(shown.eq(model.iter().map(|(k, v)| (*k, *v))));
}

/// Changes of a draft, each a kind with a key and a value, and how it ends.
type Changes = (Vec<(u8, u16, u32)>, u8);

fn drafts() -> impl Strategy<Value = Vec<Changes>> {
    let changes = prop::collection::vec((0u8..10, 0u16..300, any::<u32>()), 0..up_to(60));
    prop::collection::vec((changes, 0u8..6), 0..up_to(60))
}

/// Drafts with savepoints, undone, dropped and settled, while some versions are held and the graveyard is looked after
/// at times: what each shows never changes, and what nobody can see is freed, each value once. At the end `look` sees
/// the newest version.
fn live_as_long_as_seen<K: Numbered>(
    frozen: Option<Frozen<K>>,
    key: impl Fn(u16) -> K,
    drafts: Vec<Changes>,
    look: impl FnOnce(&Tree<K, Counted>),
) {
    let alive = Arc::new(AtomicUsize::new(0));
    let (graveyard, buried) = Graveyard::new();
    let bury_all = || buried.decay_what_is_there(&mut || {});
    let mut tree: Tree<K, Counted> = Tree::new(frozen, graveyard);
    let mut model: BTreeMap<u16, u32> = BTreeMap::new();
    let mut held: Vec<(Tree<K, Counted>, BTreeMap<u16, u32>)> = Vec::new();
    for (changes, end) in drafts {
        let mut draft = tree.draft();
        let mut after = model.clone();
        let mut savepoints = Vec::new();
        for (what, number, value) in changes {
            match what {
                0..=4 => {
                    let new = Counted::new(value, &alive);
                    let old = draft.insert(key(number), new).unwrap().map(Old::into_value);
                    assert_eq!(after.insert(number, value), old.map(|old| old.0));
                }
                5 | 6 => {
                    for number in number..number + 20 {
                        let gone = draft.remove(|k| number.cmp(&k.number())).unwrap().is_some();
                        assert_eq!(gone, after.remove(&number).is_some());
                    }
                }
                7 => {
                    if let Some(place) = draft.get_mut(|k| number.cmp(&k.number())).unwrap() {
                        place.0 = value;
                        after.insert(number, value);
                    }
                }
                8 => savepoints.push((draft.savepoint(), after.clone())),
                _ => {
                    if let Some((savepoint, before)) = savepoints.pop() {
                        draft.undo(&savepoint);
                        after = before;
                    }
                }
            }
        }
        assert_eq!(draft.len(), after.len());
        match end {
            0 => drop(draft),
            1 => {
                drop(draft.freeze());
                drop(draft);
            }
            end => {
                tree = draft.freeze();
                draft.settle();
                model = after;
                if end == 2 {
                    held.push((tree.clone(), model.clone()));
                } else if end == 3 && !held.is_empty() {
                    held.remove(held.len() / 2);
                } else if end == 4 {
                    bury_all();
                }
            }
        }
        for (tree, model) in held.iter().chain([&(tree.clone(), model.clone())]) {
            shows(tree, model);
        }
    }
    drop(held);
    tree.sweep();
    bury_all();
    assert_eq!(alive.load(Atomic::SeqCst), model.len());
    look(&tree);
    drop(tree);
    bury_all();
    assert_eq!(alive.load(Atomic::SeqCst), 0);
}

proptest! {
    #[test]
    fn what_is_held_lives_and_nothing_else(drafts in drafts()) {
        live_as_long_as_seen(None, |number| number, drafts, |_| {});
    }
}

#[test]
fn what_died_and_waits_goes_with_the_tree() {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut tree: Tree<u16, Counted> = Tree::new(None, Graveyard::none());
    for round in 0..3 {
        let mut draft = tree.draft();
        draft.insert(7, Counted::new(round, &alive)).unwrap();
        tree = draft.freeze();
        draft.settle();
    }
    assert_eq!(alive.load(Atomic::SeqCst), 3, "less than is worth a look");
    drop(tree);
    assert_eq!(alive.load(Atomic::SeqCst), 0);
}

#[test]
fn a_version_that_is_read_lives_also_if_its_draft_goes_on_and_is_dropped() {
    let alive = Arc::new(AtomicUsize::new(0));
    let tree: Tree<u16, Counted> = Tree::new(None, Graveyard::none());
    let mut draft = tree.draft();
    draft.insert(7, Counted::new(1, &alive)).unwrap();
    let read = draft.freeze();
    draft.insert(7, Counted::new(2, &alive)).unwrap();
    drop(draft);
    tree.sweep();
    assert_eq!(read.get(|key| 7.cmp(key)).unwrap().map(|value| value.0), Some(1));
    assert_eq!(alive.load(Atomic::SeqCst), 2);
}

/// The leaf of a key in a version.
fn leaf_of(tree: &Tree<u16, u32>, key: u16) -> NodePtr<u16, u32> {
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

#[test]
fn a_change_copies_no_node_as_long_as_there_is_room_for_notes() {
    let entries = (0..10_000).map(|key| (key, 0)).collect();
    let mut tree = Tree::from_sorted(None, entries, Graveyard::none());
    let (root, leaf) = (tree.0.root, leaf_of(&tree, 77));
    for round in 1..100 {
        insert(&mut tree, 77, round).unwrap();
        assert!(leaf_of(&tree, 77) == leaf, "nobody needs the notes of the rounds before");
    }
    let view = tree.clone();
    for round in 100..108 {
        insert(&mut tree, 77, round).unwrap();
        assert!(leaf_of(&tree, 77) == leaf);
        assert_eq!(view.get(|k| 77.cmp(k)).unwrap(), Some(&99));
    }
    insert(&mut tree, 77, 108).unwrap();
    assert!(leaf_of(&tree, 77) != leaf, "there was no room for a ninth");
    assert!(leaf_of(&view, 77) == leaf && tree.0.root == root);
    assert_eq!(view.get(|k| 77.cmp(k)).unwrap(), Some(&99));
    assert_eq!(tree.get(|k| 77.cmp(k)).unwrap(), Some(&108));
}

#[test]
fn what_a_draft_itself_made_is_handed_back_by_it() {
    let tree = Tree::from_sorted(None, (0..1000).map(|key| (key, 0)).collect(), Graveyard::none());
    let mut draft = tree.draft();
    let replaced = |draft: &mut Draft<i32, i32>, value| match draft.insert(77, value).unwrap() {
        Some(Old::Owned(value)) => (value, "owned"),
        Some(Old::Seen(value)) => (*value, "seen"),
        None => unreachable!("the key was there"),
    };
    // In a node that others see as well.
    assert_eq!(replaced(&mut draft, 1), (0, "seen"));
    assert_eq!(replaced(&mut draft, 2), (1, "owned"));
    let version = draft.freeze();
    assert_eq!(replaced(&mut draft, 3), (2, "seen"), "by those who have the version");
    assert_eq!(replaced(&mut draft, 4), (3, "owned"));
    // In one that is its own.
    draft.insert(1000, 0).unwrap();
    draft.remove(|key| 78.cmp(key)).unwrap();
    assert_eq!(replaced(&mut draft, 5), (4, "owned"));
    let removed = draft.remove(|key| 77.cmp(key)).unwrap().unwrap();
    assert!(matches!(removed, Old::Owned(5)));
    let removed = draft.remove(|key| 79.cmp(key)).unwrap().unwrap();
    assert!(matches!(removed, Old::Seen(0)));
    assert_eq!(version.get(|key| 77.cmp(key)).unwrap(), Some(&2));
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
    let shown = [&before, &first, &tree].map(|tree| tree.get(|k| 7.cmp(k)).unwrap().copied());
    assert_eq!(shown, [None, Some(1), Some(3)]);
}

/// What Miri looks at for races: the writer frees what died while readers take versions, read and let go
/// of them, and load a cold range together.
#[test]
fn readers_keep_what_they_see_while_a_writer_frees() {
    let alive = Arc::new(AtomicUsize::new(0));
    let newest = parking_lot::Mutex::new(Tree::<u16, Counted>::new(None, Graveyard::none()));
    let (_, cold) = thousand(0, 100);
    let rounds: u16 = if cfg!(miri) { 40 } else { 5000 };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                assert_eq!(cold.get(|k| 505.cmp(k)).unwrap(), Some(&505));
                let mut last = 0;
                while last + 1 < u32::from(rounds) {
                    let tree = newest.lock().clone();
                    // Every version has one round's values, or those of two.
                    let values: Vec<u32> = tree.iter().map(|entry| entry.unwrap().1.0).collect();
                    let high = values.iter().max().copied().unwrap_or_default();
                    assert!(values.iter().all(|value| value + 1 >= high) && high >= last);
                    last = high;
                }
            });
        }
        for round in 0..rounds {
            let mut draft = newest.lock().draft();
            for key in 0..70 {
                draft.insert(key, Counted::new(round.into(), &alive)).unwrap();
                if key % 35 == 34 {
                    let tree = draft.freeze();
                    drop(std::mem::replace(&mut *newest.lock(), tree));
                }
            }
            draft.settle();
        }
    });
    newest.lock().sweep();
    assert_eq!(alive.load(Atomic::SeqCst), 70);
}
