//! A volatile map is a map, and so is each of its snapshots.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use rocstate::{ErrorKind, Fenced, Store, VolatileMap, VolatileView};

type Model = BTreeMap<u16, String>;

#[derive(Clone, Debug)]
enum Step {
    Insert(u16),
    Remove(u16),
    Update(u16),
    Upsert(u16),
    Pop(bool),
    Retain(u16),
    Clear,
    Discard,
    View,
    DropView,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = || 0u16..200;
    let step = prop_oneof![
        40 => key().prop_map(Step::Insert),
        10 => key().prop_map(Step::Remove),
        10 => key().prop_map(Step::Update),
        10 => key().prop_map(Step::Upsert),
        15 => any::<bool>().prop_map(Step::Pop),
        2 => (2u16..6).prop_map(Step::Retain),
        1 => Just(Step::Clear),
        1 => Just(Step::Discard),
        8 => Just(Step::View),
        4 => Just(Step::DropView),
    ];
    prop::collection::vec(step, 1..400)
}

fn same(view: &VolatileView<u16, String>, model: &Model) {
    assert!(view.iter().eq(model));
    assert!(view.iter().rev().eq(model.iter().rev()));
    assert_eq!((view.first(), view.last()), (model.first_key_value(), model.last_key_value()));
    assert_eq!(view.len(), model.len());
    for (low, high) in [(0, 50), (50, 150), (120, 121)] {
        assert!(view.range(low..high).eq(model.range(low..high)));
        assert_eq!(view.range(low..=high).count(), model.range(low..=high).count());
        assert_eq!(view.range(..high).last(), model.range(..high).last());
        assert_eq!(view.range(low..).nth(3), model.range(low..).nth(3));
    }
}

/// What the map answers, by its own name or by a fenced one.
fn change(
    map: &VolatileMap<u16, String>,
    fenced: &Fenced<u16, String>,
    model: &mut Model,
    step: &Step,
    at: usize,
) {
    let by_fence = at % 2 == 1;
    let new = format!("value {at}");
    let append = |value: &mut String| {
        value.push('+');
        value.len()
    };
    match *step {
        Step::Insert(key) => {
            let old = if by_fence {
                fenced.insert(key, new.clone()).unwrap()
            } else {
                map.insert(key, new.clone())
            };
            assert_eq!(old, model.insert(key, new));
        }
        Step::Remove(key) => {
            let old = if by_fence { fenced.remove(&key).unwrap() } else { map.remove(&key) };
            assert_eq!(old, model.remove(&key));
        }
        Step::Update(key) => {
            let len = if by_fence {
                fenced.update(&key, append).unwrap()
            } else {
                map.update(&key, append)
            };
            assert_eq!(len, model.get_mut(&key).map(append));
        }
        Step::Upsert(key) => {
            let make = || new.clone();
            let len = if by_fence {
                fenced.upsert(key, make, append).unwrap()
            } else {
                map.upsert(key, make, append)
            };
            assert_eq!(len, append(model.entry(key).or_insert_with(|| new.clone())));
        }
        Step::Pop(first) => {
            let popped = match (first, by_fence) {
                (true, true) => fenced.pop_first().unwrap(),
                (true, false) => map.pop_first(),
                (false, true) => fenced.pop_last().unwrap(),
                (false, false) => map.pop_last(),
            };
            assert_eq!(popped, if first { model.pop_first() } else { model.pop_last() });
        }
        Step::Retain(nth) => {
            let keep = |key: &u16, _: &String| !key.is_multiple_of(nth);
            let removed = if by_fence { fenced.retain(keep).unwrap() } else { map.retain(keep) };
            let before = model.len();
            model.retain(|key, value| keep(key, value));
            assert_eq!(removed, before - model.len());
        }
        _ => unreachable!("nothing is changed"),
    }
}

proptest! {
    #[test]
    fn a_volatile_map_and_its_views_are_btree_maps(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let map = store.volatile_map::<u16, String>("map").unwrap();
        let mut fenced = map.fenced(map.generation());
        let (mut model, mut views) = (Model::new(), Vec::new());
        for (at, step) in steps.iter().enumerate() {
            match step {
                Step::Clear => {
                    map.clear();
                    model.clear();
                    fenced.check().unwrap();
                }
                Step::Discard => {
                    let born = map.discard();
                    model.clear();
                    prop_assert_eq!(fenced.first().unwrap_err().kind(), ErrorKind::Stale);
                    prop_assert_eq!(fenced.last().unwrap_err().kind(), ErrorKind::Stale);
                    prop_assert_eq!(fenced.pop_first().unwrap_err().kind(), ErrorKind::Stale);
                    prop_assert_eq!(fenced.pop_last().unwrap_err().kind(), ErrorKind::Stale);
                    fenced = map.fenced(born);
                }
                Step::View => views.push((map.view(), model.clone())),
                Step::DropView => drop(views.pop()),
                _ => change(&map, &fenced, &mut model, step, at),
            }
            let ends = (model.first_key_value(), model.last_key_value());
            let owned = |entry: Option<(&u16, &String)>| entry.map(|(key, value)| (*key, value.clone()));
            prop_assert_eq!((map.first(), map.last()), (owned(ends.0), owned(ends.1)));
            prop_assert_eq!(fenced.first().unwrap(), owned(ends.0));
            prop_assert_eq!(fenced.last().unwrap(), owned(ends.1));
            prop_assert_eq!((map.len(), fenced.is_empty().unwrap()), (model.len(), model.is_empty()));
        }
        views.push((map.view(), model));
        for (view, model) in &views {
            same(view, model);
        }
        drop(store);
        for (view, model) in &views {
            same(view, model);
        }
    }
}

/// What a closure asks of the map that has it run.
#[test]
fn a_map_does_not_wait_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map = store.volatile_map::<u16, String>("map").unwrap();
    let born = map.generation();
    let fenced = map.fenced(born);
    let asks: [&dyn Fn() -> bool; 8] = [
        &|| map.get(&1).is_some(),
        &|| map.view().is_empty(),
        &|| map.insert(1, String::new()).is_some(),
        &|| map.update(&1, String::clear).is_some(),
        &|| map.discard() > born,
        &|| map.retain(|_, _| false) > 0,
        &|| fenced.is_empty().is_ok(),
        &|| store.regions().is_empty(),
    ];
    map.insert(1, "one".into());
    let whole = map.view();
    // Whether readers take the lock at that time or not.
    for reads in [0, 1000] {
        for ask in asks {
            let ways: [&dyn Fn() -> bool; 4] = [
                &|| map.update(&1, |_| ask()).is_some(),
                &|| map.upsert(2, || String::from("two"), |_| ask()),
                &|| map.retain(|_, _| ask()) > 0,
                &|| fenced.update(&1, |_| ask()).is_ok(),
            ];
            for way in ways {
                (0..reads).for_each(|_| assert!(map.contains_key(&1)));
                let why = std::panic::catch_unwind(std::panic::AssertUnwindSafe(way)).unwrap_err();
                let why = why.downcast_ref::<String>().unwrap();
                assert!(why.contains("uses that map"), "{why}");
                assert!(map.view().iter().eq(whole.iter()), "it is whole");
            }
        }
    }
    assert_eq!(map.update(&1, |one| whole.get(&1) == Some(one)), Some(true));
}
