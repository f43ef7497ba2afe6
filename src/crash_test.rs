//! Crash-testing a program's own recovery: the power goes after every change that a workload makes to
//! its disk, and again while the program recovers.

use std::collections::HashSet;
use std::error::Error;
use std::fmt::{self, Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;
use parking_lot::Mutex;

use crate::storage::sim::image::{CrashPoint, Picks};
use crate::storage::sim::{Replay, SimDisk};

/// What a workload or a check returns; any error converts by `?`, and a panic counts as one.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// How many lines of the history a failure shows.
const LINES_SHOWN: usize = 16;

/// How many checks a failure may take to become simpler.
const SIMPLER_TRIES: usize = 200;

/// Runs a workload once, then loses power after every change that it made, in many ways each, and
/// checks what a recovery makes of it.
///
/// - The *workload* uses the disk and [notes](Notes::note) what it promised its callers, when it did.
/// - The *check* recovers from the disk that it is given and says whether all that was noted before the
///   crash is there. What it returns is compared: whichever way a recovery was itself cut short, the next
///   one must come to the same.
///
/// Each image is checked; crashes again while it is checked, after so many of the changes as
/// [`recoveries`](Self::recoveries) says; and, when the check is over, crashes and is checked once more.
///
/// ```
/// use rocstate::sim::{CrashTest, SimDisk};
/// use rocstate::{DurableCell, Store};
///
/// let open = |disk: &SimDisk| Store::options().storage(disk.clone()).threads(false).open("/counter");
/// let summary = CrashTest::new(7)
///     .run(
///         |disk, notes| {
///             let store = open(disk)?;
///             let count: DurableCell<u64> = store.durable_cell("count")?;
///             for n in 1..=3 {
///                 store.transact(|tx| count.set(tx, n))?;
///                 notes.note(n);
///             }
///             Ok(())
///         },
///         |disk, crash| {
///             let store = open(disk)?;
///             let count: DurableCell<u64> = store.durable_cell("count")?;
///             let found = count.get(&store.view())?.copied().unwrap_or(0);
///             assert!(found >= crash.noted().last().copied().unwrap_or(0), "it forgot");
///             Ok(found)
///         },
///     )
///     .unwrap();
/// assert!(summary.images > 20, "{summary}");
/// ```
#[derive(Debug)]
pub struct CrashTest {
    seed: u64,
    random: Rng,
    ways: usize,
    recoveries: usize,
    distinct: HashSet<u64>,
    summary: Summary,
}

/// What a [`CrashTest`] has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Moments at which the power went.
    pub crash_points: u64,
    /// Disks that were recovered from and differ from each other.
    pub images: u64,
    /// Recoveries, those that were cut short not counted.
    pub checks: u64,
    /// Crashes in the middle of a recovery.
    pub second_crashes: u64,
}

/// What a workload promised, and when.
#[derive(Debug)]
pub struct Notes<T> {
    disk: SimDisk,
    taken: Mutex<Taken<T>>,
}

#[derive(Debug)]
struct Taken<T> {
    values: Vec<T>,
    /// How many changes there were when each was noted.
    at: Vec<usize>,
    /// Crashes before this one are left to other tests.
    from: usize,
}

/// What a check knows of the crash that it recovers from.
#[derive(Debug)]
pub struct Crash<'a, T, D> {
    noted: &'a [T],
    before: Option<&'a D>,
}

/// A promise that was broken: how to see it again, and where.
pub struct Failure {
    text: String,
}

impl std::ops::AddAssign for Summary {
    fn add_assign(&mut self, other: Summary) {
        self.crash_points += other.crash_points;
        self.images += other.images;
        self.checks += other.checks;
        self.second_crashes += other.second_crashes;
    }
}

impl<T> Notes<T> {
    /// Takes note of a promise: every crash from here on must keep it.
    pub fn note(&self, value: T) {
        let at = self.disk.changes();
        let mut taken = self.taken.lock();
        taken.values.push(value);
        taken.at.push(at);
    }

