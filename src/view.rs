//! Views: what a reader holds while it reads.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::format::Lsn;
use crate::visible::Seen;

/// A consistent snapshot of all durable regions, in memory.
///
/// Taking one never waits, holding one blocks nobody, and it never changes. What it alone still
/// sees stays in memory, and on disk, until it is dropped.
///
/// ```
/// use rocstate::{DurableMap, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let stock: DurableMap<String, u32> = store.durable_map("stock")?;
/// store.transact(|tx| stock.insert(tx, "apples".into(), 3))?;
/// let view = store.view();
/// store.transact(|tx| stock.clear(tx))?;
/// assert_eq!(stock.get(&view, "apples")?, Some(&3));
/// assert_eq!(stock.get(&store.view(), "apples")?, None);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone)]
pub struct View {
    /// Counts nothing as long as no newer state is published: a counter would go back and forth
    /// between the processors of all readers.
    state: Seen,
}

impl View {
    pub(crate) fn new(state: Seen) -> View {
        View { state }
    }

    /// The last commit that this view shows.
    pub fn lsn(&self) -> Lsn {
        self.state.lsn
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("lsn", &self.state.lsn).finish_non_exhaustive()
    }
}

impl UnwindSafe for View {}
impl RefUnwindSafe for View {}

/// What durable regions can be read at: a [`View`], a [`Transaction`](crate::Transaction), and
/// references to them.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let map: rocstate::DurableMap<u8, u8> = store.durable_map("map")?;
/// fn size(map: &rocstate::DurableMap<u8, u8>, at: &dyn rocstate::Readable) -> usize {
///     map.len(at)
/// }
/// assert_eq!(size(&map, &store.view()), size(&map, &store.begin()));
/// # Ok::<(), rocstate::Error>(())
/// ```
pub trait Readable: sealed::Readable {
    /// The last commit that is seen there; in a transaction, the last one before it.
    fn lsn(&self) -> Lsn;
}

impl Readable for View {
    fn lsn(&self) -> Lsn {
        self.state.lsn
    }
}

impl sealed::Readable for View {
    fn snapshot(&self) -> sealed::Snapshot<'_> {
        sealed::Snapshot::State(&self.state)
    }
}

impl<R: Readable + ?Sized> Readable for &R {
    fn lsn(&self) -> Lsn {
        (**self).lsn()
    }
}

impl<R: Readable + ?Sized> Readable for &mut R {
    fn lsn(&self) -> Lsn {
        (**self).lsn()
    }
}

impl<R: Readable + ?Sized> sealed::Readable for &R {
    fn snapshot(&self) -> sealed::Snapshot<'_> {
        (**self).snapshot()
    }
}

impl<R: Readable + ?Sized> sealed::Readable for &mut R {
    fn snapshot(&self) -> sealed::Snapshot<'_> {
        (**self).snapshot()
    }
}

pub(crate) mod sealed {
    use crate::state::State;
    use crate::transaction::Transaction;

    pub trait Readable {
        #[doc(hidden)]
        fn snapshot(&self) -> Snapshot<'_>;
    }

    #[expect(missing_debug_implementations, reason = "not reachable from outside")]
    #[derive(Clone, Copy)]
    pub enum Snapshot<'a> {
        #[expect(private_interfaces, reason = "not reachable from outside")]
        State(&'a State),
        Transaction(&'a Transaction),
    }
}
