//! What a declared region's keys and values look like: traced once for each pair of types.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use serde_reflection::{
    ContainerFormat, Error as TraceError, Format, Named, Registry, Samples, Tracer, TracerConfig,
    VariantFormat,
};

use super::Value;
use super::key::Key;
use super::stored::check_sample;
use crate::error::{Error, ErrorKind, Result};
use crate::format::shape::{Container, RegionClass, Schema, Shape, ValueShape};

/// A schema as a program declares it.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) schema: Schema,
    pub(crate) encoded: Vec<u8>,
    /// The Rust types of key and value.
    pub(crate) types: TypeId,
    /// The shape of the value is unknown, so each one is read back when it is inserted.
    pub(crate) read_back: bool,
}

pub(crate) fn declare_map<K: Key, V: Value>() -> Result<Arc<Declared>> {
    declare::<K, V>(RegionClass::Map, TypeId::of::<(K, V)>())
}

pub(crate) fn declare_cell<T: Value>() -> Result<Arc<Declared>> {
    struct Cell<T>(std::marker::PhantomData<T>);
    declare::<(), T>(RegionClass::Cell, TypeId::of::<Cell<T>>())
}

fn declare<K: Key, V: Value>(class: RegionClass, types: TypeId) -> Result<Arc<Declared>> {
    static KNOWN: LazyLock<Mutex<HashMap<TypeId, Arc<Declared>>>> = LazyLock::new(Mutex::default);
    if let Some(known) = KNOWN.lock().get(&types) {
        return Ok(Arc::clone(known));
    }
    let value = trace::<V>()?;
    let read_back = value.is_none();
    let schema = Schema { class, key: K::shape(), value };
    let declared = Arc::new(Declared { encoded: schema.encode(), schema, types, read_back });
    KNOWN.lock().insert(types, Arc::clone(&declared));
    Ok(declared)
}

/// How often a type with nested enums is traced to see every variant.
const PASSES_MAX: usize = 4096;

/// The shape of a type; `None` where it cannot be traced but may still work.
fn trace<V: Value>() -> Result<Option<ValueShape>> {
    let mut enums = BTreeSet::new();
    loop {
        let (traced, samples) = match trace_with::<V>(&enums) {
            Ok(traced) => traced,
            Err(TraceError::NotSupported(what)) => {
                let what = format!(
                    "the type asks for {what}, which the format cannot answer: it keeps no names, \
                     so untagged, internally tagged and flattened types cannot be read back"
                );
                return Err(Error::new(ErrorKind::Unsupported, what));
            }
            Err(_) => return Ok(None),
        };
        for sample in &samples {
            check_sample(sample)?;
        }
        match traced {
            Ok((root, registry)) => return Ok(convert(&root, &registry)),
            Err(TraceError::MissingVariants(names)) => {
                let before = enums.len();
                enums.extend(names);
                if enums.len() == before {
                    return Ok(None);
                }
            }
            Err(_) => return Ok(None),
        }
    }
}

type Traced<V> = (Result<(Format, Registry), TraceError>, Vec<V>);

/// Traces until all variants of the known enums were seen.
fn trace_with<V: Value>(enums: &BTreeSet<String>) -> Result<Traced<V>, TraceError> {
    static SAMPLES: LazyLock<Samples> = LazyLock::new(Samples::new);
    let mut tracer = Tracer::new(TracerConfig::default());
    let mut samples = Vec::new();
    for _ in 0..PASSES_MAX {
        let (root, sample) = tracer.trace_type_once::<V>(&SAMPLES)?;
        samples.push(sample);
        let unseen = enums.iter().filter(|name| tracer.check_incomplete_enum(name).is_some());
        if unseen.count() == 0 {
            return Ok((tracer.registry().map(|registry| (root, registry)), samples));
        }
    }
    Err(TraceError::UnknownFormat)
}

