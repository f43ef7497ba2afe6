//! Ranges and prefixes of keys.

use std::cmp::Ordering;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

use super::key::AsKey;

/// A range of keys whose ends are keys of type `K` or what such keys can be found by: `..`, `a..b`,
/// `a..=b`, `a..`, `..b`, `..=b`, or a pair of [`Bound`]s. A range whose end is below its beginning
/// is empty.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let map: rocstate::DurableMap<String, u8> = store.durable_map("map")?;
/// store.transact(|tx| map.insert(tx, "b".into(), 1))?;
/// assert_eq!(map.range(&store.view(), "a".."c").count(), 1);
/// assert_eq!(map.range(&store.view(), "c"..).count(), 0);
/// # Ok::<(), rocstate::Error>(())
/// ```
pub trait KeyRange<K>: sealed::Bounds<K> {}

impl<K, T: sealed::Bounds<K>> KeyRange<K> for T {}

/// The beginning of keys: `str` for `String`, `[u8]` for `Vec<u8>`, the leading elements of a tuple.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let map: rocstate::DurableMap<(u8, String), u8> = store.durable_map("map")?;
/// store.transact(|tx| map.insert(tx, (1, "a".into()), 1))?;
/// assert_eq!(map.prefix(&store.view(), &(1,)).count(), 1);
/// # Ok::<(), rocstate::Error>(())
/// ```
pub trait KeyPrefix<K>: sealed::Prefix<K> {}

impl<K, T: sealed::Prefix<K> + ?Sized> KeyPrefix<K> for T {}

pub(crate) mod sealed {
    /// Where a key lies, seen from a range.
    pub trait Bounds<K> {
        /// Whether a key is before the first of the range.
        fn before_first(&self, key: &K) -> bool;
        /// Whether a key is not beyond the last of the range.
        fn before_end(&self, key: &K) -> bool;
        /// Whether no key is before the first.
        fn begins_with_all(&self) -> bool {
            false
        }
        /// Whether no key is beyond the last.
        fn ends_with_all(&self) -> bool {
            false
        }
    }

    /// How keys compare with those that begin with a prefix.
    pub trait Prefix<K> {
        /// `Less` if all keys with the prefix are above `key`, `Equal` if it has the prefix.
        fn compare_prefix(&self, key: &K) -> std::cmp::Ordering;
    }
}

fn above<K, Q: AsKey<K> + ?Sized>(bound: &Q, key: &K) -> bool {
    bound.compare(key) == Ordering::Greater
}

fn not_below<K, Q: AsKey<K> + ?Sized>(bound: &Q, key: &K) -> bool {
    bound.compare(key) != Ordering::Less
}

/// Whether there is no bound, where there is none.
fn open<T>(_: T) -> bool {
    true
}

macro_rules! bounds {
    ($range:ty, |$this:ident, $key:ident| $first:expr, $end:expr $(, $open:ident: $is:expr)*) => {
        impl<K, Q: AsKey<K>> sealed::Bounds<K> for $range {
            fn before_first(&self, $key: &K) -> bool {
                let $this = self;
                $first
            }

            fn before_end(&self, $key: &K) -> bool {
                let $this = self;
                $end
            }

            $(fn $open(&self) -> bool {
                let $this = self;
                $is
            })*
        }
    };
}

bounds!(Range<Q>, |range, key| above(&range.start, key), above(&range.end, key));
bounds!(RangeInclusive<Q>, |range, key| above(range.start(), key), not_below(range.end(), key));
bounds!(
    RangeFrom<Q>,
    |range, key| above(&range.start, key),
    open((range, key)),
    ends_with_all: open(range)
);
bounds!(
    RangeTo<Q>,
    |range, key| !open((range, key)),
    above(&range.end, key),
    begins_with_all: open(range)
);
bounds!(
    RangeToInclusive<Q>,
    |range, key| !open((range, key)),
    not_below(&range.end, key),
    begins_with_all: open(range)
);
bounds!(
    (Bound<Q>, Bound<Q>),
    |range, key| match &range.0 {
        Bound::Included(start) => above(start, key),
        Bound::Excluded(start) => not_below(start, key),
        Bound::Unbounded => false,
    },
    match &range.1 {
        Bound::Included(end) => not_below(end, key),
        Bound::Excluded(end) => above(end, key),
        Bound::Unbounded => true,
    },
    begins_with_all: matches!(range.0, Bound::Unbounded),
    ends_with_all: matches!(range.1, Bound::Unbounded)
);

impl<K> sealed::Bounds<K> for RangeFull {
    fn before_first(&self, _key: &K) -> bool {
        false
    }

    fn before_end(&self, _key: &K) -> bool {
        true
    }

    fn begins_with_all(&self) -> bool {
        true
    }

    fn ends_with_all(&self) -> bool {
        true
    }
}

impl sealed::Prefix<String> for str {
    fn compare_prefix(&self, key: &String) -> Ordering {
        if key.starts_with(self) { Ordering::Equal } else { self.cmp(key.as_str()) }
    }
}

impl sealed::Prefix<Vec<u8>> for [u8] {
    fn compare_prefix(&self, key: &Vec<u8>) -> Ordering {
        if key.starts_with(self) { Ordering::Equal } else { self.cmp(key.as_slice()) }
    }
}

impl<const N: usize> sealed::Prefix<Vec<u8>> for [u8; N] {
    fn compare_prefix(&self, key: &Vec<u8>) -> Ordering {
        self.as_slice().compare_prefix(key)
    }
}

impl sealed::Prefix<String> for String {
    fn compare_prefix(&self, key: &String) -> Ordering {
        self.as_str().compare_prefix(key)
    }
}

impl sealed::Prefix<Vec<u8>> for Vec<u8> {
    fn compare_prefix(&self, key: &Vec<u8>) -> Ordering {
        self.as_slice().compare_prefix(key)
    }
}

impl<K, P: sealed::Prefix<K> + ?Sized> sealed::Prefix<K> for &P {
    fn compare_prefix(&self, key: &K) -> Ordering {
        (**self).compare_prefix(key)
    }
}

macro_rules! prefixes {
    ($($key:ident $probe:ident $at:tt),* ; $($rest:ident),*) => {
        impl<$($key, $probe: AsKey<$key>,)* $($rest),*> sealed::Prefix<($($key,)* $($rest,)*)>
            for ($($probe,)*)
        {
            fn compare_prefix(&self, key: &($($key,)* $($rest,)*)) -> Ordering {
                Ordering::Equal$(.then_with(|| self.$at.compare(&key.$at)))*
            }
        }
    };
}

prefixes!(A QA 0; B);
prefixes!(A QA 0; B, C);
prefixes!(A QA 0; B, C, D);
prefixes!(A QA 0; B, C, D, E);
prefixes!(A QA 0; B, C, D, E, F);
prefixes!(A QA 0, B QB 1; C);
prefixes!(A QA 0, B QB 1; C, D);
prefixes!(A QA 0, B QB 1; C, D, E);
prefixes!(A QA 0, B QB 1; C, D, E, F);
prefixes!(A QA 0, B QB 1, C QC 2; D);
prefixes!(A QA 0, B QB 1, C QC 2; D, E);
prefixes!(A QA 0, B QB 1, C QC 2; D, E, F);
prefixes!(A QA 0, B QB 1, C QC 2, D QD 3; E);
prefixes!(A QA 0, B QB 1, C QC 2, D QD 3; E, F);
prefixes!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4; F);
