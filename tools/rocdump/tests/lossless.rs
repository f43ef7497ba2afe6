//! Every traceable shape goes to JSON and back without a bit changed, and is what `serde_json` writes.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test that fails says where")]
#![allow(
    clippy::option_option,
    clippy::zero_sized_map_values,
    clippy::struct_field_names,
    reason = "what others may have is to be tried"
)]

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use common::{rocdump, text};
use fastrand::Rng;
use rocdump::Exit;
use rocstate::{DurableCell, DurableMap, Key, Store, Value};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Scalars(bool, i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, char, String);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Floats {
    single: f32,
    double: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(Option<u8>);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    One(Box<Tree>),
    Two(Box<Tree>, Box<Tree>),
    Named { left: Option<Box<Tree>>, value: i16 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Options {
    plain: Option<u32>,
    twice: Option<Option<u32>>,
    unit: Option<()>,
    nothing: Option<Nothing>,
    wrapped: Option<Wrapped>,
    many: Vec<Option<Option<Option<bool>>>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Maps {
    by_text: BTreeMap<String, i32>,
    by_number: BTreeMap<i64, Nothing>,
    by_wide: BTreeMap<u128, u8>,
    by_letter: BTreeMap<char, char>,
    by_truth: HashMap<bool, String>,
    by_pair: BTreeMap<(u8, String), Vec<u8>>,
    by_option: BTreeMap<Option<u8>, ()>,
}

fn letters(random: &mut Rng) -> String {
    (0..random.usize(..6)).map(|_| random.char(..)).collect()
}

fn tree(random: &mut Rng, depth: usize) -> Tree {
    match if depth == 0 { 0 } else { random.u8(..4) } {
        0 => Tree::Leaf,
        1 => Tree::One(Box::new(tree(random, depth - 1))),
        2 => Tree::Two(Box::new(tree(random, depth - 1)), Box::new(tree(random, depth - 1))),
        _ => Tree::Named {
            left: if random.bool() { Some(Box::new(tree(random, depth - 1))) } else { None },
            value: random.i16(..),
        },
    }
}

fn maybe<T>(random: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    if random.bool() { Some(make(random)) } else { None }
}

fn scalars(random: &mut Rng) -> Scalars {
    Scalars(
        random.bool(),
        random.i8(..),
        random.i16(..),
        random.i32(..),
        random.i64(..),
        random.i128(..),
        random.u8(..),
        random.u16(..),
        random.u32(..),
        random.u64(..),
        random.u128(..),
        random.char(..),
        letters(random),
    )
}

/// Any bits, so that infinities, zeros of both signs and every NaN come by.
fn floats(random: &mut Rng) -> Floats {
    let special = [0x7fc0_0001u32, 0xff80_0000, 0x8000_0000, 1, 0x7f80_0000, 0x7f7f_ffff];
    let single = if random.bool() { random.u32(..) } else { special[random.usize(..6)] };
    Floats { single: f32::from_bits(single), double: f64::from_bits(random.u64(..)) }
}

fn options(random: &mut Rng) -> Options {
    Options {
        plain: maybe(random, |random| random.u32(..)),
        twice: maybe(random, |random| maybe(random, |random| random.u32(..))),
        unit: maybe(random, |_| ()),
        nothing: maybe(random, |_| Nothing),
        wrapped: maybe(random, |random| Wrapped(maybe(random, |random| random.u8(..)))),
        many: (0..random.usize(..4))
            .map(|_| maybe(random, |r| maybe(r, |r| maybe(r, Rng::bool))))
            .collect(),
    }
}

fn maps(random: &mut Rng) -> Maps {
    let count = random.usize(..4);
    Maps {
        by_text: (0..count).map(|_| (letters(random), random.i32(..))).collect(),
        by_number: (0..count).map(|_| (random.i64(..), Nothing)).collect(),
        by_wide: (0..count).map(|_| (random.u128(..), random.u8(..))).collect(),
        by_letter: (0..count).map(|_| (random.char(..), random.char(..))).collect(),
        by_truth: (0..count).map(|_| (random.bool(), letters(random))).collect(),
        by_pair: (0..count)
            .map(|_| ((random.u8(..), letters(random)), letters(random).into_bytes()))
            .collect(),
        by_option: (0..count).map(|_| (maybe(random, |random| random.u8(..)), ())).collect(),
    }
}

fn fill<K: Key, V: Value>(
    store: &Store,
    name: &str,
    seed: u64,
    key: impl Fn(&mut Rng) -> K,
    value: impl Fn(&mut Rng) -> V,
) {
    let map: DurableMap<K, V> = store.durable_map(name).unwrap();
    let mut random = Rng::with_seed(seed);
    store
        .transact(|tx| {
            for _ in 0..200 {
                let (key, value) = (key(&mut random), value(&mut random));
                map.insert(tx, key, value)?;
            }
            Ok(())
        })
        .unwrap();
}

fn filled(path: &Path, seed: u64) -> Store {
    let store = Store::open(path).unwrap();
    fill(&store, "scalars", seed, |r| r.u8(..), scalars);
    fill(&store, "floats", seed + 1, |r| r.i8(..), floats);
    fill(&store, "trees", seed + 2, |r| r.u16(..), |r| tree(r, 5));
    fill(&store, "options", seed + 3, |r| r.i16(..), options);
    fill(&store, "maps", seed + 4, |r| r.u32(..), maps);
    fill(&store, "text keys", seed + 5, letters, |r| [r.u8(..), r.u8(..)]);
    fill(&store, "byte keys", seed + 6, |r| letters(r).into_bytes(), |r| (r.u8(..), letters(r)));
    fill(&store, "array keys", seed + 7, |r| [r.u8(..), r.u8(..), r.u8(..)], |_| ());
    fill(&store, "letters", seed + 8, |r| r.char(..), |_| Nothing);
    fill(&store, "wide keys", seed + 9, |r| (r.i128(..), r.u128(..)), |r| r.i128(..));
    fill(&store, "signed keys", seed + 10, |r| (r.i32(..), r.i64(..)), |r| r.u128(..));
    let options = |r: &mut Rng| maybe(r, |r| maybe(r, Rng::bool));
    fill(&store, "option keys", seed + 11, options, |r| Some(r.u64(..)));
    let reversed = |r: &mut Rng| (Reverse(letters(r)), Reverse(maybe(r, |r| r.i64(..))), r.u64(..));
    fill(&store, "reversed keys", seed + 12, reversed, |r| Ok::<u8, String>(r.u8(..)));
    let cell: DurableCell<(f32, f64)> = store.durable_cell("cell").unwrap();
    store.transact(|tx| cell.set(tx, (0.1, -0.0))).unwrap();
    store
}

/// The encoded entries of a store, in hexadecimal: what no decoding comes between.
fn encoded(path: &Path) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let snapshot = rocstate::inspect::Inspector::open(path).unwrap().snapshot(None).unwrap();
    let mut all = Vec::new();
    for region in &snapshot.regions {
        region
            .walk(&[], None, |walked| {
                let rocstate::inspect::Walked::Entry { key, value } = walked else {
                    panic!("{walked:?}")
                };
                all.push((region.name.clone(), key.to_vec(), value.to_vec()));
                Ok(std::ops::ControlFlow::Continue(()))
            })
            .unwrap();
    }
    all
}

#[test]
fn every_shape_comes_back_from_json_to_the_same_bytes() {
    for seed in [100, 200, 300] {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(&dir.path().join("store"), seed));
        let store = dir.path().join("store");
        let exported = rocdump(&["export", text(&store)]).expect(Exit::Fine).out;
        let file = dir.path().join("export");
        fs::write(&file, &exported).unwrap();
        let copy = dir.path().join("copy");
        rocdump(&["import", text(&copy), text(&file)]).expect(Exit::Fine);
        assert_eq!(encoded(&copy), encoded(&store));
        // Only floats whose bits have no numeral go as bytes.
        let as_bytes: Vec<&str> =
            exported.lines().filter(|line| line.contains("_hex\":")).collect();
        assert!(as_bytes.iter().all(|line| line.contains("{\"key\":")), "{as_bytes:?}");
        assert!(as_bytes.len() < 20, "{as_bytes:?}");
        // A program that knows the types opens it.
        drop(filled(&copy, seed));
        rocdump(&["verify", "--deep", text(&copy)]).expect(Exit::Fine);
    }
}

#[test]
fn values_are_what_serde_json_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path(), 7);
    let view = store.view();
    let trees: DurableMap<u16, Tree> = store.durable_map("trees").unwrap();
    for entry in trees.iter(&view) {
        let (key, tree) = entry.unwrap();
        let got = rocdump(&["--json", "get", text(dir.path()), "trees", &key.to_string()]);
        assert_eq!(got.expect(Exit::Fine).json()["value"], serde_json::to_value(tree).unwrap());
    }
    let texts: DurableMap<String, [u8; 2]> = store.durable_map("text keys").unwrap();
    for entry in texts.iter(&view) {
        let (key, value) = entry.unwrap();
        let quoted = serde_json::to_string(key).unwrap();
        let got =
            rocdump(&["--json", "get", text(dir.path()), "text keys", &quoted]).expect(Exit::Fine);
        assert_eq!(got.json()["key"], serde_json::to_value(key).unwrap());
        assert_eq!(got.json()["value"], serde_json::to_value(value).unwrap());
    }
}

