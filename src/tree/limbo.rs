//! What died, and who may still see it.
//!
//! # Invariants
//! - Every version that may see what is handed over was handed over before or with it.
//! - The dead are parked on the newest version that is held and sees them; once that is not held any more, on the
//!   next older one, or they are freed.

use std::collections::BTreeMap;
use std::mem::needs_drop;
use std::sync::atomic::{Ordering, fence};

use super::arenas;
use super::node::{NodePtr, Stamp};
use super::slot::{Spare, ValuePtr};
use super::version::Stamped;

/// So many dead are worth a look at who still sees them, by the one who hands them over: what died just
/// now is still in the processor's cache, and its room is used for the next change.
pub(super) const ENOUGH_DEAD: usize = if cfg!(test) { 4 } else { 64 };

/// The least that is made room for where a version that is held begins to see what died.
const PARKED_MIN: usize = 16;

/// What is parked lies in blocks of so many, since to make a long one longer can take long.
const BLOCK: usize = if cfg!(test) { 4 } else { 1 << 9 };

/// So many blocks those who commit look at; and whoever has time, before those who commit get their turn. If those who
/// commit sent away less, that would be what views of some milliseconds leave as well, and whoever frees it beside them
/// slows them down.
pub(super) const BLOCKS_AT_ONCE: usize = if cfg!(test) { 2 } else { 32 };
pub(super) const BLOCKS_PER_STEP: usize = 1;

/// After so many were freed what they owned of abandoned arenas is merged.
const MERGED_AT_ONCE: usize = 128;

/// While something is freed, the processor fetches what comes so many later: nobody has looked at it for long.
const FETCHED_AHEAD: usize = 8;

/// Something that newer versions do not see.
pub(super) struct Dead<K, V> {
    pub(super) what: Thing<K, V>,
    pub(super) died: Stamp,
}

pub(super) enum Thing<K, V> {
    Node(NodePtr<K, V>),
    Value(ValuePtr<V>),
    /// A key that copies of nodes shared.
    Key(ValuePtr<K>),
}

/// What drafts left to be looked at.
pub(super) struct HandedOver<K, V> {
    pub(super) versions: Vec<Stamped<K, V>>,
    pub(super) dead: Vec<Dead<K, V>>,
    /// So many dead are worth a look.
    pub(super) enough: usize,
}

/// What may still be seen by somebody.
pub(super) struct Limbo<K, V> {
    /// Versions that were held when they were last looked at, oldest first.
    pub(super) versions: Vec<Stamped<K, V>>,
    /// The dead, by the newest held version that sees them.
    pub(super) parked: BTreeMap<Stamp, Parked<K, V>>,
    /// What nobody can see.
    pub(super) unseen: Vec<Thing<K, V>>,
    /// The same where there is much, in the blocks in which it was parked.
    pub(super) unseen_blocks: Vec<Vec<Thing<K, V>>>,
    /// Empty, but for their room, unless somebody sweeps.
    pub(super) new: HandedOver<K, V>,
    held: Vec<Stamp>,
    /// So many that may have owned something were freed since that was merged.
    freed: usize,
    pub(super) spare: Spare<K, V>,
}

/// What is parked on one version.
pub(super) struct Parked<K, V> {
    /// All but the last are full.
    pub(super) blocks: Vec<Vec<Thing<K, V>>>,
}

impl<K, V> Default for Parked<K, V> {
    fn default() -> Self {
        Parked { blocks: Vec::new() }
    }
}

impl<K, V> Parked<K, V> {
    fn push(&mut self, what: Thing<K, V>) {
        if self.blocks.last().is_none_or(|last| last.len() == BLOCK) {
            self.blocks.push(Vec::new());
        }
        let before = (self.blocks.len() - 1) * BLOCK;
        let Some(last) = self.blocks.last_mut() else { return };
        if last.len() == last.capacity() {
            // These are what a view costs besides what it sees, and may be many.
            let more = (before + last.len()) / 8 + PARKED_MIN;
            last.reserve_exact(more.min(BLOCK - last.len()));
        }
        last.push(what);
    }
}

impl<K, V> Default for HandedOver<K, V> {
    fn default() -> Self {
        HandedOver { versions: Vec::new(), dead: Vec::new(), enough: ENOUGH_DEAD }
    }
}

impl<K, V> Default for Limbo<K, V> {
    fn default() -> Self {
        Limbo {
            versions: Vec::new(),
            parked: BTreeMap::new(),
            unseen: Vec::new(),
            unseen_blocks: Vec::new(),
            new: HandedOver::default(),
            held: Vec::new(),
            freed: 0,
            spare: Spare::default(),
        }
    }
}

impl<K, V> From<NodePtr<K, V>> for Thing<K, V> {
    fn from(node: NodePtr<K, V>) -> Self {
        Thing::Node(node)
    }
}

impl<K, V> From<ValuePtr<V>> for Thing<K, V> {
    fn from(value: ValuePtr<V>) -> Self {
        Thing::Value(value)
    }
}

impl<K, V> Thing<K, V> {
    pub(super) fn node(&self) -> Option<NodePtr<K, V>> {
        match self {
            Thing::Node(node) => Some(*node),
            Thing::Value(_) | Thing::Key(_) => None,
        }
    }