    /// Leaves crashes before this moment to other tests: the beginning of this workload is the whole
    /// of another.
    pub fn begin(&self) {
        self.taken.lock().from = self.disk.changes();
    }
}

impl<T, D> Crash<'_, T, D> {
    /// What was noted before the power went, in order.
    pub fn noted(&self) -> &[T] {
        self.noted
    }

    /// What a check of this disk returned that went to its end before the power went once more. Whatever
    /// it served must still be there.
    pub fn before(&self) -> Option<&D> {
        self.before
    }
}

impl Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Failure {}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} crash points, {} second crashes, {} distinct images, {} recoveries",
            self.crash_points, self.second_crashes, self.images, self.checks
        )
    }
}

impl CrashTest {
    /// With 24 ways for each crash, of which the recovery of each is cut short once.
    pub fn new(seed: u64) -> CrashTest {
        CrashTest {
            seed,
            random: Rng::with_seed(seed),
            ways: 24,
            recoveries: 1,
            distinct: HashSet::new(),
            summary: Summary::default(),
        }
    }

    /// How many ways of each crash are looked at, an eighth of them once more with a torn sector. With
    /// 4096, all there are while at most twelve sectors or names are unstable.
    pub fn ways(mut self, ways: usize) -> CrashTest {
        self.ways = ways.max(2);
        self
    }

    /// After how many of the changes that a check makes it is cut short, for each image; `usize::MAX`
    /// is every one.
    pub fn recoveries(mut self, recoveries: usize) -> CrashTest {
        self.recoveries = recoveries;
        self
    }

    /// What was done so far.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// Runs a workload, and checks every crash of it. It may be called again with another workload.
    ///
    /// # Errors
    /// The first failure: of the workload itself, or of a check, with the least that had to be lost.
    pub fn run<T, D: PartialEq + Debug>(
        &mut self,
        workload: impl FnOnce(&SimDisk, &Notes<T>) -> Outcome<()>,
        check: impl Fn(&SimDisk, &Crash<'_, T, D>) -> Outcome<D>,
    ) -> Result<Summary, Failure> {
        let disk = SimDisk::new(self.random.u64(..));
        let taken = Mutex::new(Taken { values: Vec::new(), at: Vec::new(), from: 0 });
        let notes = Notes { disk: disk.clone(), taken };
        let outcome = caught(|| workload(&disk, &notes));
        let taken = notes.taken.into_inner();
        if let Err(why) = outcome {
            let text = format!("seed {}: the workload itself failed: {why}", self.seed);
            return Err(Failure { text });
        }
        let mut explorer = Explorer { test: self, check: &check, known: HashSet::new() };
        explorer.explore(disk.replay(), &taken)?;
        Ok(self.summary)
    }
}

/// Goes through the crashes of one workload.
struct Explorer<'a, T, D> {
    test: &'a mut CrashTest,
    check: Check<'a, T, D>,
    /// Images that were checked, by how much was noted before.
    known: HashSet<(u64, usize)>,
}

