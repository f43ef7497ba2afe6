//! The next version of a tree, while it is made.
//!
//! # Invariants
//! - What was born at or after the draft's *floor* nobody else can reach: it is changed in place and
//!   freed at once. Everything else is copied, and what is replaced is noted as dead.
//! - A draft that ends without being settled leaves its line as it was.

use std::cmp::Ordering;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::fence;

use super::edit::Edit;
use super::graveyard::Remains;
use super::line::{Line, Pen, Returned, WORTH_BURYING};
use super::node::{NewValue, NodePtr, Stamp};
use super::reader::Reader;
use super::stored::{Old, Stored};
use super::undo::Mark;
use super::version::{Owner, Stamped, Version};
use super::{Graveyard, Tree};
use crate::error::Result;

/// A tree that is being changed. It reads like one.
pub(crate) struct Draft<K, V> {
    line: Arc<Line<K, V>>,
    /// The version it began at, or the last one that was kept. Whoever reads it holds it.
    base: Stamped<K, V>,
    /// Absent once it is settled.
    pen: Option<Box<Pen<K, V>>>,
    content: Content<K, V>,
    /// What was born since is undone with the draft.
    began: Stamp,
    /// What is made now is born at this stamp.
    stamp: Stamp,
    /// What was born at or after it nobody else can reach.
    floor: Stamp,
    /// The newest version that others may see.
    newest: Stamp,
    /// What was born at or after it that version alone sees.
    alone_since: Stamp,
    /// The version that was made of it last and is not kept yet.
    frozen: Option<Stamped<K, V>>,
    /// Versions that were made of it before that, oldest first, as far as anybody held them then.
    frozen_before: Vec<Stamped<K, V>>,
    /// A change panicked half way, in a clone or a destructor of a key: nobody may look at it any more, until it goes back
    /// to what it was before.
    torn: bool,
}

/// What a draft holds.
struct Content<K, V> {
    root: NodePtr<K, V>,
    len: usize,
    /// It is not that of the version that was made last.
    changed: bool,
}

impl<K, V> Clone for Content<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Content<K, V> {}

/// Where [`Draft::undo`] goes back to.
pub(crate) struct TreeSavepoint<K, V> {
    content: Content<K, V>,
    floor: Stamp,
    mark: Mark,
}

impl<K, V> Draft<K, V> {
    pub(super) fn begin(base: &Tree<K, V>) -> Self {
        let Version { root, len, stamp, ref line } = *base.0;
        let mut draft = Draft {
            line: Arc::clone(line),
            base: Stamped::of(&base.0),
            pen: None,
            content: Content { root, len, changed: false },
            began: stamp,
            stamp,
            floor: stamp,
            newest: stamp,
            alone_since: stamp,
            frozen: None,
            frozen_before: Vec::new(),
            torn: false,
        };
        draft.take_pen();
        draft
    }

    /// Begins to change the version that it was settled with, if that is this one.
    pub(crate) fn resume(&mut self, at: &Version<K, V>) -> bool {
        let is_at = self.base.stamp == at.stamp && Arc::ptr_eq(&self.line, &at.line);
        let is_settled = self.pen.is_none() && is_at;
        if is_settled {
            self.take_pen();
        }
        is_settled
    }

    /// # Panics
    /// If another draft has the pen, or has made newer versions.
    fn take_pen(&mut self) {
        let base = &self.base;
        let mut pen = self.line.take_pen(base);
        self.alone_since = pen.alone_since();
        self.stamp = pen.clock + 1;
        (self.began, self.floor, self.newest) = (self.stamp, self.stamp, base.stamp);
        let is_newest = pen.newest_stamp == base.stamp;
        self.pen = Some(pen);
        assert!(is_newest, "only the newest version of a tree is changed");
    }

    pub(crate) fn len(&self) -> usize {
        self.content.len
    }

    pub(crate) fn graveyard(&self) -> &Graveyard {
        &self.line.graveyard
    }

    /// What the tree belongs to.
    pub(crate) fn owner(&self) -> Option<&Owner> {
        self.line.owner.as_ref()
    }

    /// # Panics
    /// If the draft is settled.
    fn pen(&mut self) -> &mut Pen<K, V> {
        self.pen.as_mut().expect("a draft that is settled is not changed")
    }

