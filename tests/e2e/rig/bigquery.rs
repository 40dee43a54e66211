//! BigQuery's REST API as a reader: tables and rows, turned into canonical cells. And the public
//! emulator, local-bigquery, as a server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use super::{
    cell::{self, Cell},
    http::Http,
    place::{self, Place},
    process::{self, Process},
    storage::FakeGcs,
};

/// One column of a table.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// The name.
    pub(crate) name: String,
    /// The REST name of the type.
    pub(crate) ty: String,
    /// Whether it is REPEATED.
    pub(crate) repeated: bool,
    /// A record's fields.
    pub(crate) fields: Vec<Column>,
}

/// A dataset as a reader sees it.
#[derive(Debug)]
pub(crate) struct Dataset<'a> {
    /// The client.
    pub(crate) http: &'a Http,
    /// Scheme, host and port.
    pub(crate) endpoint: String,
    /// The project.
    pub(crate) project: &'a str,
    /// The dataset.
    pub(crate) dataset: &'a str,
    /// Whether the server is [`LocalBigQuery`]. Its insertAll decodes base64 and parses JSON text in
    /// top-level columns only (`catalog/tabledata.py`, `_select`); inside of records it keeps the
    /// text itself, as bytes or as a JSON string. BigQuery decodes both everywhere.
    pub(crate) keeps_text_in_records: bool,
}

/// Types of a record's fields in which [`LocalBigQuery`] has kept the text that it was sent.
const BYTES_AS_TEXT: &str = "BYTES of the text";
const JSON_AS_TEXT: &str = "JSON string of the text";

