//! Which columns BigQuery makes of an Avro schema.

use serde_json::{Value, json};

use crate::sim::bigquery::load::avro::{
    field,
    schema::{Field, Kind, Logical, Schema},
};

/// The options that decide.
#[derive(Clone, Copy, Debug)]
pub struct Derive<'a> {
    /// `useAvroLogicalTypes`. Without it every logical type is its underlying type here; BigQuery says
    /// "most" of them are.
    pub logical_types: bool,
    /// Whether nanoseconds have a BigQuery type.
    pub nanos: bool,
    /// `decimalTargetTypes`; empty for BigQuery's default, NUMERIC.
    pub decimal_targets: &'a [String],
}

impl Derive<'_> {
    /// The columns of a record, as REST documents.
    pub fn columns(&self, schema: &Schema) -> Result<Vec<Value>, String> {
        match &schema.kind {
            Kind::Record(fields) => self.fields(fields),
            _ => Err("the file's schema is not a record".to_owned()),
        }
    }

    fn fields(&self, fields: &[Field]) -> Result<Vec<Value>, String> {
        let derived = fields.iter().map(|field| self.column(&field.name, &field.schema));
        derived.filter_map(Result::transpose).collect()
    }

    /// `None` for a field that is always null: BigQuery ignores it.
    fn column(&self, name: &str, schema: &Schema) -> Result<Option<Value>, String> {
        match &schema.kind {
            Kind::Null => Ok(None),
            Kind::Union(branches) => {
                let (nullable, value) = value_of(branches)
                    .ok_or_else(|| format!("{name}: unions of several types are not simulated"))?;
                let Some(value) = value else { return Ok(None) };
                let column = self.column(name, value)?;
                Ok(column.map(|mut column| {
                    if nullable && column.get("mode") == Some(&json!("REQUIRED")) {
                        set_mode(&mut column, "NULLABLE");
                    }
                    column
                }))
            }
            Kind::Array(items) => self.repeated(name, items).map(Some),
            Kind::Map(value) => {
                let key = field("key", "STRING", "REQUIRED");
                let value = self.column("value", value)?;
                let fields: Vec<Value> = [Some(key), value].into_iter().flatten().collect();
                let mode = "REPEATED";
                Ok(Some(json!({"name": name, "type": "RECORD", "mode": mode, "fields": fields})))
            }
            Kind::Record(fields) => {
                let (mode, fields) = ("REQUIRED", self.fields(fields)?);
                Ok(Some(json!({"name": name, "type": "RECORD", "mode": mode, "fields": fields})))
            }
            _ => Ok(Some(field(name, self.scalar(schema), "REQUIRED"))),
        }
    }

    fn repeated(&self, name: &str, items: &Schema) -> Result<Value, String> {
        let item = self.column(name, items)?;
        let mut item = item.ok_or_else(|| format!("{name}: an array of nulls has no type"))?;
        if item.get("mode") == Some(&json!("REPEATED")) {
            return Err(format!("{name}: nested arrays are not supported"));
        }
        set_mode(&mut item, "REPEATED");
        Ok(item)
    }

    fn scalar(&self, schema: &Schema) -> &'static str {
        let logical = schema.logical.filter(|_| self.logical_types);
        match (&schema.kind, logical) {
            (_, Some(Logical::Decimal { precision, scale })) => self.decimal(precision, scale),
            (_, Some(Logical::Date)) => "DATE",
            (_, Some(Logical::TimeMillis | Logical::TimeMicros)) => "TIME",
            (_, Some(Logical::Timestamp(units))) if self.knows(units) => "TIMESTAMP",
            (_, Some(Logical::LocalTimestamp(units))) if self.knows(units) => "DATETIME",
            (Kind::Boolean, _) => "BOOLEAN",
            (Kind::Int | Kind::Long, _) => "INTEGER",
            (Kind::Float | Kind::Double, _) => "FLOAT",
            (Kind::Bytes | Kind::Fixed(_), _) => "BYTES",
            _ if schema.sql_type.as_deref() == Some("JSON") => "JSON",
            _ => "STRING",
        }
    }

    fn knows(&self, units: i64) -> bool {
        self.nanos || units < 1_000_000_000
    }

    /// The first of NUMERIC, BIGNUMERIC, STRING that is listed and holds the digits, else the widest
    /// of those listed (`decimalTargetTypes` in the REST reference).
    fn decimal(&self, precision: u32, scale: u32) -> &'static str {
        let listed = |ty: &str| match self.decimal_targets {
            [] => ty == "NUMERIC",
            targets => targets.iter().any(|target| target == ty),
        };
        let holds = |integer: u32, fraction: u32| precision - scale <= integer && scale <= fraction;
        let types = [("NUMERIC", holds(29, 9)), ("BIGNUMERIC", holds(39, 38)), ("STRING", true)];
        let mut listed = types.into_iter().filter(|(ty, _)| listed(ty));
        let fits = listed.clone().find(|(_, holds)| *holds);
        fits.or_else(|| listed.next_back()).map_or("NUMERIC", |(ty, _)| ty)
    }
}

