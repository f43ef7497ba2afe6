//! Going back: a tree is again what it was when a draft, or its savepoint, began.

use std::ptr::NonNull;

use super::limbo::{Dead, Thing};
use super::line::Pen;
use super::node::{Hot, NodePtr, Stamp};
use super::place::Pointer;
use super::slot::Spare;

/// A place that was changed under the eyes of others.
pub(super) struct Change<K, V> {
    pub(super) node: NodePtr<K, V>,
    pub(super) at: usize,
    /// What it told.
    pub(super) before: NonNull<()>,
}

// SAFETY: what the place told is followed by those alone who have the node, which says between which threads that
// may be.
unsafe impl<K, V> Send for Change<K, V> where NodePtr<K, V>: Send {}
// SAFETY: as above.
unsafe impl<K, V> Sync for Change<K, V> where NodePtr<K, V>: Sync {}

/// A moment in what a draft did.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// What was born since is undone.
    pub(super) since: Stamp,
    /// How much had died, and how many places been changed.
    pub(super) dead: usize,
    pub(super) changes: usize,
}

impl<K, V> Pen<K, V> {
    pub(super) fn mark(&self, since: Stamp) -> Mark {
        Mark { since, dead: self.dead.len(), changes: self.changes.len() }
    }

    /// Points places to what they pointed to, takes back what died, and frees what was born since a mark. Of what is
    /// `torn`, since a change panicked half way, only that which is noted as dead is known to live: the rest is leaked.
    pub(super) fn undo(&mut self, root: NodePtr<K, V>, mark: Mark, torn: bool) {
        let Pen { dead, changes, spare, .. } = self;
        let gone = dead.get(mark.dead..).unwrap_or_default().iter();
        let mut gone: Vec<_> =
            gone.filter_map(|dead| dead.what.node()).map(Pointer::erase).collect();
        gone.sort_unstable();
        // Nodes that were born since have no places to be restored: they end.
        // SAFETY: nothing is freed yet; a node that was changed when others saw it lives.
        let undone = changes.drain(mark.changes..).rev();
        let undone: Vec<_> =
            undone.filter(|change| unsafe { change.node.born() } < mark.since).collect();
        // What is in the tree now and was born since lies below the root, or in a place of an older node
        // that is still in the tree itself. Of a node that is not, other nodes took over the places.
        let changed = undone.iter().map(|change| (change.node.erase(), change));
        let in_tree = changed.filter(|(node, _)| gone.binary_search(node).is_err());
        let mut places: Vec<_> = in_tree.map(|(node, change)| (node, change.at, change)).collect();
        // Each of them once.
        places.sort_unstable_by_key(|(node, at, _)| (*node, *at));
        places.dedup_by_key(|(node, at, _)| (*node, *at));
        let now = places.iter().filter_map(|(_, _, change)| change.now());
        let open = std::iter::once(Thing::Node(root)).chain(now).collect();
        for change in undone {
            change.restore();
        }
        let revived: Vec<_> = dead.drain(mark.dead..).collect();
        // All is as it was; from here on destructors run, which may panic.
        if !torn {
            free_since(open, mark.since, spare);
        }
        for Dead { what, .. } in revived {
            // SAFETY: what is noted as dead lives until it is handed over. What was born since the draft
            // began was never seen by others.
            unsafe {
                if what.born() >= mark.since {
                    what.free(spare);
                } else {
                    what.revive(spare);
                }
            }
        }
    }
}

impl<K, V> Change<K, V> {
    /// What the place points to.
    fn now(&self) -> Option<Thing<K, V>> {
        // SAFETY: the node lives; what was changed is in memory.
        match unsafe { self.node.in_memory() }? {
            Hot::Leaf(leaf) => leaf.places().get(self.at).map(|place| Thing::Value(place.now())),
            Hot::Inner(inner) => inner.children.get(self.at).map(|place| Thing::Node(place.now())),
        }
    }

    /// The note that was made stays: it says the same as the place then does.
    fn restore(self) {
        // SAFETY: as above; whoever undoes has the pen, and what the place tells of now no version sees. It told
        // something of this kind before.
        unsafe { self.node.restore(self.at, self.before) }
    }
}

/// Frees what was born since, with what is below it.
fn free_since<K, V>(mut open: Vec<Thing<K, V>>, since: Stamp, spare: &mut Spare<K, V>) {
    while let Some(thing) = open.pop() {
        // SAFETY: the tree under change lives. What was born since has one place in it, and nobody follows
        // a pointer to it but the draft, which ends or goes back. Older nodes that hold some of it in
        // their places are looked at by whoever asks for this.
        unsafe {
            if thing.born() < since {
                continue;
            }
            match thing.node().and_then(|node| node.in_memory()) {
                Some(Hot::Inner(inner)) => {
                    open.extend(inner.children.iter().map(|place| Thing::Node(place.now())));
                }
                Some(Hot::Leaf(leaf)) => {
                    open.extend(leaf.places().iter().map(|place| Thing::Value(place.now())));
                }
                None => {}
            }
            if let Thing::Node(node) = thing {
                node.drop_shared(since);
            }
            thing.free(spare);
        }
    }
}
