//! Avro schemas as far as BigQuery reads them.

use std::{collections::HashMap, sync::Arc};

use serde_json::{Map, Value};

/// Levels of one schema; deeper ones are refused before the stack is in danger.
const DEPTH_MAX: usize = 64;

/// One schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    /// What it encodes.
    pub kind: Kind,
    /// Its logical type, where it is one on this kind.
    pub logical: Option<Logical>,
    /// BigQuery's own attribute of strings, such as `JSON` (pola-rs/polars#20041).
    pub sql_type: Option<String>,
}

/// What a schema encodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `boolean`.
    Boolean,
    /// `int`.
    Int,
    /// `long`.
    Long,
    /// `float`.
    Float,
    /// `double`.
    Double,
    /// `bytes`.
    Bytes,
    /// `string`.
    String,
    /// `fixed`, with its size.
    Fixed(usize),
    /// `enum`, with its symbols.
    Enum(Vec<String>),
    /// `array`.
    Array(Arc<Schema>),
    /// `map`.
    Map(Arc<Schema>),
    /// A union.
    Union(Vec<Arc<Schema>>),
    /// `record`.
    Record(Vec<Field>),
}

/// A record's field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its schema.
    pub schema: Arc<Schema>,
}

/// A logical type; one on the wrong kind is none, as the specification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    /// `decimal` on bytes or fixed.
    Decimal {
        /// Its precision.
        precision: u32,
        /// Its scale.
        scale: u32,
    },
    /// `date` on int.
    Date,
    /// `time-millis` on int.
    TimeMillis,
    /// `time-micros` on long.
    TimeMicros,
    /// `timestamp-*` on long, with its units in a second.
    Timestamp(i64),
    /// `local-timestamp-*` on long, with its units in a second.
    LocalTimestamp(i64),
}

/// Reads a schema's JSON; the error is a message for the client.
pub fn parse(text: &str) -> Result<Arc<Schema>, String> {
    let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Parser { names: HashMap::new(), depth: 0 }.schema(&document, "")
}

struct Parser {
    /// Named schemas; `None` while one is being read.
    names: HashMap<String, Option<Arc<Schema>>>,
    depth: usize,
}

