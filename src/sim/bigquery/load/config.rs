//! `configuration.load`: what of it is honoured, what is refused. Nothing is ignored.

use serde_json::{Map, Value};

use crate::sim::{
    bigquery::{
        error::ApiError,
        load::{options, source::Uri},
        server_fields,
        tables::TablePath,
    },
    message::Request,
    settings::LoadSettings,
    upload::{self, multipart},
};

/// The destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    project: String,
    dataset: String,
    table: String,
    /// The partition behind `$`.
    pub decorator: Option<String>,
}

impl Destination {
    /// The table.
    pub fn path(&self) -> TablePath<'_> {
        TablePath { project: &self.project, dataset: &self.dataset, table: &self.table }
    }
}

/// `sourceFormat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `NEWLINE_DELIMITED_JSON`, plain or gzip.
    Json,
    /// `AVRO`.
    Avro,
}

/// `writeDisposition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteDisposition {
    /// `WRITE_APPEND`, the default of load jobs.
    Append,
    /// `WRITE_EMPTY`.
    Empty,
}

/// One job's load, as asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadConfig {
    /// The destination.
    pub table: Destination,
    /// The objects; empty for an upload.
    pub uris: Vec<Uri>,
    /// The format.
    pub format: Format,
    /// Whether logical types of Avro become BigQuery's.
    pub logical_types: bool,
    /// `decimalTargetTypes`.
    pub decimal_targets: Vec<String>,
    /// Rows that may be bad. Only for JSON.
    pub bad_records_max: u64,
    /// Whether unknown fields are dropped.
    pub ignore_unknown: bool,
    /// Where the rows go.
    pub write: WriteDisposition,
    /// Whether a missing table is created.
    pub create_if_needed: bool,
    /// `ALLOW_FIELD_ADDITION`.
    pub add_fields: bool,
    /// `ALLOW_FIELD_RELAXATION`.
    pub relax_fields: bool,
    /// The fields of `schema`.
    pub schema: Option<Vec<Value>>,
    /// `timePartitioning` and `clustering`.
    layout: Map<String, Value>,
}

impl LoadConfig {
    /// Reads a job's body. `media`: the data came with the request.
    pub fn parse(
        body: &Map<String, Value>,
        media: bool,
        settings: &LoadSettings,
    ) -> Result<Self, ApiError> {
        let load = options::check(body)?;
        let format = match text(load, "sourceFormat")?.unwrap_or("CSV") {
            "NEWLINE_DELIMITED_JSON" => Format::Json,
            "AVRO" => Format::Avro,
            other => return Err(not_implemented(&format!("sourceFormat {other}"))),
        };
        let schema = schema(load)?;
        if schema.is_some() && format == Format::Avro {
            return Err(not_implemented("schema with AVRO, whose files have one"));
        }
        let updates = strings(load, "schemaUpdateOptions")?;
        options::check_members("schemaUpdateOptions", &updates, &options::SCHEMA_UPDATES)?;
        let decimal_targets = strings(load, "decimalTargetTypes")?;
        options::check_members("decimalTargetTypes", &decimal_targets, &options::DECIMAL_TARGETS)?;
        Ok(Self {
            table: destination_table(load)?,
            uris: uris(load, media, settings)?,
            format,
            logical_types: flag(load, "useAvroLogicalTypes")?,
            decimal_targets,
            bad_records_max: bad_records_max(load, format)?,
            ignore_unknown: flag(load, "ignoreUnknownValues")?,
            write: match text(load, "writeDisposition")?.unwrap_or("WRITE_APPEND") {
                "WRITE_APPEND" => WriteDisposition::Append,
                "WRITE_EMPTY" => WriteDisposition::Empty,
                other => return Err(not_implemented(&format!("writeDisposition {other}"))),
            },
            create_if_needed: match text(load, "createDisposition")?.unwrap_or("CREATE_IF_NEEDED") {
                "CREATE_IF_NEEDED" => true,
                "CREATE_NEVER" => false,
                other => {
                    return Err(ApiError::invalid(format!("Invalid createDisposition: {other}")));
                }
            },
            add_fields: updates.iter().any(|option| option == "ALLOW_FIELD_ADDITION"),
            relax_fields: updates.iter().any(|option| option == "ALLOW_FIELD_RELAXATION"),
            schema,
            layout: layout(load),
        })
    }

