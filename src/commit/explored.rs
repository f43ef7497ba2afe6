//! The group commit under every kind of schedule: no lost wake-up, no acknowledgement before its sync,
//! and an end for everybody also when the leader fails or panics.
//!
//! `cargo test --lib --features schedules explored`; a failure prints a schedule that [`shuttle::replay`]
//! repeats. `ROCSTATE_SCHEDULES` makes a campaign of it, for which `--release` is worth its build.

#[path = "../../tests/common/settings.rs"]
mod settings;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread::{self, yield_now};

use super::*;
use crate::boot::boot;
use crate::format::BLOCK_BYTES;
use crate::format::frame::FRAME_HEADER_BYTES;
use crate::format::name;
use crate::options::Options;
use crate::storage::sim::SimDisk;
use crate::storage::{LockGuard, OpenMode, Storage, StorageFile};
use crate::tree::Graveyard;

/// What a commit changes, whatever that is: a block holds two frames of it.
const OPERATIONS: [u8; 1_500] = [1; 1_500];

/// The header of a frame, and the records of two commits.
const TWO_COMMITS: usize = FRAME_HEADER_BYTES + 2 * (OPERATIONS.len() + 4);

/// What the disk has been told, by commits.
#[derive(Debug, Default)]
struct Told {
    appended: AtomicU64,
    /// In the order in which they were made.
    files: parking_lot::Mutex<Vec<Made>>,
    /// Syncs until one goes wrong, once armed.
    fails_in: AtomicU64,
    panics: bool,
    /// Each sync has an open file of its own, so that they may run at the same time.
    beside: bool,
    /// Small writes wait for nothing.
    copies: bool,
    /// One went wrong. What was not stable by then never will be, and of those who were waiting for it only one
    /// is told, or each that has an open file of its own: an error of the system's is reported once for each.
    lost: AtomicBool,
}

/// A file, the last commit that was written to it, and the last that was stable.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    appended: u64,
    stable: u64,
    /// The directory was synced since it has its own name.
    is_named: bool,
    in_lock: InLock,
}

/// Whether LOCK names a file, or a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InLock {
    Not,
    Written,
    Stable,
}

impl Told {
    /// The last commit that a power loss would leave, with all before it; of a segment that could be lost without
    /// being missed it leaves none.
    fn stable(&self) -> u64 {
        let files = self.files.lock();
        let mut log = files.iter().filter(|file| file.appended > 0).peekable();
        let mut stable = 0;
        while let Some(file) = log.next_if(|file| file.in_lock == InLock::Stable && file.stable > 0)
        {
            stable = file.stable;
            if stable < file.appended {
                break;
            }
        }
        stable
    }

    /// Those of the log that have their names, and were in LOCK so far, now are in it so far.
    fn note_in_lock(&self, from: InLock, to: InLock) {
        let mut files = self.files.lock();
        for file in files.iter_mut().filter(|file| file.is_named && file.in_lock == from) {
            file.in_lock = to;
        }
    }
}

impl YieldingFile {
    fn is_lock(&self) -> bool {
        self.1.files.lock()[self.2].path.ends_with(name::LOCK)
    }
}

/// A disk at every call of which somebody else may run.
#[derive(Clone, Debug)]
struct Yielding(SimDisk, Arc<Told>);

/// With its number among those that were made.
#[derive(Debug)]
struct YieldingFile(Arc<dyn StorageFile>, Arc<Told>, usize);

impl Storage for Yielding {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.0.open(path, mode)?;
        let mut files = self.1.files.lock();
        let (path, in_lock) = (path.to_owned(), InLock::Not);
        files.push(Made { path, appended: 0, stable: 0, is_named: false, in_lock });
        Ok(Arc::new(YieldingFile(file, Arc::clone(&self.1), files.len() - 1)))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        yield_now();
        self.0.rename(from, to)?;
        let mut files = self.1.files.lock();
        // A name that is used again is that of the newest.
        if let Some(file) = files.iter_mut().rfind(|file| file.path == from) {
            to.clone_into(&mut file.path);
        }
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        yield_now();
        self.0.sync_dir(dir)?;
        for file in self.1.files.lock().iter_mut() {
            file.is_named |= file.path.extension().is_some_and(|extension| extension == "roc");
        }
        Ok(())
    }
    fn try_lock(&self, _: &Arc<dyn StorageFile>) -> io::Result<Option<LockGuard>> {
        Ok(Some(Box::new(())))
    }
}

