//! What goes wrong with a call.

use std::io;

/// What a call does instead of its work; see [`SimDisk::inject`](crate::sim::SimDisk::inject).
///
/// ```
/// use rocstate::sim::{Fault, SimDisk};
/// use rocstate::{ErrorKind, Store};
/// let disk = SimDisk::new(1);
/// disk.inject(1, Fault::Error);
/// let refused = Store::options().storage(disk).threads(false).open("/store").unwrap_err();
/// assert_eq!(refused.kind(), ErrorKind::Io);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It fails with `EIO` and does nothing. After a failed sync, what it was for counts as clean: the
    /// cache shows it, and no later sync writes it.
    Error,
    /// It fails with `ENOSPC`.
    NoSpace,
    /// A write puts down a part of its bytes and fails with `EIO`; anything else just fails.
    ShortWrite,
    /// A write goes so many bytes from where it should, and says that all is well; anything else works.
    Misdirected(isize),
    /// A sync does nothing and says that it did; anything else works.
    LyingSync,
    /// The power goes during this call: a write may have begun, and all later calls fail.
    PowerLoss,
}

/// What a call returns that has nothing to do by halves.
pub(super) fn outcome(fault: Option<Fault>) -> io::Result<()> {
    match fault {
        None | Some(Fault::Misdirected(_) | Fault::LyingSync) => Ok(()),
        Some(Fault::NoSpace) => Err(no_space()),
        Some(Fault::Error | Fault::ShortWrite) => Err(failed()),
        Some(Fault::PowerLoss) => Err(power_is_gone()),
    }
}

/// EIO has no kind of its own in the standard library.
fn failed() -> io::Error {
    io::Error::other("simulated EIO")
}

pub(super) fn no_space() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

pub(super) fn power_is_gone() -> io::Error {
    io::Error::other("the power is gone")
}
