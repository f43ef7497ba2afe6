//! Proof that the bits of a key may be copied as long as one of the copies is the owner.

use std::any::TypeId;
use std::cmp::Reverse;
use std::fmt;
use std::marker::PhantomData;

/// Proof that nothing of a `K` changes behind a shared reference: there is no interior mutability in it, nor in
/// what it owns; and nothing of it is a `Box`, to whose content there may be no second way.
///
/// What a key owns is shared then by all versions of a tree that have it, where clones of it would be made
/// otherwise: to insert a `String` or to remove one allocates for that one key, not for all that lie beside it.
/// See [`Key::frozen`](crate::Key::frozen).
///
/// ```
/// use rocstate::{AsKey, Frozen, Key, KeyReader, KeyShape, KeyWriter};
///
/// #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
/// struct Seat {
///     hall: String,
///     number: u32,
/// }
///
/// impl AsKey<Seat> for Seat {
///     fn encode(&self, to: &mut KeyWriter) {
///         (&self.hall, self.number).encode(to);
///     }
///
///     fn compare(&self, key: &Seat) -> std::cmp::Ordering {
///         self.cmp(key)
///     }
/// }
///
/// impl Key for Seat {
///     fn shape() -> KeyShape {
///         <(String, u32)>::shape()
///     }
///
///     fn decode(from: &mut KeyReader<'_>) -> rocstate::Result<Seat> {
///         let (hall, number) = Key::decode(from)?;
///         Ok(Seat { hall, number })
///     }
///
///     fn frozen() -> Option<Frozen<Seat>> {
///         // SAFETY: it consists of a `String` and a number.
///         Some(unsafe { Frozen::new() })
///     }
/// }
/// ```
pub struct Frozen<K: ?Sized>(PhantomData<fn() -> K>);

impl<K: ?Sized> Clone for Frozen<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: ?Sized> Copy for Frozen<K> {}

impl<K: ?Sized> fmt::Debug for Frozen<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Frozen")
    }
}

impl<K: ?Sized> Frozen<K> {
    /// Says so of a type that the crate does not know.
    ///
    /// # Safety
    /// It is so. Of types that consist of keys of the crate it is if it is of those; `Cell`, `RefCell`, `Mutex`,
    /// `OnceLock`, atomics and `Box` are what must not be in it.
    pub const unsafe fn new() -> Self {
        Frozen(PhantomData)
    }
}

impl<K: Copy> Frozen<K> {
    /// Bits that are copied are all that there is.
    pub(crate) fn copied() -> Self {
        Frozen(PhantomData)
    }
}

impl<K> From<Frozen<K>> for Frozen<Option<K>> {
    fn from(_: Frozen<K>) -> Self {
        Frozen(PhantomData)
    }
}

impl<K> From<Frozen<K>> for Frozen<Reverse<K>> {
    fn from(_: Frozen<K>) -> Self {
        Frozen(PhantomData)
    }
}

impl<K: 'static> Frozen<K> {
    /// For the types that own memory and that the crate knows.
    pub(crate) fn known() -> Option<Self> {
        let known = [TypeId::of::<String>(), TypeId::of::<Vec<u8>>()];
        known.contains(&TypeId::of::<K>()).then_some(Frozen(PhantomData))
    }
}

macro_rules! tuples {
    ($($key:ident)*) => {
        impl<$($key),*> From<($(Frozen<$key>,)*)> for Frozen<($($key,)*)> {
            fn from(_: ($(Frozen<$key>,)*)) -> Self {
                Frozen(PhantomData)
            }
        }
    };
}

tuples!(A);
tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
