//! The line of versions of one tree, and when what they share is freed.
//!
//! What a version can see was born before it or with it and died after it: a version with stamp `v`
//! sees what has `born <= v < died`. So what died is freed when no version in that span is held any
//! more, however many younger ones are; what an old view alone still sees is kept, and nothing else.
//!
//! # Invariants
//! - One draft at a time makes the next version: it holds the [`Pen`].
//! - A version that is held is registered before anything is handed over that it can see, in the order of
//!   stamps. One that is held by nobody can never be held again.
//! - What dies is left with the pen, once no newer version sees it, and handed over when it is enough and the next
//!   draft begins, or taken from a pen that nobody has.
//! - Every version holds its line; when the line goes there is no version, and all the rest is freed.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::FIRST;
use super::desk::Desk;
use super::graveyard::{Graveyard, Remains, Sweep};
use super::limbo::{BLOCKS_AT_ONCE, BLOCKS_PER_STEP, Dead, ENOUGH_DEAD, HandedOver, Limbo, Thing};
use super::node::{Hot, NodePtr, Stamp};
use super::place::Place;
use super::slot::Spare;
use super::undo::Change;
use super::version::{Owner, Stamped, Version};

/// Trees with fewer entries are freed where they are dropped.
pub(super) const WORTH_BURYING: usize = 4096;

/// How many nodes and values are freed between two pauses, about.
const FREED_PER_STEP: usize = 512;

/// With fewer older versions than this it does not matter who is held.
const OLDER_MIN: usize = 64;

/// More than this at a time is freed by the graveyard's thread.
const FREED_AT_ONCE: usize = 1 << 14;

/// What the versions of one tree share.
pub(super) struct Line<K, V> {
    /// Absent while a draft has it.
    pen: Desk<Pen<K, V>>,
    handed_over: Mutex<HandedOver<K, V>>,
    limbo: Mutex<Limbo<K, V>>,
    /// What was freed left room for the next changes.
    has_spare: AtomicBool,
    /// The graveyard's thread knows that there is something to look at.
    noted: AtomicBool,
    pub(super) graveyard: Graveyard,
    pub(super) owner: Option<Owner>,
    /// How to get there: `Drop` cannot ask for the bounds that it needs.
    note: fn(&Arc<Line<K, V>>),
    bury: fn(Estate<K, V>, &Graveyard),
}

/// The right to make the next version.
pub(super) struct Pen<K, V> {
    pub(super) newest: NodePtr<K, V>,
    pub(super) newest_len: usize,
    /// The stamp of the version that a draft may begin at.
    pub(super) newest_stamp: Stamp,
    /// The last stamp that was used.
    pub(super) clock: Stamp,
    /// What died in this draft, with the stamp at which it did.
    pub(super) dead: Vec<Dead<K, V>>,
    /// What died in those before it and is not handed over yet: the newest version sees none of it, unless
    /// a draft has the pen.
    left: Vec<Dead<K, V>>,
    /// So much is worth handing over.
    enough_left: usize,
    /// Places that were changed since under the eyes of others, oldest first.
    pub(super) changes: Vec<Change<K, V>>,
    /// Versions before the newest that may be held, oldest first.
    older: Vec<Stamped<K, V>>,
    /// So many of them are worth a look at who is held.
    enough_older: usize,
    /// Versions before this stamp are registered, if they are held.
    registered: Stamp,
    pub(super) spare: Spare<K, V>,
}

impl<K, V> Pen<K, V> {
    /// Notes that a version is not the newest any more; they come oldest first.
    pub(super) fn outdate(&mut self, version: Stamped<K, V>) {
        debug_assert!(self.older.last().is_none_or(|last| last.stamp < version.stamp));
        self.older.push(version);
        if self.older.len() >= self.enough_older {
            self.older.retain(Stamped::is_held);
            // As in `alone_since`.
            fence(Ordering::Acquire);
            self.enough_older = OLDER_MIN.max(2 * self.older.len());
        }
    }

