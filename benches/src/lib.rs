//! What the measurements share.

pub mod data;
pub mod fixed_sync;
pub mod run;
