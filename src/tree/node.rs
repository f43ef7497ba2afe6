//! Nodes: leaves, what leads to them, and ranges that are not in memory yet.
//!
//! Nodes carry the stamp of their birth and are pointed to, not counted: who may change one and when
//! it is freed is decided by [`Draft`](super::Draft) and [`Line`](super::line::Line).
//!
//! # Invariants
//! - A pointer to a node or a value has the rights of the allocation that it was made from.
//! - A node whose kind is `COLD` is written by the holder of its lock alone, and read by nobody; its
//!   kind is stored last. From then on it is an inner node like any other.
//! - Pointers are followed by functions that are `unsafe`: the caller knows that the node lives, and
//!   for exclusive access that nobody else can reach it.

mod births;
mod keys;
mod leaf;
mod load;
mod notes;
mod seats;

use std::cell::RefCell;
use std::cmp::Ordering;
use std::marker::PhantomData;
use std::mem::needs_drop;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering as Atomic};

use arrayvec::ArrayVec;
use parking_lot::ReentrantMutex;

use super::place::{Past, Place, Pointer};
use super::slot::{PREFETCHED_BYTES_MAX, Spare, is_spoilt};
use crate::error::Result;
use crate::prefetch::prefetch;
pub(super) use births::Births;
pub(super) use keys::{Born, Copies, KeysMut, partition};
pub(super) use leaf::{LeafMut, LeafRef, NewValue, leaf_bytes, node_bytes, seating_bytes};
pub(crate) use load::{BULK_FILL, Entries, Loaded, Ranges, Source, Standing};
pub(super) use load::{Carry, build};
#[cfg(test)]
pub(super) use seats::SEATS;
pub(super) use seats::{Small, are_seated};

/// The most entries of a leaf, and children of an inner node. A million entries are four levels, and a
/// node of small keys takes about a kilobyte.
pub(super) const FAN_OUT: usize = 58;
/// So much of a node the processor is asked for before it is searched: all of it, with keys of 32 bytes.
const SEARCHED_BYTES_MAX: usize = 40 * 64;
/// A node with fewer is joined with a neighbour that is in memory, if the two fit into one. Of what is removed at random
/// leaves are 0.6 full then, for about as many joins in all as if this was less.
pub(super) const FAN_IN: usize = 2 * FAN_OUT / 5;

/// When something was made or retired, in the order of one line of versions.
pub(super) type Stamp = u64;

const LEAF: u8 = 0;
const INNER: u8 = 1;
const COLD: u8 = 2;

/// What every node begins with.
#[repr(C)]
struct Head {
    born: Stamp,
    kind: AtomicU8,
    /// The allocation is a [`Cold`], whatever the kind is by now.
    was_cold: bool,
    copies: Copies,
    past: Past,
}

impl Head {
    fn new(born: Stamp, kind: u8, copies: Copies) -> Head {
        let was_cold = kind == COLD;
        Head { born, kind: AtomicU8::new(kind), was_cold, copies, past: Past::none() }
    }
}

#[repr(C)]
pub(super) struct Inner<K, V> {
    head: Head,
    /// One fewer than children.
    pub(super) bounds: ArrayVec<K, FAN_OUT>,
    pub(super) children: ArrayVec<Place<NodePtr<K, V>>, FAN_OUT>,
}

/// A range that is loaded on first touch, into the place that it has.
#[repr(C)]
struct Cold<K, V> {
    inner: Inner<K, V>,
    /// Held and borrowed by whoever loads.
    source: ReentrantMutex<RefCell<Unread<K, V>>>,
    divides: bool,
}

/// What a range is loaded from; gone once that is so.
type Unread<K, V> = Option<Box<dyn Source<K, V>>>;

/// Points to a node of either kind.
pub(super) struct NodePtr<K, V>(NonNull<Inner<K, V>>, PhantomData<V>);

