//! When the keys of a node were born, in four bytes for each: how long after a moment that they have in common, or
//! before it.
//!
//! # Invariants
//! - No birth is told to be later than it was. It is told as it was if it is less than [`FAR`] stamps away from that of
//!   the node, and of each node before that the key was in; others may be told to be earlier.
//! - The moment is that of the birth of the node, or less than `FAR` before it.

use std::ops::Range;

use super::{FAN_OUT, Stamp};

/// From so many stamps on a birth may be too far away: a thousand million, as many as drafts and their savepoints.
const FAR: Stamp = 1 << 30;

/// Of what counts as having been there always.
const ALWAYS: i32 = i32::MIN;

/// Of as many keys as a node can have. They lie behind it, if its keys may own something.
pub(in crate::tree) struct Births {
    /// The moment.
    base: Stamp,
    /// How long after it each was.
    ages: [i32; FAN_OUT],
}

impl Births {
    /// None yet, of a node that was born just now.
    pub(super) fn none(born: Stamp) -> Births {
        Births { base: born, ages: [0; FAN_OUT] }
    }

    #[inline]
    pub(super) fn at(&self, at: usize) -> Stamp {
        match self.ages.get(at) {
            None | Some(&ALWAYS) => 0,
            Some(age) => self.base.saturating_add_signed((*age).into()),
        }
    }

    #[inline]
    pub(super) fn set(&mut self, at: usize, born: Stamp) {
        let age = age(self.base, born);
        self.ages.get_mut(at).into_iter().for_each(|place| *place = age);
    }

    /// Puts one before others, up to so many.
    pub(super) fn insert(&mut self, at: usize, len: usize, born: Stamp) {
        self.ages.copy_within(at..len, at + 1);
        self.set(at, born);
    }

    /// Takes one of so many out.
    pub(super) fn remove(&mut self, at: usize, len: usize) -> Stamp {
        let born = self.at(at);
        self.drain(at..at + 1, len);
        born
    }

    /// Puts some of others behind as many as there are.
    pub(super) fn append(&mut self, len: usize, from: &Births, which: Range<usize>) {
        if len == 0 && from.is_base_for(self) {
            self.base = from.base;
            let ages = from.ages.get(which).unwrap_or_default();
            self.ages.iter_mut().zip(ages).for_each(|(to, age)| *to = *age);
        } else {
            which.enumerate().for_each(|(nth, at)| self.set(len + nth, from.at(at)));
        }
    }

    /// Takes some of so many out.
    pub(super) fn drain(&mut self, which: Range<usize>, len: usize) {
        self.ages.copy_within(which.end..len, which.start);
    }

    /// Whether its moment is one for those of a node that was born just now.
    fn is_base_for(&self, none: &Births) -> bool {
        none.base.checked_sub(self.base).is_some_and(|before| before < FAR)
    }
}

/// How long after a moment something was born.
#[inline]
fn age(base: Stamp, born: Stamp) -> i32 {
    match born.checked_sub(base) {
        // What is too far is told to be earlier,
        Some(after) => after.try_into().unwrap_or(i32::MAX),
        // or not at all.
        None => i32::try_from(base - born).map_or(ALWAYS, |before| -before),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(usize),
        Set(usize),
        Remove(usize),
        /// Goes on with a copy.
        Copy,
        /// Goes on with what was split off, or with the rest, and appends the other.
        Turn(usize),
        /// Appends the first ones to the rest.
        Roll(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<(Stamp, Step)>> {
        let step = prop_oneof![
            6 => any::<usize>().prop_map(Step::Insert),
            2 => any::<usize>().prop_map(Step::Set),
            1 => any::<usize>().prop_map(Step::Remove),
            2 => Just(Step::Copy),
            1 => any::<usize>().prop_map(Step::Turn),
            1 => any::<usize>().prop_map(Step::Roll),
        ];
        let pass = prop_oneof![4 => 0..4u64, 1 => 0..FAR / 4, 1 => 0..8 * FAR];
        prop::collection::vec((pass, step), 1..200)
    }

    /// When a key was born, and whether that is known.
    #[derive(Clone, Copy)]
    struct Birth(Stamp, bool);

    proptest! {
        /// Keys are born while their node can be changed, which is when it was born or soon after that.
        #[test]
        fn no_birth_is_told_to_be_later_and_what_is_near_as_it_was(steps in steps()) {
            let (mut now, mut of) = (0, 0);
            let (mut births, mut model): (_, Vec<Birth>) = (Births::none(of), Vec::new());
            for (pass, step) in steps {
                now += pass;
                let len = model.len();
                match step {
                    Step::Insert(at) if len < FAN_OUT => {
                        births.insert(at % (len + 1), len, now);
                        model.insert(at % (len + 1), Birth(now, true));
                    }
                    Step::Set(at) if len > 0 => {
                        births.set(at % len, now);
                        model[at % len] = Birth(now, true);
                    }
                    Step::Remove(at) if len > 0 => {
                        let told = births.remove(at % len, len);
                        prop_assert!(told <= model.remove(at % len).0);
                    }
                    Step::Copy => {
                        let mut copy = Births::none(now);
                        copy.append(0, &births, 0..len);
                        (births, of) = (copy, now);
                    }
                    Step::Turn(at) => {
                        let at = at % (len + 1);
                        let mut right = Births::none(now);
                        right.append(0, &births, at..len);
                        right.append(len - at, &births, 0..at);
                        (births, of) = (right, now);
                        model.rotate_left(at);
                    }
                    Step::Roll(at) => {
                        let at = at % (len + 1);
                        let mut first = Births::none(now);
                        first.append(0, &births, 0..at);
                        births.drain(0..at, len);
                        births.append(len - at, &first, 0..at);
                        for Birth(born, is_known) in &mut model[..at] {
                            *is_known &= born.abs_diff(now) < FAR;
                        }
                        model.rotate_left(at);
                    }
                    _ => {}
                }
                for (at, Birth(born, is_known)) in model.iter_mut().enumerate() {
                    let told = births.at(at);
                    *is_known &= born.abs_diff(of) < FAR;
                    prop_assert!(told <= *born);
                    prop_assert!(told == *born || !*is_known, "{told} instead of {born}, {of}");
                }
            }
        }
    }
}
