//! Connect schemas: the `schema` object of JsonConverter's envelope
//! (`{"schema": …, "payload": …}`), into the model.
//!
//! `int8`, `int16` and `int32` become [`Kind::Int`]. An optional schema becomes a union of null and
//! the type. Defaults are not read: the converter writes them into the payload. Bytes are base64
//! text in the payload.

use std::{collections::HashSet, sync::Arc};

use serde_json::Value;

use crate::schema::{
    error::{Problem, SchemaError},
    model::{Field, Kind, RecordType, Type},
    semantic,
};

/// Most bytes of schema text, when parsed from text.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most levels of types inside types.
pub const DEPTH_MAX: usize = 64;
/// Most fields.
pub const FIELDS_MAX: usize = 10_000;

/// The name of the record that stands for one entry of a map whose keys are not text.
///
/// Its fields are `key` and `value`. JsonConverter writes such a map as an array of two-element
/// arrays, so a payload holds `[key, value]` where this record stands.
pub const MAP_ENTRY: &str = "connect.MapEntry";

/// The name given to a struct that has none; an empty name would make it an inferred record.
const UNNAMED: &str = "struct";

/// Parses the text of a Connect schema.
///
/// # Errors
///
/// See [`parse`].
pub fn parse_text(text: &str) -> Result<Type, SchemaError> {
    if text.len() > TEXT_BYTES_MAX {
        let problem = Problem::Limit { what: "bytes of schema text", limit: TEXT_BYTES_MAX };
        return Err(SchemaError::new("", problem));
    }
    let schema: Value = serde_json::from_str(text).map_err(|error| {
        let problem = Problem::NotJson { line: error.line(), column: error.column() };
        SchemaError::new("", problem)
    })?;
    parse(&schema)
}

/// Parses a Connect schema.
///
/// # Errors
///
/// The path is a JSON pointer into the schema.
pub fn parse(schema: &Value) -> Result<Type, SchemaError> {
    Parser { fields: 0 }.schema(schema, "", 0)
}

struct Parser {
    /// Fields so far.
    fields: usize,
}

impl Parser {
    fn schema(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Type, SchemaError> {
        if depth > DEPTH_MAX {
            let problem = Problem::Limit { what: "levels", limit: DEPTH_MAX };
            return Err(SchemaError::new(path, problem));
        }
        let kind = self.kind(schema, path, depth)?;
        let mut ty = Type::plain(kind);
        ty.logical = text(schema, "name").and_then(|name| {
            let parameters = schema.get("parameters");
            semantic::by_name(name, &ty.kind, |key| parameters?.get(key)?.as_str())
        });
        ty.doc = text(schema, "doc").map(Arc::from);
        let optional = schema.get("optional").and_then(Value::as_bool).unwrap_or(false);
        Ok(if optional { ty.nullable() } else { ty })
    }

    fn kind(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Kind, SchemaError> {
        let error = |problem| SchemaError::new(path, problem);
        let name =
            text(schema, "type").ok_or_else(|| error(Problem::Attribute { attribute: "type" }))?;
        Ok(match name {
            "boolean" => Kind::Boolean,
            "int8" | "int16" | "int32" => Kind::Int,
            "int64" => Kind::Long,
            // The converter's own names first.
            "float" | "float32" => Kind::Float,
            "double" | "float64" => Kind::Double,
            "string" => Kind::String,
            "bytes" => Kind::Bytes,
            "array" => Kind::Array(Arc::new(self.part(schema, "items", path, depth)?)),
            "map" => self.map(schema, path, depth)?,
            "struct" => self.record(schema, path, depth)?,
            name => return Err(error(Problem::UnknownType { name: name.to_owned() })),
        })
    }

    /// The schema under `attribute`.
    fn part(
        &mut self,
        schema: &Value,
        attribute: &'static str,
        path: &str,
        depth: usize,
    ) -> Result<Type, SchemaError> {
        let missing = || SchemaError::new(path, Problem::Attribute { attribute });
        let part = schema.get(attribute).ok_or_else(missing)?;
        self.schema(part, &format!("{path}/{attribute}"), depth + 1)
    }

    /// A map with text keys, or the array of entries that any other map is written as.
    fn map(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Kind, SchemaError> {
        let key = self.part(schema, "keys", path, depth)?;
        let value = self.part(schema, "values", path, depth)?;
        // The converter looks at the key's type alone: an optional text key makes an object, too.
        if schema.pointer("/keys/type").and_then(Value::as_str) == Some("string") {
            return Ok(Kind::Map(Arc::new(value)));
        }
        let field = |name: &str, ty| Field { name: Arc::from(name), ty, doc: None };
        let fields = vec![field("key", key), field("value", value)];
        let entry = RecordType { name: Arc::from(MAP_ENTRY), fields };
        Ok(Kind::Array(Arc::new(Type::plain(Kind::Record(Arc::new(entry))))))
    }

    fn record(&mut self, schema: &Value, path: &str, depth: usize) -> Result<Kind, SchemaError> {
        let missing = || SchemaError::new(path, Problem::Attribute { attribute: "fields" });
        let fields = schema.get("fields").and_then(Value::as_array).ok_or_else(missing)?;
        self.fields = self.fields.saturating_add(fields.len());
        if self.fields > FIELDS_MAX {
            let problem = Problem::Limit { what: "fields", limit: FIELDS_MAX };
            return Err(SchemaError::new(path, problem));
        }
        let mut names = HashSet::with_capacity(fields.len());
        let mut parsed = Vec::with_capacity(fields.len());
        for (index, field) in fields.iter().enumerate() {
            let path = format!("{path}/fields/{index}");
            let name = text(field, "field").ok_or_else(|| {
                SchemaError::new(path.as_str(), Problem::Attribute { attribute: "field" })
            })?;
            if !names.insert(name) {
                let problem = Problem::DuplicateField { name: name.to_owned() };
                return Err(SchemaError::new(path, problem));
            }
            let ty = self.schema(field, &path, depth + 1)?;
            parsed.push(Field { name: Arc::from(name), ty, doc: None });
        }
        let name = text(schema, "name").filter(|name| !name.is_empty()).unwrap_or(UNNAMED);
        Ok(Kind::Record(Arc::new(RecordType { name: Arc::from(name), fields: parsed })))
    }
}

fn text<'a>(schema: &'a Value, attribute: &str) -> Option<&'a str> {
    schema.get(attribute)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        schema::{
            columns::{ColumnRules, derive},
            model::Logical,
        },
        table::{ColumnKind, Mode},
    };

