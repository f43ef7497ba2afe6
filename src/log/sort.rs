//! The writes of a piece of the log by key, each key once: its last write.
//!
//! What is sorted are numbers: eight bytes of a key, from where all of them begin to differ, and its place in the log.
//! That is several times faster than comparing the keys, which lie wherever they were read. Where these bytes are alike
//! it is done again with the eight from where those keys begin to differ: so what many begin with, such as the name of
//! a tenant, costs a look at each key and not at two for each comparison (the caching of Ng and Kakimoto's `CRadix` sort,
//! 2008).

use super::held::{Memory, Position};

/// Eight bytes of a key, and the position of a write to it in the lower half.
pub(super) type Write = u128;

/// In the place of a write that is not the last one of its key; no position is as high.
const REPLACED: Write = Write::MAX;

/// Keys that begin alike for so many bytes are sorted by the bytes that follow.
const COMMON_WORTH_SKIPPING: usize = 4;

/// What is alike after so many looks is compared: if each look tells one key from the others, which are alike for
/// thousands of bytes, there is no end of looks.
const LOOKS_MAX: usize = 8;

/// How many keys ahead the processor is told of.
const LOOKED_AHEAD: usize = 8;

/// The writes of one region in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// With the first eight bytes of each key.
    all: Vec<Write>,
    first_key: Vec<u8>,
    alike: Alike,
}

/// The last write of each key, by key.
pub(super) struct Sorted {
    /// What all keys begin with, as far as it was skipped.
    pub(super) skipped: Vec<u8>,
    /// With eight bytes of each key from there on.
    pub(super) writes: Vec<Write>,
}

impl Writes {
    pub(super) fn push(&mut self, key: &[u8], at: Position) {
        if self.all.is_empty() {
            self.first_key.clear();
            self.first_key.extend_from_slice(key);
            self.alike = Alike::one(key);
        } else {
            self.alike.and(key, &self.first_key, 0);
        }
        self.all.push(write(prefix(key, 0), at));
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    pub(super) fn sort(self, memory: &Memory) -> Sorted {
        let Writes { all: mut writes, first_key: mut skipped, alike } = self;
        let skip = alike.common >= COMMON_WORTH_SKIPPING && alike.longest > 8;
        skipped.truncate(if skip { alike.common } else { 0 });
        if skip {
            number(memory, &mut writes, |key| prefix(key, alike.common));
        }
        let look = Look { seen: skipped.len() + 8, number: 1 };
        writes.sort_unstable();
        if alike.end_by(look.seen) {
            keep_last_of_each(&mut writes);
        } else {
            settle(memory, &mut writes, look, false, None);
            writes.retain(|write| *write != REPLACED);
        }
        Sorted { skipped, writes }
    }
}

/// How far keys are alike.
#[derive(Clone, Copy, Debug, Default)]
struct Alike {
    common: usize,
    shortest: usize,
    longest: usize,
}

impl Alike {
    fn one(key: &[u8]) -> Alike {
        Alike { common: key.len(), shortest: key.len(), longest: key.len() }
    }

    /// With another key; of `first`, which is one of them, `known` bytes are known to be alike.
    fn and(&mut self, key: &[u8], first: &[u8], known: usize) {
        self.common = self.common.min(key.len());
        let rest = |key| <[u8]>::get(key, known..self.common).unwrap_or_default();
        if rest(key) != rest(first) {
            let pairs = rest(key).iter().zip(rest(first));
            self.common = known + pairs.take_while(|(a, b)| a == b).count();
        }
        self.shortest = self.shortest.min(key.len());
        self.longest = self.longest.max(key.len());
    }

    /// Whether all of them have as many bytes, and no more than that.
    fn end_by(self, bytes: usize) -> bool {
        self.shortest == self.longest && self.longest <= bytes
    }

