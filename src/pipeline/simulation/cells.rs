//! The cells that a row must have, from the record's coordinates; what BigQuery stored is compared with
//! them.

use serde_json::Value;

use super::{
    bigquery::StoredRow,
    records::{Content, Contents, Fate, extra, key},
};
use crate::record::TopicPartition;

/// One cell as it must be.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Text(String),
    /// A column may have been an integer's when one row was stored, and a float's at the next.
    Number(f64),
    List(Vec<String>),
}

impl Cell {
    fn is(&self, stored: &Value) -> bool {
        match self {
            Self::Text(text) => stored.as_str() == Some(text),
            Self::Number(number) => {
                stored.as_str().and_then(|text| text.parse().ok()) == Some(*number)
            }
            Self::List(list) => stored.as_array().is_some_and(|cells| {
                cells.iter().map(Value::as_str).eq(list.iter().map(|text| Some(text.as_str())))
            }),
        }
    }
}

/// What is wrong with a stored row; `None` if it says what its record said, and nothing else.
pub(crate) fn fault(contents: &Contents, row: &StoredRow) -> Option<String> {
    let fate = contents.fate(&row.lane, row.offset);
    if !matches!(fate, Fate::Row(table) if table == row.table) {
        return Some(format!("a row of {} although {fate:?}", row.table));
    }
    let expected = expected(&contents.at(&row.lane, row.offset), &row.lane, row.offset);
    for (name, cell) in &expected {
        if !row.cells.get(name).is_some_and(|stored| cell.is(stored)) {
            return Some(format!("{name} is {:?} and must be {cell:?}", row.cells.get(name)));
        }
    }
    let known = |name: &str| expected.iter().any(|(known, _)| known == name);
    let empty = |cell: &Value| cell.is_null() || cell.as_array().is_some_and(Vec::is_empty);
    let more = row.cells.iter().find(|(name, cell)| !known(name) && !empty(cell));
    more.map(|(name, cell)| format!("{name} is {cell} and must be empty"))
}

fn expected(content: &Content, lane: &TopicPartition, offset: i64) -> Vec<(String, Cell)> {
    let text = |text: String| Cell::Text(text);
    let mut cells = vec![
        ("_kafka_topic", text(lane.topic.to_string())),
        ("_kafka_partition", text(lane.partition.to_string())),
        ("_kafka_offset", text(offset.to_string())),
        ("_kafka_timestamp", text((content.timestamp_ms * 1_000).to_string())),
        ("id", text(content.id.to_string())),
        ("n", Cell::Number(content.halves as f64 / 2.0)),
        ("tags", Cell::List(content.tags.clone())),
    ];
    if let Some(v) = &content.text {
        cells.push(("v", text(v.clone())));
    }
    if &*lane.topic != "c" {
        cells.push(("at", text((content.at_ms * 1_000).to_string())));
    }
    if &*lane.topic == "a" {
        cells.push(("_kafka_key", text(key(content))));
    }
    let mut cells: Vec<_> = cells.into_iter().map(|(name, cell)| (name.to_owned(), cell)).collect();
    if let Some(column) = content.extra {
        cells.push((format!("x{column}"), text(extra(content))));
    }
    cells
}
