//! The next version of a tree, while it is made.
//!
//! # Invariants
//! - What was born at or after the draft's *floor* nobody else can reach: it is changed in place and
//!   freed at once. Everything else is copied, and what is replaced is noted as dead.
//! - A draft that ends without being settled leaves its line as it was.

use std::cmp::Ordering;
use std::sync::Arc;

use super::edit::Edit;
use super::line::{Dead, Line, Pen, Version};
use super::node::{Hot, NodePtr, Stamp};
use super::{Graveyard, Iter, Tree, find};
use crate::error::Result;

/// A tree that is being changed. It reads like one.
pub(crate) struct Draft<K, V> {
    /// The version it began at, or the last one that was kept.
    base: Tree<K, V>,
    /// Absent once it is settled.
    pen: Option<Box<Pen<K, V>>>,
    root: NodePtr<K, V>,
    len: usize,
    was_cold: bool,
    /// What was born since is undone with the draft.
    began: Stamp,
    /// What is made now is born at this stamp.
    stamp: Stamp,
    /// What was born at or after it nobody else can reach.
    floor: Stamp,
    /// The version that was made of it last and is not kept yet.
    frozen: Option<Arc<Version<K, V>>>,
    /// Versions that were made of it before that, oldest first, as far as anybody held them then.
    frozen_before: Vec<Arc<Version<K, V>>>,
}

/// A value that was replaced or removed.
pub(crate) enum Old<'a, V> {
    /// Nobody else sees it.
    Owned(V),
    /// Older versions do.
    Seen(&'a V),
}

impl<V: Clone> Old<'_, V> {
    /// The value itself, or a clone of what others still see.
    pub(crate) fn into_value(self) -> V {
        match self {
            Old::Owned(value) => value,
            Old::Seen(value) => value.clone(),
        }
    }
}

/// Where [`Draft::undo`] goes back to.
pub(crate) struct TreeSavepoint<K, V> {
    root: NodePtr<K, V>,
    len: usize,
    was_cold: bool,
    floor: Stamp,
    dead: usize,
    /// What was born since is undone.
    since: Stamp,
}

impl<K, V> Draft<K, V> {
    pub(super) fn begin(base: &Tree<K, V>) -> Self {
        let version = &base.0;
        let pen = version.line.take_pen();
        let stamp = pen.clock + 1;
        let is_newest = pen.newest_stamp == version.stamp;
        let draft = Draft {
            base: base.clone(),
            pen: Some(pen),
            root: version.root,
            len: version.len,
            was_cold: version.was_cold,
            began: stamp,
            stamp,
            floor: stamp,
            frozen: None,
            frozen_before: Vec::new(),
        };
        assert!(is_newest, "only the newest version of a tree is changed");
        draft
    }

