//! The keys that come with the crate.

use std::cmp::{Ordering, Reverse};

use super::key::{AsKey, Frozen, Key, KeyReader, KeyShape, KeyWriter};
use crate::error::Result;

/// The bytes of an integer, as its shape names them; none has more than 128 bits.
const fn shape_bytes(bits: u32) -> u8 {
    (bits / 8).to_le_bytes()[0]
}

macro_rules! unsigned {
    ($($int:ty),*) => {$(
        impl AsKey<$int> for $int {
            fn encode(&self, to: &mut KeyWriter) {
                to.put_fixed(&self.to_be_bytes());
            }

            #[inline]
            fn compare(&self, key: &$int) -> Ordering {
                self.cmp(key)
            }
        }

        impl Key for $int {
            fn shape() -> KeyShape {
                KeyShape::Unsigned(shape_bytes(<$int>::BITS))
            }

            fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
                from.fixed().map(<$int>::from_be_bytes).ok_or_else(KeyReader::malformed)
            }

            fn frozen() -> Option<Frozen<Self>> {
                Some(Frozen::copied())
            }
        }
    )*};
}

macro_rules! signed {
    ($($int:ty as $bits:ty),*) => {$(
        impl AsKey<$int> for $int {
            fn encode(&self, to: &mut KeyWriter) {
                to.put_fixed(&(self.cast_unsigned() ^ (1 << (<$int>::BITS - 1))).to_be_bytes());
            }

            #[inline]
            fn compare(&self, key: &$int) -> Ordering {
                self.cmp(key)
            }
        }

        impl Key for $int {
            fn shape() -> KeyShape {
                KeyShape::Signed(shape_bytes(<$int>::BITS))
            }

            fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
                let bits = from.fixed().map(<$bits>::from_be_bytes).ok_or_else(KeyReader::malformed)?;
                Ok((bits ^ (1 << (<$int>::BITS - 1))).cast_signed())
            }

            fn frozen() -> Option<Frozen<Self>> {
                Some(Frozen::copied())
            }
        }
    )*};
}

unsigned!(u8, u16, u32, u64, u128);
signed!(i8 as u8, i16 as u16, i32 as u32, i64 as u64, i128 as u128);

/// Eight bytes, whatever the machine.
impl AsKey<usize> for usize {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_fixed(&(*self as u64).to_be_bytes());
    }

    #[inline]
    fn compare(&self, key: &usize) -> Ordering {
        self.cmp(key)
    }
}

impl Key for usize {
    fn shape() -> KeyShape {
        KeyShape::Unsigned(8)
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        usize::try_from(u64::decode(from)?).map_err(|_| KeyReader::malformed())
    }

    fn frozen() -> Option<Frozen<Self>> {
        Some(Frozen::copied())
    }
}

/// Eight bytes, whatever the machine.
impl AsKey<isize> for isize {
    fn encode(&self, to: &mut KeyWriter) {
        AsKey::<i64>::encode(&(*self as i64), to);
    }

    #[inline]
    fn compare(&self, key: &isize) -> Ordering {
        self.cmp(key)
    }
}

impl Key for isize {
    fn shape() -> KeyShape {
        KeyShape::Signed(8)
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        isize::try_from(i64::decode(from)?).map_err(|_| KeyReader::malformed())
    }

    fn frozen() -> Option<Frozen<Self>> {
        Some(Frozen::copied())
    }
}

impl AsKey<bool> for bool {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_fixed(&[u8::from(*self)]);
    }

    #[inline]
    fn compare(&self, key: &bool) -> Ordering {
        self.cmp(key)
    }
}

impl Key for bool {
    fn shape() -> KeyShape {
        KeyShape::Bool
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        match from.take_fixed()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(KeyReader::malformed()),
        }
    }

    fn frozen() -> Option<Frozen<Self>> {
        Some(Frozen::copied())
    }
}

impl AsKey<char> for char {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_fixed(&u32::from(*self).to_be_bytes());
    }

    #[inline]
    fn compare(&self, key: &char) -> Ordering {
        self.cmp(key)
    }
}

impl Key for char {
    fn shape() -> KeyShape {
        KeyShape::Char
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        char::from_u32(u32::decode(from)?).ok_or_else(KeyReader::malformed)
    }

    fn frozen() -> Option<Frozen<Self>> {
        Some(Frozen::copied())
    }
}

impl AsKey<()> for () {
    fn encode(&self, _to: &mut KeyWriter) {}

    fn compare(&self, (): &()) -> Ordering {
        Ordering::Equal
    }
}

impl Key for () {
    fn shape() -> KeyShape {
        KeyShape::Unit
    }

    fn decode(_from: &mut KeyReader<'_>) -> Result<Self> {
        Ok(())
    }

    fn frozen() -> Option<Frozen<Self>> {
        Some(Frozen::copied())
    }
}

impl AsKey<String> for str {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_escaped(self.as_bytes());
    }

    #[inline]
    fn compare(&self, key: &String) -> Ordering {
        self.cmp(key.as_str())
    }
}

impl AsKey<String> for String {
    fn encode(&self, to: &mut KeyWriter) {
        self.as_str().encode(to);
    }

    #[inline]
    fn compare(&self, key: &String) -> Ordering {
        self.cmp(key)
    }
}

impl Key for String {
    fn shape() -> KeyShape {
        KeyShape::String
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        String::from_utf8(from.take_escaped()?).map_err(|_| KeyReader::malformed())
    }

    fn frozen() -> Option<Frozen<Self>> {
        Frozen::known()
    }
}

