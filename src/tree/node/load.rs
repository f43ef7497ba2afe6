//! How a cold range becomes nodes.
//!
//! # Invariants
//! - A range is loaded once, by whoever has its lock, into the place that it has.

use std::any::Any;
use std::ptr;
use std::sync::atomic::Ordering as Atomic;

use arrayvec::ArrayVec;

use super::{Born, Copies, FAN_OUT, INNER, Inner, NewValue, NodePtr, Stamp};
use crate::error::{Error, ErrorKind, Result};
use crate::tree::place::Place;
use crate::tree::slot::Spare;
use crate::tree::stored::Stored;

/// How full bulk loading makes a node, so that it takes some inserts before it splits.
pub(crate) const BULK_FILL: usize = FAN_OUT - 4;

/// Where the entries of a cold range come from.
pub(crate) trait Source<K, V>: Send + Sync {
    /// What the range holds; entries are put into `to`, which is empty. What is left in `place` makes it
    /// cheaper to go on where this load ends.
    fn load(&self, place: &mut Standing, to: &mut Entries<K, V>) -> Result<Loaded<K, V>>;

    /// Told before somebody loads all that it holds, so that it may begin.
    fn announce(&self) {}

    /// Whether it is loaded as narrower ranges, which reads no entries: for certain, and so many of them
    /// that several threads may share them.
    fn divides(&self) -> bool;
}

/// Entries in ascending order.
pub(crate) type Entries<K, V> = Vec<(K, Stored<V>)>;

/// What loading a cold range gives, in ascending order.
pub(crate) enum Loaded<K, V> {
    Entries,
    /// Narrower ranges, at least two.
    Ranges(Ranges<K, V>),
}

/// Ranges in ascending order, each but the first with the first key that belongs to it.
pub(crate) type Ranges<K, V> = Vec<(Option<K>, Box<dyn Source<K, V>>)>;

/// Where a source stands after a load.
pub(crate) type Standing = Option<Box<dyn Any + Send + Sync>>;

/// What is kept from one load for the load of the range that follows it.
pub(crate) struct Carry<K, V>(Option<Box<Carried<K, V>>>);

struct Carried<K, V> {
    place: Standing,
    /// Room for the entries of a range; empty between two loads.
    entries: Entries<K, V>,
}

impl<K, V> Default for Carry<K, V> {
    fn default() -> Self {
        Carry(None)
    }
}

impl<K, V> Carry<K, V> {
    /// What was kept, and no entries.
    fn carried(&mut self) -> &mut Carried<K, V> {
        let nothing = || Box::new(Carried { place: None, entries: Vec::new() });
        let carried = self.0.get_or_insert_with(nothing);
        // A load that failed may have left some.
        carried.entries.clear();
        carried
    }
}

