//! What replaying the log costs on this machine: what decides when a checkpoint is due.

use std::time::Duration;

use crate::format::catalog::BootCost;
use crate::log::tail::ReplayWork;

/// What a boot costs on this machine, learnt from every replay and every delta, and kept in the
/// catalog for the process after this one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayRate {
    ns_per_block: f64,
    ns_per_operation: f64,
    /// What a boot takes whatever the log holds.
    fixed_ns: f64,
}

impl Default for ReplayRate {
    /// What a usual machine needs, until this one was measured.
    fn default() -> ReplayRate {
        ReplayRate { ns_per_block: 1_500.0, ns_per_operation: 200.0, fixed_ns: 5e6 }
    }
}

/// To open a segment takes about as long as to read so many blocks.
const BLOCKS_PER_SEGMENT: u64 = 8;

/// The blocks that a replay reads, where each segment counts as some more.
fn blocks_of(work: ReplayWork) -> u64 {
    let blocks = work.bytes.div_ceil(crate::format::BLOCK_BYTES);
    blocks.saturating_add(work.segments.saturating_mul(BLOCKS_PER_SEGMENT))
}

/// A second; nothing here is believed to cost more.
const NS_MAX: f64 = 1e9;

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; it is clamped and needs no more than a few digits"
)]
impl ReplayRate {
    /// What a catalog says.
    pub(crate) fn from_cost(cost: BootCost) -> ReplayRate {
        let ns = |ns: u64, least: f64| (ns as f64).clamp(least, NS_MAX);
        ReplayRate {
            ns_per_block: ns(cost.ns_per_block, 10.0),
            ns_per_operation: ns(cost.ns_per_operation, 1.0),
            fixed_ns: ns(cost.fixed_ns, 0.0),
        }
    }

    /// What a catalog is to say.
    pub(crate) fn to_cost(self) -> BootCost {
        BootCost {
            ns_per_block: self.ns_per_block as u64,
            ns_per_operation: self.ns_per_operation as u64,
            fixed_ns: self.fixed_ns as u64,
        }
    }

    fn parts(&self, work: ReplayWork) -> (f64, f64) {
        let blocks = blocks_of(work) as f64;
        (blocks * self.ns_per_block, work.operations as f64 * self.ns_per_operation)
    }

    /// How long making this much log readable will take.
    pub(crate) fn replay(&self, work: ReplayWork) -> Duration {
        let (blocks, operations) = self.parts(work);
        Duration::from_nanos((blocks + operations).clamp(0.0, 1e18) as u64)
    }

    /// What a boot takes whatever the log holds.
    pub(crate) fn fixed(&self) -> Duration {
        Duration::from_nanos(self.fixed_ns as u64)
    }

    /// How long a boot will take.
    pub(crate) fn boot(&self, work: ReplayWork) -> Duration {
        self.fixed() + self.replay(work)
    }

    /// Learns from a replay; a small one tells nothing. Blocks and operations each answer for the
    /// part of the difference that they had in the estimate.
    pub(crate) fn learn(&mut self, work: ReplayWork, taken: Duration) {
        let (blocks, operations) = self.parts(work);
        let estimate = blocks + operations;
        if blocks_of(work) < 64 || estimate <= 0.0 {
            return;
        }
        // Twice and half at most, so that one stalled read does not throw the estimate off.
        let off = (taken.as_nanos() as f64 / estimate).clamp(0.5, 2.0) - 1.0;
        let step = |rate: f64, part: f64| rate * (1.0 + 0.4 * off * part / estimate);
        self.ns_per_block = step(self.ns_per_block, blocks).clamp(10.0, NS_MAX);
        self.ns_per_operation = step(self.ns_per_operation, operations).clamp(1.0, NS_MAX);
    }

    /// Learns from what a boot took besides its replay.
    pub(crate) fn learn_fixed(&mut self, taken: Duration) {
        let seen = (taken.as_nanos() as f64).min(NS_MAX);
        self.fixed_ns = self.fixed_ns.mul_add(0.5, 0.5 * seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(rate: &mut ReplayRate, work: ReplayWork, ms: u64) {
        for _ in 0..100 {
            rate.learn(work, Duration::from_millis(ms));
        }
    }

    #[test]
    fn the_rate_follows_what_it_sees() {
        let mut rate = ReplayRate::default();
        let sparse = ReplayWork { bytes: 4096 * 50_000, operations: 50_000, segments: 13 };
        let dense = ReplayWork { bytes: 4096 * 3_000, operations: 100_000, segments: 1 };
        for _ in 0..30 {
            learn(&mut rate, sparse, 60);
            learn(&mut rate, dense, 15);
        }
        let near = |work, ms: f64| {
            let estimate = rate.replay(work).as_secs_f64() * 1e3;
            assert!((estimate / ms - 1.0).abs() < 0.2, "{estimate} ms instead of {ms}");
        };
        near(sparse, 60.0);
        near(dense, 15.0);
        let again = ReplayRate::from_cost(rate.to_cost()).replay(dense);
        assert!(again.abs_diff(rate.replay(dense)) < Duration::from_millis(1));
    }

    #[test]
    fn a_tiny_replay_teaches_nothing() {
        let mut rate = ReplayRate::default();
        let work = ReplayWork { bytes: 4096, operations: 1, segments: 1 };
        let before = rate.replay(work);
        rate.learn(work, Duration::from_secs(5));
        assert_eq!(rate.replay(work), before);
    }

    #[test]
    fn no_cost_in_a_catalog_is_believed_without_bounds() {
        let cost = BootCost { ns_per_block: u64::MAX, ns_per_operation: 0, fixed_ns: u64::MAX };
        let rate = ReplayRate::from_cost(cost);
        let work = ReplayWork { bytes: u64::MAX, operations: u64::MAX, segments: u64::MAX };
        assert!(rate.boot(work) < Duration::from_secs(10_000_000_000));
        assert!(rate.fixed() <= Duration::from_secs(1));
    }
}
