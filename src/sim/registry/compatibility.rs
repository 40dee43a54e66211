//! Avro: is it a schema, and can a reader with one read what a writer with another wrote?
//!
//! <https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>, followed for primitives
//! and their promotions, records (by field name or alias, defaults), enums, arrays, maps, fixed and
//! unions. Names are compared without their namespaces; logical types do not count.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

const PRIMITIVES: [&str; 8] =
    ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// Records this deep are taken as compatible; recursion ends here.
const DEPTH_MAX: usize = 32;

/// Why `new` may not follow `old` under `level`. Each is a schema preceded by those it refers to.
pub fn problem(level: &str, old: &[Value], new: &[Value]) -> Option<String> {
    let (old, new) = (Schema::of(old)?, Schema::of(new)?);
    let backward = || reads(&new, &old).err();
    let forward = || reads(&old, &new).err();
    match level {
        "BACKWARD" | "BACKWARD_TRANSITIVE" => backward(),
        "FORWARD" | "FORWARD_TRANSITIVE" => forward(),
        "FULL" | "FULL_TRANSITIVE" => backward().or_else(forward),
        _ => None,
    }
}

/// Refuses what is no Avro schema; the last one is judged, with the names of all before it.
pub fn validate(schemas: &[Value]) -> Result<(), String> {
    let mut names = HashSet::new();
    schemas.iter().try_for_each(|schema| validate_type(schema, "", &mut names, 0))
}

fn validate_type(
    schema: &Value,
    namespace: &str,
    names: &mut HashSet<String>,
    depth: usize,
) -> Result<(), String> {
    if depth > 64 {
        return Err("nested too deeply".to_owned());
    }
    match schema {
        Value::String(name) if PRIMITIVES.contains(&name.as_str()) => Ok(()),
        Value::String(name) if names.contains(&full_name(name, namespace)) => Ok(()),
        Value::String(name) if names.contains(name) => Ok(()),
        Value::String(name) => Err(format!("Undefined name: {name}")),
        Value::Array(branches) => {
            branches.iter().try_for_each(|b| validate_type(b, namespace, names, depth + 1))
        }
        Value::Object(object) => validate_object(object, namespace, names, depth),
        _ => Err("no schema".to_owned()),
    }
}

fn validate_object(
    object: &Map<String, Value>,
    namespace: &str,
    names: &mut HashSet<String>,
    depth: usize,
) -> Result<(), String> {
    let inner = |key: &str| object.get(key).ok_or_else(|| format!("{key} is missing"));
    let ty = inner("type")?;
    let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    let name = object.get("name").and_then(Value::as_str);
    match ty.as_str() {
        Some("record" | "error" | "enum" | "fixed") => {
            let name = full_name(name.ok_or("name is missing")?, namespace);
            let namespace = name.rsplit_once('.').map_or(String::new(), |(space, _)| space.into());
            names.insert(name);
            match ty.as_str() {
                Some("enum") => inner("symbols").map(drop),
                Some("fixed") => inner("size").map(drop),
                _ => validate_fields(inner("fields")?, &namespace, names, depth),
            }
        }
        Some("array") => validate_type(inner("items")?, namespace, names, depth + 1),
        Some("map") => validate_type(inner("values")?, namespace, names, depth + 1),
        _ => validate_type(ty, namespace, names, depth + 1),
    }
}

fn validate_fields(
    fields: &Value,
    namespace: &str,
    names: &mut HashSet<String>,
    depth: usize,
) -> Result<(), String> {
    let mut seen = HashSet::new();
    for field in fields.as_array().ok_or("fields must be an array")? {
        let name = field.get("name").and_then(Value::as_str).ok_or("a field has no name")?;
        if !seen.insert(name) {
            return Err(format!("Duplicate field {name}"));
        }
        let ty = field.get("type").ok_or_else(|| format!("field {name} has no type"))?;
        validate_type(ty, namespace, names, depth + 1)?;
    }
    Ok(())
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// A schema with its named types.
struct Schema<'a> {
    root: &'a Value,
    named: HashMap<&'a str, &'a Value>,
}

impl<'a> Schema<'a> {
    fn of(schemas: &'a [Value]) -> Option<Self> {
        let mut named = HashMap::new();
        schemas.iter().for_each(|schema| collect_names(schema, &mut named));
        Some(Self { root: schemas.last()?, named })
    }

