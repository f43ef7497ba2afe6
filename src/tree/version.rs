//! One version of a tree, also where nobody knows its types.

use std::any::Any;
use std::sync::{Arc, Weak};

use super::line::Line;
use super::node::{NodePtr, Stamp};
use super::reader::Reader;

/// One version of a tree. It sees what was born by its stamp and has not died by then.
pub(crate) struct Version<K, V> {
    pub(super) root: NodePtr<K, V>,
    pub(super) len: usize,
    pub(super) stamp: Stamp,
    pub(super) line: Arc<Line<K, V>>,
}

/// What a tree belongs to, which all versions of its line share.
pub(crate) type Owner = Arc<dyn Any + Send + Sync>;

/// A version of a tree of any types.
pub(crate) trait AnyVersion: Any + Send + Sync {
    fn len(&self) -> usize;
    /// What the tree belongs to, if that was said when it was made.
    fn owner(&self) -> Option<&Owner>;
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> AnyVersion for Version<K, V> {
    fn len(&self) -> usize {
        self.len
    }

    fn owner(&self) -> Option<&Owner> {
        self.line.owner.as_ref()
    }
}

impl<K: Clone, V> Version<K, V> {
    #[inline]
    pub(crate) fn read(&self) -> Reader<'_, K, V> {
        // SAFETY: what a version sees lives as long as it is held, and it is borrowed.
        unsafe { Reader::new(self.root, self.stamp) }
    }
}

/// A version with its stamp, which does not hold it.
pub(super) struct Stamped<K, V> {
    pub(super) stamp: Stamp,
    pub(super) version: Weak<Version<K, V>>,
}

impl<K, V> Clone for Stamped<K, V> {
    fn clone(&self) -> Self {
        Stamped { stamp: self.stamp, version: Weak::clone(&self.version) }
    }
}

impl<K, V> Stamped<K, V> {
    pub(super) fn of(version: &Arc<Version<K, V>>) -> Self {
        Stamped { stamp: version.stamp, version: Arc::downgrade(version) }
    }

    /// Whether somebody holds it. Who is told that nobody does comes after whatever they read if a fence
    /// that acquires follows.
    pub(super) fn is_held(&self) -> bool {
        self.version.strong_count() > 0
    }
}