impl StorageFile for YieldingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(to, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        yield_now();
        self.0.write_at(bytes, offset)?;
        let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
        let (commits, first) = (word(16).unwrap_or(0) & 0xffff_ffff, word(32).unwrap_or(0));
        if offset >= 4096 && commits > 0 {
            self.1.appended.fetch_max(first + commits - 1, Ordering::SeqCst);
            self.1.files.lock()[self.2].appended = first + commits - 1;
        }
        if self.is_lock() {
            self.1.note_in_lock(InLock::Not, InLock::Written);
        }
        yield_now();
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync(&self) -> io::Result<()> {
        let appended = self.1.files.lock()[self.2].appended;
        yield_now();
        let left = self.1.fails_in.load(Ordering::SeqCst);
        if left > 0 {
            self.1.fails_in.store(left - 1, Ordering::SeqCst);
            if left == 1 {
                self.1.lost.store(true, Ordering::SeqCst);
                yield_now();
                assert!(!self.1.panics, "the disk panics");
                return Err(io::Error::other("a sync failed"));
            }
        }
        self.0.sync()?;
        yield_now();
        if self.1.beside && self.1.lost.load(Ordering::SeqCst) {
            return Err(io::Error::other("another sync was told"));
        }
        if !self.1.lost.load(Ordering::SeqCst) {
            let mut files = self.1.files.lock();
            let file = &mut files[self.2];
            file.stable = file.stable.max(appended);
            drop(files);
            if self.is_lock() {
                self.1.note_in_lock(InLock::Written, InLock::Stable);
            }
        }
        Ok(())
    }
    fn copies_small_writes(&self) -> bool {
        self.1.copies
    }
    fn expect_syncs_beside(&self) -> bool {
        self.1.beside
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Checkpoints that are behind now and then.
#[derive(Debug)]
struct NowAndThen;

impl Pressure for NowAndThen {
    fn log_grew(&self, _: &LogWriter) {}
    fn is_behind(&self) -> bool {
        thread_rng().gen_bool(0.5)
    }
    fn hold(&self) {
        (0..4).for_each(|_| yield_now());
    }
}

/// Commits over a disk, with the writer lock that gives out LSNs.
struct Subject {
    commits: Commits,
    head: Mutex<Arc<State>>,
    told: Arc<Told>,
    /// The thread that leads what nobody blocks for, once there has to be one.
    leader: Mutex<Option<thread::JoinHandle<()>>>,
    this: Weak<Subject>,
}

impl Subject {
    fn new(fails_in: u64, panics: bool) -> Arc<Subject> {
        let [beside, copies] = [(); 2].map(|()| thread_rng().gen_bool(0.5));
        let told = Arc::new(Told { panics, beside, copies, ..Told::default() });
        // A frame in each segment, or some.
        let segment_bytes = if thread_rng().gen_bool(0.5) { 2 * BLOCK_BYTES } else { 1 << 20 };
        let options = Options::default().segment_bytes(segment_bytes);
        let options = options.storage(Yielding(SimDisk::new(1), Arc::clone(&told)));
        let booted = boot(Path::new("/s"), &options, 1, &Graveyard::none(), Duration::ZERO);
        let booted = booted.expect("a simulated disk does not fail");
        let (log, _) = booted.log.expect("it writes");
        let head = Arc::new(booted.state);
        // What is not synced yet is synced at once.
        let commits =
            Commits::new(log, Arc::clone(&head), Duration::from_nanos(1), Arc::new(NowAndThen));
        if thread_rng().gen_bool(0.5) {
            commits.queue.lock().group_bytes_max = TWO_COMMITS;
        }
        told.fails_in.store(fails_in, Ordering::SeqCst);
        Arc::new_cyclic(|this| Subject {
            commits,
            head: Mutex::new(head),
            told,
            leader: Mutex::new(None),
            this: Weak::clone(this),
        })
    }

    fn enqueue(&self, durability: Durability) -> Result<Lsn> {
        let mut head = self.head.lock();
        let mut state = State::clone(&head);
        state.lsn = state.lsn.next();
        let state = Arc::new(state);
        let staged = Staged::sample(durability, Arc::clone(&state));
        self.commits.enqueue(Staged { operations: &OPERATIONS, ..staged })?;
        *head = state;
        Ok(head.lsn)
    }

    /// What must hold when a commit is acknowledged.
    fn acknowledged(&self, lsn: Lsn, durability: Durability) {
        assert!(self.commits.seen().lsn >= lsn, "{lsn} is acknowledged and not visible");
        let told = match durability {
            Durability::Machine => self.told.stable(),
            Durability::Process => self.told.appended.load(Ordering::SeqCst),
        };
        assert!(told >= lsn.get(), "{lsn} is acknowledged too early");
        let durable = self.commits.durable_lsn().get();
        assert!(self.told.stable() >= durable, "{durable} is not stable");
    }

    /// Commits and waits, `count` times or until something fails.
    fn write(&self, durability: Durability, count: usize) {
        for _ in 0..count {
            let Ok(lsn) = self.enqueue(durability) else { return };
            match self.commits.wait(lsn) {
                Ok(()) => self.acknowledged(lsn, durability),
                Err(_) => return,
            }
        }
    }

    /// The same by polling, as a task does.
    fn submit(&self, durability: Durability) {
        let Ok(lsn) = self.enqueue(durability) else { return };
        if self.commits.lead_in_background() {
            self.have_leader();
        }
        let mut seat = Seat::default();
        let outcome = shuttle::future::block_on(std::future::poll_fn(|context| {
            self.commits.poll(lsn, &mut seat, context)
        }));
        if outcome.is_ok() {
            self.acknowledged(lsn, durability);
        }
    }

    /// As a store does.
    fn have_leader(&self) {
        let mut leader = self.leader.lock();
        if leader.is_none() {
            let this = self.this.upgrade().expect("its threads hold it");
            *leader = Some(thread::spawn(move || this.run_in_background(Commits::run_leader)));
        }
    }

    /// A panic of the disk ends this thread alone.
    fn run_in_background(&self, run: fn(&Commits)) {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&self.commits)));
        assert!(outcome.is_ok() || self.told.panics, "it panicked, and the disk did not");
    }

    /// Waits for the thread that leads, if there is one.
    fn join_leader(&self) {
        let leader = self.leader.lock().take();
        if let Some(leader) = leader {
            leader.join().expect("it ends");
        }
    }
}

