//! Changing a tree: a place that others see is changed under their eyes, as long as its node has room for
//! notes of what was there, and a seat if it needs one; then the node is copied, and the place that leads to it is
//! changed.

mod insert;
mod put;
mod remove;

use super::limbo::{Dead, Thing};
use super::node::{Born, Hot, HotMut, Inner, NodePtr, Small, Stamp};
use super::place::{Place, Pointer};
use super::slot::{Spare, ValuePtr};
use super::stored::Old;
use super::undo::Change;
use crate::error::Result;

/// A change of the tree of a draft, whose pen it has.
///
/// Every function takes nodes of that tree, which live, and returns the node that takes its place: the
/// same one, or a copy. What was born at or after the floor has one place in it, and nobody else follows
/// a pointer to it.
pub(super) struct Edit<'a, K, V> {
    /// New things are born at it.
    pub(super) stamp: Stamp,
    pub(super) floor: Stamp,
    /// The newest version that others may see.
    pub(super) newest: Stamp,
    /// What was born at or after it no other version sees.
    pub(super) alone_since: Stamp,
    pub(super) dead: &'a mut Vec<Dead<K, V>>,
    pub(super) changes: &'a mut Vec<Change<K, V>>,
    pub(super) spare: &'a mut Spare<K, V>,
    /// The value that has lost its place. On the way up it stays here: to read in one piece what was just written in
    /// several takes a processor long.
    pub(super) old: Option<Replaced<V>>,
    /// The key that has, if nobody else can reach it, for whoever can let go of it.
    pub(super) old_key: Option<K>,
    /// Something is changed, and what leads to it is not yet as it will be. So it stays if a clone or a destructor of a
    /// key panics meanwhile.
    pub(super) torn: &'a mut bool,
}

/// What the places of a node point to.
trait Target<K, V>: Pointer + Into<Thing<K, V>> {
    fn places<'n>(node: &Hot<'n, K, V>) -> &'n [Place<Self>];
    fn places_mut(node: HotMut<'_, K, V>) -> &mut [Place<Self>];
}

impl<K, V> Target<K, V> for ValuePtr<V> {
    fn places<'n>(node: &Hot<'n, K, V>) -> &'n [Place<Self>] {
        if let Hot::Leaf(leaf) = node { leaf.places() } else { &[] }
    }

    fn places_mut(node: HotMut<'_, K, V>) -> &mut [Place<Self>] {
        if let HotMut::Leaf(leaf) = node { leaf.into_places() } else { &mut [] }
    }
}

impl<K, V> Target<K, V> for NodePtr<K, V> {
    fn places<'n>(node: &Hot<'n, K, V>) -> &'n [Place<Self>] {
        if let Hot::Inner(inner) = node { &inner.children } else { &[] }
    }

    fn places_mut(node: HotMut<'_, K, V>) -> &mut [Place<Self>] {
        if let HotMut::Inner(inner) = node { inner.children } else { &mut [] }
    }
}

/// A value that has lost its place. On the way up it stays where it lies.
pub(super) enum Replaced<V> {
    /// Nobody else can reach it, and nothing else will free it.
    Owned(ValuePtr<V>),
    /// It is noted as dead.
    Seen(ValuePtr<V>),
    /// A copy of what is, or was, in a seat of a leaf.
    Small(Small<V>),
}

impl<V> Replaced<V> {
    /// For as long as the draft is not changed again.
    pub(super) fn into_old<'a, K>(self, spare: &mut Spare<K, V>) -> Old<'a, V> {
        match self {
            // SAFETY: it has lost its place, and this is the only way to it.
            Replaced::Owned(value) => unsafe { value.take(&mut spare.values) },
            // SAFETY: what is noted as dead lives until the draft hands it over, for which it is
            // borrowed anew: the caller borrows it for as long as the reference is used.
            Replaced::Seen(value) => {
                unsafe { value.get() }.map_or_else(Old::Undecodable, Old::Seen)
            }
            Replaced::Small(value) => value.into_old(),
        }
    }
}

