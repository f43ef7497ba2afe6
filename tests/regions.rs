//! P7, P8 and the rules of regions: generations, staleness, names, removal.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{kind, within};
use rocstate::{
    DurableCell, DurableMap, Error, ErrorKind, Fenced, Readable, Region, Store, Submitted,
    Transaction, View, VolatileMap, VolatileView,
};
use serde::{Deserialize, Serialize};

type Map = DurableMap<u32, String>;

#[test]
fn volatile_state_is_empty_after_boot_and_never_on_disk() {
    const MARKER: &str = "a secret that must not be written";
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: Map = store.durable_map("map").unwrap();
    let volatile: VolatileMap<String, String> = store.volatile_map("volatile").unwrap();
    for n in 0..100 {
        volatile.insert(format!("{MARKER} {n}"), MARKER.into());
        store.transact(|tx| map.insert(tx, n, "durable".into())).unwrap();
    }
    store.checkpoint().unwrap();
    drop(store);
    for (path, bytes) in common::image(dir.path()) {
        let found = bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
        assert!(!found, "{} holds volatile state", path.display());
    }
    let store = Store::open(dir.path()).unwrap();
    assert!(store.volatile_map::<String, String>("volatile").unwrap().is_empty());
    assert_eq!(store.durable_map::<u32, String>("map").unwrap().len(&store.view()), 100);
}

#[test]
fn discarding_takes_no_longer_for_a_large_region() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: VolatileMap<u64, String> = store.volatile_map("large").unwrap();
    // The best of three: whoever measures may be interrupted.
    let took = (0..3).map(|_| {
        for n in 0..200_000 {
            map.insert(n, "some text to free".into());
        }
        let began = Instant::now();
        map.discard();
        assert!(map.is_empty());
        began.elapsed()
    });
    // Freeing so many entries on the spot takes tens of milliseconds.
    let best = took.min().unwrap();
    assert!(best < Duration::from_millis(3), "{best:?}");
}

/// Counts how often it is cloned.
#[derive(Debug, Serialize, Deserialize)]
struct Counting(u32);

static CLONES: AtomicUsize = AtomicUsize::new(0);

impl Clone for Counting {
    fn clone(&self) -> Self {
        CLONES.fetch_add(1, Ordering::SeqCst);
        Counting(self.0)
    }
}

#[test]
fn the_tree_clones_no_value() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, Counting> = store.durable_map("map").unwrap();
    let mut views = Vec::new();
    for n in 0..2000 {
        store.transact(|tx| map.insert(tx, n * 7 % 2000, Counting(n))).unwrap();
        if n % 100 == 0 {
            views.push(store.view());
        }
    }
    store.checkpoint().unwrap();
    assert_eq!(map.iter(&views[10]).count(), 1001);
    assert_eq!(CLONES.load(Ordering::SeqCst), 0);
    // What is handed out while a view still holds it has to be a clone.
    store.transact(|tx| map.remove(tx, &3)).unwrap();
    assert_eq!(CLONES.load(Ordering::SeqCst), 1);
}

#[test]
fn a_removed_region_is_gone_for_good_and_its_handles_are_stale() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let old: Map = store.durable_map("map").unwrap();
    assert!(!store.remove_region("map").unwrap(), "it does not exist before its first commit");
    store.transact(|tx| old.insert(tx, 1, "old".into())).unwrap();
    let before = store.view();
    let mut tx = store.begin();
    assert!(tx.remove_region("map").unwrap());
    assert!(!tx.remove_region("map").unwrap());
    assert_eq!(kind(old.get(&tx, &1)), ErrorKind::Stale);
    assert_eq!(kind(old.insert(&mut tx, 1, "x".into())), ErrorKind::Stale);
    tx.commit().unwrap();
    assert_eq!(old.get(&before, &1).unwrap().map(String::as_str), Some("old"));
    assert_eq!(kind(old.get(&store.view(), &1)), ErrorKind::Stale);
    assert_eq!(kind(old.check(old.generation())), ErrorKind::Stale);
    assert_eq!(kind(store.transact(|tx| old.insert(tx, 1, "x".into()))), ErrorKind::Stale);
    // Another one by this name, of another type, is another region.
    let new: DurableMap<String, u8> = store.durable_map("map").unwrap();
    assert!(new.generation() > old.generation());
    store.transact(|tx| new.insert(tx, "k".into(), 1)).unwrap();
    assert_eq!(kind(old.get(&store.view(), &1)), ErrorKind::Stale);
    store.checkpoint().unwrap();
    assert!(store.remove_region("map").unwrap());
    let volatile: VolatileMap<u8, u8> = store.volatile_map("v").unwrap();
    let born = volatile.generation();
    assert_eq!(kind(store.transact(|tx| tx.remove_region("v"))), ErrorKind::Invalid);
    assert!(store.remove_region("v").unwrap());
    assert_eq!(kind(volatile.check(born)), ErrorKind::Stale);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.regions().is_empty());
    let again: Map = store.durable_map("map").unwrap();
    assert!(again.is_empty(&store.view()));
}