    /// The type behind a name, `{"type": …}` wrappers removed.
    fn resolve(&self, mut schema: &'a Value) -> &'a Value {
        for _ in 0..DEPTH_MAX {
            schema = match schema {
                Value::String(name) => match self.named.get(short(name)) {
                    Some(named) => named,
                    None => return schema,
                },
                Value::Object(object) => match object.get("type") {
                    Some(inner @ (Value::Object(_) | Value::Array(_))) => inner,
                    Some(inner @ Value::String(name))
                        if PRIMITIVES.contains(&name.as_str())
                            || self.named.contains_key(short(name)) =>
                    {
                        inner
                    }
                    _ => return schema,
                },
                _ => return schema,
            };
        }
        schema
    }
}

fn collect_names<'a>(schema: &'a Value, named: &mut HashMap<&'a str, &'a Value>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| collect_names(branch, named)),
        Value::Object(object) => {
            if let (Some(name), Some(Value::String(_))) =
                (object.get("name").and_then(Value::as_str), object.get("type"))
            {
                named.insert(short(name), schema);
            }
            for key in ["type", "items", "values"] {
                object.get(key).into_iter().for_each(|inner| collect_names(inner, named));
            }
            let fields = object.get("fields").and_then(Value::as_array).into_iter().flatten();
            fields.filter_map(|field| field.get("type")).for_each(|ty| collect_names(ty, named));
        }
        _ => {}
    }
}

fn short(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, short)| short)
}

/// The type's word: a primitive, `record`, `enum`, `array`, `map`, `fixed`; `union`; or empty.
fn kind(schema: &Value) -> &str {
    match schema {
        Value::String(name) => name,
        Value::Array(_) => "union",
        Value::Object(object) => object.get("type").and_then(Value::as_str).unwrap_or(""),
        _ => "",
    }
}

fn reads(reader: &Schema<'_>, writer: &Schema<'_>) -> Result<(), String> {
    let resolution = Resolution { reader, writer };
    resolution.types(reader.root, writer.root, "", 0)
}

struct Resolution<'r, 'a> {
    reader: &'r Schema<'a>,
    writer: &'r Schema<'a>,
}

impl<'a> Resolution<'_, 'a> {
    fn types(
        &self,
        reader: &'a Value,
        writer: &'a Value,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        if depth > DEPTH_MAX {
            return Ok(());
        }
        let (reader, writer) = (self.reader.resolve(reader), self.writer.resolve(writer));
        if let Some(branches) = writer.as_array() {
            return branches.iter().try_for_each(|b| self.types(reader, b, path, depth + 1));
        }
        if let Some(branches) = reader.as_array() {
            let fits = |branch: &'a Value| self.types(branch, writer, path, depth + 1).is_ok();
            return match branches.iter().any(fits) {
                true => Ok(()),
                false => {
                    Err(format!("{path}: no branch of the reader's union takes {}", kind(writer)))
                }
            };
        }
        match (kind(reader), kind(writer)) {
            ("record" | "error", "record" | "error") => self.records(reader, writer, path, depth),
            ("array", "array") => self.inner(reader, writer, "items", path, depth),
            ("map", "map") => self.inner(reader, writer, "values", path, depth),
            ("enum", "enum") => enums(reader, writer, path),
            ("fixed", "fixed") if reader.get("size") == writer.get("size") => Ok(()),
            (to, from) if to == from && to != "fixed" => Ok(()),
            (to, from) if promotes(from, to) => Ok(()),
            (to, from) => Err(format!("{path}: {from} cannot be read as {to}")),
        }
    }

    fn inner(
        &self,
        reader: &'a Value,
        writer: &'a Value,
        key: &str,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        match (reader.get(key), writer.get(key)) {
            (Some(reader), Some(writer)) => self.types(reader, writer, path, depth + 1),
            _ => Ok(()),
        }
    }

    fn records(
        &self,
        reader: &'a Value,
        writer: &'a Value,
        path: &str,
        depth: usize,
    ) -> Result<(), String> {
        let written = fields(writer);
        for field in fields(reader) {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            let path = format!("{path}/{name}");
            let aliases = field.get("aliases").and_then(Value::as_array);
            let known = |written: &&Value| {
                let theirs = written.get("name");
                theirs.and_then(Value::as_str) == Some(name)
                    || aliases.is_some_and(|aliases| aliases.iter().any(|a| Some(a) == theirs))
            };
            match written.iter().find(|written| known(written)) {
                Some(written) => {
                    let (Some(to), Some(from)) = (field.get("type"), written.get("type")) else {
                        continue;
                    };
                    self.types(to, from, &path, depth + 1)?;
                }
                None if field.get("default").is_some() => {}
                None => return Err(format!("{path}: the reader's field has no default value")),
            }
        }
        Ok(())
    }
}

fn fields(record: &Value) -> &[Value] {
    record.get("fields").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn enums(reader: &Value, writer: &Value, path: &str) -> Result<(), String> {
    let symbols = |schema: &Value| -> Vec<Value> {
        schema.get("symbols").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let known = symbols(reader);
    let all_known = symbols(writer).iter().all(|symbol| known.contains(symbol));
    match all_known || reader.get("default").is_some() {
        true => Ok(()),
        false => Err(format!("{path}: the reader's enum lacks symbols and has no default")),
    }
}

fn promotes(from: &str, to: &str) -> bool {
    matches!(
        (from, to),
        ("int", "long" | "float" | "double")
            | ("long", "float" | "double")
            | ("float", "double")
            | ("string", "bytes")
            | ("bytes", "string")
    )
}
