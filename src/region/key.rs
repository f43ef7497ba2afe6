//! Keys: types whose encoded bytes sort as they do. The encodings are frozen in FORMAT.md section 10.

use std::cmp::Ordering;

pub(super) use crate::format::shape::KeyShape;

use crate::error::{Error, ErrorKind, Result};
pub use crate::tree::Frozen;

/// A type that keys of a durable region can have.
///
/// All integers, `bool`, `char`, `String`, `Vec<u8>`, `[u8; N]`, `Option`, `Reverse`, tuples and `()`
/// are keys; [`key!`](crate::key) makes newtypes of these keys. Byte order equals [`Ord`], which
/// [`check_key_order`] helps to test for a key of your own. An encoded key has at most 64 KiB.
///
/// ```
/// use rocstate::{AsKey, KeyWriter};
/// let mut low = KeyWriter::new();
/// let mut high = KeyWriter::new();
/// AsKey::<i32>::encode(&-1, &mut low);
/// AsKey::<i32>::encode(&1, &mut high);
/// assert!(low.as_bytes() < high.as_bytes());
/// ```
pub trait Key: AsKey<Self> + Ord + Clone + Send + Sync + 'static {
    /// The encoding, as it is stored with the region.
    fn shape() -> KeyShape;

    /// Reads a key back.
    ///
    /// # Errors
    /// `Damaged` if the bytes are not a key of this type.
    fn decode(from: &mut KeyReader<'_>) -> Result<Self>;

    /// Proof that nothing of a key changes behind a shared reference, if there is one.
    ///
    /// Keys of the crate have it, and what [`key!`](crate::key) makes of them. Without it each copy of a leaf
    /// has clones of its keys: for those that own memory an insert or a removal takes several times as long.
    fn frozen() -> Option<Frozen<Self>> {
        None
    }
}

/// Something that a key of type `K` can be found by: `K` itself, `str` for `String`, `[u8]` for
/// `Vec<u8>`, references, and tuples, `Option` and `Reverse` of these.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = rocstate::Store::open(dir.path())?;
/// let map: rocstate::DurableMap<(String, u64), u8> = store.durable_map("map")?;
/// store.transact(|tx| map.insert(tx, ("ann".into(), 1), 9))?;
/// assert_eq!(map.get(&store.view(), &("ann", 1))?, Some(&9));
/// # Ok::<(), rocstate::Error>(())
/// ```
pub trait AsKey<K: ?Sized> {
    /// Writes the bytes that `K` would write.
    fn encode(&self, to: &mut KeyWriter);

    /// Compares as the encoded bytes would; encodes nothing.
    fn compare(&self, key: &K) -> Ordering;
}

impl<K, Q: AsKey<K> + ?Sized> AsKey<K> for &Q {
    fn encode(&self, to: &mut KeyWriter) {
        (**self).encode(to);
    }

    fn compare(&self, key: &K) -> Ordering {
        (**self).compare(key)
    }
}

const ESCAPED: u8 = 0;
const ESCAPE: u8 = 0xff;
const END: u8 = 0;

/// Gathers the bytes of a key.
///
/// ```
/// let mut to = rocstate::KeyWriter::new();
/// to.put_escaped(b"a\0b");
/// assert_eq!(to.as_bytes(), [b'a', 0, 255, b'b', 0, 0]);
/// ```
#[derive(Debug, Default)]
pub struct KeyWriter {
    bytes: Vec<u8>,
    reversed: bool,
}

impl KeyWriter {
    /// Without any bytes.
    pub fn new() -> KeyWriter {
        KeyWriter::default()
    }

    /// Writes to where there may be room already.
    pub(crate) fn over(empty: Vec<u8>) -> KeyWriter {
        KeyWriter { bytes: empty, reversed: false }
    }

    /// What was written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes bytes whose number the reader knows.
    pub fn put_fixed(&mut self, bytes: &[u8]) {
        if self.reversed {
            self.bytes.extend(bytes.iter().map(|byte| !byte));
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// Writes any number of bytes: each 0 becomes 0 255, and 0 0 ends them, so that a prefix sorts
    /// before what continues it.
    pub fn put_escaped(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == ESCAPED) {
            self.put_fixed(part);
            if part.ends_with(&[ESCAPED]) {
                self.put_fixed(&[ESCAPE]);
            }
        }
        self.put_fixed(&[ESCAPED, END]);
    }

    /// Writes the complement of what `write` writes, so that it sorts the other way round.
    pub fn put_reversed(&mut self, write: impl FnOnce(&mut KeyWriter)) {
        self.reversed = !self.reversed;
        write(self);
        self.reversed = !self.reversed;
    }
}

/// Takes a key's bytes apart.
///
/// ```
/// let mut from = rocstate::KeyReader::new(&[b'a', 0, 255, b'b', 0, 0, 7]);
/// assert_eq!(from.take_escaped()?, b"a\0b");
/// assert_eq!(from.take_fixed::<1>()?, [7]);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Debug)]
pub struct KeyReader<'a> {
    rest: &'a [u8],
    reversed: bool,
}

