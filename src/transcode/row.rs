//! What a row is made of.

use std::{fmt, sync::Arc};

use crate::{
    schema::{
        columns::{self, ColumnRules},
        model::{Field, Kind, RecordType, Type},
    },
    table::{Column, ColumnKind, Mode},
    transcode::{
        error::PlanError,
        settings::{KeyPlacement, Metadata},
        writer::json::push_string,
    },
};

/// How a value is read, and its writer type where it has one.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueSource {
    /// An Avro datum of this type.
    Avro(Arc<Type>),
    /// A JSON object, read by the table's columns.
    Json,
    /// The payload of a Connect envelope of this type.
    ConnectJson(Arc<Type>),
    /// UTF-8 text.
    String,
    /// Bytes.
    Bytes,
}

/// How the key is read, and where it goes.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySource {
    /// How the key is read. [`ValueSource::Json`] in one column means any JSON value.
    pub source: ValueSource,
    /// Where it goes.
    pub placement: KeyPlacement,
}

/// What a row is made of: the writer's side of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct RowSpec {
    /// The record's value.
    pub value: ValueSource,
    /// Name of the column for a value that is not a record.
    pub value_column: String,
    /// The record's key, if it is written at all.
    pub key: Option<KeySource>,
    /// The metadata columns.
    pub metadata: Metadata,
    /// Name of the column for the headers, if they are written.
    pub headers: Option<String>,
}

impl RowSpec {
    /// A row of `value` and the metadata columns under their default names.
    pub fn new(value: ValueSource) -> Self {
        Self {
            value,
            value_column: "value".to_owned(),
            key: None,
            metadata: Metadata::default(),
            headers: None,
        }
    }

    /// The columns that such rows want: value, key, headers, metadata.
    ///
    /// For [`ValueSource::Json`] the value's columns depend on each record: infer its type and
    /// derive columns from that. Key, metadata and headers columns are never `REQUIRED`.
    ///
    /// # Errors
    /// When the writer type has no columns, or two sources want one.
    pub fn columns(&self, rules: &ColumnRules) -> Result<Vec<Column>, PlanError> {
        let mut wanted = Wanted::default();
        wanted.add("the value", source_columns(&self.value, &self.value_column, rules)?)?;
        if let Some(key) = &self.key {
            let mut columns = match &key.placement {
                KeyPlacement::Column(name) => single(&key.source, name, rules)?,
                KeyPlacement::Fields => source_columns(&key.source, "key", rules)?,
            };
            columns.iter_mut().for_each(relax);
            wanted.add("the key", columns)?;
        }
        wanted
            .add("the headers", self.headers.iter().map(|name| headers_column(name)).collect())?;
        wanted.add("the metadata", metadata_columns(&self.metadata))?;
        Ok(wanted.columns)
    }
}

#[derive(Default)]
struct Wanted {
    columns: Vec<Column>,
    sources: Vec<&'static str>,
}

impl Wanted {
    fn add(&mut self, source: &'static str, columns: Vec<Column>) -> Result<(), PlanError> {
        for column in columns {
            let same = |other: &Column| other.name.eq_ignore_ascii_case(&column.name);
            if let Some(first) = self.columns.iter().position(same) {
                let first = self.sources.get(first).copied().unwrap_or_default();
                return Err(PlanError::Clash { path: column.name, first, second: source });
            }
            self.columns.push(column);
            self.sources.push(source);
        }
        Ok(())
    }
}

fn relax(column: &mut Column) {
    if column.mode == Mode::Required {
        column.mode = Mode::Nullable;
    }
}

fn source_columns(
    source: &ValueSource,
    name: &str,
    rules: &ColumnRules,
) -> Result<Vec<Column>, PlanError> {
    match source {
        ValueSource::Avro(ty) | ValueSource::ConnectJson(ty) if is_record(ty) => {
            Ok(columns::derive(ty, rules)?)
        }
        ValueSource::Json => Ok(Vec::new()),
        _ => single(source, name, rules),
    }
}

/// The one column of a value that is not spread over columns.
fn single(source: &ValueSource, name: &str, rules: &ColumnRules) -> Result<Vec<Column>, PlanError> {
    let kind = match source {
        ValueSource::Avro(ty) | ValueSource::ConnectJson(ty) => {
            return Ok(columns::derive(&wrap(name, ty), rules)?);
        }
        ValueSource::Json => ColumnKind::Json,
        ValueSource::String => ColumnKind::String,
        ValueSource::Bytes => ColumnKind::Bytes,
    };
    Ok(vec![Column::new(name, kind)])
}

/// A record with one field.
fn wrap(name: &str, ty: &Type) -> Type {
    let field = Field { name: Arc::from(name), ty: ty.clone(), doc: None };
    Type::plain(Kind::Record(Arc::new(RecordType {
        name: Arc::from("kcbq.Single"),
        fields: vec![field],
    })))
}

/// Whether the fields of `ty` become columns of their own.
pub fn is_record(ty: &Type) -> bool {
    columns::top_record(ty).is_ok()
}

/// The column of the headers.
fn headers_column(name: &str) -> Column {
    let fields =
        vec![Column::new("key", ColumnKind::String), Column::new("value", ColumnKind::Bytes)];
    Column::new(name, ColumnKind::Record(fields)).with_mode(Mode::Repeated)
}

fn metadata_columns(metadata: &Metadata) -> Vec<Column> {
    if !metadata.enabled {
        return Vec::new();
    }
    let columns = vec![
        Column::new(&metadata.topic, ColumnKind::String),
        Column::new(&metadata.partition, ColumnKind::Int64),
        Column::new(&metadata.offset, ColumnKind::Int64),
        Column::new(&metadata.timestamp, ColumnKind::Timestamp),
    ];
    match &metadata.record {
        Some(name) => vec![Column::new(name, ColumnKind::Record(columns))],
        None => columns,
    }
}

/// A lane's topic and partition as rows carry them, escaped once.
#[derive(Clone)]
pub struct LaneLabel {
    topic: Arc<str>,
    topic_json: Box<[u8]>,
    partition: i32,
}

impl LaneLabel {
    /// Prepares the label of one lane.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        let topic = topic.into();
        let mut topic_json = Vec::new();
        push_string(&mut topic_json, &topic);
        Self { topic, topic_json: topic_json.into(), partition }
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The topic as a JSON string, quotes included.
    pub fn topic_json(&self) -> &[u8] {
        &self.topic_json
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }
}

impl fmt::Debug for LaneLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneLabel({}[{}])", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests;
