//! Random operations over several regions against a plain model, with checkpoints, reopening and
//! crashes (dropping without any flush) at random points.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common {
    pub mod settings;
}

use std::collections::BTreeMap;

use common::settings::setting;
use proptest::prelude::*;
use rocstate::{Durability, DurableCell, DurableMap, Store};

type Model = (BTreeMap<u16, String>, BTreeMap<(String, i32), u64>, Option<u32>);

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, u8),
    Remove(u16),
    Update(u16),
    Pop(bool),
    Tuple(u8, i32, u64),
    Clear(bool),
    Retain(u16),
    Set(Option<u32>),
    /// The next steps go into one transaction, up to `End`.
    Begin,
    End {
        commit: bool,
        process: bool,
    },
    /// A savepoint around an insert that is undone.
    Attempt(u16),
    Checkpoint,
    Reopen,
    /// Dropped with commits that nobody waited for: a prefix of them may survive.
    Crash(u8),
    View,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0u16..200;
    prop_oneof![
        12 => (key.clone(), any::<u8>()).prop_map(|(k, v)| Step::Insert(k, v)),
        5 => key.clone().prop_map(Step::Remove),
        3 => key.clone().prop_map(Step::Update),
        1 => any::<bool>().prop_map(Step::Pop),
        6 => (0u8..5, -20i32..20, any::<u64>()).prop_map(|(a, b, v)| Step::Tuple(a, b, v)),
        1 => any::<bool>().prop_map(Step::Clear),
        1 => key.clone().prop_map(Step::Retain),
        2 => any::<Option<u32>>().prop_map(Step::Set),
        3 => Just(Step::Begin),
        3 => (prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(commit, process)| Step::End { commit, process }),
        1 => key.prop_map(Step::Attempt),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => (0u8..6).prop_map(Step::Crash),
        1 => Just(Step::View),
    ]
}

struct Regions {
    a: DurableMap<u16, String>,
    b: DurableMap<(String, i32), u64>,
    c: DurableCell<u32>,
}

fn open(path: &std::path::Path) -> (Store, Regions) {
    let store = Store::options().segment_bytes(64 << 10).open(path).unwrap();
    let regions = Regions {
        a: store.durable_map("a").unwrap(),
        b: store.durable_map("b").unwrap(),
        c: store.durable_cell("c").unwrap(),
    };
    (store, regions)
}

fn read(regions: &Regions, at: &rocstate::View) -> Model {
    let a = regions.a.iter(at).map(|e| e.map(|(k, v)| (*k, v.clone())).unwrap()).collect();
    let b = regions.b.iter(at).map(|e| e.map(|(k, v)| (k.clone(), *v)).unwrap()).collect();
    (a, b, regions.c.get(at).unwrap().copied())
}

/// A value whose length varies, so that frames and blocks do.
fn text(seed: u8) -> String {
    char::from(b'a' + seed % 26).to_string().repeat(usize::from(seed) * usize::from(seed) / 40)
}