    /// Since when the newest version alone sees what is born.
    pub(super) fn alone_since(&mut self) -> Stamp {
        while self.older.pop_if(|last| !last.is_held()).is_some() {}
        // Whoever held a version that is gone has read from it for the last time before this.
        fence(Ordering::Acquire);
        self.older.last().map_or(0, |last| last.stamp + 1)
    }

    /// Leaves what died to be handed over, now that the newest version does not see it; whether it should be at once: if
    /// anything was left and `now` is said, or that version sees some of it after all.
    pub(super) fn leave(&mut self, now: bool) -> bool {
        self.left.append(&mut self.dead);
        self.left.last().is_some_and(|last| now || last.died > self.newest_stamp)
    }

    /// Puts what was left where it is looked at, after registering who may see it: `newest` as well, if that
    /// is given.
    fn hand_over_to(&mut self, to: &mut HandedOver<K, V>, newest: Option<&Stamped<K, V>>) {
        let new = self.older.partition_point(|older| older.stamp < self.registered);
        let new = self.older.get(new..).unwrap_or_default().iter();
        to.versions.extend(new.filter(|older| older.is_held()).cloned());
        // As in `alone_since`.
        fence(Ordering::Acquire);
        if let Some(newest) = newest.filter(|newest| newest.stamp >= self.registered) {
            to.versions.push(newest.clone());
            self.registered = newest.stamp + 1;
        }
        self.registered = self.registered.max(self.newest_stamp);
        to.dead.append(&mut self.left);
        self.enough_left = to.enough;
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Line<K, V> {
    /// A line that begins with a tree of these nodes, which are as old as a line can be, and the room that was
    /// left.
    pub(super) fn begin(
        root: NodePtr<K, V>,
        len: usize,
        spare: Spare<K, V>,
        graveyard: Graveyard,
    ) -> Arc<Version<K, V>> {
        let stamp = FIRST;
        let pen = Pen {
            newest: root,
            newest_len: len,
            newest_stamp: stamp,
            clock: stamp,
            dead: Vec::new(),
            left: Vec::new(),
            enough_left: ENOUGH_DEAD,
            changes: Vec::new(),
            older: Vec::new(),
            enough_older: OLDER_MIN,
            registered: stamp,
            spare,
        };
        let line = Arc::new(Line {
            pen: Desk::new(Box::new(pen)),
            handed_over: Mutex::default(),
            limbo: Mutex::new(Limbo::default()),
            has_spare: AtomicBool::new(false),
            noted: AtomicBool::new(false),
            graveyard,
            owner: None,
            note: |line| {
                let weak: Weak<dyn Sweep> = Arc::downgrade(line) as Weak<dyn Sweep>;
                line.graveyard.note(weak);
            },
            bury: |estate, graveyard| graveyard.bury(Box::new(estate)),
        });
        Arc::new(Version { root, len, stamp, line })
    }
}

impl<K, V> Line<K, V> {
    /// Takes the pen, to change the newest version. What died before that is freed now, if it is enough: whoever
    /// changes something next needs the room, and most of it nobody sees any more since that version was published.
    ///
    /// # Panics
    /// If another draft has it.
    pub(super) fn take_pen(self: &Arc<Self>, newest: &Stamped<K, V>) -> Box<Pen<K, V>> {
        let mut pen = self.pen.take().expect("one draft at a time changes a tree");
        if pen.left.len() >= pen.enough_left && self.hand_over(&mut pen, newest) {
            let returned = Returned::to(self, pen);
            self.sweep();
            pen = returned.take();
        }
        self.refill(&mut pen.spare);
        pen
    }

    /// Takes the room that was freed since.
    pub(super) fn refill(&self, spare: &mut Spare<K, V>) {
        if self.has_spare.load(Ordering::Relaxed)
            && let Some(mut limbo) = self.limbo.try_lock()
        {
            spare.take_from(&mut limbo.spare);
            self.has_spare.store(false, Ordering::Relaxed);
        }
    }

    pub(super) fn return_pen(self: &Arc<Self>, mut pen: Box<Pen<K, V>>) {
        pen.spare.had();
        let is_left = !pen.left.is_empty();
        self.pen.put(pen);
        if is_left {
            self.note();
        }
    }

    /// Lets go of what was left with the pen; whether it is worth a [sweep](Self::sweep).
    pub(super) fn hand_over(self: &Arc<Self>, pen: &mut Pen<K, V>, newest: &Stamped<K, V>) -> bool {
        let mut handed_over = self.handed_over.lock();
        pen.hand_over_to(&mut handed_over, Some(newest));
        let (count, enough) = (handed_over.dead.len(), handed_over.enough);
        drop(handed_over);
        if count > 0 {
            self.note();
        }
        count >= enough
    }

    /// What is left when nothing more comes is for whoever has time.
    fn note(self: &Arc<Self>) {
        if !self.noted.load(Ordering::Relaxed) {
            self.noted.store(true, Ordering::Relaxed);
            (self.note)(self);
        }
    }

    /// Takes what is left with the pen, unless a draft has that.
    fn take_what_is_left(&self) {
        self.pen.look(|pen| pen.hand_over_to(&mut self.handed_over.lock(), None));
    }

    /// Frees what nobody can see, but for what takes long if somebody else has the time for that. Whoever comes while
    /// another one sweeps leaves it to the next.
    pub(super) fn sweep(&self) {
        self.take_what_is_left();
        if let Some(mut limbo) = self.limbo.try_lock() {
            let has_help = self.graveyard.has_thread();
            self.sort_out(&mut limbo, if has_help { BLOCKS_AT_ONCE } else { usize::MAX });
            self.let_go(&mut limbo);
        }
    }

    /// Finds what nobody can see; looks at no more than so many `blocks` of one version.
    fn sort_out(&self, limbo: &mut Limbo<K, V>, blocks: usize) {
        std::mem::swap(&mut *self.handed_over.lock(), &mut limbo.new);
        limbo.sort_out(blocks);
        self.handed_over.lock().enough = ENOUGH_DEAD.max(2 * limbo.versions.len());
    }

    /// Lets stamps go by, unless a draft has the pen.
    #[cfg(test)]
    pub(super) fn pass(&self, stamps: Stamp) {
        self.pen.look(|pen| pen.clock += stamps);
    }

    /// For how many leaves there is room at hand, unless a draft has the pen, and left by those who free.
    #[cfg(test)]
    pub(super) fn room_for_leaves(&self) -> (usize, usize) {
        let at_hand = self.pen.look(|pen| pen.spare.leaves());
        (at_hand.unwrap_or(0), self.limbo.lock().spare.leaves())
    }

    /// The versions on which something is parked.
    #[cfg(test)]
    pub(super) fn parked_on(&self) -> Vec<Stamp> {
        self.limbo.lock().parked.keys().copied().collect()
    }

    /// Has freed what was found that nobody can see.
    fn let_go(&self, limbo: &mut Limbo<K, V>) {
        let mut dead = std::mem::take(&mut limbo.unseen_blocks);
        if limbo.unseen.len() > FREED_AT_ONCE {
            dead.push(std::mem::take(&mut limbo.unseen));
        }
        if !dead.is_empty() {
            (self.bury)(Estate { root: None, dead, spare: Default::default() }, &self.graveyard);
        }
        if limbo.free() {
            self.has_spare.store(true, Ordering::Relaxed);
        }
    }
}

impl<K, V> Drop for Line<K, V> {
    fn drop(&mut self) {
        // A draft that was forgotten has the pen; then nothing can be said of what lives.
        let Some(pen) = self.pen.take() else { return };
        let handed_over = std::mem::take(self.handed_over.get_mut());
        let limbo = std::mem::take(self.limbo.get_mut());
        // Giving it back touches all of it, which is not for whoever drops a large tree.
        let spare = [pen.spare, limbo.spare];
        let mut few = limbo.unseen;
        let lists = [handed_over.dead, pen.dead, pen.left, limbo.new.dead];
        few.extend(lists.into_iter().flatten().map(|dead| dead.what));
        // These may be much.
        let mut dead = limbo.unseen_blocks;
        dead.extend(limbo.parked.into_values().flat_map(|parked| parked.blocks));
        dead.push(few);
        let count: usize = dead.iter().map(Vec::len).sum();
        let large = pen.newest_len + count >= WORTH_BURYING;
        let estate = Estate { root: Some(pen.newest), dead, spare };
        if large {
            (self.bury)(estate, &self.graveyard);
        } else {
            estate.free(&mut || {});
        }
    }
}

/// A pen that goes back to its line, also if a destructor panics before.
pub(super) struct Returned<'a, K, V> {
    line: &'a Arc<Line<K, V>>,
    /// Absent once it was taken.
    pen: Option<Box<Pen<K, V>>>,
}

impl<'a, K, V> Returned<'a, K, V> {
    pub(super) fn to(line: &'a Arc<Line<K, V>>, pen: Box<Pen<K, V>>) -> Self {
        Returned { line, pen: Some(pen) }
    }

