//! The ordered, copy-on-write B+tree that holds a region in memory.
//!
//! A [`Tree`] is one version: it never changes, cloning it is a view, and keeping an older one is a
//! rollback. A [`Draft`] makes the next version of it. Versions of one tree share what did not change,
//! and form a line; nothing is counted on the way down: nodes and values carry the stamp of their
//! birth, and what newer versions do not see is freed when no older one is held that does (see
//! `line`). The tree knows no files: what is cold it gets from a [`Source`] on first touch.
//!
//! # Invariants
//! - Of a node that somebody else can reach nothing is changed but what its places point to, after it
//!   was noted what older versions see there (see `place`); for anything else it is copied. A node that
//!   only a draft can reach is changed in place.
//! - Values are never moved while anybody can see them: each sits behind one pointer, which is copied; or, if it is
//!   small and plain, in its leaf, and is copied with that. None is cloned.
//! - Keys ascend; the bound between two children is above every key of the left one and not above
//!   any key of the right one.
//! - A cold range is loaded once, whoever asks first; everybody else waits and shares the result.
//! - A range is loaded before anything in it is changed: one that is cold holds what it held when
//!   the tree was made, in every version that shares it.
//!
//! # Why it is sound
//! Nodes are reached from a version's root or a draft's, and from nowhere else. A version holds its
//! line, so its nodes are freed by [`Line::sweep`](line::Line::sweep) alone, after it is gone. The
//! newest version's nodes are not freed at all as long as the line lives, which is what a draft reads.
//! Shared references are given out for as long as a version or a draft is borrowed. A draft changes
//! nodes that were born at or after its floor: no version was made since that is held or can be, so none
//! reaches them, and there is one draft of a line at a time. Places of older nodes may point to them,
//! but whoever reads at a version follows no pointer that is newer.
#![allow(
    unsafe_code,
    reason = "nodes are stamped instead of counted; see the module's documentation"
)]
#![cfg_attr(
    all(test, feature = "schedules"),
    allow(
        dead_code,
        unused_imports,
        reason = "its tests are left out: they take half of the build of all tests"
    )
)]

mod arenas;
mod between;
mod desk;
mod draft;
mod edit;
mod frozen;
mod graveyard;
mod iter;
mod limbo;
mod line;
mod node;
mod place;
mod reader;
mod room;
mod slot;
mod stored;
mod undo;
mod version;
mod warm;

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub(crate) use between::{Between, Compare, Edge};
pub(crate) use draft::{Draft, Live, TreeSavepoint};
pub use frozen::Frozen;
pub(crate) use graveyard::{Graveyard, Remains};
pub(crate) use iter::Iter;
use line::Line;
pub(crate) use node::{BULK_FILL, Entries, Loaded, Ranges, Source, Standing};
use node::{Copies, NodePtr, Stamp, build};
pub(crate) use reader::Reader;
#[cfg(feature = "controls")]
pub(crate) use room::bytes_in_use;
use slot::Spare;
pub(crate) use stored::{Old, Stored};
pub(crate) use version::{AnyVersion, Owner, Version};
pub(crate) use warm::WarmPosition;

/// What a tree is born with.
const FIRST: Stamp = 0;

/// One version of an ordered map from `K` to `V`; cheap to clone and to drop.
pub(crate) struct Tree<K, V>(Arc<Version<K, V>>);

impl<K, V> Clone for Tree<K, V> {
    fn clone(&self) -> Self {
        Tree(Arc::clone(&self.0))
    }
}

impl<K, V> fmt::Debug for Tree<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("len", &self.0.len).finish_non_exhaustive()
    }
}

impl<K, V> fmt::Debug for Draft<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<K: Clone + Send + Sync + 'static, V: Send + Sync + 'static> Tree<K, V> {
    pub(crate) fn new(keys: Option<Frozen<K>>, graveyard: Graveyard) -> Self {
        Tree::empty(Copies::of(keys), graveyard)
    }

    fn empty(copies: Copies, graveyard: Graveyard) -> Self {
        let mut spare = Spare::default();
        let root = NodePtr::leaf(FIRST, copies, &mut spare);
        Tree(Line::begin(root, 0, spare, graveyard))
    }

    /// A tree of `len` entries that are loaded on first touch.
    pub(crate) fn cold(
        keys: Option<Frozen<K>>,
        source: Box<dyn Source<K, V>>,
        len: usize,
        graveyard: Graveyard,
    ) -> Self {
        let root = NodePtr::cold(FIRST, Copies::of(keys), source);
        Tree(Line::begin(root, len, Spare::default(), graveyard))
    }

    /// A tree of entries that come in ascending order.
    pub(crate) fn from_sorted(
        keys: Option<Frozen<K>>,
        entries: Vec<(K, V)>,
        graveyard: Graveyard,
    ) -> Self {
        let entries = entries.into_iter().map(|(key, value)| (key, Stored::Value(value)));
        let mut entries: Vec<_> = entries.collect();
        let (len, mut spare) = (entries.len(), Spare::default());
        let root = build(FIRST, Copies::of(keys), &mut entries, &mut spare);
        Tree(Line::begin(root, len, spare, graveyard))
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Tree<K, V> {
    /// The same tree, which is new, with what it belongs to.
    ///
    /// # Panics
    /// If somebody has it already.
    pub(crate) fn owned_by(mut self, owner: Owner) -> Self {
        let line = Arc::get_mut(&mut self.0).and_then(|version| Arc::get_mut(&mut version.line));
        line.expect("a tree is given to what it belongs to when it is made").owner = Some(owner);
        self
    }

    pub(crate) fn of_any_types(self) -> Arc<dyn AnyVersion> {
        self.0
    }

    /// The same tree with its types, if it is of these.
    pub(crate) fn of_types(version: Arc<dyn AnyVersion>) -> Option<Self> {
        let version: Arc<dyn Any + Send + Sync> = version;
        version.downcast().ok().map(Tree)
    }
}

impl<K, V> Tree<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len
    }

    /// Frees what nobody can see, without waiting for a better time.
    #[cfg(test)]
    fn sweep(&self) {
        self.0.line.sweep();
    }

    /// Begins the next version.
    ///
    /// # Panics
    /// If it is not the newest version, or another draft is not settled.
    pub(crate) fn draft(&self) -> Draft<K, V> {
        Draft::begin(self)
    }
}

impl<K, V> Deref for Tree<K, V> {
    type Target = Version<K, V>;

    fn deref(&self) -> &Version<K, V> {
        &self.0
    }
}

#[cfg(test)]
mod panics;
#[cfg(not(feature = "schedules"))]
#[cfg(test)]
mod tests;
