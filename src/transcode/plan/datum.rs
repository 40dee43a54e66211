//! Rows of Avro containers: the record's own datum, with the cells of key, headers and metadata behind.
//!
//! A record's encoding is its fields' encodings, one after the other, without anything between. So a
//! datum with more fields' bytes behind it is a datum of a schema with more fields, and a value that
//! BigQuery reads from Avro as the writer meant it need not be encoded anew: it is checked, and copied.
//! What BigQuery makes of Avro:
//! <https://docs.cloud.google.com/bigquery/docs/loading-data-cloud-storage-avro#avro_conversions>.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use crate::{
    record::{Headers, Record},
    schema::{
        columns::{MAP_KEY, MAP_VALUE},
        model::{Kind, Logical, RecordType, Type},
        names::column_names,
    },
    table::{self, Column, ColumnKind, Mode, TableSchema},
    transcode::{
        avro::writer::{push_bytes, push_len, push_long},
        plan::{Presence, compile::presence},
        row::{KeySource, LaneLabel, RowSpec, ValueSource},
        settings::{KeyPlacement, Metadata},
    },
};

/// How a key's bytes become those of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyForm {
    /// An Avro datum: as they are.
    Datum,
    /// Text or bytes: behind their length.
    Sized,
}

/// What a container's datum has behind the record's own.
#[derive(Debug)]
pub struct DatumForm {
    schema: Arc<str>,
    key: Option<KeyForm>,
    headers: bool,
    metadata: bool,
}

impl DatumForm {
    /// The form of such rows, or `None` where a datum cannot stand for its row: a value has to be
    /// converted on its way into its column, or BigQuery's documents do not say that it is read so.
    pub fn compile(spec: &RowSpec, table: &TableSchema) -> Option<Self> {
        let ValueSource::Avro(ty) = &spec.value else { return None };
        let Kind::Record(record) = &ty.kind else { return None };
        let mut schemas = Schemas::default();
        let mut fields = schemas.fields(record, &table.columns)?;
        let key = match &spec.key {
            Some(key) => {
                let (form, field) = schemas.key(key, &table.columns)?;
                fields.push(field);
                Some(form)
            }
            None => None,
        };
        if let Some(name) = &spec.headers {
            fields.push(headers(table.column(name)?)?);
        }
        if spec.metadata.enabled {
            fields.extend(metadata(&spec.metadata, &table.columns)?);
        }
        let schema = json!({"type": "record", "name": "Row", "fields": fields});
        Some(Self {
            schema: schema.to_string().into(),
            key,
            headers: spec.headers.is_some(),
            metadata: spec.metadata.enabled,
        })
    }

    /// The container's schema.
    pub fn schema(&self) -> &Arc<str> {
        &self.schema
    }

    /// Appends the datum of a record whose `value` and cells have been checked.
    #[inline]
    pub fn append(&self, record: &Record<'_>, value: &[u8], lane: &LaneLabel, out: &mut Vec<u8>) {
        out.extend_from_slice(value);
        if let Some(form) = self.key {
            append_key(form, record.key, out);
        }
        if self.headers {
            append_headers(record.headers, out);
        }
        if self.metadata {
            push_bytes(lane.topic().as_bytes(), out);
            push_long(i64::from(lane.partition()), out);
            push_long(record.offset, out);
            push_optional(record.timestamp_ms, out, push_long);
        }
    }
}

fn append_key(form: KeyForm, key: Option<&[u8]>, out: &mut Vec<u8>) {
    push_optional(key, out, |key, out| match form {
        KeyForm::Datum => out.extend_from_slice(key),
        KeyForm::Sized => push_bytes(key, out),
    });
}

fn append_headers(headers: Headers<'_>, out: &mut Vec<u8>) {
    let count = headers.iter().count();
    if count > 0 {
        push_len(count, out);
        for (name, value) in headers.iter() {
            push_bytes(name.as_bytes(), out);
            push_optional(value, out, push_bytes);
        }
    }
    push_long(0, out);
}

/// A value of a union with null in front.
fn push_optional<T>(value: Option<T>, out: &mut Vec<u8>, push: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        None => push_long(0, out),
        Some(value) => {
            push_long(1, out);
            push(value, out);
        }
    }
}

/// Schemas of a container, with a name of its own for each type that must have one.
#[derive(Default)]
struct Schemas {
    names: u32,
}

impl Schemas {
    fn name(&mut self) -> String {
        self.names += 1;
        format!("T{}", self.names)
    }

    fn fields(&mut self, record: &RecordType, columns: &[Column]) -> Option<Vec<Json>> {
        let fields = record.fields.iter().zip(column_names(record));
        let field = |(field, name): (&crate::schema::model::Field, String)| {
            let column = table::find(columns, &name)?;
            Some(named(column, self.field(&field.ty, column)?))
        };
        fields.map(field).collect()
    }

