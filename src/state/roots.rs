//! The regions of one version of the store, by number: side by side if they are few, or a trie of nodes that
//! versions share.
//!
//! Numbers are dense and ascend, so a node has a place for each value of a digit. A change copies the
//! nodes on the way down that another version shares, one for each digit of the highest number. What a
//! version alone sees goes with it: regions are few, so counting who shares them costs less than the
//! bookkeeping of the [tree](crate::tree) that holds their entries.

use std::fmt;
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::RegionRoot;
use crate::format::RegionNo;

const BITS_PER_DIGIT: u32 = 4;
const WIDTH: usize = 1 << BITS_PER_DIGIT;

/// So many lie side by side: a copy of them costs less than a node of their own.
const FEW: usize = 4;

/// More changes than this are not listed.
pub(super) const CHANGED_MAX: usize = if cfg!(test) { 8 } else { 1024 };

/// The regions of one version; cheap to clone.
#[derive(Clone)]
pub(crate) enum Roots {
    /// In the order of their numbers.
    Few(ArrayVec<(RegionNo, RegionRoot), FEW>),
    /// They were more than that once.
    Many(Trie),
}

#[derive(Clone, Default)]
pub(crate) struct Trie {
    top: Option<Arc<Node>>,
    /// How many digits a number has, less one.
    height: u32,
    len: usize,
    /// What was changed since somebody began to, unless that is too much.
    changed: Option<Vec<RegionNo>>,
}

#[derive(Clone)]
enum Node {
    Inner([Option<Arc<Node>>; WIDTH]),
    Lowest([Option<RegionRoot>; WIDTH]),
}

impl Node {
    fn empty(height: u32) -> Arc<Node> {
        let empty = if height == 0 { Node::Lowest(Default::default()) } else { Node::inner(None) };
        Arc::new(empty)
    }

    fn inner(first: Option<Arc<Node>>) -> Node {
        let mut children: [Option<Arc<Node>>; WIDTH] = Default::default();
        if let Some(place) = children.first_mut() {
            *place = first;
        }
        Node::Inner(children)
    }

    fn is_empty(&self) -> bool {
        match self {
            Node::Inner(children) => children.iter().all(Option::is_none),
            Node::Lowest(roots) => roots.iter().all(Option::is_none),
        }
    }

    fn roots(&self) -> Box<dyn Iterator<Item = &RegionRoot> + '_> {
        match self {
            Node::Inner(children) => {
                Box::new(children.iter().flatten().flat_map(|child| child.roots()))
            }
            Node::Lowest(roots) => Box::new(roots.iter().flatten()),
        }
    }

    /// Removes from the node at a place, and the node if nothing is left in it.
    fn remove(place: &mut Option<Arc<Node>>, number: RegionNo, height: u32) -> bool {
        let (Some(shared), at) = (place.as_mut(), digit(number, height)) else { return false };
        let node = Arc::make_mut(shared);
        let removed = match node {
            Node::Inner(children) => children
                .get_mut(at)
                .is_some_and(|child| Node::remove(child, number, height.saturating_sub(1))),
            Node::Lowest(roots) => roots.get_mut(at).and_then(Option::take).is_some(),
        };
        if node.is_empty() {
            *place = None;
        }
        removed
    }
}

/// The digit of a number that counts at a height.
fn digit(number: RegionNo, height: u32) -> usize {
    let shifted = number.0.checked_shr(height * BITS_PER_DIGIT).unwrap_or(0);
    usize::try_from(shifted % WIDTH as u64).unwrap_or(0)
}

impl Default for Roots {
    fn default() -> Roots {
        Roots::Few(ArrayVec::new())
    }
}

impl Roots {
    pub(crate) fn len(&self) -> usize {
        match self {
            Roots::Few(roots) => roots.len(),
            Roots::Many(trie) => trie.len,
        }
    }

    /// Whether they were ever more than few.
    pub(crate) fn are_many(&self) -> bool {
        matches!(self, Roots::Many(_))
    }

    pub(crate) fn get(&self, number: RegionNo) -> Option<&RegionRoot> {
        match self {
            Roots::Few(roots) => {
                roots.iter().find(|(other, _)| *other == number).map(|(_, root)| root)
            }
            Roots::Many(trie) => trie.get(number),
        }
    }

    /// The region of this name, which is looked for among all.
    pub(crate) fn named(&self, name: &str) -> Option<RegionNo> {
        self.iter().find(|root| *root.meta().name == *name).map(|root| root.meta().number)
    }

