//! What every contender keeps: a key of eight bytes, a struct of about a hundred with two strings.

use serde::{Deserialize, Serialize};

/// An order as a shop would keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Who ordered.
    pub customer: String,
    /// What the driver is to know.
    pub note: String,
    /// What it costs.
    pub cents: i64,
    /// How often it was changed.
    pub version: u32,
}

impl Order {
    /// The order of this key, as it is after so many changes.
    pub fn new(key: u64, version: u32) -> Order {
        Order {
            customer: format!(
                "customer {:012}",
                key.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_000_000_000
            ),
            note: format!(
                "order {key:012}: leave it with the neighbour if nobody opens, v{version:06}"
            ),
            cents: i64::try_from(key % 100_000).unwrap_or_default(),
            version,
        }
    }

    /// As postcard writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// As postcard reads it.
    ///
    /// # Errors
    /// What postcard says of bytes that are no order.
    pub fn from_bytes(bytes: &[u8]) -> Result<Order, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// The same pseudo-random keys for everyone (xorshift64, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same for the same seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
