//! Generations: which life of the state something belongs to.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::format::{Epoch, Lineage};

/// One life of a store or a region: lineage, epoch, birth and nonce.
///
/// Every boot and every discard makes a new one, greater than all before it on this store. The
/// nonce is random at each boot, so that a byte-for-byte copy of a store has other generations than
/// its original. Order exists within a lineage only. Its text form is
/// `lineage-epoch-birth-nonce`, in hexadecimal, decimal, decimal and hexadecimal.
///
/// ```
/// use rocstate::{Generation, Store};
/// # let dir = tempfile::tempdir().unwrap();
/// let first = Store::open(dir.path())?.generation();
/// let second = Store::open(dir.path())?.generation();
/// assert!(second > first);
/// assert_eq!(second.to_string().parse::<Generation>()?, second);
/// # Ok::<(), rocstate::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Generation {
    lineage: u64,
    epoch: u64,
    birth: u64,
    nonce: u64,
}

impl Generation {
    pub(crate) fn of_boot(lineage: Lineage, epoch: Epoch, nonce: u64) -> Generation {
        Generation { lineage: lineage.0, epoch: epoch.0, birth: 0, nonce }
    }

    /// Random for each store; a restored or branched store has another one.
    pub fn lineage(&self) -> u64 {
        self.lineage
    }

    /// Boots of the store, counted durably, from 1.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Regions declared and discarded since that boot; 0 is the store itself.
    pub fn birth(&self) -> u64 {
        self.birth
    }

    pub(crate) fn stale(&self, born: Generation) -> Error {
        let what = format!(
            "it belongs to generation {born}, and the current one is {self}; ask for a new one"
        );
        Error::new(ErrorKind::Stale, what)
    }
}

impl PartialOrd for Generation {
    fn partial_cmp(&self, other: &Generation) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        if self.lineage != other.lineage {
            return None;
        }
        let order = (self.epoch, self.birth).cmp(&(other.epoch, other.birth));
        // The same boot of two copies: neither is older.
        (order != Ordering::Equal && (self.epoch != other.epoch || self.nonce == other.nonce))
            .then_some(order)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}-{:016x}", self.lineage, self.epoch, self.birth, self.nonce)
    }
}

impl FromStr for Generation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Generation, Error> {
        let parse = || -> Option<Generation> {
            let mut parts = text.split('-');
            let generation = Generation {
                lineage: u64::from_str_radix(parts.next()?, 16).ok()?,
                epoch: parts.next()?.parse().ok()?,
                birth: parts.next()?.parse().ok()?,
                nonce: u64::from_str_radix(parts.next()?, 16).ok()?,
            };
            parts.next().is_none().then_some(generation)
        };
        parse()
            .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("{text:?} is not a generation")))
    }
}

/// The store-wide counter of births, so that no two regions share a generation.
#[derive(Debug)]
pub(crate) struct Births {
    boot: Generation,
    last: AtomicU64,
}

impl Births {
    pub(crate) fn new(boot: Generation) -> Births {
        Births { boot, last: AtomicU64::new(0) }
    }

    pub(crate) fn boot(&self) -> Generation {
        self.boot
    }

    pub(crate) fn next(&self) -> Generation {
        let birth = self.last.fetch_add(1, Atomic::Relaxed) + 1;
        Generation { birth, ..self.boot }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_exists_within_a_lineage_and_one_boot_only() {
        let boot = Generation::of_boot(Lineage(1), Epoch(5), 77);
        let births = Births::new(boot);
        let (first, second) = (births.next(), births.next());
        assert!(boot < first && first < second);
        let next_boot = Generation::of_boot(Lineage(1), Epoch(6), 3);
        assert!(second < next_boot);
        let other = Generation::of_boot(Lineage(2), Epoch(5), 77);
        assert_eq!(boot.partial_cmp(&other), None);
        let copy = Generation::of_boot(Lineage(1), Epoch(5), 78);
        assert_eq!(boot.partial_cmp(&copy), None);
        assert_ne!(boot, copy);
    }

    #[test]
    fn text_that_is_no_generation_is_refused() {
        for text in ["", "1-2-3", "1-2-3-4-5", "x-2-3-4"] {
            assert_eq!(text.parse::<Generation>().unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