    fn line(&self) -> &Arc<Line<K, V>> {
        &self.base.0.line
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it comes from a cold tree without having been emptied since.
    pub(crate) fn was_cold(&self) -> bool {
        self.was_cold
    }

    pub(crate) fn graveyard(&self) -> &Graveyard {
        &self.line().graveyard
    }

    /// Frees what was born since and is below a node.
    fn free_since(pen: &mut Pen<K, V>, since: Stamp, root: NodePtr<K, V>) {
        let mut open = vec![root];
        while let Some(node) = open.pop() {
            // SAFETY: the tree under change lives. What was born since this draft began, or since its
            // savepoint, has one place in it and nobody else can reach it; it has no place from now
            // on. Nodes that are older have only older ones below them.
            unsafe {
                if node.born() < since {
                    continue;
                }
                match node.in_memory() {
                    Some(Hot::Inner(inner)) => open.extend(&inner.children),
                    Some(Hot::Leaf(leaf)) => {
                        let fresh = leaf.values.iter().filter(|value| value.born() >= since);
                        fresh.for_each(|value| drop(value.take(&mut pen.spare)));
                    }
                    None => {}
                }
                node.free(&mut pen.spare);
            }
        }
    }

    /// Takes back that something died; what was born since is freed, since it has no place now.
    fn revive(pen: &mut Pen<K, V>, from: usize, since: Stamp) {
        let Pen { dead, spare, .. } = pen;
        for Dead { what, .. } in dead.drain(from..) {
            // SAFETY: what is noted as dead lives until it is handed over. What was born since this
            // draft began was never seen by others.
            unsafe {
                if what.born() >= since {
                    what.free(spare);
                }
            }
        }
    }

    pub(crate) fn savepoint(&mut self) -> TreeSavepoint<K, V> {
        let dead = self.pen.as_ref().map_or(0, |pen| pen.dead.len());
        let (root, len, was_cold, floor) = (self.root, self.len, self.was_cold, self.floor);
        self.stamp += 1;
        self.floor = self.stamp;
        TreeSavepoint { root, len, was_cold, floor, dead, since: self.stamp }
    }

    /// Goes back to a savepoint of this draft, taken after any to which it went back before.
    pub(crate) fn undo(&mut self, savepoint: &TreeSavepoint<K, V>) {
        if let Some(pen) = &mut self.pen {
            Draft::free_since(pen, savepoint.since, self.root);
            Draft::revive(pen, savepoint.dead, savepoint.since);
        }
        self.root = savepoint.root;
        self.len = savepoint.len;
        self.was_cold = savepoint.was_cold;
        self.floor = savepoint.floor;
    }

    /// What it is now, for others to read; it can be changed further. The version counts for
    /// nothing before it is kept, and must be gone if the draft is dropped instead.
    pub(crate) fn freeze(&mut self) -> Tree<K, V> {
        if let Some(frozen) = self.frozen.as_ref().filter(|frozen| frozen.root == self.root) {
            return Tree(Arc::clone(frozen));
        }
        if self.frozen.is_none() && self.base.0.root == self.root {
            return self.base.clone();
        }
        let version = Arc::new(Version {
            root: self.root,
            len: self.len,
            was_cold: self.was_cold,
            stamp: self.stamp,
            line: Arc::clone(self.line()),
        });
        self.stamp += 1;
        self.floor = self.stamp;
        let before = self.frozen.replace(Arc::clone(&version));
        self.frozen_before.extend(before.filter(|before| Arc::strong_count(before) > 1));
        Tree(version)
    }

    /// Makes what was frozen the newest version of the line, and lets go of what died for it.
    fn keep(&mut self) {
        let Some(pen) = &mut self.pen else { return };
        // Every version that somebody may hold is known before anything is freed that it sees.
        let version = self.frozen.take();
        let all = self.frozen_before.drain(..).chain(version.clone());
        let registered = all.map(|version| (version.stamp, Arc::downgrade(&version)));
        self.base.0.line.hand_over(registered, &mut pen.dead);
        if let Some(version) = version {
            pen.newest_stamp = version.stamp;
            self.base = Tree(version);
        }
        self.began = self.stamp;
    }

    /// Ends the draft; what it made stays.
    pub(crate) fn settle(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.keep();
        if let Some(mut pen) = self.pen.take() {
            pen.newest = self.root;
            pen.newest_len = self.len;
            pen.clock = self.stamp;
            self.line().return_pen(pen);
        }
    }
}

impl<K: Clone, V> Draft<K, V> {
    pub(crate) fn get(&self, probe: impl Fn(&K) -> Ordering) -> Result<Option<&V>> {
        // SAFETY: the newest version of a line lives, and changing it takes the draft exclusively.
        unsafe { find(self.root, probe) }
    }