fn convert(root: &Format, registry: &Registry) -> Option<ValueShape> {
    let types = registry
        .iter()
        .map(|(name, format)| Some((name.clone(), container(format)?)))
        .collect::<Option<BTreeMap<_, _>>>()?;
    Some(ValueShape { root: shape(root)?, types })
}

fn shape(format: &Format) -> Option<Shape> {
    let scalar = match format {
        Format::TypeName(name) => return Some(Shape::Named(name.clone())),
        Format::Option(inner) => return Some(Shape::Option(Box::new(shape(inner)?))),
        Format::Seq(inner) => return Some(Shape::Seq(Box::new(shape(inner)?))),
        Format::Map { key, value } => {
            return Some(Shape::Map(Box::new(shape(key)?), Box::new(shape(value)?)));
        }
        Format::Tuple(parts) => return shapes(parts).map(Shape::Tuple),
        Format::TupleArray { content, size } => {
            return Some(Shape::Array(Box::new(shape(content)?), *size as u64));
        }
        Format::Variable(_) => return None,
        Format::Unit => "()",
        Format::Bool => "bool",
        Format::I8 => "i8",
        Format::I16 => "i16",
        Format::I32 => "i32",
        Format::I64 => "i64",
        Format::I128 => "i128",
        Format::U8 => "u8",
        Format::U16 => "u16",
        Format::U32 => "u32",
        Format::U64 => "u64",
        Format::U128 => "u128",
        Format::F32 => "f32",
        Format::F64 => "f64",
        Format::Char => "char",
        Format::Str => "String",
        Format::Bytes => "Bytes",
    };
    Shape::scalar(scalar)
}

fn shapes(formats: &[Format]) -> Option<Vec<Shape>> {
    formats.iter().map(shape).collect()
}

fn fields(formats: &[Named<Format>]) -> Option<Vec<(String, Shape)>> {
    formats.iter().map(|field| Some((field.name.clone(), shape(&field.value)?))).collect()
}

fn container(format: &ContainerFormat) -> Option<Container> {
    Some(match format {
        ContainerFormat::UnitStruct => Container::Unit,
        ContainerFormat::NewTypeStruct(inner) => Container::Newtype(shape(inner)?),
        ContainerFormat::TupleStruct(parts) => Container::Tuple(shapes(parts)?),
        ContainerFormat::Struct(named) => Container::Struct(fields(named)?),
        ContainerFormat::Enum(variants) => {
            let variants = variants.iter().map(|(number, variant)| {
                Some((*number, (variant.name.clone(), self::variant(&variant.value)?)))
            });
            Container::Enum(variants.collect::<Option<_>>()?)
        }
    })
}

fn variant(format: &VariantFormat) -> Option<Container> {
    Some(match format {
        VariantFormat::Variable(_) => return None,
        VariantFormat::Unit => Container::Unit,
        VariantFormat::NewType(inner) => Container::Newtype(shape(inner)?),
        VariantFormat::Tuple(parts) => Container::Tuple(shapes(parts)?),
        VariantFormat::Struct(named) => Container::Struct(fields(named)?),
    })
}

/// Whether a region that holds `stored` may be used as `declared`.
pub(crate) fn check(stored: &[u8], declared: &Declared, region: &str) -> Result<()> {
    if stored == declared.encoded {
        return Ok(());
    }
    let mismatch =
        |what: String| Err(Error::new(ErrorKind::SchemaMismatch, what).in_region(region));
    let prints = (Schema::fingerprint(stored), Schema::fingerprint(&declared.encoded));
    match Schema::decode(stored) {
        Ok(schema) => {
            let differences = schema.differences(&declared.schema).join("; ");
            mismatch(format!(
                "{differences}. Stored [{:08x}]: {schema}. Declared [{:08x}]: {}. Declare the stored \
                 shape, or move the data into a region of another name",
                prints.0, prints.1, declared.schema
            ))
        }
        Err(why) => mismatch(format!("the stored schema [{:08x}] is unreadable: {why}", prints.0)),
    }
}
