//! What every contender keeps: a key of eight bytes, a struct of about a hundred with two strings.

use serde::{Deserialize, Serialize};

/// An order as a shop would keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) customer: String,
    pub(crate) note: String,
    pub(crate) cents: i64,
    pub(crate) version: u32,
}

impl Order {
    pub(crate) fn new(key: u64, version: u32) -> Order {
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

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Order, postcard::Error> {
        postcard::from_bytes(bytes)
    }
}

/// The same pseudo-random keys for everyone (xorshift64, Marsaglia 2003).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
