//! P3, P6: a read-only store that moves on with its writer shows each time what there was after some commit, whatever
//! the writer does, and what it had read stays read.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test that fails says where"
)]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::followed::{Map, filled, follow, following, open};
use common::settings::{seeded, setting};
use common::{eventually, files, within};
use proptest::prelude::*;
use rocstate::{Durability, DurableMap, ErrorKind, RegionInfo, Store, View, Warming};

/// What each region holds.
type Model = BTreeMap<String, BTreeMap<u32, String>>;

#[derive(Clone, Debug)]
enum Step {
    Put {
        region: u8,
        from: u32,
        step: u32,
        count: u32,
    },
    Remove {
        region: u8,
        from: u32,
        count: u32,
    },
    Clear(u8),
    RemoveRegion(u8),
    /// One commit that removes a region and puts something into another one.
    Both(u8, u8),
    Checkpoint,
    Reopen,
    /// What was committed can be seen from here on.
    Tend,
    Refresh(usize),
    Declare(usize, u8),
    Look(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..3u8, 0..3000u32, 1..60u32, 1..120u32)
            .prop_map(|(region, from, step, count)| Step::Put { region, from, step, count }),
        2 => (0..3u8, 0..3000u32, 1..600u32)
            .prop_map(|(region, from, count)| Step::Remove { region, from, count }),
        1 => (0..3u8).prop_map(Step::Clear),
        1 => (0..3u8).prop_map(Step::RemoveRegion),
        1 => (0..3u8, 0..3u8).prop_map(|(gone, put)| Step::Both(gone, put)),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        4 => Just(Step::Tend),
        6 => (0..2usize).prop_map(Step::Refresh),
        2 => (0..2usize, 0..3u8).prop_map(|(reader, region)| Step::Declare(reader, region)),
        2 => (0..2usize).prop_map(Step::Look),
    ]
}

fn name(region: u8) -> String {
    format!("region {region}")
}

/// The writer, and what there was after each of its commits.
struct Writer {
    store: Store,
    now: Model,
    history: Vec<Model>,
    version: u32,
}

impl Writer {
    fn map(&self, region: u8) -> Map {
        self.store.durable_map(&name(region)).unwrap()
    }

    fn committed(&mut self) {
        if self.store.visible_lsn().get() as usize == self.history.len() {
            self.history.push(self.now.clone());
        }
        assert_eq!(self.store.visible_lsn().get() as usize + 1, self.history.len());
    }

    fn put(&mut self, region: u8, keys: impl Iterator<Item = u32> + Clone) {
        let (map, version) = (self.map(region), self.version);
        let value = |key| format!("{version} of {key}");
        self.store
            .transact(|tx| keys.clone().try_for_each(|key| map.put(tx, key, value(key)).map(drop)))
            .unwrap();
        self.now.entry(name(region)).or_default().extend(keys.map(|key| (key, value(key))));
    }

    fn run(&mut self, step: &Step, path: &Path) {
        self.version += 1;
        match *step {
            Step::Put { region, from, step, count } => {
                self.put(region, (from..).step_by(step as usize).take(count as usize));
            }
            Step::Remove { region, from, count } if self.now.contains_key(&name(region)) => {
                let (map, keys) = (self.map(region), from..from + count);
                self.store.transact(|tx| map.retain(tx, keys.clone(), |_, _| false)).unwrap();
                self.now.get_mut(&name(region)).unwrap().retain(|key, _| !keys.contains(key));
            }
            Step::Clear(region) if self.now.contains_key(&name(region)) => {
                let map = self.map(region);
                self.store.transact(|tx| map.clear(tx)).unwrap();
                self.now.insert(name(region), BTreeMap::new());
            }
            Step::RemoveRegion(region) => {
                self.store.remove_region(&name(region)).unwrap();
                self.now.remove(&name(region));
            }
            Step::Both(gone, put) if gone != put => {
                let (map, text) = (self.map(put), self.version.to_string());
                self.store
                    .transact(|tx| {
                        tx.remove_region(&name(gone))?;
                        map.put(tx, 1, text.clone())
                    })
                    .unwrap();
                self.now.remove(&name(gone));
                self.now.entry(name(put)).or_default().insert(1, text);
            }
            Step::Checkpoint => drop(self.store.checkpoint().unwrap()),
            Step::Tend => self.store.tend().unwrap(),
            Step::Reopen => {
                // The lock has to go first.
                self.store = Store::options().read_only(true).open(path).unwrap();
                self.store = open(path);
            }
            _ => {}
        }
        self.committed();
    }
}