impl Parser {
    fn schema(&mut self, document: &Value, namespace: &str) -> Result<Arc<Schema>, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("the schema is nested too deeply".to_owned());
        }
        let schema = match document {
            Value::String(name) => match primitive(name) {
                Some(kind) => Ok(Arc::new(Schema { kind, logical: None, sql_type: None })),
                None => self.named(name, namespace),
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.schema(branch, namespace));
                let kind = Kind::Union(branches.collect::<Result<_, _>>()?);
                Ok(Arc::new(Schema { kind, logical: None, sql_type: None }))
            }
            Value::Object(object) => self.object(object, namespace),
            _ => Err("a schema must be a text, an array or an object".to_owned()),
        };
        self.depth -= 1;
        schema
    }

    fn named(&self, name: &str, namespace: &str) -> Result<Arc<Schema>, String> {
        match self.names.get(&full_name(name, namespace)) {
            Some(Some(schema)) => Ok(Arc::clone(schema)),
            Some(None) => Err(format!("recursive schemas are not supported: {name}")),
            None => Err(format!("unknown type: {name}")),
        }
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
    ) -> Result<Arc<Schema>, String> {
        let ty = object.get("type").ok_or("a schema has no type")?;
        let Value::String(ty) = ty else { return self.schema(ty, namespace) };
        let kind = match ty.as_str() {
            "record" | "enum" | "fixed" => return self.define(ty, object, namespace),
            "array" => Kind::Array(self.schema(member(object, "items")?, namespace)?),
            "map" => Kind::Map(self.schema(member(object, "values")?, namespace)?),
            name => match primitive(name) {
                Some(kind) => kind,
                None => return self.named(name, namespace),
            },
        };
        Ok(Arc::new(annotated(kind, object)))
    }

    /// A record, an enum or a fixed, under its name.
    fn define(
        &mut self,
        ty: &str,
        object: &Map<String, Value>,
        namespace: &str,
    ) -> Result<Arc<Schema>, String> {
        let name = text(object, "name").ok_or("a named schema has no name")?;
        let namespace = text(object, "namespace").unwrap_or(namespace);
        let full = full_name(name, namespace);
        full.split('.').try_for_each(check_name)?;
        if self.names.insert(full.clone(), None).is_some() {
            return Err(format!("{full} is defined twice"));
        }
        let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let kind = match ty {
            "record" => Kind::Record(self.fields(object, namespace)?),
            "enum" => Kind::Enum(symbols(object)?),
            _ => {
                let size = object.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                Kind::Fixed(size.ok_or("a fixed has no size")?)
            }
        };
        let schema = Arc::new(annotated(kind, object));
        self.names.insert(full.clone(), Some(Arc::clone(&schema)));
        Ok(schema)
    }

    fn fields(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
    ) -> Result<Vec<Field>, String> {
        let fields = member(object, "fields")?.as_array().ok_or("fields must be an array")?;
        let field = |field: &Value| {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field has no name")?;
            check_name(name)?;
            let ty = field.get("type").ok_or_else(|| format!("the field {name} has no type"))?;
            Ok(Field { name: name.to_owned(), schema: self.schema(ty, namespace)? })
        };
        fields.iter().map(field).collect()
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn annotated(kind: Kind, object: &Map<String, Value>) -> Schema {
    let logical = text(object, "logicalType").and_then(|name| logical(name, &kind, object));
    let sql_type = text(object, "sqlType").map(str::to_owned);
    Schema { kind, logical, sql_type }
}

fn logical(name: &str, kind: &Kind, object: &Map<String, Value>) -> Option<Logical> {
    let number = |key: &str| object.get(key)?.as_u64().and_then(|value| u32::try_from(value).ok());
    match (name, kind) {
        ("decimal", Kind::Bytes | Kind::Fixed(_)) => {
            let (precision, scale) = (number("precision")?, number("scale").unwrap_or(0));
            let fits = precision > 0 && scale <= precision;
            fits.then_some(Logical::Decimal { precision, scale })
        }
        ("date", Kind::Int) => Some(Logical::Date),
        ("time-millis", Kind::Int) => Some(Logical::TimeMillis),
        ("time-micros", Kind::Long) => Some(Logical::TimeMicros),
        (name, Kind::Long) => {
            let (base, unit) = name.rsplit_once('-')?;
            let units = match unit {
                "millis" => 1_000,
                "micros" => 1_000_000,
                "nanos" => 1_000_000_000,
                _ => return None,
            };
            match base {
                "timestamp" => Some(Logical::Timestamp(units)),
                "local-timestamp" => Some(Logical::LocalTimestamp(units)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn symbols(object: &Map<String, Value>) -> Result<Vec<String>, String> {
    let symbols = member(object, "symbols")?.as_array().ok_or("symbols must be an array")?;
    let symbol = |symbol: &Value| {
        let symbol = symbol.as_str().ok_or("a symbol must be a text")?;
        check_name(symbol)?;
        Ok(symbol.to_owned())
    };
    symbols.iter().map(symbol).collect()
}

fn member<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a Value, String> {
    object.get(key).ok_or_else(|| format!("a schema has no {key}"))
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// `[A-Za-z_][A-Za-z0-9_]*`: BigQuery says so of names and of namespaces.
fn check_name(name: &str) -> Result<(), String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(format!("invalid name: {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_their_namespace() {
        let schema = parse(
            r#"{"type":"record","name":"R","namespace":"a.b","fields":[
                {"name":"x","type":{"type":"enum","name":"E","symbols":["P","Q"]}},
                {"name":"y","type":["null","E"]},{"name":"z","type":"a.b.E"}]}"#,
        )
        .unwrap();
        let Kind::Record(fields) = &schema.kind else { panic!("{schema:?}") };
        assert_eq!(fields[2].schema.kind, Kind::Enum(vec!["P".into(), "Q".into()]));
        assert_eq!(fields[0].schema, fields[2].schema);
    }

    #[test]
    fn logical_types_only_on_their_own_kind() {
        let logical = |text: &str| parse(text).unwrap().logical;
        for (text, expected) in [
            (r#"{"type":"int","logicalType":"date"}"#, Some(Logical::Date)),
            (r#"{"type":"long","logicalType":"date"}"#, None),
            (
                r#"{"type":"long","logicalType":"timestamp-millis"}"#,
                Some(Logical::Timestamp(1_000)),
            ),
            (
                r#"{"type":"long","logicalType":"local-timestamp-micros"}"#,
                Some(Logical::LocalTimestamp(1_000_000)),
            ),
            (r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":5}"#, None),
            (
                r#"{"type":"bytes","logicalType":"decimal","precision":4}"#,
                Some(Logical::Decimal { precision: 4, scale: 0 }),
            ),
            (r#"{"type":"string","logicalType":"uuid"}"#, None),
        ] {
            assert_eq!(logical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_bigquery_cannot_read() {
        for text in [
            r#"{"type":"record","name":"R","namespace":"a-b","fields":[]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"a-b","type":"int"}]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#,
            r#"{"type":"record","name":"R","fields":[{"name":"r","type":"Other"}]}"#,
            r#"{"type":"fixed","name":"F"}"#,
            "7",
            "{",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(65), "}".repeat(65));
        assert!(parse(&deep).is_err());
    }
}
