//! A serializer that refuses what could not be read back.
//!
//! postcard writes no names, so a field that `skip_serializing_if` leaves out would shift all that
//! follows. serde tells of such a field by `skip_field`, which is where this wrapper refuses; all
//! else it passes on, so that the compiler makes it vanish.

use std::any::type_name;

use postcard::ser_flavors::Flavor;
use serde::ser::{self, Error as _, Serialize, Serializer};

pub(super) struct Checked<T>(pub(super) T);

impl<T: Serialize + ?Sized> Serialize for Checked<&T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(Checked(to))
    }
}

/// So many bytes are worth a buffer.
const BYTES_MIN: usize = 64;

/// Whether these are bytes, of which a sequence looks the same to postcard as bytes in one piece: those are copied,
/// while of a sequence each would be written by itself. A compiler that gave types other names would
/// cost time and nothing else.
fn is_byte<T>() -> bool {
    matches!(type_name::<T>(), "&u8" | "u8")
}

fn byte_of(item: &impl Serialize) -> postcard::Result<u8> {
    postcard::serialize_with_flavor(item, OneByte(None))
}

struct OneByte(Option<u8>);

impl Flavor for OneByte {
    type Output = u8;

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        let before = self.0.replace(byte);
        before.map_or(Ok(()), |_| Err(postcard::Error::SerializeBufferFull))
    }

    fn finalize(self) -> postcard::Result<u8> {
        self.0.ok_or(postcard::Error::SerializeBufferFull)
    }
}

macro_rules! pass_on {
    ($($method:ident($($arg:ident: $type:ty),*);)*) => {
        $(fn $method(self, $($arg: $type),*) -> Result<Self::Ok, Self::Error> {
            self.0.$method($($arg),*)
        })*
    };
}

macro_rules! begin {
    ($($method:ident($($arg:ident: $type:ty),*) -> $compound:ident;)*) => {
        $(fn $method(self, $($arg: $type),*) -> Result<Self::$compound, Self::Error> {
            self.0.$method($($arg),*).map(Checked)
        })*
    };
}

impl<S: Serializer> Serializer for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Checked<S::SerializeSeq>;
    type SerializeTuple = Checked<S::SerializeTuple>;
    type SerializeTupleStruct = Checked<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Checked<S::SerializeTupleVariant>;
    type SerializeMap = Checked<S::SerializeMap>;
    type SerializeStruct = Checked<S::SerializeStruct>;
    type SerializeStructVariant = Checked<S::SerializeStructVariant>;

    pass_on! {
        serialize_bool(v: bool);
        serialize_i8(v: i8);
        serialize_i16(v: i16);
        serialize_i32(v: i32);
        serialize_i64(v: i64);
        serialize_i128(v: i128);
        serialize_u8(v: u8);
        serialize_u16(v: u16);
        serialize_u32(v: u32);
        serialize_u64(v: u64);
        serialize_u128(v: u128);
        serialize_f32(v: f32);
        serialize_f64(v: f64);
        serialize_char(v: char);
        serialize_str(v: &str);
        serialize_bytes(v: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(name: &'static str);
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.serialize_some(&Checked(value))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_struct(name, &Checked(value))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.0.serialize_newtype_variant(name, index, variant, &Checked(value))
    }

    begin! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(
            name: &'static str, index: u32, variant: &'static str, len: usize
        ) -> SerializeStructVariant;
    }

    fn collect_seq<I>(self, items: I) -> Result<S::Ok, S::Error>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let mut items = items.into_iter();
        let (least, most) = items.size_hint();
        let len = most.filter(|most| *most == least);
        if let Some(len) = len.filter(|len| *len >= BYTES_MIN && is_byte::<I::Item>()) {
            let mut bytes = vec![0; len];
            for byte in &mut bytes {
                let item = items.next().ok_or_else(|| S::Error::custom("fewer than it said"))?;
                *byte = byte_of(&item).map_err(S::Error::custom)?;
            }
            return self.0.serialize_bytes(&bytes);
        }
        let mut sequence = self.serialize_seq(len)?;
        items.try_for_each(|item| ser::SerializeSeq::serialize_element(&mut sequence, &item))?;
        ser::SerializeSeq::end(sequence)
    }

    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.0.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! elements {
    ($($compound:ident: $method:ident;)*) => {$(
        impl<S: ser::$compound> ser::$compound for Checked<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
                self.0.$method(&Checked(value))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )*};
}

elements! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! fields {
    ($($compound:ident),*) => {$(
        impl<S: ser::$compound> ser::$compound for Checked<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), S::Error> {
                self.0.serialize_field(key, &Checked(value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), S::Error> {
                Err(S::Error::custom(key))
            }

            fn end(self) -> Result<S::Ok, S::Error> {
                self.0.end()
            }
        }
    )*};
}

fields!(SerializeStruct, SerializeStructVariant);

impl<S: ser::SerializeMap> ser::SerializeMap for Checked<S> {
    type Ok = S::Ok;
    type Error = S::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), S::Error> {
        self.0.serialize_key(&Checked(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), S::Error> {
        self.0.serialize_value(&Checked(value))
    }

    fn end(self) -> Result<S::Ok, S::Error> {
        self.0.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Keeps what is written, and counts how often.
    #[derive(Default)]
    struct Written(Vec<u8>, usize);

    impl Flavor for Written {
        type Output = (Vec<u8>, usize);

        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.try_extend(&[byte])
        }

        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            self.1 += 1;
            Ok(())
        }

        fn finalize(self) -> postcard::Result<Self::Output> {
            Ok((self.0, self.1))
        }
    }

    /// How often something is written, the same as without the wrapper.
    fn writes(value: &impl Serialize) -> usize {
        let written = postcard::serialize_with_flavor(&Checked(value), Written::default());
        let (bytes, writes) = written.unwrap();
        assert_eq!(bytes, postcard::to_stdvec(value).unwrap());
        writes
    }

    #[test]
    fn bytes_are_written_in_one_piece_and_look_the_same() {
        for len in [0, 1, BYTES_MIN - 1, BYTES_MIN, 300, 70_000] {
            let bytes: Vec<u8> = (0..len).map(|at| at.to_le_bytes()[0]).collect();
            assert!(writes(&bytes) <= BYTES_MIN);
            assert!(writes(&bytes.as_slice()) <= BYTES_MIN);
            let turned = bytes.iter().rev().copied().collect::<VecDeque<_>>();
            assert!(writes(&(1u32, Some(vec![bytes.clone(), bytes]), turned)) <= 4 * BYTES_MIN);
            let signed = vec![-1i8; len];
            assert!(writes(&signed) > len, "each by itself");
        }
    }
}
