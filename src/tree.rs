//! The ordered, copy-on-write B+tree that holds a region in memory.
//!
//! A tree is its root: cloning it is a view, keeping an older one is a rollback, dropping it is a
//! discard. It knows no files: what is cold it gets from a [`Source`] on first touch.
//!
//! # Invariants
//! - A node that another root can reach is never changed, but copied; a node that only this root
//!   can reach is changed in place.
//! - Values are never cloned: each sits behind one pointer, which moves.
//! - Keys ascend; the bound between two children is above every key of the left one and not above
//!   any key of the right one.
//! - A cold range is loaded once, whoever asks first; everybody else waits and shares the result.
//! - A range is loaded before anything in it is changed: one that is cold holds what it held when
//!   the tree was made, in every version that shares it.

mod edit;
mod graveyard;
mod iter;
mod node;
mod warm;

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

pub(crate) use graveyard::Graveyard;
pub(crate) use iter::Iter;
pub(crate) use node::{Ahead, Loaded, Ranges, Source};
use node::{Hot, Node, build, hot};
pub(crate) use warm::WarmPosition;

use crate::error::Result;

/// An ordered map from `K` to `V` that is cheap to copy and to drop.
pub(crate) struct Tree<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
    /// Ranges of it may be cold; not so once it was emptied, whatever it was before.
    was_cold: bool,
    graveyard: Graveyard,
    /// How to send a root there: `Drop` cannot ask for the bounds that sending needs.
    bury: fn(Arc<Node<K, V>>, &Graveyard),
}

impl<K, V> Clone for Tree<K, V> {
    fn clone(&self) -> Self {
        Tree {
            root: Arc::clone(&self.root),
            len: self.len,
            was_cold: self.was_cold,
            graveyard: self.graveyard.clone(),
            bury: self.bury,
        }
    }
}

impl<K, V> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<K: Clone + Send + Sync + 'static, V: Send + Sync + 'static> Tree<K, V> {
    pub(crate) fn new(graveyard: Graveyard) -> Self {
        Tree::with_root(Arc::new(Node::empty()), 0, graveyard)
    }

    /// A tree of `len` entries that are loaded on first touch.
    pub(crate) fn cold(source: Box<dyn Source<K, V>>, len: usize, graveyard: Graveyard) -> Self {
        let mut tree = Tree::with_root(Arc::new(Node::cold(source)), len, graveyard);
        tree.was_cold = true;
        tree
    }

    /// A tree of entries that come in ascending order.
    pub(crate) fn from_sorted(entries: Vec<(K, Arc<V>)>, graveyard: Graveyard) -> Self {
        let len = entries.len();
        Tree::with_root(Arc::new(Node::Hot(build(entries))), len, graveyard)
    }

    fn with_root(root: Arc<Node<K, V>>, len: usize, graveyard: Graveyard) -> Self {
        let bury = |root, graveyard: &Graveyard| graveyard.bury(Box::new(root));
        Tree { root, len, was_cold: false, graveyard, bury }
    }

    /// An empty tree that buries where this one does.
    pub(crate) fn emptied(&self) -> Self {
        Tree::new(self.graveyard.clone())
    }
}

impl<K, V> Tree<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it comes from a cold tree without having been emptied since.
    pub(crate) fn was_cold(&self) -> bool {
        self.was_cold
    }
}

impl<K: Clone, V> Tree<K, V> {
    /// The value of the key for which `probe` is `Equal`; `probe` says how what is sought compares
    /// with a key of the tree.
    pub(crate) fn get(&self, probe: impl Fn(&K) -> Ordering) -> Result<Option<&Arc<V>>> {
        let mut node = &*self.root;
        loop {
            match hot(node)? {
                Hot::Inner(inner) => match inner.children.get(inner.child_for(&probe)) {
                    Some(child) => node = child,
                    None => return Ok(None),
                },
                Hot::Leaf(leaf) => {
                    let found = leaf.find(&probe).ok();
                    return Ok(found.and_then(|at| leaf.values.get(at)));
                }
            }
        }
    }

    /// The entries between two places, from both ends; a place is given by the keys before it.
    pub(crate) fn range(
        &self,
        before_first: impl Fn(&K) -> bool,
        before_end: impl Fn(&K) -> bool,
    ) -> Iter<'_, K, V> {
        Iter::new(&self.root, &before_first, &before_end)
    }

    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.range(|_| false, |_| true)
    }
}

impl<K, V> Drop for Tree<K, V> {
    fn drop(&mut self) {
        if self.len >= graveyard::WORTH_BURYING && node::is_abandoned(&self.root) {
            let root = std::mem::replace(&mut self.root, Arc::new(Node::empty()));
            (self.bury)(root, &self.graveyard);
        }
    }
}

#[cfg(test)]
mod tests;
