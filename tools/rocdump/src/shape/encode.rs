//! JSON to a value's bytes: what `decode` writes, and what a person would write for the same type.

use rocstate::format::shape::{Container, Scalar, Shape, ValueShape};
use serde::Serialize;
use serde_json::Value;

use super::{DEPTH_MAX, is_nullable};
use crate::json;

/// The bytes of a value, or where and why the JSON is none of its shape.
pub(crate) fn value_bytes(from: &Value, of: &ValueShape) -> Result<Vec<u8>, String> {
    let mut encoder = Encoder { of, to: Vec::new(), depth: 0 };
    encoder
        .value(from, &of.root)
        .map_err(|what| format!("the value is not what its type says: {what}"))?;
    Ok(encoder.to)
}

struct Encoder<'a> {
    of: &'a ValueShape,
    to: Vec<u8>,
    depth: usize,
}

type Encoded = Result<(), String>;

fn wanted(shape: &dyn std::fmt::Display, from: &Value) -> String {
    let mut text = from.to_string();
    if text.len() > 60 {
        text = text.chars().take(57).chain("...".chars()).collect();
    }
    format!("{shape} cannot be {text}")
}

impl<'a> Encoder<'a> {
    fn put(&mut self, value: &impl Serialize) -> Encoded {
        let to = std::mem::take(&mut self.to);
        self.to = postcard::to_extend(value, to).map_err(|why| why.to_string())?;
        Ok(())
    }

    fn count(&mut self, count: usize) -> Encoded {
        self.put(&(count as u64))
    }

    fn value(&mut self, from: &Value, shape: &'a Shape) -> Encoded {
        if self.depth > DEPTH_MAX {
            return Err("it nests too deep".to_owned());
        }
        self.depth += 1;
        let done = self.value_of(from, shape);
        self.depth -= 1;
        done
    }

    fn value_of(&mut self, from: &Value, shape: &'a Shape) -> Encoded {
        let refuse = || Err(wanted(shape, from));
        match shape {
            Shape::Scalar(scalar) => self.scalar(from, *scalar),
            Shape::Option(inner) => {
                if from.is_null() {
                    return self.put(&0u8);
                }
                self.put(&1u8)?;
                if !is_nullable(inner, self.of, 0) {
                    return self.value(from, inner);
                }
                match from
                    .as_object()
                    .filter(|object| object.len() == 1)
                    .and_then(|o| o.get("Some"))
                {
                    Some(some) => self.value(some, inner),
                    None => refuse(),
                }
            }
            Shape::Seq(inner) => {
                let Some(list) = from.as_array() else { return refuse() };
                self.count(list.len())?;
                list.iter().try_for_each(|item| self.value(item, inner))
            }
            Shape::Map(key, value) => self.map(from, key, value),
            Shape::Tuple(parts) => self.tuple(from, parts, shape),
            Shape::Array(inner, count) => match from.as_array() {
                Some(list) if list.len() as u64 == *count => {
                    list.iter().try_for_each(|item| self.value(item, inner))
                }
                _ => refuse(),
            },
            Shape::Named(name) => match self.of.types.get(name) {
                Some(container) => self.contained(from, container, name),
                None => Err(format!("its shape names {name}, which is not there")),
            },
        }
    }

    fn map(&mut self, from: &Value, key: &'a Shape, value: &'a Shape) -> Encoded {
        match from {
            Value::Object(object) => {
                self.count(object.len())?;
                for (name, item) in object {
                    self.named_key(name, key)?;
                    self.value(item, value)?;
                }
                Ok(())
            }
            Value::Array(pairs) => {
                self.count(pairs.len())?;
                for pair in pairs {
                    let Some([first, second]) = pair.as_array().map(Vec::as_slice) else {
                        return Err(wanted(&"a pair of key and value", pair));
                    };
                    self.value(first, key)?;
                    self.value(second, value)?;
                }
                Ok(())
            }
            other => Err(wanted(&"a map", other)),
        }
    }

    /// A key of a map that is the name of a field in JSON.
    fn named_key(&mut self, name: &str, key: &'a Shape) -> Encoded {
        let text = Value::String(name.to_owned());
        match key {
            Shape::Scalar(Scalar::String | Scalar::Char | Scalar::I128 | Scalar::U128) => {
                self.value(&text, key)
            }
            _ => self.value(&serde_json::from_str(name).unwrap_or(text), key),
        }
    }

