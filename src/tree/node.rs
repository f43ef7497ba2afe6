//! Nodes: leaves, what leads to them, and what is not in memory yet.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::Result;

/// The most entries of a leaf, and children of an inner node.
pub(super) const FAN_OUT: usize = 32;
/// A node with fewer is merged with a neighbour that is in memory.
pub(super) const FAN_IN: usize = FAN_OUT / 4;
/// How full bulk loading makes a node, so that it takes some inserts before it splits.
const BULK_FILL: usize = FAN_OUT - 4;

/// Where the entries of a cold node come from.
pub(crate) trait Source<K, V>: Send + Sync {
    /// All its entries, in ascending order.
    fn load(&self) -> Result<Vec<(K, Arc<V>)>>;
}

pub(super) enum Node<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
    Cold(Cold<K, V>),
}

pub(super) struct Leaf<K, V> {
    pub(super) keys: Vec<K>,
    pub(super) values: Vec<Arc<V>>,
}

pub(super) struct Inner<K, V> {
    /// One fewer than children.
    pub(super) bounds: Vec<K>,
    pub(super) children: Vec<Arc<Node<K, V>>>,
}

pub(super) struct Cold<K, V> {
    loaded: OnceLock<Arc<Node<K, V>>>,
    /// Held by whoever loads; empty once it is loaded.
    source: Mutex<Option<Box<dyn Source<K, V>>>>,
}

impl<K: Clone, V> Clone for Node<K, V> {
    /// Copies a node; below it everything is shared. A cold node is never copied: whoever wants to
    /// change it makes it hot first.
    fn clone(&self) -> Self {
        match self {
            Node::Leaf(leaf) => {
                Node::Leaf(Leaf { keys: leaf.keys.clone(), values: leaf.values.clone() })
            }
            Node::Inner(inner) => Node::Inner(Inner {
                bounds: inner.bounds.clone(),
                children: inner.children.clone(),
            }),
            Node::Cold(_) => unreachable!("a cold node is made hot before it is changed"),
        }
    }
}

impl<K, V> Node<K, V> {
    pub(super) fn empty() -> Self {
        Node::Leaf(Leaf { keys: Vec::new(), values: Vec::new() })
    }

    pub(super) fn cold(source: Box<dyn Source<K, V>>) -> Self {
        Node::Cold(Cold { loaded: OnceLock::new(), source: Mutex::new(Some(source)) })
    }

    /// Entries of a leaf, children of an inner node.
    pub(super) fn width(&self) -> usize {
        match self {
            Node::Leaf(leaf) => leaf.keys.len(),
            Node::Inner(inner) => inner.children.len(),
            Node::Cold(_) => FAN_OUT,
        }
    }
}

impl<K, V> Leaf<K, V> {
    /// Where a key is, or where it belongs.
    pub(super) fn find(&self, probe: impl Fn(&K) -> Ordering) -> Result<usize, usize> {
        self.keys.binary_search_by(|key| probe(key).reverse())
    }
}

impl<K, V> Inner<K, V> {
    /// The child whose range holds a key.
    pub(super) fn child_for(&self, probe: impl Fn(&K) -> Ordering) -> usize {
        self.bounds.partition_point(|bound| probe(bound) != Ordering::Less)
    }
}

/// The node itself, or what a cold one holds.
pub(super) fn hot<K: Clone, V>(node: &Arc<Node<K, V>>) -> Result<&Arc<Node<K, V>>> {
    let Node::Cold(cold) = &**node else { return Ok(node) };
    if let Some(loaded) = cold.loaded.get() {
        return Ok(loaded);
    }
    let mut source = cold.source.lock();
    if let Some(loaded) = cold.loaded.get() {
        return Ok(loaded);
    }
    let entries = source.as_ref().map(|source| source.load()).transpose()?;
    let loaded = cold.loaded.get_or_init(|| build(entries.unwrap_or_default()));
    *source = None;
    Ok(loaded)
}

/// A node with the lowest key below it.
type Lowest<K, V> = (Option<K>, Arc<Node<K, V>>);

/// Builds a tree bottom-up from ascending entries.
pub(super) fn build<K: Clone, V>(entries: Vec<(K, Arc<V>)>) -> Arc<Node<K, V>> {
    let mut level: Vec<Lowest<K, V>> = Vec::new();
    let mut entries = entries.into_iter().peekable();
    while entries.peek().is_some() {
        let (keys, values): (Vec<K>, Vec<Arc<V>>) = entries.by_ref().take(BULK_FILL).unzip();
        level.push((keys.first().cloned(), Arc::new(Node::Leaf(Leaf { keys, values }))));
    }
    while level.len() > 1 {
        let mut above = Vec::with_capacity(level.len() / BULK_FILL + 1);
        let mut below = level.into_iter().peekable();
        while let Some((lowest, first)) = below.next() {
            let mut inner = Inner { bounds: Vec::new(), children: vec![first] };
            for (bound, child) in below.by_ref().take(BULK_FILL - 1) {
                inner.bounds.extend(bound);
                inner.children.push(child);
            }
            above.push((lowest, Arc::new(Node::Inner(inner))));
        }
        level = above;
    }
    level.pop().map_or_else(|| Arc::new(Node::empty()), |(_, root)| root)
}

/// Whether dropping this root would free much: it is the last one, and so are the ways down from
/// it. A root that was merely replaced shares nearly all of its children with its successor.
pub(super) fn is_abandoned<K, V>(root: &Arc<Node<K, V>>) -> bool {
    if Arc::strong_count(root) > 1 {
        return false;
    }
    match &**root {
        Node::Leaf(_) => false,
        Node::Cold(cold) => cold.loaded.get().is_some_and(is_abandoned),
        Node::Inner(inner) => {
            let last = inner.children.len() - 1;
            let sample = [0, last / 3, last * 2 / 3, last];
            let alone = |at: &usize| {
                inner.children.get(*at).is_some_and(|child| Arc::strong_count(child) == 1)
            };
            sample.iter().filter(|at| alone(at)).count() >= 2
        }
    }
}

impl<K, V> Cold<K, V> {
    pub(super) fn into_loaded(self) -> Option<Arc<Node<K, V>>> {
        self.loaded.into_inner()
    }
}
