//! Values on their way into a tree and out of it, and what lies in the place of one that does not decode.

use std::ptr::NonNull;

use crate::error::{Error, ErrorKind, Result};

/// A value on its way into a tree. One that does not decode fails for itself, not for its neighbours, and its bytes are
/// kept where they are.
pub(crate) enum Stored<V> {
    Value(V),
    Undecodable(Why),
}

/// Why a value does not decode: what postcard writes for its error, if that is known.
#[derive(Clone, Copy)]
pub(crate) struct Why(u8);

/// Of what is not known postcard reads no error.
const UNKNOWN: Why = Why(u8::MAX);

impl From<postcard::Error> for Why {
    fn from(why: postcard::Error) -> Why {
        // It is one of a few that hold nothing.
        let mut bytes = [UNKNOWN.0];
        postcard::to_slice(&why, &mut bytes).ok();
        let [byte] = bytes;
        Why(byte)
    }
}

impl From<Why> for Error {
    #[cold]
    fn from(Why(why): Why) -> Error {
        let why = postcard::from_bytes::<postcard::Error>(&[why]);
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let what = format!("a value cannot be read by its type{why}; its bytes are kept");
        Error::new(ErrorKind::Damaged, what)
    }
}

/// A value that was replaced or removed.
pub(crate) enum Old<'a, V> {
    /// Nobody else sees it.
    Owned(V),
    /// Older versions do.
    Seen(&'a V),
    /// It is none.
    Undecodable(Why),
}

impl<V> Old<'_, V> {
    /// Takes what lies in the place of a value.
    ///
    /// # Safety
    /// One lies there, or [why there is none](Why::put), as `is_value` says; nobody uses it from now on.
    #[inline]
    pub(super) unsafe fn read(at: NonNull<V>, is_value: bool) -> Self {
        // SAFETY: the caller's promise.
        match unsafe { value_at(at, is_value) } {
            // SAFETY: as above.
            Ok(value) => Old::Owned(unsafe { value.read() }),
            Err(why) => Old::Undecodable(why),
        }
    }

    /// The value itself, unless others still see it.
    pub(crate) fn into_owned(self) -> Option<V> {
        match self {
            Old::Owned(value) => Some(value),
            Old::Seen(_) | Old::Undecodable(_) => None,
        }
    }
}

impl<V: Clone> Old<'_, V> {
    /// The value itself, or a clone of what others still see.
    pub(crate) fn into_value(self) -> Result<V> {
        match self {
            Old::Owned(value) => Ok(value),
            Old::Seen(value) => Ok(value.clone()),
            Old::Undecodable(why) => Err(why.into()),
        }
    }
}

impl Why {
    /// Puts it in the place of a value; where that takes no room, it is not known any more.
    ///
    /// # Safety
    /// There is room for a value.
    pub(super) unsafe fn put<V>(self, place: NonNull<V>) {
        if size_of::<V>() > 0 {
            // SAFETY: the caller's promise.
            unsafe { place.cast().write(self) };
        }
    }
}

/// The value in its place, or why there is none.
///
/// # Safety
/// One lies there, or [why there is none](Why::put), as `is_value` says.
#[inline]
pub(super) unsafe fn value_at<V>(place: NonNull<V>, is_value: bool) -> Result<NonNull<V>, Why> {
    if is_value {
        return Ok(place);
    }
    // SAFETY: the caller's promise.
    Err(if size_of::<V>() > 0 { unsafe { place.cast().read() } } else { UNKNOWN })
}
