//! What old versions alone see, if it is much: those who commit neither free it nor look at each part of it.

use super::*;

/// More than those who commit would look at.
const MANY: u32 = 100;

/// Every value anew.
fn rewritten(tree: &Tree<u32, Counted>, alive: &Arc<AtomicUsize>) -> Tree<u32, Counted> {
    let mut draft = tree.draft();
    for key in 0..MANY {
        drop(draft.insert(key, Counted::new(0, alive)).unwrap());
    }
    let tree = draft.freeze();
    draft.settle();
    tree
}

#[test]
fn much_that_old_versions_saw_is_for_those_who_have_time() {
    let (graveyard, buried) = Graveyard::new();
    let alive = Arc::new(AtomicUsize::new(0));
    let entries = (0..MANY).map(|key| (key, Counted::new(key, &alive))).collect();
    let oldest = Tree::from_sorted(None, entries, graveyard);
    let mut draft = oldest.draft();
    drop(draft.insert(MANY, Counted::new(0, &alive)).unwrap());
    let newer = draft.freeze();
    draft.settle();
    drop(draft);
    let newest = rewritten(&newer, &alive);
    newest.sweep();
    let alive_now = || alive.load(Atomic::SeqCst);
    let stamps = || newest.0.line.parked_on();
    let all = usize::try_from(2 * MANY + 1).unwrap();
    let (first, second) = (oldest.0.stamp, newer.0.stamp);
    assert!(stamps().contains(&second));

    // The oldest sees nearly all of what was seen by the one that is gone, but each has to be asked.
    drop(newer);
    newest.sweep();
    assert!(stamps().contains(&second), "looked at one by one by somebody who commits");
    buried.decay_what_is_there(&mut || {});
    assert_eq!((alive_now(), stamps()), (all, vec![first]));
    assert!(oldest.read().iter().all(|entry| entry.is_ok()));

    drop(oldest);
    newest.sweep();
    assert_eq!((alive_now(), stamps()), (all, vec![]), "freed by somebody who commits");
    assert_eq!(buried.decay_what_is_there(&mut || {}), 1);
    assert_eq!(alive_now(), usize::try_from(MANY + 1).unwrap());
    drop(newest);
    buried.decay_what_is_there(&mut || {});
    assert_eq!(alive_now(), 0);
}
