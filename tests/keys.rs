//! Byte order equals `Ord` for every key type, and keys come back.

// So may a program say that has keys of its own.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::too_many_lines,
    missing_docs,
    reason = "a test that fails says where"
)]

use std::cmp::Reverse;

use proptest::prelude::*;
use rocstate::{AsKey, Key, KeyReader, KeyShape, KeyWriter, Result, check_key_order};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct AccountId(u64);
rocstate::key!(AccountId(u64));

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair((String, Reverse<i16>));
rocstate::key!(Pair((String, Reverse<i16>)));

fn ordered<K: Key>(a: &K, b: &K) -> Result<(), TestCaseError> {
    check_key_order(a, b).map_err(|error| TestCaseError::fail(error.to_string()))
}

/// Strings and bytes that share prefixes and hold zeros, which is where escapes matter.
fn tricky() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![Just(0u8), Just(1), Just(0xfe), Just(0xff), any::<u8>()],
        0..6,
    )
}

fn text() -> impl Strategy<Value = String> {
    "[\\x00\\x01a-cß\u{10ffff}]{0,5}"
}

/// A key of a program that says nothing of what is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Silent(String);

impl AsKey<Silent> for Silent {
    fn encode(&self, to: &mut KeyWriter) {
        AsKey::<String>::encode(&self.0, to);
    }

    fn compare(&self, key: &Silent) -> std::cmp::Ordering {
        self.cmp(key)
    }
}

impl Key for Silent {
    fn shape() -> KeyShape {
        String::shape()
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        String::decode(from).map(Silent)
    }
}

#[test]
fn of_a_key_is_known_what_is_known_of_all_of_it() {
    fn is_frozen<K: Key>() -> bool {
        K::frozen().is_some()
    }
    assert!(is_frozen::<(u8, i64, usize, isize, bool, char)>() && is_frozen::<((), [u8; 5])>());
    assert!(is_frozen::<(String, Option<Vec<u8>>, Reverse<AccountId>, Pair)>());
    assert!(!is_frozen::<Silent>() && !is_frozen::<Option<Silent>>());
    assert!(!is_frozen::<Reverse<Silent>>() && !is_frozen::<(String, Silent)>());
}

macro_rules! orders {
    ($($name:ident: $strategy:expr;)*) => {
        proptest! {
            $(#[test]
            fn $name(a in $strategy, b in $strategy) {
                ordered(&a, &b)?;
                ordered(&Some(a.clone()), &None)?;
                ordered(&Reverse(a.clone()), &Reverse(b.clone()))?;
                ordered(&(a.clone(), 1u8), &(b.clone(), 0u8))?;
                ordered(&(0u8, a.clone(), b.clone()), &(0u8, b.clone(), a.clone()))?;
                ordered(&Reverse(Some((a.clone(), b.clone()))), &Reverse(Some((b, a))))?;
            })*
        }
    };
}

orders! {
    u8_keys: any::<u8>();
    u16_keys: any::<u16>();
    u32_keys: any::<u32>();
    u64_keys: any::<u64>();
    u128_keys: any::<u128>();
    usize_keys: any::<usize>();
    i8_keys: any::<i8>();
    i16_keys: any::<i16>();
    i32_keys: any::<i32>();
    i64_keys: any::<i64>();
    i128_keys: any::<i128>();
    isize_keys: any::<isize>();
    bool_keys: any::<bool>();
    char_keys: any::<char>();
    unit_keys: Just(());
    string_keys: text();
    byte_keys: tricky();
    array_keys: any::<[u8; 5]>();
    long_array_keys: (0..3u8, any::<[u8; 11]>(), 0..=11usize).prop_map(|(byte, mut key, alike)| {
        key[..alike].fill(byte);
        key
    });
    option_keys: prop::option::of(tricky());
    reverse_keys: tricky().prop_map(Reverse);
    tuple_keys: (tricky(), any::<i8>(), text());
    newtype_keys: any::<u64>().prop_map(AccountId);
    keys_of_a_program: text().prop_map(Silent);
    nested_newtype_keys: (text(), any::<i16>()).prop_map(|(a, b)| Pair((a, Reverse(b))));
}
