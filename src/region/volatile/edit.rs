//! What calls of a map do to its tree; shared with [`Fenced`](super::Fenced).

use std::borrow::Borrow;
use std::cmp::Ordering;

use super::sure;
use crate::tree::{Draft, Old};

pub(in super::super) fn get<K, V, Q>(tree: &Draft<K, V>, key: &Q) -> Option<V>
where
    K: Borrow<Q> + Clone,
    V: Clone,
    Q: Ord + ?Sized,
{
    sure(tree.read().get(probe(key))).cloned()
}

pub(in super::super) fn contains<K, V, Q>(tree: &Draft<K, V>, key: &Q) -> bool
where
    K: Borrow<Q> + Clone,
    Q: Ord + ?Sized,
{
    sure(tree.read().contains(probe(key)))
}

pub(in super::super) fn insert<K: Ord + Clone, V: Clone>(
    tree: &mut Draft<K, V>,
    key: K,
    value: V,
) -> Option<V> {
    sure(tree.insert(key, value)).map(value_of)
}

pub(in super::super) fn remove<K, V, Q>(tree: &mut Draft<K, V>, key: &Q) -> Option<V>
where
    K: Borrow<Q> + Clone,
    V: Clone,
    Q: Ord + ?Sized,
{
    sure(tree.remove(probe(key))).map(value_of)
}

pub(in super::super) fn update<K, V, Q, T>(
    tree: &mut Draft<K, V>,
    key: &Q,
    f: impl FnOnce(&mut V) -> T,
) -> Option<T>
where
    K: Borrow<Q> + Clone,
    V: Clone,
    Q: Ord + ?Sized,
{
    sure(tree.get_mut(probe(key))).map(f)
}

pub(in super::super) fn upsert<K: Ord + Clone, V: Clone, T>(
    tree: &mut Draft<K, V>,
    key: K,
    new: impl FnOnce() -> V,
    f: impl FnOnce(&mut V) -> T,
) -> T {
    if let Some(value) = sure(tree.get_mut(|other| key.cmp(other))) {
        return f(value);
    }
    let mut value = new();
    let result = f(&mut value);
    sure(tree.insert(key, value));
    result
}

/// The first entry, or the last one.
pub(in super::super) fn outermost<K: Clone, V: Clone>(
    tree: &Draft<K, V>,
    first: bool,
) -> Option<(K, V)> {
    sure(tree.read().outermost(first)).map(|(key, value)| (key.clone(), value.clone()))
}

/// Removes it.
pub(in super::super) fn pop<K: Ord + Clone, V: Clone>(
    tree: &mut Draft<K, V>,
    first: bool,
) -> Option<(K, V)> {
    let key = sure(tree.read().outermost(first)).map(|(key, _)| key.clone())?;
    sure(tree.remove(|other| key.cmp(other))).map(value_of).map(|value| (key, value))
}

/// Removes the entries that are not kept; returns them, as far as nobody sees them, for whoever lets go of
/// the lock.
pub(in super::super) fn retain<K: Ord + Clone, V>(
    tree: &mut Draft<K, V>,
    mut keep: impl FnMut(&K, &V) -> bool,
) -> Vec<(K, Option<V>)> {
    let entries = tree.read().iter().map(sure);
    let unwanted: Vec<K> =
        entries.filter(|(key, value)| !keep(key, value)).map(|(key, _)| key.clone()).collect();
    let remove = |key: K| {
        let removed = sure(tree.remove(|other| key.cmp(other)));
        let value = removed.and_then(Old::into_owned);
        (key, value)
    };
    unwanted.into_iter().map(remove).collect()
}

fn value_of<V: Clone>(old: Old<'_, V>) -> V {
    match old {
        Old::Owned(value) => value,
        Old::Seen(value) => value.clone(),
        Old::Undecodable(why) => sure(Err(why.into())),
    }
}

fn probe<K: Borrow<Q>, Q: Ord + ?Sized>(key: &Q) -> impl Fn(&K) -> Ordering {
    move |other| key.cmp(other.borrow())
}
