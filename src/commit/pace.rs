//! Whether it pays to write a group while another one is synced.

use std::time::Duration;

/// A sync beside another one pays unless it takes longer than this many halves of one alone. Where a disk does one
/// after the other it takes up to twice as long: then those who come meanwhile had better share the next one.
const PAYS_BELOW_HALVES: u32 = 3;

/// Each sync counts for so much of the mean.
const WEIGHT: u32 = 16;

/// One sync counts as no longer than so many times the mean, whatever it has waited for.
const OUTLIER: u32 = 2;

/// After so many syncs alone it is tried again.
const TRIED_AGAIN_AFTER: u32 = 512;

/// How long syncs take, from the beginning of the write: the means of those that ran alone, and beside another one.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The storage has two at a time.
    pub(super) is_possible: bool,
    alone: Duration,
    beside: Duration,
    /// How many ran alone since it does not pay.
    since: u32,
}

impl Pace {
    pub(super) fn note(&mut self, took: Duration, beside: bool) {
        if beside {
            // As long as one alone, until it is known.
            blend(&mut self.beside, took, self.alone);
        } else {
            blend(&mut self.alone, took, took);
        }
        if self.pays() || beside {
            self.since = 0;
        } else {
            self.since += 1;
        }
        if self.since == TRIED_AGAIN_AFTER {
            self.beside = Duration::ZERO;
        }
    }

    /// Whether two at a time are worth more than one after the other.
    pub(super) fn pays(&self) -> bool {
        self.is_possible && self.beside * 2 <= self.alone * PAYS_BELOW_HALVES
    }
}

fn blend(mean: &mut Duration, took: Duration, first: Duration) {
    let before = if mean.is_zero() { first } else { *mean };
    let took = if before.is_zero() { took } else { took.min(before * OUTLIER) };
    *mean = (before * (WEIGHT - 1) + took) / WEIGHT;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Duration = Duration::from_micros(100);

    fn note(pace: &mut Pace, times: u32, took: Duration, beside: bool) {
        (0..times).for_each(|_| pace.note(took, beside));
    }

    #[test]
    fn two_at_a_time_pay_unless_the_disk_does_one_after_the_other() {
        let mut pace = Pace { is_possible: true, ..Pace::default() };
        assert!(pace.pays(), "before anything is known");
        note(&mut pace, 1, ALONE, false);
        note(&mut pace, 100, ALONE * 4 / 3, true);
        assert!(pace.pays());
        note(&mut pace, 1, ALONE * 1000, true);
        assert!(pace.pays(), "one that waited for something else");
        note(&mut pace, 30, ALONE * 2, true);
        assert!(!pace.pays());
        // And it is tried again, for some syncs.
        note(&mut pace, TRIED_AGAIN_AFTER - 1, ALONE, false);
        assert!(!pace.pays());
        note(&mut pace, 1, ALONE, false);
        assert!(pace.pays());
        note(&mut pace, 20, ALONE * 2, true);
        assert!(!pace.pays());
    }

    #[test]
    fn what_is_slower_alone_may_be_so_beside_another_one() {
        let mut pace = Pace { is_possible: true, ..Pace::default() };
        note(&mut pace, 10, ALONE, false);
        note(&mut pace, 30, ALONE * 2, true);
        note(&mut pace, 100, ALONE * 2, false);
        assert!(pace.pays());
    }
}
