//! The one error type, and a kind for each *reaction* that a caller may have.
//!
//! # Invariants
//! - An error is one pointer wide and cheap to clone, so that a poisoned store can hand its first
//!   cause to everyone who asks.
//! - Facts are numbers and paths, never parsed out of text; the text says what to do.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::format::Lsn;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an [`Error`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let again = rocstate::Store::open(dir.path()).unwrap_err();
/// assert_eq!(again.kind(), rocstate::ErrorKind::Locked);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Another process, or another handle of this one, owns the store: wait, or open `read_only`.
    Locked,
    /// There is no store at this path, and the options do not allow to create one.
    NotFound,
    /// The path holds something else; nothing was touched.
    NotAStore,
    /// A newer version of this crate wrote the store: upgrade.
    NewerFormat,
    /// Bytes that must be there are wrong or gone, and no redundancy could heal them.
    Damaged,
    /// The operating system refused a read or a preparation; nothing was changed.
    Io,
    /// A write or sync failed earlier; the store acknowledges nothing more. Open it again.
    Poisoned,
    /// The store was dropped before this could be done.
    Closed,
    /// The store was opened with `read_only`.
    ReadOnly,
    /// The generation or region that the caller holds is gone; get a new one.
    Stale,
    /// The region holds another type than the one it was asked for.
    SchemaMismatch,
    /// The type cannot be kept: what was written could not be read back.
    Unsupported,
    /// A key, value or transaction is over its limit; the transaction is unchanged.
    TooLarge,
    /// An argument is out of its range.
    Invalid,
    /// The transaction was rolled back on purpose, by [`Error::abort`].
    Aborted,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "locked",
            Self::NotFound => "not found",
            Self::NotAStore => "not a store",
            Self::NewerFormat => "newer format",
            Self::Damaged => "damaged",
            Self::Io => "input/output error",
            Self::Poisoned => "poisoned",
            Self::Closed => "closed",
            Self::ReadOnly => "read-only",
            Self::Stale => "stale",
            Self::SchemaMismatch => "schema mismatch",
            Self::Unsupported => "unsupported",
            Self::TooLarge => "too large",
            Self::Invalid => "invalid",
            Self::Aborted => "aborted",
        })
    }
}

/// What went wrong, where, and what to do about it.
///
/// ```
/// use rocstate::{ErrorKind, Store};
///
/// let missing = Store::options().create(false).open("no/such/store").unwrap_err();
/// assert_eq!(missing.kind(), ErrorKind::NotFound);
/// assert!(missing.path().is_some());
/// ```
#[derive(Clone)]
pub struct Error(Arc<Facts>);

#[derive(Clone)]
struct Facts {
    kind: ErrorKind,
    message: String,
    path: Option<PathBuf>,
    offset: Option<u64>,
    lsn: Option<Lsn>,
    at_stake: Option<u64>,
    region: Option<String>,
    keys: Option<Keys>,
    source: Option<Source>,
}

/// The encoded keys from one up to, not including, another.
type Keys = (Box<[u8]>, Option<Box<[u8]>>);

#[derive(Clone)]
enum Source {
    Foreign(Arc<dyn StdError + Send + Sync>),
    Own(Error),
}

impl Error {
    /// The kind: match on this.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Rolls a [`transact`](crate::Store::transact) back on purpose; `cause` comes back as the source.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use rocstate::{Error, ErrorKind, Store};
    /// let store = Store::open(dir.path())?;
    /// let refused = store.transact(|_tx| -> rocstate::Result<()> { Err(Error::abort("out of stock")) });
    /// assert_eq!(refused.unwrap_err().kind(), ErrorKind::Aborted);
    /// # Ok::<(), rocstate::Error>(())
    /// ```
    pub fn abort(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Error {
        let cause: Arc<dyn StdError + Send + Sync> = Arc::from(cause.into());
        Error::new(ErrorKind::Aborted, "the transaction was rolled back").caused_by(cause)
    }

    /// The file or directory concerned.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The byte in [`path`](Self::path) at which it went wrong.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// The first commit concerned.
    pub fn lsn(&self) -> Option<Lsn> {
        self.0.lsn
    }

    /// How many commits are known to be at stake, from [`lsn`](Self::lsn) on: at least this many, and 0
    /// where what is left does not tell. Damage to a region's entries has [`keys`](Self::keys) instead.
    pub fn commits_at_stake(&self) -> Option<u64> {
        self.0.at_stake
    }

    /// The region concerned.
    pub fn region(&self) -> Option<&str> {
        self.0.region.as_deref()
    }

    /// The keys of [`region`](Self::region) whose entries are concerned, in their encoded form: the
    /// first one, and the first one beyond, if there is an end. An empty first key is before every
    /// other.
    pub fn keys(&self) -> Option<(&[u8], Option<&[u8]>)> {
        self.0.keys.as_ref().map(|(from, to)| (&**from, to.as_deref()))
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Arc::new(Facts {
            kind,
            message: message.into(),
            path: None,
            offset: None,
            lsn: None,
            at_stake: None,
            region: None,
            keys: None,
            source: None,
        }))
    }

    pub(crate) fn io(doing: &str, path: &Path, cause: io::Error) -> Error {
        let message = match remedy(&cause) {
            Some(remedy) => format!("could not {doing}; {remedy}"),
            None => format!("could not {doing}"),
        };
        Error::new(ErrorKind::Io, message).at_path(path).caused_by(Arc::new(cause))
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl fmt::Display) -> Error {
        Error::new(
            ErrorKind::Damaged,
            format!("{what}; restore the file from a copy, or salvage what is readable"),
        )
        .at_path(path)
        .at_offset(offset)
    }

