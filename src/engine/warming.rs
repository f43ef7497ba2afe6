//! Reading cold regions ahead of those who will ask: on threads of its own and by whoever waits.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::{Engine, spawn};
use crate::contain::contain;
use crate::error::{Error, Result};
use crate::format::RegionNo;
use crate::options::Warming;
use crate::region::handle::{AsState, RegionCore};
use crate::report::Warmth;
use crate::state::{RegionRoot, State};

/// More threads than this gain nothing: they wait for memory.
const THREADS_MAX: usize = 8;

/// After so many steps the first thread has others help: many runs are over before that, or have less that is cold.
const STEPS_ALONE: u32 = 2;

/// The regions that are to be warmed, and the threads that do it.
#[derive(Debug, Default)]
pub(super) struct WarmQueue {
    work: Mutex<Work>,
    wake: Condvar,
    closed: AtomicBool,
}

#[derive(Debug, Default)]
struct Work {
    regions: VecDeque<Arc<RegionCore>>,
    /// Where those are in memory: there may be as many as a store has.
    waiting: HashSet<usize>,
    threads: Vec<JoinHandle<()>>,
}

impl Work {
    fn add(&mut self, core: &Arc<RegionCore>) {
        if self.waiting.insert(Arc::as_ptr(core).addr()) {
            self.regions.push_back(Arc::clone(core));
        }
    }

    /// Nothing is left to take of a region that was the first.
    fn end(&mut self, core: &Arc<RegionCore>) {
        // Another thread may have said so before.
        if self.regions.front().is_some_and(|first| Arc::ptr_eq(first, core)) {
            self.regions.pop_front();
            self.waiting.remove(&Arc::as_ptr(core).addr());
        }
    }
}

impl WarmQueue {
    /// Tells the threads to end; a range that is being loaded is loaded to its end.
    pub(super) fn end(&self) -> Vec<JoinHandle<()>> {
        let mut work = self.work.lock();
        self.closed.store(true, Ordering::Release);
        let threads = std::mem::take(&mut work.threads);
        self.wake.notify_all();
        threads
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl AsState for Engine {
    fn newest(&self) -> Arc<State> {
        self.visible()
    }
}

impl Engine {
    /// Does for a region that was just declared what the options say.
    pub(super) fn warm_declared(self: &Arc<Engine>, core: &Arc<RegionCore>) {
        if self.coldness(core) == 0 {
            return;
        }
        match self.options.warming {
            Warming::OnDemand => {}
            // Without a thread, first touches do its work.
            Warming::Background => drop(self.warm_in_background(core)),
            // What cannot be read is an error for whoever needs it.
            Warming::Eager => drop(self.warm(core)),
        }
    }

    /// Reads what is cold of a region, together with the threads, and waits for them.
    pub(crate) fn warm(self: &Arc<Engine>, core: &Arc<RegionCore>) -> Result<()> {
        if !core.warmer.failures().is_empty() {
            core.warmer.restart();
        }
        if self.coldness(core) > 0 {
            self.warm_in_background(core)?;
        }
        loop {
            let more = self.warm_step(core);
            self.tell_warmth(core);
            if !more {
                break;
            }
        }
        let outcome = core.warmer.wait();
        if self.warming.is_closed() { Err(Error::closed()) } else { outcome }
    }

    /// A read-only store moved on: what was warm of these regions may be cold again.
    pub(super) fn warm_again(self: &Arc<Engine>, regions: impl Iterator<Item = RegionNo>) {
        let visible = self.visible();
        let declared: Vec<_> = {
            let registry = self.registry.lock();
            let roots = regions.filter_map(|number| visible.region(number));
            roots.filter_map(|root| registry.declared_as(root.meta()).cloned()).collect()
        };
        for core in &declared {
            core.warmer.restart();
            self.warm_declared(core);
        }
    }

    /// The entries of a region that are on disk only.
    pub(super) fn coldness(&self, core: &RegionCore) -> usize {
        let visible = self.visible();
        let root = visible.region(core.number());
        root.map_or(0, RegionRoot::coldness)
    }

    fn warm_in_background(self: &Arc<Engine>, core: &Arc<RegionCore>) -> Result<()> {
        let mut work = self.warming.work.lock();
        if self.warming.is_closed() || !self.options.threads {
            return Ok(());
        }
        work.add(core);
        if work.threads.is_empty() {
            let engine = Arc::clone(self);
            let mut steps = 0;
            let first = move || {
                engine.run_warmer(|| {
                    steps += 1;
                    if steps == STEPS_ALONE {
                        engine.begin_other_warmers();
                    }
                });
            };
            work.threads.push(spawn("rocstate-warmer", first)?);
        }
        self.warming.wake.notify_all();
        Ok(())
    }

    /// How many there are to be takes several files of the system to tell: only a thread waits for that.
    fn begin_other_warmers(self: &Arc<Engine>) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut work = self.warming.work.lock();
        if self.warming.is_closed() {
            return;
        }
        for _ in 1..(cores - 1).clamp(1, THREADS_MAX) {
            let engine = Arc::clone(self);
            // Fewer do as well.
            work.threads.extend(spawn("rocstate-warmer", move || engine.run_warmer(|| ())).ok());
        }
    }

    /// Loads what is to be warmed, until the store is closed; `stepped` is told of each step.
    fn run_warmer(&self, mut stepped: impl FnMut()) {
        let mut work = self.warming.work.lock();
        while !self.warming.is_closed() {
            let Some(core) = work.regions.front().cloned() else {
                self.warming.wake.wait(&mut work);
                continue;
            };
            drop(work);
            let more = contain(|| self.warm_step(&core)).unwrap_or(false);
            contain(|| self.tell_warmth(&core));
            if more {
                stepped();
            }
            work = self.warming.work.lock();
            if !more {
                work.end(&core);
            }
        }
    }

    /// Loads a few ranges; `false` when none are left to take.
    fn warm_step(&self, core: &RegionCore) -> bool {
        let go_on = || {
            // Whoever was asked for something goes first.
            std::thread::yield_now();
            !self.warming.is_closed() && !core.is_removed()
        };
        go_on() && core.warmer.step(core.number(), self, &go_on)
    }

    fn tell_warmth(&self, core: &RegionCore) {
        let visible = self.visible();
        if let Some(root) = visible.region(core.number()) {
            let (cold, entries) = (root.coldness(), root.found_entries());
            self.options.warmed(&Warmth { region: &core.name, warm: entries - cold, entries });
        }
    }
}
