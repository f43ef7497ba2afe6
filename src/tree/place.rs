//! Places: where a node points to a value or to another node, and what it pointed to before.
//!
//! A node that older versions see need not be copied for each change. What a place of it pointed to is
//! noted with the node, up to [`FORMERS_MAX`] times; only then a copy is made. This is the node copying
//! of Driscoll, Sarnak, Sleator and Tarjan (*Making Data Structures Persistent*, 1989): with a bounded
//! number of notes for each node, a change costs a constant number of copies, amortized.
//!
//! # Invariants
//! - Places are changed by the holder of the line's pen alone. A place of a node that others see is
//!   changed in this order: what it pointed to is noted, the node is stamped, the place is stored.
//! - A reader loads the place before it looks at the stamp, and follows what it loaded only if the stamp
//!   is none that its version does not see. So nobody follows a pointer to what is newer than the version
//!   that is read, and such things can be freed as if the place did not point to them.
//! - What is noted lives, since versions that the note is for see it; the notes themselves are let go of, or
//!   written over, when no such version is held that sees the node.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

use super::node::Stamp;
use super::slot::Spare;

/// So many notes a node has before it is copied instead, as long as somebody may need them. They are
/// searched one after the other.
const FORMERS_MAX: usize = 8;

/// What a place holds: a pointer to a value or to a node, or where in its leaf a value is.
pub(super) trait Pointer: Copy {
    /// How a place keeps it.
    type Kept: Kept;

    fn erase(self) -> NonNull<()>;

    /// # Safety
    /// It was erased from a pointer of this type.
    unsafe fn restore(erased: NonNull<()>) -> Self;
}

/// How a place keeps what it holds.
pub(super) trait Kept {
    fn new(what: NonNull<()>) -> Self;
    fn load(&self, order: Ordering) -> *mut ();
    fn store(&self, what: NonNull<()>, order: Ordering);
}

impl Kept for AtomicPtr<()> {
    #[inline]
    fn new(what: NonNull<()>) -> Self {
        AtomicPtr::new(what.as_ptr())
    }

    #[inline]
    fn load(&self, order: Ordering) -> *mut () {
        AtomicPtr::load(self, order)
    }

    #[inline]
    fn store(&self, what: NonNull<()>, order: Ordering) {
        AtomicPtr::store(self, what.as_ptr(), order);
    }
}

/// Of what is no address, but as small as a byte.
impl Kept for AtomicU8 {
    #[inline]
    fn new(what: NonNull<()>) -> Self {
        AtomicU8::new(what.addr().get().to_le_bytes()[0])
    }

    #[inline]
    fn load(&self, order: Ordering) -> *mut () {
        ptr::without_provenance_mut(AtomicU8::load(self, order).into())
    }

    #[inline]
    fn store(&self, what: NonNull<()>, order: Ordering) {
        AtomicU8::store(self, what.addr().get().to_le_bytes()[0], order);
    }
}

/// A place in a node.
pub(super) struct Place<P: Pointer>(P::Kept, PhantomData<P>);

impl<P: Pointer> Place<P> {
    pub(super) fn new(pointer: P) -> Self {
        Place(P::Kept::new(pointer.erase()), PhantomData)
    }

    /// What the newest tree has here.
    pub(super) fn now(&self) -> P {
        self.load(Ordering::Relaxed)
    }

    /// Changes a place that nobody else can reach.
    pub(super) fn set(&mut self, pointer: P) {
        *self = Place::new(pointer);
    }

    /// Changes a place of which it is noted what every version sees in it.
    ///
    /// # Safety
    /// The caller has the pen; no version sees what the place points to, or it sees the same then.
    pub(super) unsafe fn change_again(&self, to: P) {
        self.0.store(to.erase(), Ordering::Release);
    }

    fn load(&self, order: Ordering) -> P {
        let pointer = self.0.load(order);
        // SAFETY: only what was erased from a pointer of this type is stored, which is never null.
        unsafe { P::restore(NonNull::new_unchecked(pointer)) }
    }
}

/// What a place pointed to for versions that are older than a change.
pub(super) struct Former {
    at: usize,
    what: NonNull<()>,
    /// Versions before it see this, unless an older note says otherwise.
    until: Stamp,
    /// How many notes there are with this one.
    count: usize,
    /// The note before it, unless that is the first.
    next: *mut Former,
}

// SAFETY: what it points to is followed by those alone who have the node, whose own pointers say between
// which threads that may be.
unsafe impl Send for Former {}
// SAFETY: as above; and a note is never changed while others may look at it.
unsafe impl Sync for Former {}

/// What the places of a node pointed to before.
pub(super) struct Past {
    /// When a place was changed last under the eyes of others.
    changed: AtomicU64,
    first: First,
    /// The newest note, unless that is the first.
    last: AtomicPtr<Former>,
}