/// A node in memory, to be read.
pub(super) enum Hot<'a, K, V> {
    Leaf(LeafRef<'a, K, V>),
    Inner(&'a Inner<K, V>),
}

/// A node in memory, to be changed.
pub(super) enum HotMut<'a, K, V> {
    Leaf(LeafMut<'a, K, V>),
    Inner(InnerMut<'a, K, V>),
}

pub(super) struct InnerMut<'a, K, V> {
    pub(super) bounds: KeysMut<'a, K>,
    pub(super) children: &'a mut ArrayVec<Place<NodePtr<K, V>>, FAN_OUT>,
}

impl<K, V> Clone for NodePtr<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for NodePtr<K, V> {}

impl<K, V> PartialEq for NodePtr<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<K, V> Pointer for NodePtr<K, V> {
    type Kept = AtomicPtr<()>;

    fn erase(self) -> NonNull<()> {
        self.0.cast()
    }

    unsafe fn restore(erased: NonNull<()>) -> Self {
        NodePtr::to(erased.cast())
    }
}

// SAFETY: it is no more than the way to keys and values, which threads may share and take over; a
// cold node's source is `Send` and `Sync` by its own bounds.
unsafe impl<K: Send + Sync, V: Send + Sync> Send for NodePtr<K, V> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for NodePtr<K, V> {}

impl<K, V> Inner<K, V> {
    /// The child that a version has in a place.
    ///
    /// # Safety
    /// The version is held and sees the node, or it is `Stamp::MAX` and the caller has the pen.
    #[inline]
    pub(super) unsafe fn child(&self, at: usize, version: Stamp) -> Option<NodePtr<K, V>> {
        // SAFETY: the caller's promise.
        unsafe { self.head.past.see(&self.children, at, version) }
    }

    /// The child whose range holds a key.
    pub(super) fn child_for(&self, probe: impl Fn(&K) -> Ordering) -> usize {
        partition(&self.bounds, |bound| probe(bound) != Ordering::Less)
    }
}

/// Appends what places of the newest tree point to, for which there is room.
///
/// # Safety
/// The caller has the pen.
pub(super) unsafe fn append<P: Pointer>(to: &mut ArrayVec<Place<P>, FAN_OUT>, places: &[Place<P>]) {
    let len = to.len();
    assert!(len + places.len() <= FAN_OUT, "a node is not wider than its room");
    // SAFETY: there is room, which is not initialized. Nobody else writes the places, so that they can be
    // read as a block while others load them; and they have no destructor.
    unsafe {
        ptr::copy_nonoverlapping(places.as_ptr(), to.as_mut_ptr().add(len), places.len());
        to.set_len(len + places.len());
    }
}

impl<K, V> NodePtr<K, V> {
    fn to(node: NonNull<Inner<K, V>>) -> Self {
        NodePtr(node, PhantomData)
    }

    /// An inner node that has no children yet.
    pub(super) fn inner(born: Stamp, copies: Copies, spare: &mut Spare<K, V>) -> Self {
        let node = spare.inner();
        let at = node.as_ptr();
        // SAFETY: the room is nobody else's. Every field is written, in the place that it has.
        unsafe {
            ptr::addr_of_mut!((*at).head).write(Head::new(born, INNER, copies));
            ptr::addr_of_mut!((*at).bounds).write(ArrayVec::new_const());
            ptr::addr_of_mut!((*at).children).write(ArrayVec::new_const());
            NodePtr::to(node).begin_births();
        }
        NodePtr::to(node)
    }

    pub(super) fn cold(born: Stamp, copies: Copies, source: Box<dyn Source<K, V>>) -> Self {
        let inner = Inner {
            head: Head::new(born, COLD, copies),
            bounds: ArrayVec::new_const(),
            children: ArrayVec::new_const(),
        };
        let divides = source.divides();
        let source = ReentrantMutex::new(RefCell::new(Some(source)));
        let cold = Cold { inner, source, divides };
        NodePtr::to(NonNull::from(Box::leak(Box::new(cold))).cast())
    }

    fn head(self) -> *mut Head {
        self.0.as_ptr().cast()
    }

    /// Has the processor fetch it, for somebody who is about to search it: with all that may be found, since that would
    /// be asked for only when the search has ended.
    #[inline]
    pub(super) fn prefetch(self) {
        prefetch(self.0.as_ptr().cast(), node_bytes::<K, V>().min(SEARCHED_BYTES_MAX));
    }

    /// Has the processor fetch its beginning, for somebody who goes on from there by and by.
    #[inline]
    pub(super) fn prefetch_beginning(self) {
        prefetch(self.0.as_ptr().cast(), node_bytes::<K, V>().min(PREFETCHED_BYTES_MAX));
    }

    /// # Safety
    /// The node lives.
    #[inline]
    unsafe fn kind(self) -> u8 {
        // SAFETY: the caller's promise; every node begins with its head, and the kind is atomic.
        let kind = unsafe { (*ptr::addr_of!((*self.head()).kind)).load(Atomic::Acquire) };
        debug_assert!(kind <= COLD, "a node is not used when it was freed");
        kind
    }

    /// # Safety
    /// The node lives.
    pub(super) unsafe fn born(self) -> Stamp {
        // SAFETY: the caller's promise; a stamp never changes.
        let born = unsafe { ptr::addr_of!((*self.head()).born).read() };
        debug_assert!(!is_spoilt(born), "a node is not used when it was freed");
        born
    }

    /// How copies of it get their keys.
    ///
    /// # Safety
    /// The node lives.
    pub(super) unsafe fn copies(self) -> Copies {
        if !needs_drop::<K>() {
            return Copies::Clones;
        }
        // SAFETY: the caller's promise; this never changes.
        unsafe { ptr::addr_of!((*self.head()).copies).read() }
    }

    /// Whether it was a range that was loaded, or still is one.
    ///
    /// # Safety
    /// The node lives.
    unsafe fn was_cold(self) -> bool {
        // SAFETY: the caller's promise; this never changes.
        unsafe { ptr::addr_of!((*self.head()).was_cold).read() }
    }

    /// What its places pointed to before.
    ///
    /// # Safety
    /// The node lives for `'a`.
    pub(super) unsafe fn past<'a>(self) -> &'a Past {
        // SAFETY: the caller's promise; every node begins with its head, and all of this is atomic.
        unsafe { &*ptr::addr_of!((*self.head()).past) }
    }

    /// The node as far as it is in memory.
    ///
    /// # Safety
    /// The node lives for `'a`, and meanwhile nobody changes more of it than what its places point to.
    pub(super) unsafe fn in_memory<'a>(self) -> Option<Hot<'a, K, V>> {
        // SAFETY: the caller's promise. The kind says what it is; one that was cold is only written
        // before its kind was stored as inner.
        unsafe {
            match self.kind() {
                LEAF => Some(Hot::Leaf(LeafRef::of(self))),
                INNER => Some(Hot::Inner(self.0.as_ref())),
                _ => None,
            }
        }
    }

    /// The node in memory; a cold range is loaded, going on from the range before.
    ///
    /// # Safety
    /// As for [`in_memory`](Self::in_memory).
    #[inline]
    pub(super) unsafe fn hot<'a>(self, carry: &mut Carry<K, V>) -> Result<Hot<'a, K, V>>
    where
        K: Clone,
    {
        loop {
            // SAFETY: the caller's promise.
            if let Some(hot) = unsafe { self.in_memory() } {
                return Ok(hot);
            }
            // SAFETY: the caller's promise.
            unsafe { self.load(carry) }?;
        }
    }

    /// The same for one range alone.
    ///
    /// # Safety
    /// As for [`in_memory`](Self::in_memory).
    #[inline]
    pub(super) unsafe fn hot_alone<'a>(self) -> Result<Hot<'a, K, V>>
    where
        K: Clone,
    {
        // SAFETY: the caller's promise.
        unsafe { self.in_memory().map_or_else(|| self.load_alone(), Ok) }
    }

    #[cold]
    unsafe fn load_alone<'a>(self) -> Result<Hot<'a, K, V>>
    where
        K: Clone,
    {
        // SAFETY: the caller's promise.
        unsafe { self.hot(&mut Carry::default()) }
    }

    /// The node in memory, to be changed.
    ///
    /// # Safety
    /// The node lives for `'a`, is in memory and never was cold, and nobody else can reach it.
    pub(super) unsafe fn hot_mut<'a>(self) -> HotMut<'a, K, V> {
        // SAFETY: the caller's promise, and the kind says what it is. Keys and places are borrowed apart.
        unsafe {
            if self.kind() == LEAF {
                HotMut::Leaf(LeafMut::of(self))
            } else {
                let children = &mut *ptr::addr_of_mut!((*self.0.as_ptr()).children);
                HotMut::Inner(InnerMut { bounds: self.keys_mut(), children })
            }
        }
    }

    /// A leaf, to be changed.
    ///
    /// # Safety
    /// As for [`hot_mut`](Self::hot_mut), and it is one.
    pub(super) unsafe fn leaf_mut<'a>(self) -> LeafMut<'a, K, V> {
        // SAFETY: the caller's promise.
        match unsafe { self.hot_mut() } {
            HotMut::Leaf(leaf) => leaf,
            HotMut::Inner(_) => unreachable!("a leaf stays one, and so does its copy"),
        }
    }

    /// An inner node, to be changed.
    ///
    /// # Safety
    /// As for [`leaf_mut`](Self::leaf_mut).
    pub(super) unsafe fn inner_mut<'a>(self) -> InnerMut<'a, K, V> {
        // SAFETY: the caller's promise.
        match unsafe { self.hot_mut() } {
            HotMut::Inner(inner) => inner,
            HotMut::Leaf(_) => unreachable!("an inner node stays one, and so does its copy"),
        }
    }

    /// Copies a node that is in memory; below it everything is shared.
    ///
    /// # Safety
    /// The node lives and is in memory, and the caller has the pen.
    pub(super) unsafe fn copy(self, born: Stamp, spare: &mut Spare<K, V>) -> Self
    where
        K: Clone,
    {
        // SAFETY: the caller's promise; a copy is nobody else's.
        unsafe {
            match self.in_memory() {
                Some(Hot::Leaf(leaf)) => {
                    let copy = NodePtr::leaf(born, self.copies(), spare);
                    copy.leaf_mut().append(leaf);
                    copy
                }
                Some(Hot::Inner(inner)) => {
                    let copy = NodePtr::inner(born, self.copies(), spare);
                    let InnerMut { mut bounds, children } = copy.inner_mut();
                    bounds.append(&self.keys());
                    append(children, &inner.children);
                    copy
                }
                None => unreachable!("a cold range is loaded before it is changed"),
            }
        }
    }

    /// Entries of a leaf, children of an inner node; a cold range counts as full.
    ///
    /// # Safety
    /// As for [`in_memory`](Self::in_memory).
    pub(super) unsafe fn width(self) -> usize {
        // SAFETY: the caller's promise.
        match unsafe { self.in_memory() } {
            Some(Hot::Leaf(leaf)) => leaf.len(),
            Some(Hot::Inner(inner)) => inner.children.len(),
            None => FAN_OUT,
        }
    }

    /// Whether it is a range that nobody has loaded and that one thread loads.
    ///
    /// # Safety
    /// The node lives.
    pub(super) unsafe fn is_narrow(self) -> bool {
        // SAFETY: the caller's promise; a node whose kind is cold is a `Cold`.
        unsafe { self.kind() == COLD && !(*self.as_cold()).divides }
    }

    /// Tells a range that nobody has divided yet that all of it is about to be loaded.
    ///
    /// # Safety
    /// The node lives.
    pub(super) unsafe fn announce(self) {
        // SAFETY: the caller's promise; a node whose kind is cold is a `Cold`, of which only the lock is
        // borrowed. Whoever holds it reads already.
        unsafe {
            if self.is_undivided()
                && let Some(held) = (*self.as_cold()).source.try_lock()
                && let Ok(source) = held.try_borrow()
            {
                source.iter().for_each(|source| source.announce());
            }
        }
    }

    /// Whether it is a range that nobody has divided and that several threads may share.
    ///
    /// # Safety
    /// The node lives.
    pub(super) unsafe fn is_undivided(self) -> bool {
        // SAFETY: the caller's promise; a node whose kind is cold is a `Cold`.
        unsafe { self.kind() == COLD && (*self.as_cold()).divides }
    }

    fn as_cold(self) -> *mut Cold<K, V> {
        self.0.as_ptr().cast()
    }

    /// Frees the node itself; what it points to lives on.
    ///
    /// # Safety
    /// The node lives, and nobody can reach it from now on.
    pub(super) unsafe fn free(self, spare: &mut Spare<K, V>) {
        // SAFETY: it was made as what its head says, and this is its end, the caller promises. Neither pointers
        // nor values that have seats have a destructor; keys are in the same place in either kind.
        unsafe {
            self.born();
            self.past().forget(spare);
            self.forget_shared();
            if self.was_cold() {
                return drop(Box::from_raw(self.as_cold()));
            }
            ptr::drop_in_place(ptr::addr_of_mut!((*self.0.as_ptr()).bounds));
            if self.kind() == LEAF {
                spare.give_leaf(self.0);
            } else {
                spare.give_inner(self.0);
            }
        }
    }
}
