//! Avro schemas: from their JSON text, with references, into the model.
//!
//! Written for the schemas that registries hold, so a little wider than the specification: names
//! may hold any character (Debezium derives namespaces from host names, hyphens included), a named
//! type may be used before its definition, and one definition may occur twice if both are equal.
//! Aliases, defaults and sort orders are not read: the service reads with the writer's schema.
//! Logical types that are unknown, or invalid for their type, are ignored as the specification
//! asks.

mod definitions;
pub(crate) mod logical;

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

use crate::schema::{
    avro::definitions::{Definition, Definitions, namespace_of},
    error::{Problem, SchemaError},
    model::{Field, Kind, RecordType, Type},
};

/// Most bytes of text that a schema and its references may have together.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most levels of types inside types, with named types expanded; a union counts as a level.
pub const DEPTH_MAX: usize = 64;
/// Most fields, with named types expanded wherever they are used.
pub const FIELDS_MAX: usize = 10_000;

/// Parses the Avro schema `text`, which may name types that `references` define (in any order).
///
/// # Errors
///
/// The path is a JSON pointer into `text`; in a reference it starts with `reference[n]`.
pub fn parse(text: &str, references: &[impl AsRef<str>]) -> Result<Type, SchemaError> {
    let lengths = references.iter().map(|reference| reference.as_ref().len());
    if lengths.fold(text.len(), usize::saturating_add) > TEXT_BYTES_MAX {
        let problem = Problem::Limit { what: "bytes of schema text", limit: TEXT_BYTES_MAX };
        return Err(SchemaError::new("", problem));
    }
    let schema = read(text, "")?;
    let mut documents = Vec::with_capacity(references.len());
    for (index, reference) in references.iter().enumerate() {
        let place = format!("reference[{index}]");
        documents.push((read(reference.as_ref(), &place)?, place));
    }
    let mut definitions = Definitions::default();
    definitions.collect(&schema, "", "")?;
    for (document, place) in &documents {
        definitions.collect(document, "", place)?;
    }
    let parser = Parser { definitions, done: HashMap::new(), open: Vec::new() };
    parser.top(&schema)
}

fn read(text: &str, path: &str) -> Result<Value, SchemaError> {
    serde_json::from_str(text).map_err(|error| {
        let problem = Problem::NotJson { line: error.line(), column: error.column() };
        SchemaError::new(path, problem)
    })
}

/// Where a piece of schema stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// The JSON pointer.
    path: &'a str,
    /// The namespace that names without one are in.
    namespace: &'a str,
    /// How many types enclose it.
    depth: usize,
}

impl<'a> Place<'a> {
    fn error(self, problem: Problem) -> SchemaError {
        SchemaError::new(self.path, problem)
    }

    /// The place at `path`, inside this one.
    fn inside(self, path: &'a str) -> Self {
        Self { path, depth: self.depth + 1, ..self }
    }
}

/// How large a type is with named types expanded.
#[derive(Clone, Copy, Default)]
struct Size {
    depth: usize,
    fields: usize,
}

impl Size {
    fn and(self, other: Self) -> Self {
        Self {
            depth: self.depth.max(other.depth),
            fields: self.fields.saturating_add(other.fields),
        }
    }

    fn inside_another(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

struct Parser<'a> {
    definitions: Definitions<'a>,
    /// Named types that have been parsed, by full name.
    done: HashMap<String, (Type, Size)>,
    /// The records that enclose the current place, by full name.
    open: Vec<String>,
}

impl<'a> Parser<'a> {
    fn top(mut self, schema: &'a Value) -> Result<Type, SchemaError> {
        let place = Place { path: "", namespace: "", depth: 0 };
        let ty = self.schema(schema, place)?;
        check(self.size(&ty), place)?;
        Ok(ty)
    }

    /// Any schema: a name, a union, or an object.
    fn schema(&mut self, schema: &'a Value, place: Place<'_>) -> Result<Type, SchemaError> {
        if place.depth > DEPTH_MAX {
            return Err(place.error(Problem::Limit { what: "levels", limit: DEPTH_MAX }));
        }
        match schema {
            Value::String(name) => self.by_name(name, place),
            Value::Array(branches) => self.union(branches, place),
            Value::Object(object) => self.object(object, place),
            _ => Err(place.error(Problem::Malformed { expected: "a type's name, [] or {}" })),
        }
    }