    /// The document of the table that is created.
    pub fn new_table(&self) -> Map<String, Value> {
        self.layout.clone()
    }

    /// Refuses partitioning or clustering that the table does not have.
    pub fn check_layout(&self, document: &Value) -> Result<(), ApiError> {
        let same = |key: &str, parts: &[&str]| {
            let (asked, has) = (self.layout.get(key), document.get(key));
            asked.is_none_or(|asked| {
                parts.iter().all(|part| asked.get(*part) == has.and_then(|has| has.get(*part)))
            })
        };
        if same("timePartitioning", &["type", "field"]) && same("clustering", &["fields"]) {
            return Ok(());
        }
        let name = self.table.path().name();
        Err(ApiError::invalid(format!(
            "Incompatible table partitioning specification. Destination table {name} exists with \
             another partitioning or clustering than the job's."
        )))
    }
}

/// The table id that a `jobs.insert` names, for the fault script; `None` if it names none.
pub fn destination(request: &Request) -> Option<String> {
    let content_type = request.headers.get(http::header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let two_parts = upload::is_upload(&request.path) && content_type.starts_with("multipart/");
    let body = match two_parts {
        true => multipart::split(content_type, &request.body).ok()?.metadata,
        false => request.body.clone(),
    };
    let body: Value = serde_json::from_slice(&body).ok()?;
    let id = body.pointer("/configuration/load/destinationTable/tableId")?.as_str()?;
    Some(id.split('$').next()?.to_owned())
}

fn destination_table(load: &Map<String, Value>) -> Result<Destination, ApiError> {
    let table = load.get("destinationTable").and_then(Value::as_object);
    let part = |key: &str| {
        let part = table.and_then(|table| table.get(key)).and_then(Value::as_str);
        let missing =
            || ApiError::new(400, "required", format!("Required parameter is missing: {key}"));
        part.filter(|part| !part.is_empty()).map(str::to_owned).ok_or_else(missing)
    };
    let id = part("tableId")?;
    let (table, decorator) = match id.split_once('$') {
        Some((table, decorator)) => (table.to_owned(), Some(decorator.to_owned())),
        None => (id, None),
    };
    Ok(Destination { project: part("projectId")?, dataset: part("datasetId")?, table, decorator })
}

fn uris(
    load: &Map<String, Value>,
    media: bool,
    settings: &LoadSettings,
) -> Result<Vec<Uri>, ApiError> {
    let uris = strings(load, "sourceUris")?;
    match (media, uris.len()) {
        (true, 0) => {}
        (true, _) => return Err(ApiError::invalid("An upload cannot have sourceUris.")),
        (false, 0) => {
            let message = "Load configuration must specify at least one source URI";
            return Err(ApiError::new(400, "required", message));
        }
        (false, count) if count > settings.uris_max => {
            let max = settings.uris_max;
            return Err(ApiError::invalid(format!("Too many source URIs: {count}, limit: {max}")));
        }
        (false, _) => {}
    }
    uris.iter().map(|uri| Uri::parse(uri)).collect()
}

fn schema(load: &Map<String, Value>) -> Result<Option<Vec<Value>>, ApiError> {
    let Some(schema) = load.get("schema").filter(|schema| !schema.is_null()) else {
        return Ok(None);
    };
    let mut fields = schema.get("fields").cloned().unwrap_or(Value::Null);
    server_fields::normalise_fields(&mut fields);
    match fields {
        Value::Array(fields) => Ok(Some(fields)),
        _ => Err(ApiError::invalid("schema.fields must be an array")),
    }
}

fn bad_records_max(load: &Map<String, Value>, format: Format) -> Result<u64, ApiError> {
    let max = match load.get("maxBadRecords") {
        None | Some(Value::Null) => Some(0),
        Some(value) => value.as_u64().or_else(|| value.as_str()?.parse().ok()),
    };
    let max = max.ok_or_else(|| ApiError::invalid("Invalid value for maxBadRecords"))?;
    match format {
        // "Only for CSV and NEWLINE_DELIMITED_JSON."
        Format::Avro if max > 0 => Err(ApiError::invalid("maxBadRecords does not apply to AVRO")),
        _ => Ok(max),
    }
}

fn layout(load: &Map<String, Value>) -> Map<String, Value> {
    let keys = ["timePartitioning", "clustering"].into_iter();
    let set = keys.filter_map(|key| Some((key.to_owned(), load.get(key)?.clone())));
    set.filter(|(_, value)| !value.is_null()).collect()
}

fn text<'a>(load: &'a Map<String, Value>, key: &str) -> Result<Option<&'a str>, ApiError> {
    match load.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(ApiError::invalid(format!("Invalid value for {key}"))),
    }
}

