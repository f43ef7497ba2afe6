//! What a group comes to: its state is published and those who wait are told, or they are refused.

use std::sync::Arc;

use super::waiters::Waiters;
use crate::state::State;

/// What stays in the queue of a group while it is written.
#[derive(Debug)]
pub(super) struct End {
    /// The state after its last commit.
    pub(super) state: Arc<State>,
    pub(super) waiters: Waiters,
}

/// The ends of groups that are given up, for after the lock: those who wait are to learn that, and the program's own
/// code may run where the last who has a state lets go of it.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Refused(pub(super) Vec<End>);

impl Refused {
    pub(super) fn tell(self) {
        if !self.0.is_empty() {
            self.tell_all();
        }
    }

    #[cold]
    fn tell_all(self) {
        let tell = |end: End| {
            end.waiters.refuse();
            end.state
        };
        let states: Vec<_> = self.0.into_iter().map(tell).collect();
        // A destructor that panics keeps nobody asleep.
        drop(states);
    }
}
