//! What the environment makes of a campaign.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::str::FromStr;

/// What the variable of this name says, or what a run does without it.
///
/// # Panics
/// If it says no number: a campaign that silently was the plain run would prove nothing.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    let Some(said) = std::env::var_os(name) else { return default };
    let number = said.to_str().and_then(|said| said.parse().ok());
    number.unwrap_or_else(|| panic!("{name} is {}, which is no such number", said.display()))
}

/// This seed, or with each `ROCSTATE_SEED` another one, and so other histories that are drawn with it.
pub fn seeded(seed: u64) -> u64 {
    seed + 100_000 * setting("ROCSTATE_SEED", 0)
}