type Check<'a, T, D> = &'a dyn Fn(&SimDisk, &Crash<'_, T, D>) -> Outcome<D>;

impl<T, D: PartialEq + Debug> Explorer<'_, T, D> {
    fn explore(&mut self, mut replay: Replay, taken: &Taken<T>) -> Result<(), Failure> {
        let (mut matters, mut last_noted) = (true, 0);
        loop {
            let noted = taken.at.partition_point(|at| *at <= replay.at());
            // Where nothing changed and nothing was promised, the crash is the one before.
            matters |= noted > last_noted;
            if replay.at() >= taken.from && matters {
                self.crash(&replay, taken.values.get(..noted).unwrap_or_default())?;
                (matters, last_noted) = (false, noted);
            }
            match replay.step() {
                Some(may) => matters |= may,
                None => return Ok(()),
            }
        }
    }

    fn crash(&mut self, replay: &Replay, noted: &[T]) -> Result<(), Failure> {
        self.test.summary.crash_points += 1;
        let point = replay.crash();
        let ways = point.ways(self.test.ways, &mut self.test.random);
        for way in ways {
            let seed = self.test.random.u64(..);
            let disk = point.disk(&way, seed);
            let key = (disk.fingerprint(), noted.len());
            if !self.known.insert(key) {
                continue;
            }
            if let Err(why) = self.recover(&disk, noted) {
                let (way, why) = self.simplest(&point, way, seed, noted, why);
                return Err(self.failure(replay, &point, &way, noted.len(), &why));
            }
        }
        Ok(())
    }

    /// Checks a fresh image, crashes of that check, and what it leaves.
    fn recover(&mut self, disk: &SimDisk, noted: &[T]) -> Result<(), String> {
        let outcome = self.boot(disk, &Crash { noted, before: None })?;
        self.second_crashes(disk.replay(), noted, &outcome)?;
        let third = disk.power_loss(self.test.random.u64(..));
        let again = self
            .boot(&third, &Crash { noted, before: Some(&outcome) })
            .map_err(|why| format!("after one more crash when all was checked: {why}"))?;
        if again == outcome {
            return Ok(());
        }
        Err(format!("it came to {outcome:?}, and the next boot to {again:?}"))
    }

    fn second_crashes(
        &mut self,
        mut replay: Replay,
        noted: &[T],
        expected: &D,
    ) -> Result<(), String> {
        let changes = replay.changes();
        let mut moments = replay.moments();
        if self.test.recoveries < moments.len() {
            self.test.random.shuffle(&mut moments);
            moments.truncate(self.test.recoveries);
            moments.sort_unstable();
        }
        for moment in moments {
            while replay.at() < moment {
                replay.step();
            }
            self.test.summary.second_crashes += 1;
            let point = replay.crash();
            let way = point.one_way(&mut self.test.random);
            let seed = self.test.random.u64(..);
            let disk = point.disk(&way, seed);
            let found = self.boot(&disk, &Crash { noted, before: None });
            let wrong = match found {
                Ok(found) if found == *expected => continue,
                Ok(found) => format!("it came to {found:?}, and without it to {expected:?}"),
                Err(why) => why,
            };
            return Err(format!(
                "after a second crash in the recovery, after change {moment} of {changes}, which lost \
                 {}: {wrong}\nthe recovery's changes before it:\n{}",
                point.describe(&way),
                replay.last_changes(LINES_SHOWN)
            ));
        }
        Ok(())
    }

    fn boot(&mut self, disk: &SimDisk, crash: &Crash<'_, T, D>) -> Result<D, String> {
        self.test.summary.checks += 1;
        if self.test.distinct.insert(disk.fingerprint()) {
            self.test.summary.images += 1;
        }
        caught(|| (self.check)(disk, crash))
    }

    /// Loses less and less, for as long as that still fails.
    fn simplest(
        &mut self,
        point: &CrashPoint<'_>,
        mut way: Picks,
        seed: u64,
        noted: &[T],
        mut why: String,
    ) -> (Picks, String) {
        let mut tries = 0;
        'simpler: loop {
            for simpler in point.simpler(&way) {
                tries += 1;
                if tries > SIMPLER_TRIES {
                    return (way, why);
                }
                let disk = point.disk(&simpler, seed);
                if let Err(still) = self.recover(&disk, noted) {
                    (way, why) = (simpler, still);
                    continue 'simpler;
                }
            }
            return (way, why);
        }
    }

    fn failure(
        &self,
        replay: &Replay,
        point: &CrashPoint<'_>,
        way: &Picks,
        noted: usize,
        why: &str,
    ) -> Failure {
        let text = format!(
            "seed {}: the power went after change {} of {}, with {noted} notes taken, and took \
             {}\n{why}\nthe changes before it:\n{}",
            self.test.seed,
            replay.at(),
            replay.changes(),
            point.describe(way),
            replay.last_changes(LINES_SHOWN)
        );
        Failure { text }
    }
}

/// Runs something of the user's; a panic is an error.
fn caught<T>(run: impl FnOnce() -> Outcome<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("it panicked: {}", text.unwrap_or("with something that is no text")))
        }
    }
}