impl<'a> KeyReader<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> KeyReader<'a> {
        KeyReader { rest: bytes, reversed: false }
    }

    /// Whether all bytes were taken.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes what [`KeyWriter::put_fixed`] wrote.
    ///
    /// # Errors
    /// `Damaged` if there are fewer bytes.
    pub fn take_fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.fixed().ok_or_else(KeyReader::malformed)
    }

    /// The same, `None` if there are fewer bytes. In a `Result` they would lie one byte beside where they are needed,
    /// and to read across what was just written takes a processor longer than all the rest.
    pub(super) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(if self.reversed { bytes.map(|byte| !byte) } else { *bytes })
    }

    /// Takes what [`KeyWriter::put_escaped`] wrote.
    ///
    /// # Errors
    /// `Damaged` if the end is missing or an escape is wrong.
    pub fn take_escaped(&mut self) -> Result<Vec<u8>> {
        let escaped = if self.reversed { !ESCAPED } else { ESCAPED };
        // The complement of a complement is what it was.
        let mut taken = KeyWriter { bytes: Vec::new(), reversed: self.reversed };
        loop {
            let plain = self.rest.split(|byte| *byte == escaped).next().unwrap_or_default();
            self.rest = self.rest.get(plain.len()..).unwrap_or_default();
            taken.put_fixed(plain);
            match self.take_fixed()? {
                [_, ESCAPE] => taken.bytes.push(ESCAPED),
                [_, END] => return Ok(taken.bytes),
                _ => return Err(KeyReader::malformed()),
            }
        }
    }

    /// Takes what [`KeyWriter::put_reversed`] wrote.
    ///
    /// # Errors
    /// As `read` does.
    pub fn take_reversed<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.reversed = !self.reversed;
        let value = read(self);
        self.reversed = !self.reversed;
        value
    }

    /// The error for bytes that are not a key, for implementations of [`Key::decode`].
    pub fn malformed() -> Error {
        Error::new(ErrorKind::Damaged, "bytes of a key are not what its type writes")
    }
}

pub(crate) fn decode_whole<K: Key>(bytes: &[u8]) -> Result<K> {
    let mut from = KeyReader::new(bytes);
    let key = K::decode(&mut from)?;
    if from.is_empty() { Ok(key) } else { Err(KeyReader::malformed()) }
}

/// Checks for two keys that the order of their bytes is their order, and that both come back: a
/// property for tests of a [`Key`] of your own.
///
/// # Errors
/// `Invalid`, with what does not hold.
pub fn check_key_order<K: Key>(a: &K, b: &K) -> Result<()> {
    let encoded = |key: &K| {
        let mut to = KeyWriter::new();
        key.encode(&mut to);
        to.bytes
    };
    let (bytes_a, bytes_b) = (encoded(a), encoded(b));
    let refuse = |what: &str| {
        let what = format!("{what}: keys with the bytes {bytes_a:02x?} and {bytes_b:02x?}");
        Err(Error::new(ErrorKind::Invalid, what))
    };
    if bytes_a.cmp(&bytes_b) != a.cmp(b) {
        return refuse("byte order is not Ord");
    }
    if a.compare(b) != a.cmp(b) {
        return refuse("AsKey::compare is not Ord");
    }
    for (key, bytes) in [(a, &bytes_a), (b, &bytes_b)] {
        if decode_whole::<K>(bytes).is_ok_and(|back| back == *key) {
            continue;
        }
        return refuse("a key does not come back");
    }
    Ok(())
}

/// Makes a newtype of a key a key: `key!(AccountId(u64))` for `struct AccountId(u64);`.
///
/// The struct keeps its own derives; it needs `Clone` and the `Ord` of what it wraps.
///
/// ```
/// use rocstate::{DurableMap, Store};
///
/// #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
/// struct AccountId(u64);
/// rocstate::key!(AccountId(u64));
///
/// # let dir = tempfile::tempdir().unwrap();
/// let store = Store::open(dir.path())?;
/// let owners: DurableMap<AccountId, String> = store.durable_map("owners")?;
/// store.transact(|tx| owners.insert(tx, AccountId(7), "ann".into()))?;
/// assert_eq!(owners.get(&store.view(), &AccountId(7))?.map(String::as_str), Some("ann"));
/// # Ok::<(), rocstate::Error>(())
/// ```
#[macro_export]
macro_rules! key {
    ($name:ident($inner:ty)) => {
        impl $crate::AsKey<$name> for $name {
            fn encode(&self, to: &mut $crate::KeyWriter) {
                <$inner as $crate::AsKey<$inner>>::encode(&self.0, to);
            }

            fn compare(&self, key: &$name) -> ::std::cmp::Ordering {
                <$inner as $crate::AsKey<$inner>>::compare(&self.0, &key.0)
            }
        }

        impl $crate::Key for $name {
            fn shape() -> $crate::KeyShape {
                $crate::KeyShape::Newtype(
                    ::std::string::String::from(::std::stringify!($name)),
                    ::std::boxed::Box::new(<$inner as $crate::Key>::shape()),
                )
            }

            fn decode(from: &mut $crate::KeyReader<'_>) -> $crate::Result<Self> {
                <$inner as $crate::Key>::decode(from).map($name)
            }

            fn frozen() -> ::std::option::Option<$crate::Frozen<Self>> {
                // This is all that is in it, or this does not compile.
                let _: fn($inner) -> $name = $name;
                let _: fn(&$name) = |$name(_)| ();
                // SAFETY: it is what it wraps.
                <$inner as $crate::Key>::frozen().map(|_| unsafe { $crate::Frozen::new() })
            }
        }
    };
}
