//! Attempts within attempts, over few regions and over more than a transaction searches one after the other, against
//! a model that is copied for each.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]

mod common {
    pub mod settings;
}

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::settings::setting;
use proptest::prelude::*;
use rocstate::{Durability, DurableMap, ErrorKind, Readable, Store, Transaction};

type Map = DurableMap<u8, u16>;

/// What the regions hold; `None` of one that was removed.
type Model = Vec<Option<BTreeMap<u8, u16>>>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(usize, u8, u16),
    Take(usize, u8),
    Clear(usize),
    RemoveRegion(usize),
    /// Every region is changed.
    PutAll(u8, u16),
    /// The steps up to its end are an attempt.
    Begin(End),
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Keeps,
    Fails,
    Panics,
}

fn step(regions: usize) -> impl Strategy<Value = Step> {
    let end = prop_oneof![3 => Just(End::Keeps), 2 => Just(End::Fails), 1 => Just(End::Panics)];
    prop_oneof![
        10 => (0..regions, 0u8..6, any::<u16>()).prop_map(|(r, k, v)| Step::Put(r, k, v)),
        4 => (0..regions, 0u8..6).prop_map(|(r, k)| Step::Take(r, k)),
        2 => (0..regions).prop_map(Step::Clear),
        1 => (0..regions).prop_map(Step::RemoveRegion),
        1 => (0u8..6, any::<u16>()).prop_map(|(k, v)| Step::PutAll(k, v)),
        6 => end.prop_map(Step::Begin),
        5 => Just(Step::End),
    ]
}

struct Subject {
    store: Store,
    maps: Vec<Map>,
}

impl Subject {
    fn declare(store: Store, regions: usize) -> Subject {
        let maps = (0..regions).map(|nth| store.durable_map(&name(nth)).unwrap()).collect();
        Subject { store, maps }
    }

    fn put(&self, tx: &mut Transaction, model: &mut Model, region: usize, key: u8, value: u16) {
        let done = self.maps[region].insert(tx, key, value);
        match &mut model[region] {
            Some(map) => assert_eq!(done.unwrap(), map.insert(key, value)),
            None => assert_eq!(done.unwrap_err().kind(), ErrorKind::Stale),
        }
    }

    /// Takes steps up to the end of the attempt that they are in.
    fn run(&self, tx: &mut Transaction, model: &mut Model, steps: &mut std::slice::Iter<'_, Step>) {
        while let Some(step) = steps.next() {
            match *step {
                Step::Put(region, key, value) => self.put(tx, model, region, key, value),
                Step::PutAll(key, value) => {
                    (0..self.maps.len()).for_each(|nth| self.put(tx, model, nth, key, value));
                }
                Step::Take(region, key) => {
                    if let Some(map) = &mut model[region] {
                        assert_eq!(self.maps[region].remove(tx, &key).unwrap(), map.remove(&key));
                    }
                }
                Step::Clear(region) => {
                    if let Some(map) = &mut model[region] {
                        self.maps[region].clear(tx).unwrap();
                        map.clear();
                    }
                }
                Step::RemoveRegion(region) => {
                    // One that has never had an entry is none yet.
                    let removed = tx.remove_region(&name(region)).unwrap();
                    assert!(!removed || model[region].is_some(), "it was removed before");
                    if removed {
                        model[region] = None;
                    }
                }
                Step::Begin(end) => self.attempt(tx, model, steps, end),
                Step::End => return,
            }
        }
    }

    fn attempt(
        &self,
        tx: &mut Transaction,
        model: &mut Model,
        steps: &mut std::slice::Iter<'_, Step>,
        end: End,
    ) {
        let mut within = model.clone();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            tx.attempt(|tx| {
                self.run(tx, &mut within, steps);
                match end {
                    End::Keeps => Ok(()),
                    End::Fails => Err(()),
                    // Without the hook, whose message nobody needs.
                    End::Panics => std::panic::resume_unwind(Box::new("on purpose")),
                }
            })
        }));
        match (end, outcome) {
            (End::Keeps, Ok(Ok(()))) => *model = within,
            (End::Fails, Ok(Err(()))) => {}
            (End::Panics, Err(panic)) if panic.is::<&str>() => {}
            (_, Err(panic)) => std::panic::resume_unwind(panic),
            (_, outcome) => panic!("it ends as {outcome:?}"),
        }
        self.check(model, tx);
    }

    fn check(&self, model: &Model, at: &impl Readable) {
        for (map, expected) in self.maps.iter().zip(model) {
            let entries = map.iter(at).map(|entry| entry.map(|(k, v)| (*k, *v)));
            let found: rocstate::Result<BTreeMap<_, _>> = entries.collect();
            match expected {
                Some(expected) => assert_eq!(&found.unwrap(), expected, "{}", map.name()),
                None => assert_eq!(found.unwrap_err().kind(), ErrorKind::Stale, "{}", map.name()),
            }
        }
    }
}

fn name(nth: usize) -> String {
    format!("region {nth}")
}

fn run(regions: usize, transactions: &[Vec<Step>]) {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::options().durability(Durability::Process).open(dir.path()).unwrap();
    let mut subject = Subject::declare(open(), regions);
    let mut model = vec![Some(BTreeMap::new()); regions];
    for steps in transactions {
        let mut steps = steps.iter();
        subject
            .store
            .transact(|tx| {
                // Ends without a beginning leave the rest to be taken.
                while !steps.as_slice().is_empty() {
                    subject.run(tx, &mut model, &mut steps);
                }
                Ok(())
            })
            .unwrap();
        for gone in model.iter_mut().filter(|map| map.is_none()) {
            *gone = Some(BTreeMap::new());
        }
        subject = Subject::declare(subject.store, regions);
        subject.check(&model, &subject.store.view());
    }
    drop(subject);
    let subject = Subject::declare(open(), regions);
    subject.check(&model, &subject.store.view());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: setting("ROCSTATE_CASES", 48), ..ProptestConfig::default() })]

    #[test]
    fn attempts_in_few_regions_undo_themselves_alone(
        transactions in prop::collection::vec(prop::collection::vec(step(3), 1..60), 1..4)
    ) {
        run(3, &transactions);
    }

    #[test]
    fn attempts_in_many_regions_undo_themselves_alone(
        transactions in prop::collection::vec(prop::collection::vec(step(45), 1..60), 1..4)
    ) {
        run(45, &transactions);
    }
}