fn spawn(subject: &Arc<Subject>, run: fn(&Subject)) -> thread::JoinHandle<()> {
    let subject = Arc::clone(subject);
    thread::spawn(move || run(&subject))
}

/// The thread that a store has for its commits from the beginning.
fn syncer(subject: &Arc<Subject>) -> thread::JoinHandle<()> {
    spawn(subject, |subject| subject.run_in_background(Commits::run_syncer))
}

/// Runs all of these at once, which make so many commits; then the store is closed, and its threads end.
fn beside_a_background(runs: &[fn(&Subject)], commits: u64) {
    let subject = Subject::new(0, false);
    let syncer = syncer(&subject);
    let threads: Vec<_> = runs.iter().map(|run| spawn(&subject, *run)).collect();
    for thread in threads {
        thread.join().expect("it ends");
    }
    assert_eq!(subject.commits.seen().lsn.get(), commits);
    subject.commits.close();
    syncer.join().expect("it ends");
    subject.join_leader();
}

fn schedules() -> usize {
    settings::setting("ROCSTATE_SCHEDULES", 1_500)
}

/// Explores at random, and with few changes of thread at bad moments.
fn explore(run: impl Fn() + Clone + Send + Sync + 'static) {
    shuttle::check_random(run.clone(), schedules());
    shuttle::check_pct(run, schedules(), 3);
}

const BOTH: [Durability; 2] = [Durability::Machine, Durability::Process];

#[test]
fn every_writer_is_woken_and_none_before_its_sync() {
    explore(|| {
        let subject = Subject::new(0, false);
        let threads: Vec<_> = (0..3)
            .map(|at| {
                let subject = Arc::clone(&subject);
                thread::spawn(move || subject.write(BOTH[at % 2], 2))
            })
            .collect();
        for thread in threads {
            thread.join().expect("it ends");
        }
        assert_eq!(subject.commits.seen().lsn.get(), 6);
    });
}

#[test]
fn tasks_and_threads_with_a_background_end_when_the_store_is_closed() {
    explore(|| {
        let task: fn(&Subject) = |subject| subject.submit(Durability::Machine);
        let other: fn(&Subject) = |subject| subject.submit(Durability::Process);
        let writer: fn(&Subject) = |subject| subject.write(Durability::Machine, 1);
        beside_a_background(&[task, other, writer], 3);
    });
}

#[test]
fn tasks_that_ask_for_no_sync_leave_nobody_waiting() {
    explore(|| {
        let submit: fn(&Subject) =
            |subject| (0..2).for_each(|_| subject.submit(Durability::Process));
        let write: fn(&Subject) = |subject| subject.write(Durability::Process, 2);
        beside_a_background(&[submit, submit, write, write], 8);
    });
}

#[test]
fn a_store_that_is_closed_leaves_nobody_waiting() {
    explore(|| {
        let subject = Subject::new(0, false);
        let spawn = |run| spawn(&subject, run);
        let threads = [
            syncer(&subject),
            spawn(|subject| subject.write(Durability::Process, 2)),
            spawn(|subject| subject.submit(Durability::Machine)),
            spawn(|subject| subject.commits.close()),
        ];
        for thread in threads {
            thread.join().expect("it ends");
        }
        subject.join_leader();
    });
}

#[test]
fn a_leader_that_fails_or_panics_leaves_nobody_waiting() {
    for (fails_in, panics) in [(1, false), (2, false), (1, true), (2, true)] {
        explore(move || {
            let subject = Subject::new(fails_in, panics);
            let syncer = syncer(&subject);
            let threads: Vec<_> = (0..3)
                .map(|at| {
                    let subject = Arc::clone(&subject);
                    thread::spawn(move || {
                        // The panic is the disk's, and ends this thread alone.
                        catch_unwind(AssertUnwindSafe(|| match at {
                            0 => subject.submit(Durability::Machine),
                            at => subject.write(BOTH[at % 2], 2),
                        }))
                        .ok();
                    })
                })
                .collect();
            for thread in threads {
                thread.join().expect("it ends");
            }
            subject.commits.close();
            syncer.join().expect("it ends");
            subject.join_leader();
        });
    }
}