    /// What a field of `ty` may be, as `column` has it.
    fn field(&mut self, ty: &Type, column: &Column) -> Option<Json> {
        if !is_name(&column.name) {
            return None;
        }
        let (presence, inner) = presence(ty);
        let schema = match (&inner.kind, &column.kind, column.mode) {
            (Kind::Array(items), _, Mode::Repeated) => self.array(items, column)?,
            (Kind::Map(values), ColumnKind::Record(entry), Mode::Repeated) => {
                self.map(values, entry)?
            }
            (Kind::Array(_) | Kind::Map(_), ..) | (_, _, Mode::Repeated) => return None,
            _ => self.value(inner, &column.kind)?,
        };
        match (presence, column.mode) {
            (Presence::Always, _) => Some(schema),
            (Presence::Optional(0), Mode::Nullable) => Some(json!(["null", schema])),
            (Presence::Optional(_), Mode::Nullable) => Some(json!([schema, "null"])),
            // No document says whether an array may be null, or that a REQUIRED column's field may.
            (Presence::Optional(_) | Presence::Union { .. }, _) => None,
        }
    }

    fn array(&mut self, items: &Type, column: &Column) -> Option<Json> {
        let is_plain = !matches!(items.kind, Kind::Array(_) | Kind::Map(_) | Kind::Union(_));
        let items = is_plain.then(|| self.value(items, &column.kind))??;
        Some(json!({"type": "array", "items": items}))
    }

    fn map(&mut self, values: &Type, entry: &[Column]) -> Option<Json> {
        let (key, value) = (table::find(entry, MAP_KEY)?, table::find(entry, MAP_VALUE)?);
        // BigQuery has names of its own for the fields of an entry.
        if key.name != MAP_KEY || value.name != MAP_VALUE {
            return None;
        }
        Some(json!({"type": "map", "values": self.field(values, value)?}))
    }

    /// What a value of `ty` may be that is not null, in a column of type `kind`.
    fn value(&mut self, ty: &Type, kind: &ColumnKind) -> Option<Json> {
        match (&ty.kind, ty.logical, kind) {
            (Kind::Record(record), logical, ColumnKind::Record(columns)) => {
                let fields = logical.is_none().then(|| self.fields(record, columns))??;
                let name = self.name();
                Some(json!({"type": "record", "name": name, "fields": fields}))
            }
            (Kind::Enum(symbols), _, ColumnKind::String) => {
                let is_readable = symbols.iter().all(|symbol| is_name(symbol));
                let symbols: Vec<&str> = symbols.iter().map(|symbol| &**symbol).collect();
                let name = self.name();
                is_readable.then(|| json!({"type": "enum", "name": name, "symbols": symbols}))
            }
            (Kind::Fixed(size), logical, _) => {
                let mut schema = json!({"type": "fixed", "name": self.name(), "size": size});
                annotate(&mut schema, logical, kind, fixed_digits(*size))?;
                Some(schema)
            }
            (Kind::Bytes, logical, _) => {
                let mut schema = json!({"type": "bytes"});
                annotate(&mut schema, logical, kind, u32::MAX)?;
                Some(schema)
            }
            _ => primitive(ty, kind),
        }
    }

    fn key(&mut self, key: &KeySource, columns: &[Column]) -> Option<(KeyForm, Json)> {
        let KeyPlacement::Column(name) = &key.placement else { return None };
        let column = table::find(columns, name)?;
        if column.mode != Mode::Nullable || !is_name(&column.name) {
            return None;
        }
        let (form, schema) = match (&key.source, &column.kind) {
            (ValueSource::String, ColumnKind::String) => (KeyForm::Sized, json!("string")),
            (ValueSource::Bytes, ColumnKind::Bytes) => (KeyForm::Sized, json!("bytes")),
            (ValueSource::Avro(ty), kind) => (KeyForm::Datum, self.value(ty, kind)?),
            _ => return None,
        };
        Some((form, named(column, json!(["null", schema]))))
    }
}

