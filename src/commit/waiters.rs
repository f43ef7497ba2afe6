//! Who waits for a group, and is woken when it has ended.

use std::sync::Arc;
use std::task::Waker;

use super::bell::{Bell, Call};
use crate::contain::contain;
use crate::format::Lsn;

/// Those who wait for one group.
#[derive(Debug)]
pub(super) struct Waiters {
    /// The last commit of the group.
    pub(super) last: Lsn,
    /// Where threads do, if any: they stay until the group has ended.
    bell: Option<Arc<Bell>>,
    wakers: Vec<Waker>,
}

/// Where a future has its waker, among those who wait for its group.
#[derive(Debug, Default)]
pub(crate) struct Seat(Option<usize>);

impl Waiters {
    pub(super) fn of(last: Lsn) -> Waiters {
        Waiters { last, bell: None, wakers: Vec::new() }
    }

    /// Where a thread is called when there is news.
    pub(super) fn join(&mut self) -> Arc<Bell> {
        Arc::clone(self.bell.get_or_insert_default())
    }

    /// Whether a thread waits.
    #[cfg(all(test, not(feature = "schedules")))]
    pub(super) fn has_a_bell(&self) -> bool {
        self.bell.is_some()
    }

    /// Leaves a waker that is called when there is news; returns the one that the same future left before.
    pub(super) fn leave(&mut self, seat: &mut Seat, waker: Waker) -> Option<Waker> {
        if let Some(known) = seat.0.and_then(|at| self.wakers.get_mut(at)) {
            return Some(std::mem::replace(known, waker));
        }
        seat.0 = Some(self.wakers.len());
        self.wakers.push(waker);
        None
    }

    /// Calls a thread that may lead, if one waits; whether it does.
    pub(super) fn ask_for_a_look(&self) -> bool {
        self.bell.as_ref().inspect(|bell| bell.ask_for_a_look()).is_some()
    }

    /// What they wait for is done.
    pub(super) fn acknowledge(self) {
        self.wake(Call::Acknowledged);
    }

    /// What they wait for will not be done.
    pub(super) fn refuse(self) {
        self.wake(Call::Refused);
    }

    fn wake(self, call: Call) {
        if let Some(bell) = self.bell {
            bell.end(call);
        }
        for waker in self.wakers {
            // One that panics keeps nobody else asleep.
            contain(|| waker.wake());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_future_has_one_waker_and_the_last_that_it_left() {
        let mut waiters = Waiters::of(Lsn::new(1));
        let tasks: [Arc<Woken>; 3] = Default::default();
        let leave = |waiters: &mut Waiters, seat: &mut Seat, task: usize| {
            waiters.leave(seat, Waker::from(Arc::clone(&tasks[task]))).is_some()
        };
        // One is polled again and again, one moves to another task, and two are in the same one.
        let mut seats: [Seat; 3] = Default::default();
        for again in [false, true, true] {
            assert_eq!(leave(&mut waiters, &mut seats[0], 0), again);
        }
        assert!(!leave(&mut waiters, &mut seats[1], 1));
        assert!(!leave(&mut waiters, &mut seats[2], 1));
        assert!(leave(&mut waiters, &mut seats[1], 2));
        waiters.wake(Call::Acknowledged);
        assert_eq!(tasks.map(|task| task.0.load(Ordering::Relaxed)), [1, 1, 1]);
    }
}
