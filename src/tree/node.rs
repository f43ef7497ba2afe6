//! Nodes: leaves, what leads to them, and ranges that are not in memory yet.

use std::any::Any;
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

/// Where the entries of a cold range come from.
pub(crate) trait Source<K, V>: Send + Sync {
    /// What the range holds; `ahead` makes it cheaper to go on where the last load ended.
    fn load(&self, ahead: &mut Ahead) -> Result<Loaded<K, V>>;

    /// Whether it is loaded as narrower ranges, which reads no entries.
    fn divides(&self) -> bool;
}

/// What loading a cold range gives, in ascending order.
pub(crate) enum Loaded<K, V> {
    Entries(Vec<(K, Arc<V>)>),
    /// Narrower ranges, at least two.
    Ranges(Ranges<K, V>),
}

/// Ranges in ascending order, each but the first with the first key that belongs to it.
pub(crate) type Ranges<K, V> = Vec<(Option<K>, Box<dyn Source<K, V>>)>;

/// What a source keeps from one load for the load of the range that follows it.
#[derive(Default)]
pub(crate) struct Ahead(pub(crate) Option<Box<dyn Any + Send + Sync>>);

/// A node, as others point to it.
pub(super) enum Node<K, V> {
    Hot(Hot<K, V>),
    Cold(Cold<K, V>),
}

/// A node in memory.
pub(super) enum Hot<K, V> {
    Leaf(Leaf<K, V>),
    Inner(Inner<K, V>),
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

/// A range that is loaded on first touch. What is loaded lies in the node itself, so that it costs
/// a reader no further step.
pub(super) struct Cold<K, V> {
    loaded: OnceLock<Hot<K, V>>,
    /// Held by whoever loads; empty once it is loaded.
    source: Mutex<Option<Box<dyn Source<K, V>>>>,
    divides: bool,
}

impl<K: Clone, V> Clone for Hot<K, V> {
    /// Copies a node; below it everything is shared.
    fn clone(&self) -> Self {
        match self {
            Hot::Leaf(leaf) => {
                Hot::Leaf(Leaf { keys: leaf.keys.clone(), values: leaf.values.clone() })
            }
            Hot::Inner(inner) => {
                Hot::Inner(Inner { bounds: inner.bounds.clone(), children: inner.children.clone() })
            }
        }
    }
}

impl<K: Clone, V> Clone for Node<K, V> {
    /// The copy of a range that was loaded is hot. One that was not is never copied: whoever wants
    /// to change it loads it first.
    fn clone(&self) -> Self {
        match self {
            Node::Hot(hot) => Node::Hot(hot.clone()),
            Node::Cold(cold) => match cold.loaded.get() {
                Some(hot) => Node::Hot(hot.clone()),
                None => unreachable!("a cold range is loaded before it is changed"),
            },
        }
    }
}

impl<K, V> Node<K, V> {
    pub(super) fn empty() -> Self {
        Node::Hot(Hot::empty())
    }

    pub(super) fn cold(source: Box<dyn Source<K, V>>) -> Self {
        let divides = source.divides();
        Node::Cold(Cold { loaded: OnceLock::new(), source: Mutex::new(Some(source)), divides })
    }

    /// The node as far as it is in memory.
    pub(super) fn in_memory(&self) -> Option<&Hot<K, V>> {
        match self {
            Node::Hot(hot) => Some(hot),
            Node::Cold(cold) => cold.loaded.get(),
        }
    }

    pub(super) fn into_memory(self) -> Option<Hot<K, V>> {
        match self {
            Node::Hot(hot) => Some(hot),
            Node::Cold(cold) => cold.loaded.into_inner(),
        }
    }

    /// Entries of a leaf, children of an inner node; a cold range counts as full.
    pub(super) fn width(&self) -> usize {
        match self.in_memory() {
            Some(Hot::Leaf(leaf)) => leaf.keys.len(),
            Some(Hot::Inner(inner)) => inner.children.len(),
            None => FAN_OUT,
        }
    }