    pub(crate) fn savepoint(&mut self) -> TreeSavepoint<K, V> {
        debug_assert!(!self.torn, "there is no going back to that");
        let (content, floor) = (self.content, self.floor);
        self.stamp += 1;
        self.floor = self.stamp;
        let since = self.stamp;
        TreeSavepoint { content, floor, mark: self.pen().mark(since) }
    }

    /// Goes back to a savepoint of this draft, taken after any to which it went back before.
    pub(crate) fn undo(&mut self, savepoint: &TreeSavepoint<K, V>) {
        let undone = std::mem::replace(&mut self.content, savepoint.content);
        self.floor = savepoint.floor;
        self.content.changed |= self.frozen.is_some();
        let torn = std::mem::take(&mut self.torn);
        self.pen().undo(undone.root, savepoint.mark, torn);
    }

    /// What it is now, for others to read; it can be changed further. The version counts for
    /// nothing before it is kept, and must be gone if the draft is dropped instead.
    pub(crate) fn freeze(&mut self) -> Tree<K, V> {
        if let Some(unchanged) = self.unchanged() {
            debug_assert!(
                unchanged.0.root == self.content.root,
                "whoever changes something says so"
            );
            return unchanged;
        }
        self.content.changed = false;
        self.alone_since = self.newest + 1;
        self.newest = self.stamp;
        let version = Arc::new(Version {
            root: self.content.root,
            len: self.content.len,
            stamp: self.stamp,
            line: Arc::clone(&self.line),
        });
        self.stamp += 1;
        self.floor = self.stamp;
        let before = self.frozen.replace(Stamped::of(&version));
        self.frozen_before.extend(before.filter(Stamped::is_held));
        Tree(version)
    }

    /// Has what only the newest version sees be changed in place again, now that nobody holds that one. The draft
    /// does not go back any more to what was before.
    fn thaw(&mut self) {
        let pen = self.pen();
        pen.changes.clear();
        let alone_since = pen.alone_since();
        (self.floor, self.alone_since) = (alone_since, alone_since);
    }

    /// The version that was made last, if nothing has changed since and somebody still holds it.
    fn unchanged(&self) -> Option<Tree<K, V>> {
        let last = self.frozen.as_ref().unwrap_or(&self.base);
        (!self.content.changed).then(|| last.version.upgrade().map(Tree)).flatten()
    }

    /// Makes what was frozen the newest version of the line, and lets go of what died for it, if `now` is said; whether
    /// to sweep then, when nothing else is left to be done.
    #[must_use]
    fn keep(&mut self, now: bool) -> bool {
        let Some(pen) = &mut self.pen else { return false };
        // Every version that somebody may hold is known before anything is freed that it sees.
        if let Some(version) = self.frozen.take() {
            pen.newest_stamp = version.stamp;
            // Oldest first.
            pen.outdate(std::mem::replace(&mut self.base, version));
            self.frozen_before.drain(..).for_each(|before| pen.outdate(before));
        }
        pen.changes.clear();
        self.began = self.stamp;
        pen.leave(now) && self.line.hand_over(pen, &self.base)
    }

    /// Ends what it changes; what it made stays. It is not changed any more unless it is
    /// [resumed](Self::resume).
    pub(crate) fn settle(&mut self) {
        let sweeps = self.keep(false);
        if let Some(mut pen) = self.pen.take() {
            pen.newest = self.content.root;
            pen.newest_len = self.content.len;
            pen.clock = self.stamp;
            self.line.return_pen(pen);
        }
        if sweeps {
            self.line.sweep();
        }
    }
}

