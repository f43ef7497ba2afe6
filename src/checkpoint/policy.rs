//! When a checkpoint is due: what replaying the log costs on this machine.

use std::time::Duration;

use crate::log::tail::ReplayWork;

/// What replaying the log costs on this machine, learnt from every replay and every delta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReplayRate {
    ns_per_block: f64,
    ns_per_operation: f64,
}

impl Default for ReplayRate {
    /// Slow enough for a slow machine, until this one was measured.
    fn default() -> ReplayRate {
        ReplayRate { ns_per_block: 3_500.0, ns_per_operation: 250.0 }
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate; it is clamped and needs no more than a few digits"
)]
impl ReplayRate {
    /// How long this much log will take.
    pub(crate) fn estimate(&self, work: ReplayWork) -> Duration {
        let blocks = work.bytes.div_ceil(crate::format::BLOCK_BYTES) as f64;
        let ns = blocks * self.ns_per_block + work.operations as f64 * self.ns_per_operation;
        Duration::from_nanos(ns.clamp(0.0, 1e18) as u64)
    }

    /// Learns from a replay that took `reading` and `sorting`; small ones tell nothing.
    pub(crate) fn learn(&mut self, work: ReplayWork, reading: Duration, sorting: Duration) {
        let blocks = work.bytes / crate::format::BLOCK_BYTES;
        let blend = |old: f64, taken: Duration, count: u64| {
            let seen = taken.as_nanos() as f64 / count as f64;
            // Twice and half at most, so that one stalled read does not throw the estimate off.
            old.mul_add(0.7, 0.3 * seen.clamp(old / 2.0, old * 2.0))
        };
        if blocks >= 64 {
            self.ns_per_block = blend(self.ns_per_block, reading, blocks);
        }
        if work.operations >= 1_000 {
            self.ns_per_operation = blend(self.ns_per_operation, sorting, work.operations);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_what_it_sees() {
        let mut rate = ReplayRate::default();
        let work = ReplayWork { bytes: 4096 * 10_000, operations: 100_000 };
        let before = rate.estimate(work);
        for _ in 0..50 {
            rate.learn(work, Duration::from_millis(10), Duration::from_millis(10));
        }
        let after = rate.estimate(work);
        assert!(after < before);
        assert!(after > Duration::from_millis(19) && after < Duration::from_millis(21));
    }

    #[test]
    fn a_tiny_replay_teaches_nothing() {
        let mut rate = ReplayRate::default();
        let work = ReplayWork { bytes: 4096, operations: 1 };
        let before = rate.estimate(work);
        rate.learn(work, Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(rate.estimate(work), before);
    }
}
