//! What the measurements share.

pub mod data;
pub mod run;
