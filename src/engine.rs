//! What a store's handles share: the writer lock, the commits, the registry of regions, the
//! checkpoints. Handles keep it alive; only [`Open`] keeps the store open.

mod budget;
mod checkpointing;
mod following;
mod helpers;
mod keeper;
mod registry;
mod warming;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{ArcMutexGuard, Mutex, RawMutex};

use crate::boot::{Booted, Checkpoints, boot};
use crate::checkpoint::heal::Healed;
use crate::checkpoint::layers::Files;
use crate::commit::{Commits, Seat, Staged};
use crate::contain::contain;
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Lineage, Lsn, Place};
use crate::options::{Backpressure, Options};
use crate::region::Births;
use crate::report::{BootReport, Phase, Stats};
use crate::state::{RegionRoot, State};
use crate::storage::LockGuard;
use crate::storage::directory::Directory;
use crate::sync::{Holder, keep_looking};
use crate::transaction::Work;
use crate::tree::Graveyard;
use crate::visible::{Seen, Visible};
use budget::BootBudget;
use following::{Basis, Follower, boot_read_only};
use helpers::{Helper, Helpers};
use keeper::{Chore, Keeper};
pub(crate) use registry::AnyVolatile;
use registry::{Numbers, Registry};
use warming::WarmQueue;

/// How often whoever wants the writer lock looks before it sleeps: for about as long as a small transaction
/// takes, which is less than to sleep and be woken.
const SPINS: u32 = 100;

/// How often it then lets others run, and looks again. Once somebody sleeps, each release has to wake one of them, and
/// whoever comes meanwhile would sleep at once: many writers would go on to do so until none of them comes.
const YIELDS: u32 = 10;

pub(crate) struct Engine {
    /// Unique in the process: tells handles of different opens apart.
    pub(crate) instance: u64,
    pub(crate) options: Options,
    pub(crate) births: Arc<Births>,
    pub(crate) graveyard: Graveyard,
    report: OnceLock<BootReport>,
    dir: Directory,
    files: Arc<Files>,
    lineage: Lineage,
    /// Whoever holds the writer lock.
    writer: Holder,
    access: Access,
    registry: Mutex<Registry>,
    checkpoints: Mutex<Checkpoints>,
    healed: Arc<Healed>,
    keeper: Arc<Keeper>,
    helpers: Arc<Helpers>,
    warming: WarmQueue,
    /// The store's lock, until it is closed.
    lock: Mutex<Option<LockGuard>>,
}

/// How this open may touch the store.
enum Access {
    Writes(Box<Commits>),
    Reads(Visible, Box<Follower>),
}

impl Access {
    fn reads(state: Arc<State>, at: Place, basis: Basis) -> Access {
        let (visible, publisher) = Visible::new(state);
        Access::Reads(visible, Box::new(Follower::new(publisher, at, basis)))
    }
}

/// What keeps a store open and locked: clones of `Store` and open transactions. Its lock is the writer lock,
/// so that a transaction counts once for both. Dropping the last one closes the store; nothing is flushed,
/// as in a crash.
pub(crate) type Open = Arc<Mutex<Head>>;

/// Where the next commit begins.
pub(crate) struct Head {
    /// First, so that the store is closed before the rest goes.
    owner: Owner,
    /// The state after the last commit that has an LSN, which may not be durable yet.
    pub(crate) state: Arc<State>,
    /// Room that the last transaction had.
    pub(crate) spare: Option<Box<Work>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("dir", &self.dir.path())
            .field("generation", &self.births.boot())
            .finish_non_exhaustive()
    }
}

/// Closes the store when it goes.
struct Owner {
    engine: Arc<Engine>,
    syncer: Option<JoinHandle<()>>,
    of_process: u32,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A process that was forked has none of the threads, and locks may be held by those for ever.
        if self.of_process != std::process::id() {
            return;
        }
        self.engine.keeper.close();
        if let Access::Writes(commits) = &self.engine.access {
            commits.close();
        }
        // All are told before one is waited for.
        let (warmers, helpers) = (self.engine.warming.end(), self.engine.helpers.end());
        for thread in self.syncer.take().into_iter().chain(warmers).chain(helpers) {
            // A thread that panicked has poisoned what it held; a thread never joins itself: it may hold what keeps
            // the store open for a moment.
            if thread.thread().id() != std::thread::current().id() {
                thread.join().ok();
            }
        }
        self.engine.lock.lock().take();
    }
}

const WAITS_FOR_ITSELF: &str =
    "this thread already has a transaction open on this store; commit or drop it first";

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|cause| {
        Error::new(ErrorKind::Io, "could not start a thread").caused_by(Arc::new(cause))
    })
}

/// Starts the thread that frees large trees; it ends when the last tree is gone, which may be long
/// after the store is closed.
fn start_reaper() -> Result<Graveyard> {
    let (graveyard, buried) = Graveyard::new();
    spawn("rocstate-reaper", move || buried.run(&mut std::thread::yield_now))?;
    Ok(graveyard)
}

