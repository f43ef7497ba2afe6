//! Ranges of encoded keys, and the parts that one is divided into.

/// A range of encoded keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyRange<'a> {
    pub(crate) lower: &'a [u8],
    /// The first key beyond it.
    pub(crate) upper: Option<&'a [u8]>,
}

impl KeyRange<'_> {
    pub(crate) const EVERYTHING: KeyRange<'static> = KeyRange { lower: &[], upper: None };
}

/// Parts of a range, in key order and with nothing between them. All keys lie in one piece of memory:
/// parts are loaded by one thread after another has divided, and each key of its own would have to find
/// back to where it came from.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The first key of each part, and the first one beyond the last.
    keys: Vec<u8>,
    /// Where each of them ends.
    ends: Vec<usize>,
    bounded: bool,
}

impl Parts {
    /// Of a range that is divided at keys within it, which ascend.
    pub(crate) fn new(range: KeyRange<'_>, at: &[&[u8]]) -> Parts {
        let keys = || [range.lower].into_iter().chain(at.iter().copied()).chain(range.upper);
        let mut parts = Parts {
            keys: Vec::with_capacity(keys().map(<[u8]>::len).sum()),
            ends: Vec::with_capacity(keys().count()),
            bounded: range.upper.is_some(),
        };
        for key in keys() {
            parts.keys.extend_from_slice(key);
            parts.ends.push(parts.keys.len());
        }
        parts
    }

    /// Of a range that is not divided.
    pub(crate) fn whole(range: KeyRange<'_>) -> Parts {
        Parts::new(range, &[])
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len() - usize::from(self.bounded)
    }

    pub(crate) fn get(&self, at: usize) -> KeyRange<'_> {
        KeyRange { lower: self.key(at).unwrap_or_default(), upper: self.key(at + 1) }
    }

    fn key(&self, at: usize) -> Option<&[u8]> {
        let begin = at.checked_sub(1).and_then(|before| self.ends.get(before)).copied();
        self.keys.get(begin.unwrap_or(0)..*self.ends.get(at)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &Parts) -> Vec<(&[u8], Option<&[u8]>)> {
        (0..parts.len()).map(|at| (parts.get(at).lower, parts.get(at).upper)).collect()
    }

    #[test]
    fn parts_cover_their_range() {
        let range = KeyRange { lower: b"a", upper: Some(b"zz") };
        let parts = Parts::new(range, &[b"bcd", b"e"]);
        let expected = [(&b"a"[..], Some(&b"bcd"[..])), (b"bcd", Some(b"e")), (b"e", Some(b"zz"))];
        assert_eq!(read(&parts), expected);
        assert_eq!(read(&Parts::whole(range)), [(&b"a"[..], Some(&b"zz"[..]))]);
        assert_eq!(read(&Parts::whole(KeyRange::EVERYTHING)), [(&b""[..], None)]);
        let parts = Parts::new(KeyRange::EVERYTHING, &[b"m"]);
        assert_eq!(read(&parts), [(&b""[..], Some(&b"m"[..])), (b"m", None)]);
    }
}
