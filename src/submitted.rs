//! Commits that are on their way: to be awaited, or waited for.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;

use crate::commit::Seat;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::Lsn;

/// A commit that has its place in the order and is not acknowledged yet.
///
/// A future for any executor: it resolves when the commit is as durable as was asked for. Dropping
/// it detaches the commit, and cancels nothing. Polling does no I/O. It does not keep the store
/// open: once the store is dropped, it resolves with what became of the commit, or `Closed`.
///
/// ```
/// use rocstate::{DurableMap, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let stock: DurableMap<String, u32> = store.durable_map("stock")?;
/// let apples = store.submit(|tx| stock.insert(tx, "apples".into(), 3));
/// let pears = store.submit(|tx| stock.insert(tx, "pears".into(), 5));
/// assert!(apples.lsn() < pears.lsn());
/// pears.wait()?;                        // in async code: pears.await?
/// # Ok::<(), rocstate::Error>(())
/// ```
#[must_use = "what was submitted counts only when this has resolved"]
pub struct Submitted<T = Lsn, E = Error> {
    commit: Option<Pending>,
    /// What to hand out when the commit is acknowledged; under a lock only to be `Sync`.
    outcome: Mutex<Option<Result<T, E>>>,
    _error: PhantomData<fn() -> E>,
}

struct Pending {
    engine: Arc<Engine>,
    /// What must be visible before the outcome counts.
    lsn: Lsn,
    /// Whether that is the LSN of a commit of its own.
    own: bool,
    seat: Seat,
}

impl<T, E: From<Error>> Submitted<T, E> {
    pub(crate) fn pending(engine: Arc<Engine>, lsn: Lsn, outcome: Result<T, E>) -> Self {
        let own = outcome.is_ok();
        let commit = Some(Pending { engine, lsn, own, seat: Seat::default() });
        if let Some(commit) = &commit {
            commit.engine.lead_in_background(lsn);
        }
        Submitted { commit, outcome: Mutex::new(Some(outcome)), _error: PhantomData }
    }

    pub(crate) fn refused(error: Error) -> Self {
        let outcome = Mutex::new(Some(Err(E::from(error))));
        Submitted { commit: None, outcome, _error: PhantomData }
    }

    /// Its place in the order of commits; `None` if it was refused before it had one, and
    /// [`wait`](Self::wait) says why.
    pub fn lsn(&self) -> Option<Lsn> {
        self.commit.as_ref().filter(|commit| commit.own).map(|commit| commit.lsn)
    }

    /// Blocks until it is acknowledged; leads the group if nobody does.
    ///
    /// # Errors
    /// As [`Transaction::commit`](crate::Transaction::commit), or what the closure returned.
    pub fn wait(self) -> Result<T, E> {
        if let Some(commit) = &self.commit {
            commit.engine.wait(commit.lsn)?;
        }
        self.outcome.into_inner().unwrap_or_else(|| Err(E::from(Error::closed())))
    }
}

impl<T, E: From<Error>> Future for Submitted<T, E> {
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, E>> {
        let this = self.get_mut();
        if let Some(commit) = &mut this.commit {
            match commit.engine.poll(commit.lsn, &mut commit.seat, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(E::from(error))),
                Poll::Ready(Ok(())) => {}
            }
        }
        let outcome = this.outcome.get_mut().take();
        Poll::Ready(outcome.unwrap_or_else(|| Err(E::from(Error::closed()))))
    }
}

impl<T, E> fmt::Debug for Submitted<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lsn = self.commit.as_ref().map(|commit| commit.lsn);
        f.debug_struct("Submitted").field("lsn", &lsn).finish_non_exhaustive()
    }
}

impl<T, E> Unpin for Submitted<T, E> {}
impl<T, E> UnwindSafe for Submitted<T, E> {}
impl<T, E> RefUnwindSafe for Submitted<T, E> {}
