//! Where trees, parts of them, and what else is large go to be freed: a thread that does nothing else, in bounded steps.

use std::collections::HashSet;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::arenas;
use crate::contain::contain;

/// How long what died waits for more of its kind.
const REST: Duration = Duration::from_millis(20);

/// How seldom what is still seen is looked at again.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// How long after the last work the thread looks by itself for more, ever more seldom, in the place of being
/// woken: a wake costs whoever discards tens of microseconds.
const WAKEFUL: Duration = Duration::from_secs(10);

/// How seldom that is at last: a look costs a busy machine little, but many stores with little to do cost it many.
const LONGEST_NAP: Duration = Duration::from_millis(320);

/// A way to the thread that frees; cheap to clone. Without a thread things are freed on the spot.
#[derive(Clone, Debug)]
pub(crate) struct Graveyard(Option<Way>);

/// Its fields are dropped in turn: when the end comes, no sender is left.
#[derive(Clone, Debug)]
struct Way {
    to: Sender<Work>,
    _end: Arc<End>,
}

/// Wakes the thread when it is dropped.
#[derive(Debug, Default)]
struct End(OnceLock<Thread>);

impl Drop for End {
    fn drop(&mut self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

/// What the thread reads from; its work is done when the last clone of the graveyard is gone.
#[derive(Debug)]
pub(crate) struct Buried {
    from: Receiver<Work>,
    end: Weak<End>,
}

enum Work {
    Bury(Box<dyn Remains>),
    Sweep(Weak<dyn Sweep>),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Work::Bury(_)) { "Bury" } else { "Sweep" })
    }
}

/// Something large that is to be freed in steps.
pub(crate) trait Remains: Send {
    /// Frees it, and calls `pause` every so often.
    fn decay(self: Box<Self>, pause: &mut dyn FnMut());
}

/// Something that has parts to be freed once nobody can see them.
pub(super) trait Sweep: Send + Sync {
    /// Frees what nobody can see, and calls `pause` every so often; whether something is left that somebody can.
    fn sweep(&self, pause: &mut dyn FnMut()) -> bool;
}

impl Graveyard {
    /// A graveyard and the end that its thread reads from.
    pub(crate) fn new() -> (Graveyard, Buried) {
        let (to, from) = mpsc::channel();
        let end = Arc::default();
        let buried = Buried { from, end: Arc::downgrade(&end) };
        (Graveyard(Some(Way { to, _end: end })), buried)
    }

    /// Frees on the spot.
    pub(crate) fn none() -> Graveyard {
        Graveyard(None)
    }

    /// Whether there is somebody who has time.
    pub(super) fn has_thread(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn bury(&self, remains: Box<dyn Remains>) {
        let refused = match &self.0 {
            Some(way) => way.to.send(Work::Bury(remains)).err().map(|refused| refused.0),
            None => Some(Work::Bury(remains)),
        };
        if let Some(Work::Bury(remains)) = refused {
            remains.decay(&mut arenas::merge);
        }
    }

    /// Has a line looked at when there is time.
    pub(super) fn note(&self, line: Weak<dyn Sweep>) {
        if let Some(way) = &self.0 {
            // Without a receiver it is looked at when there is more.
            way.to.send(Work::Sweep(line)).ok();
        }
    }
}

impl Buried {
    /// Frees what comes until nothing more can; `pause` lets others go first.
    pub(crate) fn run(self, pause: &mut dyn FnMut()) {
        // What was freed since the last pause is merged before others go on, who might have to merge all of it.
        let pause = &mut || {
            arenas::merge();
            pause();
        };
        if let Some(end) = self.end.upgrade() {
            end.0.set(thread::current()).ok();
        }
        let mut noted: Vec<Weak<dyn Sweep>> = Vec::new();
        let (mut nap, mut rest) = (REST, REST);
        let (mut worked, mut swept) = (Instant::now(), Instant::now());
        loop {
            let work = match self.from.try_recv() {
                Ok(work) => Ok(work),
                Err(TryRecvError::Disconnected) => Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if worked.elapsed() < WAKEFUL => {
                    thread::park_timeout(nap);
                    nap = (nap * 2).min(LONGEST_NAP);
                    Err(RecvTimeoutError::Timeout)
                }
                Err(TryRecvError::Empty) if noted.is_empty() => {
                    self.from.recv().map_err(|_| RecvTimeoutError::Disconnected)
                }
                Err(TryRecvError::Empty) => self.from.recv_timeout(rest),
            };
            match work {
                Ok(work) => {
                    match work {
                        // A destructor that panics costs what was to be freed with it, and nothing else.
                        Work::Bury(remains) => drop(contain(|| remains.decay(pause))),
                        Work::Sweep(line) => {
                            rest = REST;
                            noted.push(line);
                        }
                    }
                    (nap, worked) = (REST, Instant::now());
                }
                Err(RecvTimeoutError::Timeout) if noted.is_empty() || swept.elapsed() < rest => {}
                Err(RecvTimeoutError::Timeout) => {
                    sweep(&mut noted, pause);
                    swept = Instant::now();
                    rest = (rest * 2).min(LONGEST_REST);
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Takes what is there, without waiting.
    #[cfg(test)]
    pub(super) fn decay_what_is_there(&self, pause: &mut dyn FnMut()) -> usize {
        let mut count = 0;
        while let Ok(work) = self.from.try_recv() {
            match work {
                Work::Bury(remains) => {
                    remains.decay(pause);
                    count += 1;
                }
                Work::Sweep(line) => sweep(&mut vec![line], pause),
            }
        }
        count
    }
}

/// Sweeps all lines, and keeps those that have something left.
fn sweep(noted: &mut Vec<Weak<dyn Sweep>>, pause: &mut dyn FnMut()) {
    let mut lines: Vec<_> = noted.drain(..).filter_map(|line| line.upgrade()).collect();
    let mut known = HashSet::new();
    lines.retain(|line| known.insert(Arc::as_ptr(line).cast::<()>().addr()));
    for line in lines {
        let left = contain(|| line.sweep(pause)).unwrap_or(false);
        if left {
            noted.push(Arc::downgrade(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_not_slept_through() {
        let ended = (0..5).any(|_| {
            let (graveyard, buried) = Graveyard::new();
            let thread = thread::spawn(move || buried.run(&mut || {}));
            // By now it looks at its most seldom: the fifth nap has just begun.
            thread::sleep(REST * 15 + LONGEST_NAP + REST);
            let dropped = Instant::now();
            drop(graveyard);
            thread.join().unwrap();
            dropped.elapsed() < LONGEST_NAP / 2
        });
        assert!(ended, "it slept on");
    }
}