    fn all(memory: &Memory, writes: &[Write], known: usize) -> Alike {
        let first = key_at(memory, writes, 0);
        let mut alike = Alike::one(first);
        for at in 1..writes.len() {
            alike.and(key_at(memory, writes, at), first, known);
        }
        alike
    }
}

/// How much is known of keys.
#[derive(Clone, Copy)]
struct Look {
    /// So many bytes are in the numbers by which they are sorted; for what a key does not have of them, zeros.
    seen: usize,
    number: usize,
}

/// Settles writes that are sorted by their numbers; if these are `whole`, equal ones are equal keys. They are to begin
/// as they do now, or with what is said, once they are settled.
fn settle(
    memory: &Memory,
    writes: &mut [Write],
    look: Look,
    whole: bool,
    once_settled: Option<u64>,
) {
    for tied in writes.chunk_by_mut(|a, b| begins(*a) == begins(*b)) {
        let now = tied.first().copied().map(begins);
        let begins = once_settled.or(now).unwrap_or_default();
        if whole || tied.len() == 1 {
            keep_last(tied, begins);
        } else {
            untie(memory, tied, look, begins);
        }
    }
}

/// Sorts writes whose numbers are alike; they are in the order of the log.
fn untie(memory: &Memory, writes: &mut [Write], look: Look, begins: u64) {
    let alike = Alike::all(memory, writes, look.seen);
    if alike.common == alike.longest {
        return keep_last(writes, begins);
    }
    if look.number == LOOKS_MAX {
        let key = |write: &Write| memory.key(position(*write));
        writes.sort_unstable_by(|a, b| key(a).cmp(key(b)).then(a.cmp(b)));
        for tied in writes.chunk_by_mut(|a, b| key(a) == key(b)) {
            keep_last(tied, begins);
        }
    } else {
        number(memory, writes, |key| prefix(key, alike.common));
        let look = Look { seen: alike.common + 8, number: look.number + 1 };
        writes.sort_unstable();
        settle(memory, writes, look, alike.end_by(look.seen), Some(begins));
    }
}

/// What is left of writes to one key.
fn keep_last(writes: &mut [Write], begins: u64) {
    if let Some((last, before)) = writes.split_last_mut() {
        before.fill(REPLACED);
        *last = write(begins, position(*last));
    }
}

/// The same where equal numbers are equal keys; without a branch, since none could be foretold.
fn keep_last_of_each(writes: &mut Vec<Write>) {
    let mut kept = 0;
    for at in 0..writes.len() {
        let (write, next) = (writes.get(at).copied(), writes.get(at + 1).copied());
        if let (Some(write), Some(to)) = (write, writes.get_mut(kept)) {
            *to = write;
            kept += usize::from(next.is_none_or(|next| begins(next) != begins(write)));
        }
    }
    writes.truncate(kept);
}

fn number(memory: &Memory, writes: &mut [Write], of: impl Fn(&[u8]) -> u64) {
    for at in 0..writes.len() {
        let number = of(key_at(memory, writes, at));
        if let Some(one) = writes.get_mut(at) {
            *one = write(number, position(*one));
        }
    }
}

/// The key of a write, for somebody who looks at all of them in turn.
fn key_at<'m>(memory: &'m Memory, writes: &[Write], at: usize) -> &'m [u8] {
    if let Some(ahead) = writes.get(at + LOOKED_AHEAD) {
        memory.prefetch(position(*ahead));
    }
    writes.get(at).map_or(&[], |write| memory.key(position(*write)))
}

fn write(number: u64, at: Position) -> Write {
    u128::from(number) << 64 | u128::from(at)
}

/// The bytes of the key that a write begins with.
pub(super) fn begins(write: Write) -> u64 {
    u64::try_from(write >> 64).unwrap_or_default()
}

pub(super) fn position(write: Write) -> Position {
    // The lower half is what it is.
    u64::try_from(write & u128::from(u64::MAX)).unwrap_or_default()
}

/// Eight bytes of a key from `skip` on, as a number that sorts as they do.
pub(super) fn prefix(key: &[u8], skip: usize) -> u64 {
    let key = key.get(skip..).unwrap_or_default();
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::super::held::LOOKED_AT;
    use super::*;
    use crate::format::RegionNo;
    use crate::format::operation::Operation;

    #[test]
    #[cfg_attr(miri, ignore = "ten thousand keys take minutes")]
    fn beginnings_that_many_keys_share_cost_a_few_looks_at_each() {
        const KEYS: u32 = 10_000;
        let (mut memory, mut writes) = (Memory::default(), Writes::default());
        for n in 0..KEYS {
            let scattered = n.wrapping_mul(7_919) % KEYS;
            let key = format!("the tenant {}, of a kind {}: {scattered:09}", n % 7, n % 11);
            let mut bytes = Vec::new();
            let (region, key) = (RegionNo(1), key.as_bytes());
            Operation::Remove { region, key }.encode(&mut bytes);
            writes.push(key, memory.hold(&bytes, None).position(0));
        }
        let before = LOOKED_AT.get();
        let sorted = writes.sort(&memory).writes;
        // Once for what all begin with; and twice for each of two beginnings.
        assert_eq!(LOOKED_AT.get() - before, 5 * KEYS as usize);
        let keys: Vec<_> = sorted.iter().map(|write| memory.key(position(*write))).collect();
        assert!(keys.len() == KEYS as usize && keys.is_sorted());
    }
}