    pub(super) fn get(&mut self) -> &mut Pen<K, V> {
        self.pen.as_mut().expect("it is taken by what ends this")
    }

    fn take(mut self) -> Box<Pen<K, V>> {
        self.pen.take().expect("it is taken once")
    }
}

impl<K, V> Drop for Returned<'_, K, V> {
    fn drop(&mut self) {
        if let Some(pen) = self.pen.take() {
            self.line.return_pen(pen);
        }
    }
}

/// What a line leaves behind: what died, and with the line its newest tree and the room at hand.
struct Estate<K, V> {
    root: Option<NodePtr<K, V>>,
    dead: Vec<Vec<Thing<K, V>>>,
    spare: [Spare<K, V>; 2],
}

impl<K, V> Estate<K, V> {
    fn free(self, pause: &mut dyn FnMut()) {
        let Estate { root, dead, spare: [mut spare, _more] } = self;
        let mut freed = 0;
        let mut step = |count: usize| {
            freed += count;
            if freed >= FREED_PER_STEP {
                freed = 0;
                pause();
            }
        };
        for dead in dead.into_iter().flatten() {
            // SAFETY: nobody can see it, and this is the last way to it. What died is not below the
            // newest root.
            unsafe { dead.free(&mut spare) };
            step(1);
        }
        let mut open: Vec<_> = root.into_iter().collect();
        while let Some(node) = open.pop() {
            let mut count = 1;
            // SAFETY: the line is gone, and every version with it; each node and value has one place in
            // the newest tree.
            unsafe {
                match node.in_memory() {
                    Some(Hot::Inner(inner)) => open.extend(inner.children.iter().map(Place::now)),
                    Some(Hot::Leaf(leaf)) => {
                        count += leaf.places().len();
                        let values = leaf.places().iter().map(Place::now);
                        values.for_each(|value| drop(value.take(&mut spare.values)));
                    }
                    None => {}
                }
                node.drop_shared(FIRST);
                node.free(&mut spare);
            }
            step(count);
        }
    }
}