    /// Whether it is a range that nobody has loaded and that would be loaded as entries.
    pub(super) fn lacks_entries(&self) -> bool {
        matches!(self, Node::Cold(cold) if !cold.divides && cold.loaded.get().is_none())
    }
}

impl<K, V> Hot<K, V> {
    pub(super) fn empty() -> Self {
        Hot::Leaf(Leaf { keys: Vec::new(), values: Vec::new() })
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

/// The node in memory; a cold range is loaded.
#[inline]
pub(super) fn hot<K: Clone, V>(node: &Node<K, V>) -> Result<&Hot<K, V>> {
    match node {
        Node::Hot(hot) => Ok(hot),
        Node::Cold(cold) => cold.hot(&mut Ahead::default()),
    }
}

/// The same, going on from the range before.
#[inline]
pub(super) fn hot_ahead<'a, K: Clone, V>(
    node: &'a Node<K, V>,
    ahead: &mut Ahead,
) -> Result<&'a Hot<K, V>> {
    match node {
        Node::Hot(hot) => Ok(hot),
        Node::Cold(cold) => cold.hot(ahead),
    }
}

/// The node in memory, this pointer's own: copied where somebody else can reach it.
pub(super) fn own<K: Clone, V>(node: &mut Arc<Node<K, V>>) -> Result<&mut Hot<K, V>> {
    hot(node)?;
    let node = Arc::make_mut(node);
    if let Node::Cold(cold) = node {
        *node = Node::Hot(cold.loaded.take().unwrap_or_else(Hot::empty));
    }
    match node {
        Node::Hot(hot) => Ok(hot),
        Node::Cold(_) => unreachable!("it was just put in memory"),
    }
}

impl<K: Clone, V> Cold<K, V> {
    fn hot(&self, ahead: &mut Ahead) -> Result<&Hot<K, V>> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let mut source = self.source.lock();
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let content = match source.as_ref().map(|source| source.load(ahead)).transpose()? {
            Some(Loaded::Entries(entries)) => build(entries),
            Some(Loaded::Ranges(ranges)) => {
                let cold = |(first, source)| (first, Arc::new(Node::cold(source)));
                join(ranges.into_iter().map(cold).collect())
            }
            None => Hot::empty(),
        };
        *source = None;
        Ok(self.loaded.get_or_init(|| content))
    }
}

/// A node with the lowest key that belongs to it.
type Lowest<K, V> = (Option<K>, Arc<Node<K, V>>);

/// Builds a tree bottom-up from ascending entries.
pub(super) fn build<K: Clone, V>(entries: Vec<(K, Arc<V>)>) -> Hot<K, V> {
    let leaf = |entries: &mut dyn Iterator<Item = (K, Arc<V>)>, len: usize| {
        let (mut keys, mut values) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for (key, value) in entries.take(len) {
            keys.push(key);
            values.push(value);
        }
        Leaf { keys, values }
    };
    let sizes = shares(entries.len());
    let mut entries = entries.into_iter();
    if sizes.len() < 2 {
        let len = entries.len();
        return Hot::Leaf(leaf(&mut entries, len));
    }
    let leaves = sizes.map(|len| {
        let leaf = leaf(&mut entries, len);
        (leaf.keys.first().cloned(), Arc::new(Node::Hot(Hot::Leaf(leaf))))
    });
    join(leaves.collect())
}

/// Builds what leads to the nodes of one level.
fn join<K: Clone, V>(mut level: Vec<Lowest<K, V>>) -> Hot<K, V> {
    let inner = |below: &mut dyn Iterator<Item = Lowest<K, V>>, len: usize| {
        let mut inner =
            Inner { bounds: Vec::with_capacity(len), children: Vec::with_capacity(len) };
        let mut lowest = None;
        for (at, (first, child)) in below.take(len).enumerate() {
            if at == 0 {
                lowest = first;
            } else {
                inner.bounds.extend(first);
            }
            inner.children.push(child);
        }
        (lowest, inner)
    };
    loop {
        let sizes = shares(level.len());
        let len = level.len();
        let mut below = level.into_iter();
        if sizes.len() < 2 {
            return Hot::Inner(inner(&mut below, len).1);
        }
        let above = sizes.map(|len| {
            let (lowest, inner) = inner(&mut below, len);
            (lowest, Arc::new(Node::Hot(Hot::Inner(inner))))
        });
        level = above.collect();
    }
}

/// Divides a number of things over as few nodes as bulk loading makes, about evenly.
fn shares(things: usize) -> impl ExactSizeIterator<Item = usize> {
    let nodes = things.div_ceil(BULK_FILL);
    (0..nodes).map(move |at| things * (at + 1) / nodes - things * at / nodes)
}

/// Whether dropping this root would free much: it is the last one, and so are the ways down from
/// it. A root that was merely replaced shares nearly all of its children with its successor.
pub(super) fn is_abandoned<K, V>(root: &Arc<Node<K, V>>) -> bool {
    if Arc::strong_count(root) > 1 {
        return false;
    }
    let Some(Hot::Inner(inner)) = root.in_memory() else { return false };
    let last = inner.children.len() - 1;
    let sample = [0, last / 3, last * 2 / 3, last];
    let alone =
        |at: &usize| inner.children.get(*at).is_some_and(|child| Arc::strong_count(child) == 1);
    sample.iter().filter(|at| alone(at)).count() >= 2
}
