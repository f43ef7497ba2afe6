//! Threads that are begun when there first is something for them to do: many runs are over before that, and to begin
//! and end a thread takes a good part of a short one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::error::Result;

#[derive(Clone, Copy, Debug)]
pub(super) enum Helper {
    /// Leads what nobody blocks for.
    Leader,
    /// Writes segments ahead of their use.
    Ahead,
    /// Takes checkpoints.
    Keeper,
}

impl Helper {
    pub(super) fn thread_name(self) -> &'static str {
        match self {
            Helper::Leader => "rocstate-log",
            Helper::Ahead => "rocstate-ahead",
            Helper::Keeper => "rocstate-keeper",
        }
    }
}

/// Without leave there are none, and whoever asks for something does it.
#[derive(Debug, Default)]
pub(super) struct Helpers {
    begun: [AtomicBool; 3],
    threads: Mutex<Threads>,
}

pub(super) type Begin = Box<dyn Fn(Helper) -> Result<JoinHandle<()>> + Send + Sync>;

#[derive(Default)]
struct Threads {
    begin: Option<Begin>,
    running: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Threads").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Helpers {
    /// Gives leave to begin them, which `begin` does.
    pub(super) fn allow(&self, begin: Begin) {
        self.threads.lock().begin = Some(begin);
    }

    /// Begins one, unless that is so. It looks for itself whether there is something to do.
    pub(super) fn have(&self, helper: Helper) -> Result<()> {
        let Some(begun) = self.begun.get(helper as usize) else { return Ok(()) };
        if begun.load(Ordering::Acquire) {
            return Ok(());
        }
        let Threads { begin, running } = &mut *self.threads.lock();
        if let Some(begin) = begin
            && !begun.load(Ordering::Relaxed)
        {
            running.push(begin(helper)?);
            begun.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// None is begun from here on; those that run, which are told to end in other ways.
    pub(super) fn end(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock()).running
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::error::Error;

    #[test]
    fn a_helper_is_begun_once_and_again_only_where_that_failed() {
        let (helpers, asked) = (Helpers::default(), Arc::new(AtomicU32::new(0)));
        let asked_for = Arc::clone(&asked);
        let begin = move |_| {
            let fails = asked_for.fetch_add(1, Ordering::Relaxed) == 0;
            if fails { Err(Error::closed()) } else { Ok(std::thread::spawn(|| {})) }
        };
        helpers.have(Helper::Keeper).unwrap();
        helpers.allow(Box::new(begin));
        helpers.have(Helper::Keeper).unwrap_err();
        (0..3).for_each(|_| helpers.have(Helper::Keeper).unwrap());
        helpers.have(Helper::Leader).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        for thread in helpers.end() {
            thread.join().unwrap();
        }
        helpers.have(Helper::Ahead).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 3, "none is begun after the end");
    }
}
