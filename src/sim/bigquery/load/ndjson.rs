//! Newline-delimited JSON, plain or gzip.

use std::io::{BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::sim::bigquery::{
    jobs::job::JobError,
    load::{Failure, Input, rows::Rows},
    row::{RowChecker, RowError},
};

/// Every gzip stream begins so.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Reads the rows of every file.
pub fn read(inputs: &[Input], rows: &mut Rows<'_>) -> Result<(), Failure> {
    let compressed = |input: &Input| input.bytes.starts_with(&GZIP);
    let count = inputs.iter().filter(|input| compressed(input)).count();
    if count != 0 && count != inputs.len() {
        let message = "Cannot load compressed and uncompressed files in the same job.";
        return Err(JobError::new("invalid", None, message).into());
    }
    for input in inputs {
        let (uri, bytes) = (input.uri.as_deref(), &*input.bytes);
        match compressed(input) {
            true => read_lines(uri, BufReader::new(MultiGzDecoder::new(bytes)), rows)?,
            false => read_lines(uri, bytes, rows)?,
        }
    }
    Ok(())
}

fn read_lines(
    uri: Option<&str>,
    mut input: impl BufRead,
    rows: &mut Rows<'_>,
) -> Result<(), Failure> {
    let limit = rows.settings.load.row_bytes_max;
    let (mut position, mut line) = (0, Vec::new());
    loop {
        line.clear();
        let read = input.by_ref().take(limit as u64 + 2).read_until(b'\n', &mut line);
        let read = read.map_err(|error| {
            let message = format!("Error while reading data, error message: {error}");
            JobError::new("invalid", uri, message)
        })?;
        if read == 0 {
            return Ok(());
        }
        let row = line.trim_ascii();
        if row.len() > limit {
            let message = format!(
                "Error while reading data, error message: JSON parsing error in row starting at \
                 position {position}: Row size is larger than: {limit}."
            );
            return Err(JobError::new("invalid", uri, message).into());
        }
        if rows.counts() {
            rows.count(u64::from(!row.is_empty()), row.len());
        } else if !row.is_empty() {
            read_row(uri, row, position, rows)?;
        }
        position += read as u64;
    }
}

fn read_row(
    uri: Option<&str>,
    row: &[u8],
    position: u64,
    rows: &mut Rows<'_>,
) -> Result<(), Failure> {
    let checker = RowChecker {
        columns: rows.columns,
        ignore_unknown: rows.load.ignore_unknown,
        raw_json: true,
    };
    let checked = match serde_json::from_slice::<Map<String, Value>>(row) {
        Ok(object) => checker.check(&object),
        Err(error) => {
            let message = format!("Parser failed: {error}");
            Err(vec![RowError { location: String::new(), message }])
        }
    };
    let refused = match checked {
        Ok(cells) => match rows.push(cells, row.len()) {
            Ok(()) => return Ok(()),
            Err(message) => vec![RowError { location: String::new(), message }],
        },
        Err(errors) => errors,
    };
    let messages = refused.iter().map(|error| {
        format!(
            "Error while reading data, error message: JSON parsing error in row starting at position \
             {position}: {}",
            words(error)
        )
    });
    rows.refuse(uri, messages.collect())
}

/// A load job names an unknown field by its path: sciety/sciety#1415.
fn words(error: &RowError) -> String {
    match error.message.starts_with("no such field") {
        true => format!("No such field: {}.", error.location),
        false => error.message.clone(),
    }
}