static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// A value that counts how many of it there are.
#[derive(Serialize, Deserialize)]
#[serde(from = "u32", into = "u32")]
struct Counted(u32);

impl From<u32> for Counted {
    fn from(value: u32) -> Counted {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Counted(value)
    }
}

impl From<Counted> for u32 {
    fn from(value: Counted) -> u32 {
        value.0
    }
}

impl Clone for Counted {
    fn clone(&self) -> Counted {
        Counted::from(self.0)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn what_a_region_held_goes_when_it_is_cleared_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, Counted> = store.durable_map("map").unwrap();
    let others: Vec<Map> =
        (0..20).map(|n| store.durable_map(&format!("other {n}")).unwrap()).collect();
    let fill =
        || store.transact(|tx| (0..10).try_for_each(|key| map.put(tx, key, key.into()).map(drop)));
    let goes = || {
        let began = Instant::now();
        while ALIVE.load(Ordering::SeqCst) > 0 {
            assert!(began.elapsed() < Duration::from_secs(30), "{ALIVE:?} are left");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    fill().unwrap();
    fill().unwrap();
    store.transact(|tx| map.clear(tx)).unwrap();
    goes();
    fill().unwrap();
    store
        .transact(|tx| {
            tx.remove_region("map")?;
            others.iter().try_for_each(|other| other.put(tx, 1, String::new()).map(drop))
        })
        .unwrap();
    goes();
}

#[test]
fn names_and_sizes_beyond_their_limits_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    for name in ["", &"n".repeat(256)] {
        assert_eq!(kind(store.durable_map::<u8, u8>(name)), ErrorKind::Invalid);
        assert_eq!(kind(store.durable_cell::<u8>(name)), ErrorKind::Invalid);
        assert_eq!(kind(store.volatile_map::<u8, u8>(name)), ErrorKind::Invalid);
    }
    let longest = "é".repeat(127) + "x";
    let map: DurableMap<Vec<u8>, Vec<u8>> = store.durable_map(&longest).unwrap();
    let mut tx = store.begin();
    // Two bytes end an escaped key.
    let key = vec![1; (64 << 10) - 2];
    map.insert(&mut tx, key.clone(), vec![1]).unwrap();
    let too_long = vec![1; (64 << 10) - 1];
    assert_eq!(kind(map.insert(&mut tx, too_long.clone(), vec![])), ErrorKind::TooLarge);
    assert_eq!(map.remove(&mut tx, &too_long).unwrap(), None, "it cannot be there");
    let value = vec![0u8; (64 << 20) - 8];
    assert_eq!(kind(map.insert(&mut tx, vec![1], vec![0u8; 64 << 20])), ErrorKind::TooLarge);
    for n in 0..3 {
        map.insert(&mut tx, vec![n], value.clone()).unwrap();
    }
    let refused = map.insert(&mut tx, vec![9], value.clone());
    assert_eq!(kind(refused), ErrorKind::TooLarge);
    assert_eq!(map.len(&tx), 4);
    assert!(!map.contains_key(&tx, &[9u8]).unwrap());
    tx.commit().unwrap();
    drop((store, map));
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<Vec<u8>, Vec<u8>> = store.durable_map(&longest).unwrap();
    let view = store.view();
    assert_eq!(map.len(&view), 4);
    assert_eq!(map.get(&view, &key).unwrap(), Some(&vec![1]));
    assert_eq!(map.get(&view, &[2u8]).unwrap().map(Vec::len), Some(value.len()));
}

#[test]
fn ranges_and_prefixes_are_those_of_a_btree_map() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let words: DurableMap<String, u32> = store.durable_map("words").unwrap();
    let pairs: DurableMap<(u8, Reverse<u8>, String), ()> = store.durable_map("pairs").unwrap();
    store
        .transact(|tx| {
            for word in ["", "a", "ab", "abc", "b", "ba", "c"] {
                words.insert(tx, word.into(), 1)?;
            }
            for a in 0..3 {
                for b in 0..3 {
                    pairs.insert(tx, (a, Reverse(b), "x".into()), ())?;
                }
            }
            Ok(())
        })
        .unwrap();
    let view = store.view();
    let collect = |entries: rocstate::Iter<'_, String, u32>| -> Vec<String> {
        entries.map(|e| e.unwrap().0.clone()).collect()
    };
    assert_eq!(collect(words.range(&view, "ab".."ba")), ["ab", "abc", "b"]);
    assert_eq!(collect(words.range(&view, "ab"..="ba")), ["ab", "abc", "b", "ba"]);
    assert_eq!(collect(words.range(&view, String::from("b")..)), ["b", "ba", "c"]);
    assert_eq!(collect(words.range(&view, .."ab")), ["", "a"]);
    assert_eq!(collect(words.range(&view, ..="ab")), ["", "a", "ab"]);
    assert_eq!(collect(words.range(&view, "c".."a")), [""; 0]);
    assert_eq!(collect(words.range(&view, ..)).len(), 7);
    let excluded = (std::ops::Bound::Excluded("a"), std::ops::Bound::Excluded("b"));
    assert_eq!(collect(words.range(&view, excluded)), ["ab", "abc"]);
    assert_eq!(collect(words.prefix(&view, "ab")), ["ab", "abc"]);
    assert_eq!(collect(words.prefix(&view, "")).len(), 7);
    assert_eq!(words.first(&view).unwrap().unwrap().0, "");
    assert_eq!(words.last(&view).unwrap().unwrap().0, "c");
    let order: Vec<u8> = pairs.prefix(&view, &(1u8,)).map(|e| e.unwrap().0.1.0).collect();
    assert_eq!(order, [2, 1, 0]);
    assert_eq!(pairs.prefix(&view, &(1u8, Reverse(2u8))).count(), 1);
    assert_eq!(pairs.range(&view, (1u8, Reverse(1u8), "")..).count(), 5);
    let mut both = words.iter(&view);
    assert_eq!(both.next().unwrap().unwrap().0, "");
    assert_eq!(both.next_back().unwrap().unwrap().0, "c");
    assert_eq!(both.nth(1).unwrap().unwrap().0, "ab");
    assert_eq!(both.nth_back(1).unwrap().unwrap().0, "b");
    assert_eq!(both.count(), 1);
    assert_eq!(words.range(&view, ..="bb").last().unwrap().unwrap().0, "ba");
    let nowhere: DurableMap<u8, u8> = store.durable_map("nothing was committed").unwrap();
    assert_eq!(nowhere.iter(&view).count(), 0);
    assert!(nowhere.iter(&view).last().is_none());
    let other = Store::open(tempfile::tempdir().unwrap().path()).unwrap();
    assert_eq!(words.iter(&other.view()).count(), 1, "the error");
    assert_eq!(kind(words.iter(&other.view()).last().unwrap()), ErrorKind::Stale);

