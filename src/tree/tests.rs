mod cold;
mod filling;
mod keys;
mod live;
mod notes;
mod parked;
mod removal;
mod spare;
mod undecodable;
mod walks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use proptest::prelude::*;

use super::node::Hot;
use super::*;
use crate::error::Result;
use cold::thousand;
use walks::{walk, walked};

/// Miri runs a thousand times slower; a few operations still visit every line.
const fn up_to(operations: usize) -> usize {
    if cfg!(miri) { operations / 20 } else { operations }
}

fn same(tree: &Tree<u16, u32>, model: &BTreeMap<u16, u32>) {
    assert_eq!(tree.len(), model.len());
    let forward: Vec<_> =
        tree.read().iter().map(|entry| entry.map(|(k, v)| (*k, *v)).unwrap()).collect();
    assert!(forward.iter().copied().eq(model.iter().map(|(k, v)| (*k, *v))));
    let mut backward: Vec<_> = tree.read().iter().rev().map(|entry| *entry.unwrap().0).collect();
    backward.reverse();
    assert!(backward.iter().eq(model.keys()));
    let end =
        |first: bool| tree.read().outermost(first).unwrap().map(|(key, value)| (*key, *value));
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
fn insert<V: Clone + Send + Sync + 'static>(
    tree: &mut Tree<u16, V>,
    key: u16,
    value: V,
) -> Result<Option<V>> {
    let mut draft = tree.draft();
    let old = draft.insert(key, value)?.map(Old::into_value).transpose()?;
    *tree = draft.freeze();
    draft.settle();
    Ok(old)
}

fn remove<V: Clone + Send + Sync + 'static>(tree: &mut Tree<u16, V>, key: u16) -> Option<V> {
    let mut draft = tree.draft();
    let old = draft.remove(|k| key.cmp(k)).unwrap().map(|old| old.into_value().unwrap());
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
                let found = tree.read().get(|k| key.cmp(k)).unwrap().copied();
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

/// A value that a test compares.
trait Compared: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static {}

impl<V: Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static> Compared for V {}

/// A value of a test, by its number.
trait Valued: Clone + Send + Sync + 'static {
    fn new(number: u32, alive: &Arc<AtomicUsize>) -> Self;
    fn number(&self) -> u32;
    fn set(&mut self, number: u32);
    /// How many there are to be, if that is counted.
    fn alive(of: usize) -> usize;
}

impl Valued for Counted {
    fn new(number: u32, alive: &Arc<AtomicUsize>) -> Counted {
        Counted::new(number, alive)
    }

    fn number(&self) -> u32 {
        self.0
    }

    fn set(&mut self, number: u32) {
        self.0 = number;
    }

    fn alive(of: usize) -> usize {
        of
    }
}

/// It has a seat in its leaf.
impl Valued for u32 {
    fn new(number: u32, _alive: &Arc<AtomicUsize>) -> u32 {
        number
    }

    fn number(&self) -> u32 {
        *self
    }

    fn set(&mut self, number: u32) {
        *self = number;
    }

    fn alive(_of: usize) -> usize {
        0
    }
}

fn shows<K: Numbered, V: Valued>(tree: &Tree<K, V>, model: &BTreeMap<u16, u32>) {
    let shown =
        tree.read().iter().map(|entry| entry.map(|(k, v)| (k.number(), v.number())).unwrap());
    assert!(shown.eq(model.iter().map(|(k, v)| (*k, *v))));
}

/// Changes of a draft, each a kind with a key and a value, and how it ends.
type Changes = (Vec<(u8, u16, u32)>, u8);

/// Of some of so many keys.
fn drafts(keys: u16) -> impl Strategy<Value = Vec<Changes>> {
    let changes = prop::collection::vec((0u8..10, 0..keys, any::<u32>()), 0..up_to(60));
    prop::collection::vec((changes, 0u8..6), 0..up_to(60))
}

/// Drafts with savepoints, undone, dropped and settled, while some versions are held and the graveyard is looked after
/// at times: what each shows never changes, and what nobody can see is freed, each value once. At the end `look` sees
/// the newest version. As if there were others, so many stamps go by `between` two drafts.
fn live_as_long_as_seen<K: Numbered, V: Valued>(
    frozen: Option<Frozen<K>>,
    key: impl Fn(u16) -> K,
    drafts: Vec<Changes>,
    between: Stamp,
    look: impl FnOnce(&Tree<K, V>),
) {
    let alive = Arc::new(AtomicUsize::new(0));
    let (graveyard, buried) = Graveyard::new();
    let bury_all = || buried.decay_what_is_there(&mut || {});
    let mut tree: Tree<K, V> = Tree::new(frozen, graveyard);
    let mut model: BTreeMap<u16, u32> = BTreeMap::new();
    let mut held: Vec<(Tree<K, V>, BTreeMap<u16, u32>)> = Vec::new();
    for (changes, end) in drafts {
        tree.0.line.pass(between);
        let mut draft = tree.draft();
        let mut after = model.clone();
        let mut savepoints = Vec::new();
        for (what, number, value) in changes {
            match what {
                0..=4 => {
                    let new = V::new(value, &alive);
                    let old = draft.insert(key(number), new).unwrap();
                    let old = old.map(|old| old.into_value().unwrap().number());
                    assert_eq!(after.insert(number, value), old);
                }
                5 | 6 => {
                    for number in number..number + 1 + u16::from(what == 6) * 19 {
                        let gone = draft.remove(|k| number.cmp(&k.number())).unwrap().is_some();
                        assert_eq!(gone, after.remove(&number).is_some());
                    }
                }
                7 => {
                    if let Some(place) = draft.get_mut(|k| number.cmp(&k.number())).unwrap() {
                        place.set(value);
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
    assert_eq!(alive.load(Atomic::SeqCst), V::alive(model.len()));
    look(&tree);
    drop(tree);
    bury_all();
    assert_eq!(alive.load(Atomic::SeqCst), 0);
}

proptest! {
    #[test]
    fn what_is_held_lives_and_nothing_else(drafts in drafts(300)) {
        live_as_long_as_seen::<_, Counted>(None, |number| number, drafts, 0, |_| {});
    }

    #[test]
    fn what_has_a_seat_is_what_each_version_sees(drafts in drafts(300)) {
        live_as_long_as_seen::<_, u32>(None, |number| number, drafts, 0, |_| {});
    }

    /// Each again and again, so that there are notes of several changes of one place.
    #[test]
    fn few_entries_are_what_each_version_sees(drafts in drafts(5)) {
        live_as_long_as_seen::<_, Counted>(None, |number| number, drafts.clone(), 0, |_| {});
        live_as_long_as_seen::<_, u32>(None, |number| number, drafts, 0, |_| {});
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
    assert_eq!(read.read().get(|key| 7.cmp(key)).unwrap().map(|value| value.0), Some(1));
    assert_eq!(alive.load(Atomic::SeqCst), 2);
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
                assert_eq!(cold.read().get(|k| 505.cmp(k)).unwrap(), Some(&505));
                let mut last = 0;
                while last + 1 < u32::from(rounds) {
                    let tree = newest.lock().clone();
                    // Every version has one round's values, or those of two.
                    let values: Vec<u32> =
                        tree.read().iter().map(|entry| entry.unwrap().1.0).collect();
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