fn flag(load: &Map<String, Value>, key: &str) -> Result<bool, ApiError> {
    match load.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(ApiError::invalid(format!("Invalid value for {key}"))),
    }
}

fn strings(load: &Map<String, Value>, key: &str) -> Result<Vec<String>, ApiError> {
    let invalid = || ApiError::invalid(format!("Invalid value for {key}"));
    match load.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or_else(invalid)
        }
        Some(_) => Err(invalid()),
    }
}

fn not_implemented(what: &str) -> ApiError {
    ApiError::new(501, "notImplemented", format!("{what} is not simulated"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(load: Value) -> Result<LoadConfig, (u16, String)> {
        let mut whole = json!({"sourceUris": ["gs://b/o"], "sourceFormat": "AVRO",
            "destinationTable": {"projectId": "p", "datasetId": "d", "tableId": "t$20240101"}});
        for (key, value) in load.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let body = json!({"configuration": {"load": whole}});
        LoadConfig::parse(body.as_object().unwrap(), false, &LoadSettings::default())
            .map_err(|error| (error.status, error.reason))
    }

    #[test]
    fn defaults_are_bigquerys() {
        let load = parse(json!({})).unwrap();
        assert_eq!(
            (load.table.path().table, load.table.decorator.as_deref()),
            ("t", Some("20240101"))
        );
        assert!(load.create_if_needed && !load.ignore_unknown && !load.logical_types);
        assert_eq!((load.write, load.bad_records_max), (WriteDisposition::Append, 0));
    }

    #[test]
    fn what_is_not_simulated_is_refused_and_what_is_unknown_is_invalid() {
        let refused = |status: u16, reason: &str| (status, reason.to_owned());
        for (load, expected) in [
            (json!({"sourceFormat": "CSV"}), refused(501, "notImplemented")),
            (json!({"writeDisposition": "WRITE_TRUNCATE"}), refused(501, "notImplemented")),
            (json!({"autodetect": true}), refused(501, "notImplemented")),
            (json!({"schema": {"fields": []}}), refused(501, "notImplemented")),
            (json!({"quote": "'"}), refused(501, "notImplemented")),
            (json!({"maxBadRecord": 1}), refused(400, "invalid")),
            (json!({"maxBadRecords": 1}), refused(400, "invalid")),
            (json!({"schemaUpdateOptions": ["ALLOW_ALL"]}), refused(400, "invalid")),
            (json!({"sourceUris": []}), refused(400, "required")),
            (json!({"sourceUris": ["s3://b/o"]}), refused(400, "invalid")),
            (json!({"destinationTable": {}}), refused(400, "required")),
        ] {
            assert_eq!(parse(load.clone()).unwrap_err(), expected, "{load}");
        }
        assert!(parse(json!({"autodetect": false, "skipLeadingRows": null})).is_ok());
    }
}