    pub(crate) fn poisoned(first: &Error) -> Error {
        if first.kind() == ErrorKind::Poisoned {
            return first.clone();
        }
        Error::new(
            ErrorKind::Poisoned,
            "a write or sync failed, so nothing more is acknowledged; open the store again",
        )
        .caused_by_own(first.clone())
    }

    pub(crate) fn closed() -> Error {
        Error::new(ErrorKind::Closed, "the store was dropped before this commit was written")
    }

    pub(crate) fn read_only() -> Error {
        Error::new(ErrorKind::ReadOnly, "the store was opened read-only; open it for writing")
    }

    /// Whether this is the system's word that a file does not exist.
    pub(crate) fn is_absent(&self) -> bool {
        self.io_cause().is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound)
    }

    /// Whether this is the system's word that the process, or the machine, has too many files open.
    pub(crate) fn is_out_of_files(&self) -> bool {
        self.io_cause().is_some_and(is_out_of_files)
    }

    fn io_cause(&self) -> Option<&io::Error> {
        self.source().and_then(|cause| cause.downcast_ref::<io::Error>())
    }

    fn with(mut self, change: impl FnOnce(&mut Facts)) -> Error {
        change(Arc::make_mut(&mut self.0));
        self
    }

    pub(crate) fn at_path(self, path: &Path) -> Error {
        self.with(|facts| facts.path = Some(path.to_owned()))
    }

    pub(crate) fn at_offset(self, offset: u64) -> Error {
        self.with(|facts| facts.offset = Some(offset))
    }

    pub(crate) fn at_lsn(self, lsn: Lsn) -> Error {
        self.with(|facts| facts.lsn = Some(lsn))
    }

    pub(crate) fn with_commits_at_stake(self, commits: u64) -> Error {
        self.with(|facts| facts.at_stake = Some(commits))
    }

    /// Damage that stops a boot and does not say what is at stake: that cannot be told.
    pub(crate) fn stopping_boot(self) -> Error {
        match (self.0.kind, self.0.at_stake) {
            (ErrorKind::Damaged, None) => self.with_commits_at_stake(0),
            _ => self,
        }
    }

    pub(crate) fn in_region(self, region: &str) -> Error {
        self.with(|facts| facts.region = Some(region.to_owned()))
    }

    pub(crate) fn with_keys(self, from: &[u8], to: Option<&[u8]>) -> Error {
        self.with(|facts| facts.keys = Some((from.into(), to.map(Into::into))))
    }

    pub(crate) fn caused_by(self, cause: Arc<dyn StdError + Send + Sync>) -> Error {
        self.with(|facts| facts.source = Some(Source::Foreign(cause)))
    }

    pub(crate) fn caused_by_own(self, cause: Error) -> Error {
        self.with(|facts| facts.source = Some(Source::Own(cause)))
    }
}

fn is_out_of_files(cause: &io::Error) -> bool {
    let too_many = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    too_many.contains(&cause.raw_os_error())
}

/// What somebody can do about the system's refusal, of those that are not the disk's.
fn remedy(cause: &io::Error) -> Option<&'static str> {
    match cause.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("mount its file system for writing, or open the store with `Options::read_only`")
        }
        io::ErrorKind::PermissionDenied => Some("give the program's user the right to do so"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room for it"),
        _ if is_out_of_files(cause) => Some("let the process open more files (`ulimit -n`)"),
        _ => None,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &*self.0;
        write!(f, "{}: {}", facts.kind, facts.message)?;
        if let Some(path) = &facts.path {
            write!(f, " [{}", path.display())?;
            if let Some(offset) = facts.offset {
                write!(f, " at byte {offset}")?;
            }
            f.write_str("]")?;
        }
        if let Some(region) = &facts.region {
            write!(f, " [region {region:?}]")?;
        }
        if let Some((from, to)) = &facts.keys {
            write!(f, " [encoded keys from {}", ShortKey(from))?;
            if let Some(to) = to {
                write!(f, " to before {}", ShortKey(to))?;
            }
            f.write_str("]")?;
        }
        if let Some(lsn) = facts.lsn {
            match facts.at_stake {
                Some(0) => write!(f, " [commits from {lsn} on may be at stake]"),
                Some(1) => write!(f, " [commit {lsn} is at stake]"),
                Some(n) => write!(f, " [at least {n} commits from {lsn} on are at stake]"),
                None => write!(f, " [commit {lsn}]"),
            }?;
        } else if facts.at_stake.is_some() {
            f.write_str(" [how many commits are at stake cannot be told]")?;
        }
        match &facts.source {
            Some(Source::Own(cause)) => write!(f, ": {cause}"),
            Some(Source::Foreign(cause)) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// As much of an encoded key as a sentence holds.
struct ShortKey<'a>(&'a [u8]);

impl fmt::Display for ShortKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..32).unwrap_or(self.0);
        let more = if shown.len() < self.0.len() { "..." } else { "" };
        write!(f, "\"{}{more}\"", shown.escape_ascii())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({self})")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.source {
            Some(Source::Own(cause)) => Some(cause),
            Some(Source::Foreign(cause)) => Some(&**cause),
            None => None,
        }
    }
}

impl std::panic::UnwindSafe for Error {}
impl std::panic::RefUnwindSafe for Error {}
