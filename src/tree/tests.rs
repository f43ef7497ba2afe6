use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};

use proptest::prelude::*;

use super::*;

fn same(tree: &Tree<u16, u32>, model: &BTreeMap<u16, u32>) {
    assert_eq!(tree.len(), model.len());
    let forward: Vec<_> = tree.iter().map(|entry| entry.map(|(k, v)| (*k, **v)).unwrap()).collect();
    assert!(forward.iter().copied().eq(model.iter().map(|(k, v)| (*k, *v))));
    let mut backward: Vec<_> = tree.iter().rev().map(|entry| *entry.unwrap().0).collect();
    backward.reverse();
    assert!(backward.iter().eq(model.keys()));
}

proptest! {
    #[test]
    fn a_tree_is_a_btree_map_and_old_roots_do_not_change(
        operations in prop::collection::vec((any::<bool>(), 0u16..400, any::<u32>()), 0..1500),
        bounds in (0u16..400, 0u16..400),
        bulk in prop::collection::btree_map(0u16..400, any::<u32>(), 0..300),
    ) {
        let entries = bulk.iter().map(|(k, v)| (*k, Arc::new(*v))).collect();
        let mut tree = Tree::from_sorted(entries, Graveyard::none());
        let mut model = bulk.clone();
        let mut older = Vec::new();
        for (at, (insert, key, value)) in operations.into_iter().enumerate() {
            if at % 200 == 0 {
                older.push((tree.clone(), model.clone()));
            }
            if insert {
                let old = tree.insert(key, Arc::new(value)).unwrap().map(|old| *old);
                prop_assert_eq!(old, model.insert(key, value));
            } else {
                let old = tree.remove(|k| key.cmp(k)).unwrap().map(|(_, old)| *old);
                prop_assert_eq!(old, model.remove(&key));
            }
        }
        older.push((tree, model));
        for (tree, model) in &older {
            same(tree, model);
            let (low, high) = bounds;
            let mut range = tree.range(|k| *k < low, |k| *k < high);
            let mut expected: Vec<_> = if low <= high {
                model.range(low..high).map(|(k, _)| *k).collect()
            } else {
                Vec::new()
            };
            // From both ends in turn.
            while let Some(entry) = range.next() {
                prop_assert_eq!(*entry.unwrap().0, expected.remove(0));
                if let Some(entry) = range.next_back() {
                    prop_assert_eq!(Some(*entry.unwrap().0), expected.pop());
                }
            }
            prop_assert!(expected.is_empty());
            for key in 0..400 {
                let found = tree.get(|k| key.cmp(k)).unwrap().map(|v| **v);
                prop_assert_eq!(found, model.get(&key).copied());
            }
        }
    }
}

struct Counted(AtomicUsize);

impl Source<u16, u32> for Arc<Counted> {
    fn load(&self) -> Result<Vec<(u16, Arc<u32>)>> {
        if self.0.fetch_add(1, Atomic::SeqCst) == 0 {
            return Err(Error::new(crate::ErrorKind::Io, "the first touch fails"));
        }
        Ok((0..1000).map(|key| (key, Arc::new(u32::from(key)))).collect())
    }
}

use crate::error::Error;

#[test]
fn a_cold_tree_is_loaded_once_and_a_failed_touch_changes_nothing() {
    let loads = Arc::new(Counted(AtomicUsize::new(0)));
    let mut tree = Tree::cold(Box::new(Arc::clone(&loads)), 1000, Graveyard::none());
    let view = tree.clone();
    assert!(tree.insert(2000, Arc::new(1)).is_err());
    assert_eq!(tree.len(), 1000);
    tree.insert(2000, Arc::new(1)).unwrap();
    tree.remove(|k| 5.cmp(k)).unwrap();
    assert_eq!(tree.len(), 1000);
    assert_eq!(view.iter().count(), 1000);
    assert_eq!(**view.get(|k| 5.cmp(k)).unwrap().unwrap(), 5);
    assert!(tree.get(|k| 5.cmp(k)).unwrap().is_none());
    assert_eq!(loads.0.load(Atomic::SeqCst), 2);
}

#[test]
fn a_large_abandoned_tree_is_freed_elsewhere_and_a_replaced_root_is_not() {
    let (graveyard, buried) = Graveyard::new();
    let entries = (0..20_000u32).map(|key| (key, Arc::new(key))).collect();
    let mut tree = Tree::from_sorted(entries, graveyard);
    let view = tree.clone();
    tree.insert(30_000, Arc::new(0)).unwrap();
    drop(view);
    assert!(buried.try_recv().is_err());
    let emptied = tree.emptied();
    drop(std::mem::replace(&mut tree, emptied));
    let mut pauses = 0;
    buried.try_recv().unwrap().decay(&mut || pauses += 1);
    assert!(pauses > 5);
}