/// Types of which BigQuery reads every value that the plan takes.
fn primitive(ty: &Type, kind: &ColumnKind) -> Option<Json> {
    let logical = |ty: &str, logical: &str| json!({"type": ty, "logicalType": logical});
    Some(match (&ty.kind, ty.logical, kind) {
        (Kind::Boolean, _, ColumnKind::Bool) => json!("boolean"),
        (Kind::Int, _, ColumnKind::Int64) => json!("int"),
        (Kind::Long, _, ColumnKind::Int64) => json!("long"),
        (Kind::Float, _, ColumnKind::Float64) => json!("float"),
        (Kind::Double, _, ColumnKind::Float64) => json!("double"),
        (Kind::String, _, ColumnKind::String) => json!("string"),
        (Kind::Int, Some(Logical::Date), ColumnKind::Date) => logical("int", "date"),
        (Kind::Int, Some(Logical::TimeMillis), ColumnKind::Time) => logical("int", "time-millis"),
        (Kind::Long, Some(Logical::TimeMicros), ColumnKind::Time) => logical("long", "time-micros"),
        (Kind::Long, Some(moment), ColumnKind::Timestamp | ColumnKind::DateTime) => {
            // An instant and its wall clock in UTC are the same number.
            let local = if *kind == ColumnKind::DateTime { "local-" } else { "" };
            logical("long", &format!("{local}timestamp-{}", unit(moment)?))
        }
        _ => return None,
    })
}

fn unit(moment: Logical) -> Option<&'static str> {
    match moment {
        Logical::TimestampMillis | Logical::LocalTimestampMillis => Some("millis"),
        Logical::TimestampMicros | Logical::LocalTimestampMicros => Some("micros"),
        _ => None,
    }
}

/// Digits that any number of so many may have in `size` bytes of two's complement.
fn fixed_digits(size: usize) -> u32 {
    let bits = size.saturating_mul(8).saturating_sub(1);
    // log10(2), rounded down.
    u32::try_from(bits.saturating_mul(301) / 1_000).unwrap_or(u32::MAX)
}

/// What bytes mean in a column of type `kind`; `None` where BigQuery would not read them so.
fn annotate(
    schema: &mut Json,
    logical: Option<Logical>,
    kind: &ColumnKind,
    digits: u32,
) -> Option<()> {
    if *kind == ColumnKind::Bytes {
        return Some(());
    }
    let Some(Logical::Decimal { scale, .. }) = logical else { return None };
    let scale = u32::try_from(scale).ok()?;
    // Every value that the column holds has a place in this precision, whatever the writer's says, and
    // BigQuery takes this type for it (`decimalTargetTypes` in the reference of jobs).
    let (integer, fraction) = match kind {
        ColumnKind::Numeric => (29, 9),
        ColumnKind::BigNumeric => (39, 38),
        _ => return None,
    };
    let precision = (integer + scale).min(digits);
    let is_numeric = scale <= 9 && precision.checked_sub(scale)? <= 29;
    if scale > fraction || precision == 0 || is_numeric != (*kind == ColumnKind::Numeric) {
        return None;
    }
    let schema = schema.as_object_mut()?;
    schema.insert("logicalType".to_owned(), json!("decimal"));
    schema.insert("precision".to_owned(), json!(precision));
    schema.insert("scale".to_owned(), json!(scale));
    Some(())
}

fn headers(column: &Column) -> Option<Json> {
    let names = ["key", "value"];
    let is_ours = |name| table::find(column.fields(), name).is_some_and(|field| field.name == name);
    let value = table::find(column.fields(), "value")?;
    if !is_name(&column.name) || !names.into_iter().all(is_ours) || value.mode != Mode::Nullable {
        return None;
    }
    let fields = json!([
        {"name": "key", "type": "string"},
        {"name": "value", "type": ["null", "bytes"]},
    ]);
    let items = json!({"type": "record", "name": "Header", "fields": fields});
    Some(named(column, json!({"type": "array", "items": items})))
}

fn metadata(metadata: &Metadata, columns: &[Column]) -> Option<Vec<Json>> {
    let outer = match &metadata.record {
        Some(name) => Some(table::find(columns, name)?),
        None => None,
    };
    let columns = outer.map_or(columns, Column::fields);
    let field = |name: &str, schema: Json| {
        let column = table::find(columns, name)?;
        is_name(&column.name).then(|| named(column, schema))
    };
    let timestamp = table::find(columns, &metadata.timestamp)?;
    if timestamp.mode != Mode::Nullable {
        return None;
    }
    let fields = vec![
        field(&metadata.topic, json!("string"))?,
        field(&metadata.partition, json!("long"))?,
        field(&metadata.offset, json!("long"))?,
        field(
            &metadata.timestamp,
            json!(["null", {"type": "long", "logicalType": "timestamp-millis"}]),
        )?,
    ];
    let Some(outer) = outer else { return Some(fields) };
    let record = json!({"type": "record", "name": "Metadata", "fields": fields});
    is_name(&outer.name).then(|| vec![named(outer, record)])
}

fn named(column: &Column, schema: Json) -> Json {
    json!({"name": column.name, "type": schema})
}

/// Whether Avro takes the name as it is; BigQuery takes more.
fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
