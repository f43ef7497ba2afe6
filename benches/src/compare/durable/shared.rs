//! The floor of a group commit: threads that wait for one write and sync which the last of them makes, and
//! do nothing else. What keeps it from the raw loop times the threads is waking them.

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rocstate_bench::run::Failure;

use super::{in_threads, write_synced};

#[derive(Default)]
struct Round {
    nth: u64,
    arrived: u64,
    /// Those who still come.
    writers: u64,
}

#[derive(Default)]
struct Shared {
    round: Mutex<Round>,
    next: Condvar,
}

/// Shares syncs among `writers` threads; how long each waited for each of its own, in seconds.
pub(crate) fn write(file: &File, writers: u64, time: Duration) -> Result<Vec<f64>, Failure> {
    let round = Mutex::new(Round { writers, ..Round::default() });
    let shared = Shared { round, ..Shared::default() };
    in_threads(writers, time, |_, stop| {
        let mut times = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            shared.commit(file).map_err(|error| error.to_string())?;
            times.push(began.elapsed().as_secs_f64());
        }
        shared.leave();
        Ok(times)
    })
}

impl Shared {
    fn commit(&self, file: &File) -> std::io::Result<()> {
        let mut round = self.lock();
        let mine = round.nth;
        round.arrived += 1;
        while round.nth == mine {
            if round.arrived < round.writers {
                round = self.next.wait(round).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Nobody else comes before it ends.
            round.arrived = 0;
            drop(round);
            write_synced(file, mine, &[1; 100])?;
            round = self.lock();
            round.nth += 1;
            drop(round);
            self.next.notify_all();
            return Ok(());
        }
        Ok(())
    }

    /// Those who wait already may be all that come.
    fn leave(&self) {
        self.lock().writers -= 1;
        self.next.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