#[test]
fn an_import_says_which_line_is_wrong_and_makes_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let map: DurableMap<u32, Scalars> = store.durable_map("map").unwrap();
    let mut random = Rng::with_seed(1);
    store
        .transact(|tx| {
            map.insert(tx, 1, scalars(&mut random))?;
            map.insert(tx, 2, scalars(&mut random))
        })
        .unwrap();
    drop(store);
    let exported = rocdump(&["export", text(&dir.path().join("store"))]).expect(Exit::Fine).out;
    let lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines.len(), 4);
    let wrong = [
        (1, "{}".to_owned()),
        (1, lines[0].replace("\"rocdump\":1", "\"rocdump\":2")),
        (2, lines[1].replace("\"schema\":\"", "\"schema\":\"ff")),
        (3, lines[2].replace("\"key\":1", "\"key\":-1")),
        (3, lines[2].replace("\"value\":[", "\"value\":[0,")),
        (3, "no json".to_owned()),
        (4, lines[2].to_owned()),
        (4, lines[1].to_owned()),
    ];
    for (number, line) in wrong {
        let mut changed = lines.clone();
        changed[number - 1] = &line;
        let file = dir.path().join("export");
        fs::write(&file, changed.join("\n")).unwrap();
        let copy = dir.path().join("copy");
        let ran = rocdump(&["import", text(&copy), text(&file)]).expect(Exit::Usage);
        assert!(ran.errors.contains(&format!("line {number}")), "{line}: {}", ran.errors);
        // What was begun is refused, not taken for an empty store.
        if copy.exists() {
            assert!(Store::open(&copy).is_err());
            fs::remove_dir_all(&copy).unwrap();
        }
    }
}