/// The oldest note. It lies in the node: most have no other, and one that lies elsewhere would be a cache miss
/// for every change of a node that was changed before.
struct First {
    /// Absent if there are no notes.
    what: AtomicPtr<()>,
    at: AtomicUsize,
    until: AtomicU64,
}

impl Past {
    pub(super) const fn none() -> Past {
        let first = First {
            what: AtomicPtr::new(ptr::null_mut()),
            at: AtomicUsize::new(0),
            until: AtomicU64::new(0),
        };
        Past { changed: AtomicU64::new(0), first, last: AtomicPtr::new(ptr::null_mut()) }
    }

    /// What a version has in one of the node's places; `Stamp::MAX` is the newest tree, of which whoever
    /// asks has the pen.
    ///
    /// # Safety
    /// The version is held and sees the node, and the places are the node's.
    #[inline]
    pub(super) unsafe fn see<P: Pointer>(
        &self,
        places: &[Place<P>],
        at: usize,
        version: Stamp,
    ) -> Option<P> {
        // If this is too new, so is the stamp, which was stored before it; and whoever sees the stamp sees
        // the note that was stored before that, not one that was let go of for it.
        let now = places.get(at)?.load(Ordering::Acquire);
        if self.changed.load(Ordering::Acquire) <= version {
            return Some(now);
        }
        // SAFETY: the caller's promise.
        Some(unsafe { self.former(at, version) }.unwrap_or(now))
    }

    /// What a place pointed to for a version, if it was changed since.
    ///
    /// # Safety
    /// As for [`see`](Self::see).
    #[cold]
    unsafe fn former<P: Pointer>(&self, at: usize, version: Stamp) -> Option<P> {
        let mut oldest = None;
        let mut next = self.last.load(Ordering::Acquire);
        // SAFETY: notes are let go of when no version is held that sees the node and is older than its
        // stamp; this one is, the caller promises.
        while let Some(former) = unsafe { next.as_ref() }
            && former.until > version
        {
            if former.at == at {
                oldest = Some(former.what);
            }
            next = former.next;
        }
        let first = &self.first;
        if first.until.load(Ordering::Relaxed) > version && first.at.load(Ordering::Relaxed) == at {
            oldest = NonNull::new(first.what.load(Ordering::Relaxed)).or(oldest);
        }
        // SAFETY: a node has places of one type only.
        oldest.map(|what| unsafe { P::restore(what) })
    }

    /// Whether it was changed under the eyes of versions that are older than this one.
    pub(super) fn is_newer_than(&self, version: Stamp) -> bool {
        self.changed.load(Ordering::Relaxed) > version
    }

    /// Whether another change can be noted.
    pub(super) fn has_room(&self) -> bool {
        // SAFETY: notes are let go of by the holder of the pen, who is asking.
        let last = unsafe { self.last.load(Ordering::Relaxed).as_ref() };
        last.is_none_or(|last| last.count < FORMERS_MAX)
    }

    /// Changes a place under the eyes of others.
    ///
    /// # Safety
    /// The caller has the pen, no version is as new as the stamp, and the places are the node's.
    pub(super) unsafe fn change<K, V, P: Pointer>(
        &self,
        place: &Place<P>,
        at: usize,
        to: P,
        stamp: Stamp,
        spare: &mut Spare<K, V>,
    ) {
        let (what, first) = (place.now().erase(), &self.first);
        if first.what.load(Ordering::Relaxed).is_null() {
            // Nobody looks at it before the stamp is newer than the version that is read.
            first.at.store(at, Ordering::Relaxed);
            first.until.store(stamp, Ordering::Relaxed);
            first.what.store(what.as_ptr(), Ordering::Relaxed);
        } else {
            let next = self.last.load(Ordering::Relaxed);
            // SAFETY: as in `has_room`.
            let count = unsafe { next.as_ref() }.map_or(1, |next| next.count) + 1;
            let former = Former { at, what, until: stamp, count, next };
            self.last.store(spare.note(former), Ordering::Release);
        }
        self.changed.store(stamp, Ordering::Release);
        place.0.store(to.erase(), Ordering::Release);
    }

    /// Lets go of all notes.
    ///
    /// # Safety
    /// The caller has the pen, and no version is held that sees the node and is older than its stamp.
    pub(super) unsafe fn forget<K, V>(&self, spare: &mut Spare<K, V>) {
        self.first.what.store(ptr::null_mut(), Ordering::Relaxed);
        let mut next = self.last.load(Ordering::Relaxed);
        if next.is_null() {
            return;
        }
        self.last.store(ptr::null_mut(), Ordering::Relaxed);
        while !next.is_null() {
            // SAFETY: it was made by `Box::into_raw`, and this was the only way to it.
            let former = unsafe { Box::from_raw(next) };
            next = former.next;
            spare.give_note(former);
        }
    }
}