impl Dataset<'_> {
    fn url(&self, rest: &str) -> String {
        let Self { endpoint, project, dataset, .. } = self;
        format!("{endpoint}/bigquery/v2/projects/{project}/datasets/{dataset}{rest}")
    }

    /// A table's columns.
    pub(crate) fn columns(&self, table: &str) -> Result<Vec<Column>> {
        let document = self.http.get(&self.url(&format!("/tables/{table}")))?.json()?;
        let fields = document.get("schema").and_then(|schema| schema.get("fields"));
        let mut columns = columns(fields.with_context(|| format!("{table} has no schema"))?)?;
        if self.keeps_text_in_records {
            columns.iter_mut().for_each(|column| mark_kept_text(&mut column.fields));
        }
        Ok(columns)
    }

    /// Every row of a table, as objects of canonical cells.
    pub(crate) fn rows(&self, table: &str) -> Result<Vec<Value>> {
        let mut rows = Vec::new();
        self.each_row(table, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// Reads every row of a table, a page in memory at a time.
    pub(crate) fn each_row(
        &self,
        table: &str,
        mut each: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        let columns = self.columns(table)?;
        let mut token = String::new();
        loop {
            let page = self.page(table, &token)?;
            for row in page.get("rows").and_then(Value::as_array).into_iter().flatten() {
                each(read_record(&columns, row).with_context(|| format!("in {table}"))?)?;
            }
            match page.get("pageToken").and_then(Value::as_str) {
                Some(next) if !next.is_empty() => token = format!("&pageToken={next}"),
                _ => return Ok(()),
            }
        }
    }

    fn page(&self, table: &str, token: &str) -> Result<Value> {
        let query = "maxResults=10000&formatOptions.useInt64Timestamp=true";
        self.http.get(&self.url(&format!("/tables/{table}/data?{query}{token}")))?.json()
    }
}

fn columns(fields: &Value) -> Result<Vec<Column>> {
    let fields = fields.as_array().context("fields is not an array")?;
    fields
        .iter()
        .map(|field| {
            let text = |key: &str| field.get(key).and_then(Value::as_str).unwrap_or_default();
            Ok(Column {
                name: text("name").to_owned(),
                ty: text("type").to_owned(),
                repeated: text("mode") == "REPEATED",
                fields: field.get("fields").map(columns).transpose()?.unwrap_or_default(),
            })
        })
        .collect()
}

fn mark_kept_text(fields: &mut [Column]) {
    for field in fields {
        match field.ty.as_str() {
            "JSON" => field.ty = JSON_AS_TEXT.to_owned(),
            "BYTES" => field.ty = BYTES_AS_TEXT.to_owned(),
            _ => mark_kept_text(&mut field.fields),
        }
    }
}

/// A row or a record: `{"f": [{"v": …}, …]}`.
fn read_record(columns: &[Column], row: &Value) -> Result<Value> {
    let cells = row.get("f").and_then(Value::as_array).context("a row without f")?;
    anyhow::ensure!(cells.len() == columns.len(), "a row with {} cells", cells.len());
    let cells: Result<Vec<_>> = columns
        .iter()
        .zip(cells)
        .map(|(column, cell)| {
            let value = cell.get("v").unwrap_or(&Value::Null);
            let cell = read_cell(column, value)
                .with_context(|| format!("column {} {}: {value}", column.name, column.ty))?;
            Ok((column.name.clone(), cell))
        })
        .collect();
    Ok(cell::record(cells?))
}

fn read_cell(column: &Column, value: &Value) -> Result<Cell> {
    match value {
        Value::Null => Ok(None),
        Value::Array(elements) if column.repeated => {
            let single = Column { repeated: false, ..column.clone() };
            let cells: Result<Vec<_>> = elements
                .iter()
                .map(|element| {
                    let value = element.get("v").unwrap_or(&Value::Null);
                    Ok(read_cell(&single, value)?.unwrap_or_default())
                })
                .collect();
            Ok(cell::array(cells?))
        }
        Value::Object(_) => Ok(Some(read_record(&column.fields, value)?)),
        Value::String(text) => Ok(Some(read_scalar(&column.ty, text)?)),
        other => Ok(Some(read_scalar(&column.ty, &other.to_string())?)),
    }
}

fn read_scalar(ty: &str, source: &str) -> Result<Value> {
    Ok(match ty {
        "INTEGER" | "INT64" | "STRING" | "BYTES" | "TIMESTAMP" => cell::text(source),
        "BOOLEAN" | "BOOL" => cell::text(source.to_ascii_lowercase()),
        "FLOAT" | "FLOAT64" => cell::float(source.parse()?),
        "NUMERIC" | "BIGNUMERIC" => cell::numeric(source),
        "DATE" => cell::date(cell::parse_date(source)?),
        "TIME" => cell::time(cell::parse_time(source)?),
        "DATETIME" => cell::datetime(cell::parse_timestamp(source)?),
        "JSON" => cell::json(source)?,
        JSON_AS_TEXT => cell::json(&serde_json::from_str::<String>(source)?)?,
        BYTES_AS_TEXT => cell::text(String::from_utf8(BASE64.decode(source)?)?),
        other => bail!("a column of type {other} was not expected"),
    })
}

/// The cell of a JSON value without a schema, as a column of this type must hold it.
pub(crate) fn inferred(column: &Column, value: &Value) -> Result<Cell> {
    Ok(match (value, column.ty.as_str()) {
        (Value::Null, _) => None,
        (Value::Array(elements), _) if column.repeated => {
            let single = Column { repeated: false, ..column.clone() };
            let cells: Result<Vec<_>> = elements
                .iter()
                .map(|element| Ok(inferred(&single, element)?.unwrap_or_default()))
                .collect();
            cell::array(cells?)
        }
        (Value::Object(_), "RECORD" | "STRUCT") => Some(inferred_row(&column.fields, value)?),
        (Value::String(text), "TIMESTAMP") => Some(cell::timestamp(cell::parse_timestamp(text)?)),
        (Value::String(text), ty) => Some(read_scalar(ty, text)?),
        (Value::Number(_) | Value::Bool(_), "STRING" | "TIMESTAMP" | "JSON") => {
            bail!("a number or boolean in a {} column", column.ty)
        }
        (other, ty) => Some(read_scalar(ty, &other.to_string())?),
    })
}

/// The row of a JSON object without a schema; every filled key must have its column.
pub(crate) fn inferred_row(columns: &[Column], object: &Value) -> Result<Value> {
    let object = object.as_object().context("not an object")?;
    let cells: Result<Vec<_>> = object
        .iter()
        .map(|(key, value)| {
            if value.is_null() || value.as_array().is_some_and(Vec::is_empty) {
                return Ok((key.clone(), None));
            }
            let column = columns.iter().find(|column| column.name.eq_ignore_ascii_case(key));
            let column = column.with_context(|| format!("no column for {key}"))?;
            let cell = inferred(column, value).with_context(|| format!("column {key}"))?;
            Ok((column.name.clone(), cell))
        })
        .collect();
    Ok(cell::record(cells?))
}

/// The emulator's process.
#[derive(Debug)]
pub(crate) struct LocalBigQuery {
    port: u16,
    _process: Process,
}

impl LocalBigQuery {
    /// The only project it has.
    pub(crate) const PROJECT: &'static str = "test-project";

    /// Whether it is installed.
    pub(crate) fn installed() -> bool {
        place::cache().join("local-bigquery/venv/bin/local-bigquery").is_file()
    }

    /// Starts it over a new folder and waits until it answers.
    pub(crate) fn start(place: &Place, http: &Http) -> Result<Self> {
        Self::start_reading(place, http, None)
    }

    /// The same; load jobs read what is in `storage`.
    pub(crate) fn start_reading(
        place: &Place,
        http: &Http,
        storage: Option<&FakeGcs>,
    ) -> Result<Self> {
        let (port, grpc_port) = (place::free_port()?, place::free_port()?);
        let mut command = process::command(&place::scripts().join("local-bigquery/start"));
        command
            .arg(place.join("local-bigquery"))
            .args([port.to_string(), grpc_port.to_string()])
            .env("KCBQ_CACHE", place::cache());
        if let Some(storage) = storage {
            command.env("STORAGE_EMULATOR_HOST", storage.endpoint());
        }
        let mut process = Process::spawn("local-bigquery", &mut command, place.path())?;
        let probe =
            format!("http://127.0.0.1:{port}/bigquery/v2/projects/{}/datasets", Self::PROJECT);
        process.until("answer", Duration::from_secs(90), |_| {
            http.get(&probe).is_ok_and(|answer| answer.status == 200)
        })?;
        Ok(Self { port, _process: process })
    }

    /// Scheme, host and port.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}