    fn union(&mut self, branches: &'a [Value], place: Place<'_>) -> Result<Type, SchemaError> {
        let mut types = Vec::with_capacity(branches.len());
        for (index, branch) in branches.iter().enumerate() {
            let path = format!("{}/{index}", place.path);
            let ty = self.schema(branch, place.inside(&path))?;
            if matches!(ty.kind, Kind::Union(_)) {
                let expected = "no union inside a union";
                return Err(SchemaError::new(path, Problem::Malformed { expected }));
            }
            types.push(ty);
        }
        Ok(Type::plain(Kind::Union(types.into())))
    }

    fn object(
        &mut self,
        object: &'a Map<String, Value>,
        place: Place<'_>,
    ) -> Result<Type, SchemaError> {
        let mut ty = match object.get("type") {
            Some(Value::String(name)) => match name.as_str() {
                "record" | "error" | "enum" | "fixed" => {
                    let name = definitions::full_name(object, place.namespace)
                        .ok_or_else(|| place.error(Problem::Attribute { attribute: "name" }))?;
                    return self.named(&name, place);
                }
                "array" => Type::plain(Kind::Array(self.part(object, "items", place)?)),
                "map" => Type::plain(Kind::Map(self.part(object, "values", place)?)),
                name => self.by_name(name, place)?,
            },
            Some(inner) => {
                let path = format!("{}/type", place.path);
                self.schema(inner, place.inside(&path))?
            }
            None => return Err(place.error(Problem::Attribute { attribute: "type" })),
        };
        annotate(&mut ty, object);
        Ok(ty)
    }

    /// The items of an array, the values of a map.
    fn part(
        &mut self,
        object: &'a Map<String, Value>,
        attribute: &'static str,
        place: Place<'_>,
    ) -> Result<Arc<Type>, SchemaError> {
        let part =
            object.get(attribute).ok_or_else(|| place.error(Problem::Attribute { attribute }))?;
        let path = format!("{}/{attribute}", place.path);
        self.schema(part, place.inside(&path)).map(Arc::new)
    }

    /// A built-in type, or one that is defined somewhere.
    fn by_name(&mut self, name: &str, place: Place<'_>) -> Result<Type, SchemaError> {
        let kind = match name {
            "null" => Kind::Null,
            "boolean" => Kind::Boolean,
            "int" => Kind::Int,
            "long" => Kind::Long,
            "float" => Kind::Float,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "string" => Kind::String,
            name => {
                let full = self.definitions.resolve(name, place.namespace);
                return self.named(&full, place);
            }
        };
        Ok(Type::plain(kind))
    }

    /// The type of this full name, wherever it is defined.
    fn named(&mut self, name: &str, place: Place<'_>) -> Result<Type, SchemaError> {
        if self.open.iter().any(|open| open == name) {
            return Ok(Type::plain(Kind::Recursive(Arc::from(name))));
        }
        if let Some((ty, _)) = self.done.get(name) {
            return Ok(ty.clone());
        }
        let Some(definition) = self.definitions.get(name) else {
            return Err(place.error(Problem::UnknownType { name: name.to_owned() }));
        };
        let place = Place { path: &definition.path, namespace: namespace_of(name), ..place };
        let mut ty = self.define(name, &definition, place)?;
        annotate(&mut ty, definition.object);
        let size = self.own_size(&ty);
        check(size, place)?;
        self.done.insert(name.to_owned(), (ty.clone(), size));
        Ok(ty)
    }

    fn define(
        &mut self,
        name: &str,
        definition: &Definition<'a>,
        place: Place<'_>,
    ) -> Result<Type, SchemaError> {
        let object = definition.object;
        let kind = match object.get("type").and_then(Value::as_str) {
            Some("enum") => symbols(object),
            Some("fixed") => size(object),
            _ => {
                self.open.push(name.to_owned());
                let fields = self.fields(object, place)?;
                self.open.pop();
                let record = RecordType { name: Arc::from(name), fields };
                return Ok(Type::plain(Kind::Record(Arc::new(record))));
            }
        };
        let kind = kind.map_err(|attribute| place.error(Problem::Attribute { attribute }))?;
        Ok(Type { name: Some(Arc::from(name)), ..Type::plain(kind) })
    }

