//! Ranges and prefixes of keys.

use std::cmp::Ordering;
use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use super::key::AsKey;
use crate::tree::{Between, Compare, Edge};

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
    use std::ops::Bound;

    use crate::region::key::AsKey;

    /// Where the keys of a range lie.
    pub trait Bounds<K> {
        /// What its ends are told by.
        type End: AsKey<K>;

        fn bounds(&self) -> (Bound<&Self::End>, Bound<&Self::End>);
    }

    /// How keys compare with those that begin with a prefix.
    pub trait Prefix<K> {
        /// `Less` if all keys with the prefix are above `key`, `Equal` if it has the prefix.
        fn compare_prefix(&self, key: &K) -> std::cmp::Ordering;
    }
}

/// What is in a range whose bounds `compare` with keys as they do.
pub(super) fn between<K, Q: ?Sized>(
    (start, end): (Bound<&Q>, Bound<&Q>),
    compare: impl Fn(&Q, &K) -> Ordering + Copy,
) -> Between<impl Compare<K>, impl Compare<K>> {
    Between { first: edge(start, false, compare), end: edge(end, true, compare) }
}

fn edge<K, Q: ?Sized>(
    bound: Bound<&Q>,
    is_end: bool,
    compare: impl Fn(&Q, &K) -> Ordering + Copy,
) -> Option<Edge<impl Compare<K>>> {
    let (bound, is_behind_equal) = match bound {
        Bound::Included(bound) => (bound, is_end),
        Bound::Excluded(bound) => (bound, !is_end),
        Bound::Unbounded => return None,
    };
    Some(Edge { compare: move |key: &K| compare(bound, key), is_behind_equal })
}

/// The keys with a prefix.
pub(super) fn beginning<K, P: sealed::Prefix<K> + ?Sized>(
    prefix: &P,
) -> Between<impl Compare<K>, impl Compare<K>> {
    let compare = |key: &K| prefix.compare_prefix(key);
    let edge = |is_behind_equal| Some(Edge { compare, is_behind_equal });
    Between { first: edge(false), end: edge(true) }
}

macro_rules! bounds {
    ($($range:ty),*) => {$(
        impl<K, Q: AsKey<K>> sealed::Bounds<K> for $range {
            type End = Q;

            fn bounds(&self) -> (Bound<&Q>, Bound<&Q>) {
                (self.start_bound(), self.end_bound())
            }
        }
    )*};
}

bounds!(Range<Q>, RangeFrom<Q>, RangeTo<Q>, RangeToInclusive<Q>, (Bound<Q>, Bound<Q>));

impl<K, Q: AsKey<K>> sealed::Bounds<K> for RangeInclusive<Q> {
    type End = Q;

    fn bounds(&self) -> (Bound<&Q>, Bound<&Q>) {
        // Those that it tells of are others once somebody has walked it to its end.
        (Bound::Included(self.start()), Bound::Included(self.end()))
    }
}

impl<K: AsKey<K>> sealed::Bounds<K> for RangeFull {
    type End = K;

    fn bounds(&self) -> (Bound<&K>, Bound<&K>) {
        (Bound::Unbounded, Bound::Unbounded)
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