fn apply(regions: &Regions, tx: &mut rocstate::Transaction, model: &mut Model, step: &Step) {
    match step.clone() {
        Step::Insert(k, v) => {
            assert_eq!(regions.a.insert(tx, k, text(v)).unwrap(), model.0.insert(k, text(v)));
        }
        Step::Remove(k) => assert_eq!(regions.a.remove(tx, &k).unwrap(), model.0.remove(&k)),
        Step::Update(k) => {
            let changed = regions.a.update(tx, &k, |v| v.push('u')).unwrap();
            let expected = model.0.get_mut(&k).map(|v| v.push('u'));
            assert_eq!(changed, expected);
        }
        Step::Pop(true) => assert_eq!(regions.a.pop_first(tx).unwrap(), model.0.pop_first()),
        Step::Pop(false) => assert_eq!(regions.a.pop_last(tx).unwrap(), model.0.pop_last()),
        Step::Tuple(a, b, v) => {
            let key = (char::from(b'p' + a).to_string(), b);
            if v % 4 == 0 {
                let borrowed = (key.0.as_str(), key.1);
                assert_eq!(regions.b.remove(tx, &borrowed).unwrap(), model.1.remove(&key));
            } else {
                regions.b.upsert(tx, key.clone(), || v, |value| *value ^= 1).unwrap();
                *model.1.entry(key).or_insert(v) ^= 1;
            }
        }
        Step::Clear(true) => {
            regions.a.clear(tx).unwrap();
            model.0.clear();
        }
        Step::Clear(false) => {
            regions.b.clear(tx).unwrap();
            model.1.clear();
        }
        Step::Retain(k) => {
            let before = model.0.len();
            let removed = regions.a.retain(tx, k.., |k, _| k % 3 == 0).unwrap();
            model.0.retain(|key, _| *key < k || key % 3 == 0);
            assert_eq!(removed, before - model.0.len());
        }
        Step::Set(value) => match value {
            Some(value) => assert_eq!(regions.c.set(tx, value).unwrap(), model.2.replace(value)),
            None => assert_eq!(regions.c.take(tx).unwrap(), model.2.take()),
        },
        Step::Attempt(k) => {
            let undone = tx.attempt(|tx| {
                regions.a.insert(tx, k, "undone".into()).unwrap();
                regions.b.clear(tx).unwrap();
                Err::<(), _>("undo")
            });
            assert_eq!(undone, Err("undo"));
        }
        _ => {}
    }
    assert_eq!(regions.a.len(tx), model.0.len());
    assert_eq!(regions.b.len(tx), model.1.len());
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut regions) = open(dir.path());
    let mut model = Model::default();
    let mut views: Vec<(rocstate::View, Model)> = Vec::new();
    let mut generation = store.generation();
    let mut at = 0;
    while at < steps.len() {
        let mut reopened = false;
        match &steps[at] {
            Step::Begin => {
                let mut next = model.clone();
                let mut tx = store.begin();
                at += 1;
                let mut end = (false, false);
                while at < steps.len() {
                    if let Step::End { commit, process } = steps[at] {
                        end = (commit, process);
                        break;
                    }
                    apply(&regions, &mut tx, &mut next, &steps[at]);
                    at += 1;
                }
                if end.0 {
                    let durability = if end.1 { Durability::Process } else { Durability::Machine };
                    tx.commit_with(durability).unwrap();
                    model = next;
                }
            }
            Step::Checkpoint => {
                let lsn = store.checkpoint().unwrap();
                assert_eq!(lsn, store.visible_lsn());
            }
            Step::Reopen => reopened = true,
            Step::Crash(commits) => {
                // Each adds one key above all others: how many survived is how many there are.
                let mut submitted = Vec::new();
                for n in 0..*commits {
                    let key = 1000 + u16::from(n);
                    submitted.push(store.submit(|tx| regions.a.insert(tx, key, "s".into())));
                }
                drop(submitted);
                drop((store, regions));
                (store, regions) = open(dir.path());
                let survived = regions.a.range(&store.view(), 1000..).count();
                assert!(survived <= usize::from(*commits));
                for n in 0..survived {
                    let key = 1000 + u16::try_from(n).unwrap();
                    assert!(regions.a.contains_key(&store.view(), &key).unwrap(), "not a prefix");
                }
                store.transact(|tx| regions.a.retain(tx, 1000.., |_, _| false)).unwrap();
                model.0.retain(|key, _| *key < 1000);
                assert!(store.generation() > generation);
                generation = store.generation();
                views.clear();
            }
            Step::View => views.push((store.view(), model.clone())),
            step => store
                .transact(|tx| {
                    apply(&regions, tx, &mut model, step);
                    Ok(())
                })
                .unwrap(),
        }
        if reopened {
            views.clear();
            drop((store, regions));
            (store, regions) = open(dir.path());
            assert!(store.generation() > generation);
            generation = store.generation();
            assert!(store.boot_report().healed.is_empty());
            assert_eq!(regions.a.len(&store.view()), model.0.len());
        }
        at += 1;
    }
    assert_eq!(read(&regions, &store.view()), model);
    for (view, model) in &views {
        assert_eq!(&read(&regions, view), model);
    }
    drop((store, regions));
    let (store, regions) = open(dir.path());
    assert_eq!(read(&regions, &store.view()), model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: setting("ROCSTATE_CASES", 96), ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model_through_checkpoints_reopens_and_crashes(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        run(&steps);
    }
}