/// One that follows, the regions that it has asked for, and views that it took on the way.
struct Reader {
    store: Store,
    declared: Vec<u8>,
    views: Vec<(View, Map, BTreeMap<u32, String>)>,
}

fn same(map: &Map, view: &View, model: &BTreeMap<u32, String>) {
    assert_eq!(map.len(view), model.len());
    let found = map.iter(view).map(Result::unwrap);
    assert!(found.eq(model.iter()), "at {view:?}");
}

impl Reader {
    fn count(&self, history: &[Model]) {
        let model = &history[self.store.visible_lsn().get() as usize];
        let regions = self.store.regions();
        let lens: BTreeMap<_, _> =
            regions.iter().map(|region| (&region.name, region.len)).collect();
        for (name, entries) in model {
            assert_eq!(lens.get(name), Some(&entries.len()), "{name}");
        }
    }

    fn look(&self, history: &[Model]) {
        let view = self.store.view();
        let model = &history[view.lsn().get() as usize];
        for region in &self.declared {
            let map: Map = self.store.durable_map(&name(*region)).unwrap();
            let entries = model.get(&name(*region));
            same(&map, &view, entries.unwrap_or(&BTreeMap::new()));
        }
    }

    fn keep(&mut self, history: &[Model]) {
        let view = self.store.view();
        let model = &history[view.lsn().get() as usize];
        for region in &self.declared {
            let map: Map = self.store.durable_map(&name(*region)).unwrap();
            if let Some(entries) = model.get(&name(*region)) {
                self.views.push((view.clone(), map, entries.clone()));
            }
        }
    }
}

fn run(steps: &[Step]) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut writer = Writer { store, now: Model::new(), history: vec![Model::new()], version: 0 };
    writer.put(0, 0..2_000);
    writer.committed();
    writer.store.tend().unwrap();
    let reader = |warming| {
        let store = follow(dir.path(), warming);
        Reader { store, declared: Vec::new(), views: Vec::new() }
    };
    let mut readers = [reader(Warming::OnDemand), reader(Warming::Eager)];
    for step in steps {
        match *step {
            Step::Refresh(at) => {
                let before = readers[at].store.visible_lsn();
                let lsn = readers[at].store.refresh().unwrap();
                assert!(lsn >= before && readers[at].store.view().lsn() == lsn);
                // The second one is eager.
                let regions = readers[at].store.regions();
                let is_warm = |region: &RegionInfo| !region.declared || region.cold == 0;
                assert!(at == 0 || regions.iter().all(is_warm), "{regions:?}");
                readers[at].count(&writer.history);
                // Of the first one nothing is read before the end, so that something is cold.
                match at {
                    0 => readers[at].keep(&writer.history),
                    _ => readers[at].look(&writer.history),
                }
            }
            Step::Declare(at, region) if !readers[at].declared.contains(&region) => {
                readers[at].declared.push(region);
            }
            Step::Look(at) => {
                readers[at].look(&writer.history);
                readers[at].keep(&writer.history);
            }
            _ => writer.run(step, dir.path()),
        }
    }
    writer.store.tend().unwrap();
    for reader in &mut readers {
        assert_eq!(reader.store.refresh().unwrap(), writer.store.visible_lsn());
        reader.declared = vec![0, 1, 2];
        reader.look(&writer.history);
        reader.keep(&writer.history);
        reader.views.iter().for_each(|(view, map, model)| same(map, view, model));
        assert!(reader.store.stats().healed.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: setting("ROCSTATE_CASES", 48), ..ProptestConfig::default() })]

    #[test]
    fn whoever_follows_sees_what_was_committed(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}