impl<K: Clone, V> Edit<'_, K, V> {
    /// The node in memory.
    #[inline]
    fn hot<'n>(node: NodePtr<K, V>) -> Result<Hot<'n, K, V>> {
        // SAFETY: nodes of the tree live until they are freed by functions that nobody calls while this
        // is borrowed; and all that changes in a node that is not owned are its places.
        unsafe { node.hot_alone() }
    }

    /// Where the way down goes on, while the processor fetches it.
    fn child(inner: &Inner<K, V>, at: usize) -> Option<NodePtr<K, V>> {
        inner.children.get(at).map(Place::now).inspect(|child| child.prefetch())
    }

    /// This draft's own node: itself, or a copy where somebody else can reach it.
    fn own(&mut self, node: NodePtr<K, V>) -> NodePtr<K, V> {
        // SAFETY: nodes of the tree live, and this one is in memory, since its way was gone down.
        unsafe {
            let own = if node.born() >= self.floor {
                node
            } else {
                let copy = node.copy(self.stamp, self.spare);
                self.bury(Thing::Node(node));
                copy
            };
            *self.torn = true;
            own
        }
    }

    /// Ends a change: what is dropped from here on breaks nothing.
    pub(super) fn end(&mut self) {
        *self.torn = false;
    }

    /// Has a place of a node point to something else; returns as well whether what was there is new.
    fn set<P: Target<K, V>>(
        &mut self,
        node: NodePtr<K, V>,
        at: usize,
        to: P,
    ) -> (NodePtr<K, V>, bool) {
        // SAFETY: nodes of the tree live, and nobody changes them while they are looked at.
        let (hot, born) = unsafe { (node.in_memory(), node.born()) };
        let place = hot.as_ref().and_then(|hot| P::places(hot).get(at));
        let is_new = place.is_some_and(|place| self.is_new(node, &place.now().into()));
        if born < self.floor
            && place.is_some_and(|place| self.set_seen(node, place, at, to, is_new))
        {
            return (node, is_new);
        }
        let own = self.own(node);
        // SAFETY: it is nobody else's, and nothing of it is borrowed.
        if let Some(place) = P::places_mut(unsafe { own.hot_mut() }).get_mut(at) {
            place.set(to);
        }
        (own, is_new)
    }

    /// The same under the eyes of others; `false` if the node has to be copied for it.
    fn set_seen<P: Target<K, V>>(
        &mut self,
        node: NodePtr<K, V>,
        place: &Place<P>,
        at: usize,
        to: P,
        is_new: bool,
    ) -> bool {
        // SAFETY: nodes of the tree live, and this is the holder of the pen. What is in the place lives,
        // since it is in the tree, or noted as dead.
        unsafe {
            if is_new {
                // It came there since the newest version was made, which was noted then.
                place.change_again(to);
                return true;
            }
            if !self.has_room_for_a_note(node) {
                return false;
            }
            self.note(node, place, at, to);
            true
        }
    }

    /// Whether a change can be noted with a node that others see, after notes that nobody needs were forgotten.
    fn has_room_for_a_note(&mut self, node: NodePtr<K, V>) -> bool {
        // SAFETY: nodes of the tree live, and this is the holder of the pen. Notes are forgotten if the newest version
        // alone sees the node and nothing in it is newer than that version.
        unsafe {
            if node.born() >= self.alone_since && !node.past().is_newer_than(self.newest) {
                node.forget_past(self.spare);
            }
            node.past().has_room()
        }
    }

    /// Changes a place under the eyes of others.
    ///
    /// # Safety
    /// It is one of the node, with which there is room for a note.
    unsafe fn note<P: Pointer>(&mut self, node: NodePtr<K, V>, place: &Place<P>, at: usize, to: P) {
        let before = place.now().erase();
        // SAFETY: nodes of the tree live, and this is the holder of the pen; no version is as new as the stamp.
        unsafe { node.past().change(place, at, to, self.stamp, self.spare) };
        self.changes.push(Change { node, at, before });
    }

    /// Whether what is in a place of a node was born since the floor, so that nobody else has seen it. Into a
    /// node that is older it came under the eyes of others, which the node tells: so what is replaced is
    /// mostly not looked at, which would be a cache miss.
    fn is_new(&self, node: NodePtr<K, V>, what: &Thing<K, V>) -> bool {
        // Of a tree that is changed where it stands nobody sees anything, mostly.
        if self.floor == 0 {
            return true;
        }
        // SAFETY: nodes of the tree live, and what is in them.
        unsafe {
            let may_be = node.born() >= self.floor || node.past().is_newer_than(self.floor - 1);
            may_be && what.born() >= self.floor
        }
    }

    /// Notes that others may see something and newer versions do not.
    fn bury(&mut self, what: Thing<K, V>) {
        self.dead.push(Dead { what, died: self.stamp });
    }

    /// Ends a node that has lost its place; what is below it has another one.
    fn end_node(&mut self, node: NodePtr<K, V>) {
        // SAFETY: it lives; and if nobody else can reach it this was the last way to it.
        unsafe {
            if node.born() < self.floor {
                self.bury(Thing::Node(node));
            } else {
                node.free(self.spare);
            }
        }
    }

    /// Ends a value that has lost its place.
    fn end_value(&mut self, value: ValuePtr<V>, is_new: bool) -> Replaced<V> {
        if is_new {
            return Replaced::Owned(value);
        }
        self.bury(Thing::Value(value));
        Replaced::Seen(value)
    }

    /// Ends a key that has lost its place; returns it if nobody else can reach it.
    fn end_key(&mut self, Born { key, born }: Born<K>) -> Option<K> {
        if born >= self.floor {
            return Some(key);
        }
        let key = ValuePtr::new(born, key, &mut self.spare.keys);
        self.bury(Thing::Key(key));
        None
    }
}

/// A child of a node and a neighbour of it, with the room that is there for the two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    room: usize,
    /// The left one of them.
    left: usize,
}

/// A child with that of its neighbours where most room is, if there is any.
fn pair_with_most_room(at: usize, room: impl Fn(usize) -> Option<usize>) -> Option<Pair> {
    let before = at.checked_sub(1).and_then(|left| Some(Pair { room: room(left)?, left }));
    let behind = room(at + 1).map(|room| Pair { room, left: at });
    before.max(behind)
}
