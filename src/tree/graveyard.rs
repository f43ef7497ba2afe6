//! Where large trees go to be freed: a thread that does nothing else, in bounded steps.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use super::node::{Hot, Node};

/// Trees with fewer entries are freed where they are dropped.
pub(super) const WORTH_BURYING: usize = 4096;

/// How many nodes are freed between two pauses.
const NODES_PER_STEP: usize = 64;

/// A way to the thread that frees; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Graveyard(Option<Sender<Box<dyn Remains>>>);

/// Something large that is to be freed in steps.
pub(crate) trait Remains: Send {
    /// Frees it, and calls `pause` every so often.
    fn decay(self: Box<Self>, pause: &mut dyn FnMut());
}

impl Graveyard {
    /// A graveyard and the end that its thread reads from; that thread's work is done when the
    /// last clone of the graveyard is gone.
    pub(crate) fn new() -> (Graveyard, Receiver<Box<dyn Remains>>) {
        let (to, from) = mpsc::channel();
        (Graveyard(Some(to)), from)
    }

    /// Frees on the spot.
    pub(crate) fn none() -> Graveyard {
        Graveyard(None)
    }

    pub(super) fn bury(&self, remains: Box<dyn Remains>) {
        let refused = match &self.0 {
            Some(to) => to.send(remains).err().map(|refused| refused.0),
            None => Some(remains),
        };
        if let Some(remains) = refused {
            remains.decay(&mut || {});
        }
    }
}

impl<K: Send + Sync, V: Send + Sync> Remains for Arc<Node<K, V>> {
    fn decay(self: Box<Self>, pause: &mut dyn FnMut()) {
        let mut open = vec![*self];
        let mut freed = 0;
        while let Some(node) = open.pop() {
            if let Some(Hot::Inner(inner)) = Arc::into_inner(node).and_then(Node::into_memory) {
                open.extend(inner.children);
            }
            freed += 1;
            if freed == NODES_PER_STEP {
                freed = 0;
                pause();
            }
        }
    }
}