impl AsKey<Vec<u8>> for [u8] {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_escaped(self);
    }

    #[inline]
    fn compare(&self, key: &Vec<u8>) -> Ordering {
        self.cmp(key.as_slice())
    }
}

impl AsKey<Vec<u8>> for Vec<u8> {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_escaped(self);
    }

    #[inline]
    fn compare(&self, key: &Vec<u8>) -> Ordering {
        self.cmp(key)
    }
}

/// A literal like `b"key"` finds a `Vec<u8>` too.
impl<const N: usize> AsKey<Vec<u8>> for [u8; N] {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_escaped(self);
    }

    #[inline]
    fn compare(&self, key: &Vec<u8>) -> Ordering {
        self.as_slice().cmp(key.as_slice())
    }
}

impl Key for Vec<u8> {
    fn shape() -> KeyShape {
        KeyShape::Bytes
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        from.take_escaped()
    }

    fn frozen() -> Option<Frozen<Self>> {
        Frozen::known()
    }
}

impl<const N: usize> AsKey<[u8; N]> for [u8; N] {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_fixed(self);
    }

    /// Mostly the first bytes tell, which takes less than the call of a function for all of them.
    #[inline]
    fn compare(&self, key: &[u8; N]) -> Ordering {
        if let (Some(a), Some(b)) = (self.first_chunk(), key.first_chunk())
            && a != b
        {
            return u64::from_be_bytes(*a).cmp(&u64::from_be_bytes(*b));
        }
        self.cmp(key)
    }
}

impl<const N: usize> Key for [u8; N] {
    fn shape() -> KeyShape {
        KeyShape::ByteArray(N as u64)
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        from.take_fixed()
    }

    fn frozen() -> Option<Frozen<Self>> {
        Some(Frozen::copied())
    }
}

impl<K, Q: AsKey<K>> AsKey<Option<K>> for Option<Q> {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_fixed(&[u8::from(self.is_some())]);
        if let Some(key) = self {
            key.encode(to);
        }
    }

    fn compare(&self, key: &Option<K>) -> Ordering {
        match (self, key) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(probe), Some(key)) => probe.compare(key),
        }
    }
}

impl<K: Key> Key for Option<K> {
    fn shape() -> KeyShape {
        KeyShape::Option(Box::new(K::shape()))
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        bool::decode(from)?.then(|| K::decode(from)).transpose()
    }

    fn frozen() -> Option<Frozen<Self>> {
        K::frozen().map(Frozen::from)
    }
}

impl<K, Q: AsKey<K>> AsKey<Reverse<K>> for Reverse<Q> {
    fn encode(&self, to: &mut KeyWriter) {
        to.put_reversed(|to| self.0.encode(to));
    }

    fn compare(&self, key: &Reverse<K>) -> Ordering {
        self.0.compare(&key.0).reverse()
    }
}

impl<K: Key> Key for Reverse<K> {
    fn shape() -> KeyShape {
        KeyShape::Reverse(Box::new(K::shape()))
    }

    fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
        from.take_reversed(K::decode).map(Reverse)
    }

    fn frozen() -> Option<Frozen<Self>> {
        K::frozen().map(Frozen::from)
    }
}

macro_rules! tuples {
    ($($key:ident $probe:ident $at:tt),*) => {
        impl<$($key, $probe: AsKey<$key>),*> AsKey<($($key,)*)> for ($($probe,)*) {
            fn encode(&self, to: &mut KeyWriter) {
                $(self.$at.encode(to);)*
            }

            fn compare(&self, key: &($($key,)*)) -> Ordering {
                Ordering::Equal$(.then_with(|| self.$at.compare(&key.$at)))*
            }
        }

        impl<$($key: Key),*> Key for ($($key,)*) {
            fn shape() -> KeyShape {
                KeyShape::Tuple(vec![$($key::shape()),*])
            }

            fn decode(from: &mut KeyReader<'_>) -> Result<Self> {
                Ok(($($key::decode(from)?,)*))
            }

            fn frozen() -> Option<Frozen<Self>> {
                Some(Frozen::from(($($key::frozen()?,)*)))
            }
        }
    };
}

tuples!(A QA 0);
tuples!(A QA 0, B QB 1);
tuples!(A QA 0, B QB 1, C QC 2);
tuples!(A QA 0, B QB 1, C QC 2, D QD 3);
tuples!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4);
tuples!(A QA 0, B QB 1, C QC 2, D QD 3, E QE 4, F QF 5);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<K: Key>(key: &K) -> Vec<u8> {
        let mut to = KeyWriter::new();
        key.encode(&mut to);
        to.as_bytes().to_vec()
    }

    #[test]
    fn keys_have_these_bytes() {
        assert_eq!(bytes(&0x0102_u16), [1, 2]);
        assert_eq!(bytes(&-1_i16), [0x7f, 0xff]);
        assert_eq!(bytes(&0_i8), [0x80]);
        assert_eq!(bytes(&true), [1]);
        assert_eq!(bytes(&'a'), [0, 0, 0, 97]);
        assert_eq!(bytes(&()), [0u8; 0]);
        assert_eq!(bytes(&"a\0b".to_owned()), [b'a', 0, 0xff, b'b', 0, 0]);
        assert_eq!(bytes(&[7u8, 0]), [7, 0]);
        assert_eq!(bytes(&Some(1u8)), [1, 1]);
        assert_eq!(bytes(&None::<u8>), [0]);
        assert_eq!(bytes(&Reverse(String::from("a"))), [!b'a', 0xff, 0xff]);
        assert_eq!(bytes(&(1u8, String::new(), 2u8)), [1, 0, 0, 2]);
        assert_eq!(bytes(&7usize), [0, 0, 0, 0, 0, 0, 0, 7]);
    }
}
