//! The redo log: segments that are written once and read in order.
//!
//! # Invariants
//! - A block whose sync has begun is never written again.
//! - A frame that states a new claim begins a block, so that looking at the beginning of every
//!   block finds every claim.
//! - A reader never writes; what broken bytes mean is for `boot::verdict` to say.

pub(crate) mod ahead;
pub(crate) mod begun;
pub(crate) mod chain;
pub(crate) mod cut;
pub(crate) mod held;
pub(crate) mod newest;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod segment;
mod sort;
pub(crate) mod sync;
pub(crate) mod tail;
pub(crate) mod writer;
