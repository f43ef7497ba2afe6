//! What the process returns, and what makes it return early.

use rocstate::{Error, ErrorKind};

/// What the process returns. These numbers do not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum Exit {
    /// All is well.
    Fine = 0,
    /// No: it is not there, or the two differ.
    No = 1,
    /// The command line makes no sense.
    Usage = 2,
    /// There is damage that the next boot repairs, and nothing that was acknowledged is lost.
    Repairable = 3,
    /// Something that was acknowledged is lost, or cannot be decoded.
    Lost = 4,
    /// Another process holds what would have to be locked.
    Locked = 5,
    /// A newer version wrote it.
    Newer = 6,
    /// The operating system refused.
    Io = 7,
}

/// Why a verb ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read the output is gone.
    BrokenPipe,
    Said {
        exit: Exit,
        what: String,
    },
}

impl Failure {
    pub(crate) fn no(what: impl Into<String>) -> Failure {
        Failure::Said { exit: Exit::No, what: what.into() }
    }

    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure::Said { exit: Exit::Usage, what: what.into() }
    }
}

/// The exit that an error comes to.
pub(crate) fn of_error(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::Locked => Exit::Locked,
        ErrorKind::NotFound | ErrorKind::NotAStore => Exit::No,
        ErrorKind::NewerFormat => Exit::Newer,
        ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::TooLarge => Exit::Usage,
        ErrorKind::Io => Exit::Io,
        _ => Exit::Lost,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Said { exit: of_error(&error), what: error.to_string() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Failure::BrokenPipe
        } else {
            Failure::Said { exit: Exit::Io, what: error.to_string() }
        }
    }
}

pub(crate) type Done<T = Exit> = Result<T, Failure>;
