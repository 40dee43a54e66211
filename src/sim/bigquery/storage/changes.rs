//! Rows that are upserts and deletes, by the table's primary key
//! (<https://docs.cloud.google.com/bigquery/docs/change-data-capture>).
//!
//! They take effect at once, as a query without staleness sees them. A change with a smaller sequence number than
//! the last one of its key is ignored; a deletion is remembered for a while only. Only where every cell is kept: elsewhere changes
//! are rows like others.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::{Map, Value};

use crate::sim::{
    bigquery::{
        BigQuery,
        storage::{
            rpc::{Code, RpcError},
            schema::CHANGE_COLUMNS,
            stream::{Hidden, StreamName},
        },
        table::Table,
    },
    counters::Counters,
    settings::StoreMode,
};

/// The last change of each key.
#[derive(Debug, Default)]
pub struct Changes(HashMap<String, Last>);

#[derive(Clone, Debug)]
struct Last {
    sequence: Vec<u64>,
    /// When the row was deleted, if that was the change.
    deleted: Option<Duration>,
}

/// One change.
struct Change {
    is_deletion: bool,
    sequence: Vec<u64>,
    key: Vec<(String, Value)>,
    row: Map<String, Value>,
}

/// Takes the changes out of some rows.
pub fn split_off(rows: &mut Hidden) -> Vec<Map<String, Value>> {
    let [kind, _] = CHANGE_COLUMNS;
    let (changes, plain) =
        std::mem::take(&mut rows.rows).into_iter().partition(|row| row.contains_key(kind));
    let changes: Vec<_> = changes;
    rows.rows = plain;
    rows.count -= i64::try_from(changes.len()).unwrap_or_default();
    changes
}

impl BigQuery {
    /// Applies changes, all or none.
    pub(super) fn change(
        &mut self,
        stream: &StreamName<'_>,
        rows: Vec<Map<String, Value>>,
        now: Duration,
        counters: &mut Counters,
    ) -> Result<(), RpcError> {
        let settings = Arc::clone(&self.settings);
        let table = self.table_mut(stream.table);
        let table = table.map_err(|_| invalid("The table is gone."))?;
        let columns = primary_key(table);
        let changes: Result<Vec<_>, _> = rows.into_iter().map(|row| read(row, &columns)).collect();
        let changes = changes?;
        counters.appended_rows += changes.len() as u64;
        for change in changes {
            if settings.store != StoreMode::Rows {
                table.store.push(change.row, &settings, now);
                continue;
            }
            let kept = Duration::from_millis(settings.storage.deleted_kept_ms);
            if table.changes.admit(&change, now, kept) {
                let has_key = |row: &Map<String, Value>| {
                    change.key.iter().all(|(name, value)| row.get(name) == Some(value))
                };
                table.store.remove(has_key);
                if !change.is_deletion {
                    table.store.push(change.row, &settings, now);
                }
            }
        }
        Ok(())
    }
}

impl Changes {
    /// Whether a change is newer than the last of its key, which it then is itself.
    fn admit(&mut self, change: &Change, now: Duration, kept: Duration) -> bool {
        let key = Value::from_iter(change.key.iter().map(|(_, value)| value.clone())).to_string();
        let last = self.0.get(&key);
        let is_forgotten = |last: &Last| last.deleted.is_some_and(|at| at + kept <= now);
        if last.is_some_and(|last| !is_forgotten(last) && change.sequence < last.sequence) {
            return false;
        }
        let deleted = change.is_deletion.then_some(now);
        self.0.insert(key, Last { sequence: change.sequence.clone(), deleted });
        true
    }
}

/// The columns of the primary key; none where there is none.
fn primary_key(table: &Table) -> Vec<String> {
    let columns = table.document.pointer("/tableConstraints/primaryKey/columns");
    let columns = columns.and_then(Value::as_array).into_iter().flatten();
    columns.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn read(mut row: Map<String, Value>, columns: &[String]) -> Result<Change, RpcError> {
    if columns.is_empty() {
        return Err(invalid("_CHANGE_TYPE needs a table with a primary key."));
    }
    let [kind, number] = CHANGE_COLUMNS.map(|name| row.shift_remove(name).unwrap_or_default());
    let is_deletion = match kind.as_str() {
        Some("UPSERT") => false,
        Some("DELETE") => true,
        _ => return Err(invalid("The given value is not a valid CHANGE_TYPE.")),
    };
    let sequence = sequence(number.as_str().unwrap_or("0"));
    let sequence = sequence.ok_or_else(|| invalid("_CHANGE_SEQUENCE_NUMBER is not valid."))?;
    let cell = |name: &String| (name.clone(), row.get(name).cloned().unwrap_or_default());
    let key = columns.iter().map(cell).collect();
    Ok(Change { is_deletion, sequence, key, row })
}

/// One to four sections of one to sixteen hexadecimal digits, parted by slashes.
fn sequence(text: &str) -> Option<Vec<u64>> {
    let sections: Option<Vec<u64>> = text
        .split('/')
        .map(|section| {
            let is_hex = section.chars().all(|c| c.is_ascii_hexdigit()) && section.len() <= 16;
            is_hex.then(|| u64::from_str_radix(section, 16).ok())?
        })
        .collect();
    sections.filter(|sections| sections.len() <= 4)
}

fn invalid(message: &str) -> RpcError {
    RpcError::new(Code::InvalidArgument, message)
}