impl<K: Send + Sync, V: Send + Sync> Remains for Estate<K, V> {
    fn decay(self: Box<Self>, pause: &mut dyn FnMut()) {
        self.free(pause);
    }
}

impl<K: Send + Sync, V: Send + Sync> Sweep for Line<K, V> {
    fn sweep(&self, pause: &mut dyn FnMut()) -> bool {
        self.noted.store(false, Ordering::Relaxed);
        self.take_what_is_left();
        loop {
            let mut limbo = self.limbo.lock();
            // Nor is what came meanwhile for those who commit: while this looks, they find it locked.
            self.sort_out(&mut limbo, BLOCKS_PER_STEP);
            let is_more = limbo.look_at_some();
            self.let_go(&mut limbo);
            if !is_more {
                let Limbo { spare, parked, .. } = &mut *limbo;
                let part =
                    |mine: &mut Spare<K, V>, other: &mut _| (mine.part(other), mine.is_much());
                let parted = self.pen.look(|pen| part(&mut pen.spare, spare));
                let (parted, is_much) =
                    parted.unwrap_or_else(|| part(spare, &mut Spare::default()));
                let is_left = is_much || !parked.is_empty();
                drop(limbo);
                // Not while others may wait for it.
                drop(parted);
                return is_left;
            }
            drop(limbo);
            pause();
        }
    }
}
