//! What was noted of a node's places: how it is let go of, and how a place becomes again what it was.

use std::ptr::NonNull;

use super::seats::{Seat, Seats};
use super::{Hot, NodePtr};
use crate::tree::place::{Place, Pointer};
use crate::tree::slot::Spare;

impl<K, V> NodePtr<K, V> {
    /// Lets go of what was noted of it.
    ///
    /// # Safety
    /// The node lives, the caller has the pen, and no version is held that sees the node and is older than its stamp.
    pub(in crate::tree) unsafe fn forget_past(self, spare: &mut Spare<K, V>) {
        // SAFETY: the caller's promise.
        unsafe {
            self.past().forget(spare);
            if let Some(Hot::Leaf(leaf)) = self.in_memory() {
                leaf.seats().into_iter().for_each(Seats::forget_notes);
            }
        }
    }

    /// Has a place be what it was before a change under the eyes of others.
    ///
    /// # Safety
    /// The node lives and the caller has the pen; no version sees what is in the place now, and it was this before.
    pub(in crate::tree) unsafe fn restore(self, at: usize, before: NonNull<()>) {
        // SAFETY: the caller's promise: it was erased from what such places hold.
        unsafe {
            match self.in_memory() {
                Some(Hot::Inner(inner)) => change_back(inner.children.get(at), before),
                Some(Hot::Leaf(leaf)) => match leaf.seats() {
                    Some(seats) => {
                        if let Some(place) = seats.places().get(at) {
                            seats.note(place.now());
                            seats.note_no_more(Seat::restore(before));
                        }
                        change_back(seats.places().get(at), before);
                    }
                    None => change_back(leaf.places().get(at), before),
                },
                None => {}
            }
        }
    }
}

/// Has a place hold what it held before.
///
/// # Safety
/// The caller has the pen, no version sees what is in the place now, and what it held was erased.
unsafe fn change_back<P: Pointer>(place: Option<&Place<P>>, before: NonNull<()>) {
    // SAFETY: the caller's promise.
    place.into_iter().for_each(|place| unsafe { place.change_again(P::restore(before)) });
}
