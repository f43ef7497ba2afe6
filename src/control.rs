//! Negative controls: the steps that keep the promises, by name, each of which a test build can leave
//! out to prove that the tests see it.
//!
//! Without the feature `controls` nothing can be left out, and the question costs nothing.

/// The steps, and the list of them that the tests go through.
macro_rules! steps {
    ($($(#[$says:meta])* $step:ident,)*) => {
        /// A step that some promise rests on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[cfg_attr(not(feature = "controls"), allow(unreachable_pub, reason = "tests name them"))]
        pub enum Step {
            $($(#[$says])* $step,)*
        }

        /// All of them.
        #[cfg(feature = "controls")]
        pub const ALL: &[Step] = &[$(Step::$step,)*];
    };
}

steps! {
    /// A group is synced before it is acknowledged.
    GroupSync,
    /// It is synced before, not soon after.
    AcknowledgeAfterSync,
    /// `Store::sync` syncs.
    RequestedSync,
    /// A sync closes its block.
    BlockIsClosed,
    /// A segment is synced before the next one seals it.
    ClosingSync,
    /// That comes before the next one has its name.
    SealAfterClosing,
    /// A new segment is synced before it has its name.
    SegmentSync,
    /// Its name is made stable before it is used.
    SegmentDirSync,
    /// It is named after it was synced, not before.
    SegmentNameAfterSync,
    /// The same three for the segment that a boot begins with.
    BootSegmentSync,
    BootSegmentDirSync,
    BootSegmentNameAfterSync,
    /// LOCK names each new segment, and that is synced before a commit in it counts as synced.
    LockWrite,
    LockSync,
    /// LOCK names a segment only once that is durable.
    LockAfterSegment,
    /// A predecessor without commits is removed after the segment that supersedes it is durable.
    SupersededAfterSeal,
    /// It stays where a checkpoint continues in it.
    NeededSegmentStays,
    /// A boot writes frames again that nobody claims to be synced.
    UnclaimedAreCopied,
    /// It reads a segment that has no name yet.
    BegunIsRead,
    /// That stays until what it holds is durable under another name.
    BegunStaysUntilSealed,
    /// A boot begins a new epoch.
    EpochGrows,
    /// Each boot has a nonce of its own.
    FreshNonce,
    /// Frames claim what is synced.
    FramesClaim,
    /// They claim no more than that.
    ClaimsAreSynced,
    /// An idle log gets a witness of its last commit.
    Witness,
    /// What is claimed and invalid is damage.
    ClaimedIsDamaged,
    /// What is not claimed and invalid is a torn tail.
    UnclaimedIsTorn,
    /// A failed read is not the end of the log.
    FailedReadRefuses,
    FrameHeaderSum,
    FrameBodySum,
    /// Of LOCK, of the headers of segments and checkpoints, and of what a checkpoint ends with.
    EndsSum,
    BlockSum,
    /// A segment is of this store.
    SegmentLineage,
    /// A checkpoint is of this store, and has the number of its name.
    CheckpointIdentity,
    /// A segment has the number of its name.
    SegmentNumber,
    /// LOCK names the newest segment, so that its loss is seen.
    NewestIsThere,
    /// A checkpoint is synced before it has its name.
    CheckpointSync,
    CheckpointDirSync,
    CheckpointNameAfterSync,
    /// What a checkpoint replaces is removed after it is durable.
    RemovalAfterCheckpoint,
    /// Files that an older kept checkpoint lists stay.
    KeptFilesStay,
    /// The log since the oldest kept checkpoint stays.
    KeptLogStays,
    /// Deltas keep tombstones.
    TombstonesInDeltas,
    /// A clear in the tail hides what is below it.
    ClearReachesCheckpoint,
    /// Regions that the tail removes are gone from the catalog.
    RemovalReachesCheckpoint,
    /// A delta applies to pieces that were merged before it only.
    DeltasAreNumbered,
    /// What was healed is written anew before its redundancy goes.
    HealedIsRenewed,
    /// Region numbers are not used again.
    RegionNumbersGrow,
    /// A failed append, or sync, poisons the store.
    FailedAppendPoisons,
    FailedSyncPoisons,
    /// A failed sync is not repeated.
    FailedSyncIsFinal,
    /// A checkpoint whose write or sync failed poisons the store.
    FailedCheckpointPoisons,
}

/// The checksums: without them whatever a fuzzer makes up reaches the decoders behind them.
#[cfg(feature = "controls")]
pub const CHECKSUMS: [Step; 4] =
    [Step::FrameHeaderSum, Step::FrameBodySum, Step::EndsSum, Step::BlockSum];

#[cfg(feature = "controls")]
mod switch {
    use std::cell::Cell;

    use super::Step;

    thread_local! {
        /// A bit for each step.
        static LEFT_OUT: Cell<u64> = const { Cell::new(0) };
    }

    const _: () = assert!(super::ALL.len() <= u64::BITS as usize);

    /// Runs something on this thread without some steps.
    pub fn without<T>(steps: &[Step], run: impl FnOnce() -> T) -> T {
        struct Restore(u64);
        impl Drop for Restore {
            fn drop(&mut self) {
                LEFT_OUT.set(self.0);
            }
        }
        let _restore = Restore(LEFT_OUT.get());
        LEFT_OUT.set(steps.iter().fold(LEFT_OUT.get(), |all, step| all | 1 << (*step as u64)));
        run()
    }

    pub(crate) fn left_out(step: Step) -> bool {
        LEFT_OUT.get() & 1 << (step as u64) != 0
    }
}

#[cfg(feature = "controls")]
pub(crate) use switch::left_out;
#[cfg(feature = "controls")]
pub use switch::without;

/// Whether a test has this step left out.
#[cfg(not(feature = "controls"))]
#[inline]
pub(crate) const fn left_out(_: Step) -> bool {
    false
}

/// Bytes that the trees of this process have from the system for nodes and values, which no allocator
/// counts.
#[cfg(feature = "controls")]
pub fn tree_bytes() -> usize {
    crate::tree::bytes_in_use()
}
