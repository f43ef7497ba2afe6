//! Ranges and prefixes of keys.

use std::cmp::Ordering;
use std::ops::{
    Bound, Range, RangeBounds, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use super::key::AsKey;
use crate::tree::Before;

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
    use crate::tree::Before;

    /// Where the keys of a range lie.
    pub trait Bounds<K> {
        /// Tells where the range begins and where it ends.
        fn places<T>(&self, tell: impl FnOnce(Before<'_, K>, Before<'_, K>) -> T) -> T;
    }

    /// How keys compare with those that begin with a prefix.
    pub trait Prefix<K> {
        /// `Less` if all keys with the prefix are above `key`, `Equal` if it has the prefix.
        fn compare_prefix(&self, key: &K) -> std::cmp::Ordering;
    }
}

/// Tells where a range begins and ends whose bounds `compare` as they do with keys.
pub(super) fn between<K, Q: ?Sized, T>(
    (start, end): (Bound<&Q>, Bound<&Q>),
    compare: impl Fn(&Q, &K) -> Ordering,
    tell: impl FnOnce(Before<'_, K>, Before<'_, K>) -> T,
) -> T {
    let is_above = |bound, key: &K| compare(bound, key) == Ordering::Greater;
    let is_not_below = |bound, key: &K| compare(bound, key) != Ordering::Less;
    let before_first: &dyn Fn(&K) -> bool = &|key| match start {
        Bound::Included(start) => is_above(start, key),
        Bound::Excluded(start) => is_not_below(start, key),
        Bound::Unbounded => false,
    };
    let before_end: &dyn Fn(&K) -> bool = &|key| match end {
        Bound::Included(end) => is_not_below(end, key),
        Bound::Excluded(end) => is_above(end, key),
        Bound::Unbounded => true,
    };
    let is_bounded = |bound| !matches!(bound, Bound::Unbounded);
    tell(is_bounded(start).then_some(before_first), is_bounded(end).then_some(before_end))
}

macro_rules! bounds {
    ($($range:ty),*) => {$(
        impl<K, Q: AsKey<K>> sealed::Bounds<K> for $range {
            fn places<T>(&self, tell: impl FnOnce(Before<'_, K>, Before<'_, K>) -> T) -> T {
                between((self.start_bound(), self.end_bound()), Q::compare, tell)
            }
        }
    )*};
}

bounds!(Range<Q>, RangeFrom<Q>, RangeTo<Q>, RangeToInclusive<Q>, (Bound<Q>, Bound<Q>));

impl<K, Q: AsKey<K>> sealed::Bounds<K> for RangeInclusive<Q> {
    fn places<T>(&self, tell: impl FnOnce(Before<'_, K>, Before<'_, K>) -> T) -> T {
        // Its bounds are others once somebody has walked it to its end.
        let bounds = (Bound::Included(self.start()), Bound::Included(self.end()));
        between(bounds, Q::compare, tell)
    }
}

impl<K> sealed::Bounds<K> for RangeFull {
    fn places<T>(&self, tell: impl FnOnce(Before<'_, K>, Before<'_, K>) -> T) -> T {
        tell(None, None)
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
