//! Keys that own something: who has them, and for how long.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering as Order;
use std::collections::BTreeSet;

use super::*;

thread_local! {
    static ALIVE: RefCell<BTreeSet<u32>> = const { RefCell::new(BTreeSet::new()) };
    static MADE: Cell<u32> = const { Cell::new(0) };
}

/// A key that owns its mark, of which each clone has another one. To look at it without that is an error, as it
/// is to let go of it twice.
#[derive(Debug)]
pub(super) struct Owning {
    number: u16,
    mark: u32,
}

impl Owning {
    pub(super) fn new(number: u16) -> Owning {
        MADE.set(MADE.get() + 1);
        ALIVE.with_borrow_mut(|alive| alive.insert(MADE.get()));
        Owning { number, mark: MADE.get() }
    }

    pub(super) fn frozen() -> Frozen<Owning> {
        // SAFETY: it is a number and a mark.
        unsafe { Frozen::new() }
    }
}

impl Numbered for Owning {
    fn number(&self) -> u16 {
        assert!(ALIVE.with_borrow(|alive| alive.contains(&self.mark)), "{} is gone", self.number);
        self.number
    }
}

impl Clone for Owning {
    fn clone(&self) -> Owning {
        Owning::new(self.number())
    }
}

impl Drop for Owning {
    fn drop(&mut self) {
        let was_alive = ALIVE.with_borrow_mut(|alive| alive.remove(&self.mark));
        assert!(was_alive || std::thread::panicking(), "{} goes twice", self.number);
    }
}

impl PartialEq for Owning {
    fn eq(&self, other: &Owning) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Owning {}

impl PartialOrd for Owning {
    fn partial_cmp(&self, other: &Owning) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl Ord for Owning {
    fn cmp(&self, other: &Owning) -> Order {
        self.number().cmp(&other.number())
    }
}

pub(super) fn alive() -> usize {
    ALIVE.with_borrow(BTreeSet::len)
}

/// The keys and bounds in the nodes of a version that are in memory.
pub(super) fn keys_of<V>(tree: &Tree<Owning, V>) -> usize {
    let keys = nodes_of(tree).into_iter().map(|node| match node {
        Hot::Inner(inner) => inner.bounds.len(),
        Hot::Leaf(leaf) => leaf.len(),
    });
    keys.sum()
}

proptest! {
    /// Of those that are shared the newest version has each once, and when nobody sees another one there are no
    /// others.
    #[test]
    fn a_key_that_is_shared_lives_as_long_as_it_is_seen(drafts in drafts(300), between in prop_oneof![
        Just(0), Just(1 << 27), Just(1 << 29), Just(1 << 40)
    ]) {
        let keys = Some(Owning::frozen());
        live_as_long_as_seen::<_, Counted>(keys, Owning::new, drafts, between, |tree| {
            assert_eq!(alive(), keys_of(tree));
        });
        prop_assert_eq!(alive(), 0);
    }

    #[test]
    fn clones_of_a_key_go_with_their_nodes(drafts in drafts(300)) {
        live_as_long_as_seen::<_, Counted>(None, Owning::new, drafts, 0, |tree| {
            assert_eq!(alive(), keys_of(tree));
        });
        prop_assert_eq!(alive(), 0);
    }
}

/// Changes in versions of their own, of a tree of several levels, while one version is held: what it sees and
/// what is newest are all the keys that there are.
#[test]
fn a_view_that_is_held_keeps_the_keys_that_it_sees_and_no_others() {
    let count: u16 = if cfg!(miri) { 300 } else { 6000 };
    let entries = (0..count).map(|number| (Owning::new(number), ())).collect();
    let mut tree = Tree::from_sorted(Some(Owning::frozen()), entries, Graveyard::none());
    let view = tree.clone();
    let seen = keys_of(&view);
    for number in
        (0..count).map(|nth| nth.wrapping_mul(77) % count).cycle().take(4 * usize::from(count))
    {
        let mut draft = tree.draft();
        if draft.remove(|key| number.cmp(&key.number())).unwrap().is_none() {
            draft.insert(Owning::new(number), ()).unwrap();
        }
        tree = draft.freeze();
        draft.settle();
    }
    tree.sweep();
    assert!(alive() <= seen + keys_of(&tree));
    assert!(view.read().iter().map(|entry| entry.unwrap().0.number()).eq(0..count));
    drop(view);
    tree.sweep();
    assert_eq!(alive(), keys_of(&tree));
    drop(tree);
    assert_eq!(alive(), 0);
}

#[test]
fn a_change_clones_no_key_that_is_shared() {
    let entries = (0..1000).map(|number| (Owning::new(2 * number), ())).collect();
    let mut tree = Tree::from_sorted(Some(Owning::frozen()), entries, Graveyard::none());
    let made = MADE.get();
    for number in (0..100).map(|number| 2 * number + 1) {
        let mut draft = tree.draft();
        draft.insert(Owning::new(number), ()).unwrap();
        tree = draft.freeze();
        draft.settle();
        let mut draft = tree.draft();
        draft.remove(|key| (number - 1).cmp(&key.number())).unwrap();
        tree = draft.freeze();
        draft.settle();
    }
    // And bounds where leaves were divided.
    assert!(MADE.get() - made <= 100 + 10, "{} keys for 100", MADE.get() - made);
}

/// What Miri looks at for races and for a second way to what is unique: texts come and go while readers look at those
/// that their versions have.
#[test]
fn texts_that_are_read_live_while_a_writer_lets_go_of_them() {
    let text = |number: u16| format!("{number:03}");
    let entries = (0..100).map(|number| (text(number), number)).collect();
    let keys = Frozen::known();
    let newest = parking_lot::Mutex::new(Tree::from_sorted(keys, entries, Graveyard::none()));
    let rounds: u16 = if cfg!(miri) { 60 } else { 2000 };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let tree = newest.lock().clone();
                    for entry in tree.read().iter() {
                        let (key, number) = entry.unwrap();
                        assert_eq!(*key, text(*number));
                    }
                }
            });
        }
        for round in 0..rounds {
            let mut draft = newest.lock().draft();
            for number in (0..5).map(|nth| (round * 31 + nth * 17) % 150) {
                let sought = text(number);
                if draft.remove(|key| sought.cmp(key)).unwrap().is_none() {
                    draft.insert(sought, number).unwrap();
                }
            }
            // Some come to nothing.
            if round % 4 > 0 {
                let tree = draft.freeze();
                draft.settle();
                drop(std::mem::replace(&mut *newest.lock(), tree));
            }
        }
    });
}