    let cache = store.volatile_map::<u8, u8>("cache").unwrap();
    for key in 0..100 {
        cache.insert(key, key);
    }
    let view = cache.view();
    assert_eq!(view.iter().nth(40), Some((&40, &40)));
    assert_eq!(view.iter().nth_back(40), Some((&59, &59)));
    assert_eq!(view.range(10..20).count(), 10);
    assert_eq!(view.range(10..20).last(), Some((&19, &19)));
}

#[test]
fn ten_thousand_regions_are_declared_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let maps: Vec<DurableMap<u32, u32>> =
        (0..10_000).map(|n| store.durable_map(&format!("region {n}")).unwrap()).collect();
    store
        .transact(|tx| {
            for (n, map) in (0u32..).zip(&maps) {
                map.insert(tx, n, n)?;
            }
            Ok(())
        })
        .unwrap();
    store.checkpoint().unwrap();
    store.transact(|tx| maps[77].insert(tx, 1, 1)).unwrap();
    drop((store, maps));
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.boot_report().regions, 10_000);
    let map: DurableMap<u32, u32> = store.durable_map("region 77").unwrap();
    assert_eq!(map.len(&store.view()), 2);
    // Undeclared regions are carried along through checkpoints.
    store.transact(|tx| map.insert(tx, 2, 2)).unwrap();
    store.checkpoint().unwrap();
    drop((store, map));
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u32, u32> = store.durable_map("region 9999").unwrap();
    assert_eq!(map.get(&store.view(), &9999).unwrap(), Some(&9999));
}