impl Engine {
    /// Boots a store and starts its threads.
    pub(crate) fn open(path: &std::path::Path, options: &Options) -> Result<(Open, Arc<Engine>)> {
        static LAST_INSTANCE: AtomicU64 = AtomicU64::new(0);
        let instance = LAST_INSTANCE.fetch_add(1, Ordering::Relaxed) + 1;
        let began = options.storage.ticks();
        let graveyard = if options.threads { start_reaper()? } else { Graveyard::none() };
        let booted = if options.read_only {
            boot_read_only(path, options, instance, &graveyard, began)?
        } else {
            boot(path, options, instance, &graveyard, began)?
        };
        let replaying = booted.replay_times.0 + booted.replay_times.1;
        let (engine, state, mut report) = Engine::assemble(booted, options, instance, graveyard);
        let engine = Arc::new(engine);
        let mut owner =
            Owner { engine: Arc::clone(&engine), syncer: None, of_process: std::process::id() };
        if options.threads && !options.read_only {
            // From here on dropping the owner ends what was started.
            let syncing = Arc::clone(&engine);
            let syncer = move || syncing.run_beside_commits(Commits::run_syncer);
            owner.syncer = Some(spawn("rocstate-sync", syncer)?);
            engine.allow_helpers();
        }
        report.end_with("start", options.storage.ticks().saturating_sub(began));
        let budget = &engine.keeper.budget;
        budget.learn_fixed(report.duration.saturating_sub(replaying));
        report.next_boot_estimate = budget.estimate();
        // It is set here and nowhere else.
        engine.report.set(report).ok();
        Ok((Arc::new(Mutex::new(Head { owner, state, spare: None })), engine))
    }

    /// Has threads help from here on, each once there is something to do.
    fn allow_helpers(self: &Arc<Engine>) {
        let engine = Arc::downgrade(self);
        self.helpers.allow(Box::new(move |helper| {
            let engine = engine.upgrade().ok_or_else(Error::closed)?;
            spawn(helper.thread_name(), move || match helper {
                Helper::Leader => engine.run_beside_commits(Commits::run_leader),
                Helper::Ahead => engine.run_keeper(Chore::Spare),
                Helper::Keeper => engine.run_keeper(Chore::Checkpoint),
            })
        }));
        self.keeper.call_helpers();
    }

    fn assemble(
        booted: Booted,
        options: &Options,
        instance: u64,
        graveyard: Graveyard,
    ) -> (Engine, Arc<State>, BootReport) {
        let basis = Basis::of(&booted);
        let Booted { log, state, report, .. } = booted;
        let state = Arc::new(state);
        let slow_writers = options.backpressure == Backpressure::SlowWriters;
        let budget =
            BootBudget::new(options.boot_budget, slow_writers, booted.rate, booted.replayed);
        let (reading, sorting) = booted.replay_times;
        budget.learn(booted.replayed, reading + sorting);
        let helpers = Arc::new(Helpers::default());
        let keeper = Arc::new(Keeper::new(budget, &booted.checkpoints.kept, Arc::clone(&helpers)));
        if booted.checkpoints.renew {
            keeper.want(Chore::Checkpoint);
        }
        let asked = Arc::downgrade(&keeper);
        booted.healed.ask_for_checkpoints(move || {
            asked.upgrade().inspect(|keeper| keeper.want(Chore::Checkpoint));
        });
        let (access, lock) = match log {
            Some((log, guard)) => {
                // Before anybody writes: the log could fill the disk first.
                keeper.reserve(&booted.dir);
                keeper.look_at(&log);
                let pressure = Arc::clone(&keeper);
                let head = Arc::clone(&state);
                let commits = Commits::new(log, head, options.sync_interval, pressure);
                (Access::Writes(Box::new(commits)), Some(guard))
            }
            None => (Access::reads(Arc::clone(&state), booted.claimed, basis), None),
        };
        let numbers = match access {
            Access::Writes(_) => Numbers::From(booted.next_region),
            Access::Reads(..) => Numbers::DownFrom(u64::MAX),
        };
        let engine = Engine {
            instance,
            // What reads the directory anew finds the same one.
            options: Options { storage: booted.dir.storage(), ..options.clone() },
            births: Arc::new(Births::new(booted.generation)),
            graveyard,
            report: OnceLock::new(),
            dir: booted.dir,
            files: booted.files,
            lineage: booted.lineage,
            writer: Holder::default(),
            access,
            registry: Mutex::new(Registry::new(numbers)),
            checkpoints: Mutex::new(booted.checkpoints),
            healed: booted.healed,
            keeper,
            helpers,
            warming: WarmQueue::default(),
            lock: Mutex::new(lock),
        };
        (engine, state, report)
    }