fn set_mode(column: &mut Value, mode: &str) {
    if let Some(column) = column.as_object_mut() {
        column.insert("mode".into(), json!(mode));
    }
}

/// Whether a union may be null, and its other branch; `None` if it has several.
pub fn value_of(branches: &[std::sync::Arc<Schema>]) -> Option<(bool, Option<&Schema>)> {
    let mut values = branches.iter().filter(|branch| branch.kind != Kind::Null);
    let value = values.next().map(|value| &**value);
    let single = values.next().is_none();
    single.then(|| (branches.iter().any(|branch| branch.kind == Kind::Null), value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::bigquery::load::avro::schema;

    fn derived(ty: &str, logical_types: bool) -> Result<String, String> {
        let text =
            format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{ty}}}]}}"#);
        let derive = Derive { logical_types, nanos: false, decimal_targets: &[] };
        let schema = schema::parse(&text)?;
        let columns = derive.columns(&schema)?;
        let shown = columns.iter().map(|column| {
            let part = |key: &str| column[key].as_str().unwrap_or_default().to_owned();
            let inner = column["fields"].as_array().map_or(0, Vec::len);
            format!("{} {} {inner}", part("type"), part("mode"))
        });
        Ok(shown.collect::<Vec<_>>().join(","))
    }

    #[test]
    fn columns_of_types() {
        for (ty, plain, logical) in [
            (r#""int""#, "INTEGER REQUIRED 0", "INTEGER REQUIRED 0"),
            (r#"["null","double"]"#, "FLOAT NULLABLE 0", "FLOAT NULLABLE 0"),
            (r#"["boolean"]"#, "BOOLEAN REQUIRED 0", "BOOLEAN REQUIRED 0"),
            (r#""null""#, "", ""),
            (r#"{"type":"int","logicalType":"date"}"#, "INTEGER REQUIRED 0", "DATE REQUIRED 0"),
            (
                r#"{"type":"long","logicalType":"timestamp-nanos"}"#,
                "INTEGER REQUIRED 0",
                "INTEGER REQUIRED 0",
            ),
            (
                r#"{"type":"long","logicalType":"local-timestamp-millis"}"#,
                "INTEGER REQUIRED 0",
                "DATETIME REQUIRED 0",
            ),
            (
                r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":9}"#,
                "BYTES REQUIRED 0",
                "NUMERIC REQUIRED 0",
            ),
            (r#"{"type":"string","sqlType":"JSON"}"#, "JSON REQUIRED 0", "JSON REQUIRED 0"),
            (
                r#"["null",{"type":"array","items":"string"}]"#,
                "STRING REPEATED 0",
                "STRING REPEATED 0",
            ),
            (
                r#"{"type":"map","values":["null","long"]}"#,
                "RECORD REPEATED 2",
                "RECORD REPEATED 2",
            ),
            (
                r#"["null",{"type":"record","name":"S","fields":[{"name":"x","type":"int"}]}]"#,
                "RECORD NULLABLE 1",
                "RECORD NULLABLE 1",
            ),
            (
                r#"{"type":"enum","name":"E","symbols":["A"]}"#,
                "STRING REQUIRED 0",
                "STRING REQUIRED 0",
            ),
        ] {
            assert_eq!(derived(ty, false).unwrap(), plain, "{ty}");
            assert_eq!(derived(ty, true).unwrap(), logical, "{ty}");
        }
        for ty in [
            r#"["int","string"]"#,
            r#"{"type":"array","items":{"type":"array","items":"int"}}"#,
            r#"{"type":"array","items":{"type":"map","values":"int"}}"#,
        ] {
            assert!(derived(ty, true).is_err(), "{ty}");
        }
    }

    #[test]
    fn decimals_go_to_the_first_listed_type_that_holds_them() {
        let targets = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (list, precision, scale, expected) in [
            (&[][..], 38, 9, "NUMERIC"),
            (&[][..], 76, 38, "NUMERIC"),
            (&["BIGNUMERIC", "NUMERIC"][..], 38, 9, "NUMERIC"),
            (&["NUMERIC", "BIGNUMERIC"][..], 39, 9, "BIGNUMERIC"),
            (&["NUMERIC", "BIGNUMERIC"][..], 38, 10, "BIGNUMERIC"),
            (&["NUMERIC", "BIGNUMERIC"][..], 90, 10, "BIGNUMERIC"),
            (&["NUMERIC", "STRING"][..], 39, 9, "STRING"),
            (&["BIGNUMERIC"][..], 5, 2, "BIGNUMERIC"),
        ] {
            let decimal_targets = targets(list);
            let derive =
                Derive { logical_types: true, nanos: false, decimal_targets: &decimal_targets };
            assert_eq!(derive.decimal(precision, scale), expected, "{list:?} {precision},{scale}");
        }
    }
}
