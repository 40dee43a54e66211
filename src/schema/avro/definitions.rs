//! The named types that a schema and its references define.

use std::collections::{HashMap, hash_map::Entry};

use serde_json::{Map, Value};

use crate::schema::error::{Problem, SchemaError};

/// Where a named type is defined.
#[derive(Clone, Debug)]
pub(crate) struct Definition<'a> {
    /// The definition.
    pub(crate) object: &'a Map<String, Value>,
    /// Its JSON pointer.
    pub(crate) path: String,
}

/// All definitions by full name.
#[derive(Debug, Default)]
pub(crate) struct Definitions<'a> {
    by_name: HashMap<String, Definition<'a>>,
}

impl<'a> Definitions<'a> {
    /// Adds every definition in `schema`, which stands at `path` in `namespace`.
    ///
    /// Recurses as deep as the JSON does, which `serde_json` keeps under 128 levels.
    pub(crate) fn collect(
        &mut self,
        schema: &'a Value,
        namespace: &str,
        path: &str,
    ) -> Result<(), SchemaError> {
        match schema {
            Value::Array(branches) => {
                for (index, branch) in branches.iter().enumerate() {
                    self.collect(branch, namespace, &format!("{path}/{index}"))?;
                }
                Ok(())
            }
            Value::Object(object) => self.collect_object(object, namespace, path),
            _ => Ok(()),
        }
    }

    fn collect_object(
        &mut self,
        object: &'a Map<String, Value>,
        namespace: &str,
        path: &str,
    ) -> Result<(), SchemaError> {
        let part = match object.get("type") {
            Some(Value::String(name)) => match name.as_str() {
                "record" | "error" => return self.collect_record(object, namespace, path),
                "enum" | "fixed" => return self.define(object, namespace, path).map(drop),
                "array" => "items",
                "map" => "values",
                _ => return Ok(()),
            },
            _ => "type",
        };
        match object.get(part) {
            Some(inner) => self.collect(inner, namespace, &format!("{path}/{part}")),
            None => Ok(()),
        }
    }

    fn collect_record(
        &mut self,
        object: &'a Map<String, Value>,
        namespace: &str,
        path: &str,
    ) -> Result<(), SchemaError> {
        let name = self.define(object, namespace, path)?;
        let fields = object.get("fields").and_then(Value::as_array);
        for (index, field) in fields.into_iter().flatten().enumerate() {
            if let Some(ty) = field.get("type") {
                let path = format!("{path}/fields/{index}/type");
                self.collect(ty, namespace_of(&name), &path)?;
            }
        }
        Ok(())
    }

    /// Adds one definition; returns its full name.
    fn define(
        &mut self,
        object: &'a Map<String, Value>,
        namespace: &str,
        path: &str,
    ) -> Result<String, SchemaError> {
        let name = full_name(object, namespace)
            .ok_or_else(|| SchemaError::new(path, Problem::Attribute { attribute: "name" }))?;
        match self.by_name.entry(name.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Definition { object, path: path.to_owned() });
                Ok(name)
            }
            Entry::Occupied(entry) if entry.get().object == object => Ok(name),
            Entry::Occupied(_) => Err(SchemaError::new(path, Problem::Redefined { name })),
        }
    }

    /// The definition of a full name.
    pub(crate) fn get(&self, name: &str) -> Option<Definition<'a>> {
        self.by_name.get(name).cloned()
    }

    /// The full name that `name` stands for in `namespace`.
    pub(crate) fn resolve(&self, name: &str, namespace: &str) -> String {
        let bare_is_known = || self.by_name.contains_key(name);
        if name.contains('.') || namespace.is_empty() {
            return name.to_owned();
        }
        let full = format!("{namespace}.{name}");
        if !self.by_name.contains_key(&full) && bare_is_known() { name.to_owned() } else { full }
    }
}

/// The full name of a definition that stands in `namespace`; `None` without a usable name.
pub(crate) fn full_name(object: &Map<String, Value>, namespace: &str) -> Option<String> {
    let name = object.get("name")?.as_str().filter(|name| !name.is_empty())?;
    if name.contains('.') {
        return Some(name.to_owned());
    }
    let own = object.get("namespace").and_then(Value::as_str);
    match own.unwrap_or(namespace) {
        "" => Some(name.to_owned()),
        namespace => Some(format!("{namespace}.{name}")),
    }
}

/// The namespace of a full name.
pub(crate) fn namespace_of(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(namespace, _)| namespace)
}