#[test]
fn what_may_still_be_lost_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 10, 1);
    let reader = follow(dir.path(), Warming::default());
    let followed: Map = reader.durable_map("map").unwrap();
    for key in 10..20 {
        let mut tx = store.begin();
        map.put(&mut tx, key, "new".into()).unwrap();
        tx.commit_with(Durability::Process).unwrap();
        reader.refresh().unwrap();
        assert_eq!(followed.len(&reader.view()), key as usize, "it is not synced");
        store.tend().unwrap();
        assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        assert_eq!(followed.len(&reader.view()), key as usize + 1);
    }
}

/// One region has the keys that the other one has not.
#[test]
fn readers_beside_a_refresh_see_whole_commits() {
    const KEYS: u32 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let options = Store::options().segment_bytes(256 << 10).durability(Durability::Process);
    let store = options.boot_budget(Duration::from_millis(5)).open(dir.path()).unwrap();
    let [left, right]: [Map; 2] = ["left", "right"].map(|name| store.durable_map(name).unwrap());
    let text = |key: u32| key.to_string();
    store
        .transact(|tx| (0..KEYS).try_for_each(|key| left.put(tx, key, text(key)).map(drop)))
        .unwrap();
    store.sync().unwrap();
    let reader = Store::options().read_only(true).open(dir.path()).unwrap();
    let [from, to]: [Map; 2] = ["left", "right"].map(|name| reader.durable_map(name).unwrap());
    eventually("all is there", || {
        reader.refresh().unwrap();
        from.len(&reader.view()) == KEYS as usize
    });
    let (stop, moves) = (AtomicBool::new(false), AtomicU64::new(0));
    let is_whole = |view: &View| {
        let mut keys: Vec<u32> =
            from.iter(view).chain(to.iter(view)).map(|e| *e.unwrap().0).collect();
        keys.sort_unstable();
        keys.into_iter().eq(0..KEYS)
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let held = reader.view();
                while !stop.load(Ordering::Relaxed) {
                    assert!(is_whole(&reader.view()));
                }
                assert!(is_whole(&held));
            });
        }
        scope.spawn(|| {
            let mut seen = reader.visible_lsn();
            while !stop.load(Ordering::Relaxed) {
                let lsn = reader.refresh().unwrap();
                moves.fetch_add(u64::from(lsn > seen), Ordering::Relaxed);
                seen = lsn;
            }
        });
        let mut random = fastrand::Rng::with_seed(seeded(5));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            let first = random.u32(..KEYS);
            store
                .transact(|tx| {
                    for key in first..(first + random.u32(1..40)).min(KEYS) {
                        let (out, into) = if left.contains_key(&*tx, &key)? {
                            (&left, &right)
                        } else {
                            (&right, &left)
                        };
                        out.remove(tx, &key)?;
                        into.put(tx, key, text(key))?;
                    }
                    Ok(())
                })
                .unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    let moves = moves.into_inner();
    assert!(moves > 3, "it moved {moves} times");
}

#[test]
fn damage_is_told_and_what_was_visible_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 10, 1);
    let reader = follow(dir.path(), Warming::default());
    let followed: Map = reader.durable_map("map").unwrap();
    let before = reader.visible_lsn();
    store.transact(|tx| map.put(tx, 1, "damaged and".repeat(100))).unwrap();
    store.transact(|tx| map.put(tx, 2, "not damaged".repeat(100))).unwrap();
    store.tend().unwrap();
    let newest = files(dir.path(), "log-").pop().unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let at = bytes.windows(11).position(|window| window == b"damaged and").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    assert_eq!(reader.refresh().unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(reader.visible_lsn(), before);
    assert_eq!(followed.get(&reader.view(), &1).unwrap().unwrap(), "1");
    bytes[at] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
    assert_eq!(followed.get(&reader.view(), &2).unwrap().unwrap().len(), 1100);
}

