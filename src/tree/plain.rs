//! Which values are no more than their bits.

/// Whether a copy of a value's bits is as good as the value: it owns nothing, and nothing in it changes behind a shared
/// reference. Of a type that the crate does not know nothing tells so, not even whether it is `Copy`.
#[inline]
pub(super) fn is_plain<V>() -> bool {
    macro_rules! any {
        ($($plain:ty)*) => { $(typeid::of::<V>() == typeid::of::<$plain>() ||)* false };
    }
    any!(() bool char u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64)
}
