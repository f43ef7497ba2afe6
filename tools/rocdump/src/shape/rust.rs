//! Shapes as Rust source, as a program would declare them.

use std::fmt::Write;

use rocstate::format::shape::{Container, RegionClass, Schema};

/// The declarations of a region's types, and of the region itself.
pub(crate) fn source(region: &str, schema: &Schema) -> String {
    let mut to = String::new();
    for (name, container) in schema.value.iter().flat_map(|value| &value.types) {
        declare(&mut to, name, container);
        to.push('\n');
    }
    let value =
        schema.value.as_ref().map_or("/* opaque */".to_owned(), |value| value.root.to_string());
    let variable = variable(region);
    // Writing to a string does not fail.
    match schema.class {
        RegionClass::Map => writeln!(
            to,
            "let {variable}: DurableMap<{}, {value}> = store.durable_map({region:?})?;",
            schema.key
        ),
        RegionClass::Cell => {
            writeln!(to, "let {variable}: DurableCell<{value}> = store.durable_cell({region:?})?;")
        }
    }
    .unwrap_or_default();
    to
}

/// A name that Rust takes for a variable.
fn variable(region: &str) -> String {
    let letters = region.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' });
    let name: String = letters.collect::<String>().to_lowercase();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        format!("region_{name}")
    } else {
        name
    }
}

fn declare(to: &mut String, name: &str, container: &Container) {
    let derive = "#[derive(Clone, Serialize, Deserialize)]\n";
    to.push_str(derive);
    let written = match container {
        Container::Unit => writeln!(to, "struct {name};"),
        Container::Newtype(inner) => writeln!(to, "struct {name}({inner});"),
        Container::Tuple(parts) => {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            writeln!(to, "struct {name}({});", parts.join(", "))
        }
        Container::Struct(fields) => {
            let lines: Vec<String> =
                fields.iter().map(|(field, shape)| format!("    {field}: {shape},")).collect();
            writeln!(to, "struct {name} {{\n{}\n}}", lines.join("\n"))
        }
        Container::Enum(variants) => {
            let lines: Vec<String> = variants
                .values()
                .map(|(variant, of)| format!("    {},", self::variant(variant, of)))
                .collect();
            writeln!(to, "enum {name} {{\n{}\n}}", lines.join("\n"))
        }
    };
    written.unwrap_or_default();
}

fn variant(name: &str, container: &Container) -> String {
    match container {
        Container::Unit => name.to_owned(),
        Container::Tuple(parts) => {
            let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
            format!("{name}({})", parts.join(", "))
        }
        Container::Newtype(inner) => format!("{name}({inner})"),
        Container::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|(field, shape)| format!("{field}: {shape}")).collect();
            format!("{name} {{ {} }}", fields.join(", "))
        }
        Container::Enum(_) => format!("{name} /* an enum */"),
    }
}
