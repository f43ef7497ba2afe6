//! Types and what is stored of them: other shapes, what cannot be read back, what cannot be traced.

#![allow(missing_docs, reason = "a test that fails says where")]

mod common;

use common::kind;
use rocstate::{DurableMap, ErrorKind, Store};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    owner: String,
    cents: i64,
}

mod changed {
    use super::{Deserialize, Serialize};
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub(crate) struct Account {
        pub(crate) owner: String,
        pub(crate) cents: u64,
        pub(crate) open: bool,
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Twin {
    owner: String,
    cents: i64,
}

#[test]
fn another_shape_is_refused_and_shown_field_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u64, Account> = store.durable_map("accounts").unwrap();
    store.transact(|tx| map.insert(tx, 1, Account { owner: "a".into(), cents: 1 })).unwrap();
    for round in 0..2 {
        let store = if round == 0 { store.clone() } else { Store::open(dir.path()).unwrap() };
        let error = store.durable_map::<u64, changed::Account>("accounts").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SchemaMismatch);
        assert_eq!(error.region(), Some("accounts"));
        let text = error.to_string();
        assert!(text.contains("value.cents: stored i64, declared u64"), "{text}");
        assert!(text.contains("value.open: stored no such field, declared bool"), "{text}");
        let error = store.durable_map::<u32, Account>("accounts").unwrap_err();
        assert!(error.to_string().contains("key: stored u64, declared u32"), "{error}");
        assert_eq!(kind(store.durable_cell::<Account>("accounts")), ErrorKind::SchemaMismatch);
        assert_eq!(kind(store.volatile_map::<u8, u8>("accounts")), ErrorKind::SchemaMismatch);
        // The same shape by another name, or another Rust type, is another type.
        assert_eq!(kind(store.durable_map::<u64, Twin>("accounts")), ErrorKind::SchemaMismatch);
        assert!(store.durable_map::<u64, Account>("accounts").is_ok());
        if round == 0 {
            drop(store);
        }
        if round == 0 {
            break;
        }
    }
    let store2 = store.clone();
    drop((store, store2, map));
    let store = Store::open(dir.path()).unwrap();
    let error = store.durable_map::<u64, changed::Account>("accounts").unwrap_err();
    assert!(error.to_string().contains("value.cents"), "{error}");
    let map: DurableMap<u64, Account> = store.durable_map("accounts").unwrap();
    let view = store.view();
    assert_eq!(map.get(&view, &1).unwrap(), Some(&Account { owner: "a".into(), cents: 1 }));
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Text(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Number { n: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<u8>,
    n: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SkipsSome {
    #[serde(skip_serializing_if = "is_five")]
    n: u64,
    m: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_five(n: &u64) -> bool {
    *n == 5
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Lopsided {
    #[serde(skip_serializing, default)]
    #[expect(dead_code, reason = "only its absence matters")]
    gone: u64,
    n: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Harmless {
    #[serde(skip)]
    cached: u64,
    #[serde(default)]
    n: u64,
    inner: Option<Box<Harmless>>,
    kind: Vec<Kind>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    With(String, Option<Nested>),
    Named { n: i8 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Nested {
    A,
    B(u8),
}

#[test]
fn what_cannot_be_read_back_is_refused_before_anything_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(kind(store.durable_map::<u8, Untagged>("u")), ErrorKind::Unsupported);
    assert_eq!(kind(store.durable_map::<u8, Tagged>("t")), ErrorKind::Unsupported);
    assert_eq!(kind(store.durable_map::<u8, Lopsided>("l")), ErrorKind::Unsupported);
    assert_eq!(kind(store.durable_map::<u8, serde_json::Value>("j")), ErrorKind::Unsupported);
    let skipping: DurableMap<u8, Skipping> = store.durable_map("s").unwrap();
    store.transact(|tx| skipping.insert(tx, 1, Skipping { maybe: Some(1), n: 1 })).unwrap();
    let refused = store.transact(|tx| skipping.insert(tx, 2, Skipping { maybe: None, n: 1 }));
    assert_eq!(kind(refused), ErrorKind::Unsupported);
    // One that shows only with some values is refused when such a value is inserted.
    let map: DurableMap<u8, SkipsSome> = store.durable_map("some").unwrap();
    store.transact(|tx| map.insert(tx, 1, SkipsSome { n: 4, m: 0 })).unwrap();
    let refused = store.transact(|tx| {
        let error = map.insert(tx, 2, SkipsSome { n: 5, m: 0 }).unwrap_err();
        assert_eq!(map.len(tx), 1);
        assert!(map.update(tx, &1, |value| value.n = 5).is_err());
        assert_eq!(map.get(tx, &1)?.unwrap().n, 4);
        Err::<(), _>(error)
    });
    assert_eq!(kind(refused), ErrorKind::Unsupported);

    let value = Harmless {
        cached: 0,
        n: 1,
        inner: Some(Box::new(Harmless { cached: 0, n: 2, inner: None, kind: vec![] })),
        kind: vec![Kind::Plain, Kind::With("x".into(), Some(Nested::B(1))), Kind::Named { n: -1 }],
    };
    let map: DurableMap<u8, Harmless> = store.durable_map("harmless").unwrap();
    store.transact(|tx| map.insert(tx, 1, value.clone())).unwrap();
    drop((store, map));
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u8, Harmless> = store.durable_map("harmless").unwrap();
    assert_eq!(map.get(&store.view(), &1).unwrap(), Some(&value));
    let shape = store.regions().into_iter().find(|region| region.name == "harmless").unwrap().shape;
    assert!(shape.contains("Named { n: i8 }") && shape.contains("Nested"), "{shape}");
}

#[test]
fn a_type_that_cannot_be_traced_is_opaque_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let number = std::num::NonZeroU32::new(7).unwrap();
    for round in 0..2 {
        let store = Store::open(dir.path()).unwrap();
        let map: DurableMap<u8, std::num::NonZeroU32> = store.durable_map("opaque").unwrap();
        if round == 0 {
            store.transact(|tx| map.insert(tx, 1, number)).unwrap();
        }
        assert_eq!(map.get(&store.view(), &1).unwrap(), Some(&number));
        assert!(store.regions()[0].shape.contains("opaque"));
    }
}

#[test]
fn a_value_that_does_not_decode_fails_for_itself_alone() {
    /// Opaque, and of another size than what was written.
    #[derive(Clone, Debug)]
    struct Strict;
    impl Serialize for Strict {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            1u8.serialize(to)
        }
    }
    impl<'de> Deserialize<'de> for Strict {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            let n = u8::deserialize(from)?;
            if n == 1 { Ok(Strict) } else { Err(serde::de::Error::custom("not one")) }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    {
        let store = Store::open(dir.path()).unwrap();
        let map: DurableMap<u8, std::num::NonZeroU8> = store.durable_map("m").unwrap();
        let number = |n| std::num::NonZeroU8::new(n).unwrap();
        store.transact(|tx| map.insert(tx, 1, number(1))).unwrap();
        store.transact(|tx| map.insert(tx, 2, number(2))).unwrap();
        store.transact(|tx| map.insert(tx, 3, number(1))).unwrap();
    }
    {
        let store = Store::open(dir.path()).unwrap();
        let map: DurableMap<u8, Strict> = store.durable_map("m").unwrap();
        let view = store.view();
        assert!(map.get(&view, &1).unwrap().is_some());
        assert_eq!(kind(map.get(&view, &2)), ErrorKind::Damaged);
        assert!(map.get(&view, &3).unwrap().is_some());
        assert!(map.contains_key(&view, &2).unwrap() && !map.contains_key(&view, &4).unwrap());
        assert_eq!(map.iter(&view).flatten().count(), 1);
        // A value that nobody looks at is passed.
        assert_eq!(map.iter(&view).count(), 3);
        assert_eq!(map.iter(&view).nth(2).unwrap().unwrap().0, &3);
        assert_eq!(map.iter(&view).nth_back(2).unwrap().unwrap().0, &1);
        assert_eq!(map.iter(&view).last().unwrap().unwrap().0, &3);
        assert_eq!(map.iter(&view).find_map(Result::err).unwrap().region(), Some("m"));
        let tx = store.begin();
        assert_eq!(map.iter(&tx).find_map(Result::err).unwrap().region(), Some("m"));
        drop(tx);
        // It is replaced and removed like any other; of this nothing is committed.
        let mut tx = store.begin();
        assert!(map.insert(&mut tx, 2, Strict).unwrap().is_none());
        assert!(map.get(&tx, &2).unwrap().is_some() && map.get(&view, &2).is_err());
        drop(tx);
        let mut tx = store.begin();
        map.remove(&mut tx, &1).unwrap();
        assert_eq!(map.pop_first(&mut tx).unwrap_err().region(), Some("m"));
        assert!(map.remove(&mut tx, &2).unwrap().is_none());
        assert!(!map.contains_key(&tx, &2).unwrap() && map.contains_key(&view, &2).unwrap());
        drop(tx);
        store
            .transact(|tx| {
                map.insert(tx, 4, Strict)?;
                assert_eq!(map.iter(tx).find_map(Result::err).unwrap().region(), Some("m"));
                Ok(())
            })
            .unwrap();
        store.checkpoint().unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    let map: DurableMap<u8, std::num::NonZeroU8> = store.durable_map("m").unwrap();
    assert_eq!(map.get(&store.view(), &2).unwrap().map(|n| n.get()), Some(2));
    assert_eq!(map.len(&store.view()), 4);
}