impl<K, V> NodePtr<K, V> {
    /// Loads a cold range, unless somebody has meanwhile.
    ///
    /// # Safety
    /// The node lives and was seen to be cold.
    #[cold]
    pub(super) unsafe fn load(self, carry: &mut Carry<K, V>) -> Result<()>
    where
        K: Clone,
    {
        let cold = self.as_cold();
        // SAFETY: it is a `Cold` whatever its kind is by now; of it only the lock is borrowed.
        let lock = unsafe { &(*cold).source };
        let held = lock.lock();
        let Ok(mut source) = held.try_borrow_mut() else {
            let what =
                "an entry that is read from disk reads, while it is decoded, what lies beside it";
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        let Some(from) = source.as_ref() else { return Ok(()) };
        let Carried { place, entries } = carry.carried();
        // SAFETY: it is a `Cold`, and this never changes.
        if unsafe { (*cold).divides } && place.is_some() {
            // Who comes from the range before goes through all of this one, mostly.
            from.announce();
        }
        let loaded = from.load(place, entries)?;
        // SAFETY: the node lives.
        let (born, copies) = unsafe { (self.born(), self.copies()) };
        let mut spare = Spare::default();
        let content = match loaded {
            Loaded::Entries => build(born, copies, entries, &mut spare),
            Loaded::Ranges(ranges) => {
                let cold = |(first, source)| (first, NodePtr::cold(born, copies, source));
                join(born, copies, ranges.into_iter().map(cold).collect(), &mut spare)
            }
        };
        // SAFETY: the kind is still cold and the lock is held, so nobody else reads or writes what is
        // filled here; who sees the kind that is stored last sees all of it.
        unsafe {
            let (bounds, children) = content.into_parts(&mut spare);
            ptr::addr_of_mut!((*cold).inner.bounds).write(bounds);
            ptr::addr_of_mut!((*cold).inner.children).write(children);
            (*ptr::addr_of!((*self.head()).kind)).store(INNER, Atomic::Release);
        }
        *source = None;
        Ok(())
    }

    /// What an inner node holds that was just built; any other node becomes the only child.
    ///
    /// # Safety
    /// Nobody else can reach the node.
    unsafe fn into_parts(self, spare: &mut Spare<K, V>) -> Parts<K, V> {
        // SAFETY: the caller's promise; an inner node that was just built never was cold.
        unsafe {
            if self.kind() == INNER {
                let Inner { bounds, children, .. } = self.0.read();
                spare.give_inner(self.0);
                return (bounds, children);
            }
        }
        let mut children = ArrayVec::new();
        children.push(Place::new(self));
        (ArrayVec::new(), children)
    }
}

/// The bounds and children of an inner node.
type Parts<K, V> = (ArrayVec<K, FAN_OUT>, ArrayVec<Place<NodePtr<K, V>>, FAN_OUT>);

/// A node with the lowest key that belongs to it.
type Lowest<K, V> = (Option<K>, NodePtr<K, V>);

/// Builds a tree bottom-up from ascending entries, and leaves none.
pub(in crate::tree) fn build<K: Clone, V>(
    born: Stamp,
    copies: Copies,
    entries: &mut Entries<K, V>,
    spare: &mut Spare<K, V>,
) -> NodePtr<K, V> {
    let count = entries.len();
    let sizes = shares(count.max(1));
    spare.expect(sizes.len(), count);
    // SAFETY: whatever happens, from now on they are nobody's.
    unsafe { entries.set_len(0) };
    let mut next = 0..count;
    let leaves = sizes.map(|len| {
        let node = NodePtr::leaf(born, copies, spare);
        // SAFETY: it was just made.
        let mut leaf = unsafe { node.leaf_mut() };
        for nth in next.by_ref().take(len) {
            // SAFETY: so many there were, and each is moved once.
            let (key, value) = unsafe {
                let entry = entries.as_ptr().add(nth);
                let value = NewValue::stored(born, &raw const (*entry).1, &mut spare.values);
                ((&raw const (*entry).0).read(), value)
            };
            leaf.push(Born { key, born }, value);
        }
        (leaf.keys().first().cloned(), node)
    });
    let leaves: Vec<_> = leaves.collect();
    match leaves.as_slice() {
        [(_, only)] => *only,
        _ => join(born, copies, leaves, spare),
    }
}

/// Builds what leads to the nodes of one level.
fn join<K: Clone, V>(
    born: Stamp,
    copies: Copies,
    mut level: Vec<Lowest<K, V>>,
    spare: &mut Spare<K, V>,
) -> NodePtr<K, V> {
    loop {
        let sizes = shares(level.len());
        let mut below = level.into_iter();
        let above = sizes.map(|len| {
            let node = NodePtr::inner(born, copies, spare);
            // SAFETY: it was just made.
            let mut inner = unsafe { node.inner_mut() };
            let mut lowest = None;
            for (at, (first, child)) in below.by_ref().take(len).enumerate() {
                if at == 0 {
                    lowest = first;
                } else if let Some(key) = first {
                    inner.bounds.push(Born { key, born });
                }
                inner.children.push(Place::new(child));
            }
            (lowest, node)
        });
        level = above.collect();
        if let [(_, top)] = level.as_slice() {
            return *top;
        }
    }
}

/// Divides a number of things over as few nodes as bulk loading makes, about evenly.
fn shares(things: usize) -> impl ExactSizeIterator<Item = usize> {
    let nodes = things.div_ceil(BULK_FILL);
    (0..nodes).map(move |at| things * (at + 1) / nodes - things * at / nodes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::tree::{Graveyard, Tree};

    /// Of sizes with which a stamp lies behind the value, and aside.
    #[test]
    fn what_is_built_from_has_moved_once() {
        fn check<const N: usize>() {
            let alive = Arc::new(());
            let value = |at: u64| (at.to_string(), (Arc::clone(&alive), [at; N]));
            let entries: Vec<_> = (1000..1200).map(value).collect();
            let tree = Tree::from_sorted(None, entries, Graveyard::none());
            assert_eq!(Arc::strong_count(&alive), 1 + 200);
            for at in 1000..1200u64 {
                let found = tree.read().get(|key| at.to_string().as_str().cmp(key)).unwrap();
                assert_eq!(found.map(|(_, rest)| *rest), Some([at; N]));
            }
            drop(tree);
            assert_eq!(Arc::strong_count(&alive), 1);
        }
        check::<2>();
        check::<7>();
    }
}
