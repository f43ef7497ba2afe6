//! What a declared region's keys and values look like: traced once for each pair of types.

use std::any::TypeId;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use super::Value;
use super::follow::follow;
use super::handle::WorkingTree;
use super::key::Key;
use super::stored::check_sample;
use super::trace::{Untraceable, trace};
use super::warm::{TypedWarmer, Warmer};
use crate::error::{Error, ErrorKind, Result};
use crate::format::shape::{RegionClass, Schema, ValueShape};
use crate::log::run::Run;
use crate::state::RegionRoot;

/// A schema as a program declares it.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) schema: Schema,
    pub(crate) encoded: Vec<u8>,
    /// The Rust types of key and value.
    pub(crate) types: TypeId,
    pub(crate) warmer: fn() -> Box<dyn Warmer>,
    /// See [`follow`].
    pub(crate) follow: fn(&RegionRoot, &Run) -> Result<Box<dyn WorkingTree>>,
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
    let value = shape::<V>()?;
    let read_back = value.is_none();
    let schema = Schema { class, key: K::shape(), value };
    let warmer = || Box::new(TypedWarmer::<K, V>::default()) as Box<dyn Warmer>;
    let encoded = schema.encode();
    let follow = follow::<K, V>;
    let declared = Arc::new(Declared { schema, encoded, types, warmer, follow, read_back });
    KNOWN.lock().insert(types, Arc::clone(&declared));
    Ok(declared)
}

/// The shape of a type; `None` where it cannot be traced but may still work.
fn shape<V: Value>() -> Result<Option<ValueShape>> {
    match trace::<V>() {
        Ok((shape, samples)) => {
            for sample in &samples {
                check_sample(sample)?;
            }
            Ok(Some(shape))
        }
        Err(Untraceable::Opaque) => Ok(None),
        Err(Untraceable::Unsupported(what)) => {
            let what = format!(
                "the type asks for {what}, which the format cannot answer: it keeps no names, so \
                 untagged, internally tagged and flattened types cannot be read back"
            );
            Err(Error::new(ErrorKind::Unsupported, what))
        }
    }
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