    /// Has the processor fetch it, for somebody who is about to free it.
    ///
    /// # Safety
    /// It lives.
    unsafe fn prefetch(&self) {
        match self {
            Thing::Node(node) => node.prefetch_beginning(),
            // SAFETY: the caller's promise.
            Thing::Value(value) => unsafe { value.prefetch_whole() },
            // SAFETY: the caller's promise.
            Thing::Key(key) => unsafe { key.prefetch_whole() },
        }
    }

    /// # Safety
    /// It lives.
    pub(super) unsafe fn born(&self) -> Stamp {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Thing::Node(node) => node.born(),
                Thing::Value(value) => value.born(),
                Thing::Key(key) => key.born(),
            }
        }
    }

    /// # Safety
    /// It lives, and nobody can reach it from now on.
    pub(super) unsafe fn free(self, spare: &mut Spare<K, V>) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Thing::Node(node) => node.free(spare),
                Thing::Value(value) => drop(value.take(&mut spare.values)),
                Thing::Key(key) => drop(key.take(&mut spare.keys)),
            }
        }
    }

    /// Takes back that it has died.
    ///
    /// # Safety
    /// It lives, and is in the tree again.
    pub(super) unsafe fn revive(self, spare: &mut Spare<K, V>) {
        if let Thing::Key(key) = self {
            // SAFETY: the caller's promise. The node that it died in has it.
            unsafe { key.forget(&mut spare.keys) };
        }
    }
}

impl<K, V> Limbo<K, V> {
    /// Finds what nobody can see. Where more than so many `blocks` are parked on a version that is gone, and an older one
    /// is held, each thing has to be looked at: that is left for [later](Self::look_at_some).
    pub(super) fn sort_out(&mut self, blocks: usize) {
        self.versions.append(&mut self.new.versions);
        self.versions.retain(Stamped::is_held);
        // Whoever held a version that is gone has read from it for the last time before this.
        fence(Ordering::Acquire);
        let mut held = std::mem::take(&mut self.held);
        held.clear();
        held.extend(self.versions.iter().map(|version| version.stamp));
        let unheld: Vec<Stamp> = (self.parked.keys().copied())
            .filter(|stamp| held.binary_search(stamp).is_err())
            .collect();
        for stamp in unheld {
            let mut parked = self.parked.remove(&stamp).unwrap_or_default();
            // No version after this one is held that sees any of it.
            let may_be_seen = held.first().is_some_and(|oldest| *oldest < stamp);
            if parked.blocks.len() <= blocks {
                for what in parked.blocks.into_iter().flatten() {
                    self.place(Dead { what, died: stamp }, &held);
                }
            } else if may_be_seen {
                self.parked.insert(stamp, parked);
            } else {
                self.unseen_blocks.append(&mut parked.blocks);
            }
        }
        let mut new = std::mem::take(&mut self.new.dead);
        for dead in new.drain(..) {
            self.place(dead, &held);
        }
        (self.new.dead, self.held) = (new, held);
    }

    /// Looks at some of what is still parked on versions that were gone when it was sorted out; whether there was any.
    pub(super) fn look_at_some(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        let gone = self.parked.keys().find(|stamp| held.binary_search(stamp).is_err()).copied();
        if let Some(stamp) = gone {
            let mut parked = self.parked.remove(&stamp).unwrap_or_default();
            for what in parked.blocks.pop().unwrap_or_default() {
                self.place(Dead { what, died: stamp }, &held);
            }
            if !parked.blocks.is_empty() {
                self.parked.insert(stamp, parked);
            }
        }
        self.held = held;
        gone.is_some()
    }

    /// Lets it be freed, or parks it on the newest version that sees it.
    fn place(&mut self, Dead { what, died }: Dead<K, V>, held: &[Stamp]) {
        let before = held.partition_point(|stamp| *stamp < died);
        let newest = before.checked_sub(1).and_then(|at| held.get(at));
        match newest {
            // SAFETY: what died lives until it is freed, once.
            Some(stamp) if *stamp >= unsafe { what.born() } => {
                self.parked.entry(*stamp).or_default().push(what);
            }
            // Every version that could see it was registered before it was handed over, and no version
            // of its span is held: none will be again.
            _ => self.unseen.push(what),
        }
    }

    /// Frees what nobody can see; whether there was any.
    pub(super) fn free(&mut self) -> bool {
        let mut unseen = std::mem::take(&mut self.unseen);
        let any = !unseen.is_empty();
        let mut dead = unseen.drain(..);
        while let Some(what) = dead.next() {
            if let Some(later) = dead.as_slice().get(FETCHED_AHEAD) {
                // SAFETY: it is freed after this one.
                unsafe { later.prefetch() };
            }
            // SAFETY: nobody can see it, and this is the only way to it.
            unsafe { what.free(&mut self.spare) };
            self.freed += usize::from(const { needs_drop::<K>() || needs_drop::<V>() });
            if self.freed >= MERGED_AT_ONCE {
                self.freed = 0;
                arenas::merge_abandoned();
            }
        }
        drop(dead);
        self.unseen = unseen;
        any
    }
}