#[test]
fn a_flipped_bit_is_told_or_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let (store, map) = filled(dir.path(), 500, 20);
    let reader = follow(dir.path(), Warming::OnDemand);
    let followed: Map = reader.durable_map("map").unwrap();
    let now = || {
        let view = store.view();
        let entries = map.iter(&view).map(Result::unwrap).map(|(key, value)| (*key, value.clone()));
        (view.lsn(), entries.collect::<BTreeMap<_, _>>())
    };
    let mut history: BTreeMap<_, _> = [now()].into();
    let mut random = fastrand::Rng::with_seed(seeded(11));
    let mut refused = 0;
    for round in 0..60 {
        let key = random.u32(..600);
        store.transact(|tx| map.put(tx, key, format!("round {round}")).map(drop)).unwrap();
        if round % 20 == 19 {
            store.checkpoint().unwrap();
        }
        store.tend().unwrap();
        history.extend([now()]);
        // Mostly of what came last.
        let mut paths = files(dir.path(), "");
        paths.push(dir.path().join("LOCK"));
        let newest = files(dir.path(), "log-").pop().unwrap();
        let (path, near) = match random.u8(..4) {
            0 => (random.choice(paths).unwrap(), usize::MAX),
            _ => (newest, 12 << 10),
        };
        let mut bytes = std::fs::read(&path).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let from = end.saturating_sub(near);
        let mut places = std::iter::repeat_with(|| random.usize(from..end));
        let at = places.find(|at| bytes[*at] != 0).unwrap();
        let bit = 1 << random.u8(..8);
        bytes[at] ^= bit;
        std::fs::write(&path, &bytes).unwrap();
        let same = |lsn| {
            let (view, expected) = (reader.view(), &history[&lsn]);
            assert_eq!(followed.len(&view), expected.len());
            for (key, value) in followed.iter(&view).filter_map(Result::ok) {
                assert_eq!(expected.get(key), Some(value));
            }
        };
        match reader.refresh() {
            Ok(lsn) => same(lsn),
            Err(error) => {
                refused += 1;
                assert_ne!(error.kind(), ErrorKind::Io, "{error}");
                same(reader.visible_lsn());
            }
        }
        bytes[at] ^= bit;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(reader.refresh().unwrap(), store.visible_lsn());
        same(store.visible_lsn());
    }
    assert!(refused > 5, "{refused} refused");
}

/// A number that refreshes the store that follows where it is decoded, and where it ends.
#[derive(Clone, Debug, serde::Serialize)]
struct Restless(u32);

static FOLLOWER: RwLock<Option<Store>> = RwLock::new(None);
static REFUSED: AtomicU64 = AtomicU64::new(0);

fn refresh_again() {
    let follower = FOLLOWER.try_read().ok().and_then(|follower| follower.clone());
    if let Some(Err(error)) = follower.map(|follower| follower.refresh()) {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        REFUSED.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        refresh_again();
    }
}

impl<'de> serde::Deserialize<'de> for Restless {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Restless, D::Error> {
        refresh_again();
        u32::deserialize(from).map(Restless)
    }
}

#[test]
fn a_refresh_does_not_wait_for_itself() {
    within(Duration::from_secs(60), || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let map: DurableMap<u32, Restless> = store.durable_map("map").unwrap();
        store.transact(|tx| map.put(tx, 0, Restless(0))).unwrap();
        let follower = following().open(dir.path()).unwrap();
        let seen: DurableMap<u32, Restless> = follower.durable_map("map").unwrap();
        for round in 1..9 {
            let mut tx = store.begin();
            if round % 2 == 0 {
                // What it held ends when the state does that is replaced.
                map.clear(&mut tx).unwrap();
            }
            for key in 0..3_000 {
                map.put(&mut tx, key, Restless(round)).unwrap();
            }
            tx.commit().unwrap();
            let lsn = store.sync().unwrap();
            *FOLLOWER.write().unwrap() = Some(follower.clone());
            while follower.refresh().unwrap() < lsn {
                std::thread::sleep(Duration::from_millis(1));
            }
            FOLLOWER.write().unwrap().take();
            let view = follower.view();
            assert!(seen.iter(&view).all(|entry| entry.unwrap().1.0 == round));
        }
        assert!(REFUSED.load(Ordering::Relaxed) > 0);
    });
}
