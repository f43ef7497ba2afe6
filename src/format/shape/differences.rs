//! Where two schemas differ, field by field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Container, Schema, Shape, ValueShape};

impl Schema {
    /// Where a declared schema differs from this stored one, a line each, outermost first.
    pub fn differences(&self, declared: &Schema) -> Vec<String> {
        let mut found = Vec::new();
        if self.class != declared.class {
            found.push(format!("it is a {:?}, declared as a {:?}", self.class, declared.class));
        }
        if self.key != declared.key {
            found.push(format!("key: stored {}, declared {}", self.key, declared.key));
        }
        match (&self.value, &declared.value) {
            (Some(stored), Some(declared)) => {
                let mut walk = Walk { stored, declared, seen: BTreeSet::new(), found: &mut found };
                walk.shapes("value", &stored.root, &declared.root);
            }
            (None, None) => {}
            (stored, declared) => {
                let name = |shape: &Option<ValueShape>| {
                    shape.as_ref().map_or("opaque".to_owned(), |shape| shape.root.to_string())
                };
                found.push(format!("value: stored {}, declared {}", name(stored), name(declared)));
            }
        }
        found
    }
}

/// Compares two value shapes side by side; each pair of named types once.
struct Walk<'a> {
    stored: &'a ValueShape,
    declared: &'a ValueShape,
    seen: BTreeSet<(&'a str, &'a str)>,
    found: &'a mut Vec<String>,
}

impl<'a> Walk<'a> {
    fn differ(&mut self, path: &str, stored: &impl fmt::Display, declared: &impl fmt::Display) {
        self.found.push(format!("{path}: stored {stored}, declared {declared}"));
    }

    fn shapes(&mut self, path: &str, stored: &'a Shape, declared: &'a Shape) {
        match (stored, declared) {
            (Shape::Named(old), Shape::Named(new)) => {
                if old != new {
                    self.differ(path, old, new);
                }
                if !self.seen.insert((old, new)) {
                    return;
                }
                match (self.stored.types.get(old), self.declared.types.get(new)) {
                    (Some(old), Some(new)) => self.containers(path, old, new),
                    (None, None) => {}
                    _ => self.differ(path, old, new),
                }
            }
            (Shape::Option(old), Shape::Option(new)) | (Shape::Seq(old), Shape::Seq(new)) => {
                self.shapes(&format!("{path}[]"), old, new);
            }
            (Shape::Array(old, a), Shape::Array(new, b)) if a == b => {
                self.shapes(&format!("{path}[]"), old, new);
            }
            (Shape::Map(old_key, old), Shape::Map(new_key, new)) => {
                self.shapes(&format!("{path}.key"), old_key, new_key);
                self.shapes(&format!("{path}.value"), old, new);
            }
            (Shape::Tuple(old), Shape::Tuple(new)) if old.len() == new.len() => {
                for (at, (old, new)) in old.iter().zip(new).enumerate() {
                    self.shapes(&format!("{path}.{at}"), old, new);
                }
            }
            (old, new) if old == new => {}
            (old, new) => self.differ(path, old, new),
        }
    }

    fn containers(&mut self, path: &str, stored: &'a Container, declared: &'a Container) {
        match (stored, declared) {
            (Container::Newtype(old), Container::Newtype(new)) => {
                self.shapes(&format!("{path}.0"), old, new);
            }
            (Container::Tuple(old), Container::Tuple(new)) if old.len() == new.len() => {
                for (at, (old, new)) in old.iter().zip(new).enumerate() {
                    self.shapes(&format!("{path}.{at}"), old, new);
                }
            }
            (Container::Struct(old), Container::Struct(new)) => self.fields(path, old, new),
            (Container::Enum(old), Container::Enum(new)) => self.variants(path, old, new),
            (old, new) if old == new => {}
            (old, new) => self.differ(path, old, new),
        }
    }

    fn fields(&mut self, path: &str, old: &'a [(String, Shape)], new: &'a [(String, Shape)]) {
        for (name, shape) in old {
            match new.iter().find(|(other, _)| other == name) {
                Some((_, other)) => self.shapes(&format!("{path}.{name}"), shape, other),
                None => self.differ(&format!("{path}.{name}"), shape, &"no such field"),
            }
        }
        for (name, shape) in new.iter().filter(|(name, _)| old.iter().all(|(old, _)| old != name)) {
            self.differ(&format!("{path}.{name}"), &"no such field", shape);
        }
        let names = |fields: &[(String, Shape)]| {
            let names: Vec<_> = fields.iter().map(|(name, _)| name.clone()).collect();
            names.join(", ")
        };
        let same_set = old.len() == new.len()
            && old.iter().all(|(name, _)| new.iter().any(|(other, _)| other == name));
        if same_set && names(old) != names(new) {
            self.differ(&format!("{path} (order of fields)"), &names(old), &names(new));
        }
    }

    fn variants(
        &mut self,
        path: &str,
        old: &'a BTreeMap<u32, (String, Container)>,
        new: &'a BTreeMap<u32, (String, Container)>,
    ) {
        let numbers: BTreeSet<u32> = old.keys().chain(new.keys()).copied().collect();
        for number in numbers {
            let at = format!("{path} (variant {number})");
            match (old.get(&number), new.get(&number)) {
                (Some((a, _)), Some((b, _))) if a != b => self.differ(&at, a, b),
                (Some((name, a)), Some((_, b))) => {
                    self.containers(&format!("{path}::{name}"), a, b);
                }
                (Some((name, _)), None) => self.differ(&at, name, &"no such variant"),
                (None, Some((name, _))) => self.differ(&at, &"no such variant", name),
                (None, None) => {}
            }
        }
    }
}
