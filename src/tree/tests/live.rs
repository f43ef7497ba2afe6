//! Trees that are changed where they stand.

use super::keys::{Owning, alive, keys_of};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u32),
    /// Twenty of them.
    Remove(u16),
    Update(u16, u32),
    View,
    /// The view in the middle goes, or the newest.
    Drop(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0u16..300;
    let step = prop_oneof![
        12 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Insert(key, value)),
        2 => key().prop_map(Step::Remove),
        4 => (key(), any::<u32>()).prop_map(|(key, value)| Step::Update(key, value)),
        4 => Just(Step::View),
        4 => any::<bool>().prop_map(Step::Drop),
    ];
    prop::collection::vec(step, 0..up_to(600))
}

/// A view, and what it shows.
type Held<K, V> = (Tree<K, V>, BTreeMap<u16, u32>);

/// What each view shows never changes, and what nobody can see is freed, each value once. At the end `look` sees the
/// newest version.
fn lives_as_long_as_seen<K: Numbered, V: Valued>(
    frozen: Option<Frozen<K>>,
    key: impl Fn(u16) -> K,
    steps: Vec<Step>,
    look: impl FnOnce(&Tree<K, V>),
) {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut live = Live::new(&Tree::new(frozen, Graveyard::none()));
    let mut model: BTreeMap<u16, u32> = BTreeMap::new();
    let mut held: Vec<Held<K, V>> = Vec::new();
    let same = |views: &[Held<K, V>]| views.iter().for_each(|(tree, model)| shows(tree, model));
    for step in steps {
        let ((), unswept) = match step {
            Step::Insert(number, value) => live.change(|draft| {
                let new = V::new(value, &alive);
                let old = draft.insert(key(number), new).unwrap();
                let old = old.map(|old| old.into_value().unwrap().number());
                assert_eq!(old, model.insert(number, value));
            }),
            Step::Remove(from) => live.change(|draft| {
                for number in from..from + 20 {
                    let gone = draft.remove(|key| number.cmp(&key.number())).unwrap();
                    let gone = gone.map(|old| old.into_value().unwrap().number());
                    assert_eq!(gone, model.remove(&number));
                }
            }),
            Step::Update(number, value) => live.change(|draft| {
                let place = draft.get_mut(|key| number.cmp(&key.number())).unwrap();
                if let Some(place) = place {
                    place.set(value);
                    model.insert(number, value);
                }
            }),
            Step::View => {
                let tree = live.unchanged().unwrap_or_else(|| {
                    let (tree, unswept) = live.version();
                    unswept.sweep();
                    tree
                });
                held.push((tree, model.clone()));
                continue;
            }
            Step::Drop(newest) => {
                if newest {
                    held.pop();
                } else if !held.is_empty() {
                    held.remove(held.len() / 2);
                }
                same(&held);
                continue;
            }
        };
        unswept.sweep();
        assert_eq!(live.get().len(), model.len());
    }
    same(&held);
    drop(held);
    let (tree, unswept) = live.version();
    unswept.sweep();
    tree.sweep();
    assert_eq!(alive.load(Atomic::SeqCst), V::alive(model.len()));
    same(&[(tree.clone(), model)]);
    look(&tree);
    drop((tree, live));
    assert_eq!(alive.load(Atomic::SeqCst), 0);
}

proptest! {
    #[test]
    fn what_is_seen_of_a_live_tree_lives_and_nothing_else(steps in steps()) {
        lives_as_long_as_seen::<_, Counted>(None, |number| number, steps, |_| {});
    }

    #[test]
    fn what_has_a_seat_in_a_live_tree_is_what_each_version_sees(steps in steps()) {
        lives_as_long_as_seen::<_, u32>(None, |number| number, steps, |_| {});
    }

    #[test]
    fn the_keys_of_a_live_tree_live_as_long_as_they_are_seen(steps in steps()) {
        lives_as_long_as_seen::<_, Counted>(Some(Owning::frozen()), Owning::new, steps, |tree| {
            assert_eq!(alive(), keys_of(tree));
        });
        prop_assert_eq!(alive(), 0);
    }
}

/// Where the nodes of a tree are.
fn places<V>(tree: &Tree<u16, V>) -> Vec<*const ()> {
    let place = |node: Hot<'_, u16, V>| match node {
        Hot::Leaf(leaf) => leaf.keys().as_ptr().cast(),
        Hot::Inner(inner) => inner.bounds.as_ptr().cast(),
    };
    nodes_of(tree).into_iter().map(place).collect()
}

#[test]
fn after_a_view_that_nobody_holds_a_change_copies_nothing() {
    let entries = (0..1000).map(|key| (key, 0)).collect();
    let mut live: Live<u16, u32> = Live::new(&Tree::from_sorted(None, entries, Graveyard::none()));
    for is_held in [false, true, false] {
        let (view, unswept) = live.version();
        unswept.sweep();
        let before = places(&view);
        let held = is_held.then_some(view);
        // What is not there any more has its node copied, if somebody sees it there.
        live.change(|draft| assert!(draft.remove(|key| 500.cmp(key)).unwrap().is_some())).1.sweep();
        live.change(|draft| assert!(draft.insert(500, 1).unwrap().is_none())).1.sweep();
        drop(held);
        let (view, unswept) = live.version();
        unswept.sweep();
        assert_eq!(places(&view) != before, is_held);
    }
}

#[test]
fn versions_of_a_live_tree_are_what_they_were() {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut live: Live<u16, Counted> = Live::new(&Tree::new(None, Graveyard::none()));
    let mut held = Vec::new();
    for round in 0..20 {
        live.change(|draft| {
            draft.insert(7, Counted::new(round, &alive)).unwrap();
        })
        .1
        .sweep();
        let (version, unswept) = live.version();
        unswept.sweep();
        held.push((version, round));
        held.first().unwrap().0.sweep();
    }
    for (version, round) in &held {
        let value = version.read().get(|key| 7.cmp(key)).unwrap();
        assert_eq!(value.map(|value| value.0), Some(*round));
    }
    assert_eq!(alive.load(Atomic::SeqCst), 20);
    held.drain(..19);
    held.first().unwrap().0.sweep();
    assert_eq!(alive.load(Atomic::SeqCst), 1);
    let last = held.pop().unwrap().0.0.stamp;
    let again = live.unchanged().expect("nothing has changed, also if nobody reads it");
    assert_eq!(again.0.stamp, last);
}

#[test]
fn a_large_live_tree_ends_elsewhere_and_a_small_one_at_once() {
    let (graveyard, buried) = Graveyard::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let live = |entries: u32| {
        let entries = (0..entries).map(|key| (key, Counted::new(key, &alive))).collect();
        Box::new(Live::new(&Tree::from_sorted(None, entries, graveyard.clone())))
    };
    live(100).end();
    assert_eq!(alive.load(Atomic::SeqCst), 0);
    let mut large = live(20_000);
    let insert = |draft: &mut Draft<_, _>| {
        draft.insert(20_000, Counted::new(20_000, &alive)).unwrap();
    };
    large.change(insert).1.sweep();
    let (held, unswept) = large.version();
    unswept.sweep();
    large.end();
    assert_eq!(alive.load(Atomic::SeqCst), 20_001);
    buried.decay_what_is_there(&mut || {});
    // Somebody still reads it.
    assert_eq!(held.read().iter().count(), 20_001);
    assert_eq!(alive.load(Atomic::SeqCst), 20_001);
    drop(held);
    buried.decay_what_is_there(&mut || {});
    assert_eq!(alive.load(Atomic::SeqCst), 0);
}
