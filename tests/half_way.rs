//! Code of a key that panics in the middle of a change, its clones and destructors: what has half changed is not
//! committed, not read and not freed twice.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use common::fuse::{FUSE, burn};
use rocstate::{
    AsKey, DurableMap, ErrorKind, Key, KeyReader, KeyShape, KeyWriter, Store, Transaction,
    VolatileMap, VolatileView,
};

thread_local! {
    /// How many clones there may be before one panics.
    static CLONES: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// A key or value that cannot always be cloned.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct Brittle(u64);

impl Clone for Brittle {
    fn clone(&self) -> Self {
        let left = CLONES.get().checked_sub(1);
        CLONES.set(left.expect("on purpose"));
        Brittle(self.0)
    }
}

rocstate::key!(Brittle(u64));

type Brittles = DurableMap<Brittle, Brittle>;

fn brittles(store: &Store) -> Vec<(u64, u64)> {
    let map: Brittles = store.durable_map("brittle").unwrap();
    let view = store.view();
    let entries = map.iter(&view).map(|entry| entry.map(|(key, value)| (key.0, value.0)));
    entries.collect::<Result<_, _>>().unwrap()
}

/// Whether it panics, if so many clones do not.
fn panics(clones: u64, f: impl FnOnce()) -> bool {
    CLONES.set(clones);
    let caught = catch_unwind(AssertUnwindSafe(f));
    CLONES.set(u64::MAX);
    caught.is_err()
}

/// What the log does not have must not be seen: a change that panics half way is not committed, also by whoever
/// catches the panic.
#[test]
fn a_change_that_panics_is_not_committed() {
    let changes: [fn(&Brittles, &mut Transaction); 4] = [
        |map, tx| drop(map.insert(tx, Brittle(1), Brittle(2))),
        |map, tx| drop(map.remove(tx, &Brittle(1))),
        |map, tx| drop(map.pop_first(tx)),
        |map, tx| drop(map.update(tx, &Brittle(1), |value| value.0 = 2)),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        for clones in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            let map: Brittles = store.durable_map("brittle").unwrap();
            store.transact(|tx| map.put(tx, Brittle(1), Brittle(1))).unwrap();
            // Somebody still sees what is replaced, so that handing it back takes a clone.
            let view = store.view();
            let mut tx = store.begin();
            map.put(&mut tx, Brittle(7), Brittle(7)).unwrap();
            let panicked = panics(clones, || change(&map, &mut tx));
            if let Err(error) = tx.commit() {
                assert!(panicked, "change {nth} after {clones} clones: {error}");
                assert_eq!(error.kind(), ErrorKind::Invalid);
            }
            drop(view);
            let seen = brittles(&store);
            drop((store, map));
            let reopened = brittles(&Store::open(dir.path()).unwrap());
            assert_eq!(reopened, seen, "change {nth} after {clones} clones");
            if !panicked {
                break;
            }
        }
    }
}

/// An attempt that panics in the middle of a change of a tree leaves that as it was, wherever that is.
#[test]
fn an_attempt_that_panics_half_way_leaves_the_tree_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: Brittles = store.durable_map("brittle").unwrap();
    let fill =
        |tx: &mut _| (0..500).try_for_each(|n| map.put(tx, Brittle(4 * n), Brittle(n)).map(drop));
    store.transact(fill).unwrap();
    let mut before = brittles(&store);
    let mut clones = 0;
    let change = |tx: &mut Transaction| {
        // Splits leaves, and joins some.
        (0..150).try_for_each(|n| map.put(tx, Brittle(4 * n + 1), Brittle(n)).map(drop))?;
        (100..400).try_for_each(|n| map.remove(tx, &Brittle(4 * n)).map(drop))
    };
    loop {
        let mut tx = store.begin();
        map.put(&mut tx, Brittle(4000), Brittle(clones)).unwrap();
        let panicked = panics(clones, || tx.attempt(change).unwrap());
        if !panicked {
            break;
        }
        tx.commit().unwrap();
        before.retain(|(key, _)| *key != 4000);
        before.push((4000, clones));
        assert!(brittles(&store) == before, "after {clones} clones");
        clones += 3;
    }
    println!("{clones} clones");
    assert!(clones > 500);
    drop((store, map));
    assert_eq!(brittles(&Store::open(dir.path()).unwrap()), before);
}

/// A key of which neither clones nor destructors can be relied on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Frail(Box<u64>);

impl Frail {
    fn new(number: u64) -> Frail {
        Frail(Box::new(number))
    }
}

impl AsKey<Frail> for Frail {
    fn encode(&self, to: &mut KeyWriter) {
        AsKey::<u64>::encode(&*self.0, to);
    }

    fn compare(&self, key: &Frail) -> std::cmp::Ordering {
        self.cmp(key)
    }
}

impl Key for Frail {
    fn shape() -> KeyShape {
        u64::shape()
    }

    fn decode(from: &mut KeyReader<'_>) -> rocstate::Result<Frail> {
        u64::decode(from).map(Frail::new)
    }
}

impl Clone for Frail {
    fn clone(&self) -> Self {
        Frail::new(Brittle(*self.0).clone().0)
    }
}

