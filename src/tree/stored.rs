//! What a tree knows of the values that are put into it.

use std::mem::needs_drop;

/// A value as the trees of durable regions keep it. One that does not decode fails for itself, not for its
/// neighbours, and its bytes are kept where they are.
pub(crate) enum Stored<V> {
    Value(V),
    Undecodable(postcard::Error),
}

// Beside small values little is to lie, and nothing that would have to be let go of.
const _: () = assert!(size_of::<Stored<u32>>() == 8 && !needs_drop::<Stored<u32>>());

/// Whether a copy of a value's bits is as good as the value: it owns nothing, and nothing in it changes behind a shared
/// reference.
#[inline]
pub(super) fn is_plain<V>() -> bool {
    macro_rules! any {
        ($($plain:ty)*) => {
            $(
                typeid::of::<V>() == typeid::of::<$plain>()
                    || typeid::of::<V>() == typeid::of::<Stored<$plain>>()
                    ||
            )* false
        };
    }
    any!(() bool char u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64)
}