    fn scalar(&mut self, from: &Value, scalar: Scalar) -> Encoded {
        let refuse = || wanted(&scalar.name(), from);
        macro_rules! number {
            ($read:expr, $type:ty) => {{
                let number = $read.and_then(|number| <$type>::try_from(number).ok());
                self.put(&number.ok_or_else(refuse)?)
            }};
        }
        let text = from.as_str();
        match scalar {
            Scalar::Unit if from.is_null() => Ok(()),
            Scalar::Unit => Err(refuse()),
            Scalar::Bool => self.put(&from.as_bool().ok_or_else(refuse)?),
            Scalar::I8 => number!(from.as_i64(), i8),
            Scalar::I16 => number!(from.as_i64(), i16),
            Scalar::I32 => number!(from.as_i64(), i32),
            Scalar::I64 => number!(from.as_i64(), i64),
            Scalar::I128 => {
                let number = text.and_then(|text| text.parse().ok());
                self.put(&number.or(from.as_i64().map(i128::from)).ok_or_else(refuse)?)
            }
            // postcard keeps a byte as it is.
            Scalar::U8 => number!(from.as_u64(), u8),
            Scalar::U16 => number!(from.as_u64(), u16),
            Scalar::U32 => number!(from.as_u64(), u32),
            Scalar::U64 => number!(from.as_u64(), u64),
            Scalar::U128 => {
                let number = text.and_then(|text| text.parse().ok());
                self.put(&number.or(from.as_u64().map(u128::from)).ok_or_else(refuse)?)
            }
            Scalar::F32 => {
                // Parsed as what it is: by way of the wider one it could be rounded twice.
                let number = match from {
                    Value::Number(number) => number.to_string().parse::<f32>().ok(),
                    _ => text.and_then(|text| text.parse().ok()),
                };
                self.put(&number.ok_or_else(refuse)?)
            }
            Scalar::F64 => {
                let number = from.as_f64().or(text.and_then(|text| text.parse().ok()));
                self.put(&number.ok_or_else(refuse)?)
            }
            Scalar::Char => {
                let mut chars = text.unwrap_or_default().chars();
                let first = chars.next().filter(|_| chars.next().is_none());
                self.put(&first.ok_or_else(refuse)?)
            }
            Scalar::String => self.put(&text.ok_or_else(refuse)?),
            Scalar::Bytes => {
                let bytes = text.and_then(json::from_hex).ok_or_else(refuse)?;
                self.count(bytes.len())?;
                self.to.extend_from_slice(&bytes);
                Ok(())
            }
        }
    }

    fn tuple(
        &mut self,
        from: &Value,
        parts: &'a [Shape],
        shape: &dyn std::fmt::Display,
    ) -> Encoded {
        match from.as_array() {
            Some(list) if list.len() == parts.len() => {
                list.iter().zip(parts).try_for_each(|(item, part)| self.value(item, part))
            }
            _ => Err(wanted(shape, from)),
        }
    }

    fn contained(&mut self, from: &Value, container: &'a Container, name: &str) -> Encoded {
        match container {
            Container::Unit if from.is_null() => Ok(()),
            Container::Unit => Err(wanted(&name, from)),
            Container::Newtype(inner) => self.value(from, inner),
            Container::Tuple(parts) => self.tuple(from, parts, &name),
            Container::Struct(fields) => {
                let Some(object) = from.as_object() else { return Err(wanted(&name, from)) };
                for (field, shape) in fields {
                    let item = object
                        .get(field)
                        .ok_or_else(|| format!("{name} has a field {field:?}, which is missing"))?;
                    self.value(item, shape).map_err(|what| format!("{name}.{field}: {what}"))?;
                }
                let foreign =
                    object.keys().find(|key| fields.iter().all(|(field, _)| field != *key));
                foreign.map_or(Ok(()), |key| Err(format!("{name} has no field {key:?}")))
            }
            Container::Enum(variants) => {
                let (variant, content) = match from {
                    Value::String(variant) => (variant, &Value::Null),
                    Value::Object(object) => match object.iter().next() {
                        Some((variant, content)) if object.len() == 1 => (variant, content),
                        _ => return Err(wanted(&name, from)),
                    },
                    _ => return Err(wanted(&name, from)),
                };
                let found = variants.iter().find(|(_, (known, _))| known == variant);
                let (number, (_, container)) =
                    found.ok_or_else(|| format!("{name} has no variant {variant:?}"))?;
                self.put(number)?;
                self.contained(content, container, variant)
            }
        }
    }
}