impl Drop for Frail {
    fn drop(&mut self) {
        burn();
    }
}

/// A change that panics has not begun or is done, or the map begins a new life: it has nowhere to go back to.
#[test]
fn a_change_that_panics_half_way_discards_a_volatile_map() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: VolatileMap<Frail, u64> = store.volatile_map("frail").unwrap();
    let is = |view: &VolatileView<Frail, u64>, model: &BTreeMap<u64, u64>| {
        let entries = view.iter().map(|(key, value)| (*key.0, *value));
        view.len() == model.len() && entries.eq(model.iter().map(|(key, value)| (*key, *value)))
    };
    let (mut model, mut held) = (BTreeMap::new(), Vec::new());
    let (mut whole, mut discarded) = (0, 0);
    for nth in 0..10_000 {
        if model.is_empty() {
            model = (0..4_000).map(|key| (4 * key, key)).collect();
            for (key, value) in &model {
                map.insert(Frail::new(*key), *value);
            }
        }
        // Others see some of the nodes, which are copied.
        if nth % 3 == 0 {
            held.push((map.view(), model.clone()));
        }
        let (key, born) = (nth * 7_919 % 16_000, map.generation());
        let mut after = model.clone();
        let change = || match nth % 4 {
            0 => drop((map.insert(Frail::new(key), nth), after.insert(key, nth))),
            _ => drop((map.remove(&Frail::new(key / 4 * 4)), after.remove(&(key / 4 * 4)))),
        };
        FUSE.set(if nth % 5 == 0 { nth % 7 * 4 } else { 0 });
        let panicked = panics(nth % 19 * 10, change);
        FUSE.set(0);
        let now = map.view();
        if map.check(born).is_err() {
            (model, discarded) = (BTreeMap::new(), discarded + 1);
        } else if !panicked || !is(&now, &model) {
            model = after;
        }
        whole += u64::from(panicked && map.check(born).is_ok());
        assert!(is(&now, &model), "step {nth}");
        if held.len() > 5 {
            let (view, model) = held.swap_remove(usize::try_from(nth % 5).unwrap());
            assert!(is(&view, &model), "step {nth}");
        }
    }
    println!("{whole} whole, {discarded} discarded");
    assert!(whole > 100 && discarded > 20);
}

/// What a transaction has made since lies in its own nodes, which it changes where they stand.
#[test]
fn a_transaction_that_panics_half_way_is_only_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<Frail, u64> = store.durable_map("frail").unwrap();
    let before: Vec<(u64, u64)> = (0..200).map(|n| (8 * n, n)).collect();
    let is_as_before = |store: &Store| {
        let view = store.view();
        let map: DurableMap<Frail, u64> = store.durable_map("frail").unwrap();
        let entries = map.iter(&view).map(|entry| entry.map(|(key, value)| (*key.0, *value)));
        entries.collect::<Result<Vec<_>, _>>().unwrap() == before
    };
    let fill = |tx: &mut _, nth: u64| {
        (0..200).try_for_each(|n| map.put(tx, Frail::new(8 * n + nth), n).map(drop))
    };
    store.transact(|tx| fill(tx, 0)).unwrap();
    let (mut half_way, mut calm, mut round) = (0, 0, 0);
    while calm < 2 {
        round += 1;
        let mut tx = store.begin();
        fill(&mut tx, 1).unwrap();
        // What it has made is not changed where it stands from here on.
        tx.attempt(|tx| map.put(tx, Frail::new(0), 2)).unwrap();
        // Copies leaves and what leads to them, and joins some.
        let change = || {
            let mut keys =
                (0..240).map(|n| 8 * (n / 120 * 60 + n % 3 * 20 + n % 120 / 6) + n / 3 % 2);
            keys.try_for_each(|key| map.remove(&mut tx, &Frail::new(key)).map(drop)).unwrap();
        };
        let (clones, drops) = if round % 2 == 0 { (u64::MAX, round / 2) } else { (round / 2, 0) };
        FUSE.set(drops);
        calm = if panics(clones, change) { 0 } else { calm + 1 };
        FUSE.set(0);
        // Not so if the key that was asked for was dropped, after the change.
        if let Err(error) = map.get(&tx, &Frail::new(0)) {
            let put = map.put(&mut tx, Frail::new(3), 3).unwrap_err();
            // It would go back to no more than that.
            let clear = tx.attempt(|tx| map.clear(tx)).unwrap_err();
            assert!([error, put, clear].iter().all(|error| error.kind() == ErrorKind::Invalid));
            half_way += 1;
        }
        drop(tx);
        assert!(is_as_before(&store), "round {round}");
        // Whatever room that left is used again.
        store.transact(|tx| fill(tx, 3).and_then(|()| fill(tx, 4))).unwrap();
        store
            .transact(|tx| {
                let keys = (0..200).flat_map(|n| [8 * n + 3, 8 * n + 4]);
                { keys }.try_for_each(|key| map.remove(tx, &Frail::new(key)).map(drop))
            })
            .unwrap();
        assert!(is_as_before(&store), "round {round}");
    }
    println!("{half_way} half way");
    assert!(half_way > 300);
    drop((store, map));
    assert!(is_as_before(&Store::open(dir.path()).unwrap()));
}
