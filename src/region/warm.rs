//! Warming a region: its cold ranges are claimed and loaded by as many threads as there are.

use parking_lot::{Condvar, Mutex};

use super::Value;
use super::key::Key;
use crate::error::{Error, Result};
use crate::format::RegionNo;
use crate::state::State;
use crate::tree::WarmPosition;

/// More failures of one region than this are not kept.
const FAILURES_MAX: usize = 16;

/// How far a region was warmed, whatever its types.
pub(crate) trait Warmer: Send + Sync {
    /// Loads the next ranges of a state; `false` when there are none left to take. `go_on` is asked
    /// between two ranges.
    fn step(&self, region: RegionNo, state: &dyn AsState, go_on: &dyn Fn() -> bool) -> bool;

    /// Waits for those who load; tells what could not be read.
    fn wait(&self) -> Result<()>;

    /// Begins again from the end.
    fn restart(&self);

    /// What could not be read so far.
    fn failures(&self) -> Vec<Error>;
}

/// Where the newest state is to be had, so that nobody holds one while it loads.
pub(crate) trait AsState {
    fn newest(&self) -> std::sync::Arc<State>;
}

/// The warmer of a region of these types.
pub(super) struct TypedWarmer<K, V> {
    progress: Mutex<Progress<K>>,
    rest: Condvar,
    values: std::marker::PhantomData<fn() -> V>,
}

struct Progress<K> {
    position: WarmPosition<K>,
    /// Threads that load what they claimed.
    at_work: usize,
    failures: Vec<Error>,
}

impl<K> Progress<K> {
    fn fail(&mut self, error: Error) {
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(error);
        }
    }
}

impl<K, V> Default for TypedWarmer<K, V> {
    fn default() -> Self {
        let progress =
            Progress { position: WarmPosition::default(), at_work: 0, failures: Vec::new() };
        TypedWarmer {
            progress: Mutex::new(progress),
            rest: Condvar::new(),
            values: std::marker::PhantomData,
        }
    }
}

/// Ends the work of a thread, also when it panics.
struct AtWork<'a, K, V>(&'a TypedWarmer<K, V>);

impl<K, V> Drop for AtWork<'_, K, V> {
    fn drop(&mut self) {
        self.0.progress.lock().at_work -= 1;
        self.0.rest.notify_all();
    }
}

impl<K: Key, V: Value> Warmer for TypedWarmer<K, V> {
    fn step(&self, region: RegionNo, state: &dyn AsState, go_on: &dyn Fn() -> bool) -> bool {
        let mut progress = self.progress.lock();
        let state = state.newest();
        let root = state.region(region);
        let tree = root.and_then(|root| root.to_tree::<K, V>().ok());
        let mut failures = Vec::new();
        let claim = tree
            .as_ref()
            .and_then(|tree| tree.claim(&mut progress.position, &mut |error| failures.push(error)));
        for error in failures {
            progress.fail(error);
        }
        drop(state);
        let Some(claim) = claim else {
            progress.position = WarmPosition::Ended;
            return false;
        };
        progress.at_work += 1;
        drop(progress);
        let at_work = AtWork(self);
        claim.load(|done| {
            if let Err(error) = done {
                self.progress.lock().fail(error);
            }
            go_on()
        });
        drop(at_work);
        true
    }

    fn wait(&self) -> Result<()> {
        let mut progress = self.progress.lock();
        while progress.at_work > 0 {
            self.rest.wait(&mut progress);
        }
        progress.failures.first().cloned().map_or(Ok(()), Err)
    }

    fn restart(&self) {
        let mut progress = self.progress.lock();
        progress.position = WarmPosition::default();
        progress.failures.clear();
    }

    fn failures(&self) -> Vec<Error> {
        self.progress.lock().failures.clone()
    }
}