    /// The type of the only field, whose schema is `schema`.
    fn field_type(schema: &str) -> Type {
        let text = format!(
            r#"{{"type":"struct","fields":[{{"field":"f",{schema}}}],"optional":false,"name":"R"}}"#
        );
        match parse_text(&text).unwrap().kind {
            Kind::Record(record) => record.fields[0].ty.clone(),
            kind => panic!("{kind:?}"),
        }
    }

    #[test]
    fn every_type_is_known() {
        let cases = [
            ("int8", Kind::Int),
            ("int16", Kind::Int),
            ("int32", Kind::Int),
            ("int64", Kind::Long),
            ("float", Kind::Float),
            ("float32", Kind::Float),
            ("double", Kind::Double),
            ("float64", Kind::Double),
            ("boolean", Kind::Boolean),
            ("string", Kind::String),
            ("bytes", Kind::Bytes),
        ];
        for (name, kind) in cases {
            assert_eq!(field_type(&format!(r#""type":"{name}""#)), Type::plain(kind), "{name}");
        }
        let array = field_type(r#""type":"array","items":{"type":"int64","optional":true}"#);
        let long = Type::plain(Kind::Long);
        assert_eq!(array, Type::plain(Kind::Array(Arc::new(long.nullable()))));
    }

    #[test]
    fn semantic_names_and_parameters_are_read() {
        let ty = field_type(
            r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","version":1,
               "parameters":{"scale":"2","connect.decimal.precision":"12"},"optional":true"#,
        );
        let decimal = Logical::Decimal { precision: Some(12), scale: 2 };
        assert_eq!(ty, Type::logical(Kind::Bytes, decimal).nullable());
        let ty = field_type(
            r#""type":"struct","name":"io.debezium.data.VariableScaleDecimal","fields":[
               {"field":"scale","type":"int32"},{"field":"value","type":"bytes"}]"#,
        );
        assert_eq!(ty.logical, Some(Logical::VariableScaleDecimal));
    }

    #[test]
    fn a_map_with_other_keys_is_an_array_of_entries() {
        let text = r#""type":"map","keys":{"type":"string"},"values":{"type":"int64"}"#;
        assert_eq!(field_type(text).kind, Kind::Map(Arc::new(Type::plain(Kind::Long))));
        let text = r#""type":"map","keys":{"type":"int32"},"values":{"type":"int64"}"#;
        let Kind::Array(entry) = field_type(text).kind else { panic!() };
        let Kind::Record(entry) = &entry.kind else { panic!() };
        assert_eq!(entry.name.as_ref(), MAP_ENTRY);
        assert_eq!(entry.fields[0].ty, Type::plain(Kind::Int));
    }

    #[test]
    fn an_unnamed_struct_is_still_declared() {
        let text = r#"{"type":"struct","fields":[{"field":"a.b","type":"int32","doc":"why"}]}"#;
        let columns = derive(&parse_text(text).unwrap(), &ColumnRules::default()).unwrap();
        assert_eq!(columns[0].name, "a_b");
        assert_eq!(columns[0].mode, Mode::Required);
        assert_eq!(columns[0].kind, ColumnKind::Int64);
        assert_eq!(columns[0].description.as_deref(), Some("why"));
    }

    #[test]
    fn errors_point_at_the_place() {
        let cases = [
            ("null", ""),
            (r#"{"type":"struct"}"#, ""),
            (r#"{"type":"struct","fields":[{"type":"int8"}]}"#, "/fields/0"),
            (r#"{"type":"struct","fields":[{"field":"a","type":"int7"}]}"#, "/fields/0"),
            (r#"{"type":"array","items":{}}"#, "/items"),
            (r#"{"type":"map","values":{"type":"int8"}}"#, ""),
            (
                r#"{"type":"struct","fields":[{"field":"a","type":"int8"},
                    {"field":"a","type":"int8"}]}"#,
                "/fields/1",
            ),
        ];
        for (text, path) in cases {
            assert_eq!(parse_text(text).unwrap_err().path, path, "{text}");
        }
        let deep = (0..=DEPTH_MAX).fold(
            serde_json::json!({"type": "int8"}),
            |items, _| serde_json::json!({"type": "array", "items": items}),
        );
        assert!(matches!(parse(&deep).unwrap_err().problem, Problem::Limit { .. }));
    }
}