    /// All regions in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RegionRoot> {
        let (few, top) = match self {
            Roots::Few(roots) => (roots.as_slice(), None),
            Roots::Many(trie) => (&[][..], trie.top.as_ref()),
        };
        few.iter().map(|(_, root)| root).chain(top.into_iter().flat_map(|top| top.roots()))
    }

    /// Puts a region in its place; whether there was none.
    pub(crate) fn insert(&mut self, number: RegionNo, root: RegionRoot) -> bool {
        let roots = match self {
            Roots::Few(roots) => roots,
            Roots::Many(trie) => return trie.insert(number, root),
        };
        let at = roots.iter().take_while(|(other, _)| *other < number).count();
        if let Some((_, place)) = roots.get_mut(at).filter(|(other, _)| *other == number) {
            *place = root;
            return false;
        }
        if let Err(full) = roots.try_insert(at, (number, root)) {
            let mut trie = Trie::default();
            roots.drain(..).chain([full.element()]).for_each(|(number, root)| {
                trie.insert(number, root);
            });
            *self = Roots::Many(trie);
        }
        true
    }

    /// The same regions but for one that is put in its place, which is not counted as shared meanwhile; whether there was
    /// none.
    pub(crate) fn with(&self, number: RegionNo, root: RegionRoot) -> (Roots, bool) {
        if let Roots::Few(roots) = self
            && let Some(at) = roots.iter().position(|(other, _)| *other == number)
            && let Some((before, [_, after @ ..])) = roots.split_at_checked(at)
        {
            let mut with = ArrayVec::new();
            with.extend(before.iter().cloned());
            with.push((number, root));
            with.extend(after.iter().cloned());
            return (Roots::Few(with), false);
        }
        let mut with = self.to_be_changed();
        let is_new = with.insert(number, root);
        (with, is_new)
    }

    /// A copy, of which nothing has changed yet.
    pub(crate) fn to_be_changed(&self) -> Roots {
        match self {
            Roots::Few(roots) => Roots::Few(roots.clone()),
            Roots::Many(Trie { top, height, len, .. }) => {
                let (top, changed) = (top.clone(), Some(Vec::new()));
                Roots::Many(Trie { top, height: *height, len: *len, changed })
            }
        }
    }

    /// From here on it is noted what changes.
    pub(crate) fn note_begin(&mut self) {
        if let Roots::Many(trie) = self {
            trie.changed.get_or_insert_default().clear();
        }
    }

    /// What was changed since then, if that is known: it is for many.
    pub(crate) fn changed(&self) -> Option<&[RegionNo]> {
        match self {
            Roots::Few(_) => None,
            Roots::Many(trie) => trie.changed.as_deref(),
        }
    }

    /// Removes a region; whether there was one.
    pub(crate) fn remove(&mut self, number: RegionNo) -> bool {
        match self {
            Roots::Few(roots) => {
                let before = roots.len();
                roots.retain(|(other, _)| *other != number);
                roots.len() < before
            }
            Roots::Many(trie) => trie.remove(number),
        }
    }
}

impl Trie {
    /// Whether a number has no more digits than there are levels.
    fn reaches(&self, number: RegionNo) -> bool {
        number.0.checked_shr((self.height + 1) * BITS_PER_DIGIT).unwrap_or(0) == 0
    }

    fn get(&self, number: RegionNo) -> Option<&RegionRoot> {
        if !self.reaches(number) {
            return None;
        }
        let (mut node, mut height) = (self.top.as_deref()?, self.height);
        loop {
            let at = digit(number, height);
            match node {
                Node::Inner(children) => node = children.get(at)?.as_deref()?,
                Node::Lowest(roots) => return roots.get(at)?.as_ref(),
            }
            height = height.saturating_sub(1);
        }
    }

    fn note(&mut self, number: RegionNo) {
        if let Some(changed) = &mut self.changed {
            changed.push(number);
        }
        self.changed.take_if(|changed| changed.len() > CHANGED_MAX);
    }

    fn insert(&mut self, number: RegionNo, root: RegionRoot) -> bool {
        self.note(number);
        while !self.reaches(number) {
            self.top = self.top.take().map(|top| Arc::new(Node::inner(Some(top))));
            self.height += 1;
        }
        let mut height = self.height;
        let mut place = self.top.get_or_insert_with(|| Node::empty(height));
        loop {
            let at = digit(number, height);
            height = height.saturating_sub(1);
            match Arc::make_mut(place) {
                Node::Inner(children) => match children.get_mut(at) {
                    Some(child) => place = child.get_or_insert_with(|| Node::empty(height)),
                    None => return false,
                },
                Node::Lowest(roots) => {
                    let Some(place) = roots.get_mut(at) else { return false };
                    let is_new = place.replace(root).is_none();
                    self.len += usize::from(is_new);
                    return is_new;
                }
            }
        }
    }

    fn remove(&mut self, number: RegionNo) -> bool {
        self.note(number);
        let removed = self.reaches(number) && Node::remove(&mut self.top, number, self.height);
        self.len -= usize::from(removed);
        removed
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn numbers(roots: &Roots) -> Vec<u64> {
        roots.iter().map(|root| root.meta().number.0).collect()
    }

    proptest! {
        /// Whatever is put and removed, each version has what a map has, also after later changes.
        #[test]
        fn versions_are_maps(
            changes in proptest::collection::vec((0..3u8, 0..6u32, 0..40u64), 1..80),
            few in any::<bool>(),
        ) {
            let (mut roots, mut model) = (Roots::default(), BTreeMap::new());
            let mut versions = Vec::new();
            for (nth, (what, digits, low)) in changes.into_iter().enumerate() {
                let number = RegionNo(if few { low % 4 } else { low.wrapping_shl(digits * 12) });
                let root = RegionRoot::named(number, nth);
                match what {
                    0 => prop_assert_eq!(roots.remove(number), model.remove(&number).is_some()),
                    1 => prop_assert_eq!(roots.insert(number, root), model.insert(number, nth).is_none()),
                    _ => {
                        let (with, is_new) = roots.with(number, root);
                        prop_assert_eq!(is_new, model.insert(number, nth).is_none());
                        roots = with;
                    }
                }
                versions.push((roots.clone(), model.clone()));
            }
            for (roots, model) in &versions {
                prop_assert_eq!(numbers(roots), model.keys().map(|no| no.0).collect::<Vec<_>>());
                prop_assert_eq!(roots.len(), model.len());
                for (number, nth) in model {
                    let root = roots.get(*number).expect("what was put is there");
                    prop_assert_eq!(root.meta().name.to_string(), nth.to_string());
                }
                prop_assert!(roots.get(RegionNo(u64::MAX)).is_none());
            }
        }
    }
}
