//! How full leaves are, by the order in which keys come.

use super::keys::{Owning, alive, keys_of};
use super::removal::leaves;
use super::*;
use crate::tree::node::FAN_OUT;

/// How full the leaves are that are in memory.
fn fullness<K, V>(tree: &Tree<K, V>) -> f64 {
    let room = leaves(tree).len() * FAN_OUT;
    let [len, room] = [tree.len(), room].map(|count| f64::from(u32::try_from(count).unwrap()));
    len / room
}

/// Inserts keys in drafts of several sizes, of which some are undone or dropped first, while others look; tells how
/// full the leaves are then.
fn fill<K: Numbered, V: Valued>(
    frozen: Option<Frozen<K>>,
    key: impl Fn(u16) -> K,
    numbers: &[u16],
    look: impl FnOnce(&Tree<K, V>),
) -> f64 {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut tree: Tree<K, V> = Tree::new(frozen, Graveyard::none());
    let mut model = BTreeMap::new();
    let mut held = Vec::new();
    let (mut rest, mut step) = (numbers, 0);
    while !rest.is_empty() {
        let (some, others) = rest.split_at([1, 7, 300, 60][step % 4].min(rest.len()));
        let insert_all = |draft: &mut Draft<K, V>| {
            for number in some {
                let value = V::new(u32::from(*number) + 7, &alive);
                assert!(draft.insert(key(*number), value).unwrap().is_none());
            }
        };
        let mut draft = tree.draft();
        if step % 5 == 0 {
            insert_all(&mut draft);
            drop(draft);
            draft = tree.draft();
        }
        if step % 5 == 1 {
            let savepoint = draft.savepoint();
            insert_all(&mut draft);
            draft.undo(&savepoint);
        }
        insert_all(&mut draft);
        tree = draft.freeze();
        draft.settle();
        model.extend(some.iter().map(|number| (*number, u32::from(*number) + 7)));
        if step % 40 == 3 {
            held.push((tree.clone(), model.clone()));
        }
        (rest, step) = (others, step + 1);
    }
    for (tree, model) in &held {
        shows(tree, model);
    }
    shows(&tree, &model);
    drop(held);
    tree.sweep();
    assert_eq!(alive.load(Atomic::SeqCst), V::alive(numbers.len()));
    look(&tree);
    fullness(&tree)
}

/// Of keys and values of each kind.
fn fill_each(numbers: &[u16]) -> [f64; 3] {
    let counted = |tree: &Tree<Owning, Counted>| assert_eq!(alive(), keys_of(tree));
    let fullness = [
        fill::<u16, u32>(None, |number| number, numbers, |_| {}),
        fill(Some(Owning::frozen()), Owning::new, numbers, counted),
        fill(None, Owning::new, numbers, counted),
    ];
    assert_eq!(alive(), 0);
    fullness
}

const COUNT: u16 = if cfg!(miri) { 200 } else { 20_000 };

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 4 }, ..ProptestConfig::default() })]

    /// They are 0.82 full, and of three hundred orders the worst left them 0.777. When leaves were split and shared
    /// nothing they were 0.69 full.
    #[test]
    fn leaves_of_what_comes_at_random_are_four_fifths_full(
        numbers in Just((0..COUNT).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let fullness = fill_each(&numbers);
        prop_assert!(cfg!(miri) || fullness.iter().all(|each| *each > 0.75), "{fullness:?}");
    }

    /// Of three hundred orders the worst left them 0.499 full for a while. When they were joined only once they held a
    /// quarter, the leaves became a third full.
    #[test]
    fn leaves_of_which_much_is_removed_at_random_are_half_full(
        numbers in Just((0..COUNT).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let mut model: BTreeMap<u16, u32> = (0..COUNT).map(|key| (key, u32::from(key))).collect();
        let entries = model.iter().map(|(key, value)| (*key, *value)).collect();
        let mut tree = Tree::from_sorted(None, entries, Graveyard::none());
        for some in numbers.chunks(usize::from(COUNT) / 10).take(9) {
            let mut draft = tree.draft();
            for number in some {
                prop_assert!(draft.remove(|other| number.cmp(other)).unwrap().is_some());
                model.remove(number);
            }
            tree = draft.freeze();
            draft.settle();
            same(&tree, &model);
            let half = cfg!(miri) || fullness(&tree) > 0.45;
            prop_assert!(half, "{} of {}", fullness(&tree), tree.len());
        }
    }
}

#[test]
fn leaves_of_what_ascends_are_full_and_of_what_descends_hardly_less() {
    let up = fill_each(&(0..COUNT).collect::<Vec<_>>());
    let down = fill_each(&(0..COUNT).rev().collect::<Vec<_>>());
    assert!(cfg!(miri) || up.iter().all(|each| *each > 0.95), "{up:?}");
    assert!(cfg!(miri) || down.iter().all(|each| *each > 0.8), "{down:?}");
}
