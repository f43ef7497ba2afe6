//! What a transaction knows of regions, by their numbers and in the order in which it came.

use std::collections::HashMap;

use crate::format::RegionNo;

/// So many are looked for one after the other, which takes less than to hash.
const SEARCHED_MAX: usize = 32;

pub(super) struct Numbered<T> {
    items: Vec<(RegionNo, T)>,
    /// Where each is, as soon as they are too many to be searched.
    #[expect(clippy::box_collection, reason = "hardly ever there")]
    positions: Option<Box<HashMap<RegionNo, usize>>>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Numbered { items: Vec::new(), positions: None }
    }
}

impl<T> Numbered<T> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    #[inline]
    pub(super) fn position(&self, number: RegionNo) -> Option<usize> {
        match &self.positions {
            None => self.items.iter().position(|(other, _)| *other == number),
            Some(positions) => positions.get(&number).copied(),
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.items.get(at).map(|(_, item)| item)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.items.get_mut(at).map(|(_, item)| item)
    }

    /// In the order in which they came.
    pub(super) fn as_slice(&self) -> &[(RegionNo, T)] {
        &self.items
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [(RegionNo, T)] {
        &mut self.items
    }

    /// Adds what is known of a region of which nothing was known; where that is.
    #[inline]
    pub(super) fn push(&mut self, number: RegionNo, item: T) -> usize {
        let at = self.items.len();
        self.items.push((number, item));
        if at >= SEARCHED_MAX {
            self.note_last();
        }
        at
    }

    #[cold]
    fn note_last(&mut self) {
        let items = &self.items;
        let noted = self.positions.as_ref().map_or(0, |positions| positions.len());
        let positions = self.positions.get_or_insert_default();
        positions.extend(items.iter().zip(0..).skip(noted).map(|((number, _), at)| (*number, at)));
    }

    /// Keeps those that came first.
    pub(super) fn truncate(&mut self, len: usize) {
        match &mut self.positions {
            Some(_) if len <= SEARCHED_MAX => self.positions = None,
            Some(positions) => {
                for (number, _) in self.items.get(len..).unwrap_or_default() {
                    positions.remove(number);
                }
            }
            None => {}
        }
        self.items.truncate(len);
    }

    /// Hands out all of them in the place of others, which go.
    pub(super) fn hand_out(&mut self, into: &mut Vec<(RegionNo, T)>) {
        self.positions = None;
        std::mem::swap(&mut self.items, into);
        self.items.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_many_are_found_where_they_are() {
        let mut numbered = Numbered::default();
        let number = |nth: usize| RegionNo(1_000 - u64::try_from(nth).unwrap() * 7);
        for len in [3, 100, 40, SEARCHED_MAX, SEARCHED_MAX + 1, 1, 0, 80] {
            numbered.truncate(len);
            (numbered.len()..len).for_each(|nth| assert_eq!(numbered.push(number(nth), nth), nth));
            for nth in 0..120 {
                let found = numbered.position(number(nth));
                assert_eq!(found, (nth < len).then_some(nth), "{nth} of {len}");
                assert_eq!(found.and_then(|at| numbered.get(at)), found.as_ref());
            }
            assert!(numbered.as_slice().iter().map(|(_, nth)| *nth).eq(0..len));
        }
    }
}