impl<K: Clone, V> Draft<K, V> {
    #[inline]
    pub(crate) fn read(&self) -> Reader<'_, K, V> {
        // SAFETY: the newest version of a line lives, and changing it takes the draft exclusively.
        unsafe { Reader::new(self.content.root, Stamp::MAX) }
    }

    fn edit(&mut self) -> (Edit<'_, K, V>, &mut Content<K, V>) {
        debug_assert!(
            !self.torn,
            "what is torn is not changed, and a change that has ended says so"
        );
        let pen = self.pen.as_mut().expect("a draft that is settled is not changed");
        let edit = Edit {
            stamp: self.stamp,
            floor: self.floor,
            newest: self.newest,
            alone_since: self.alone_since,
            dead: &mut pen.dead,
            changes: &mut pen.changes,
            spare: &mut pen.spare,
            old: None,
            old_key: None,
            torn: &mut self.torn,
        };
        (edit, &mut self.content)
    }

    /// Inserts or replaces; returns the value that was there. After an error nothing has changed.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Result<Option<Old<'_, V>>>
    where
        K: Ord,
    {
        self.insert_by(key, value, Ord::cmp)
    }

    /// The same with keys in the order that `compare` tells.
    #[inline]
    pub(crate) fn insert_by(
        &mut self,
        key: K,
        value: V,
        compare: impl Fn(&K, &K) -> Ordering + Copy,
    ) -> Result<Option<Old<'_, V>>> {
        // It lies where it will stay before the way down, which would move it with each step.
        let value = NewValue::new(self.stamp, value, &mut self.pen().spare.values);
        self.insert_new(key, value, compare)
    }

    /// The same of what may not decode.
    pub(crate) fn insert_stored_by(
        &mut self,
        key: K,
        value: Stored<V>,
        compare: impl Fn(&K, &K) -> Ordering + Copy,
    ) -> Result<Option<Old<'_, V>>> {
        let (stamp, value) = (self.stamp, ManuallyDrop::new(value));
        // SAFETY: nobody else uses it from now on.
        let value =
            unsafe { NewValue::stored(stamp, &raw const *value, &mut self.pen().spare.values) };
        self.insert_new(key, value, compare)
    }

    #[inline]
    fn insert_new(
        &mut self,
        key: K,
        value: NewValue<V>,
        compare: impl Fn(&K, &K) -> Ordering + Copy,
    ) -> Result<Option<Old<'_, V>>> {
        let (mut edit, content) = self.edit();
        // Also if the key panics when it is dropped since there was one already.
        content.changed = true;
        let replaced = edit.insert_at_root(&mut content.root, key, value, compare)?;
        edit.end();
        content.len += usize::from(replaced.is_none());
        Ok(replaced.map(|replaced| replaced.into_old(edit.spare)))
    }

    /// Puts another value in the place of the one that `probe` finds, and returns that.
    pub(crate) fn replace(
        &mut self,
        probe: impl Fn(&K) -> Ordering,
        value: V,
    ) -> Result<Option<Old<'_, V>>> {
        let (mut edit, content) = self.edit();
        let replaced = edit.replace(&mut content.root, &probe, value)?;
        edit.end();
        content.changed |= replaced.is_some();
        Ok(replaced.map(|replaced| replaced.into_old(edit.spare)))
    }

    /// The value that `probe` finds, to be changed: a clone of it, where others see it.
    pub(crate) fn get_mut(&mut self, probe: impl Fn(&K) -> Ordering) -> Result<Option<&mut V>>
    where
        V: Clone,
    {
        let (mut edit, content) = self.edit();
        let value = edit.get_mut(&mut content.root, &probe)?;
        edit.end();
        content.changed |= value.is_some();
        Ok(value)
    }

    /// Removes the entry that `probe` finds; returns its value.
    pub(crate) fn remove(&mut self, probe: impl Fn(&K) -> Ordering) -> Result<Option<Old<'_, V>>> {
        let (mut edit, content) = self.edit();
        let removed = edit.remove_at_root(&mut content.root, &probe)?;
        edit.end();
        content.len -= usize::from(removed.is_some());
        content.changed |= removed.is_some();
        Ok(removed.map(|(key, old)| {
            let old = old.into_old(edit.spare);
            drop(key);
            old
        }))
    }
}

impl<K, V> Drop for Draft<K, V> {
    fn drop(&mut self) {
        let Some(mut pen) = self.pen.take() else { return };
        let mut frozen = self.frozen_before.iter().chain(&self.frozen);
        if frozen.any(Stamped::is_held) {
            // Somebody reads what was to be undone: it is kept instead.
            self.pen = Some(pen);
            return self.settle();
        }
        // Whoever held one of them has read from it for the last time before this.
        fence(Acquire);
        pen.clock = self.stamp;
        let undone = Mark { since: self.began, dead: 0, changes: 0 };
        Returned::to(&self.line, pen).get().undo(self.content.root, undone, self.torn);
    }
}

