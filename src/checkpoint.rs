//! Checkpoints: immutable files of sorted sections, and the catalog that makes them a whole.
//!
//! # Invariants
//! - A file exists whole or not at all; it is never changed once it has its name.
//! - Everything here works on encoded bytes: no user code, no view of the tree, so that a
//!   checkpoint disturbs no writer and an undeclared region is nothing special.
//! - Removals come after what makes them possible is durable.

pub(crate) mod cache;
pub(crate) mod cold;
pub(crate) mod heal;
pub(crate) mod layers;
pub(crate) mod merge;
pub(crate) mod parts;
pub(crate) mod plan;
pub(crate) mod policy;
pub(crate) mod reader;
pub(crate) mod section;
pub(crate) mod take;
pub(crate) mod writer;