    pub(crate) fn range(
        &self,
        before_first: impl Fn(&K) -> bool,
        before_end: impl Fn(&K) -> bool,
    ) -> Iter<'_, K, V> {
        // SAFETY: as in `get`; the iterator borrows the draft.
        unsafe { Iter::new(self.root, &before_first, &before_end) }
    }

    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.range(|_| false, |_| true)
    }

    fn edit(&mut self) -> (Edit<'_, K, V>, &mut NodePtr<K, V>, &mut usize) {
        let pen = self.pen.as_mut().expect("a draft that is settled is not changed");
        let edit = Edit {
            stamp: self.stamp,
            floor: self.floor,
            dead: &mut pen.dead,
            spare: &mut pen.spare,
        };
        (edit, &mut self.root, &mut self.len)
    }

    /// Inserts or replaces; returns the value that was there. After an error nothing has changed.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<Option<Old<'_, V>>>
    where
        K: Ord,
    {
        let (mut edit, root, len) = self.edit();
        let replaced = edit.insert_at_root(root, key, value)?;
        if replaced.is_none() {
            *len += 1;
        }
        Ok(replaced.map(|replaced| replaced.into_old(edit.spare)))
    }

    /// Puts another value in the place of the one that `probe` finds, and returns that.
    pub(crate) fn replace(
        &mut self,
        probe: impl Fn(&K) -> Ordering,
        value: V,
    ) -> Result<Option<Old<'_, V>>> {
        let (mut edit, root, _) = self.edit();
        Ok(edit.replace(root, &probe, value)?.map(|replaced| replaced.into_old(edit.spare)))
    }

    /// The value that `probe` finds, to be changed: a clone of it, where others see it.
    pub(crate) fn get_mut(&mut self, probe: impl Fn(&K) -> Ordering) -> Result<Option<&mut V>>
    where
        V: Clone,
    {
        let (mut edit, root, _) = self.edit();
        edit.get_mut(root, &probe)
    }

    /// Removes the entry that `probe` finds.
    pub(crate) fn remove(
        &mut self,
        probe: impl Fn(&K) -> Ordering,
    ) -> Result<Option<(K, Old<'_, V>)>> {
        let (mut edit, root, len) = self.edit();
        let removed = edit.remove_at_root(root, &probe)?;
        if removed.is_some() {
            *len -= 1;
        }
        Ok(removed.map(|(key, old)| (key, old.into_old(edit.spare))))
    }
}

impl<K, V> Drop for Draft<K, V> {
    fn drop(&mut self) {
        let Some(mut pen) = self.pen.take() else { return };
        let mut frozen = self.frozen_before.iter().chain(&self.frozen);
        if frozen.any(|frozen| Arc::strong_count(frozen) > 1) {
            // Somebody reads what was to be undone: it is kept instead.
            self.pen = Some(pen);
            return self.end();
        }
        self.frozen = None;
        self.frozen_before.clear();
        Draft::free_since(&mut pen, self.began, self.root);
        Draft::revive(&mut pen, 0, self.began);
        pen.clock = self.stamp;
        self.line().return_pen(pen);
    }
}

/// A tree that is changed where it stands, with no way back: what it is when it goes is its end.
pub(crate) struct Live<K, V>(Draft<K, V>);

/// So many dead are handed over although no version was made.
const LIVE_DEAD_MAX: usize = 1024;

impl<K, V> Live<K, V> {
    pub(crate) fn new(tree: &Tree<K, V>) -> Self {
        Live(Draft::begin(tree))
    }

    pub(crate) fn get(&self) -> &Draft<K, V> {
        &self.0
    }

    /// What it is now, if it has not changed since that was asked last.
    pub(crate) fn unchanged(&self) -> Option<Tree<K, V>> {
        (self.0.base.0.root == self.0.root && self.0.base.0.len == self.0.len)
            .then(|| self.0.base.clone())
    }

    /// What it is now, for others to read.
    pub(crate) fn version(&mut self) -> Tree<K, V> {
        let tree = self.0.freeze();
        self.0.keep();
        tree
    }

    pub(crate) fn change<T>(&mut self, f: impl FnOnce(&mut Draft<K, V>) -> T) -> T {
        let done = f(&mut self.0);
        if self.0.pen.as_ref().is_some_and(|pen| pen.dead.len() >= LIVE_DEAD_MAX) {
            self.0.keep();
        }
        done
    }
}

impl<K: Clone + Send + Sync + 'static, V: Send + Sync + 'static> Live<K, V> {
    /// An empty one that frees where this one does.
    pub(crate) fn emptied(&self) -> Self {
        Live::new(&Tree::new(self.0.graveyard().clone()))
    }
}

impl<K, V> Drop for Live<K, V> {
    fn drop(&mut self) {
        self.0.end();
    }
}