#[test]
fn the_public_types_are_what_threads_and_futures_need() {
    fn reads<R: Readable>(at: R) -> u64 {
        at.lsn().get()
    }
    fn shared<T>()
    where
        T: Send + Sync + Unpin + std::fmt::Debug + 'static,
        T: std::panic::UnwindSafe + std::panic::RefUnwindSafe,
    {
    }
    fn cloned<T: Clone>() {}
    struct Opaque;
    shared::<Store>();
    shared::<DurableMap<std::rc::Rc<u8>, Opaque>>();
    shared::<DurableCell<Opaque>>();
    shared::<VolatileMap<u8, std::sync::mpsc::Sender<u8>>>();
    shared::<Fenced<u8, Instant>>();
    shared::<View>();
    shared::<VolatileView<u8, u8>>();
    shared::<Submitted>();
    shared::<Error>();
    cloned::<DurableMap<Opaque, Opaque>>();
    cloned::<VolatileMap<u8, u8>>();
    cloned::<(Store, View, Error, rocstate::Options)>();
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let dynamic: &dyn Readable = &store.view();
    let map: Map = store.durable_map("m").unwrap();
    assert!(map.is_empty(dynamic));
    let by_name: Arc<str> = Region::name(&map).into();
    assert_eq!(&*by_name, "m");
    let mut tx: Transaction = store.begin();
    assert_eq!(reads(&tx) + reads(&mut tx) + reads(store.view()), 0);
}

#[test]
fn a_name_is_free_again_before_its_removal_is_visible() {
    let dir = tempfile::tempdir().unwrap();
    let disk = common::FaultyDisk::default();
    let store = Store::options().storage(disk.clone()).open(dir.path()).unwrap();
    let old: Map = store.durable_map("map").unwrap();
    store.transact(|tx| old.insert(tx, 1, "old".into())).unwrap();
    disk.0.hold_syncs();
    let removal = store.submit(|tx| tx.remove_region("map"));
    // Readers still see the old one; what is declared now is another one.
    let new: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    let insert = store.submit(|tx| new.insert(tx, 1, 1));
    assert_eq!(old.get(&store.view(), &1).unwrap().map(String::as_str), Some("old"));
    assert!(new.is_empty(&store.view()));
    disk.0.release_syncs();
    assert!(removal.wait().unwrap());
    insert.wait().unwrap();
    assert_eq!(new.get(&store.view(), &1).unwrap(), Some(&1));
    assert_eq!(kind(old.get(&store.view(), &1)), ErrorKind::Stale);
    drop((store, old, new));
    let store = Store::open(dir.path()).unwrap();
    let new: DurableMap<u64, u64> = store.durable_map("map").unwrap();
    assert_eq!(new.len(&store.view()), 1);
}

/// A connection that looks at the list of those that are open when it ends.
struct Connection {
    number: u64,
    open: VolatileMap<u64, Arc<Connection>>,
    ended: VolatileMap<u64, usize>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.update(&u64::MAX, |_| ());
        self.ended.insert(self.number, self.open.len());
    }
}

/// Destructors run without the lock of the map: they may use it.
#[test]
fn a_destructor_may_use_the_map_that_it_was_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    within(Duration::from_secs(60), move || {
        let store = Store::open(path).unwrap();
        let open: VolatileMap<u64, Arc<Connection>> = store.volatile_map("open").unwrap();
        let ended = store.volatile_map("ended").unwrap();
        let connect = |number: u64| {
            let connection = Connection { number, open: open.clone(), ended: ended.clone() };
            open.insert(number % 100, Arc::new(connection));
        };
        let mut views = Vec::new();
        for number in 0..5_000 {
            connect(number);
            // What views see is freed after them, by whoever changes the map then.
            if number % 50 == 0 {
                views.push(open.view());
            }
            if number % 500 == 0 {
                views.clear();
            }
        }
        views.clear();
        assert_eq!(open.retain(|number, _| number % 2 == 0), 50);
        open.clear();
        (0..100).for_each(connect);
        open.discard();
        (0..100).for_each(connect);
        let fenced = open.fenced(open.generation());
        assert_eq!(fenced.retain(|number, _| *number < 10).unwrap(), 90);
        assert_eq!(open.len(), 10);
        open.discard();
        assert!(ended.len() > 4_900, "{} ended", ended.len());
    });
}