/// A tree that is changed where it stands, with no way back: what it is when it goes is its end.
pub(crate) struct Live<K, V> {
    draft: Draft<K, V>,
    /// The version that was made last: whoever reads what has not changed since shares it.
    newest: Option<Tree<K, V>>,
}

/// A line of which something may be freed, which runs destructors: they may use what led to it, so that no
/// lock should be held for that any more.
#[must_use]
pub(crate) struct Unswept<K, V>(Option<Arc<Line<K, V>>>);

impl<K, V> Unswept<K, V> {
    pub(crate) fn sweep(self) {
        if let Some(line) = self.0 {
            line.sweep();
        }
    }
}

/// So many dead are handed over although no version was made.
const LIVE_DEAD_MAX: usize = 1024;

impl<K, V> Live<K, V> {
    pub(crate) fn new(tree: &Tree<K, V>) -> Self {
        Live { draft: Draft::begin(tree), newest: Some(tree.clone()) }
    }

    pub(crate) fn get(&self) -> &Draft<K, V> {
        &self.draft
    }

    /// Whether a change panicked half way. Then it is for nothing but to be forgotten.
    pub(crate) fn is_torn(&self) -> bool {
        self.draft.torn
    }

    /// What it is now, if it has not changed since that was asked last.
    pub(crate) fn unchanged(&self) -> Option<Tree<K, V>> {
        self.newest.clone().filter(|_| !self.draft.content.changed)
    }

    /// What it is now, for others to read.
    pub(crate) fn version(&mut self) -> (Tree<K, V>, Unswept<K, V>) {
        let newest = self.draft.freeze();
        self.newest = Some(newest.clone());
        let unswept = self.keep();
        // Others ask when they begin.
        self.draft.alone_since = self.draft.pen().alone_since();
        (newest, unswept)
    }

    pub(crate) fn change<T>(
        &mut self,
        f: impl FnOnce(&mut Draft<K, V>) -> T,
    ) -> (T, Unswept<K, V>) {
        // Nobody can begin to read it meanwhile: who changes this has it alone.
        if self.newest.take_if(|newest| Arc::strong_count(&newest.0) == 1).is_some() {
            self.draft.thaw();
        }
        let done = f(&mut self.draft);
        let is_enough = self.draft.pen.as_ref().is_some_and(|pen| pen.dead.len() >= LIVE_DEAD_MAX);
        (done, if is_enough { self.keep() } else { Unswept(None) })
    }

    fn keep(&mut self) -> Unswept<K, V> {
        let Draft { line, pen, .. } = &mut self.draft;
        if let Some(pen) = pen {
            line.refill(&mut pen.spare);
        }
        let sweeps = self.draft.keep(true);
        Unswept(sweeps.then(|| Arc::clone(&self.draft.line)))
    }
}

impl<K: Clone + Send + Sync + 'static, V: Send + Sync + 'static> Live<K, V> {
    /// An empty one that frees where this one does.
    pub(crate) fn emptied(&self) -> Box<Self> {
        // SAFETY: the root of a draft lives.
        let copies = unsafe { self.draft.content.root.copies() };
        Box::new(Live::new(&Tree::empty(copies, self.draft.graveyard().clone())))
    }

    /// Whether it is taken apart elsewhere when it ends.
    pub(crate) fn is_large(&self) -> bool {
        self.draft.len() >= WORTH_BURYING
    }

    /// Ends it. One that is large is taken apart elsewhere: not even its line is in the cache of whoever
    /// lets go of it.
    pub(crate) fn end(self: Box<Self>) {
        if self.is_large() {
            let graveyard = self.draft.graveyard().clone();
            graveyard.bury(self);
        }
    }
}

impl<K: Send + Sync, V: Send + Sync> Remains for Live<K, V> {
    /// What its line leaves is buried in turn, by whoever has the line last.
    fn decay(self: Box<Self>, _pause: &mut dyn FnMut()) {}
}

impl<K, V> Drop for Live<K, V> {
    fn drop(&mut self) {
        self.draft.settle();
    }
}