    /// What this boot did.
    pub(crate) fn report(&self) -> &BootReport {
        self.report.get().expect("a store is handed out after its report is made")
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.access, Access::Reads(..))
    }

    pub(crate) fn commits(&self) -> Result<&Commits> {
        match &self.access {
            Access::Writes(commits) => Ok(commits),
            Access::Reads(..) => Err(Error::read_only()),
        }
    }

    /// Takes the writer lock.
    pub(crate) fn lock(&self, open: &Open) -> ArcMutexGuard<RawMutex, Head> {
        assert!(!self.writer.is_this_thread(), "{WAITS_FOR_ITSELF}");
        let look = || open.try_lock_arc();
        let head = keep_looking(SPINS, std::hint::spin_loop, look)
            .or_else(|| keep_looking(YIELDS, std::thread::yield_now, look))
            .unwrap_or_else(|| open.lock_arc());
        self.writer.set();
        if let Access::Writes(commits) = &self.access {
            commits.await_room();
        }
        head
    }

    /// The holder of the writer lock is about to release it.
    pub(crate) fn writer_ended(&self) {
        self.writer.clear();
    }

    pub(crate) fn enqueue(&self, staged: Staged<'_>) -> Result<()> {
        self.commits()?.enqueue(staged)
    }

    /// Waits until a commit is acknowledged.
    pub(crate) fn wait(&self, lsn: Lsn) -> Result<()> {
        let Access::Writes(commits) = &self.access else { return Ok(()) };
        let outcome = commits.wait(lsn);
        if !self.options.threads {
            self.keep_up();
        }
        outcome
    }

    pub(crate) fn poll(
        &self,
        lsn: Lsn,
        seat: &mut Seat,
        context: &Context<'_>,
    ) -> Poll<Result<()>> {
        match &self.access {
            Access::Writes(commits) => commits.poll(lsn, seat, context),
            Access::Reads(..) => Poll::Ready(Ok(())),
        }
    }

    /// Has a commit written that nobody may come to wait for.
    pub(crate) fn lead_in_background(&self, lsn: Lsn) {
        let Access::Writes(commits) = &self.access else { return };
        let is_led = self.options.threads
            && (!commits.lead_in_background() || self.helpers.have(Helper::Leader).is_ok());
        if !is_led {
            // Whoever waits for it learns how it ended.
            self.wait(lsn).ok();
        }
    }

    /// Does what the threads of an idle store do.
    pub(crate) fn tend(&self) -> Result<()> {
        self.commits()?.tend()?;
        self.keep_up();
        self.commits()?.check()
    }

    fn run_beside_commits(&self, run: fn(&Commits)) {
        if let Access::Writes(commits) = &self.access {
            // What was under way has ended, or has poisoned the store.
            while contain(|| run(commits)).is_none() {}
        }
    }

    /// What readers see, for as long as it takes.
    pub(crate) fn visible(&self) -> Arc<State> {
        self.seen().to_arc()
    }

    /// The same for a while: nothing is counted before it is replaced.
    pub(crate) fn seen(&self) -> Seen {
        match &self.access {
            Access::Writes(commits) => commits.seen(),
            Access::Reads(visible, _) => visible.see(),
        }
    }

    pub(crate) fn durable_lsn(&self) -> Lsn {
        match &self.access {
            Access::Writes(commits) => commits.durable_lsn(),
            Access::Reads(..) => self.seen().lsn,
        }
    }

    pub(crate) fn sync(&self) -> Result<Lsn> {
        self.commits()?.sync()
    }

    pub(crate) fn stats(&self) -> Stats {
        let poisoned = match &self.access {
            Access::Writes(commits) => commits.check().err(),
            Access::Reads(..) => None,
        };
        let budget = &self.keeper.budget;
        let (work, (boot_budget_slips, writers_held)) = (budget.tail(), budget.slips());
        let (newest, checkpoints_taken) = self.keeper.checkpoints();
        let visible = self.visible();
        let cold_entries = visible.regions.iter().map(RegionRoot::coldness).sum();
        let unreadable =
            self.registry.lock().declared().flat_map(|core| core.warmer.failures()).collect();
        let (checkpoint_lsn, healed, pinned_bytes) = match &self.access {
            Access::Writes(_) => {
                let pinned = self.files.bytes_beside(|number| self.keeper.needs(number));
                (newest, self.healed.notes(), pinned)
            }
            Access::Reads(_, follower) => {
                let basis = follower.basis();
                (basis.checkpoint_lsn(), basis.healed(), basis.pinned_bytes())
            }
        };
        Stats {
            visible_lsn: visible.lsn,
            durable_lsn: self.durable_lsn(),
            checkpoint_lsn,
            tail_bytes: work.bytes,
            tail_operations: work.operations,
            next_boot_estimate: budget.estimate(),
            boot_budget_slips,
            writers_held,
            checkpoints_taken,
            checkpoint_error: self.keeper.last_error(),
            healed,
            cold_entries,
            unreadable,
            pinned_bytes,
            poisoned,
        }
    }
}

impl BootReport {
    /// Adds the last phase: whatever the whole took beyond the phases so far.
    fn end_with(&mut self, name: &'static str, whole: Duration) {
        let before: Duration = self.phases.iter().map(|phase| phase.duration).sum();
        let duration = whole.saturating_sub(before);
        self.phases.push(Phase { name, duration, bytes: 0, commits: 0 });
        self.duration = whole;
    }
}

impl Head {
    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.owner.engine
    }
}