    fn fields(
        &mut self,
        object: &'a Map<String, Value>,
        place: Place<'_>,
    ) -> Result<Vec<Field>, SchemaError> {
        let missing = || place.error(Problem::Attribute { attribute: "fields" });
        let fields = object.get("fields").and_then(Value::as_array).ok_or_else(missing)?;
        let mut parsed: Vec<Field> = Vec::with_capacity(fields.len());
        let mut names = std::collections::HashSet::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let path = format!("{}/fields/{index}", place.path);
            let field = self.field(field, place.inside(&path))?;
            if !names.insert(Arc::clone(&field.name)) {
                let name = field.name.to_string();
                return Err(SchemaError::new(path, Problem::DuplicateField { name }));
            }
            parsed.push(field);
        }
        Ok(parsed)
    }

    fn field(&mut self, field: &'a Value, place: Place<'_>) -> Result<Field, SchemaError> {
        let attribute = |attribute| place.error(Problem::Attribute { attribute });
        let name = field.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = Arc::from(name.ok_or_else(|| attribute("name"))?);
        let ty = field.get("type").ok_or_else(|| attribute("type"))?;
        let path = format!("{}/type", place.path);
        let ty = self.schema(ty, Place { path: &path, ..place })?;
        Ok(Field { name, ty, doc: field.get("doc").and_then(Value::as_str).map(Arc::from) })
    }

    /// The size of a named type that has just been parsed.
    fn own_size(&self, ty: &Type) -> Size {
        match &ty.kind {
            Kind::Record(record) => {
                let sizes = record.fields.iter().map(|field| self.size(&field.ty));
                let one_each = Size { depth: 0, fields: record.fields.len() };
                sizes.fold(one_each, Size::and).inside_another()
            }
            _ => Size::default(),
        }
    }

    /// The size of any type, from the known sizes of its records: never deeper than one definition.
    fn size(&self, ty: &Type) -> Size {
        match &ty.kind {
            Kind::Record(record) => {
                self.done.get(record.name.as_ref()).map(|(_, size)| *size).unwrap_or_default()
            }
            Kind::Array(inner) | Kind::Map(inner) => self.size(inner).inside_another(),
            Kind::Union(branches) => {
                let sizes = branches.iter().map(|branch| self.size(branch));
                sizes.fold(Size::default(), Size::and).inside_another()
            }
            _ => Size::default(),
        }
    }
}

fn check(size: Size, place: Place<'_>) -> Result<(), SchemaError> {
    if size.fields > FIELDS_MAX {
        return Err(place.error(Problem::Limit { what: "fields", limit: FIELDS_MAX }));
    }
    if size.depth > DEPTH_MAX {
        return Err(place.error(Problem::Limit { what: "levels", limit: DEPTH_MAX }));
    }
    Ok(())
}

/// Adds what an object's attributes say about its type, where the type does not say it already.
fn annotate(ty: &mut Type, object: &Map<String, Value>) {
    if ty.logical.is_none() {
        ty.logical = logical::of(object, &ty.kind);
    }
    if ty.doc.is_none() {
        let doc = object.get("doc").or_else(|| object.get("connect.doc"));
        ty.doc = doc.and_then(Value::as_str).map(Arc::from);
    }
}

/// An enum's kind, or the attribute that is wrong.
fn symbols(object: &Map<String, Value>) -> Result<Kind, &'static str> {
    let symbols = object.get("symbols").and_then(Value::as_array);
    let symbols = symbols.and_then(|symbols| {
        symbols.iter().map(|symbol| symbol.as_str().map(Arc::from)).collect::<Option<Vec<_>>>()
    });
    symbols.map(|symbols| Kind::Enum(symbols.into())).ok_or("symbols")
}

/// A fixed's kind, or the attribute that is wrong.
fn size(object: &Map<String, Value>) -> Result<Kind, &'static str> {
    let size = object.get("size").and_then(Value::as_u64);
    size.and_then(|size| usize::try_from(size).ok()).map(Kind::Fixed).ok_or("size")
}

#[cfg(test)]
mod tests;
