//! Loading the cold ranges of a tree in steps, from its end to its beginning.
//!
//! A reader that walks everything begins at the beginning: so the two meet in the middle and do the
//! work once, together. And where keys ascend with time, the newest ones are warm first.

use super::Tree;
use super::arenas;
use super::node::{Carry, Hot, Inner, NodePtr};
use crate::contain::contain;
use crate::error::{Error, ErrorKind, Result};

/// How many ranges are claimed at a time: some milliseconds of work.
const RANGES_PER_CLAIM: usize = 32;

/// How far a tree was warmed; every range from there on was claimed by somebody.
pub(crate) enum WarmPosition<K> {
    Before(Option<K>),
    Ended,
}

impl<K> Default for WarmPosition<K> {
    fn default() -> Self {
        WarmPosition::Before(None)
    }
}

/// Ranges that one thread loads, and the version in which they are.
pub(crate) struct Claim<K, V> {
    ranges: Vec<NodePtr<K, V>>,
    tree: Tree<K, V>,
}

impl<K: Clone + Ord, V> Tree<K, V> {
    /// Takes the next cold ranges; `None` when there are no more. A range that would have to be
    /// divided and cannot be read is passed over, and `failed` told why.
    pub(crate) fn claim(
        &self,
        position: &mut WarmPosition<K>,
        failed: &mut dyn FnMut(Error),
    ) -> Option<Claim<K, V>> {
        let WarmPosition::Before(before) = position else { return None };
        let mut walk = Walk { before: before.as_ref(), claimed: Vec::new(), lowest: None, failed };
        walk.visit(self, self.0.root, None);
        let Walk { mut claimed, lowest, .. } = walk;
        *position = match lowest {
            Some(lowest) if claimed.len() == RANGES_PER_CLAIM => WarmPosition::Before(Some(lowest)),
            _ => WarmPosition::Ended,
        };
        claimed.reverse();
        (!claimed.is_empty()).then(|| Claim { ranges: claimed, tree: self.clone() })
    }
}

impl<K: Clone, V> Claim<K, V> {
    /// Loads what was claimed, and asks between two ranges whether to go on.
    pub(crate) fn load(&self, mut go_on: impl FnMut(Result<()>) -> bool) {
        let mut carry = Carry::default();
        self.ranges
            .iter()
            .all(|range| load_all(&self.tree, *range, &mut carry, &mut go_on) && go_on(Ok(())));
        // What others free of it this thread may never use again.
        arenas::abandon();
    }
}

/// Loads a range of a tree, and what it is divided into; whether to go on.
fn load_all<K: Clone, V>(
    tree: &Tree<K, V>,
    node: NodePtr<K, V>,
    carry: &mut Carry<K, V>,
    go_on: &mut impl FnMut(Result<()>) -> bool,
) -> bool {
    let inner = match load(tree, node, carry) {
        Ok(Hot::Inner(inner)) => inner,
        Ok(Hot::Leaf(_)) => return true,
        Err(error) => return go_on(Err(error)),
    };
    (0..inner.children.len())
        .all(|at| child(tree, inner, at).is_none_or(|child| load_all(tree, child, carry, go_on)))
}

/// A child of a node of a tree.
fn child<K, V>(tree: &Tree<K, V>, inner: &Inner<K, V>, at: usize) -> Option<NodePtr<K, V>> {
    // SAFETY: the version is borrowed, and sees the node.
    unsafe { inner.child(at, tree.0.stamp) }
}

/// Loads a range of a tree; a value's own code that panics is as bad as bytes that are wrong.
fn load<'a, K: Clone, V>(
    _: &'a Tree<K, V>,
    node: NodePtr<K, V>,
    carry: &mut Carry<K, V>,
) -> Result<Hot<'a, K, V>> {
    // SAFETY: the node is one of the version's, which is borrowed.
    contain(|| unsafe { node.hot(carry) }).unwrap_or_else(|| {
        let what = "the code that reads a value panicked while its region was warmed";
        Err(Error::new(ErrorKind::Damaged, what))
    })
}

/// The way from the end of a tree to its beginning, collecting ranges.
struct Walk<'a, K, V> {
    before: Option<&'a K>,
    /// Last range first.
    claimed: Vec<NodePtr<K, V>>,
    /// Where the range collected last begins; `None` for the beginning of the tree.
    lowest: Option<K>,
    failed: &'a mut dyn FnMut(Error),
}

impl<K: Clone + Ord, V> Walk<'_, K, V> {
    /// Visits what is below a node of a tree.
    fn visit(&mut self, tree: &Tree<K, V>, node: NodePtr<K, V>, lower: Option<&K>) {
        // SAFETY: the node is one of the version's, which is borrowed.
        if unsafe { node.is_narrow() } {
            self.claimed.push(node);
            self.lowest = lower.cloned();
            return;
        }
        let inner = match load(tree, node, &mut Carry::default()) {
            Ok(Hot::Inner(inner)) => inner,
            Ok(Hot::Leaf(_)) => return,
            Err(error) => return (self.failed)(error),
        };
        for at in (0..inner.children.len()).rev() {
            let bound = at.checked_sub(1).and_then(|at| inner.bounds.get(at)).or(lower);
            // Children that begin at or after the place were claimed before.
            let claimed = matches!((bound, self.before), (Some(bound), Some(end)) if bound >= end);
            if claimed {
                continue;
            }
            let Some(this) = child(tree, inner, at) else { continue };
            // SAFETY: as above; so are its children.
            unsafe {
                // While one is loaded, the next one is read; no more, since others may want to read as well.
                if this.is_undivided()
                    && let Some(next) = at.checked_sub(1).and_then(|at| child(tree, inner, at))
                {
                    next.announce();
                }
            }
            self.visit(tree, this, bound);
            if self.claimed.len() == RANGES_PER_CLAIM {
                return;
            }
        }
    }
}
